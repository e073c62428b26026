/*
 * What the mapper's tests see of every access to a table entry (mm/paging/pte.h). Included before
 * the shipped sources by tests/property/hooked_*.c, which compile them otherwise unchanged.
 */
#ifndef QUIRE_TESTS_PROPERTY_PTE_HOOKS_H
#define QUIRE_TESTS_PROPERTY_PTE_HOOKS_H

#include <stdint.h>

void hook_touched(const uint64_t *slot);
void hook_stored(uint64_t *slot);

#define PTE_TOUCHED(slot) hook_touched(slot)
#define PTE_STORED(slot) hook_stored(slot)

#endif
