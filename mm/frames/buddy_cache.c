/*
 * What each CPU has in stock: single frames by mask, blocks of other orders on stacks.
 *
 * Of single frames a CPU holds the free ones of one group by their mask, which it took out of the
 * group's, with their records still 0: to take one clears a bit, and to give one of the same group
 * back sets it again. Frames of other groups, and blocks of other orders, go on a stack for each
 * order.
 *
 * A stack that runs empty is filled from fragments, and only where there are none by splitting a
 * block; one that overflows gives the half that has been there for longest back. All of it with the
 * lock held, but for the few lines in buddy_internal.h that take and give one block.
 */
#include "mm/frames/buddy_blocks.h"
#include "mm/frames/buddy_cache.h"

#include "lib/string.h"

/* A miss brings 2^batch_order blocks, an overflow takes as many away, so that a CPU that only
 * takes, or only gives, comes for the lock once in so many times. */
static inline unsigned batch_order(unsigned order)
{
    return lowest_bit(cache_capacity(order)) - 1;
}

void buddy_start_cache(struct cpu *cpu)
{
    for (unsigned order = 0; order < CACHED_ORDERS; order++) {
        uint64_t *base = &cpu->slot[cache_first(order)];
        cpu->stack[order] = (struct cache_stack){base, base, base + cache_capacity(order)};
    }
    poke(cpu->held_base, NO_FRAME);
}

static uint64_t cached_frames_of(const struct cpu *cpu)
{
    uint64_t frames = count_bits(peek(cpu->held));
    for (unsigned order = 0; order < CACHED_ORDERS; order++)
        frames += stack_count(&cpu->stack[order]) << order;
    return frames;
}

uint64_t buddy_cached_frames(void)
{
    uint64_t frames = 0;
    for (unsigned i = 0; i < buddy.cpus; i++)
        frames += cached_frames_of(&buddy_cpus[i]);
    return frames;
}

static void held_spill(struct cpu *cpu)
{
    uint64_t mask = cpu->held;
    if (mask == 0)
        return;
    poke(cpu->held, 0);
    buddy.free_frames += count_bits(mask);
    buddy_give_mask(cpu->held_base >> GROUP_ORDER, mask);
}

/* Gives back the `n` blocks of a stack's bottom. They may lie anywhere, so their masks are on the
 * way before the first is needed. */
static inline __attribute__((always_inline)) void spill(const uint64_t *slot, unsigned n,
                                                        unsigned order)
{
    for (unsigned i = 0; i < n; i++)
        __builtin_prefetch(&buddy.mask[slot[i] >> GROUP_ORDER], 1);
    for (unsigned i = 0; i < n; i++) {
        uint64_t pfn = slot[i];
        invariant(peek(frame_records[pfn]) == cached_record(order));
        poke(frame_records[pfn], 0);
        give_small(pfn, order);
    }
    buddy.free_frames += (uint64_t)n << order;
}

/* Moves the `n` blocks that have been in the cache for longest to the sets. */
static void spill_oldest(struct cpu *cpu, unsigned order, unsigned n)
{
    struct cache_stack *stack = &cpu->stack[order];
    uint64_t *slot = stack->base;
    uint64_t rest = stack_count(stack) - n;
    if (order == 0) {
        spill(slot, n, 0);
    } else if (order < GROUP_ORDER) {
        spill(slot, n, order);
    } else {
        for (unsigned i = 0; i < n; i++) {
            invariant(peek(frame_records[slot[i]]) == cached_record(order));
            poke(frame_records[slot[i]], 0);
            buddy_give_block(slot[i], order);
        }
    }
    memmove(slot, slot + n, rest * sizeof(*slot));
    poke(stack->top, slot + rest);
}

void buddy_spill_cache(struct cpu *cpu, unsigned order)
{
    spill_oldest(cpu, order, cache_capacity(order) / 2);
}

/* Puts the blocks of [first, end) into the cache, the lowest on top. */
static void cache_put(struct cpu *cpu, unsigned order, uint64_t first, uint64_t end)
{
    for (uint64_t pfn = end; pfn > first;) {
        pfn -= order_frames(order);
        buddy_make_ready(pfn);
        cache_push(&cpu->stack[order], order, pfn, &frame_records[pfn]);
    }
}

