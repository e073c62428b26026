/*
 * A ticket lock: first come, first served, so that no CPU starves. It does not touch the
 * interrupt flag: the hypervisor runs with external interrupts masked.
 */
#ifndef QUIRE_LIB_LOCK_H
#define QUIRE_LIB_LOCK_H

#include <stdbool.h>
#include <stdint.h>

/*
 * The order of locks, for all of them: who holds one takes none that stands before it, and none of
 * the same place but a table's, of which the one at the lower address comes first. Under a leaf
 * nothing is taken; it may be taken under any other.
 */
enum lock_order {
    LOCK_LEAF, /* flushes, the log, tags of guests, ... */
    LOCK_GUESTS,
    LOCK_TOUCH,   /* of one guest's first touches */
    LOCK_WINDOWS, /* of device memory */
    LOCK_TABLE,
    LOCK_SLAB,
    LOCK_BUDDY,
};

struct lock {
    uint16_t next;
    uint16_t serving;
    uint8_t order; /* enum lock_order */
};

/*
 * False while one CPU runs alone: then no lock can be contended, and none is taken, since an atomic
 * read-modify-write costs more than many a critical section here. To be set, for good, while no
 * lock is held and before a second CPU starts. lib/lock.c.
 */
extern bool locks_needed;

#define LOCK_INIT ((struct lock){0, 0, LOCK_LEAF})
#define LOCK_INIT_AT(place) ((struct lock){0, 0, place})

/* ---- Whether the order is kept: in builds for debugging, and hosted ones -------------------- */

#if defined(QUIRE_POISON) || defined(QUIRE_HOSTED)
#define LOCKS_CHECKED 1
#else
#define LOCKS_CHECKED 0
#endif

#define LOCKS_HELD_MOST 8

/* What a CPU holds, the last taken at the end. */
struct locks_held {
    const struct lock *lock[LOCKS_HELD_MOST];
    unsigned count;
};

/* Finds what this CPU holds; NULL: nobody keeps that, and nothing is checked. To be set while no
 * lock is held. */
extern struct locks_held *(*locks_held_here)(void);

/* Panics where taking it is against the order, or one is dropped that is not held. */
void lock_check_take(const struct lock *lock);
void lock_check_drop(const struct lock *lock);

/* ---- Taking and dropping -------------------------------------------------------------------- */

/* Whatever locks_needed says, and unchecked. */
static inline void lock_queue_up(struct lock *lock)
{
    uint16_t ticket = __atomic_fetch_add(&lock->next, 1, __ATOMIC_RELAXED);

    while (__atomic_load_n(&lock->serving, __ATOMIC_ACQUIRE) != ticket)
        __builtin_ia32_pause();
}

static inline void lock_serve_next(struct lock *lock)
{
    __atomic_store_n(&lock->serving, (uint16_t)(lock->serving + 1), __ATOMIC_RELEASE);
}

static inline void lock_take(struct lock *lock)
{
    if (!locks_needed)
        return;
    if (LOCKS_CHECKED)
        lock_check_take(lock);
    lock_queue_up(lock);
}

static inline void lock_drop(struct lock *lock)
{
    if (!locks_needed)
        return;
    if (LOCKS_CHECKED)
        lock_check_drop(lock);
    lock_serve_next(lock);
}

/* ---- A lock that is taken again and again --------------------------------------------------- */

/*
 * For what a CPU drops for moments only. Where a machine's CPUs are threads of fewer processors, a
 * lock that is always handed on to the one that has waited longest is handed to a thread that does
 * not run, each time. So here whoever comes by may take it, and a CPU that has looked for it
 * so often in vain queues up, which keeps everybody else away: nobody starves.
 */
struct wide_lock {
    struct lock queue; /* of those that have lost patience; its order is the lock's */
    uint8_t held, wanted;
    struct lock_sharer *sharer; /* one for each CPU that may share it */
    unsigned sharers;
};

#define WIDE_LOCK_INIT_AT(place) ((struct wide_lock){.queue = {0, 0, place}})
#define WIDE_LOCK_LOOKS 4096

void wide_lock_take(struct wide_lock *lock);
void wide_lock_drop(struct wide_lock *lock);

/* True: this CPU has it, as nobody had. */
bool wide_lock_try(struct wide_lock *lock);

/*
 * To share it is to hold off whoever takes it, and nobody who shares it: each CPU says so in a line
 * of memory of its own, at which whoever takes the lock has to look. For work that is short and
 * disturbs no other of its kind.
 */
struct lock_sharer {
    uint8_t inside;
} __attribute__((aligned(64)));

/* By the CPU whose sharer it is; it waits a little, for who gave up at once would take the lock,
 * and have the next one give up. False: somebody has the lock, or wants it, for longer. */
bool wide_lock_share(struct wide_lock *lock, struct lock_sharer *self);
void wide_lock_unshare(struct wide_lock *lock, struct lock_sharer *self);

/* Adds to a count that is not under the same lock wherever it changes; `by` modulo 2^64. */
static inline void count_change(uint64_t *count, uint64_t by)
{
    if (locks_needed)
        __atomic_fetch_add(count, by, __ATOMIC_RELAXED);
    else
        *count += by;
}

/* For assertions where locks are needed: somebody holds it. */
static inline bool lock_held(const struct lock *lock)
{
    return __atomic_load_n(&lock->next, __ATOMIC_RELAXED) !=
           __atomic_load_n(&lock->serving, __ATOMIC_RELAXED);
}

#endif
