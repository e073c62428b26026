/*
 * Ranges that come with frames of their own, and copies of ranges: the part of the walker
 * (mm/paging/walker.h, which includes this file) that fills tables from something other than one
 * run of frames.
 *
 * The phases are the same: plan, take (here also the data blocks, chained through their first words
 * until they are mapped), store.
 */
#ifndef QUIRE_MM_WALKER_CLONE_H
#define QUIRE_MM_WALKER_CLONE_H

#include "mm/paging/walker.h"

/* Two tables are locked in the order of their addresses. */
WALKER void lock_both(struct table *a, struct table *b)
{
    lock_take(a < b ? &a->lock : &b->lock);
    lock_take(a < b ? &b->lock : &a->lock);
}

WALKER void drop_both(struct table *a, struct table *b)
{
    lock_drop(&a->lock);
    lock_drop(&b->lock);
}

/* Counts the tables that are missing on the way to the one at `bottom` that covers `in`, where
 * nothing is mapped. */
WALKER void plan_way(const struct table_kind *k, struct table *t, struct plan *plan, uint64_t in,
                     unsigned bottom)
{
    const uint64_t *table = direct(t->root);

    for (unsigned level = k->levels; level > bottom; level--) {
        uint64_t entry = pte_read(&table[slot_index(k, in, level)]);

        if (!is_present(k, entry)) {
            for (unsigned l = level - 1; l >= bottom; l--)
                plan_table(k, plan, in, l);
            return;
        }
        table = child_of(entry);
    }
}

WALKER bool maps_anything(const struct table_kind *k, const struct table *t, uint64_t in,
                          uint64_t last)
{
    struct span span;
    return next_span(k, t, in, last, &span);
}

WALKER bool caps_equal(const struct table_caps *a, const struct table_caps *b)
{
    return a->maxphyaddr == b->maxphyaddr && a->leaf_top == b->leaf_top && a->nx == b->nx &&
           a->execute_only == b->execute_only && a->mode_based_execute == b->mode_based_execute &&
           a->global == b->global && a->mem_types == b->mem_types;
}

/* May `to` receive a copy of what `from` maps in the range? */
WALKER int check_copy(const struct table_kind *k, const struct table *to, const struct table *from,
                      uint64_t in, uint64_t size)
{
    if (to == from || to->kind != from->kind || !caps_equal(&to->caps, &from->caps))
        return E_INVAL;
    return check_range(k, in, size);
}

/* ---- Sharing: the same frames in two tables, writable in neither ---------------------------- */

/* The tables that `to` needs for what `from` maps in the range, once that is split at its edges. */
WALKER void plan_clone(const struct table_kind *k, struct table *to, struct table *from,
                       struct plan *plan, uint64_t in, uint64_t last)
{
    struct span span;

    for (uint64_t pos = in; next_span(k, from, pos, last, &span);) {
        uint64_t step = level_size(k, span.level);
        uint64_t at = span.in;
        bool planned = false; /* one table holds all whole leaves of a span */
        unsigned i;

        for (i = 0; i < span.count; i++, at += step) {
            uint64_t entry = pte_peek(&span.slot[i]);
            uint64_t end = at + (step - 1);

            if (!is_present(k, entry))
                continue;
            if (!is_leaf(k, entry, span.level))
                break;
            if (at < in)
                plan_way(k, to, plan, in, edge_bottom(k, in));
            if (end > last)
                plan_way(k, to, plan, last, edge_bottom(k, last + 1));
            if (at >= in && end <= last && !planned) {
                plan_way(k, to, plan, at, span.level);
                planned = true;
            }
        }
        uint64_t done = span_last(k, &span, i);
        if (done >= last)
            break;
        pos = done + 1;
    }
}

WALKER void store_clone(const struct table_kind *k, struct table *to, struct table *from,
                        struct spare *spare, uint64_t in, uint64_t last, struct flush_batch *batch)
{
    struct span span;

