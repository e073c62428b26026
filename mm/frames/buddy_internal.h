/*
 * The buddy's state and what its files share; the list of them is in mm/frames/buddy.c. For these
 * alone.
 */
#ifndef QUIRE_MM_BUDDY_INTERNAL_H
#define QUIRE_MM_BUDDY_INTERNAL_H

#include "mm/frames/buddy.h"

#include "lib/bits.h"
#include "lib/lock.h"
#include "lib/panic.h"
#include "mm/frames/bittree.h"
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

/* Per-CPU stacks: orders 0 .. CACHED_ORDERS - 1, each in its part of one array. */
#define CACHED_ORDERS 11
#define FRAME_SLOTS 128 /* of order 0 */
#define BLOCK_SLOTS 32  /* of each other order */
#define CACHE_SLOTS (FRAME_SLOTS + (CACHED_ORDERS - 1) * BLOCK_SLOTS)

struct cache_stack {
    uint64_t *top; /* the first slot that is not in use */
    uint64_t *base, *limit;
};

/* A lease of frames that its CPU may hand out to one owner for one purpose, and takes back into. */
#define LEASES 16
#define LEASE_FRAMES 16384 /* what a CPU asks for at a time; at least the largest cached block */

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
    struct cache_stack stack[CACHED_ORDERS];
    struct lease lease[LEASES];
    uint64_t slot[1 + CACHE_SLOTS]; /* the first is no block: cache_pop() looks one below */
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
    unsigned cpus;     /* one more than the highest CPU that has been here */
    uint64_t holdings; /* of the lock, so far */
    bool pressed;
    uint64_t charged_for[PURPOSE_COUNT];
    const struct buddy_watch *watcher;
};
extern struct buddy_state buddy;

extern struct account buddy_accounts[OWNER_LIMIT];
extern struct cpu buddy_cpus[BUDDY_CPUS];

/* A CPU's counters are written by it alone and read by all. */
#define peek(lvalue) __atomic_load_n(&(lvalue), __ATOMIC_RELAXED)
#define poke(lvalue, value) __atomic_store_n(&(lvalue), (value), __ATOMIC_RELAXED)
#define bump(lvalue, by) poke(lvalue, peek(lvalue) + (by))

/* A pointer from here on, not an index to be multiplied at each use. */
#define computed(pointer)                                                                          \
    ({                                                                                             \
        __typeof__(pointer) computed_ = (pointer);                                                 \
        __asm__("" : "+r"(computed_));                                                             \
        computed_;                                                                                 \
    })

static inline uint64_t order_frames(unsigned order)
{
    return UINT64_C(1) << order;
}

/* Of an address that is not aligned, a number beyond all memory. */
static inline uint64_t frame_number(hpa_t frame)
{
    return frame.v >> PAGE_SHIFT | frame.v << (64 - PAGE_SHIFT);
}

static inline unsigned count_bits(uint64_t mask)
{
    unsigned n = 0;
    for (; mask != 0; mask &= mask - 1)
        n++;
    return n;
}

/* ---- The lock, and with it other CPUs' structs: buddy_cpu.c ---- */

struct cpu *buddy_take_lock(void);
void buddy_drop_lock(void);

/* Others' structs are open to the lock's holder between these two. */
void buddy_stop_others(const struct cpu *self);
void buddy_resume_others(void);

/* The struct of the CPU that this runs on. */
struct cpu *buddy_this_cpu(void);

/* Lets the CPUs in, when everything else is in place. */
void buddy_open(void);

/* NULL: there is one CPU. */
extern unsigned (*buddy_cpu_index)(void);

/* There is one CPU, and it may enter its struct: all that the shortest path asks. */
extern bool buddy_alone_open;

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
        return peek(buddy_alone_open);
    poke(cpu->busy, 1);
    __atomic_signal_fence(__ATOMIC_SEQ_CST);
    if (__atomic_load_n(&cpu->closed, __ATOMIC_ACQUIRE) == 0)
        return true;
    cpu_leave(cpu, false);
    return false;
}

/* ---- Records ---- */

static inline bool chunk_ready(uint64_t pfn)
{
    return bittree_test_flat(&buddy.ready, pfn >> CHUNK_SHIFT);
}

/* Of a block on the stack of a per-CPU cache. */
static inline uint64_t cached_record(unsigned order)
{
    return frame_record(FRAME_CACHED, order, PURPOSE_FREE, OWNER_NONE);
}

