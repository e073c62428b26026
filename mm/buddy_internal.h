/*
 * The buddy's state, shared by mm/buddy.c, which works with it and explains it, and mm/buddy_verify.c, which
 * judges it. For these two alone.
 */
#ifndef QUIRE_MM_BUDDY_INTERNAL_H
#define QUIRE_MM_BUDDY_INTERNAL_H

#include "mm/buddy.h"

#include "lib/bits.h"
#include "lib/lock.h"
#include "mm/bittree.h"
#include "mm/trace.h"

#define NO_FRAME UINT64_MAX
#define MAX_RAM_END (UINT64_C(1) << 52)
#define GROUP_ORDER 6
#define GROUP_FRAMES (UINT64_C(1) << GROUP_ORDER)
#define CHUNK_SHIFT 9 /* frames whose records fill one page: 2 MiB of RAM */
#define CHUNK_FRAMES (UINT64_C(1) << CHUNK_SHIFT)
#define CHUNK_GROUPS (CHUNK_FRAMES / GROUP_FRAMES)
#define LOW_FRAMES 256 /* the first MiB, kept for what can use no other */
#define EAGER_WORDS 64 /* of a set, written at the start for each of its upper levels */

/* Per-CPU caches: orders 0 .. CACHED_ORDERS - 1, each a stack in its part of one array. A miss brings
 * a block of 2^batch_order blocks, an overflow takes as many away, so that a CPU that only takes, or only
 * gives, comes for the lock once in so many times. */
#define CACHED_ORDERS 11
#define CACHE_SLOTS 344

struct cache_shape {
    uint16_t first, capacity, batch_order;
};
extern const struct cache_shape buddy_cache_shape[CACHED_ORDERS];

/* A lease of frames that its CPU may hand out to one owner for one purpose, and takes back into. */
#define LEASES 16
#define LEASE_FRAMES 2048 /* what a CPU asks for at a time; at least the largest cached block */

_Static_assert(LEASE_FRAMES >= 1 << (CACHED_ORDERS - 1), "a lease serves any cached block");

struct lease {
    uint64_t left;
    uint64_t key; /* as lease_key(), 0 for none */
};

struct cpu {
    uint32_t busy;      /* its owner is at work here without the lock */
    uint32_t closed;    /* enum closed: 0 lets the owner in */
    uint64_t held;      /* the free frames that it has of one group, as a mask */
    uint64_t held_base; /* that group's first frame; changes under the lock alone */
    uint64_t allocations, frees;
    uint32_t count[CACHED_ORDERS];
    struct lease lease[LEASES];
    uint64_t slot[CACHE_SLOTS];
} __attribute__((aligned(128)));

enum closed {
    CLOSED_STOP = 1,    /* the lock's holder is in there */
    CLOSED_PRESSED = 2, /* the free blocks alone no longer cover the host's reserve */
    CLOSED_WATCHED = 4, /* somebody wants to see every block */
};

struct account {
    uint64_t charged;
    uint64_t forbidden; /* UINT64_MAX - quota, so that 0 is no limit */
};

struct buddy_state {
    /* Written at the start. */
    uint64_t frames; /* records; frame numbers are below this */
    struct bittree ready;
    uint64_t *mask; /* by group number; 0 unless it is in one of the sets below GROUP_ORDER */

    /* The lock's. */
    struct lock lock __attribute__((aligned(128)));
    uint32_t open_orders; /* bit n: set n is not empty */
    struct bittree set[BUDDY_ORDERS];
    uint64_t members[BUDDY_ORDERS];
    uint64_t free_frames; /* in the sets: cached ones not included */
    uint64_t total, reserved, host_reserve;
    uint64_t failed, splits, merges;
    uint64_t refused_double, refused_order, refused_owner, refused_range, refused_shared,
        refused_state;
    unsigned cpus; /* one more than the highest CPU that has been here */
    bool pressed;
    uint64_t charged_for[PURPOSE_COUNT];
};
extern struct buddy_state buddy;

extern struct account buddy_accounts[OWNER_LIMIT];
extern struct cpu buddy_cpus[BUDDY_CPUS];

/* A CPU's counters are written by it alone and read by all. */
#define peek(lvalue) __atomic_load_n(&(lvalue), __ATOMIC_RELAXED)
#define poke(lvalue, value) __atomic_store_n(&(lvalue), (value), __ATOMIC_RELAXED)
#define bump(lvalue, by) poke(lvalue, peek(lvalue) + (by))

static inline uint64_t order_frames(unsigned order)
{
    return UINT64_C(1) << order;
}

static inline bool chunk_ready(uint64_t pfn)
{
    return bittree_test_flat(&buddy.ready, pfn >> CHUNK_SHIFT);
}

/* Of a block on the stack of a per-CPU cache. */
static inline uint64_t cached_record(unsigned order)
{
    return frame_record(FRAME_CACHED, order, PURPOSE_FREE, OWNER_NONE);
}

static inline unsigned count_bits(uint64_t mask)
{
    unsigned n = 0;
    for (; mask != 0; mask &= mask - 1)
        n++;
    return n;
}

/* From the first frames of the free blocks of one order to those of the next. */
static inline uint64_t next_starts(uint64_t starts, unsigned order)
{
    static const uint64_t aligned[GROUP_ORDER - 1] = {
        UINT64_C(0x5555555555555555), UINT64_C(0x1111111111111111), UINT64_C(0x0101010101010101),
        UINT64_C(0x0001000100010001), UINT64_C(0x0000000100000001),
    };
    return starts & starts >> order_frames(order) & aligned[order];
}

/* The order of the largest free block of a mask that is not 0. Without a branch: it is asked twice for
 * each block given back, and no pattern would predict the answer. */
static inline unsigned largest_in(uint64_t mask)
{
    uint64_t m1 = next_starts(mask, 0), m2 = next_starts(m1, 1), m3 = next_starts(m2, 2);
    uint64_t m4 = next_starts(m3, 3), m5 = next_starts(m4, 4);
    return (m1 != 0) + (m2 != 0) + (m3 != 0) + (m4 != 0) + (m5 != 0);
}

/* The mask of a group, 0 also where none was ever written. */
static inline uint64_t group_mask(uint64_t group)
{
    return chunk_ready(group * GROUP_FRAMES) ? buddy.mask[group] : 0;
}

static inline uint64_t quota_of(owner_t owner)
{
    return UINT64_MAX - buddy_accounts[owner].forbidden;
}

/* The live block that covers a frame below buddy.frames. */
bool buddy_find_live(uint64_t pfn, uint64_t *first, uint64_t *record);

/* The free block that covers a frame. */
bool buddy_find_free(uint64_t pfn, uint64_t *first, unsigned *order);

/* The lowest live block's first frame in [from, end), NO_FRAME for none. */
uint64_t buddy_next_live(uint64_t from, uint64_t end);

/* The lowest free frame that is at or above `from` and does not belong to a block of 64 or more frames that
 * starts below it; NO_FRAME for none. */
uint64_t buddy_next_free(uint64_t from);

/* Frames in use for a purpose. */
uint64_t buddy_used_frames(enum frame_purpose purpose);

/* The lock; and with it held, every other CPU out of its own struct, too. */
struct cpu *buddy_take_lock(void);
void buddy_drop_lock(void);
void buddy_stop_others(const struct cpu *self);
void buddy_resume_others(void);

#endif
