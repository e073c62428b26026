/*
 * The buddy allocator: one block taken or given back. See mm/frames/buddy.h for what it promises.
 *
 *   buddy_lists.c    many single frames in one call
 *   buddy_cache.c    what each CPU has in stock
 *   buddy_charge.c   who has how much: quotas and leases
 *   buddy_blocks.c   free blocks: masks and sets
 *   buddy_look.c     questions; buddy_verify.c, whether all of it is right
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
 *
 * CPUs: each has caches of small blocks, a share of the quotas, and counters, all in its own struct
 * cpu, which it uses without a lock and without an atomic read-modify-write. Everything else
 * belongs to the holder of `lock`. That holder may also work in another CPU's struct after
 * buddy_stop_others(): a bit in `closed` keeps the owner out (it goes for the lock instead), `busy`
 * shows it inside, and the fence that the embedding program supplies stands for the barrier that
 * the owner does not execute between the two. The owner itself works there with the lock held
 * without further ado.
 */
#include "mm/frames/buddy_internal.h"

#include "lib/panic.h"

struct buddy_state buddy __attribute__((aligned(128)));
struct account buddy_accounts[OWNER_LIMIT];
struct cpu buddy_cpus[BUDDY_CPUS];

static unsigned (*cpu_index)(void);
static void (*cpu_fence)(void);

/* There is one CPU, and it may enter its struct: all that the shortest path asks. */
static bool alone_open;

struct cpu *buddy_this_cpu(void)
{
    unsigned index = cpu_index != NULL ? cpu_index() : 0;
    invariant(index < BUDDY_CPUS);
    return computed(&buddy_cpus[index]);
}

/* ---- CPUs ---- */

static inline void cpu_leave(struct cpu *cpu, bool alone)
{
    if (!alone)
        __atomic_store_n(&cpu->busy, 0, __ATOMIC_RELEASE);
}

/* Enters the CPU's own struct without the lock; false when it has to take that. While there is one
 * CPU, `alone`, nobody asks whether it is busy. */
static inline bool cpu_enter(struct cpu *cpu, bool alone)
{
    if (alone)
        return peek(alone_open);
    poke(cpu->busy, 1);
    __atomic_signal_fence(__ATOMIC_SEQ_CST);
    if (__atomic_load_n(&cpu->closed, __ATOMIC_ACQUIRE) == 0)
        return true;
    cpu_leave(cpu, false);
    return false;
}

/* What closes a CPU's struct when nobody works there. */
static unsigned closed_at_rest(void)
{
    return (buddy.pressed ? CLOSED_PRESSED : 0u) | (buddy.watcher != NULL ? CLOSED_WATCHED : 0u);
}

struct cpu *buddy_take_lock(void)
{
    struct cpu *self = buddy_this_cpu();
    lock_take(&buddy.lock);
    buddy.holdings++;
    for (; self >= &buddy_cpus[buddy.cpus]; buddy.cpus++)
        poke(buddy_cpus[buddy.cpus].closed, closed_at_rest());
    return self;
}

static void set_closed(unsigned bits)
{
    for (unsigned i = 0; i < buddy.cpus; i++)
        __atomic_store_n(&buddy_cpus[i].closed, bits, __ATOMIC_RELEASE);
}

static void set_alone(void)
{
    poke(alone_open, cpu_index == NULL && closed_at_rest() == 0);
}

void buddy_open(void)
{
    buddy_take_lock();
    set_alone();
    buddy_drop_lock();
}

void buddy_drop_lock(void)
{
    bool pressed = buddy.free_frames < buddy.host_reserve;
    if (buddy.pressed != pressed) {
        buddy.pressed = pressed;
        set_closed(closed_at_rest());
        set_alone();
    }
    lock_drop(&buddy.lock);
}

void buddy_stop_others(const struct cpu *self)
{
    if (cpu_fence == NULL)
        return;
    set_closed(CLOSED_STOP);
    cpu_fence();
    for (unsigned i = 0; i < buddy.cpus; i++)
        while (&buddy_cpus[i] != self &&
               __atomic_load_n(&buddy_cpus[i].busy, __ATOMIC_ACQUIRE) != 0)
            __builtin_ia32_pause();
}

