/*
 * Clone: the same frames in two tables, writable in neither. Part of the template
 * (mm/paging/template.h).
 */
#ifndef QUIRE_MM_PAGING_CLONE_H
#define QUIRE_MM_PAGING_CLONE_H

#include "mm/paging/protect.h"

/* Two tables are locked in the order of their addresses. */
static inline void lock_both(struct table *a, struct table *b)
{
    lock_take(a < b ? &a->lock : &b->lock);
    lock_take(a < b ? &b->lock : &a->lock);
}

static inline void drop_both(struct table *a, struct table *b)
{
    lock_drop(&a->lock);
    lock_drop(&b->lock);
}

static SHARED bool maps_anything(struct table *t, uint64_t in, uint64_t last)
{
    struct table_cursor c;
    uint64_t entry;

    cursor_start(&c, t, in, last);
    return find_leaf(&c, &entry);
}

static inline bool caps_equal(const struct table_caps *a, const struct table_caps *b)
{
    return a->maxphyaddr == b->maxphyaddr && a->leaf_top == b->leaf_top &&
           a->exec_small == b->exec_small && a->nx == b->nx && a->execute_only == b->execute_only &&
           a->mode_based_execute == b->mode_based_execute && a->global == b->global &&
           a->mem_types == b->mem_types;
}

/* May `to` receive a copy of what `from` maps in the range? */
static inline int check_copy(const struct table *to, const struct table *from, uint64_t in,
                             uint64_t size)
{
    if (to == from || to->kind != from->kind || !caps_equal(&to->caps, &from->caps))
        return E_INVAL;
    return check_range(in, size);
}

/* Moves `to`, in a range where nothing is mapped, to `at`, and counts the nodes that are missing
 * for a leaf of level `bottom` there. */
static inline void plan_leaf(struct plan *plan, struct table_cursor *to, uint64_t at,
                             unsigned bottom)
{
    go_to(to, at);
    walk(to, bottom);
    plan_below(plan, to, at, bottom);
}

/* Likewise, the leaf itself, whose nodes were planned. */
static inline void store_leaf(struct table_cursor *to, struct supply *supply, uint64_t at,
                              unsigned level, uint64_t entry)
{
    go_to(to, at);
    install_down(to, supply, level, NULL);
    pte_write(slot_of(to), entry);
    count_add(to->table, to->node[level], 1);
}

/* The nodes that `to` needs for what `from` maps in the range, once that is split at its ends: of a
 * leaf that lies across an end, the pieces within. */
static SHARED void plan_clone(struct plan *plan, struct table *to, struct table *from, uint64_t in,
                              uint64_t last)
{
    struct table_cursor c, way;
    uint64_t entry;

    cursor_start(&way, to, in, last);
    cursor_start(&c, from, in, last);
    for (bool more = true; more && find_leaf(&c, &entry); more = advance(&c, slot_last(&c))) {
        uint64_t end = slot_last(&c) < last ? slot_last(&c) : last;
        unsigned level = c.level;

        if (level == 1) { /* the others of its node lie in the same one of `to` */
            plan_leaf(plan, &way, c.at, level);
            go_to(&c, node_last(&c) < last ? node_last(&c) : last);
            continue;
        }
        /* The smallest piece at either end has the longest way. */
        while (level > 1 && !is_aligned(c.at, size_of(level)))
            level--;
        plan_leaf(plan, &way, c.at, level);
        for (level = c.level; level > 1 && !is_aligned(end + 1, size_of(level));)
            level--;
        plan_leaf(plan, &way, end & ~(size_of(level) - 1), level);
    }
}

/* Leaves from `slot` on, at most `count`, that say `said`, but for A and D, and the next frames: so
 * many become `after`. Returns how many. */
