/*
 * The buddy judged by itself: free blocks against summaries, records against both, caches against
 * records, counters against all of them. Shares with mm/frames/buddy.c what looks, and nothing that
 * changes anything.
 */
#include "mm/frames/buddy_internal.h"

#include "lib/format.h"
#include "lib/string.h"

/* What verify_live() counts; static, because it is large and the lock guards it. */
static struct {
    uint64_t frames, cached_blocks, reserved;
    uint64_t cached_sum; /* of cached_share() */
    uint64_t by_purpose[PURPOSE_COUNT];
    uint64_t by_owner[OWNER_LIMIT];
} counted;

/* What one cached block adds to a sum that only the same blocks, each once, arrive at. */
static uint64_t cached_share(uint64_t pfn)
{
    uint64_t share = (pfn + 1) * UINT64_C(0x9e3779b97f4a7c15);
    return (share ^ share >> 29) * UINT64_C(0xbf58476d1ce4e5b9);
}

#define broken(...) (format_buffer(why, why_size, __VA_ARGS__), E_STATE)

/* One set against its summaries and its count. */
static int verify_set(unsigned order, char *why, size_t why_size)
{
    uint64_t count;
    if (!bittree_check(&buddy.set[order], &count))
        return broken("set %u: a summary bit is wrong", order);
    if (count != buddy.members[order])
        return broken("set %u: %lu members, counted as %lu", order, count, buddy.members[order]);
    if ((count > 0) != ((buddy.open_orders >> order & 1) != 0))
        return broken("set %u: open_orders is wrong", order);
    return E_OK;
}

/* Is a free block of `order` or a larger one there? */
static bool large_covers(uint64_t pfn, unsigned order)
{
    for (; order < BUDDY_ORDERS; order++)
        if (bittree_test(&buddy.set[order], pfn >> order))
            return true;
    return false;
}

static int verify_groups(uint64_t *frames, char *why, size_t why_size)
{
    uint64_t partial = 0, members = 0;
    for (unsigned set = 0; set < GROUP_ORDER; set++) {
        members += buddy.members[set];
        uint64_t group = bittree_next(&buddy.set[set], 0);
        for (; group != BITTREE_NONE; group = bittree_next(&buddy.set[set], group + 1)) {
            uint64_t mask = group_mask(group), base = group * GROUP_FRAMES;
            uint64_t address = base << PAGE_SHIFT;
            if (mask == 0 || mask == ~UINT64_C(0) || largest_in(mask) != set)
                return broken("group %#lx with mask %#lx is in set %u", address, mask, set);
            if (base + highest_bit(mask) >= buddy.frames)
                return broken("group %#lx has free frames beyond memory", address);
            if (large_covers(base, GROUP_ORDER))
                return broken("group %#lx is also in a larger free block", address);
            *frames += count_bits(mask);
        }
    }
    uint64_t chunk = bittree_next(&buddy.ready, 0);
    for (; chunk != BITTREE_NONE; chunk = bittree_next(&buddy.ready, chunk + 1))
        for (uint64_t n = 0; n < CHUNK_GROUPS; n++)
            partial += buddy.mask[chunk * CHUNK_GROUPS + n] != 0;
    if (partial != members)
        return broken("%lu groups have free frames, %lu are in sets", partial, members);
    return E_OK;
}

static int verify_free(char *why, size_t why_size)
{
    uint64_t frames = 0, count;
    if (!bittree_check(&buddy.ready, &count))
        return broken("chunks: a summary bit is wrong");
    for (unsigned order = 0; order < BUDDY_ORDERS; order++) {
        int error = verify_set(order, why, why_size);
        if (error != E_OK)
            return error;
    }
    for (unsigned order = GROUP_ORDER; order < BUDDY_ORDERS; order++) {
        const struct bittree *set = &buddy.set[order];
        for (uint64_t i = bittree_next(set, 0); i != BITTREE_NONE; i = bittree_next(set, i + 1)) {
            uint64_t address = i << order << PAGE_SHIFT;
            if ((i + 1) << order > buddy.frames)
                return broken("free block %#lx of order %u ends beyond memory", address, order);
            if (order < BUDDY_MAX_ORDER && bittree_test(set, i ^ 1))
                return broken("free blocks at %#lx of order %u were not merged", address, order);
            if (large_covers(i << order, order + 1))
                return broken("free block %#lx of order %u lies in a larger one", address, order);
            frames += order_frames(order);
        }
    }
    int error = verify_groups(&frames, why, why_size);
    if (error != E_OK)
        return error;
    if (frames != buddy.free_frames)
        return broken("%lu frames in free blocks, counted as %lu", frames, buddy.free_frames);
    return E_OK;
}

