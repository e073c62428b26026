/*
 * Unmap: whole subtrees by one store, single leaves, and nodes that lost their last entry. Part of
 * the template (mm/paging/template.h).
 */
#ifndef QUIRE_MM_PAGING_UNMAP_H
#define QUIRE_MM_PAGING_UNMAP_H

#include "mm/paging/build.h"

/* The lowest node of the path has just lost its last entry: takes it out of its parent, and so on
 * upwards. The path ends in the first node that stays. */
static SHARED void drop_empty(struct table_cursor *c, struct flush_batch *batch)
{
    unsigned highest = KIND.levels - (c->table->root_pinned ? 2u : 1u);

    while (c->level <= highest) {
        uint64_t dead = c->node[c->level++];

        pte_write(slot_of(c), 0);
        /* Nothing hangs below it: like a node of level 1, it is given back without a look. */
        flush_dead_table(batch, hpa(dead), 1);
        if (count_add(c->table, c->node[c->level], -UINT64_C(1)))
            return;
    }
}

/* Is the cursor's slot within the range as a whole, and this table's own to remove? */
static inline bool may_remove(const struct table_cursor *c)
{
    uint64_t size = size_of(c->level);

    return is_aligned(c->at, size) && c->last - c->at >= size - 1 &&
           !(c->level == KIND.levels && c->table->root_pinned);
}

/* Empties slots of the cursor's node: its own, and those beside it that the range covers. Returns
 * the last address dealt with. */
static SHARED uint64_t remove_slots(struct table_cursor *c, struct flush_batch *batch)
{
    uint64_t *slot = slot_of(c);
    uint64_t size = size_of(c->level), first = c->at;
    uint64_t whole = (c->last - first + 1) >> shift_of(c->level);
    unsigned slots = slots_to(c, first + whole * size - 1);
    unsigned smallest = c->level; /* leaf: below a dead node it may be any */
    uint64_t removed = 0, done = slots_last(c, slots);

    for (unsigned i = 0; i < slots; i++) {
        uint64_t old = pte_read(&slot[i]);

        if (!is_present(old))
            continue;
        pte_write(&slot[i], 0);
        removed++;
        if (!is_leaf(old, c->level)) {
            flush_dead_table(batch, hpa(old & ENTRY_ADDRESS), c->level - 1);
            smallest = 1;
        }
    }
    if (removed) {
        flush_add(batch, first, done, smallest);
        if (!count_add(c->table, c->node[c->level], -removed) && c->level < KIND.levels)
            drop_empty(c, batch);
    }
    return done;
}

/* What lies across an end of the range has been split. */
static inline void remove_range(struct table_cursor *c, struct flush_batch *batch)
{
    uint64_t done;

    do {
        uint64_t entry = read_entry(c);

        while (is_present(entry) && !may_remove(c)) {
            invariant(!is_leaf(entry, c->level));
            if (is_empty(c->table, entry))
                break;
            descend(c, entry);
            entry = read_entry(c);
        }
        done = is_present(entry) && may_remove(c) ? remove_slots(c, batch) : slot_last(c);
    } while (advance(c, done));
}

static int OP(unmap)(struct table *t, uint64_t in, uint64_t size, struct flush_batch *batch)
{
    int error = check_range(in, size);
    struct table_cursor c;

    if (error)
        return error;
    if (!t->env->frame_records)
        return E_STATE;
    lock_take(&t->lock);
    cursor_start(&c, t, in, in + size - 1);
    error = split_ends(&c, NULL, batch);
    if (!error) {
        go_up(&c);
        remove_range(&c, batch);
    }
    lock_drop(&t->lock);
    return error;
}

#endif
