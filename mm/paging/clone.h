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
    return a->maxphyaddr == b->maxphyaddr && a->leaf_top == b->leaf_top && a->nx == b->nx &&
           a->execute_only == b->execute_only && a->mode_based_execute == b->mode_based_execute &&
           a->global == b->global && a->mem_types == b->mem_types;
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

/* What a clone makes of one leaf's attributes, for as long as those that follow are like it. */
struct alike {
    uint64_t said; /* its bits, but for address, A and D; 0: none yet */
    uint64_t bits; /* without the right to write */
    bool changes;  /* that is another one */
    bool owes;     /* ... and an invalidation is owed for it */
};

static inline void alike_to(struct alike *alike, uint64_t entry, unsigned level,
                            const struct table_caps *caps)
{
    uint64_t said = entry & ~(ENTRY_ADDRESS | ACCESSED_DIRTY);

    if (said == alike->said)
        return;
    struct attrs before = KIND.decode(entry, level, caps), after = before;

    after.rights &= (uint8_t)~RIGHT_W;
    alike->said = said;
    alike->bits = KIND.encode(after, level, caps);
    alike->changes = !attrs_equal(before, after);
    alike->owes = alike->changes && change_needs_flush(before, after);
}

/* The leaf in the cursor's slot becomes read-only; one like it is stored at `to`. */
static inline void clone_leaf(struct table_cursor *c, uint64_t old, struct alike *alike,
                              uint64_t *to, struct flush_batch *batch)
{
    uint64_t address = leaf_address(old, c->level);

    alike_to(alike, old, c->level, &c->table->caps);
    if (alike->changes)
        rewrite_leaf(c->table, slot_of(c), old, address | (alike->bits & ~ACCESSED_DIRTY));
    if (alike->owes)
        flush_add(batch, c->at, slot_last(c), c->level);
    pte_write(to, address | alike->bits);
}

/* The leaves of the cursor's node, of level 1, from its slot on. Returns how many there were. */
static inline unsigned clone_node(struct table_cursor *c, uint64_t *to, struct flush_batch *batch)
{
    unsigned slots = slots_to(c, c->last), leaves = 0;
    struct alike alike = {.said = 0};

    for (unsigned i = 0; i < slots; i++, c->at += PAGE_SIZE) {
        uint64_t old = read_entry(c);

        if (!is_present(old))
            continue;
        clone_leaf(c, old, &alike, &to[i], batch);
        leaves++;
    }
    c->at -= PAGE_SIZE;
    return leaves;
}

/* Takes the right to write from what `from` maps, and maps the same in `to`. */
static inline void store_clone(struct table *to, struct table_cursor *c, struct supply *supply,
                               struct flush_batch *batch)
{
    struct table_cursor way;
    uint64_t old;

    cursor_start(&way, to, c->at, c->last);
    for (bool more = true; more && find_leaf(c, &old); more = advance(c, slot_last(c))) {
        struct alike alike = {.said = 0};
        unsigned leaves = 1;

        go_to(&way, c->at);
        install_down(&way, supply, c->level, NULL);
        if (c->level == 1)
            leaves = clone_node(c, slot_of(&way), batch);
        else
            clone_leaf(c, old, &alike, slot_of(&way), batch);
        count_add(to, way.node[way.level], leaves);
    }
}

static inline int clone_locked(struct table *to, struct table *from, uint64_t in, uint64_t last,
                               struct flush_batch *batch)
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
    store_clone(to, &c, &supply, batch);
    invariant(supply.first == 0);
    to->flushes.spared++;
    return E_OK;
}

static int OP(clone)(struct table *to, struct table *from, uint64_t in, uint64_t size,
                     struct flush_batch *batch)
{
    int error = check_copy(to, from, in, size);

    if (error)
        return error;
    lock_both(to, from);
    error = clone_locked(to, from, in, in + size - 1, batch);
    drop_both(to, from);
    return error;
}

#endif
