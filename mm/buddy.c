/*
 * The buddy allocator. See mm/buddy.h for what it promises.
 *
 * Free state: for each order one set of free blocks (mm/bittree.h), indexed by block number. A free
 * block stands in exactly one set, at the largest order that it can have: two free buddies are always
 * merged. So a block's buddy is the neighbouring bit of the same word, a merge clears it and goes one
 * order up, and a split sets the halves that are left over on the way down.
 *
 * Records: a frame's record is not 0 exactly when a *live* block starts there: one in use, reserved,
 * or in a per-CPU cache. That no stale record can lie inside a live block, so that neither a later frame
 * of a block nor a free frame can ever pass for a block's head, is seen by induction over the changes:
 *  - A 2 MiB chunk's page of 512 records is zeroed before the first record in it is written or read;
 *    the set `ready` says which pages were. At that moment no block starts there.
 *  - A block becomes live out of free frames alone, where all records are 0 (or their page is not
 *    ready), and only its first frame's record is written. Live blocks are disjoint, so this is so
 *    until it is given back, and then that one record becomes 0 again.
 *  - Between in use and cached, the record changes from one non-zero value to another.
 * The live block that covers a frame, if there is one, therefore starts at one of the 19 first frames
 * that aligned blocks around it can have, and is the only one of them whose record reaches that far.
 *
 * CPUs: each has caches of small blocks, a share of the owners' quotas, and counters, all in its own
 * struct cpu, which it uses without a lock and without an atomic read-modify-write. Everything else
 * belongs to the holder of `lock`. That holder may also work in another CPU's struct after
 * stop_others(): `stop` keeps the owner out (it goes for the lock instead), `busy` shows it inside, and
 * the fence that the embedding program supplies stands for the barrier that the owner does not
 * execute between the two. The owner itself works there with the lock held without further ado.
 *
 * Charging: an owner's `charged` frames are those it holds plus those leased to CPUs, which may hand them
 * out without asking and refill with what comes back. Quotas bound what is charged; leases are called in
 * before a request is refused, and an owner beyond its quota (which was lowered) has none.
 */
#include "mm/buddy.h"

#include "lib/bits.h"
#include "lib/format.h"
#include "lib/lock.h"
#include "lib/panic.h"
#include "lib/string.h"
#include "mm/bittree.h"

#define NO_FRAME UINT64_MAX
#define MAX_RAM_END (UINT64_C(1) << 52)
#define CHUNK_SHIFT 9 /* frames whose records fill one page: 2 MiB of RAM */
#define CHUNK_FRAMES (UINT64_C(1) << CHUNK_SHIFT)

#define LOW_FRAMES 256 /* the first MiB, kept for what can use no other */

/* Per-CPU caches: orders 0 .. CACHED_ORDERS - 1, each a stack in its part of one array. A miss brings
 * `batch` blocks, an overflow takes as many away, so that a CPU that only takes, or only gives, comes
 * for the lock once in `batch` times. */
#define CACHED_ORDERS 11
#define CACHE_SLOTS 312

static const struct cache_shape {
    uint16_t first, capacity, batch_order;
} cache_shape[CACHED_ORDERS] = {
    {0, 128, 6},  {128, 32, 4}, {160, 32, 4}, {192, 32, 4}, {224, 16, 3}, {240, 16, 3},
    {256, 16, 3}, {272, 16, 3}, {288, 8, 2},  {296, 8, 2},  {304, 8, 2},
};

#define LEASES 8
#define LEASE_FRAMES 2048 /* what a CPU asks for at a time; at least the largest cached block */
#define LEASE_MOST (4 * LEASE_FRAMES)

struct lease {
    uint32_t left;
    owner_t owner;
};

struct cpu {
    uint32_t busy; /* its owner is at work here without the lock */
    uint32_t stop; /* the lock's holder keeps it out */
    struct lease lease[LEASES];
    uint16_t count[CACHED_ORDERS];
    uint64_t allocations, frees;
    uint64_t used[PURPOSE_COUNT]; /* frames taken less frames given here: a sum over CPUs counts */
    uint64_t slot[CACHE_SLOTS];
} __attribute__((aligned(128)));

struct account {
    uint64_t charged;
    uint64_t forbidden; /* UINT64_MAX - quota, so that 0 is no limit */
};

static struct {
    /* Written at the start or seldom. */
    uint64_t frames; /* records; frame numbers are below this */
    struct bittree ready;
    bool pressed; /* the sets alone no longer cover the host's reserve */

    /* The lock's. */
    struct lock lock __attribute__((aligned(128)));
    uint32_t open_orders; /* bit n: there are free blocks of order n */
    struct bittree free[BUDDY_ORDERS];
    uint64_t blocks[BUDDY_ORDERS];
    uint64_t free_frames; /* in the sets: cached ones not included */
    uint64_t total, reserved, host_reserve;
    uint64_t failed, splits, merges;
    uint64_t refused_double, refused_order, refused_owner, refused_range, refused_shared,
        refused_state;
    unsigned cpus; /* one more than the highest CPU that has been here */
} buddy __attribute__((aligned(128)));

static struct account accounts[OWNER_LIMIT];
static struct cpu cpus[BUDDY_CPUS];

static unsigned (*cpu_index)(void);
static void (*cpu_fence)(void);

/* A CPU's counters are written by it alone and read by all. */
#define peek(lvalue) __atomic_load_n(&(lvalue), __ATOMIC_RELAXED)
#define poke(lvalue, value) __atomic_store_n(&(lvalue), (value), __ATOMIC_RELAXED)
#define bump(lvalue, by) poke(lvalue, peek(lvalue) + (by))

static inline uint64_t order_frames(unsigned order)
{
    return UINT64_C(1) << order;
}

static inline struct cpu *this_cpu_cache(void)
{
    return &cpus[cpu_index != NULL ? cpu_index() : 0];
}

/* ---- CPUs ---- */

static inline void cpu_leave(struct cpu *cpu)
{
    __atomic_store_n(&cpu->busy, 0, __ATOMIC_RELEASE);
}

