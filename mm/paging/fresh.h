/*
 * Ranges that come with frames of their own: fresh ones, and copies of what another table maps.
 * Part of the template (mm/paging/template.h).
 *
 * Beside the nodes' frames the data blocks are taken before anything is stored; until they are
 * mapped they are chained through their first words.
 */
#ifndef QUIRE_MM_PAGING_FRESH_H
#define QUIRE_MM_PAGING_FRESH_H

#include "mm/paging/clone.h"
#include "mm/paging/read.h"

/* What a block that is taken and not mapped yet says of itself. */
struct fresh_block {
    struct fresh_block *next;
    uint64_t in;
    uint64_t level;
};

struct fresh_queue {
    struct fresh_block *first, *newest;
};

static inline void fresh_push(struct fresh_queue *queue, hpa_t block, uint64_t in, unsigned level)
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
static inline hpa_t fresh_pop(struct fresh_queue *queue, uint64_t *in, unsigned *level)
{
    struct fresh_block *fresh = queue->first;

    queue->first = fresh->next;
    *in = fresh->in;
    *level = (unsigned)fresh->level;
    *fresh = (struct fresh_block){NULL, 0, 0};
    return direct_hpa(fresh);
}

static SHARED void fresh_return(struct fresh_queue *queue, struct page_source *source)
{
    while (queue->first) {
        uint64_t in;
        unsigned level;
        hpa_t block = fresh_pop(queue, &in, &level);

        source->give(source, block, size_of(level));
    }
}

/* Takes blocks for [in, last], the largest that fit and that are to be had, and plans their nodes.
 */
static SHARED int fresh_take(struct table *t, struct plan *plan, struct fresh_queue *queue,
                             struct page_source *source, uint64_t in, uint64_t last, unsigned top)
{
    struct table_cursor way;

    cursor_start(&way, t, in, last);
    for (uint64_t at = in;;) {
        unsigned level = run_at(at, last, top).level;
        hpa_t block;
        int error;

        while ((error = source->take(source, size_of(level), &block)) == E_NOMEM && level > 1)
            level--;
        if (error)
            return error;
        fresh_push(queue, block, at, level);
        invariant(is_aligned(block.v, size_of(level)));
        plan_leaf(plan, &way, at, level);
        if (last - at < size_of(level))
            return E_OK;
        at += size_of(level);
    }
}

/* Gives a copy its contents. Returns the bits of its leaf. */
static inline uint64_t copy_block(struct table *from, struct page_source *source, hpa_t block,
                                  uint64_t in, unsigned level)
{
    struct mapping page;

    invariant(OP(translate)(from, in, &page) == E_OK);
    page.out = hpa_add(page.out, in - page.in);
    page.in = in;
    page.last = in + size_of(level) - 1;
    source->fill(source, block, size_of(level), &page);
    return KIND.encode(page.attrs, level, &from->caps);
}

/* Takes the nodes' frames and maps all blocks of the queue: with `bits` by level or, copies, with
 * those of what `from` maps. After an error, before here or here, all goes back. */
static SHARED int fresh_store(struct table *t, int error, const struct plan *plan,
                              struct fresh_queue *queue, struct page_source *source,
                              const uint64_t *bits, struct table *from)
{
    struct table_cursor way;
    struct supply supply;

    if (!error)
        error = supply_take(t, plan->needed, &supply);
    if (error) {
        fresh_return(queue, source);
        return error;
    }
    cursor_start(&way, t, KIND.input_first, KIND.input_last);
    while (queue->first) {
        uint64_t in, entry;
        unsigned level;
        hpa_t block = fresh_pop(queue, &in, &level);

        if (from) {
            entry = copy_block(from, source, block, in, level);
        } else {
            source->fill(source, block, size_of(level), NULL);
            entry = bits[level];
        }
        store_leaf(&way, &supply, in, level, block.v | entry);
    }
    invariant(supply.first == 0);
    t->flushes.spared++;
    return E_OK;
}

static int OP(map_fresh)(struct table *t, uint64_t in, uint64_t size, struct attrs attrs,
                         unsigned flags, struct page_source *source)
{
    uint64_t last = in + size - 1, bits[MAX_LEVELS + 1];
    unsigned top = top_leaf(t, flags, 0);
    struct fresh_queue queue = {NULL, NULL};
    struct plan plan;
    int error = check_range(in, size);

    if (error)
        return error;
    if (flags & MAP_REPLACE)
        return E_INVAL;
    lock_take(&t->lock);
    plan_start(&plan);
    if (!encode_attrs(t, attrs, 1, top, bits))
        error = E_ILLEGAL;
    else if (maps_anything(t, in, last))
        error = E_EXIST;
    else
        error = fresh_take(t, &plan, &queue, source, in, last, top);
    error = fresh_store(t, error, &plan, &queue, source, bits, NULL);
    lock_drop(&t->lock);
    return error;
}

static int OP(copy)(struct table *to, struct table *from, uint64_t in, uint64_t size,
                    struct page_source *source)
{
    uint64_t last = in + size - 1, entry;
    struct fresh_queue queue = {NULL, NULL};
    struct table_cursor c;
    struct plan plan;
    int error = check_copy(to, from, in, size);

    if (error)
        return error;
    lock_both(to, from);
    plan_start(&plan);
    if (maps_anything(to, in, last))
        error = E_EXIST;
    cursor_start(&c, from, in, last);
    for (bool more = !error; more && find_leaf(&c, &entry);) {
        uint64_t end = slot_last(&c) < last ? slot_last(&c) : last;

        error = fresh_take(to, &plan, &queue, source, c.at, end, c.level);
        more = !error && advance(&c, end);
    }
    error = fresh_store(to, error, &plan, &queue, source, NULL, from);
    drop_both(to, from);
    return error;
}

#endif
