/* Free blocks: the masks of groups, and what buddy_blocks.c does with them. For the buddy alone. */
#ifndef QUIRE_MM_BUDDY_BLOCKS_H
#define QUIRE_MM_BUDDY_BLOCKS_H

#include "mm/frames/buddy_internal.h"

/* The mask of a group, 0 also where none was ever written. */
static inline uint64_t group_mask(uint64_t group)
{
    return chunk_ready(group * GROUP_FRAMES) ? buddy.mask[group] : 0;
}

/* Of a block of an order below GROUP_ORDER, in its group's mask. */
static inline uint64_t mask_of(uint64_t pfn, unsigned order)
{
    return (BIT(order_frames(order)) - 1) << (pfn % GROUP_FRAMES);
}

/* From the first frames of the free blocks of one order to those of the next. */
static inline uint64_t next_starts(uint64_t starts, unsigned order)
{
    static const uint64_t aligned[GROUP_ORDER - 1] = {
        UINT64_C(0x5555555555555555), UINT64_C(0x1111111111111111), UINT64_C(0x0101010101010101),
        UINT64_C(0x0001000100010001), UINT64_C(0x0000000100000001),
    };
    return starts & starts >> order_frames(order) & aligned[order];
}

/* The first frames of all aligned runs of 2^order free frames, whether or not part of larger ones.
 */
static inline uint64_t starts_of(uint64_t mask, unsigned order)
{
    for (unsigned o = 0; o < order; o++)
        mask = next_starts(mask, o);
    return mask;
}

/* Those of them that are free blocks, not part of larger ones, given the starts of the next order.
 */
static inline uint64_t blocks_among(uint64_t starts, uint64_t larger, unsigned order)
{
    return starts & ~(larger | larger << order_frames(order));
}

/* The order of the largest free block of a mask that is not 0. Without a branch: it is asked for
 * each block given back, and no pattern would predict the answer. */
static inline unsigned largest_in(uint64_t mask)
{
    uint64_t m1 = next_starts(mask, 0), m2 = next_starts(m1, 1), m3 = next_starts(m2, 2);
    uint64_t m4 = next_starts(m3, 3), m5 = next_starts(m4, 4);
    return (m1 != 0) + (m2 != 0) + (m3 != 0) + (m4 != 0) + (m5 != 0);
}

/* ---- Sets and masks ---- */

/* A member of a set: a group with a block of that order, or a block. */
struct member {
    unsigned order;
    uint64_t index;
};

/* The highest member of the lowest set, orders `order` to `limit`, in which there is one that is
 * not low; or a low one if there are no others. False when there are none at all. */
bool buddy_choose(unsigned order, unsigned limit, struct member *out);
bool buddy_is_low(const struct member *member);

/* Changes a group's mask, neither value being all ones, and moves it to the set where it belongs.
 */
void buddy_change_mask(uint64_t group, uint64_t before, uint64_t after);

/* Gives back frames of a group whose chunk is ready; a block; any frames. The first leaves
 * free_frames to the caller. */
void buddy_give_mask(uint64_t group, uint64_t given);
void buddy_give_block(uint64_t pfn, unsigned order);
void buddy_give_range(uint64_t first, uint64_t count);

/* The largest order of a block that starts at `first` and has at most `count` frames. */
unsigned buddy_largest_order(uint64_t first, uint64_t count);

/* Takes the order-`order` block at `pfn` out of the free block of order `from` that contains it. */
void buddy_carve_block(uint64_t pfn, unsigned order, unsigned from);

/* Takes a block, one within frames [first, end); NO_FRAME for none. */
uint64_t buddy_take_any(unsigned order);
uint64_t buddy_take_within(unsigned order, uint64_t first, uint64_t end);

/* Gives back a block of an order below GROUP_ORDER, as buddy_give_mask() does. Mostly the group's
 * largest free block stays what it was, since the one that this block is now part of is no larger:
 * then nothing but the mask changes. */
static inline __attribute__((always_inline)) void give_small(uint64_t pfn, unsigned order)
{
    uint64_t group = pfn >> GROUP_ORDER, before = buddy.mask[group];
    uint64_t after = before | mask_of(pfn, order);
    uint64_t next = order_frames(largest_in(before) + 1); /* frames, up to all 64 */
    uint64_t run = (~UINT64_C(0) >> (64 - next)) << (align_down(pfn, next) % GROUP_FRAMES);
    if (before != 0 && (run & ~after) != 0)
        buddy.mask[group] = after;
    else
        buddy_give_mask(group, mask_of(pfn, order));
}

#endif