/* Enters the CPU's own struct without the lock; false when the lock's holder is in there. */
static inline bool cpu_enter(struct cpu *cpu)
{
    poke(cpu->busy, 1);
    __atomic_signal_fence(__ATOMIC_SEQ_CST);
    if (__atomic_load_n(&cpu->stop, __ATOMIC_ACQUIRE) == 0)
        return true;
    cpu_leave(cpu);
    return false;
}

static struct cpu *take_lock(void)
{
    struct cpu *self = this_cpu_cache();
    lock_take(&buddy.lock);
    if (self >= &cpus[buddy.cpus])
        buddy.cpus = (unsigned)(self - cpus) + 1;
    return self;
}

static void drop_lock(void)
{
    bool pressed = buddy.free_frames < buddy.host_reserve;
    if (buddy.pressed != pressed)
        poke(buddy.pressed, pressed);
    lock_drop(&buddy.lock);
}

static void stop_others(const struct cpu *self)
{
    if (cpu_fence == NULL)
        return;
    for (unsigned i = 0; i < buddy.cpus; i++)
        if (&cpus[i] != self)
            poke(cpus[i].stop, 1);
    cpu_fence();
    for (unsigned i = 0; i < buddy.cpus; i++)
        while (&cpus[i] != self && __atomic_load_n(&cpus[i].busy, __ATOMIC_ACQUIRE) != 0)
            __builtin_ia32_pause();
}

static void resume_others(void)
{
    for (unsigned i = 0; i < buddy.cpus; i++)
        __atomic_store_n(&cpus[i].stop, 0, __ATOMIC_RELEASE);
}

/* ---- Records ---- */

static inline bool chunk_ready(uint64_t pfn)
{
    return bittree_test(&buddy.ready, pfn >> CHUNK_SHIFT);
}

static void write_record(uint64_t pfn, uint64_t record)
{
    uint64_t chunk = pfn >> CHUNK_SHIFT;
    if (!bittree_test(&buddy.ready, chunk)) {
        memset(&frame_records[chunk << CHUNK_SHIFT], 0, CHUNK_FRAMES * sizeof(uint64_t));
        bittree_set(&buddy.ready, chunk);
    }
    poke(frame_records[pfn], record);
}

/* The live block that covers a frame below buddy.frames. */
static bool find_live(uint64_t pfn, uint64_t *first, uint64_t *record)
{
    for (unsigned order = 0; order < BUDDY_ORDERS; order++) {
        uint64_t head = align_down(pfn, order_frames(order));
        if (order > 0 && head == align_down(pfn, order_frames(order - 1)))
            continue; /* the same candidate as before */
        if (!chunk_ready(head))
            continue;
        uint64_t found = peek(frame_records[head]);
        if (found != 0 && pfn - head < order_frames(frame_record_order(found))) {
            *first = head;
            *record = found;
            return true;
        }
    }
    return false;
}

/* The free block that covers a frame. */
static bool find_free(uint64_t pfn, uint64_t *first, unsigned *order)
{
    for (unsigned o = 0; o < BUDDY_ORDERS; o++)
        if (bittree_test(&buddy.free[o], pfn >> o)) {
            *first = align_down(pfn, order_frames(o));
            *order = o;
            return true;
        }
    return false;
}

static bool find_block(uint64_t pfn, uint64_t *first, uint64_t *record)
{
    unsigned order;
    if (find_live(pfn, first, record))
        return true;
    if (!find_free(pfn, first, &order))
        return false;
    *record = frame_record(FRAME_FREE, order, PURPOSE_FREE, OWNER_NONE);
    return true;
}

/* The lowest live block's first frame in [from, end), NO_FRAME for none. */
static uint64_t next_live(uint64_t from, uint64_t end)
{
    uint64_t pfn = from;
    while (pfn < end) {
        uint64_t chunk = bittree_next(&buddy.ready, pfn >> CHUNK_SHIFT);
        if (chunk == BITTREE_NONE)
            break;
        if (chunk > pfn >> CHUNK_SHIFT)
            pfn = chunk << CHUNK_SHIFT;
        uint64_t stop = (chunk + 1) << CHUNK_SHIFT;
        for (stop = stop < end ? stop : end; pfn < stop; pfn++)
            if (peek(frame_records[pfn]) != 0)
                return pfn;
    }
    return NO_FRAME;
}

/* The lowest free block's first frame at or above `from`, NO_FRAME for none. */
static uint64_t next_free(uint64_t from)
{
    uint64_t lowest = NO_FRAME;
    for (unsigned order = 0; order < BUDDY_ORDERS; order++) {
        uint64_t index = (from >> order) + (is_aligned(from, order_frames(order)) ? 0 : 1);
        uint64_t block = bittree_next(&buddy.free[order], index);
        if (block != BITTREE_NONE && block << order < lowest)
            lowest = block << order;
    }
    return lowest;
}

/* Is any frame of [first, first + count) free, cached, in use or reserved? */
static bool any_known(uint64_t first, uint64_t count)
{
    uint64_t head, record;
    return find_block(first, &head, &record) || next_free(first) < first + count ||
           next_live(first, first + count) != NO_FRAME;
}

/* ---- The sets of free blocks ---- */

static bool is_low(uint64_t pfn, unsigned order)
{
    return pfn + order_frames(order) <= LOW_FRAMES;
}

static void note_added(unsigned order)
{
    buddy.blocks[order]++;
    buddy.open_orders |= 1u << order;
    buddy.free_frames += order_frames(order);
}

static void note_removed(unsigned order)
{
    if (--buddy.blocks[order] == 0)
        buddy.open_orders &= ~(1u << order);
    buddy.free_frames -= order_frames(order);
}

static void remove_free(unsigned order, uint64_t index)
{
    bittree_clear(&buddy.free[order], index);
    note_removed(order);
}

/* Puts a block into the sets, merged with its buddy for as long as that is free. */
static void give_block(uint64_t pfn, unsigned order)
{
    for (;; order++) {
        struct bittree *set = &buddy.free[order];
        uint64_t index = pfn >> order;
        unsigned depth = bittree_depth(set, index);
        if (order == BUDDY_MAX_ORDER || depth > 0 ||
            (*bittree_word(set, 0, index) & bittree_mask(0, index ^ 1)) == 0) {
            bittree_set_at(set, index, depth);
            note_added(order);
            return;
        }
        remove_free(order, index ^ 1);
        buddy.merges++;
        pfn = align_down(pfn, order_frames(order + 1));
    }
}

