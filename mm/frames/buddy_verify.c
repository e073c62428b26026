/*
 * The buddy judged by itself: free blocks against summaries, records against both, caches against
 * records, counters against all of them. Shares with the other files what looks, and nothing that
 * changes anything.
 *
 * The lock is held for one part at a time. What is judged there holds whenever the lock is free, so
 * that it does not matter what happened since the part before. Sums over all parts are judged at
 * the end, and only if nothing happened.
 */
#include "mm/frames/buddy_internal.h"

#include "lib/format.h"
#include "lib/string.h"

#define WORDS_A_HOLDING 1024 /* of a set */
#define MEMBERS_A_HOLDING 512

/* What a pass counts; static, because it is large. It belongs to who has set `busy`. */
static bool busy;
static struct {
    uint64_t frames, free_frames, cached_blocks, reserved;
    uint64_t cached_sum; /* of cached_share() */
    uint64_t by_purpose[PURPOSE_COUNT];
    uint64_t by_owner[OWNER_LIMIT];
    uint64_t members[BUDDY_ORDERS];
} counted;

struct pass {
    buddy_poll_fn poll;
    void *poll_ctx;
    char *why;
    size_t why_size;
    uint64_t stamp; /* now_stamp() when the lock was held last */
    bool moved;     /* somebody was at work since the first part */
};

#define broken(...) (format_buffer(pass->why, pass->why_size, __VA_ARGS__), E_STATE)

/* What one cached block adds to a sum that only the same blocks, each once, arrive at. */
static uint64_t cached_share(uint64_t pfn)
{
    uint64_t share = (pfn + 1) * UINT64_C(0x9e3779b97f4a7c15);
    return (share ^ share >> 29) * UINT64_C(0xbf58476d1ce4e5b9);
}

/* ---- Parts ---- */

/* Grows by 1 when the lock is taken, and whenever a block is taken or given back. */
static uint64_t now_stamp(void)
{
    uint64_t stamp = buddy.holdings;
    for (unsigned i = 0; i < buddy.cpus; i++)
        stamp += peek(buddy_cpus[i].allocations) + peek(buddy_cpus[i].frees);
    return stamp;
}

static void begin_part(struct pass *pass)
{
    buddy_stop_others(buddy_take_lock());
    uint64_t stamp = now_stamp();
    pass->moved = pass->moved || stamp != pass->stamp + 1;
    pass->stamp = stamp;
}

/* Ends a part. What it found, or else what `poll` answers. */
static int end_part(struct pass *pass, int error)
{
    buddy_resume_others();
    buddy_drop_lock();
    if (error != E_OK || pass->poll == NULL)
        return error;
    return pass->poll(pass->poll_ctx);
}

/* ---- Free blocks ---- */

/* The words of one set against its summaries. */
static int verify_tree(struct pass *pass, const struct bittree *tree, const char *name,
                       uint64_t *count)
{
    struct bittree_check check = {.level = tree->top};
    int error = E_OK;
    while (!check.done && error == E_OK) {
        begin_part(pass);
        if (!bittree_check(tree, &check, WORDS_A_HOLDING))
            error = broken("%s: a summary bit is wrong", name);
        error = end_part(pass, error);
    }
    *count = check.count;
    return error;
}

static int verify_trees(struct pass *pass)
{
    uint64_t chunks;
    int error = verify_tree(pass, &buddy.ready, "chunks", &chunks);
    for (unsigned order = 0; order < BUDDY_ORDERS && error == E_OK; order++) {
        char name[16];
        format_buffer(name, sizeof(name), "set %u", order);
        error = verify_tree(pass, &buddy.set[order], name, &counted.members[order]);
    }
    return error;
}

/* Is a free block of `order` or a larger one there? */
static bool large_covers(uint64_t pfn, unsigned order)
{
    for (; order < BUDDY_ORDERS; order++)
        if (bittree_test(&buddy.set[order], pfn >> order))
            return true;
    return false;
}

static int verify_group(struct pass *pass, unsigned set, uint64_t group)
{
    uint64_t mask = group_mask(group), base = group * GROUP_FRAMES;
    uint64_t address = base << PAGE_SHIFT;
    if (mask == 0 || mask == ~UINT64_C(0) || largest_in(mask) != set)
        return broken("group %#lx with mask %#lx is in set %u", address, mask, set);
    if (base + highest_bit(mask) >= buddy.frames)
        return broken("group %#lx has free frames beyond memory", address);
    if (large_covers(base, GROUP_ORDER))
        return broken("group %#lx is also in a larger free block", address);
    counted.free_frames += count_bits(mask);
    return E_OK;
}

static int verify_block(struct pass *pass, unsigned order, uint64_t index)
{
    uint64_t address = index << order << PAGE_SHIFT;
    if ((index + 1) << order > buddy.frames)
        return broken("free block %#lx of order %u ends beyond memory", address, order);
    if (order < BUDDY_MAX_ORDER && bittree_test(&buddy.set[order], index ^ 1))
        return broken("free blocks at %#lx of order %u were not merged", address, order);
    if (large_covers(index << order, order + 1))
        return broken("free block %#lx of order %u lies in a larger one", address, order);
    counted.free_frames += order_frames(order);
    return E_OK;
}

