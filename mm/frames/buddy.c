/*
 * The buddy allocator: one block taken. See mm/frames/buddy.h for what it promises.
 *
 *   buddy_free.c     one block given back, or shared
 *   buddy_lists.c    many single frames in one call
 *   buddy_cpu.c      CPUs, and the lock
 *   buddy_cache.c    what each CPU has in stock
 *   buddy_charge.c   who has how much: quotas and leases
 *   buddy_blocks.c   free blocks: masks and sets
 *   buddy_look.c     questions; buddy_visit.c, all blocks in order
 *   buddy_verify.c   whether all of it is right; buddy_fingerprint.c, all of it as a number
 *   buddy_start.c    the start, and memory that arrives
 *
 * Records: a frame's record is not 0 exactly when a *live* block starts there: one in use,
 * reserved, or in the stack of a per-CPU cache. That no stale record can lie inside a live block,
 * so that neither a later frame of a block nor a free frame can ever pass for a block's head, is
 * seen by induction over the changes:
 *  - A 2 MiB chunk's page of 512 records, and its 8 masks, are zeroed before the first of them is
 *    written or read; the set `ready` says which were. At that moment no block starts there.
 *  - A block becomes live out of free frames alone, where all records are 0 (or their page is not
 *    ready), and only its first frame's record is written. Live blocks are disjoint, so this is so
 *    until it is given back, and then that one record becomes 0 again.
 *  - Between in use and cached, the record changes from one non-zero value to another.
 * The live block that covers a frame, if there is one, therefore starts at one of the 19 first
 * frames that aligned blocks around it can have, and is the only one of them whose record reaches
 * that far.
 */
#include "mm/frames/buddy_blocks.h"
#include "mm/frames/buddy_cache.h"

/* One uncached request: any block within frames [first, end). */
static uint64_t take_block(struct cpu *self, unsigned order, uint64_t first, uint64_t end)
{
    bool anywhere = first == 0 && end >= buddy.frames;
    for (;;) {
        uint64_t pfn = NO_FRAME;
        if (anywhere)
            pfn = buddy_take_any(order);
        else if (first < LOW_FRAMES && end > LOW_FRAMES)
            pfn = buddy_take_within(order, LOW_FRAMES, end);
        if (pfn == NO_FRAME && !anywhere)
            pfn = buddy_take_within(order, first, end);
        if (pfn != NO_FRAME || !buddy_drain_all(self))
            return pfn;
    }
}

/* The end of every request that was charged for, the lock held. */
static int finish_request(struct cpu *self, int error)
{
    if (error == E_OK)
        bump(self->allocations, 1);
    else
        buddy.failed++;
    buddy_drop_lock();
    return error;
}

/* The request for a block within frames [first, end) or, `cached`, for any, from this CPU's cache.
 */
static int alloc_locked(unsigned order, uint64_t first, uint64_t end, bool cached,
                        enum frame_purpose purpose, owner_t owner, hpa_t *out)
{
    if (order > BUDDY_MAX_ORDER || !can_own(purpose, owner))
        return E_INVAL;
    uint64_t key = lease_key(purpose, owner);
    struct cpu *self = buddy_take_lock();
    int error = buddy_charge(self, key, order_frames(order));
    if (error == E_OK) {
        uint64_t pfn =
            cached ? buddy_take_cached(self, order) : take_block(self, order, first, end);
        if (pfn != NO_FRAME) {
            buddy_write_record(pfn, frame_record(FRAME_USED, order, purpose, owner));
            note_taken(pfn, order_frames(order));
            *out = hpa_of_pfn(pfn);
            if (cached)
                buddy_renew_lease(self, key);
        } else {
            buddy_add_charge(key, -order_frames(order));
            error = E_NOMEM;
        }
    }
    return finish_request(self, error);
}

static __attribute__((noinline)) int alloc_slow(unsigned order, enum frame_purpose purpose,
                                                owner_t owner, hpa_t *out)
{
    return alloc_locked(order, 0, UINT64_MAX, order < CACHED_ORDERS, purpose, owner, out);
}

/* A block that the CPU has in stock. False for whatever else the request may be: alloc_slow()
 * knows. */
static inline __attribute__((always_inline)) bool take_hit(struct cpu *self, unsigned order,
                                                           enum frame_purpose purpose,
                                                           owner_t owner, hpa_t *out)
{
    /* A lease is only ever made out to those who can own, so to find one is to have checked. */
    uint64_t key = lease_key(purpose, owner);
    struct lease *lease = lease_of(self, purpose, owner);
    uint64_t left = lease->left - order_frames(order), pfn;
    if ((unsigned)purpose >= PURPOSE_COUNT || lease->key != key || (int64_t)left < 0)
        return false;
    if (order == 0 && self->held != 0) {
        pfn = held_take(self, key | FRAME_USED);
    } else {
        struct cache_stack *stack = computed(&self->stack[order]);
        uint64_t *record;
        if (stack_empty(stack))
            return false;
        pfn = cache_pop(stack, order, &record);
        poke(*record, key | (uint64_t)order << FRAME_ORDER_SHIFT | FRAME_USED);
    }
    poke(lease->left, left);
    bump(self->allocations, 1);
    *out = hpa_of_pfn(pfn);
    return true;
}

static __attribute__((noinline)) int alloc_on_this_cpu(unsigned order, enum frame_purpose purpose,
                                                       owner_t owner, hpa_t *out)
{
    struct cpu *self = buddy_this_cpu();
    if (order >= CACHED_ORDERS || !cpu_enter(self, buddy_cpu_index == NULL))
        return alloc_slow(order, purpose, owner, out);
    bool hit = take_hit(self, order, purpose, owner, out);
    cpu_leave(self, buddy_cpu_index == NULL);
    return hit ? E_OK : alloc_slow(order, purpose, owner, out);
}

