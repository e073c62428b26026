/*
 * Of the plain model of guests' memory (memory_model.h) what concerns slots: they are added,
 * removed and given other rights, pages are given back, and equal ones kept once, with any number
 * of frames left.
 */
#ifndef QUIRE_TESTS_UNIT_MODEL_SLOTS_H
#define QUIRE_TESTS_UNIT_MODEL_SLOTS_H

#include "tests/unit/memory_model.h"

/* Whatever a guest's memory goes through: number `which`, below CHANGES, or any of them by chance.
 */
#define CHANGES 19u
void one_change(struct model *model, unsigned which);
void any_change(struct model *model);

/* Slots, rights and what is counted are what the model says; and with the contents. */
void expect_slots(const struct model *model);
void judge_all(const struct model *model);

#endif