/* Takes the order-`order` block at `pfn` out of the free block of order `from` that contains it. */
static void carve_block(uint64_t pfn, unsigned order, unsigned from)
{
    remove_free(from, pfn >> from);
    while (from > order) {
        from--;
        bittree_set(&buddy.free[from], (pfn >> from) ^ 1);
        note_added(from);
        buddy.splits++;
    }
}

/* The largest order of a block that starts at `first` and has at most `count` frames. */
static unsigned largest_order(uint64_t first, uint64_t count)
{
    unsigned order = highest_bit(count);
    if (first != 0 && lowest_bit(first) < order)
        order = lowest_bit(first);
    return order < BUDDY_MAX_ORDER ? order : BUDDY_MAX_ORDER;
}

static void give_range(uint64_t first, uint64_t count)
{
    while (count > 0) {
        unsigned order = largest_order(first, count);
        give_block(first, order);
        first += order_frames(order);
        count -= order_frames(order);
    }
}

/* The highest block of the smallest order that fits and is not low, or low if there is no other. False
 * when there is none at all. */
static bool choose_any(unsigned order, uint64_t *index, unsigned *from)
{
    bool found = false;
    for (uint32_t open = buddy.open_orders >> order << order; open != 0; open &= open - 1) {
        unsigned o = lowest_bit(open);
        uint64_t last = bittree_last(&buddy.free[o]);
        bool low = is_low(last << o, o);
        if (!low || !found) {
            *index = last;
            *from = o;
            found = true;
        }
        if (!low)
            break;
    }
    return found;
}

/* Takes a block, the top end of the one chosen. */
static uint64_t take_any(unsigned order)
{
    uint64_t index;
    unsigned from;
    if (!choose_any(order, &index, &from))
        return NO_FRAME;
    uint64_t pfn = ((index + 1) << from) - order_frames(order);
    carve_block(pfn, order, from);
    return pfn;
}

/* The same among the blocks that lie within frames [first, last]. */
static uint64_t take_within(unsigned order, uint64_t first, uint64_t last)
{
    uint64_t low = (first + order_frames(order) - 1) >> order;
    uint64_t high = (last + 1) >> order; /* exclusive */
    uint64_t chosen = NO_FRAME;
    unsigned chosen_from = 0;
    if (low >= high)
        return NO_FRAME;
    for (unsigned from = order; from < BUDDY_ORDERS; from++) {
        unsigned above = from - order;
        uint64_t found = bittree_previous(&buddy.free[from], (high - 1) >> above);
        if (found == BITTREE_NONE || found < low >> above)
            continue;
        /* Of this free block, the highest part within the bounds. */
        uint64_t index = ((found + 1) << above) - 1;
        index = index < high ? index : high - 1;
        bool is_low_block = is_low(index << order, order);
        if (!is_low_block || chosen == NO_FRAME) {
            chosen = index << order;
            chosen_from = from;
        }
        if (!is_low_block)
            break;
    }
    if (chosen != NO_FRAME)
        carve_block(chosen, order, chosen_from);
    return chosen;
}

/* ---- Caches ---- */

static inline uint64_t cached_record(unsigned order)
{
    return frame_record(FRAME_CACHED, order, PURPOSE_FREE, OWNER_NONE);
}

static uint64_t cached_frames_of(const struct cpu *cpu)
{
    uint64_t frames = 0;
    for (unsigned order = 0; order < CACHED_ORDERS; order++)
        frames += (uint64_t)peek(cpu->count[order]) << order;
    return frames;
}

static uint64_t cached_frames(void)
{
    uint64_t frames = 0;
    for (unsigned i = 0; i < buddy.cpus; i++)
        frames += cached_frames_of(&cpus[i]);
    return frames;
}

static inline void cache_push(struct cpu *cpu, unsigned order, uint64_t pfn)
{
    unsigned count = cpu->count[order];
    cpu->slot[cache_shape[order].first + count] = pfn;
    poke(cpu->count[order], (uint16_t)(count + 1));
}

static inline uint64_t cache_pop(struct cpu *cpu, unsigned order)
{
    unsigned count = cpu->count[order] - 1u;
    uint64_t pfn = cpu->slot[cache_shape[order].first + count];
    poke(cpu->count[order], (uint16_t)count);
    /* Fails when two CPUs freed one block at the same moment, which no check can see in time. */
    invariant(peek(frame_records[pfn]) == cached_record(order));
    return pfn;
}

/* Moves the `n` blocks that have been in the cache for longest to the sets. */
static void cache_spill(struct cpu *cpu, unsigned order, unsigned n)
{
    uint64_t *slot = &cpu->slot[cache_shape[order].first];
    unsigned rest = cpu->count[order] - n;
    for (unsigned i = 0; i < n; i++) {
        invariant(peek(frame_records[slot[i]]) == cached_record(order));
        poke(frame_records[slot[i]], 0);
        give_block(slot[i], order);
    }
    memmove(slot, slot + n, rest * sizeof(*slot));
    poke(cpu->count[order], (uint16_t)rest);
}

/* Fills an empty cache: from free blocks of that very order, and only where there are none by splitting
 * a larger one. */
static void cache_fill(struct cpu *cpu, unsigned order)
{
    unsigned batch_order = cache_shape[order].batch_order;
    for (unsigned n = 0; n < 1u << batch_order && buddy.blocks[order] > 0; n++) {
        uint64_t index = bittree_last(&buddy.free[order]);
        if (is_low(index << order, order))
            break;
        remove_free(order, index);
        write_record(index << order, cached_record(order));
        cache_push(cpu, order, index << order);
    }
    uint64_t index;
    unsigned from;
    if (cpu->count[order] > 0 || !choose_any(order, &index, &from))
        return;
    unsigned pieces_order = from - order < batch_order ? from - order : batch_order;
    uint64_t pieces = order_frames(pieces_order);
    uint64_t end = (index + 1) << from;
    carve_block(end - (pieces << order), order + pieces_order, from);
    for (uint64_t n = 1; n <= pieces; n++) { /* the lowest is the first to come out */
        uint64_t pfn = end - (n << order);
        write_record(pfn, cached_record(order));
        cache_push(cpu, order, pfn);
    }
    buddy.splits += pieces - 1;
}

