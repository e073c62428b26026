/*
 * The only ways in which an entry of a live table changes: one atomic 64-bit access each.
 *
 * pte_write stores where hardware has nothing to add to the old value; pte_exchange_if is for
 * entries whose A and D bits the CPU may set at the same moment. A table that no other table points
 * at yet is private memory and is filled with plain stores before it is published.
 *
 * A test program may define PTE_TOUCHED(slot), called before each access to an entry (where
 * hardware may still change it), and PTE_STORED(slot), called after each change.
 */
#ifndef QUIRE_MM_PTE_H
#define QUIRE_MM_PTE_H

#include <stdbool.h>
#include <stdint.h>

#ifndef PTE_TOUCHED
#define PTE_TOUCHED(slot) ((void)0)
#endif
#ifndef PTE_STORED
#define PTE_STORED(slot) ((void)0)
#endif

static inline uint64_t pte_read(const uint64_t *slot)
{
    PTE_TOUCHED(slot);
    return __atomic_load_n(slot, __ATOMIC_ACQUIRE);
}

/* The same where nothing is read through what it returns. */
static inline uint64_t pte_peek(const uint64_t *slot)
{
    PTE_TOUCHED(slot);
    return __atomic_load_n(slot, __ATOMIC_RELAXED);
}

/* Where hardware alone may change A and D meanwhile: the table's lock is held, or only one CPU
 * runs. A plain read, so that the compiler may take several entries at once, or test one where it
 * is; x86 reads each aligned one whole. */
static inline uint64_t pte_scan(const uint64_t *slot)
{
    PTE_TOUCHED(slot);
    return *slot;
}

static inline void pte_write(uint64_t *slot, uint64_t value)
{
    PTE_TOUCHED(slot);
    __atomic_store_n(slot, value, __ATOMIC_RELEASE);
    PTE_STORED(slot);
}

/* Stores `value` if the slot still holds *expected; else leaves the slot and reports in *expected
 * what it holds. */
static inline bool pte_exchange_if(uint64_t *slot, uint64_t *expected, uint64_t value)
{
    PTE_TOUCHED(slot);
    bool done = __atomic_compare_exchange_n(slot, expected, value, false, __ATOMIC_ACQ_REL,
                                            __ATOMIC_ACQUIRE);
    if (done)
        PTE_STORED(slot);
    return done;
}

/* Clears or sets bits and returns the entry as it was. */
static inline uint64_t pte_clear_bits(uint64_t *slot, uint64_t bits)
{
    PTE_TOUCHED(slot);
    uint64_t old = __atomic_fetch_and(slot, ~bits, __ATOMIC_ACQ_REL);
    PTE_STORED(slot);
    return old;
}

static inline uint64_t pte_set_bits(uint64_t *slot, uint64_t bits)
{
    PTE_TOUCHED(slot);
    uint64_t old = __atomic_fetch_or(slot, bits, __ATOMIC_ACQ_REL);
    PTE_STORED(slot);
    return old;
}

#endif