    for (uint64_t pos = in; next_span(k, from, pos, last, &span);) {
        uint64_t step = level_size(k, span.level);
        uint64_t *table = make_way(k, to, spare, span.in, span.level);
        uint64_t at = span.in;
        uint64_t added = 0;
        unsigned i;

        for (i = 0; i < span.count; i++, at += step) {
            uint64_t old = pte_read(&span.slot[i]);

            if (!is_present(k, old))
                continue;
            if (!is_leaf(k, old, span.level))
                break;
            uint64_t address = leaf_address(k, old, span.level);
            struct attrs attrs = k->decode(old, span.level, &from->caps);
            bool writable = attrs.rights & RIGHT_W;

            attrs.rights &= (uint8_t)~RIGHT_W;
            uint64_t bits = k->encode(attrs, span.level, &from->caps);
            if (writable) {
                rewrite_leaf(k, from, &span.slot[i], old, address | (bits & ~accessed_dirty(k)));
                flush_add(batch, at, at + step - 1, span.level);
            }
            pte_write(&table[slot_index(k, at, span.level)], address | bits);
            added += entry_at(k, slot_index(k, at, span.level));
        }
        count_add(to, table, added);
        uint64_t done = span_last(k, &span, i);
        if (done >= last)
            break;
        pos = done + 1;
    }
}

WALKER int walker_clone(const struct table_kind *k, struct table *to, struct table *from,
                        uint64_t in, uint64_t size, struct flush_batch *batch)
{
    int error = check_copy(k, to, from, in, size);
    if (error)
        return error;

    uint64_t last = in + size - 1;
    struct plan plan, split;
    struct spare spare, split_spare;
    lock_both(to, from);
    plan_start(&split);
    plan_start(&plan);
    if (maps_anything(k, to, in, last)) {
        error = E_EXIST;
    } else {
        plan_edge(k, from, &split, in, NULL);
        if (last != UINT64_MAX)
            plan_edge(k, from, &split, last + 1, NULL);
        plan_clone(k, to, from, &plan, in, last);
        error = spare_take(from, split.needed, &split_spare);
    }
    if (!error) {
        error = spare_take(to, plan.needed, &spare);
        if (error)
            spare_return(from, &split_spare);
    }
    if (!error) {
        split_edge(k, from, &split_spare, in, NULL, batch);
        if (last != UINT64_MAX)
            split_edge(k, from, &split_spare, last + 1, NULL, batch);
        store_clone(k, to, from, &spare, in, last, batch);
        invariant(spare.first == NULL && split_spare.first == NULL);
        to->flushes.spared++;
    }
    drop_both(to, from);
    return error;
}

/* ---- Fresh frames ------------------------------------------------------------------------------
 */

/* A data block that was taken and is not mapped yet says itself where it belongs. */
struct fresh_block {
    struct fresh_block *next;
    uint64_t in;
    uint64_t level;
};

struct fresh_queue {
    struct fresh_block *first, *newest;
};

WALKER void fresh_push(struct fresh_queue *queue, hpa_t block, uint64_t in, unsigned level)
{
    struct fresh_block *fresh = direct(block);

    *fresh = (struct fresh_block){.next = NULL, .in = in, .level = level};
    if (queue->first)
        queue->newest->next = fresh;
    else
        queue->first = fresh;
    queue->newest = fresh;
}

/* Takes out the first block, and the notes out of it. */
WALKER hpa_t fresh_pop(struct fresh_queue *queue, uint64_t *in, unsigned *level)
{
    struct fresh_block *fresh = queue->first;

    queue->first = fresh->next;
    *in = fresh->in;
    *level = (unsigned)fresh->level;
    *fresh = (struct fresh_block){NULL, 0, 0};
    return direct_hpa(fresh);
}

static __attribute__((noinline, unused)) void fresh_return(const struct table_kind *k,
                                                           struct fresh_queue *queue,
                                                           struct page_source *source)
{
    while (queue->first) {
        uint64_t in;
        unsigned level;
        hpa_t block = fresh_pop(queue, &in, &level);

        source->give(source, block, level_size(k, level));
    }
}

/* Takes blocks for [in, last], the largest that fit and that are to be had, and plans their tables.
 */