static void drain_cpu(struct cpu *cpu)
{
    for (unsigned order = 0; order < CACHED_ORDERS; order++)
        cache_spill(cpu, order, cpu->count[order]);
}

/* Empties every cache. False when there was nothing in them. */
static bool drain_all(struct cpu *self)
{
    uint64_t own = cached_frames_of(self);
    drain_cpu(self);
    if (cached_frames() == 0)
        return own > 0;
    stop_others(self);
    for (unsigned i = 0; i < buddy.cpus; i++)
        drain_cpu(&cpus[i]);
    resume_others();
    return true;
}

/* ---- Charging ---- */

static inline struct lease *lease_slot(struct cpu *cpu, owner_t owner)
{
    return &cpu->lease[owner % LEASES];
}

static uint64_t leased_to(const struct cpu *cpu, owner_t owner)
{
    const struct lease *lease = &cpu->lease[owner % LEASES];
    return peek(lease->owner) == owner ? peek(lease->left) : 0;
}

static void lease_return(struct lease *lease)
{
    accounts[lease->owner].charged -= lease->left;
    poke(lease->left, 0);
    poke(lease->owner, OWNER_NONE);
}

/* Calls in every lease of this owner's quota, an empty one too. */
static void recall_leases(struct cpu *self, owner_t owner)
{
    bool others = false;
    for (unsigned i = 0; i < buddy.cpus; i++)
        others = others || (&cpus[i] != self && peek(lease_slot(&cpus[i], owner)->owner) == owner);
    if (others)
        stop_others(self);
    for (unsigned i = 0; i < buddy.cpus; i++) {
        struct lease *lease = lease_slot(&cpus[i], owner);
        if ((others || &cpus[i] == self) && lease->owner == owner)
            lease_return(lease);
    }
    if (others)
        resume_others();
}

static uint64_t quota_of(owner_t owner)
{
    return UINT64_MAX - accounts[owner].forbidden;
}

/* Frames that may still be charged to an owner. */
static uint64_t quota_left(owner_t owner)
{
    uint64_t quota = quota_of(owner), charged = accounts[owner].charged;
    return quota > charged ? quota - charged : 0;
}

/* Gives the CPU a fresh lease, if the quota has room, so that what follows needs no lock. */
static void lease_renew(struct cpu *self, owner_t owner)
{
    struct lease *lease = lease_slot(self, owner);
    if (lease->owner == owner && lease->left >= LEASE_FRAMES / 2 && lease->left <= LEASE_MOST / 2)
        return;
    lease_return(lease);
    if (accounts[owner].charged > quota_of(owner))
        return;
    uint64_t room = quota_left(owner);
    uint32_t grant = room < LEASE_FRAMES ? (uint32_t)room : LEASE_FRAMES;
    accounts[owner].charged += grant;
    poke(lease->owner, owner);
    poke(lease->left, grant);
}

static int charge(struct cpu *self, owner_t owner, uint64_t frames)
{
    if (quota_left(owner) < frames) {
        recall_leases(self, owner);
        if (quota_left(owner) < frames)
            return E_QUOTA;
    }
    if (owner != OWNER_HOST && buddy.host_reserve > 0) {
        uint64_t available = buddy.free_frames + cached_frames();
        if (available < frames)
            return E_NOMEM;
        if (available - frames < buddy.host_reserve)
            return E_QUOTA;
    }
    accounts[owner].charged += frames;
    return E_OK;
}

/* ---- Taking ---- */

static bool can_own(enum frame_purpose purpose, owner_t owner)
{
    return purpose > PURPOSE_FREE && purpose < PURPOSE_COUNT && owner != OWNER_NONE &&
           owner < OWNER_LIMIT;
}

/* One uncached request: any block within frames [first, last]. */
static uint64_t take_block(struct cpu *self, unsigned order, uint64_t first, uint64_t last)
{
    bool anywhere = first == 0 && last + 1 >= buddy.frames;
    for (;;) {
        uint64_t pfn = anywhere ? take_any(order) : take_within(order, first, last);
        if (pfn != NO_FRAME || !drain_all(self))
            return pfn;
    }
}

static uint64_t take_cached(struct cpu *self, unsigned order)
{
    do {
        if (self->count[order] == 0)
            cache_fill(self, order);
        if (self->count[order] > 0)
            return cache_pop(self, order);
    } while (drain_all(self));
    return NO_FRAME;
}

/* The end of every request, the lock held: counts it, and `frames` frames as `purpose` if it succeeded. */
static int finish_request(struct cpu *self, int error, enum frame_purpose purpose, uint64_t frames)
{
    if (error == E_OK) {
        bump(self->allocations, 1);
        bump(self->used[purpose], frames);
    } else {
        buddy.failed++;
    }
    drop_lock();
    return error;
}

/* The request that lies within [first, last] or, `cached`, may come from this CPU's cache. */
static int alloc_locked(unsigned order, uint64_t first, uint64_t last, bool cached,
                        enum frame_purpose purpose, owner_t owner, hpa_t *out)
{
    if (order > BUDDY_MAX_ORDER || !can_own(purpose, owner))
        return E_INVAL;
    struct cpu *self = take_lock();
    int error = charge(self, owner, order_frames(order));
    if (error == E_OK) {
        uint64_t pfn = cached ? take_cached(self, order) : take_block(self, order, first, last);
        if (pfn != NO_FRAME) {
            write_record(pfn, frame_record(FRAME_USED, order, purpose, owner));
            *out = hpa_of_pfn(pfn);
            if (cached)
                lease_renew(self, owner);
        } else {
            accounts[owner].charged -= order_frames(order);
            error = E_NOMEM;
        }
    }
    return finish_request(self, error, purpose, order_frames(order));
}

