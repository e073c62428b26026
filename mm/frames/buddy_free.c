/* The buddy allocator: one block given back. */
#include "mm/frames/buddy_blocks.h"
#include "mm/frames/buddy_cache.h"

int buddy_refuse(int error)
{
    switch (error) {
    case E_DOUBLE_FREE:
        buddy.refused_double++;
        break;
    case E_ORDER:
        buddy.refused_order++;
        break;
    case E_PERM:
        buddy.refused_owner++;
        break;
    case E_SHARED:
        buddy.refused_shared++;
        break;
    case E_STATE:
        buddy.refused_state++;
        break;
    default:
        buddy.refused_range++;
        break;
    }
    return error;
}

int buddy_check_used(hpa_t frame, uint64_t *first, uint64_t *record)
{
    uint64_t pfn = pfn_of(frame);
    if (!is_aligned(frame.v, PAGE_SIZE))
        return E_ALIGN;
    if (pfn >= buddy.frames || !buddy_find_block(pfn, first, record))
        return E_RANGE;
    switch (frame_record_state(*record)) {
    case FRAME_USED:
    case FRAME_SHARED:
        return E_OK;
    case FRAME_FREE:
    case FRAME_CACHED:
        return E_DOUBLE_FREE;
    default:
        return E_STATE;
    }
}

int buddy_check_block(hpa_t head, owner_t owner, uint64_t *record)
{
    uint64_t first;
    int error = buddy_check_used(head, &first, record);
    if (error == E_OK && frame_record_owner(*record) != owner)
        error = E_PERM;
    else if (error == E_OK && first != pfn_of(head))
        error = E_ORDER;
    return error;
}

void buddy_free_locked(struct cpu *self, uint64_t pfn, uint64_t record)
{
    unsigned order = frame_record_order(record);
    buddy_add_charge(key_of_record(record), -order_frames(order));
    bump(self->frees, 1);
    note_freed(pfn, order_frames(order));
    if (order == 0 && (pfn ^ peek(self->held_base)) < GROUP_FRAMES) {
        held_give(self, pfn, &frame_records[pfn]);
        buddy_renew_lease(self, key_of_record(record));
    } else if (order < CACHED_ORDERS) {
        if (stack_full(&self->stack[order]))
            buddy_spill_cache(self, order);
        cache_push(&self->stack[order], order, pfn, &frame_records[pfn]);
        buddy_renew_lease(self, key_of_record(record));
    } else {
        poke(frame_records[pfn], 0);
        buddy_give_block(pfn, order);
    }
}

/* The same of a block that is to be freed. */
int buddy_check_free(hpa_t head, unsigned order, owner_t owner, uint64_t *record)
{
    int error = buddy_check_block(head, owner, record);
    if (error == E_OK && frame_record_state(*record) == FRAME_SHARED)
        error = E_SHARED;
    if (error == E_OK && frame_record_order(*record) != order)
        error = E_ORDER;
    return error;
}

static __attribute__((noinline)) int free_slow(hpa_t head, unsigned order, owner_t owner)
{
    uint64_t record;
    struct cpu *self = buddy_take_lock();
    int error = buddy_check_free(head, order, owner, &record);
    if (error == E_OK)
        buddy_free_locked(self, pfn_of(head), record);
    else
        buddy_refuse(error);
    buddy_drop_lock();
    return error;
}

/* A block as its record says, into the CPU's cache. False for whatever else it may be. */
static inline __attribute__((always_inline)) bool give_hit(struct cpu *self, hpa_t head,
                                                           unsigned order, owner_t owner)
{
    uint64_t pfn = frame_number(head);
    if (pfn >= buddy.frames)
        return false;
    /* The records of a group that is held are ready. */
    bool held = order == 0 && (pfn ^ peek(self->held_base)) < GROUP_FRAMES;
    if (!held && !chunk_ready(pfn))
        return false;
    uint64_t *place = computed(&frame_records[pfn]), record = peek(*place);
    if (!record_fits(record, order, owner))
        return false;
    uint64_t key = key_of_record(record);
    struct lease *lease = lease_of(self, key >> FRAME_PURPOSE_SHIFT, owner);
    if (lease->key != key)
        return false;
    if (held) {
        held_give(self, pfn, place);
    } else {
        struct cache_stack *stack = computed(&self->stack[order]);
        if (stack_full(stack))
            return false;
        cache_push(stack, order, pfn, place);
    }
    bump(lease->left, order_frames(order));
    bump(self->frees, 1);
    return true;
}

static __attribute__((noinline)) int free_on_this_cpu(hpa_t head, unsigned order, owner_t owner)
{
    struct cpu *self = buddy_this_cpu();
    if (order >= CACHED_ORDERS || !cpu_enter(self, buddy_cpu_index == NULL))
        return free_slow(head, order, owner);
    bool hit = give_hit(self, head, order, owner);
    cpu_leave(self, buddy_cpu_index == NULL);
    return hit ? E_OK : free_slow(head, order, owner);
}

static __attribute__((noinline)) int free_frame_alone(hpa_t head, owner_t owner)
{
    return give_hit(&buddy_cpus[0], head, 0, owner) ? E_OK : free_slow(head, 0, owner);
}

static __attribute__((noinline)) int free_block_alone(hpa_t head, unsigned order, owner_t owner)
{
    if (order == 0)
        __builtin_unreachable(); /* free_frame_alone()'s */
    return order < CACHED_ORDERS && give_hit(&buddy_cpus[0], head, order, owner)
               ? E_OK
               : free_slow(head, order, owner);
}

static __attribute__((noinline)) int free_traced(hpa_t head, unsigned order, owner_t owner,
                                                 const void *caller)
{
    int error = free_on_this_cpu(head, order, owner);
    struct trace_point point = {TRACE_FREE, owner, error, head.v, order, 1, caller};
    trace_hook(&point);
    return error;
}

int buddy_free(hpa_t head, unsigned order, owner_t owner)
{
    if (trace_wanted(TRACE_FREE))
        return free_traced(head, order, owner, __builtin_return_address(0));
    if (!peek(buddy_alone_open))
        return free_on_this_cpu(head, order, owner);
    return order != 0 ? free_block_alone(head, order, owner) : free_frame_alone(head, owner);
}

void buddy_drain(void)
{
    buddy_drain_all(buddy_take_lock());
    buddy_drop_lock();
}
