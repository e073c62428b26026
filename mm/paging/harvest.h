/*
 * Harvest: what hardware has marked accessed and dirty, collected and cleared. Part of the template
 * (mm/paging/template.h).
 */
#ifndef QUIRE_MM_PAGING_HARVEST_H
#define QUIRE_MM_PAGING_HARVEST_H

#include "mm/paging/read.h"

static int OP(harvest)(struct table *t, uint64_t in, uint64_t size, unsigned clear, visit_fn fn,
                       void *ctx, struct flush_batch *batch)
{
    uint64_t bits = (clear & HARVEST_CLEAR_A ? KIND.accessed_bit : 0) |
                    (clear & HARVEST_CLEAR_D ? KIND.dirty_bit : 0);
    int error = check_range(in, size), stop = 0;
    struct table_cursor c;
    struct mapping page;
    uint64_t entry;

    if (error)
        return error;
    if (!t->caps.accessed_dirty)
        return E_UNSUPPORTED;
    lock_take(&t->lock);
    cursor_start(&c, t, in, in + size - 1);
    for (bool more = true; more && find_leaf(&c, &entry); more = advance(&c, slot_last(&c))) {
        if (entry & bits) {
            entry = pte_clear_bits(slot_of(&c), bits);
            flush_add(batch, align_down(c.at, size_of(c.level)), slot_last(&c), c.level);
        }
        if (!fn || !(entry & ACCESSED_DIRTY))
            continue;
        describe_leaf(&c, entry, &page);
        stop = fn(ctx, &page);
        if (stop)
            break;
    }
    lock_drop(&t->lock);
    return stop;
}

#endif
