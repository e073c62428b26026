/* Verifying, the second half: records, masks and caches. See buddy_verify.c. */
#include "mm/frames/buddy_blocks.h"
#include "mm/frames/buddy_cache.h"
#include "mm/frames/buddy_verify.h"

/* What one cached block adds to a sum that only the same blocks, each once, arrive at. */
static uint64_t cached_share(uint64_t pfn)
{
    uint64_t share = (pfn + 1) * UINT64_C(0x9e3779b97f4a7c15);
    return (share ^ share >> 29) * UINT64_C(0xbf58476d1ce4e5b9);
}

/* ---- Chunks: what their masks and records say ---- */

static int verify_masks(struct pass *pass, uint64_t chunk)
{
    for (uint64_t n = 0; n < CHUNK_GROUPS; n++) {
        uint64_t group = chunk * CHUNK_GROUPS + n, mask = buddy.mask[group];
        if (mask != 0 && !bittree_test(&buddy.set[largest_in(mask)], group))
            return broken("group %#lx with mask %#lx is not in set %u",
                          group * GROUP_FRAMES << PAGE_SHIFT, mask, largest_in(mask));
    }
    return E_OK;
}

/* What is wrong with a record in itself. */
static int verify_record(struct pass *pass, uint64_t pfn, uint64_t record)
{
    struct frame_info info = frame_record_decode(record);
    uint64_t address = pfn << PAGE_SHIFT;
    if (info.state == FRAME_FREE || info.state == FRAME_TAIL || info.state > FRAME_RESERVED ||
        info.order > BUDDY_MAX_ORDER || info.purpose >= PURPOSE_COUNT)
        return broken("record of %#lx makes no sense: %#lx", address, record);
    if (!is_aligned(pfn, order_frames(info.order)) || pfn + order_frames(info.order) > buddy.frames)
        return broken("block %#lx cannot have order %u", address, info.order);
    if (info.state == FRAME_CACHED) {
        if (record != cached_record(info.order) || info.order >= CACHED_ORDERS)
            return broken("record of cached %#lx makes no sense", address);
    } else if (info.purpose == PURPOSE_FREE) {
        return broken("block %#lx is in use for nothing", address);
    } else if (info.state == FRAME_SHARED && info.payload < 2) {
        return broken("block %#lx is shared by %lu", address, info.payload);
    }
    return E_OK;
}

static void count_record(uint64_t pfn, uint64_t record)
{
    uint64_t frames = order_frames(frame_record_order(record));
    enum frame_state state = frame_record_state(record);
    buddy_counted.frames += frames;
    if (state == FRAME_CACHED) {
        buddy_counted.cached_blocks++;
        buddy_counted.cached_sum += cached_share(pfn);
        return;
    }
    buddy_counted.reserved += state == FRAME_RESERVED ? frames : 0;
    buddy_counted.by_purpose[frame_record_purpose(record)] += frames;
    buddy_counted.by_owner[frame_record_owner(record)] += frames;
}

/* Where the live block ends that covers a frame from below; else the frame itself. */
static uint64_t covered_to(uint64_t pfn)
{
    uint64_t first, record;
    if (pfn == 0 || !buddy_find_live(pfn - 1, &first, &record))
        return pfn;
    uint64_t end = first + order_frames(frame_record_order(record));
    return end > pfn ? end : pfn;
}

static int verify_records(struct pass *pass, uint64_t chunk)
{
    uint64_t pfn = chunk * CHUNK_FRAMES, stop = pfn + CHUNK_FRAMES, end = covered_to(pfn), first;
    unsigned order;
    stop = stop < buddy.frames ? stop : buddy.frames;
    for (; pfn < stop; pfn++) {
        uint64_t record = peek(frame_records[pfn]);
        if (record == 0)
            continue;
        int error = verify_record(pass, pfn, record);
        if (error != E_OK)
            return error;
        if (pfn < end)
            return broken("block %#lx starts inside another", pfn << PAGE_SHIFT);
        end = pfn + order_frames(frame_record_order(record));
        if (buddy_find_free(pfn, &first, &order) || buddy_next_free(pfn) < end)
            return broken("block %#lx of order %u is free and in use", pfn << PAGE_SHIFT,
                          frame_record_order(record));
        count_record(pfn, record);
    }
    return E_OK;
}