static inline unsigned seal_alike(const struct table *t, uint64_t *slot, unsigned count,
                                  uint64_t said, uint64_t after)
{
    unsigned n;

    for (n = 0; n < count; n++, said += PAGE_SIZE, after += PAGE_SIZE) {
        uint64_t old = pte_read(&slot[n]);

        if ((old & ~ACCESSED_DIRTY) != said)
            break;
        rewrite_leaf(t, &slot[n], old, after);
    }
    return n;
}

/* Likewise: so many are stored from `to` on, with these bits changed. */
static inline unsigned copy_alike(const uint64_t *slot, uint64_t *to, unsigned count, uint64_t said,
                                  uint64_t changed)
{
    const uint64_t *end = slot + count, *next = slot;

#pragma GCC unroll 4
    for (; next < end; next++, said += PAGE_SIZE) {
        uint64_t old = pte_scan(next) & ~ACCESSED_DIRTY;

        if (old != said)
            break;
        pte_write(to++, old ^ changed);
    }
    return (unsigned)(next - slot);
}

/*
 * The leaf in the cursor's slot, `first`, and those behind it in its node that are like it and show
 * neighbouring frames: they become read-only, and others like them are stored from `to` on. Returns
 * how many there were. Above level 1 it is one.
 */
static inline unsigned clone_run(struct table_cursor *c, uint64_t first, uint64_t *to,
                                 struct flush_batch *batch)
{
    const struct table *t = c->table;
    struct attrs before = KIND.decode(first, c->level, &t->caps), after = before;
    unsigned leaves = c->level == 1 ? slots_to(c, c->last) : 1;
    uint64_t said = first & ~ACCESSED_DIRTY;

    after.rights &= (uint8_t)~RIGHT_W;
    uint64_t copy = leaf_address(first, c->level) | KIND.encode(after, c->level, &t->caps);
    if (!attrs_equal(before, after)) {
        leaves = seal_alike(t, slot_of(c), leaves, said, copy & ~ACCESSED_DIRTY);
        said = copy & ~ACCESSED_DIRTY;
        if (change_needs_flush(before, after))
            flush_add(batch, c->at, slots_last(c, leaves), c->level);
    }
    return copy_alike(slot_of(c), to, leaves, said, said ^ copy);
}

/* Takes the right to write from what `from` maps, maps the same in `to`, and tells `fn` of it. */
static inline void store_clone(struct table *to, struct table_cursor *c, struct supply *supply,
                               clone_fn fn, struct flush_batch *batch)
{
    struct table_cursor way;
    unsigned leaves;
    uint64_t old;

    cursor_start(&way, to, c->at, c->last);
    for (bool more = true; more && find_leaf(c, &old); more = advance(c, slots_last(c, leaves))) {
        go_to(&way, c->at);
        install_down(&way, supply, c->level, NULL);
        leaves = clone_run(c, old, slot_of(&way), batch);
        count_add(to, way.node[way.level], leaves);
        if (fn)
            fn(hpa(leaf_address(old, c->level)), leaves, c->level);
    }
}

static inline int clone_locked(struct table *to, struct table *from, uint64_t in, uint64_t last,
                               clone_fn fn, struct flush_batch *batch)
{
    struct table_cursor c;
    struct plan plan;
    struct supply supply;

    if (maps_anything(to, in, last))
        return E_EXIST;
    plan_start(&plan);
    plan_clone(&plan, to, from, in, last);
    int error = supply_take(to, plan.needed, &supply);
    cursor_start(&c, from, in, last);
    if (!error)
        error = split_ends(&c, NULL, batch);
    if (error) {
        supply_return(to, &supply);
        return error;
    }
    store_clone(to, &c, &supply, fn, batch);
    invariant(supply.first == 0);
    to->flushes.spared++;
    return E_OK;
}

static int OP(clone)(struct table *to, struct table *from, uint64_t in, uint64_t size, clone_fn fn,
                     struct flush_batch *batch)
{
    int error = check_copy(to, from, in, size);

    if (error)
        return error;
    lock_both(to, from);
    error = clone_locked(to, from, in, in + size - 1, fn, batch);
    drop_both(to, from);
    return error;
}

#endif
