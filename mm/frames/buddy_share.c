/*
 * The buddy allocator: blocks with several holders, blocks that become smaller ones, blocks that
 * change their owner. Each works under the lock.
 */
#include "mm/frames/buddy_internal.h"

static void add_holder(uint64_t pfn, uint64_t record)
{
    bool shared = frame_record_state(record) == FRAME_SHARED;
    uint64_t holders = shared ? (record >> FRAME_PAYLOAD_SHIFT) + 1 : 2;

    record &= ~(FRAME_PAYLOAD_MASK | FRAME_STATE_MASK);
    poke(frame_records[pfn], record | FRAME_SHARED | holders << FRAME_PAYLOAD_SHIFT);
}

int buddy_share(hpa_t head, owner_t owner)
{
    uint64_t record = 0;
    buddy_take_lock();
    int error = buddy_check_block(head, owner, &record);
    if (error == E_OK)
        add_holder(pfn_of(head), record);
    else
        buddy_refuse(error);
    buddy_drop_lock();
    trace(TRACE_SHARE, owner, head.v, PAGE_SIZE << frame_record_order(record), 0, error);
    return error;
}

int buddy_release(hpa_t head, unsigned order, owner_t owner, bool *last)
{
    uint64_t record;
    bool freed = false;
    struct cpu *self = buddy_take_lock();
    int error = buddy_check_block(head, owner, &record);
    if (error == E_OK && frame_record_order(record) != order)
        error = E_ORDER;
    if (error != E_OK) {
        buddy_refuse(error);
    } else if (frame_record_state(record) == FRAME_SHARED) {
        uint64_t holders = (record >> FRAME_PAYLOAD_SHIFT) - 1;
        record &= ~(FRAME_PAYLOAD_MASK | FRAME_STATE_MASK);
        record |= holders > 1 ? FRAME_SHARED | holders << FRAME_PAYLOAD_SHIFT : FRAME_USED;
        poke(frame_records[pfn_of(head)], record);
    } else {
        buddy_free_locked(self, pfn_of(head), record);
        freed = true;
    }
    buddy_drop_lock();
    if (last != NULL)
        *last = freed;
    trace(TRACE_RELEASE, owner, head.v, order, freed, error);
    return error;
}

/* A block each; the one that it was is counted already. */
static void write_pieces(struct cpu *self, uint64_t pfn, uint64_t record, unsigned into)
{
    uint64_t pieces = order_frames(frame_record_order(record) - into);

    record = (record & ~FRAME_ORDER_MASK) | (uint64_t)into << FRAME_ORDER_SHIFT;
    for (uint64_t i = pieces; i-- > 0;)
        buddy_write_record(pfn + (i << into), record);
    bump(self->allocations, pieces - 1);
}

/* By 2 MiB first, so that of a large block no more records than needed are written. */
static unsigned next_order(unsigned from, unsigned order)
{
    return from > CHUNK_SHIFT && order < CHUNK_SHIFT ? CHUNK_SHIFT : order;
}

/* One more holder for blocks that follow each other and whose records say the same, up to `end` or
 * the end of a chunk; they become `to`'s. Returns the first frame behind them. */
static uint64_t add_holders(uint64_t pfn, uint64_t record, uint64_t end, owner_t to)
{
    unsigned order = frame_record_order(record);
    bool shared = frame_record_state(record) == FRAME_SHARED;
    uint64_t said = shared ? ~FRAME_PAYLOAD_MASK : ~UINT64_C(0);
    uint64_t step = (UINT64_C(1) << FRAME_PAYLOAD_SHIFT) - (record & FRAME_OWNER_MASK) +
                    ((uint64_t)to << FRAME_OWNER_SHIFT);
    uint64_t *at = &frame_records[pfn], stop = align_up(pfn + 1, CHUNK_FRAMES);

    if (!shared)
        step += FRAME_SHARED - FRAME_USED + (UINT64_C(1) << FRAME_PAYLOAD_SHIFT) -
                (record & FRAME_PAYLOAD_MASK);
    stop = end < stop ? end : stop;
#pragma GCC unroll 4
    for (uint64_t left = (stop - pfn + order_frames(order) - 1) >> order; left > 0; left--) {
        uint64_t found = peek(*at);

        if ((found ^ record) & said)
            break;
        poke(*at, found + step);
        at += order_frames(order);
    }
    return (uint64_t)(at - frame_records);
}

/* As many of the blocks from *pfn on as one holding of the lock is for. */
static int share_some(struct cpu *self, uint64_t *pfn, uint64_t end, unsigned order, owner_t to)
{
    uint64_t first, record, from = *pfn;
    int error = buddy_check_used(hpa_of_pfn(from), &first, &record);

    if (error != E_OK)
        return error;
    if (frame_record_order(record) > order) {
        write_pieces(self, first, record, next_order(frame_record_order(record), order));
        return E_OK;
    }
    if (first != from)
        return E_ORDER;
    *pfn = add_holders(from, record, end, to);
    if (frame_record_owner(record) != to) {
        buddy_add_charge(lease_key(frame_record_purpose(record), to), *pfn - from);
        buddy_add_charge(key_of_record(record), from - *pfn);
    }
    return E_OK;
}

int buddy_share_run(hpa_t at, uint64_t frames, unsigned order, owner_t to)
{
    uint64_t pfn = pfn_of(at), end = pfn + frames;
    int error = !is_aligned(at.v, PAGE_SIZE)            ? E_ALIGN
                : to == OWNER_NONE || to >= OWNER_LIMIT ? E_INVAL
                                                        : E_OK;

    while (error == E_OK && pfn < end) {
        struct cpu *self = buddy_take_lock();
        error = quota_of(to) != UINT64_MAX ? E_INVAL : share_some(self, &pfn, end, order, to);
        if (error != E_OK && error != E_INVAL)
            buddy_refuse(error);
        buddy_drop_lock();
    }
    trace(TRACE_SHARE, to, at.v, frames << PAGE_SHIFT, 0, error);
    return error;
}

int buddy_divide(hpa_t head, unsigned order, unsigned into, owner_t owner)
{
    uint64_t record;
    struct cpu *self = buddy_take_lock();
    int error = buddy_check_block(head, owner, &record);

    if (error == E_OK && (frame_record_order(record) != order || into > order))
        error = E_ORDER;
    if (error != E_OK)
        buddy_refuse(error);
    else
        write_pieces(self, pfn_of(head), record, into);
    buddy_drop_lock();
    return error;
}

int buddy_transfer(hpa_t head, unsigned order, owner_t owner, owner_t to)
{
    uint64_t record;
    struct cpu *self = buddy_take_lock();
    int error = buddy_check_block(head, owner, &record);

    if (error == E_OK && frame_record_order(record) != order)
        error = E_ORDER;
    if (error != E_OK)
        buddy_refuse(error);
    else if (!can_own(frame_record_purpose(record), to))
        error = E_INVAL;
    else
        error = buddy_move_charge(self, key_of_record(record),
                                  lease_key(frame_record_purpose(record), to), order_frames(order));
    if (error == E_OK)
        poke(frame_records[pfn_of(head)],
             (record & ~FRAME_OWNER_MASK) | (uint64_t)to << FRAME_OWNER_SHIFT);
    buddy_drop_lock();
    return error;
}
