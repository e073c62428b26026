/*
 * A ticket lock: first come, first served, so that no CPU starves. It does not touch the
 * interrupt flag: the hypervisor runs with external interrupts masked.
 */
#ifndef QUIRE_LIB_LOCK_H
#define QUIRE_LIB_LOCK_H

#include <stdbool.h>
#include <stdint.h>

struct lock {
    uint16_t next;
    uint16_t serving;
};

/*
 * False while one CPU runs alone: then no lock can be contended, and none is taken, since an atomic
 * read-modify-write costs more than many a critical section here. To be set, for good, while no
 * lock is held and before a second CPU starts. lib/lock.c.
 */
extern bool locks_needed;

#define LOCK_INIT ((struct lock){0, 0})

static inline void lock_take(struct lock *lock)
{
    if (!locks_needed)
        return;
    uint16_t ticket = __atomic_fetch_add(&lock->next, 1, __ATOMIC_RELAXED);
    while (__atomic_load_n(&lock->serving, __ATOMIC_ACQUIRE) != ticket)
        __builtin_ia32_pause();
}

static inline void lock_drop(struct lock *lock)
{
    if (!locks_needed)
        return;
    __atomic_store_n(&lock->serving, (uint16_t)(lock->serving + 1), __ATOMIC_RELEASE);
}

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
