/*
 * The kinds with a fifth level (57-bit addresses): the shipped sources, compiled with KIND_LEVELS 5
 * (five_kernel.c, five_user.c, five_ept.c, five_npt.c).
 */
#ifndef QUIRE_TESTS_PROPERTY_FIVE_LEVELS_H
#define QUIRE_TESTS_PROPERTY_FIVE_LEVELS_H

#include "mm/paging/kind.h"

extern const struct table_kind kernel5_kind, user5_kind, ept5_kind, npt5_kind;

#endif
