/*
 * New nodes: how many a writer needs, what they are filled with, how they are published. Part of
 * the template (mm/paging/template.h).
 *
 * A writer plans (reads only, and counts the nodes that it will need), takes their frames (all, or
 * an error and nothing has changed), and stores (which cannot fail). A node is complete before the
 * one store that publishes it.
 */
#ifndef QUIRE_MM_PAGING_BUILD_H
#define QUIRE_MM_PAGING_BUILD_H

#include "lib/panic.h"
#include "lib/string.h"
#include "mm/paging/nodes.h"
#include "mm/paging/walk.h"

/* Does the range lie on page boundaries within what the kind maps, without a wrap? */
static inline int check_range(uint64_t in, uint64_t size)
{
    if (size == 0)
        return E_INVAL;
    if ((in | size) & (PAGE_SIZE - 1))
        return E_ALIGN;
    uint64_t last = in + size - 1;
    if (last < in || in < KIND.input_first || last > KIND.input_last)
        return E_RANGE;
    return E_OK;
}

/* ---- The plan: how many nodes will be new -----------------------------------------------------
 */

struct plan {
    uint64_t needed;
    uint64_t newest[MAX_LEVELS]; /* by level: the node counted last, as its address / its size */
};

static inline void plan_start(struct plan *plan)
{
    plan->needed = 0;
    for (unsigned i = 0; i < MAX_LEVELS; i++)
        plan->newest[i] = UINT64_MAX;
}

/* Counts the nodes of `level` that cover [first, last]. Ranges come in ascending order, so a node
 * that was counted before is the newest. */
static inline void plan_nodes(struct plan *plan, uint64_t first, uint64_t last, unsigned level)
{
    uint64_t from = first >> shift_of(level + 1), to = last >> shift_of(level + 1);

    plan->needed += to - from + (plan->newest[level] != from);
    plan->newest[level] = to;
}

/* The nodes from the one below the cursor's slot down to `bottom`. */
static inline void plan_below(struct plan *plan, const struct table_cursor *c, uint64_t last,
                              unsigned bottom)
{
    for (unsigned level = c->level - 1; level >= bottom; level--)
        plan_nodes(plan, c->at, last, level);
}

/* ---- Filling and publishing --------------------------------------------------------------------
 */

/* Slots from `to` on get leaves; the first is `entry`. */
static inline void fill_leaves(uint64_t *to, unsigned count, uint64_t entry, uint64_t step)
{
    uint64_t *end = to + count;
    uint64_t e0 = entry, e1 = e0 + step, e2 = e1 + step, e3 = e2 + step;

    /* Four sums at a time: one alone would have each store wait for the addition before it. */
#pragma GCC unroll 4
    for (; end - to >= 4; to += 4) {
        to[0] = e0, to[1] = e1, to[2] = e2, to[3] = e3;
        e0 += 4 * step, e1 += 4 * step, e2 += 4 * step, e3 += 4 * step;
    }
    for (; to < end; e0 += step)
        *to++ = e0;
}

/* Fills a node below the cursor's slot with what the leaf `old` there says: translation, rights,
 * memory type, A and D. */
static SHARED void fill_from_leaf(const struct table_cursor *c, uint64_t *to, uint64_t old)
{
    const struct table_caps *caps = &c->table->caps;
    unsigned level = c->level - 1;
    uint64_t bits = KIND.encode(KIND.decode(old, c->level, caps), level, caps);
    uint64_t entry = leaf_address(old, c->level) | (bits & ~ACCESSED_DIRTY);

    fill_leaves(to, SLOTS, entry | (old & ACCESSED_DIRTY), size_of(level));
}

/*
 * Puts a new node below the cursor's slot, which is absent or a leaf; what a leaf said, the node
 * goes on saying. Its slots [index, index + count) hold leaves from `entry` on. One store publishes
 * it; where hardware sets A or D in the old leaf meanwhile, the node is filled again.
 */
static SHARED void install(struct table_cursor *c, struct supply *supply, unsigned index,
                           unsigned count, uint64_t entry, struct flush_batch *batch)
{
    struct table *t = c->table;
    uint64_t *slot = slot_of(c);
    uint64_t old = pte_read(slot), node = supply_pop(t, supply);
    uint64_t *slots = direct(hpa(node));
    bool split = is_present(old);

    count_set(t, node, split ? SLOTS : count);
    do {
        if (split)
            fill_from_leaf(c, slots, old);
        else if (count < SLOTS)
            memset(slots, 0, PAGE_SIZE);
        fill_leaves(slots + index, count, entry, size_of(c->level - 1));
        if (!split) {
            pte_write(slot, node | KIND.table_bits);
            count_add(t, c->node[c->level], 1);
            return;
        }
    } while (!pte_exchange_if(slot, &old, node | KIND.table_bits));
    flush_add(batch, align_down(c->at, size_of(c->level)), slot_last(c), c->level);
}

/* Empty nodes, or those of a split leaf, down to where the cursor's slot is one of level `bottom`.
 */
static SHARED void install_down(struct table_cursor *c, struct supply *supply, unsigned bottom,
                                struct flush_batch *batch)
{
    for (walk(c, bottom); c->level > bottom; walk(c, bottom))
        install(c, supply, 0, 0, 0, batch);
}

/* ---- Splitting at the ends of a range -----------------------------------------------------------
 */

/* Is the cursor, which walk() has brought to `entry`, inside of a leaf? With `same`: of one that
 * has other attributes. */
static inline bool inside_leaf(const struct table_cursor *c, uint64_t entry,
                               const struct attrs *same)
{
    return is_present(entry) && !is_aligned(c->at, size_of(c->level)) &&
           !(same && attrs_equal(KIND.decode(entry, c->level, &c->table->caps), *same));
}

static SHARED void plan_boundary(struct table_cursor *c, struct plan *plan, uint64_t at,
                                 const struct attrs *same)
{
    go_to(c, at);
    if (!inside_leaf(c, walk(c, 1), same))
        return;
    for (unsigned level = c->level - 1; level >= 1 && !is_aligned(at, size_of(level + 1)); level--)
        plan_nodes(plan, at, at, level);
}

static SHARED void split_boundary(struct table_cursor *c, struct supply *supply, uint64_t at,
                                  const struct attrs *same, struct flush_batch *batch)
{
    go_to(c, at);
    while (inside_leaf(c, walk(c, 1), same))
        install(c, supply, 0, 0, 0, batch);
}

/* Plans, takes and splits so that no leaf lies across an end of the cursor's range, to whose
 * beginning it comes back. `same`: leaves that have these attributes already may stay whole. The
 * end of the address space is no boundary. */
static SHARED int split_ends(struct table_cursor *c, const struct attrs *same,
                             struct flush_batch *batch)
{
    uint64_t first = c->at, end = c->last + 1;
    struct plan plan;
    struct supply supply;

    plan_start(&plan);
    plan_boundary(c, &plan, first, same);
    if (end != 0)
        plan_boundary(c, &plan, end, same);
    if (plan.needed) {
        int error = supply_take(c->table, plan.needed, &supply);
        if (error)
            return error;
        split_boundary(c, &supply, first, same, batch);
        if (end != 0)
            split_boundary(c, &supply, end, same, batch);
        invariant(supply.first == 0);
    }
    go_to(c, first);
    return E_OK;
}

#endif