int buddy_verify_chunks(struct pass *pass)
{
    uint64_t next = 0;
    int error = E_OK;
    while (next != BITTREE_NONE && error == E_OK) {
        buddy_begin_part(pass);
        next = bittree_next(&buddy.ready, next);
        if (next != BITTREE_NONE) {
            error = verify_masks(pass, next);
            error = error == E_OK ? verify_records(pass, next) : error;
            next++;
        }
        error = buddy_end_part(pass, error);
    }
    return error;
}

/* ---- CPUs ---- */

/* The frames that a CPU holds by mask: known to nobody else. */
static int verify_held(struct pass *pass, unsigned cpu)
{
    uint64_t base = buddy_cpus[cpu].held_base, mask = buddy_cpus[cpu].held;
    if (mask == 0)
        return E_OK;
    if (base % GROUP_FRAMES != 0 || base + highest_bit(mask) >= buddy.frames || !chunk_ready(base))
        return broken("CPU %u holds frames of a group that there is not", cpu);
    for (unsigned i = 0; i < cpu; i++)
        if (buddy_cpus[i].held_base == base && (buddy_cpus[i].held & mask) != 0)
            return broken("CPUs %u and %u hold the same frame", i, cpu);
    buddy_counted.frames += count_bits(mask);
    for (; mask != 0; mask &= mask - 1) {
        uint64_t pfn = base + lowest_bit(mask), first, record;
        unsigned order;
        if (buddy_find_live(pfn, &first, &record) || buddy_find_free(pfn, &first, &order))
            return broken("CPU %u: held frame %#lx is in use or free", cpu, pfn << PAGE_SHIFT);
    }
    return E_OK;
}

/* One stack; takes its blocks off what the records say is cached. */
static int verify_stack(struct pass *pass, unsigned cpu, unsigned order)
{
    const struct cache_stack *stack = &buddy_cpus[cpu].stack[order];
    const uint64_t *base = &buddy_cpus[cpu].slot[cache_first(order)];
    uint64_t bytes = (uintptr_t)stack->top - (uintptr_t)base;
    if (stack->base != base || stack->limit != base + cache_capacity(order) ||
        bytes % sizeof(*base) != 0 || bytes / sizeof(*base) > cache_capacity(order))
        return broken("CPU %u: cache of order %u is not where it should be", cpu, order);
    for (const uint64_t *slot = base; slot < stack->top; slot++) {
        uint64_t pfn = *slot;
        if (pfn >= buddy.frames || !chunk_ready(pfn) ||
            peek(frame_records[pfn]) != cached_record(order))
            return broken("CPU %u: cached frame %#lx has the record of no such block", cpu,
                          pfn << PAGE_SHIFT);
        buddy_counted.cached_blocks--;
        buddy_counted.cached_sum -= cached_share(pfn);
    }
    return E_OK;
}

/* What is leased is charged as what is in use is. */
static int verify_leases(struct pass *pass, unsigned cpu)
{
    for (unsigned n = 0; n < LEASES; n++) {
        const struct lease *lease = &buddy_cpus[cpu].lease[n];
        owner_t owner = frame_record_owner(lease->key);
        if (lease->key == 0 ? lease->left > 0 : buddy_accounts[owner].charged > quota_of(owner))
            return broken("CPU %u: owner %u is beyond its quota and has a lease", cpu, owner);
        buddy_counted.by_owner[owner] += lease->left;
        buddy_counted.by_purpose[frame_record_purpose(lease->key)] += lease->left;
    }
    return E_OK;
}

static int verify_cpu(struct pass *pass, unsigned cpu)
{
    buddy_begin_part(pass);
    int error = verify_held(pass, cpu);
    for (unsigned order = 0; order < CACHED_ORDERS && error == E_OK; order++)
        error = verify_stack(pass, cpu, order);
    if (error == E_OK)
        error = verify_leases(pass, cpu);
    return buddy_end_part(pass, error);
}

int buddy_verify_cpus(struct pass *pass)
{
    int error = E_OK;
    for (unsigned cpu = 0; cpu < BUDDY_CPUS && error == E_OK; cpu++)
        error = verify_cpu(pass, cpu);
    return error;
}
