/*
 * The buddy's free blocks: how they are kept, found, split and merged. All of it with the lock
 * held.
 *
 * Free state, orders 6 to 18: for each order one set of free blocks (mm/frames/bittree.h), indexed
 * by block number. A free block stands in exactly one set, at the largest order that it can have:
 * two free buddies are always merged. So a block's buddy is the neighbouring bit of the same word,
 * a merge clears it and goes one order up, and a split sets the halves that are left over on the
 * way down.
 *
 * Orders 0 to 5: 64 frames are a group, and one word, its mask, says which of them are free. Which
 * free blocks there are is read off the mask: to give back is to set bits and to split is to clear
 * them, and merging is nothing at all. The set of an order below 6 holds the groups whose largest
 * free block has that order. A group that becomes free as a whole leaves: its mask is 0, and it is
 * an order-6 block.
 *
 *    mask  1100 1111 0000 0000 ...   largest block: order 2, so the group stands in set 2;
 *                                    an order-1 request takes the pair, not half of the four
 */
#include "mm/frames/buddy_blocks.h"

#include "lib/string.h"

void buddy_make_ready(uint64_t pfn)
{
    uint64_t chunk = pfn >> CHUNK_SHIFT;
    if (chunk_ready(pfn))
        return;
    memset(&frame_records[chunk * CHUNK_FRAMES], 0, CHUNK_FRAMES * sizeof(uint64_t));
    memset(&buddy.mask[chunk * CHUNK_GROUPS], 0, CHUNK_GROUPS * sizeof(uint64_t));
    bittree_set(&buddy.ready, chunk);
}

void buddy_write_record(uint64_t pfn, uint64_t record)
{
    buddy_make_ready(pfn);
    poke(frame_records[pfn], record);
}

static void set_add(unsigned order, uint64_t index)
{
    bittree_set(&buddy.set[order], index);
    if (buddy.members[order]++ == 0)
        buddy.open_orders |= 1u << order;
}

static void set_remove(unsigned order, uint64_t index)
{
    bittree_clear(&buddy.set[order], index);
    if (--buddy.members[order] == 0)
        buddy.open_orders &= ~(1u << order);
}

/* Changes a group's mask, neither value being all ones, and moves it to the set where it belongs.
 */
void buddy_change_mask(uint64_t group, uint64_t before, uint64_t after)
{
    unsigned old = before != 0 ? largest_in(before) : GROUP_ORDER;
    unsigned new = after != 0 ? largest_in(after) : GROUP_ORDER;
    buddy.mask[group] = after;
    if (old == new)
        return;
    if (old != GROUP_ORDER)
        set_remove(old, group);
    if (new != GROUP_ORDER)
        set_add(new, group);
}

/* Puts a block of 64 frames or more into the sets, merged with its buddy for as long as that is
 * free. */
static void give_large(uint64_t pfn, unsigned order)
{
    for (; order < BUDDY_MAX_ORDER; order++) {
        uint64_t index = pfn >> order;
        if (!bittree_test(&buddy.set[order], index ^ 1))
            break;
        set_remove(order, index ^ 1);
        buddy.merges++;
        pfn = align_down(pfn, order_frames(order + 1));
    }
    set_add(order, pfn >> order);
}

/* Gives back these frames of a group whose chunk is ready. */
void buddy_give_mask(uint64_t group, uint64_t given)
{
    uint64_t before = buddy.mask[group], after = before | given;
    if (after != ~UINT64_C(0)) {
        buddy_change_mask(group, before, after);
    } else {
        buddy_change_mask(group, before, 0);
        give_large(group << GROUP_ORDER, GROUP_ORDER);
    }
}

void buddy_give_block(uint64_t pfn, unsigned order)
{
    buddy.free_frames += order_frames(order);
    if (order >= GROUP_ORDER) {
        give_large(pfn, order);
        return;
    }
    buddy_make_ready(pfn);
    buddy_give_mask(pfn >> GROUP_ORDER, mask_of(pfn, order));
}

/* Takes the order-`order` block at `pfn` out of the free block of order `from` that contains it. */
void buddy_carve_block(uint64_t pfn, unsigned order, unsigned from)
{
    uint64_t group = pfn >> GROUP_ORDER;
    buddy.free_frames -= order_frames(order);
    if (from < GROUP_ORDER) {
        buddy_change_mask(group, buddy.mask[group], buddy.mask[group] & ~mask_of(pfn, order));
        return;
    }
    set_remove(from, pfn >> from);
    for (; from > order && from > GROUP_ORDER; buddy.splits++) {
        from--;
        set_add(from, (pfn >> from) ^ 1);
    }
    if (order < GROUP_ORDER) {
        buddy_make_ready(pfn);
        buddy_change_mask(group, 0, ~mask_of(pfn, order));
    }
}

