/*
 * Flush batches: collect what must be invalidated, invalidate it everywhere, and only then free.
 */
#include "mm/paging/flush.h"

#include "lib/panic.h"
#include "mm/frames/buddy.h"
#include "mm/paging/nodes.h"
#include "mm/paging/ops.h"
#include "mm/paging/table.h"
#include "mm/trace.h"

/* Before a batch owes anything more. */
static void owe(struct flush_batch *batch)
{
    invariant(batch->open);
    if (flush_empty(batch))
        count_change(&batch->table->open_batches, 1);
}

void flush_add(struct flush_batch *batch, uint64_t first, uint64_t last, unsigned level)
{
    batch->table->flushes.asked++;
    owe(batch);
    if (batch->whole)
        return;
    if (batch->count) {
        /* Writers go upwards, so a neighbour is always the newest range. */
        struct flush_range *newest = &batch->range[batch->count - 1];
        if (newest->level == level && newest->last != UINT64_MAX && newest->last + 1 >= first &&
            newest->first <= first) {
            if (last > newest->last)
                newest->last = last;
            return;
        }
    }
    if (batch->count == FLUSH_RANGES) {
        batch->whole = true;
        return;
    }
    batch->range[batch->count++] = (struct flush_range){first, last, (uint8_t)level};
}

void flush_whole(struct flush_batch *batch)
{
    owe(batch);
    batch->whole = true;
}

/* Past this many single-page invalidations one of the whole context is cheaper. */
static void widen(struct flush_batch *batch)
{
    const struct table_kind *kind = batch->table->kind;
    uint64_t pages = 0;

    for (unsigned i = 0; i < batch->count && pages <= FLUSH_PAGES; i++) {
        const struct flush_range *range = &batch->range[i];
        pages += ((range->last - range->first) >> level_shift(kind, range->level)) + 1;
    }
    if (pages > FLUSH_PAGES)
        batch->whole = true;
}

static void list_push(uint64_t *list, hpa_t head)
{
    frame_set_state(head, FRAME_DYING);
    frame_set_payload(head, *list);
    *list = pfn_of(head) + 1;
}

static hpa_t list_pop(uint64_t *list)
{
    hpa_t head = hpa_of_pfn(*list - 1);
    *list = frame_payload(head);
    frame_set_state(head, FRAME_USED);
    frame_set_payload(head, 0);
    return head;
}

void flush_dead_table(struct flush_batch *batch, hpa_t root, unsigned level)
{
    owe(batch);
    if (!batch->tables_died) {
        batch->tables_died = true;
        for (unsigned i = 0; i < MAX_LEVELS; i++)
            batch->dead_tables[i] = 0;
    }
    list_push(&batch->dead_tables[level - 1], root);
}

void flush_free_after(struct flush_batch *batch, hpa_t head)
{
    owe(batch);
    if (!batch->frames_died) {
        batch->frames_died = true;
        batch->dead_frames = 0;
    }
    list_push(&batch->dead_frames, head);
}

/* Nodes that nobody can reach any more, and all below them. */
static void free_tables(struct flush_batch *batch)
{
    struct returned returned;

    returned_start(&returned, batch->table);
    for (unsigned level = 1; level <= MAX_LEVELS; level++)
        while (batch->dead_tables[level - 1])
            batch->table->ops->free_subtree(&returned, list_pop(&batch->dead_tables[level - 1]),
                                            level);
    returned_end(&returned);
}

static void free_frames(struct flush_batch *batch)
{
    while (batch->dead_frames) {
        hpa_t head = list_pop(&batch->dead_frames);
        struct frame_info info;

        invariant(frame_query(head, &info, NULL) == E_OK);
        invariant(buddy_free(head, info.order, info.owner) == E_OK);
    }
}

/* The table's lock is not held: another CPU may be committing as well. */
static void invalidate(struct flush_batch *batch)
{
    struct table *table = batch->table;

    widen(batch);
    if (batch->whole)
        count_change(&table->flushes.whole, 1);
    else
        count_change(&table->flushes.ranges, batch->count);
    if (batch->whole || !batch->count)
        trace(TRACE_FLUSH, table->owner, 0, 0, 0, E_OK);
    else
        trace(TRACE_FLUSH, table->owner, batch->range[0].first,
              batch->range[batch->count - 1].last - batch->range[0].first + 1, batch->count, E_OK);
    table->env->flush(table->env, table, batch);
}

void flush_commit(struct flush_batch *batch)
{
    struct table *table = batch->table;

    if (!flush_empty(batch)) {
        invariant(batch->open && __atomic_load_n(&table->open_batches, __ATOMIC_RELAXED) != 0);
        if (batch->whole || batch->count || batch->tables_died)
            invalidate(batch);
        if (batch->tables_died)
            free_tables(batch);
        if (batch->frames_died)
            free_frames(batch);
        count_change(&table->open_batches, -UINT64_C(1));
    }
    batch->open = false;
}