static int verify_live(char *why, size_t why_size)
{
    uint64_t end = 0;
    memset(&counted, 0, sizeof(counted));
    for (uint64_t pfn = buddy_next_live(0, buddy.frames); pfn != NO_FRAME;
         pfn = buddy_next_live(pfn + 1, buddy.frames)) {
        uint64_t record = peek(frame_records[pfn]);
        struct frame_info info = frame_record_decode(record);
        uint64_t address = pfn << PAGE_SHIFT;
        if (info.state == FRAME_FREE || info.state == FRAME_TAIL || info.state > FRAME_RESERVED ||
            info.order > BUDDY_MAX_ORDER || info.purpose >= PURPOSE_COUNT)
            return broken("record of %#lx makes no sense: %#lx", address, record);
        if (!is_aligned(pfn, order_frames(info.order)) ||
            pfn + order_frames(info.order) > buddy.frames)
            return broken("block %#lx cannot have order %u", address, info.order);
        if (pfn < end)
            return broken("block %#lx starts inside another", address);
        end = pfn + order_frames(info.order);
        uint64_t first;
        unsigned order;
        if (buddy_find_free(pfn, &first, &order) || buddy_next_free(pfn) < end)
            return broken("block %#lx of order %u is free and in use", address, info.order);
        if (info.state == FRAME_CACHED) {
            if (record != cached_record(info.order) || info.order >= CACHED_ORDERS)
                return broken("record of cached %#lx makes no sense", address);
            counted.cached_blocks++;
            counted.cached_sum += cached_share(pfn);
            counted.frames += order_frames(info.order);
            continue;
        }
        if (info.purpose == PURPOSE_FREE)
            return broken("block %#lx is in use for nothing", address);
        if (info.state == FRAME_SHARED && info.payload < 2)
            return broken("block %#lx is shared by %lu", address, info.payload);
        counted.frames += order_frames(info.order);
        counted.reserved += info.state == FRAME_RESERVED ? order_frames(info.order) : 0;
        counted.by_purpose[info.purpose] += order_frames(info.order);
        counted.by_owner[info.owner] += order_frames(info.order);
    }
    return E_OK;
}

/* The frames that a CPU holds by mask: known to nobody else. */
static int verify_held(unsigned cpu, char *why, size_t why_size)
{
    uint64_t base = buddy_cpus[cpu].held_base, mask = buddy_cpus[cpu].held;
    if (mask == 0)
        return E_OK;
    if (base % GROUP_FRAMES != 0 || base + highest_bit(mask) >= buddy.frames || !chunk_ready(base))
        return broken("CPU %u holds frames of a group that there is not", cpu);
    for (unsigned i = 0; i < cpu; i++)
        if (buddy_cpus[i].held_base == base && (buddy_cpus[i].held & mask) != 0)
            return broken("CPUs %u and %u hold the same frame", i, cpu);
    counted.frames += count_bits(mask);
    for (; mask != 0; mask &= mask - 1) {
        uint64_t pfn = base + lowest_bit(mask), first, record;
        unsigned order;
        if (buddy_find_live(pfn, &first, &record) || buddy_find_free(pfn, &first, &order))
            return broken("CPU %u: held frame %#lx is in use or free", cpu, pfn << PAGE_SHIFT);
    }
    return E_OK;
}

static int verify_caches(char *why, size_t why_size)
{
    uint64_t blocks = 0, sum = 0;
    for (unsigned i = 0; i < buddy.cpus; i++) {
        int error = verify_held(i, why, why_size);
        if (error != E_OK)
            return error;
    }
    for (unsigned i = 0; i < buddy.cpus; i++)
        for (unsigned order = 0; order < CACHED_ORDERS; order++) {
            const struct cache_stack *stack = &buddy_cpus[i].stack[order];
            const uint64_t *base = &buddy_cpus[i].slot[cache_first(order)];
            uint64_t bytes = (uintptr_t)stack->top - (uintptr_t)base;
            if (stack->base != base || stack->limit != base + cache_capacity(order) ||
                bytes % sizeof(*base) != 0 || bytes / sizeof(*base) > cache_capacity(order))
                return broken("CPU %u: cache of order %u is not where it should be", i, order);
            for (const uint64_t *slot = base; slot < stack->top; slot++) {
                uint64_t pfn = *slot;
                if (pfn >= buddy.frames || !chunk_ready(pfn) ||
                    peek(frame_records[pfn]) != cached_record(order))
                    return broken("CPU %u: cached frame %#lx has the record of no such block", i,
                                  pfn << PAGE_SHIFT);
                blocks++;
                sum += cached_share(pfn);
            }
        }
    if (blocks != counted.cached_blocks)
        return broken("%lu blocks in caches, %lu recorded as cached", blocks,
                      counted.cached_blocks);
    if (sum != counted.cached_sum)
        return broken("a cached block is in two slots, and another in none");
    return E_OK;
}