/* The largest order of a block that starts at `first` and has at most `count` frames. */
unsigned buddy_largest_order(uint64_t first, uint64_t count)
{
    unsigned order = highest_bit(count);
    if (first != 0 && lowest_bit(first) < order)
        order = lowest_bit(first);
    return order < BUDDY_MAX_ORDER ? order : BUDDY_MAX_ORDER;
}

void buddy_give_range(uint64_t first, uint64_t count)
{
    while (count > 0) {
        unsigned order = buddy_largest_order(first, count);
        buddy_give_block(first, order);
        first += order_frames(order);
        count -= order_frames(order);
    }
}

bool buddy_is_low(const struct member *member)
{
    unsigned shift = member->order < GROUP_ORDER ? GROUP_ORDER : member->order;
    return (member->index + 1) << shift <= LOW_FRAMES;
}

bool buddy_choose(unsigned order, unsigned limit, struct member *out)
{
    bool found = false;
    uint32_t open = buddy.open_orders & (uint32_t)BITS(limit, order);
    for (; open != 0; open &= open - 1) {
        unsigned o = lowest_bit(open);
        struct member member = {o, bittree_last(&buddy.set[o])};
        bool low = buddy_is_low(&member);
        if (!low || !found)
            *out = member;
        found = true;
        if (!low)
            break;
    }
    return found;
}

/* The highest part of a mask that can serve an order: of the smallest free block that is large
 * enough. */
static unsigned best_start(uint64_t mask, unsigned order)
{
    uint64_t starts = starts_of(mask, order);
    for (unsigned o = order;; o++) {
        uint64_t larger = o < GROUP_ORDER - 1 ? next_starts(starts, o) : 0;
        uint64_t exact = blocks_among(starts, larger, o);
        if (exact != 0)
            return highest_bit(exact) + (unsigned)(order_frames(o) - order_frames(order));
        starts = larger;
    }
}

uint64_t buddy_take_any(unsigned order)
{
    struct member member;
    uint64_t pfn;
    if (!buddy_choose(order, BUDDY_MAX_ORDER, &member))
        return NO_FRAME;
    if (member.order < GROUP_ORDER)
        pfn = member.index * GROUP_FRAMES + best_start(buddy.mask[member.index], order);
    else
        pfn = ((member.index + 1) << member.order) - order_frames(order);
    buddy_carve_block(pfn, order, member.order);
    return pfn;
}

/* The highest block of an order below GROUP_ORDER in a group and within frames [first, end). */
static uint64_t within_group(uint64_t group, unsigned order, uint64_t first, uint64_t end)
{
    uint64_t base = group * GROUP_FRAMES, mask = group_mask(group);
    if (first > base)
        mask &= ~UINT64_C(0) << (first - base);
    if (end < base + GROUP_FRAMES)
        mask &= BIT(end - base) - 1;
    uint64_t starts = starts_of(mask, order);
    return starts != 0 ? base + highest_bit(starts) : NO_FRAME;
}

/* The same in any group: the one at either end may be within the bounds in part, those in between
 * are so as a whole, and any member of the sets will do. */
static uint64_t within_groups(unsigned order, uint64_t first, uint64_t end)
{
    uint64_t low = first / GROUP_FRAMES, high = (end - 1) / GROUP_FRAMES;
    uint64_t pfn = within_group(high, order, first, end);
    for (unsigned o = order; o < GROUP_ORDER && pfn == NO_FRAME && high > low; o++) {
        uint64_t group = bittree_previous(&buddy.set[o], high - 1);
        if (group != BITTREE_NONE && group > low)
            pfn = within_group(group, order, first, end);
    }
    return pfn != NO_FRAME ? pfn : within_group(low, order, first, end);
}

/* Takes a block that lies within frames [first, end). */
uint64_t buddy_take_within(unsigned order, uint64_t first, uint64_t end)
{
    uint64_t low = (first + order_frames(order) - 1) >> order;
    uint64_t high = end >> order; /* blocks low .. high - 1 are candidates */
    if (low >= high)
        return NO_FRAME;
    if (order < GROUP_ORDER) {
        uint64_t pfn = within_groups(order, first, end);
        if (pfn != NO_FRAME) {
            buddy_carve_block(pfn, order, 0);
            return pfn;
        }
    }
    for (unsigned from = order < GROUP_ORDER ? GROUP_ORDER : order; from < BUDDY_ORDERS; from++) {
        unsigned above = from - order;
        uint64_t found = bittree_previous(&buddy.set[from], (high - 1) >> above);
        if (found == BITTREE_NONE || found < low >> above)
            continue;
        /* Of this free block, the highest part within the bounds. */
        uint64_t index = ((found + 1) << above) - 1;
        index = index < high ? index : high - 1;
        buddy_carve_block(index << order, order, from);
        return index << order;
    }
    return NO_FRAME;
}