int buddy_alloc(unsigned order, enum frame_purpose purpose, owner_t owner, hpa_t *out)
{
    if (order >= CACHED_ORDERS)
        return alloc_locked(order, 0, UINT64_MAX - 1, false, purpose, owner, out);

    /* A lease is only ever made out to a valid owner, so to find one is to have checked it. */
    struct cpu *self = this_cpu_cache();
    if ((unsigned)purpose - 1 < PURPOSE_COUNT - 1 && cpu_enter(self)) {
        struct lease *lease = lease_slot(self, owner);
        uint32_t frames = 1u << order;
        if (self->count[order] > 0 && lease->owner == owner && lease->left >= frames &&
            (owner == OWNER_HOST || !peek(buddy.pressed))) {
            uint64_t pfn = cache_pop(self, order);
            poke(frame_records[pfn], frame_record(FRAME_USED, order, purpose, owner));
            poke(lease->left, lease->left - frames);
            bump(self->used[purpose], frames);
            bump(self->allocations, 1);
            cpu_leave(self);
            *out = hpa_of_pfn(pfn);
            return E_OK;
        }
        cpu_leave(self);
    }
    return alloc_locked(order, 0, 0, true, purpose, owner, out);
}

int buddy_alloc_within(unsigned order, uint64_t first, uint64_t last, enum frame_purpose purpose,
                       owner_t owner, hpa_t *out)
{
    /* Whole frames: the first at or above `first`, and the last that ends at or below `last`. */
    uint64_t first_frame = (first >> PAGE_SHIFT) + (is_aligned(first, PAGE_SIZE) ? 0 : 1);
    uint64_t end_frame = (last >> PAGE_SHIFT) + (is_aligned(last + 1, PAGE_SIZE) ? 1 : 0);
    if (first > last)
        return E_INVAL;
    if (end_frame > buddy.frames)
        end_frame = buddy.frames;
    if (first_frame >= end_frame)
        first_frame = end_frame = 1; /* nothing lies within [1, 0] */
    return alloc_locked(order, first_frame, end_frame - 1, false, purpose, owner, out);
}

int buddy_alloc_frames(uint64_t count, enum frame_purpose purpose, owner_t owner, hpa_t *out)
{
    if (count == 0 || count > order_frames(BUDDY_MAX_ORDER) || !can_own(purpose, owner))
        return E_INVAL;
    unsigned order = count == 1 ? 0 : highest_bit(count - 1) + 1;
    struct cpu *self = take_lock();
    int error = charge(self, owner, count);
    if (error == E_OK) {
        uint64_t pfn = take_block(self, order, 0, UINT64_MAX - 1);
        if (pfn != NO_FRAME) {
            give_range(pfn + count, order_frames(order) - count);
            for (uint64_t i = 0; i < count; i++)
                write_record(pfn + i, frame_record(FRAME_USED, 0, purpose, owner));
            *out = hpa_of_pfn(pfn);
        } else {
            accounts[owner].charged -= count;
            error = E_NOMEM;
        }
    }
    return finish_request(self, error, purpose, count);
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
    struct cpu *self = take_lock();
    int error = charge(self, owner, order_frames(order));
    if (error == E_OK) {
        /* Free frames of an aligned block are one free block or part of one, unless some are
         * cached. */
        bool found = find_free(pfn, &first, &from) && from >= order;
        if (!found && drain_all(self))
            found = find_free(pfn, &first, &from) && from >= order;
        if (found) {
            carve_block(pfn, order, from);
            write_record(pfn, frame_record(FRAME_USED, order, purpose, owner));
        } else {
            accounts[owner].charged -= order_frames(order);
            error = E_EXIST;
        }
    }
    return finish_request(self, error, purpose, order_frames(order));
}

/* ---- Giving back ---- */

static int refuse(int error)
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
    if (pfn >= buddy.frames || !find_block(pfn, &first, record))
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
    owner_t owner = frame_record_owner(record);
    accounts[owner].charged -= order_frames(order);
    bump(self->used[frame_record_purpose(record)], -order_frames(order));
    bump(self->frees, 1);
    if (order < CACHED_ORDERS) {
        if (self->count[order] == cache_shape[order].capacity)
            cache_spill(self, order, 1u << cache_shape[order].batch_order);
        poke(frame_records[pfn], cached_record(order));
        cache_push(self, order, pfn);
        if (owner != OWNER_NONE)
            lease_renew(self, owner);
    } else {
        poke(frame_records[pfn], 0);
        give_block(pfn, order);
    }
}

static int free_slow(hpa_t head, unsigned order, owner_t owner)
{
    uint64_t record;
    struct cpu *self = take_lock();
    int error = check_block(head, owner, &record);
    if (error == E_OK && frame_record_state(record) == FRAME_SHARED)
        error = E_SHARED;
    if (error == E_OK && frame_record_order(record) != order)
        error = E_ORDER;
    if (error == E_OK)
        free_locked(self, pfn_of(head), record);
    else
        refuse(error);
    drop_lock();
    return error;
}

int buddy_free(hpa_t head, unsigned order, owner_t owner)
{
    uint64_t pfn = pfn_of(head);
    if (order >= CACHED_ORDERS || !is_aligned(head.v, PAGE_SIZE) || pfn >= buddy.frames ||
        !chunk_ready(pfn))
        return free_slow(head, order, owner);

    uint64_t record = peek(frame_records[pfn]);
    struct cpu *self = this_cpu_cache();
    if ((record & (FRAME_STATE_MASK | FRAME_ORDER_MASK | FRAME_OWNER_MASK)) ==
            frame_record(FRAME_USED, order, PURPOSE_FREE, owner) &&
        cpu_enter(self)) {
        struct lease *lease = lease_slot(self, owner);
        uint32_t frames = 1u << order;
        if (lease->owner == owner && lease->left <= LEASE_MOST - frames &&
            self->count[order] < cache_shape[order].capacity) {
            poke(frame_records[pfn], cached_record(order));
            cache_push(self, order, pfn);
            poke(lease->left, lease->left + frames);
            bump(self->used[frame_record_purpose(record)], -(uint64_t)frames);
            bump(self->frees, 1);
            cpu_leave(self);
            return E_OK;
        }
        cpu_leave(self);
    }
    return free_slow(head, order, owner);
}