/* Does a record say that a block in use of this order and owner starts here? */
static inline bool record_fits(uint64_t record, unsigned order, owner_t owner)
{
    return (record & (FRAME_STATE_MASK | FRAME_ORDER_MASK | FRAME_OWNER_MASK)) ==
           frame_record(FRAME_USED, order, PURPOSE_FREE, owner);
}

/* buddy_blocks.c: makes a frame's record, and those of its chunk, ready to be read; writes one. */
void buddy_make_ready(uint64_t pfn);
void buddy_write_record(uint64_t pfn, uint64_t record);

/* ---- Requests that were granted, and refused: buddy_free.c ---- */

static inline bool can_own(enum frame_purpose purpose, owner_t owner)
{
    return purpose > PURPOSE_FREE && purpose < PURPOSE_COUNT && owner != OWNER_NONE &&
           owner < OWNER_LIMIT;
}

/* Is this a block that may be freed by `owner` at `order`? Its record, or the error. Counts a
 * refusal. */
int buddy_check_free(hpa_t head, unsigned order, owner_t owner, uint64_t *record);
int buddy_refuse(int error);

/* The block that covers a frame, in use; the lock is held. E_ALIGN, E_RANGE, E_DOUBLE_FREE,
 * E_STATE.
 */
int buddy_check_used(hpa_t frame, uint64_t *first, uint64_t *record);

/* Is `head` the first frame of a block in use that belongs to `owner`? Gives back one that is. The
 * lock is held. */
int buddy_check_block(hpa_t head, owner_t owner, uint64_t *record);
void buddy_free_locked(struct cpu *self, uint64_t pfn, uint64_t record);

/* Tells who watches. */
static inline void note_taken(uint64_t pfn, uint64_t frames)
{
    if (buddy.watcher != NULL)
        buddy.watcher->taken(hpa_of_pfn(pfn), frames << PAGE_SHIFT);
}

static inline void note_freed(uint64_t pfn, uint64_t frames)
{
    if (buddy.watcher != NULL)
        buddy.watcher->freed(hpa_of_pfn(pfn), frames << PAGE_SHIFT);
}

/* ---- Who has how much: buddy_charge.c ---- */

/* Owner and purpose as they stand in a record; never 0 for those that can own. */
static inline uint64_t lease_key(enum frame_purpose purpose, owner_t owner)
{
    return frame_record(FRAME_FREE, 0, purpose, owner);
}

static inline uint64_t key_of_record(uint64_t record)
{
    return record & (FRAME_PURPOSE_MASK | FRAME_OWNER_MASK);
}

static inline struct lease *lease_of(struct cpu *cpu, uint64_t purpose, uint64_t owner)
{
    return computed(&cpu->lease[(purpose ^ owner) % LEASES]);
}

static inline uint64_t quota_of(owner_t owner)
{
    return UINT64_MAX - buddy_accounts[owner].forbidden;
}

/* May so many frames be charged? If so, they are. */
int buddy_charge(struct cpu *self, uint64_t key, uint64_t frames);

/* From one owner to another, for the same purpose; E_QUOTA is the other's. */
int buddy_move_charge(struct cpu *self, uint64_t from, uint64_t to, uint64_t frames);

/* Changes what is charged by `frames`, modulo 2^64. */
void buddy_add_charge(uint64_t key, uint64_t frames);

/* Gives the CPU a fresh lease, if the quota has room, so that what follows needs no lock. */
void buddy_renew_lease(struct cpu *self, uint64_t key);

/* Calls in every lease of this owner's quota, an empty one too. */
void buddy_recall_leases(struct cpu *self, owner_t owner);

/* ---- Questions: buddy_look.c ---- */

/* The block that covers a frame below buddy.frames: live; free; any, with its record. */
bool buddy_find_live(uint64_t pfn, uint64_t *first, uint64_t *record);
bool buddy_find_free(uint64_t pfn, uint64_t *first, unsigned *order);
bool buddy_find_block(uint64_t pfn, uint64_t *first, uint64_t *record);

/* Is any frame of [first, first + count) free, cached, in use or reserved? */
bool buddy_any_known(uint64_t first, uint64_t count);

/* The lowest live block's first frame in [from, end), NO_FRAME for none. */
uint64_t buddy_next_live(uint64_t from, uint64_t end);

/* The lowest free frame that is at or above `from` and does not belong to a block of 64 or more
 * frames that starts below it; NO_FRAME for none. */
uint64_t buddy_next_free(uint64_t from);

/* The lowest frame at or above `from` that a CPU holds by mask, NO_FRAME for none. */
uint64_t buddy_next_held(uint64_t from);

/* Frames in use for a purpose. */
uint64_t buddy_used_frames(enum frame_purpose purpose);

#endif
