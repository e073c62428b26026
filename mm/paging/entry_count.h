/*
 * How many entries of a table are present: a number of 10 bits for each quarter of it, in one word
 * of 40 bits, which is what the record of the table's frame has room for (mm/frames/frame.h).
 *
 *    39      30 29      20 19      10 9        0
 *   +----------+----------+----------+----------+
 *   |  last 1/4|          |          | first 1/4|
 *   +----------+----------+----------+----------+
 *
 * Such words add and subtract as plain numbers do. One of 0 says that the table is empty, and may
 * go; a number of 0 in it, that a page mapped into that quarter cannot overlap another, so that its
 * slot, which nobody may have touched for long, need not be waited for.
 */
#ifndef QUIRE_MM_ENTRY_COUNT_H
#define QUIRE_MM_ENTRY_COUNT_H

#include <stdint.h>

#include "mm/paging/kind.h"

#define ENTRY_COUNT_BITS 10
#define ENTRY_COUNT_MASK BITS(ENTRY_COUNT_BITS - 1, 0)

/* A quarter of a table has two to the power of this many slots. */
static inline unsigned quarter_shift(const struct table_kind *kind)
{
    return kind->index_bits - 2u;
}

/* The quarter that a slot lies in. */
static inline unsigned quarter_of(const struct table_kind *kind, unsigned slot)
{
    return slot >> quarter_shift(kind);
}

/* The count of one present entry. */
static inline uint64_t entry_at(const struct table_kind *kind, unsigned slot)
{
    return UINT64_C(1) << ENTRY_COUNT_BITS * quarter_of(kind, slot);
}

/* The count of a table of which every entry is present. */
static inline uint64_t all_entries(const struct table_kind *kind)
{
    uint64_t quarter = UINT64_C(1) << quarter_shift(kind);

    return quarter | quarter << ENTRY_COUNT_BITS | quarter << 2 * ENTRY_COUNT_BITS |
           quarter << 3 * ENTRY_COUNT_BITS;
}

/* The count of all slots before `end`, which may be the number of slots. */
static inline uint64_t entries_before(const struct table_kind *kind, unsigned end)
{
    unsigned shift = ENTRY_COUNT_BITS * quarter_of(kind, end);
    uint64_t begun = end & ((UINT64_C(1) << quarter_shift(kind)) - 1);

    return (all_entries(kind) & ((UINT64_C(1) << shift) - 1)) | begun << shift;
}

/* The count of `count` slots from `first` on. */
static inline uint64_t entries_of(const struct table_kind *kind, unsigned first, unsigned count)
{
    if (count == 1u << kind->index_bits) /* the commonest */
        return all_entries(kind);
    return entries_before(kind, first + count) - entries_before(kind, first);
}

static inline unsigned entries_in_quarter(uint64_t entries, unsigned quarter)
{
    return (unsigned)(entries >> ENTRY_COUNT_BITS * quarter & ENTRY_COUNT_MASK);
}

static inline unsigned entries_total(uint64_t entries)
{
    return entries_in_quarter(entries, 0) + entries_in_quarter(entries, 1) +
           entries_in_quarter(entries, 2) + entries_in_quarter(entries, 3);
}

/* The count for people: "161 (128+33+0+0)". Returns buffer. */
#define ENTRIES_TEXT 32
const char *entries_text(char buffer[ENTRIES_TEXT], uint64_t entries);

#endif