/* Takes up to `wanted` blocks of an order below GROUP_ORDER out of one group. */
static unsigned cache_group(struct cpu *cpu, unsigned order, uint64_t group, unsigned wanted)
{
    uint64_t mask = buddy.mask[group], starts = starts_of(mask, order), taken = 0;
    unsigned n = 0;
    for (; n < wanted && starts != 0; n++) {
        uint64_t pfn = group * GROUP_FRAMES + lowest_bit(starts);
        starts &= starts - 1;
        taken |= mask_of(pfn, order);
        cache_push(&cpu->stack[order], order, pfn, &frame_records[pfn]);
    }
    buddy_change_mask(group, mask, mask & ~taken);
    buddy.free_frames -= (uint64_t)n << order;
    return n;
}

/* Fills an empty cache: from blocks that are fragments already, and only where there are none by
 * splitting one; in groups, fragment is whatever the group has. */
static void cache_fill(struct cpu *cpu, unsigned order)
{
    unsigned batch = batch_order(order), n = 0;
    unsigned fragments = order < GROUP_ORDER ? GROUP_ORDER - 1 : order;
    struct member member;
    while (n < 1u << batch && buddy_choose(order, fragments, &member) && !buddy_is_low(&member)) {
        if (order < GROUP_ORDER) {
            n += cache_group(cpu, order, member.index, (1u << batch) - n);
        } else {
            buddy_carve_block(member.index << order, order, order);
            cache_put(cpu, order, member.index << order, (member.index + 1) << order);
            n++;
        }
    }
    if (n > 0 || !buddy_choose(order, BUDDY_MAX_ORDER, &member))
        return;
    if (member.order < GROUP_ORDER) {
        cache_group(cpu, order, member.index, 1u << batch);
        return;
    }
    unsigned whole = order + batch < member.order ? order + batch : member.order;
    uint64_t end = (member.index + 1) << member.order, first = end - order_frames(whole);
    buddy_carve_block(first, whole, member.order);
    cache_put(cpu, order, first, end);
}

/* Holds all the free frames of a group that has some: of fragments, or of a block that is split for
 * it. Nothing was held. False when no frame is free. */
bool buddy_fill_held(struct cpu *cpu)
{
    struct member member;
    if (!buddy_choose(0, BUDDY_MAX_ORDER, &member))
        return false;
    bool whole = member.order >= GROUP_ORDER;
    uint64_t group = member.index, mask = ~UINT64_C(0);
    if (whole) {
        group = (((member.index + 1) << member.order) >> GROUP_ORDER) - 1;
        buddy_carve_block(group << GROUP_ORDER, GROUP_ORDER, member.order);
        buddy_make_ready(group << GROUP_ORDER);
    } else {
        mask = buddy.mask[group];
        buddy_change_mask(group, mask, 0);
        buddy.free_frames -= count_bits(mask);
    }
    poke(cpu->held_base, group << GROUP_ORDER);
    poke(cpu->held, mask);
    return true;
}

static void drain_cpu(struct cpu *cpu)
{
    held_spill(cpu);
    for (unsigned order = 0; order < CACHED_ORDERS; order++)
        spill_oldest(cpu, order, (unsigned)stack_count(&cpu->stack[order]));
}

/* Empties every cache. False when there was nothing in them. */
bool buddy_drain_all(struct cpu *self)
{
    uint64_t own = cached_frames_of(self);
    drain_cpu(self);
    if (buddy_cached_frames() == 0)
        return own > 0;
    buddy_stop_others(self);
    for (unsigned i = 0; i < buddy.cpus; i++)
        drain_cpu(&buddy_cpus[i]);
    buddy_resume_others();
    return true;
}

uint64_t buddy_take_cached(struct cpu *self, unsigned order)
{
    struct cache_stack *stack = &self->stack[order];
    uint64_t *record;
    do {
        if (order == 0 && (self->held != 0 || (stack_empty(stack) && buddy_fill_held(self))))
            return held_take(self, cached_record(0));
        if (order > 0 && stack_empty(stack))
            cache_fill(self, order);
        if (!stack_empty(stack))
            return cache_pop(stack, order, &record);
    } while (buddy_drain_all(self));
    return NO_FRAME;
}
