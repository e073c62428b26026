/* See mm/paging/copies.h. */
#include "mm/paging/copies.h"

#include "mm/paging/pte.h"

#define SLOTS (PAGE_SIZE / sizeof(uint64_t))

void copies_start(struct copies *copies, struct table *t)
{
    copies->table = t;
    copies->count = 0;
    copies->spare.first = 0;
}

/* Fills `to` with the leaves at `from`, of which none is absent: they keep these bits, and get
 * those. A function of its own has all registers for its loop; this and the next read 16 slots a
 * round. */
static __attribute__((noinline)) void copy_changed(uint64_t *to, const uint64_t *from,
                                                   uint64_t keep, uint64_t bits)
{
    for (const uint64_t *end = from + SLOTS; from < end; from += 16, to += 16)
#pragma GCC unroll 16
        for (unsigned i = 0; i < 16; i++)
            to[i] = (pte_scan(&from[i]) & keep) | bits;
}

/* The bits in which any entry of `a` differs from its fellow in `b`. */
static __attribute__((noinline)) uint64_t differing(const uint64_t *a, const uint64_t *b)
{
    uint64_t any[4] = {0};

    for (const uint64_t *end = a + SLOTS; a < end; a += 16, b += 16)
#pragma GCC unroll 16
        for (unsigned i = 0; i < 16; i++)
            any[i % 4] |= pte_scan(&a[i]) ^ pte_scan(&b[i]);
    return any[0] | any[1] | any[2] | any[3];
}

/* Every CPU forgets the old nodes; what hardware marked in them meanwhile goes into the copies, and
 * their frames serve again. */
static void settle(struct copies *copies)
{
    struct table *t = copies->table;
    uint64_t marks = t->kind->accessed_bit | t->kind->dirty_bit;
    struct flush_batch now;

    flush_begin(&now, t);
    flush_whole(&now);
    flush_commit(&now);
    for (unsigned n = 0; n < copies->count; n++) {
        const uint64_t *old = direct(hpa(copies->pair[n].old));
        uint64_t *new = direct(hpa(copies->pair[n].new));
        bool marked = differing(old, new) & marks;

        for (unsigned i = 0; marked && i < SLOTS; i++)
            if (pte_peek(&old[i]) & ~pte_peek(&new[i]) & marks)
                pte_set_bits(&new[i], pte_peek(&old[i]) & marks);
        supply_push(t, &copies->spare, hpa(copies->pair[n].old));
    }
    copies->count = 0;
}

uint64_t copies_replace(struct copies *copies, uint64_t *above, uint64_t old, uint64_t keep,
                        uint64_t bits)
{
    struct table *t = copies->table;

    if (copies->count == COPIES)
        settle(copies);
    if (!copies->spare.first && supply_take(t, 1, &copies->spare) != E_OK)
        return 0;
    uint64_t new = supply_pop(t, &copies->spare);
    copy_changed(direct(hpa(new)), direct(hpa(old)), keep, bits);
    count_set(t, new, SLOTS);
    uint64_t entry = pte_read(above);
    while (!pte_exchange_if(above, &entry, new | (entry & ~ENTRY_ADDRESS)))
        continue;
    copies->pair[copies->count].old = old;
    copies->pair[copies->count++].new = new;
    return new;
}

void copies_end(struct copies *copies)
{
    if (copies->count)
        settle(copies);
    supply_return(copies->table, &copies->spare);
}
