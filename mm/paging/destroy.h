/*
 * The end of nodes: subtrees that died, and whole tables; and nodes that stay for good. Part of the
 * template (mm/paging/template.h).
 */
#ifndef QUIRE_MM_PAGING_DESTROY_H
#define QUIRE_MM_PAGING_DESTROY_H

#include "mm/paging/build.h"

/* Frames on their way back, so that many cost one call. */
struct returned {
    struct table *table;
    unsigned count;
    hpa_t frame[128];
};

static SHARED void give_returned(struct returned *returned)
{
    struct table *t = returned->table;

    if (t->env->give_many && returned->count > 1)
        t->env->give_many(t->env, t, returned->frame, returned->count);
    else
        for (unsigned i = 0; i < returned->count; i++)
            t->env->give(t->env, t, returned->frame[i]);
    count_change(&t->table_frames, -(uint64_t)returned->count);
    returned->count = 0;
}

static inline void give_node(struct returned *returned, uint64_t node)
{
    if (returned->count == ARRAY_SIZE(returned->frame))
        give_returned(returned);
    returned->frame[returned->count++] = hpa(node);
}

/* The nodes that the cursor's node, of level 2, leads to; nothing hangs below them. */
static inline uint64_t give_leaf_nodes(const struct table_cursor *c, struct returned *returned)
{
    const uint64_t *slot = slot_of(c), *end = slot + slots_to(c, c->last);

    for (; slot < end; slot++) {
        uint64_t entry = pte_read(slot);
        if (is_node(entry, 2))
            give_node(returned, entry & ENTRY_ADDRESS);
    }
    return node_last(c);
}

/* Gives back the node `root` of level `top`, and all below it: children before their parent, which
 * is read to find them; a node of level 1 is not read. Of the table's own root, the slots of the
 * kind's range alone are followed. */
static void OP(free_subtree)(struct table *t, hpa_t root, unsigned top)
{
    bool whole = top == KIND.levels && root.v == t->root.v;
    struct returned returned;
    struct table_cursor c;
    uint64_t done;

    /* Addresses relative to the subtree will do: only the bits of its own levels count. */
    cursor_start(&c, t, whole ? KIND.input_first : 0,
                 whole ? KIND.input_last : size_of(top + 1) - 1);
    returned.table = t;
    returned.count = 0;
    c.level = top;
    c.node[top] = root.v;
    do {
        if (top > 1)
            walk(&c, 2);
        done = c.level == 1   ? c.last
               : c.level == 2 ? give_leaf_nodes(&c, &returned)
                              : slot_last(&c);
        /* The nodes that end here are read to their end. */
        for (unsigned l = c.level; l <= top; l++)
            if (done >= c.last || is_aligned(done + 1, size_of(l + 1)))
                give_node(&returned, c.node[l]);
    } while (advance(&c, done));
    give_returned(&returned);
}

/* Makes every root slot of the kind's own range lead to a node, for good. */
static int OP(preallocate)(struct table *t)
{
    unsigned first = slots_first(&KIND, KIND.levels), end = slots_end(&KIND, KIND.levels);
    uint64_t *root = direct(t->root);
    struct supply supply;
    uint64_t needed = 0;

    lock_take(&t->lock);
    for (unsigned i = first; i < end; i++)
        needed += !is_present(pte_read(&root[i]));
    int error = supply_take(t, needed, &supply);
    for (unsigned i = first; !error && i < end; i++) {
        if (is_present(pte_read(&root[i])))
            continue;
        uint64_t node = supply_pop(&supply);

        memset(direct(hpa(node)), 0, PAGE_SIZE);
        count_set(t, node, 0);
        pte_write(&root[i], node | KIND.table_bits);
        count_add(t, t->root.v, 1);
    }
    t->root_pinned |= !error;
    lock_drop(&t->lock);
    return error;
}

#endif
