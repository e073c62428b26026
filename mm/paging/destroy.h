/*
 * The end of nodes: subtrees that died, and whole tables. Part of the template
 * (mm/paging/template.h).
 */
#ifndef QUIRE_MM_PAGING_DESTROY_H
#define QUIRE_MM_PAGING_DESTROY_H

#include "mm/paging/build.h"

/* The nodes that the cursor's node, of level 2, leads to; nothing hangs below them. */
static inline uint64_t return_leaf_nodes(const struct table_cursor *c, struct returned *returned)
{
    const uint64_t *slot = slot_of(c), *end = slot + slots_to(c, c->last);

    for (; slot < end; slot++) {
        uint64_t entry = pte_read(slot);
        if (is_node(entry, 2))
            returned_add(returned, hpa(entry & ENTRY_ADDRESS));
    }
    return node_last(c);
}

/* Gives back the node `root` of level `top`, and all below it: children before their parent, which
 * is read to find them; a node of level 1 is not read. Of the table's own root, the slots of the
 * kind's range alone are followed. */
static void OP(free_subtree)(struct returned *returned, hpa_t root, unsigned top)
{
    struct table *t = returned->table;
    bool whole = top == KIND.levels && root.v == t->root.v;
    struct table_cursor c;
    uint64_t done;

    /* Addresses relative to the subtree will do: only the bits of its own levels count. */
    cursor_start(&c, t, whole ? KIND.input_first : 0,
                 whole ? KIND.input_last : size_of(top + 1) - 1);
    c.level = top;
    c.node[top] = root.v;
    do {
        if (top > 1)
            walk(&c, 2);
        done = c.level == 1   ? c.last
               : c.level == 2 ? return_leaf_nodes(&c, returned)
                              : slot_last(&c);
        /* The nodes that end here are read to their end. */
        for (unsigned l = c.level; l <= top; l++)
            if (done >= c.last || is_aligned(done + 1, size_of(l + 1)))
                returned_add(returned, hpa(c.node[l]));
    } while (advance(&c, done));
}

#endif
