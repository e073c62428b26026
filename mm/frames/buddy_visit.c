/*
 * All blocks in address order, in runs that are alike. The lock is held for a few blocks at a time:
 * a run is put together, and shown, outside of it.
 */
#include "mm/frames/buddy_internal.h"

#define BLOCKS_A_HOLDING 256
#define HOLE_A_HOLDING (64 * CHUNK_FRAMES) /* of no RAM, searched for the next block */

#define KIND (FRAME_STATE_MASK | FRAME_PURPOSE_MASK | FRAME_OWNER_MASK)

struct run {
    uint64_t first, end; /* frames; the same for none */
    uint64_t record;     /* its first block's */
};

/* The lowest block that ends above `*from`: the one that covers it, or the next. Without one,
 * `*from` moves up to where the search may go on. */
static bool block_from(uint64_t *from, uint64_t *first, uint64_t *record)
{
    if (buddy_find_block(*from, first, record))
        return true;
    uint64_t free = buddy_next_free(*from), held = buddy_next_held(*from);
    uint64_t next = held < free ? held : free;
    uint64_t end = *from + HOLE_A_HOLDING;
    end = end < buddy.frames ? end : buddy.frames;
    uint64_t live = buddy_next_live(*from, next < end ? next : end);
    next = live != NO_FRAME ? live : next;
    if (live == NO_FRAME && next >= end) {
        /* Nothing up to there. What was never used has no records to be searched. */
        uint64_t chunk = bittree_next(&buddy.ready, end >> CHUNK_SHIFT);
        uint64_t known = chunk != BITTREE_NONE ? chunk << CHUNK_SHIFT : buddy.frames;
        known = known > end ? known : end;
        *from = next < known ? next : known;
        return false;
    }
    return buddy_find_block(next, first, record);
}

/* Continues a run by the blocks from its end on, as many as one holding of the lock is for. False
 * when it is complete; `*next` is then where to go on. */
static bool extend(struct run *run, uint64_t *next)
{
    bool complete = false;
    buddy_take_lock();
    for (unsigned n = 0; n < BLOCKS_A_HOLDING && !complete && *next < buddy.frames; n++) {
        uint64_t first, record;
        if (!block_from(next, &first, &record))
            continue;
        /* A block that has changed meanwhile may begin below what was passed already. */
        uint64_t begin = first > *next ? first : *next;
        bool none = run->first == run->end;
        complete = !none && (begin != run->end || ((record ^ run->record) & KIND) != 0);
        if (complete)
            break;
        if (none)
            *run = (struct run){.first = begin, .record = record};
        run->end = *next = first + order_frames(frame_record_order(record));
    }
    complete = complete || *next >= buddy.frames;
    buddy_drop_lock();
    return !complete;
}

int buddy_visit_until(buddy_visit_fn fn, void *ctx, buddy_poll_fn poll, void *poll_ctx)
{
    for (uint64_t next = 0; next < buddy.frames;) {
        struct run run = {0};
        bool more = true;
        while (more) {
            more = extend(&run, &next);
            int result = poll != NULL ? poll(poll_ctx) : 0;
            if (result != 0)
                return result;
        }
        if (run.first == run.end)
            break;
        struct frame_info info = frame_record_decode(run.record);
        int result = fn(ctx, hpa_of_pfn(run.first), (run.end - run.first) << PAGE_SHIFT, &info);
        if (result != 0)
            return result;
    }
    return 0;
}

int buddy_visit(buddy_visit_fn fn, void *ctx)
{
    return buddy_visit_until(fn, ctx, NULL, NULL);
}