int buddy_share(hpa_t head, owner_t owner)
{
    uint64_t record;
    take_lock();
    int error = check_block(head, owner, &record);
    if (error == E_OK) {
        bool shared = frame_record_state(record) == FRAME_SHARED;
        uint64_t holders = shared ? (record >> FRAME_PAYLOAD_SHIFT) + 1 : 2;
        record &= ~(FRAME_PAYLOAD_MASK | FRAME_STATE_MASK);
        poke(frame_records[pfn_of(head)], record | FRAME_SHARED | holders << FRAME_PAYLOAD_SHIFT);
    } else {
        refuse(error);
    }
    drop_lock();
    return error;
}

int buddy_release(hpa_t head, unsigned order, owner_t owner, bool *last)
{
    uint64_t record;
    bool freed = false;
    struct cpu *self = take_lock();
    int error = check_block(head, owner, &record);
    if (error == E_OK && frame_record_order(record) != order)
        error = E_ORDER;
    if (error != E_OK) {
        refuse(error);
    } else if (frame_record_state(record) == FRAME_SHARED) {
        uint64_t holders = (record >> FRAME_PAYLOAD_SHIFT) - 1;
        record &= ~(FRAME_PAYLOAD_MASK | FRAME_STATE_MASK);
        record |= holders > 1 ? FRAME_SHARED | holders << FRAME_PAYLOAD_SHIFT : FRAME_USED;
        poke(frame_records[pfn_of(head)], record);
    } else {
        free_locked(self, pfn_of(head), record);
        freed = true;
    }
    drop_lock();
    if (last != NULL)
        *last = freed;
    return error;
}

void buddy_drain(void)
{
    drain_all(take_lock());
    drop_lock();
}

/* ---- Starting, and memory that arrives ---- */

static uint64_t frames_below(uint64_t ram_end)
{
    return ram_end > MAX_RAM_END ? 0 : (ram_end + PAGE_SIZE - 1) >> PAGE_SHIFT;
}

static uint64_t chunks_of(uint64_t frames)
{
    return (frames + CHUNK_FRAMES - 1) >> CHUNK_SHIFT;
}

static uint64_t blocks_of(uint64_t frames, unsigned order)
{
    return (frames + order_frames(order) - 1) >> order;
}

uint64_t buddy_metadata_size(uint64_t ram_end)
{
    uint64_t frames = frames_below(ram_end);
    if (frames == 0)
        return 0;
    uint64_t words = bittree_words(chunks_of(frames));
    for (unsigned order = 0; order < BUDDY_ORDERS; order++)
        words += bittree_words(blocks_of(frames, order));
    return chunks_of(frames) * PAGE_SIZE + align_up(words * sizeof(uint64_t), PAGE_SIZE);
}

int buddy_init(void *metadata, uint64_t metadata_size, uint64_t ram_end)
{
    uint64_t frames = frames_below(ram_end);
    if (frames == 0)
        return E_RANGE;
    if (!is_aligned((uint64_t)(uintptr_t)metadata, PAGE_SIZE))
        return E_ALIGN;
    if (metadata_size < buddy_metadata_size(ram_end))
        return E_NOMEM;
    if (buddy.frames != 0) { /* not the first start: a hosted test */
        memset(&buddy, 0, sizeof(buddy));
        memset(cpus, 0, sizeof(cpus));
        memset(accounts, 0, sizeof(accounts));
    }
    frame_records = metadata;
    uint64_t *words = frame_records + (chunks_of(frames) << CHUNK_SHIFT);
    words = bittree_init(&buddy.ready, words, chunks_of(frames));
    for (unsigned order = 0; order < BUDDY_ORDERS; order++)
        words = bittree_init(&buddy.free[order], words, blocks_of(frames, order));
    buddy.frames = frames;
    return E_OK;
}

int buddy_set_cpus(unsigned (*index)(void), void (*fence)(void))
{
    if ((index == NULL) != (fence == NULL))
        return E_INVAL;
    cpu_index = index;
    cpu_fence = fence;
    return E_OK;
}

static int check_range(hpa_t base, uint64_t size)
{
    if (size == 0)
        return E_INVAL;
    if (!is_aligned(base.v, PAGE_SIZE) || !is_aligned(size, PAGE_SIZE))
        return E_ALIGN;
    if (pfn_of(base) >= buddy.frames || size >> PAGE_SHIFT > buddy.frames - pfn_of(base))
        return E_RANGE;
    return E_OK;
}

int buddy_add(hpa_t base, uint64_t size)
{
    uint64_t first = pfn_of(base), count = size >> PAGE_SHIFT;
    int error = check_range(base, size);
    if (error != E_OK)
        return error;
    take_lock();
    if (any_known(first, count)) {
        error = E_EXIST;
    } else {
        give_range(first, count);
        buddy.total += count;
    }
    drop_lock();
    return error;
}

int buddy_record(hpa_t base, uint64_t size, enum frame_state state, enum frame_purpose purpose,
                 owner_t owner)
{
    uint64_t first = pfn_of(base), count = size >> PAGE_SHIFT;
    int error = check_range(base, size);
    if (error != E_OK)
        return error;
    if ((state != FRAME_USED && state != FRAME_RESERVED) ||
        !can_own(purpose, state == FRAME_RESERVED && owner == OWNER_NONE ? OWNER_HOST : owner))
        return E_INVAL;
    struct cpu *self = take_lock();
    if (any_known(first, count)) {
        error = E_EXIST;
    } else {
        for (uint64_t pfn = first, left = count; left > 0;) {
            unsigned order = state == FRAME_RESERVED ? largest_order(pfn, left) : 0;
            write_record(pfn, frame_record(state, order, purpose, owner));
            pfn += order_frames(order);
            left -= order_frames(order);
        }
        buddy.total += count;
        buddy.reserved += state == FRAME_RESERVED ? count : 0;
        accounts[owner].charged += count;
        if (accounts[owner].charged > quota_of(owner))
            recall_leases(self, owner);
        bump(self->used[purpose], count);
    }
    drop_lock();
    return error;
}

/* ---- Quotas ---- */