static int verify_members(struct pass *pass, unsigned order)
{
    uint64_t next = 0;
    int error = E_OK;
    while (next != BITTREE_NONE && error == E_OK) {
        begin_part(pass);
        for (unsigned n = 0; n < MEMBERS_A_HOLDING && error == E_OK; n++) {
            next = bittree_next(&buddy.set[order], next);
            if (next == BITTREE_NONE)
                break;
            error = order < GROUP_ORDER ? verify_group(pass, order, next)
                                        : verify_block(pass, order, next);
            next++;
        }
        error = end_part(pass, error);
    }
    return error;
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
    counted.frames += frames;
    if (state == FRAME_CACHED) {
        counted.cached_blocks++;
        counted.cached_sum += cached_share(pfn);
        return;
    }
    counted.reserved += state == FRAME_RESERVED ? frames : 0;
    counted.by_purpose[frame_record_purpose(record)] += frames;
    counted.by_owner[frame_record_owner(record)] += frames;
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

static int verify_chunks(struct pass *pass)
{
    uint64_t next = 0;
    int error = E_OK;
    while (next != BITTREE_NONE && error == E_OK) {
        begin_part(pass);
        next = bittree_next(&buddy.ready, next);
        if (next != BITTREE_NONE) {
            error = verify_masks(pass, next);
            error = error == E_OK ? verify_records(pass, next) : error;
            next++;
        }
        error = end_part(pass, error);
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
    counted.frames += count_bits(mask);
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
        counted.cached_blocks--;
        counted.cached_sum -= cached_share(pfn);
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
        counted.by_owner[owner] += lease->left;
        counted.by_purpose[frame_record_purpose(lease->key)] += lease->left;
    }
    return E_OK;
}

static int verify_cpu(struct pass *pass, unsigned cpu)
{
    begin_part(pass);
    int error = verify_held(pass, cpu);
    for (unsigned order = 0; order < CACHED_ORDERS && error == E_OK; order++)
        error = verify_stack(pass, cpu, order);
    if (error == E_OK)
        error = verify_leases(pass, cpu);
    return end_part(pass, error);
}

/* ---- Totals ---- */

static int judge_sets(struct pass *pass)
{
    for (unsigned order = 0; order < BUDDY_ORDERS; order++) {
        if (counted.members[order] != buddy.members[order])
            return broken("set %u: %lu members, counted as %lu", order, counted.members[order],
                          buddy.members[order]);
        if ((buddy.members[order] > 0) != ((buddy.open_orders >> order & 1) != 0))
            return broken("set %u: open_orders is wrong", order);
    }
    if (counted.free_frames != buddy.free_frames)
        return broken("%lu frames in free blocks, counted as %lu", counted.free_frames,
                      buddy.free_frames);
    if (counted.cached_blocks != 0)
        return broken("%lu blocks are recorded as cached and in no cache (modulo 2^64)",
                      counted.cached_blocks);
    if (counted.cached_sum != 0)
        return broken("a cached block is in two slots, and another in none");
    return E_OK;
}

static int judge_counters(struct pass *pass)
{
    for (unsigned purpose = 0; purpose < PURPOSE_COUNT; purpose++)
        if (buddy.charged_for[purpose] != counted.by_purpose[purpose]) {
            uint64_t counter = buddy_used_frames((enum frame_purpose)purpose);
            uint64_t leased = buddy.charged_for[purpose] - counter;
            return broken("%s: %lu frames, counted as %lu",
                          purpose_name((enum frame_purpose)purpose),
                          counted.by_purpose[purpose] - leased, counter);
        }
    for (unsigned owner = 0; owner < OWNER_LIMIT; owner++)
        if (buddy_accounts[owner].charged != counted.by_owner[owner])
            return broken("owner %u: %lu frames in use and leased, charged %lu", owner,
                          counted.by_owner[owner], buddy_accounts[owner].charged);
    if (counted.frames + buddy.free_frames != buddy.total)
        return broken("%lu frames free, in use and cached, of %lu",
                      counted.frames + buddy.free_frames, buddy.total);
    if (counted.reserved != buddy.reserved)
        return broken("%lu frames reserved, counted as %lu", counted.reserved, buddy.reserved);
    return E_OK;
}

static int judge_totals(struct pass *pass)
{
    begin_part(pass);
    int error = E_OK;
    if (pass->moved)
        format_buffer(pass->why, pass->why_size,
                      "memory changed hands meanwhile: no total was judged");
    else
        error = judge_sets(pass);
    if (error == E_OK && !pass->moved)
        error = judge_counters(pass);
    buddy_resume_others();
    buddy_drop_lock();
    return error;
}

/* ---- A pass ---- */

/* One pass at a time: it has `counted`. Waits for another to end, unless `poll` ends that first. */
static int claim(struct pass *pass)
{
    while (__atomic_exchange_n(&busy, true, __ATOMIC_ACQUIRE)) {
        int result = pass->poll != NULL ? pass->poll(pass->poll_ctx) : 0;
        if (result != 0)
            return result;
        __builtin_ia32_pause();
    }
    memset(&counted, 0, sizeof(counted));
    return E_OK;
}

static int verify_all(struct pass *pass)
{
    int error = verify_trees(pass);
    for (unsigned order = 0; order < BUDDY_ORDERS && error == E_OK; order++)
        error = verify_members(pass, order);
    if (error == E_OK)
        error = verify_chunks(pass);
    for (unsigned cpu = 0; cpu < BUDDY_CPUS && error == E_OK; cpu++)
        error = verify_cpu(pass, cpu);
    return error == E_OK ? judge_totals(pass) : error;
}

int buddy_verify_until(buddy_poll_fn poll, void *ctx, char *why, size_t why_size)
{
    struct pass pass = {.poll = poll, .poll_ctx = ctx, .why = why, .why_size = why_size};
    int error = claim(&pass);
    if (error != E_OK)
        return error;
    format_buffer(why, why_size, "%s", "");
    buddy_take_lock();
    pass.stamp = now_stamp();
    buddy_drop_lock();
    error = verify_all(&pass);
    __atomic_store_n(&busy, false, __ATOMIC_RELEASE);
    return error;
}

int buddy_verify(char *why, size_t why_size)
{
    return buddy_verify_until(NULL, NULL, why, why_size);
}
