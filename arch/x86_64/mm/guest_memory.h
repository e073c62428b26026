/*
 * A guest's memory as its own accesses find it: through its second-level table, with the rights
 * that this gives, leaving the marks there that they leave.
 */
#ifndef QUIRE_ARCH_X86_64_MM_GUEST_MEMORY_H
#define QUIRE_ARCH_X86_64_MM_GUEST_MEMORY_H

#include "mm/paging/table.h"

/* For the accesses of one instruction, which mostly are close together: what the last one came by
 * serves the next. Nobody may change the table's translations meanwhile: its guest has exited, and
 * who holds this holds the guests' lock. Begins with `table` alone. */
struct guest_view {
    struct table *table;
    struct mapping page; /* that was come by last, if `known` */
    bool known;
};

/* The bytes from `at` to the end of its page of 4 KiB. E_OK; E_PERM where the table does not let
 * `access` through; else as table_translate(). *allowed: the rights that it gives, if any. */
int guest_memory_reach(struct guest_view *view, gpa_t at, unsigned access, uint8_t **bytes,
                       unsigned *allowed);

/* Sets A in each entry that leads to `at`, and D in its leaf for a write, as the CPU does at an
 * access. E_UNSUPPORTED where the table keeps neither. Nothing to flush: no translation changes. */
int guest_memory_mark(struct guest_view *view, gpa_t at, bool dirty);

#endif