void buddy_resume_others(void)
{
    set_closed(closed_at_rest());
}

int buddy_set_cpus(unsigned (*index)(void), void (*fence)(void))
{
    if ((index == NULL) != (fence == NULL))
        return E_INVAL;
    cpu_index = index;
    cpu_fence = fence;
    set_alone();
    return E_OK;
}

void buddy_set_watch(const struct buddy_watch *watch)
{
    buddy_take_lock();
    buddy.watcher = watch;
    set_closed(closed_at_rest());
    set_alone();
    buddy_drop_lock();
}

/* ---- Taking ---- */

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
    if (order >= CACHED_ORDERS || !cpu_enter(self, cpu_index == NULL))
        return alloc_slow(order, purpose, owner, out);
    bool hit = take_hit(self, order, purpose, owner, out);
    cpu_leave(self, cpu_index == NULL);
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
    if (!peek(alone_open))
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

/* ---- Giving back ---- */

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

/* Is `head` the first frame of a block in use that belongs to `owner`? The lock is held. */
static int check_block(hpa_t head, owner_t owner, uint64_t *record)
{
    uint64_t pfn = pfn_of(head), first;
    if (!is_aligned(head.v, PAGE_SIZE))
        return E_ALIGN;
    if (pfn >= buddy.frames || !buddy_find_block(pfn, &first, record))
        return E_RANGE;
    switch (frame_record_state(*record)) {
    case FRAME_USED:
    case FRAME_SHARED:
        break;
    case FRAME_FREE:
    case FRAME_CACHED:
        return E_DOUBLE_FREE;
    default:
        return E_STATE;
    }
    if (frame_record_owner(*record) != owner)
        return E_PERM;
    return first == pfn ? E_OK : E_ORDER;
}

/* Gives back a block that check_block() has passed. */
static void free_locked(struct cpu *self, uint64_t pfn, uint64_t record)
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
    int error = check_block(head, owner, record);
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
        free_locked(self, pfn_of(head), record);
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
    if (order >= CACHED_ORDERS || !cpu_enter(self, cpu_index == NULL))
        return free_slow(head, order, owner);
    bool hit = give_hit(self, head, order, owner);
    cpu_leave(self, cpu_index == NULL);
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
    if (!peek(alone_open))
        return free_on_this_cpu(head, order, owner);
    return order != 0 ? free_block_alone(head, order, owner) : free_frame_alone(head, owner);
}

int buddy_share(hpa_t head, owner_t owner)
{
    uint64_t record;
    buddy_take_lock();
    int error = check_block(head, owner, &record);
    if (error == E_OK) {
        bool shared = frame_record_state(record) == FRAME_SHARED;
        uint64_t holders = shared ? (record >> FRAME_PAYLOAD_SHIFT) + 1 : 2;
        record &= ~(FRAME_PAYLOAD_MASK | FRAME_STATE_MASK);
        poke(frame_records[pfn_of(head)], record | FRAME_SHARED | holders << FRAME_PAYLOAD_SHIFT);
    } else {
        buddy_refuse(error);
    }
    buddy_drop_lock();
    trace(TRACE_SHARE, owner, head.v, 0, 0, error);
    return error;
}

int buddy_release(hpa_t head, unsigned order, owner_t owner, bool *last)
{
    uint64_t record;
    bool freed = false;
    struct cpu *self = buddy_take_lock();
    int error = check_block(head, owner, &record);
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
        free_locked(self, pfn_of(head), record);
        freed = true;
    }
    buddy_drop_lock();
    if (last != NULL)
        *last = freed;
    trace(TRACE_RELEASE, owner, head.v, order, freed, error);
    return error;
}

void buddy_drain(void)
{
    buddy_drain_all(buddy_take_lock());
    buddy_drop_lock();
}