int buddy_set_quota(owner_t owner, uint64_t frames)
{
    if (owner == OWNER_NONE || owner >= OWNER_LIMIT)
        return E_INVAL;
    recall_leases(take_lock(), owner); /* what is leased could be taken beyond a smaller quota */
    accounts[owner].forbidden = UINT64_MAX - frames;
    drop_lock();
    return E_OK;
}

void buddy_set_reserve(uint64_t frames)
{
    take_lock();
    buddy.host_reserve = frames;
    drop_lock();
}

uint64_t buddy_quota(owner_t owner)
{
    if (owner >= OWNER_LIMIT)
        return 0;
    take_lock();
    uint64_t quota = quota_of(owner);
    drop_lock();
    return quota;
}

/* ---- Looking ---- */

static uint64_t owner_frames(owner_t owner)
{
    uint64_t frames = accounts[owner].charged;
    for (unsigned i = 0; i < buddy.cpus; i++)
        frames -= leased_to(&cpus[i], owner);
    return frames;
}

uint64_t buddy_owner_frames(owner_t owner)
{
    if (owner >= OWNER_LIMIT)
        return 0;
    take_lock();
    uint64_t frames = owner_frames(owner);
    drop_lock();
    return frames;
}

static uint64_t used_frames(enum frame_purpose purpose)
{
    uint64_t frames = 0;
    for (unsigned i = 0; i < buddy.cpus; i++)
        frames += peek(cpus[i].used[purpose]);
    return frames;
}

void buddy_stats(struct buddy_stats *out)
{
    take_lock();
    *out = (struct buddy_stats){
        .total_frames = buddy.total,
        .free_frames = buddy.total,
        .cached_frames = cached_frames(),
        .reserved_frames = buddy.reserved,
        .failed = buddy.failed,
        .splits = buddy.splits,
        .merges = buddy.merges,
        .refused_double = buddy.refused_double,
        .refused_order = buddy.refused_order,
        .refused_owner = buddy.refused_owner,
        .refused_range = buddy.refused_range,
        .refused_shared = buddy.refused_shared,
        .refused_state = buddy.refused_state,
    };
    for (unsigned order = 0; order < BUDDY_ORDERS; order++)
        out->free_blocks[order] = buddy.blocks[order];
    for (unsigned purpose = 0; purpose < PURPOSE_COUNT; purpose++) {
        out->by_purpose[purpose] = used_frames((enum frame_purpose)purpose);
        out->free_frames -= out->by_purpose[purpose];
    }
    for (unsigned i = 0; i < buddy.cpus; i++) {
        out->allocations += peek(cpus[i].allocations);
        out->frees += peek(cpus[i].frees);
    }
    drop_lock();
}

bool buddy_block(hpa_t frame, hpa_t *first, uint64_t *record)
{
    uint64_t head = 0;
    if (pfn_of(frame) >= buddy.frames)
        return false;
    take_lock();
    bool found = find_block(pfn_of(frame), &head, record);
    drop_lock();
    *first = hpa_of_pfn(head);
    return found;
}

bool buddy_is_free(hpa_t frame)
{
    hpa_t first;
    uint64_t record;
    if (!buddy_block(frame, &first, &record))
        return false;
    enum frame_state state = frame_record_state(record);
    return state == FRAME_FREE || state == FRAME_CACHED;
}

/* The lowest block that ends above `from`: the one that covers it, or the next. */
static bool block_from(uint64_t from, uint64_t *first, uint64_t *record)
{
    if (from >= buddy.frames)
        return false;
    if (find_block(from, first, record))
        return true;
    uint64_t free = next_free(from);
    uint64_t live = next_live(from, free < buddy.frames ? free : buddy.frames);
    return (live != NO_FRAME || free != NO_FRAME) &&
           find_block(live != NO_FRAME ? live : free, first, record);
}

/* The maximal run that contains the lowest known frame at or above `from`. */
static bool run_from(uint64_t from, uint64_t *first, uint64_t *end, uint64_t *record)
{
    const uint64_t kind = FRAME_STATE_MASK | FRAME_PURPOSE_MASK | FRAME_OWNER_MASK;
    uint64_t next, other;
    take_lock();
    bool found = block_from(from, first, record);
    if (found) {
        *end = *first + order_frames(frame_record_order(*record));
        while (*end < buddy.frames && find_block(*end, &next, &other) && next == *end &&
               (other & kind) == (*record & kind))
            *end += order_frames(frame_record_order(other));
    }
    drop_lock();
    return found;
}

int buddy_visit(int (*fn)(void *ctx, hpa_t base, uint64_t size, const struct frame_info *info),
                void *ctx)
{
    uint64_t first, end, record;
    for (uint64_t from = 0; run_from(from, &first, &end, &record); from = end) {
        struct frame_info info = frame_record_decode(record);
        /* A block that has changed meanwhile may begin below what was shown already. */
        first = first < from ? from : first;
        int result = fn(ctx, hpa_of_pfn(first), (end - first) << PAGE_SHIFT, &info);
        if (result != 0)
            return result;
    }
    return 0;
}

/* ---- Verifying ---- */

/* What verify_live() counts; static, because it is large and the lock guards it. */
static struct {
    uint64_t frames, cached_blocks, reserved;
    uint64_t by_purpose[PURPOSE_COUNT];
    uint64_t by_owner[OWNER_LIMIT];
} counted;

#define broken(...) (format_buffer(why, why_size, __VA_ARGS__), E_STATE)

static int verify_free(char *why, size_t why_size)
{
    uint64_t frames = 0;
    for (unsigned order = 0; order < BUDDY_ORDERS; order++) {
        const struct bittree *set = &buddy.free[order];
        uint64_t count;
        if (!bittree_check(set, &count))
            return broken("order %u: a summary bit is wrong", order);
        if (count != buddy.blocks[order])
            return broken("order %u: %llu free blocks, counted as %llu", order,
                          (unsigned long long)count, (unsigned long long)buddy.blocks[order]);
        if ((count > 0) != ((buddy.open_orders >> order & 1) != 0))
            return broken("order %u: open_orders is wrong", order);
        frames += count << order;
        for (uint64_t i = bittree_next(set, 0); i != BITTREE_NONE; i = bittree_next(set, i + 1)) {
            unsigned long long address = i << order << PAGE_SHIFT;
            if ((i + 1) << order > buddy.frames)
                return broken("free block %#llx of order %u ends beyond memory", address, order);
            if (order < BUDDY_MAX_ORDER && bittree_test(set, i ^ 1))
                return broken("free blocks %#llx of order %u were not merged", address, order);
            for (unsigned above = order + 1; above < BUDDY_ORDERS; above++)
                if (bittree_test(&buddy.free[above], i >> (above - order)))
                    return broken("free block %#llx of order %u lies in one of order %u", address,
                                  order, above);
        }
    }
    if (frames != buddy.free_frames)
        return broken("%llu frames in free blocks, counted as %llu", (unsigned long long)frames,
                      (unsigned long long)buddy.free_frames);
    return E_OK;
}

