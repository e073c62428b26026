/*
 * The buddy judged by itself: free blocks against summaries, records against both, caches against
 * records, counters against all of them. Shares with the other files what looks, and nothing that
 * changes anything.
 *
 * The lock is held for one part at a time. What is judged there holds whenever the lock is free, so
 * that it does not matter what happened since the part before. Sums over all parts are judged at
 * the end, and only if nothing happened.
 */
#include "mm/frames/buddy_blocks.h"
#include "mm/frames/buddy_verify.h"

#include "lib/string.h"

#define WORDS_A_HOLDING 1024 /* of a set */
#define MEMBERS_A_HOLDING 512

struct buddy_counted buddy_counted;

/* Somebody has buddy_counted. */
static bool busy;

/* ---- Parts ---- */

/* Grows by 1 when the lock is taken, and whenever a block is taken or given back. */
static uint64_t now_stamp(void)
{
    uint64_t stamp = buddy.holdings;
    for (unsigned i = 0; i < buddy.cpus; i++)
        stamp += peek(buddy_cpus[i].allocations) + peek(buddy_cpus[i].frees);
    return stamp;
}

void buddy_begin_part(struct pass *pass)
{
    buddy_stop_others(buddy_take_lock());
    uint64_t stamp = now_stamp();
    pass->moved = pass->moved || stamp != pass->stamp + 1;
    pass->stamp = stamp;
}

/* Ends a part. What it found, or else what `poll` answers. */
int buddy_end_part(struct pass *pass, int error)
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
        buddy_begin_part(pass);
        if (!bittree_check(tree, &check, WORDS_A_HOLDING))
            error = broken("%s: a summary bit is wrong", name);
        error = buddy_end_part(pass, error);
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
        error = verify_tree(pass, &buddy.set[order], name, &buddy_counted.members[order]);
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
    buddy_counted.free_frames += count_bits(mask);
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
    buddy_counted.free_frames += order_frames(order);
    return E_OK;
}

static int verify_members(struct pass *pass, unsigned order)
{
    uint64_t next = 0;
    int error = E_OK;
    while (next != BITTREE_NONE && error == E_OK) {
        buddy_begin_part(pass);
        for (unsigned n = 0; n < MEMBERS_A_HOLDING && error == E_OK; n++) {
            next = bittree_next(&buddy.set[order], next);
            if (next == BITTREE_NONE)
                break;
            error = order < GROUP_ORDER ? verify_group(pass, order, next)
                                        : verify_block(pass, order, next);
            next++;
        }
        error = buddy_end_part(pass, error);
    }
    return error;
}

/* ---- Totals ---- */

static int judge_sets(struct pass *pass)
{
    for (unsigned order = 0; order < BUDDY_ORDERS; order++) {
        if (buddy_counted.members[order] != buddy.members[order])
            return broken("set %u: %lu members, counted as %lu", order,
                          buddy_counted.members[order], buddy.members[order]);
        if ((buddy.members[order] > 0) != ((buddy.open_orders >> order & 1) != 0))
            return broken("set %u: open_orders is wrong", order);
    }
    if (buddy_counted.free_frames != buddy.free_frames)
        return broken("%lu frames in free blocks, counted as %lu", buddy_counted.free_frames,
                      buddy.free_frames);
    if (buddy_counted.cached_blocks != 0)
        return broken("%lu blocks are recorded as cached and in no cache (modulo 2^64)",
                      buddy_counted.cached_blocks);
    if (buddy_counted.cached_sum != 0)
        return broken("a cached block is in two slots, and another in none");
    return E_OK;
}

static int judge_counters(struct pass *pass)
{
    for (unsigned purpose = 0; purpose < PURPOSE_COUNT; purpose++)
        if (buddy.charged_for[purpose] != buddy_counted.by_purpose[purpose]) {
            uint64_t counter = buddy_used_frames((enum frame_purpose)purpose);
            uint64_t leased = buddy.charged_for[purpose] - counter;
            return broken("%s: %lu frames, counted as %lu",
                          purpose_name((enum frame_purpose)purpose),
                          buddy_counted.by_purpose[purpose] - leased, counter);
        }
    for (unsigned owner = 0; owner < OWNER_LIMIT; owner++)
        if (buddy_accounts[owner].charged != buddy_counted.by_owner[owner])
            return broken("owner %u: %lu frames in use and leased, charged %lu", owner,
                          buddy_counted.by_owner[owner], buddy_accounts[owner].charged);
    if (buddy_counted.frames + buddy.free_frames != buddy.total)
        return broken("%lu frames free, in use and cached, of %lu",
                      buddy_counted.frames + buddy.free_frames, buddy.total);
    if (buddy_counted.reserved != buddy.reserved)
        return broken("%lu frames reserved, counted as %lu", buddy_counted.reserved,
                      buddy.reserved);
    return E_OK;
}

static int judge_totals(struct pass *pass)
{
    buddy_begin_part(pass);
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

/* One pass at a time: it has buddy_counted. Waits for another to end, unless `poll` ends that
 * first. */
static int claim(struct pass *pass)
{
    while (__atomic_exchange_n(&busy, true, __ATOMIC_ACQUIRE)) {
        int result = pass->poll != NULL ? pass->poll(pass->poll_ctx) : 0;
        if (result != 0)
            return result;
        __builtin_ia32_pause();
    }
    memset(&buddy_counted, 0, sizeof(buddy_counted));
    return E_OK;
}

static int verify_all(struct pass *pass)
{
    int error = verify_trees(pass);
    for (unsigned order = 0; order < BUDDY_ORDERS && error == E_OK; order++)
        error = verify_members(pass, order);
    if (error == E_OK)
        error = buddy_verify_chunks(pass);
    if (error == E_OK)
        error = buddy_verify_cpus(pass);
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