WALKER int fresh_take(const struct table_kind *k, struct table *t, struct plan *plan,
                      struct fresh_queue *queue, struct page_source *source, uint64_t in,
                      uint64_t last, unsigned top)
{
    for (uint64_t pos = in;;) {
        unsigned level = top;
        hpa_t block;
        int error;

        while (level > 1 &&
               (!is_aligned(pos, level_size(k, level)) || last - pos < level_size(k, level) - 1))
            level--;
        while ((error = source->take(source, level_size(k, level), &block)) == E_NOMEM && level > 1)
            level--;
        if (error)
            return error;
        fresh_push(queue, block, pos, level);
        invariant(is_aligned(block.v, level_size(k, level)));
        plan_way(k, t, plan, pos, level);
        if (last - pos < level_size(k, level))
            return E_OK;
        pos += level_size(k, level);
    }
}

/* Maps all blocks of the queue: with `encoded` bits or, copies, with those of what `from` maps. */
WALKER void fresh_store(const struct table_kind *k, struct table *t, struct spare *spare,
                        struct fresh_queue *queue, struct page_source *source,
                        const uint64_t *encoded, struct table *from)
{
    while (queue->first) {
        uint64_t in;
        unsigned level;
        hpa_t block = fresh_pop(queue, &in, &level);
        uint64_t bits;

        if (from) {
            struct mapping page;
            invariant(walker_translate(k, from, in, &page) == E_OK);
            page.out = hpa_add(page.out, in - page.in);
            page.in = in;
            page.last = in + level_size(k, level) - 1;
            source->fill(source, block, level_size(k, level), &page);
            bits = k->encode(page.attrs, level, &t->caps);
        } else {
            source->fill(source, block, level_size(k, level), NULL);
            bits = encoded[level];
        }
        uint64_t *table = make_way(k, t, spare, in, level);
        unsigned index = slot_index(k, in, level);
        pte_write(&table[index], block.v | bits);
        count_add(t, table, entry_at(k, index));
    }
    t->flushes.spared++;
}

WALKER int walker_map_fresh(const struct table_kind *k, struct table *t, uint64_t in, uint64_t size,
                            struct attrs attrs, unsigned flags, struct page_source *source)
{
    int error = check_range(k, in, size);
    if (error)
        return error;
    if (flags & MAP_REPLACE)
        return E_INVAL;

    uint64_t last = in + size - 1;
    unsigned top = top_leaf(t, flags);
    struct plan plan;
    struct spare spare;
    struct fresh_queue queue = {NULL, NULL};
    lock_take(&t->lock);
    const uint64_t *encoded = encode_all(k, t, &t->encoded, attrs, top);
    plan_start(&plan);
    if (!encoded)
        error = E_ILLEGAL;
    else if (maps_anything(k, t, in, last))
        error = E_EXIST;
    else
        error = fresh_take(k, t, &plan, &queue, source, in, last, top);
    if (!error)
        error = spare_take(t, plan.needed, &spare);
    if (error) {
        fresh_return(k, &queue, source);
    } else {
        fresh_store(k, t, &spare, &queue, source, encoded, NULL);
        invariant(spare.first == NULL);
    }
    lock_drop(&t->lock);
    return error;
}

WALKER int walker_copy(const struct table_kind *k, struct table *to, struct table *from,
                       uint64_t in, uint64_t size, struct page_source *source)
{
    int error = check_copy(k, to, from, in, size);
    if (error)
        return error;

    uint64_t last = in + size - 1;
    struct plan plan;
    struct spare spare;
    struct span span;
    struct fresh_queue queue = {NULL, NULL};
    lock_both(to, from);
    plan_start(&plan);
    if (maps_anything(k, to, in, last))
        error = E_EXIST;
    for (uint64_t pos = in; !error && next_span(k, from, pos, last, &span);) {
        uint64_t done = span_last(k, &span, 1);

        error = fresh_take(k, to, &plan, &queue, source, span.in > in ? span.in : in,
                           done < last ? done : last, span.level);
        if (done >= last)
            break;
        pos = done + 1;
    }
    if (!error)
        error = spare_take(to, plan.needed, &spare);
    if (error) {
        fresh_return(k, &queue, source);
    } else {
        fresh_store(k, to, &spare, &queue, source, NULL, from);
        invariant(spare.first == NULL);
    }
    drop_both(to, from);
    return error;
}

#endif