static int verify_counters(char *why, size_t why_size)
{
    uint64_t in_use[PURPOSE_COUNT];
    memcpy(in_use, counted.by_purpose, sizeof(in_use));
    /* Charged must be what is in use and what is leased. */
    for (unsigned i = 0; i < buddy.cpus; i++)
        for (unsigned n = 0; n < LEASES; n++) {
            const struct lease *lease = &buddy_cpus[i].lease[n];
            owner_t owner = frame_record_owner(lease->key);
            if (lease->key == 0 ? lease->left > 0 : buddy_accounts[owner].charged > quota_of(owner))
                return broken("CPU %u: owner %u is beyond its quota and has a lease", i, owner);
            counted.by_owner[owner] += lease->left;
            counted.by_purpose[frame_record_purpose(lease->key)] += lease->left;
        }
    for (unsigned purpose = 0; purpose < PURPOSE_COUNT; purpose++)
        if (buddy.charged_for[purpose] != counted.by_purpose[purpose])
            return broken("%s: %lu frames, counted as %lu",
                          purpose_name((enum frame_purpose)purpose), in_use[purpose],
                          buddy_used_frames((enum frame_purpose)purpose));
    for (unsigned owner = 0; owner < OWNER_LIMIT; owner++)
        if (buddy_accounts[owner].charged != counted.by_owner[owner])
            return broken("owner %u: %lu frames in use and leased, charged %lu", owner,
                          counted.by_owner[owner], buddy_accounts[owner].charged);
    if (counted.frames + buddy.free_frames != buddy.total)
        return broken("%lu frames free, in use and cached, of %lu",
                      (counted.frames + buddy.free_frames), buddy.total);
    if (counted.reserved != buddy.reserved)
        return broken("%lu frames reserved, counted as %lu", counted.reserved, buddy.reserved);
    return E_OK;
}

int buddy_verify(char *why, size_t why_size)
{
    struct cpu *self = buddy_take_lock();
    buddy_stop_others(self);
    int error = verify_free(why, why_size);
    if (error == E_OK)
        error = verify_live(why, why_size);
    if (error == E_OK)
        error = verify_caches(why, why_size);
    if (error == E_OK)
        error = verify_counters(why, why_size);
    buddy_resume_others();
    buddy_drop_lock();
    return error;
}

/* ---- As a number ---- */

static void mix(uint64_t *sum, uint64_t value)
{
    *sum = (*sum ^ value) * UINT64_C(0x9e3779b97f4a7c15);
    *sum ^= *sum >> 32;
}

uint64_t buddy_fingerprint(void)
{
    uint64_t sum = 0;
    struct cpu *self = buddy_take_lock();

    buddy_stop_others(self);
    for (unsigned order = 0; order < BUDDY_ORDERS; order++) {
        const struct bittree *set = &buddy.set[order];
        for (uint64_t i = bittree_next(set, 0); i != BITTREE_NONE; i = bittree_next(set, i + 1)) {
            mix(&sum, i << 8 | order);
            if (order < GROUP_ORDER)
                mix(&sum, buddy.mask[i]);
        }
    }
    for (unsigned i = 0; i < buddy.cpus; i++)
        if (buddy_cpus[i].held != 0) {
            mix(&sum, buddy_cpus[i].held_base);
            mix(&sum, buddy_cpus[i].held);
        }
    for (uint64_t pfn = buddy_next_live(0, buddy.frames); pfn != NO_FRAME;
         pfn = buddy_next_live(pfn + 1, buddy.frames)) {
        mix(&sum, pfn);
        mix(&sum, peek(frame_records[pfn]));
    }
    buddy_resume_others();
    buddy_drop_lock();
    return sum;
}