static int verify_live(char *why, size_t why_size)
{
    uint64_t end = 0, count;
    memset(&counted, 0, sizeof(counted));
    if (!bittree_check(&buddy.ready, &count))
        return broken("records: a summary bit is wrong");
    for (uint64_t pfn = next_live(0, buddy.frames); pfn != NO_FRAME;
         pfn = next_live(pfn + 1, buddy.frames)) {
        uint64_t record = peek(frame_records[pfn]);
        struct frame_info info = frame_record_decode(record);
        unsigned long long address = pfn << PAGE_SHIFT;
        if (info.state == FRAME_FREE || info.state == FRAME_TAIL || info.state > FRAME_RESERVED ||
            info.order > BUDDY_MAX_ORDER || info.purpose >= PURPOSE_COUNT)
            return broken("record of %#llx makes no sense: %#llx", address,
                          (unsigned long long)record);
        if (!is_aligned(pfn, order_frames(info.order)) ||
            pfn + order_frames(info.order) > buddy.frames)
            return broken("block %#llx cannot have order %u", address, info.order);
        if (pfn < end)
            return broken("block %#llx starts inside another", address);
        end = pfn + order_frames(info.order);
        uint64_t first;
        unsigned order;
        if (find_free(pfn, &first, &order) || next_free(pfn) < end)
            return broken("block %#llx of order %u is free and in use", address, info.order);
        if (info.state == FRAME_CACHED) {
            if (record != cached_record(info.order) || info.order >= CACHED_ORDERS)
                return broken("record of cached %#llx makes no sense", address);
            counted.cached_blocks++;
            counted.frames += order_frames(info.order);
            continue;
        }
        if (info.purpose == PURPOSE_FREE)
            return broken("block %#llx is in use for nothing", address);
        if (info.state == FRAME_SHARED && info.payload < 2)
            return broken("block %#llx is shared by %llu", address,
                          (unsigned long long)info.payload);
        counted.frames += order_frames(info.order);
        counted.reserved += info.state == FRAME_RESERVED ? order_frames(info.order) : 0;
        counted.by_purpose[info.purpose] += order_frames(info.order);
        counted.by_owner[info.owner] += order_frames(info.order);
    }
    return E_OK;
}

static int verify_caches(char *why, size_t why_size)
{
    uint64_t blocks = 0;
    for (unsigned i = 0; i < buddy.cpus; i++)
        for (unsigned order = 0; order < CACHED_ORDERS; order++) {
            if (cpus[i].count[order] > cache_shape[order].capacity)
                return broken("CPU %u: cache of order %u overflows", i, order);
            for (unsigned n = 0; n < cpus[i].count[order]; n++) {
                uint64_t pfn = cpus[i].slot[cache_shape[order].first + n];
                if (pfn >= buddy.frames || !chunk_ready(pfn) ||
                    peek(frame_records[pfn]) != cached_record(order))
                    return broken("CPU %u: cached frame %#llx has the record of no such block", i,
                                  (unsigned long long)pfn << PAGE_SHIFT);
                blocks++;
            }
        }
    /* Each slot has a record; as many records as slots, so no block is in two slots or in none. */
    if (blocks != counted.cached_blocks)
        return broken("%llu blocks in caches, %llu recorded as cached", (unsigned long long)blocks,
                      (unsigned long long)counted.cached_blocks);
    return E_OK;
}

static int verify_counters(char *why, size_t why_size)
{
    for (unsigned purpose = 0; purpose < PURPOSE_COUNT; purpose++)
        if (used_frames((enum frame_purpose)purpose) != counted.by_purpose[purpose])
            return broken("%s: %llu frames, counted as %llu",
                          purpose_name((enum frame_purpose)purpose),
                          (unsigned long long)counted.by_purpose[purpose],
                          (unsigned long long)used_frames((enum frame_purpose)purpose));
    for (unsigned owner = 0; owner < OWNER_LIMIT; owner++)
        if (owner_frames((owner_t)owner) != counted.by_owner[owner])
            return broken("owner %u: %llu frames, counted as %llu", owner,
                          (unsigned long long)counted.by_owner[owner],
                          (unsigned long long)owner_frames((owner_t)owner));
    for (unsigned i = 0; i < buddy.cpus; i++)
        for (unsigned n = 0; n < LEASES; n++) {
            owner_t owner = cpus[i].lease[n].owner;
            if (owner == OWNER_NONE ? cpus[i].lease[n].left > 0
                                    : accounts[owner].charged > quota_of(owner))
                return broken("CPU %u: owner %u is beyond its quota and has a lease", i, owner);
        }
    if (counted.frames + buddy.free_frames != buddy.total)
        return broken("%llu frames free, in use and cached, of %llu",
                      (unsigned long long)(counted.frames + buddy.free_frames),
                      (unsigned long long)buddy.total);
    if (counted.reserved != buddy.reserved)
        return broken("%llu frames reserved, counted as %llu", (unsigned long long)counted.reserved,
                      (unsigned long long)buddy.reserved);
    return E_OK;
}

int buddy_verify(char *why, size_t why_size)
{
    struct cpu *self = take_lock();
    stop_others(self);
    int error = verify_free(why, why_size);
    if (error == E_OK)
        error = verify_live(why, why_size);
    if (error == E_OK)
        error = verify_caches(why, why_size);
    if (error == E_OK)
        error = verify_counters(why, why_size);
    resume_others();
    drop_lock();
    return error;
}
