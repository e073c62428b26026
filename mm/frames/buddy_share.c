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
    uint64_t record;
    buddy_take_lock();
    int error = buddy_check_block(head, owner, &record);
    if (error == E_OK)
        add_holder(pfn_of(head), record);
    else
        buddy_refuse(error);
    buddy_drop_lock();
    trace(TRACE_SHARE, owner, head.v, 0, 0, error);
    return error;
}

/* A look at the record of the block's first frame alone: what is no such block is no error. */
bool buddy_share_whole(hpa_t head, unsigned order, owner_t owner)
{
    uint64_t pfn = frame_number(head), record = 0;

    buddy_take_lock();
    if (pfn < buddy.frames && chunk_ready(pfn))
        record = peek(frame_records[pfn]);
    bool used =
        frame_record_state(record) == FRAME_USED || frame_record_state(record) == FRAME_SHARED;
    bool fits = used && frame_record_order(record) == order && frame_record_owner(record) == owner;
    if (fits)
        add_holder(pfn, record);
    buddy_drop_lock();
    if (fits)
        trace(TRACE_SHARE, owner, head.v, 0, 0, E_OK);
    return fits;
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
