/*
 * The kinds with a fifth level (57-bit addresses), as data: the same descriptors with other
 * numbers, on one instance of the walker that reads the descriptor at run time.
 */
#ifndef QUIRE_TESTS_PROPERTY_FIVE_LEVELS_H
#define QUIRE_TESTS_PROPERTY_FIVE_LEVELS_H

#include "mm/paging/kind.h"

extern struct table_kind kernel5_kind, user5_kind, ept5_kind;

/* Fills them from the shipped descriptors; to be called before they are used. */
void five_levels_init(void);

#endif
