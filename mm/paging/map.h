/*
 * Map: a range, at the largest leaves that alignment, the CPU and the caller's cap allow. Part of
 * the template (mm/paging/template.h).
 */
#ifndef QUIRE_MM_PAGING_MAP_H
#define QUIRE_MM_PAGING_MAP_H

#include "mm/paging/build.h"

/* Leaves of one size, one beside the other. */
struct run {
    unsigned level;
    uint64_t last; /* input address */
};

/* The run that begins at `at`. `top`: the largest leaf to which input and output are aligned alike.
 */
static inline struct run run_at(uint64_t at, uint64_t last, unsigned top)
{
    struct run run = {.level = top};

    while (run.level > 1 &&
           (!is_aligned(at, size_of(run.level)) || last - at < size_of(run.level) - 1))
        run.level--;
    run.last = last - ((last - at + 1) & (size_of(run.level) - 1));
    if (run.level < top) { /* up to where a larger leaf can begin */
        uint64_t end = at | (size_of(run.level + 1) - 1);
        run.last = end < run.last ? end : run.last;
    }
    return run;
}

/* The highest level of leaves that the caller, the CPU and the addresses allow. */
static inline unsigned top_leaf(const struct table *t, unsigned flags, uint64_t delta)
{
    unsigned top = t->caps.leaf_top;

    if ((flags & MAP_CAP_2M) && top > 2)
        top = 2;
    if (flags & MAP_CAP_4K)
        top = 1;
    while (top > 1 && !is_aligned(delta, size_of(top)))
        top--;
    return top;
}

/* The largest leaf, up to `top`, that has room in `size`. */
static inline unsigned fitting_leaf(uint64_t size, unsigned top)
{
    while (top > 1 && size < size_of(top))
        top--;
    return top;
}

/* The bits of `attrs` for leaves of the levels `bottom` to `top`. False when this kind on this CPU
 * cannot say them exactly, or no walk gets there with these rights. */
static SHARED bool encode_attrs(const struct table *t, struct attrs attrs, unsigned bottom,
                                unsigned top, uint64_t bits[MAX_LEVELS + 1])
{
    unsigned passed = KIND.table_rights(KIND.table_bits, &t->caps) | RIGHT_G;

    if ((attrs.rights & ~passed) || !(t->caps.mem_types & (1u << (attrs.type & 7))))
        return false;
    for (unsigned level = bottom; level <= top; level++) {
        bits[level] = KIND.encode(attrs, level, &t->caps);
        if (judge(&t->caps, level, bits[level]) != RULE_OK ||
            !attrs_equal(KIND.decode(bits[level], level, &t->caps), attrs))
            return false;
    }
    return true;
}

static SHARED int plan_map(struct plan *plan, struct table_cursor *c, unsigned top, bool replace)
{
    uint64_t done;

    plan_start(plan);
    do {
        struct run run = run_at(c->at, c->last, top);
        uint64_t entry = walk(c, run.level);

        if (c->level > run.level) {
            if (is_present(entry) && !replace)
                return E_EXIST;
            done = slot_last(c) < run.last ? slot_last(c) : run.last;
            plan_below(plan, c, done, run.level);
        } else {
            unsigned slots = slots_to(c, run.last);
            for (unsigned i = 0; !replace && i < slots; i++)
                if (is_present(pte_peek(slot_of(c) + i)))
                    return E_EXIST;
            done = slots_last(c, slots);
        }
    } while (advance(c, done));
    return E_OK;
}

/* Puts leaves into slots of a live node, whatever these hold. */
static SHARED void store_leaves(struct table_cursor *c, unsigned slots, uint64_t entry,
                                struct flush_batch *batch)
{
    uint64_t *slot = slot_of(c);
    uint64_t step = size_of(c->level), in = c->at, added = 0;

    for (unsigned i = 0; i < slots; i++, in += step) {
        uint64_t old = pte_read(&slot[i]);

        pte_write(&slot[i], entry + i * step);
        if (!is_present(old)) {
            added++;
            continue;
        }
        bool node = !is_leaf(old, c->level);
        flush_add(batch, in, in + (step - 1), node ? 1 : c->level);
        if (node)
            flush_dead_table(batch, hpa(old & ENTRY_ADDRESS), c->level - 1);
    }
    count_add(c->table, c->node[c->level], added);
}

/* One run, or as much of it as lies in one node. Returns its last address. */
static inline uint64_t store_run(struct table_cursor *c, struct supply *supply, struct run run,
                                 uint64_t entry, struct flush_batch *batch)
{
    install_down(c, supply, run.level + 1, batch);
    if (c->level > run.level && is_node(pte_read(slot_of(c)), c->level))
        walk(c, run.level);
    if (c->level == run.level) {
        unsigned slots = slots_to(c, run.last);

        store_leaves(c, slots, entry, batch);
        return slots_last(c, slots);
    }
    uint64_t last = slot_last(c) < run.last ? slot_last(c) : run.last;
    unsigned count = (unsigned)((last - c->at) >> shift_of(run.level)) + 1;
    install(c, supply, index_of(c->at, run.level), count, entry, batch);
    return last;
}

/* The checks of a range's output. */
static inline int check_frames(const struct table *t, hpa_t out, uint64_t size)
{
    uint64_t last = out.v + size - 1;

    if (!is_aligned(out.v, PAGE_SIZE))
        return E_ALIGN;
    return last < out.v || last >> t->caps.maxphyaddr ? E_RANGE : E_OK;
}

static inline int map_locked(struct table *t, uint64_t in, hpa_t out, uint64_t size,
                             struct attrs attrs, unsigned flags, struct flush_batch *batch)
{
    uint64_t bits[MAX_LEVELS + 1], delta = out.v - in, done;
    unsigned top = fitting_leaf(size, top_leaf(t, flags, delta)), bottom = 1;
    struct table_cursor c;
    struct plan plan;
    struct supply supply;

    while (bottom < top && is_aligned(in | size, size_of(bottom + 1)))
        bottom++; /* no leaf is smaller */
    if (!encode_attrs(t, attrs, bottom, top, bits))
        return E_ILLEGAL;
    cursor_start(&c, t, in, in + size - 1);
    if (bottom == top && size == size_of(top)) {
        uint64_t entry = walk(&c, top);

        if (c.level == top && !is_node(entry, top)) { /* one, in a node that is there */
            if (is_present(entry) && !(flags & MAP_REPLACE))
                return E_EXIST;
            store_leaves(&c, 1, out.v | bits[top], batch);
            return E_OK;
        }
    }
    int error = plan_map(&plan, &c, top, flags & MAP_REPLACE);
    if (!error)
        error = supply_take(t, plan.needed, &supply);
    if (error)
        return error;
    go_to(&c, in);
    do {
        struct run run = run_at(c.at, c.last, top);

        done = store_run(&c, &supply, run, (c.at + delta) | bits[run.level], batch);
    } while (advance(&c, done));
    invariant(supply.first == 0);
    return E_OK;
}

static int OP(map)(struct table *t, uint64_t in, hpa_t out, uint64_t size, struct attrs attrs,
                   unsigned flags, struct flush_batch *batch)
{
    int error = check_range(in, size);

    if (!error)
        error = check_frames(t, out, size);
    if (error)
        return error;
    if ((flags & MAP_REPLACE) && !t->env->frame_records)
        return E_STATE; /* nodes may die, and there is no list to hold them yet */
    lock_take(&t->lock);
    error = map_locked(t, in, out, size, attrs, flags, batch);
    if (!error && !batch->count && !batch->whole)
        t->flushes.spared++;
    lock_drop(&t->lock);
    return error;
}

#endif
