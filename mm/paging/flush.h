/*
 * Flush batches: what a writer of page tables owes before its work is done.
 *
 * A batch owns the input ranges whose stale translations must go, and the frames that nothing maps
 * any more but that a CPU may still reach through such a translation. flush_commit() has every CPU
 * invalidate, waits for all of them, and only then frees. A batch that is begun must be committed,
 * also when the writer failed (an empty commit costs nothing). Those that owe something are counted
 * in their table until then, so that one that was dropped is noticed.
 *
 * Few ranges are flushed one by one; past FLUSH_RANGES of them, or past FLUSH_PAGES pages, the
 * whole context is.
 */
#ifndef QUIRE_MM_FLUSH_H
#define QUIRE_MM_FLUSH_H

#include <stdbool.h>
#include <stdint.h>

#include "lib/panic.h"
#include "mm/addr.h"
#include "mm/frames/frame.h"
#include "mm/paging/kind.h"

#define FLUSH_RANGES 8
#define FLUSH_PAGES 64

struct table;

struct flush_range {
    uint64_t first, last; /* input addresses, inclusive */
    uint8_t level;        /* of the leaves in it: the stride of single-page invalidation */
};

struct flush_batch {
    struct table *table;
    bool open;
    bool whole;       /* everything of this context */
    bool tables_died; /* paging-structure caches must go too (not only leaves changed) */
    bool frames_died;
    uint8_t count;
    struct flush_range range[FLUSH_RANGES];
    /* Lists linked through frame payloads, each link a frame number + 1 and 0 the end: dead data
     * blocks (valid when frames_died), and the roots of dead subtrees by level (index level - 1;
     * valid when tables_died). */
    uint64_t dead_frames;
    uint64_t dead_tables[MAX_LEVELS];
};

static inline void flush_begin(struct flush_batch *batch, struct table *table)
{
    batch->table = table;
    batch->open = true;
    batch->whole = batch->tables_died = batch->frames_died = false;
    batch->count = 0;
}

/* Notes that translations of [first, last] changed in a way that needs invalidation. */
void flush_add(struct flush_batch *batch, uint64_t first, uint64_t last, unsigned level);

/* The whole context is to go, its paging-structure caches as well. */
void flush_whole(struct flush_batch *batch);

/* Hands a data block to the batch: it goes back to the buddy after the flush. The block must be
 * FRAME_USED and its last mapping in this table removed by the same batch. The owner and order are
 * those of its record. */
void flush_free_after(struct flush_batch *batch, hpa_t head);

/* For the walker: a detached subtree whose root table, at `level`, is `root`. */
void flush_dead_table(struct flush_batch *batch, hpa_t root, unsigned level);

/* True when nothing is left to invalidate or to free. */
static inline bool flush_empty(const struct flush_batch *batch)
{
    return !(batch->whole || batch->tables_died || batch->frames_died || batch->count);
}

/* Has every CPU invalidate what the batch owes, then frees what died. */
void flush_commit(struct flush_batch *batch);

#endif
