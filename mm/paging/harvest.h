/*
 * Harvest: what hardware has marked accessed and dirty, collected and cleared. Part of the template
 * (mm/paging/template.h).
 */
#ifndef QUIRE_MM_PAGING_HARVEST_H
#define QUIRE_MM_PAGING_HARVEST_H

#include "mm/paging/read.h"

/* The cursor's leaf and, at level 1, those behind it in its node; the cursor ends at the last slot
 * that was looked at. `wanted`: marks that are of interest. Returns what `fn` stopped with, or 0.
 */
static inline int harvest_slots(struct table_cursor *c, uint64_t bits, uint64_t wanted, visit_fn fn,
                                void *ctx, struct flush_batch *batch)
{
    uint64_t *slot = slot_of(c), at = c->at;
    unsigned slots = c->level == 1 ? slots_to(c, c->last) : 1;
    struct mapping page;
    int stop = 0;

    for (unsigned i = 0; i < slots && !stop; i++) {
        uint64_t entry = pte_read(&slot[i]);

        if (!(entry & wanted) || !is_present(entry))
            continue;
        c->at = at + ((uint64_t)i << PAGE_SHIFT);
        if (entry & bits) {
            entry = pte_clear_bits(&slot[i], bits);
            flush_add(batch, align_down(c->at, size_of(c->level)), slot_last(c), c->level);
        }
        if (!fn || !(entry & ACCESSED_DIRTY))
            continue;
        describe_leaf(c, entry, &page);
        stop = fn(ctx, &page);
    }
    c->at = at + ((uint64_t)(slots - 1) << PAGE_SHIFT);
    return stop;
}

static int OP(harvest)(struct table *t, uint64_t in, uint64_t size, unsigned clear, visit_fn fn,
                       void *ctx, struct flush_batch *batch)
{
    uint64_t bits = (clear & HARVEST_CLEAR_A ? KIND.accessed_bit : 0) |
                    (clear & HARVEST_CLEAR_D ? KIND.dirty_bit : 0);
    int error = check_range(in, size), stop = 0;
    struct table_cursor c;
    uint64_t entry;

    if (error)
        return error;
    if (!t->caps.accessed_dirty)
        return E_UNSUPPORTED;
    lock_take(&t->lock);
    cursor_start(&c, t, in, in + size - 1);
    for (bool more = true; more && !stop && find_leaf(&c, &entry);
         more = advance(&c, slot_last(&c)))
        stop = harvest_slots(&c, bits, bits | (fn ? ACCESSED_DIRTY : 0), fn, ctx, batch);
    lock_drop(&t->lock);
    return stop;
}

#endif
