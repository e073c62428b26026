/* What a CPU has in stock: the few lines that take and give one block, and buddy_cache.c. For the
 * buddy alone. */
#ifndef QUIRE_MM_BUDDY_CACHE_H
#define QUIRE_MM_BUDDY_CACHE_H

#include "mm/frames/buddy_internal.h"

static inline unsigned cache_first(unsigned order)
{
    return 1 + (order == 0 ? 0 : FRAME_SLOTS + (order - 1) * BLOCK_SLOTS);
}

static inline unsigned cache_capacity(unsigned order)
{
    return order == 0 ? FRAME_SLOTS : BLOCK_SLOTS;
}

static inline bool stack_empty(const struct cache_stack *stack)
{
    return stack->top == stack->base;
}

static inline bool stack_full(const struct cache_stack *stack)
{
    return stack->top == stack->limit;
}

static inline uint64_t stack_count(const struct cache_stack *stack)
{
    return (uint64_t)(peek(stack->top) - stack->base);
}

/* The stack is not full. `record` is the block's. */
static inline void cache_push(struct cache_stack *stack, unsigned order, uint64_t pfn,
                              uint64_t *record)
{
    uint64_t *top = stack->top;
    poke(*record, cached_record(order));
    *top = pfn;
    poke(stack->top, top + 1);
}

/* The stack is not empty. `*record`, the block's, is the taker's to write; that of the block below,
 * which is likely to be the next to go, is on its way. */
static inline uint64_t cache_pop(struct cache_stack *stack, unsigned order, uint64_t **record)
{
    uint64_t *top = stack->top - 1, pfn = *top;
    poke(stack->top, top);
    __builtin_prefetch(&frame_records[top[-1]], 1);
    *record = computed(&frame_records[pfn]);
    /* Fails when two CPUs freed one block at the same moment, which no check can see in time. */
    invariant(peek(**record) == cached_record(order));
    return pfn;
}

/* Takes a frame that the CPU holds by mask, which must not be empty. The record is written before
 * the bit goes, and erased after it comes, so that who looks on sees the frame as one or the other.
 */
static inline uint64_t held_take(struct cpu *cpu, uint64_t record)
{
    uint64_t mask = peek(cpu->held), pfn = peek(cpu->held_base) + lowest_bit(mask);
    uint64_t *place = computed(&frame_records[pfn]);
    invariant(peek(*place) == 0);
    poke(*place, record);
    __atomic_store_n(&cpu->held, mask & (mask - 1), __ATOMIC_RELEASE);
    return pfn;
}

static inline void held_give(struct cpu *cpu, uint64_t pfn, uint64_t *record)
{
    poke(cpu->held, peek(cpu->held) | BIT(pfn % GROUP_FRAMES));
    __atomic_store_n(record, 0, __ATOMIC_RELEASE);
}

/* A CPU's stock, empty, before its first use. */
void buddy_start_cache(struct cpu *cpu);

/* Holds all the free frames of a group that has some, where nothing was held. False when none is
 * free. */
bool buddy_fill_held(struct cpu *cpu);

/* A block of a cached order, filling the stock first where it is empty; its record says that it is
 * cached. NO_FRAME for none. */
uint64_t buddy_take_cached(struct cpu *self, unsigned order);

/* Makes room on a full stack. */
void buddy_spill_cache(struct cpu *cpu, unsigned order);

/* Empties every CPU's stock. False when there was nothing in any. */
bool buddy_drain_all(struct cpu *self);

uint64_t buddy_cached_frames(void);

#endif
