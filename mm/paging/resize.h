/*
 * Split and merge: the same translations by leaves of another size. Part of the template
 * (mm/paging/template.h).
 */
#ifndef QUIRE_MM_PAGING_RESIZE_H
#define QUIRE_MM_PAGING_RESIZE_H

#include "mm/paging/build.h"

/* One pass over the leaves above level `bottom`: counts the nodes that their split takes, or, with
 * a supply, splits them. */
static inline void split_leaves(struct table *t, uint64_t in, uint64_t last, unsigned bottom,
                                struct plan *plan, struct supply *supply, struct flush_batch *batch)
{
    struct table_cursor c;
    uint64_t done;

    cursor_start(&c, t, in, last);
    do {
        while (is_present(walk(&c, bottom)) && c.level > bottom && supply)
            install(&c, supply, 0, 0, 0, batch);
        done = slot_last(&c) < last ? slot_last(&c) : last;
        if (c.level == bottom)
            done = slots_last(&c, slots_to(&c, last)); /* nothing here is larger */
        else if (is_present(read_entry(&c)))
            plan_below(plan, &c, done, bottom);
    } while (advance(&c, done));
}

static int OP(split)(struct table *t, uint64_t in, uint64_t size, unsigned bottom,
                     struct flush_batch *batch)
{
    uint64_t last = in + size - 1;
    int error = check_range(in, size);
    struct plan plan;
    struct supply supply;

    if (error)
        return error;
    if (bottom < 1 || bottom > 2)
        return E_INVAL;
    lock_take(&t->lock);
    plan_start(&plan);
    split_leaves(t, in, last, bottom, &plan, NULL, batch);
    error = supply_take(t, plan.needed, &supply);
    if (!error) {
        split_leaves(t, in, last, bottom, NULL, &supply, batch);
        invariant(supply.first == 0);
    }
    lock_drop(&t->lock);
    return error;
}

/* May a leaf above level 1 have the rights of this one? */
static inline bool may_grow(const struct table *t, uint64_t leaf, unsigned level)
{
    return !t->caps.exec_small || !(KIND.decode(leaf, level, &t->caps).rights & RIGHT_X);
}

/* Are the slots of the cursor's node leaves that one leaf, a level up, could stand for? `ad`: what
 * A and D any of them has. */
static inline bool can_merge(const struct table_cursor *c, uint64_t *ad)
{
    const uint64_t *slots = slots_of(c, c->level);
    uint64_t first = pte_read(&slots[0]) & ~ACCESSED_DIRTY, step = size_of(c->level);

    *ad = 0;
    if (!is_present(first) || !is_leaf(first, c->level) || !may_grow(c->table, first, c->level) ||
        !is_aligned(leaf_address(first, c->level), size_of(c->level + 1)))
        return false;
    for (unsigned i = 0; i < SLOTS; i++) {
        uint64_t entry = pte_read(&slots[i]);

        if ((entry & ~ACCESSED_DIRTY) != first + i * step)
            return false;
        *ad |= entry & ACCESSED_DIRTY;
    }
    return true;
}

/* Has one leaf stand for the cursor's node. A CPU may still set A or D in the old node until the
 * flush is done: so it is done here, and what was set meanwhile is or-ed into the leaf. */
static inline void merge_node(struct table_cursor *c, uint64_t ad, struct flush_batch *batch)
{
    struct table *t = c->table;
    const uint64_t *old = slots_of(c, c->level);
    unsigned level = c->level++;
    uint64_t *slot = slot_of(c), dead = c->node[level];
    struct attrs attrs = KIND.decode(old[0], level, &t->caps);
    uint64_t bits = KIND.encode(attrs, c->level, &t->caps) & ~ACCESSED_DIRTY;
    struct flush_batch now;

    pte_write(slot, leaf_address(old[0], level) | bits | ad);
    flush_begin(&now, t);
    flush_whole(&now);
    flush_commit(&now);
    for (unsigned i = 0; i < SLOTS; i++)
        ad |= pte_read(&old[i]) & ACCESSED_DIRTY;
    pte_set_bits(slot, ad);
    flush_dead_table(batch, hpa(dead), level);
}

/* Joins what can be joined, level by level upwards. */
static int OP(merge)(struct table *t, uint64_t in, uint64_t size, struct flush_batch *batch)
{
    uint64_t last = in + size - 1, ad;
    int error = check_range(in, size);

    if (error)
        return error;
    if (!t->env->frame_records)
        return E_STATE;
    lock_take(&t->lock);
    for (unsigned level = 1; level < t->caps.leaf_top; level++) {
        struct table_cursor c;
        uint64_t done;

        cursor_start(&c, t, in, last);
        do {
            walk(&c, level);
            done = c.level == level ? node_last(&c) : slot_last(&c);
            if (c.level == level && is_aligned(c.at, size_of(level + 1)) && done <= last &&
                can_merge(&c, &ad))
                merge_node(&c, ad, batch);
        } while (advance(&c, done));
    }
    lock_drop(&t->lock);
    return E_OK;
}

#endif