/* The only CPU, whose struct is open. Single frames, what is asked for most, have code of their
 * own. */
static __attribute__((noinline)) int alloc_frame_alone(enum frame_purpose purpose, owner_t owner,
                                                       hpa_t *out)
{
    return take_hit(&buddy_cpus[0], 0, purpose, owner, out) ? E_OK
                                                            : alloc_slow(0, purpose, owner, out);
}

static __attribute__((noinline)) int alloc_block_alone(unsigned order, enum frame_purpose purpose,
                                                       owner_t owner, hpa_t *out)
{
    if (order == 0)
        __builtin_unreachable(); /* alloc_frame_alone()'s */
    return order < CACHED_ORDERS && take_hit(&buddy_cpus[0], order, purpose, owner, out)
               ? E_OK
               : alloc_slow(order, purpose, owner, out);
}

static __attribute__((noinline)) int alloc_traced(unsigned order, enum frame_purpose purpose,
                                                  owner_t owner, hpa_t *out, const void *caller)
{
    int error = alloc_on_this_cpu(order, purpose, owner, out);
    struct trace_point point = {TRACE_ALLOC, owner,   error, error ? 0 : out->v,
                                order,       purpose, caller};
    trace_hook(&point);
    return error;
}

int buddy_alloc(unsigned order, enum frame_purpose purpose, owner_t owner, hpa_t *out)
{
    if (trace_wanted(TRACE_ALLOC))
        return alloc_traced(order, purpose, owner, out, __builtin_return_address(0));
    if (!peek(buddy_alone_open))
        return alloc_on_this_cpu(order, purpose, owner, out);
    return order != 0 ? alloc_block_alone(order, purpose, owner, out)
                      : alloc_frame_alone(purpose, owner, out);
}

int buddy_alloc_within(unsigned order, uint64_t first, uint64_t last, enum frame_purpose purpose,
                       owner_t owner, hpa_t *out)
{
    /* Whole frames: the first at or above `first`, and the last that ends at or below `last`. */
    uint64_t first_frame = (first >> PAGE_SHIFT) + (is_aligned(first, PAGE_SIZE) ? 0 : 1);
    uint64_t end_frame = (last >> PAGE_SHIFT) + (is_aligned(last + 1, PAGE_SIZE) ? 1 : 0);
    if (first > last)
        return E_INVAL;
    end_frame = end_frame < buddy.frames ? end_frame : buddy.frames;
    int error = alloc_locked(order, first_frame, end_frame, false, purpose, owner, out);
    trace(TRACE_ALLOC, owner, error ? 0 : out->v, order, purpose, error);
    return error;
}

int buddy_alloc_frames(uint64_t count, enum frame_purpose purpose, owner_t owner, hpa_t *out)
{
    if (count == 0 || count > order_frames(BUDDY_MAX_ORDER) || !can_own(purpose, owner))
        return E_INVAL;
    unsigned order = count == 1 ? 0 : highest_bit(count - 1) + 1;
    uint64_t key = lease_key(purpose, owner);
    struct cpu *self = buddy_take_lock();
    int error = buddy_charge(self, key, count);
    if (error == E_OK) {
        uint64_t pfn = take_block(self, order, 0, UINT64_MAX);
        if (pfn != NO_FRAME) {
            buddy_give_range(pfn + count, order_frames(order) - count);
            for (uint64_t i = 0; i < count; i++)
                buddy_write_record(pfn + i, frame_record(FRAME_USED, 0, purpose, owner));
            bump(self->allocations, count - 1); /* a block each; finish_request() counts one */
            note_taken(pfn, count);
            *out = hpa_of_pfn(pfn);
        } else {
            buddy_add_charge(key, -count);
            error = E_NOMEM;
        }
    }
    error = finish_request(self, error);
    trace(TRACE_ALLOC, owner, error ? 0 : out->v, order, purpose, error);
    return error;
}

int buddy_alloc_at(hpa_t at, unsigned order, enum frame_purpose purpose, owner_t owner)
{
    uint64_t pfn = pfn_of(at), first;
    unsigned from;
    if (order > BUDDY_MAX_ORDER || !can_own(purpose, owner))
        return E_INVAL;
    if (!is_aligned(at.v, PAGE_SIZE << order))
        return E_ALIGN;
    if (pfn >= buddy.frames || order_frames(order) > buddy.frames - pfn)
        return E_RANGE;
    uint64_t key = lease_key(purpose, owner);
    struct cpu *self = buddy_take_lock();
    int error = buddy_charge(self, key, order_frames(order));
    if (error == E_OK) {
        /* Free frames of an aligned block are one free block or part of one, unless some are
         * cached. */
        bool found = buddy_find_free(pfn, &first, &from) && from >= order;
        if (!found && buddy_drain_all(self))
            found = buddy_find_free(pfn, &first, &from) && from >= order;
        if (found) {
            buddy_carve_block(pfn, order, from);
            buddy_write_record(pfn, frame_record(FRAME_USED, order, purpose, owner));
            note_taken(pfn, order_frames(order));
        } else {
            buddy_add_charge(key, -order_frames(order));
            error = E_EXIST;
        }
    }
    error = finish_request(self, error);
    trace(TRACE_ALLOC, owner, at.v, order, purpose, error);
    return error;
}
