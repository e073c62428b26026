/*
 * The buddy allocator. See mm/buddy.h for what it promises.
 *
 * Free state, orders 6 to 18: for each order one set of free blocks (mm/bittree.h), indexed by block
 * number. A free block stands in exactly one set, at the largest order that it can have: two free
 * buddies are always merged. So a block's buddy is the neighbouring bit of the same word, a merge clears
 * it and goes one order up, and a split sets the halves that are left over on the way down.
 *
 * Orders 0 to 5: 64 frames are a group, and one word, its mask, says which of them are free. Which free
 * blocks there are is read off the mask: to give back is to set bits and to split is to clear them,
 * and merging is nothing at all. The set of an order below 6 holds the groups whose largest free block
 * has that order. A group that becomes free as a whole leaves: its mask is 0, and it is an order-6 block.
 *
 *    mask  1100 1111 0000 0000 ...   largest block: order 2, so the group stands in set 2;
 *                                    an order-1 request takes the pair, not half of the four
 *
 * Records: a frame's record is not 0 exactly when a *live* block starts there: one in use, reserved,
 * or in the stack of a per-CPU cache. That no stale record can lie inside a live block, so that neither a later frame
 * of a block nor a free frame can ever pass for a block's head, is seen by induction over the changes:
 *  - A 2 MiB chunk's page of 512 records, and its 8 masks, are zeroed before the first of them is
 *    written or read; the set `ready` says which were. At that moment no block starts there.
 *  - A block becomes live out of free frames alone, where all records are 0 (or their page is not
 *    ready), and only its first frame's record is written. Live blocks are disjoint, so this is so
 *    until it is given back, and then that one record becomes 0 again.
 *  - Between in use and cached, the record changes from one non-zero value to another.
 * The live block that covers a frame, if there is one, therefore starts at one of the 19 first frames
 * that aligned blocks around it can have, and is the only one of them whose record reaches that far.
 *
 * Caches: of single frames a CPU holds the free ones of one group by their mask, which it took out of the
 * group's, with their records still 0: to take one clears a bit, and to give one of the same group back
 * sets it again. Frames of other groups, and blocks of other orders, go on a stack for each order.
 *
 * CPUs: each has caches of small blocks, a share of the quotas, and counters, all in its own struct
 * cpu, which it uses without a lock and without an atomic read-modify-write. Everything else belongs to
 * the holder of `lock`. That holder may also work in another CPU's struct after buddy_stop_others(): a bit in
 * `closed` keeps the owner out (it goes for the lock instead), `busy` shows it inside, and the fence that
 * the embedding program supplies stands for the barrier that the owner does not execute between the
 * two. The owner itself works there with the lock held without further ado.
 *
 * Charging: what an owner has taken for a purpose is charged to both in the same units, frames. Charged
 * are those in use plus those leased to CPUs, which may hand them out without asking and refill with what
 * comes back; so one number changes when a block does, and exact counts are a sum over CPUs. Quotas bound
 * what is charged; leases are called in before a request is refused, and an owner beyond its quota
 * (which was lowered) has none.
 */
#include "mm/buddy_internal.h"

#include "lib/panic.h"
#include "lib/string.h"

struct buddy_state buddy __attribute__((aligned(128)));
struct account buddy_accounts[OWNER_LIMIT];
struct cpu buddy_cpus[BUDDY_CPUS];

const struct cache_shape buddy_cache_shape[CACHED_ORDERS] = {
    {0, 128, 6},  {128, 64, 5}, {192, 32, 4}, {224, 32, 4}, {256, 16, 3}, {272, 16, 3},
    {288, 16, 3}, {304, 16, 3}, {320, 8, 2},  {328, 8, 2},  {336, 8, 2},
};

static unsigned (*cpu_index)(void);
static void (*cpu_fence)(void);

static const struct buddy_watch *watcher;

/* There is one CPU, and it may enter its struct: the one thing that the shortest path asks. */
static bool alone_open;

static inline struct cpu *this_cpu_cache(void)
{
    unsigned index = cpu_index != NULL ? cpu_index() : 0;
    invariant(index < BUDDY_CPUS);
    struct cpu *cpu = &buddy_cpus[index];
    __asm__("" : "+r"(cpu)); /* a pointer from here on, not an index to be multiplied at each use */
    return cpu;
}

/* ---- CPUs ---- */

static inline void cpu_leave(struct cpu *cpu, bool alone)
{
    if (!alone)
        __atomic_store_n(&cpu->busy, 0, __ATOMIC_RELEASE);
}

/* Enters the CPU's own struct without the lock; false when it has to take that. While there is one CPU,
 * `alone`, nobody asks whether it is busy. */
static inline bool cpu_enter(struct cpu *cpu, bool alone)
{
    if (alone)
        return peek(alone_open);
    poke(cpu->busy, 1);
    __atomic_signal_fence(__ATOMIC_SEQ_CST);
    if (__atomic_load_n(&cpu->closed, __ATOMIC_ACQUIRE) == 0)
        return true;
    cpu_leave(cpu, false);
    return false;
}

/* What closes a CPU's struct when nobody works there. */
static unsigned closed_at_rest(void)
{
    return (buddy.pressed ? CLOSED_PRESSED : 0u) | (watcher != NULL ? CLOSED_WATCHED : 0u);
}

struct cpu *buddy_take_lock(void)
{
    struct cpu *self = this_cpu_cache();
    lock_take(&buddy.lock);
    for (; self >= &buddy_cpus[buddy.cpus]; buddy.cpus++) {
        poke(buddy_cpus[buddy.cpus].closed, closed_at_rest());
        poke(buddy_cpus[buddy.cpus].held_base, NO_FRAME);
    }
    return self;
}

static void set_closed(unsigned bits)
{
    for (unsigned i = 0; i < buddy.cpus; i++)
        __atomic_store_n(&buddy_cpus[i].closed, bits, __ATOMIC_RELEASE);
}

static void set_alone(void)
{
    poke(alone_open, cpu_index == NULL && closed_at_rest() == 0);
}

void buddy_drop_lock(void)
{
    bool pressed = buddy.free_frames < buddy.host_reserve;
    if (buddy.pressed != pressed) {
        buddy.pressed = pressed;
        set_closed(closed_at_rest());
        set_alone();
    }
    lock_drop(&buddy.lock);
}

void buddy_stop_others(const struct cpu *self)
{
    if (cpu_fence == NULL)
        return;
    set_closed(CLOSED_STOP);
    cpu_fence();
    for (unsigned i = 0; i < buddy.cpus; i++)
        while (&buddy_cpus[i] != self &&
               __atomic_load_n(&buddy_cpus[i].busy, __ATOMIC_ACQUIRE) != 0)
            __builtin_ia32_pause();
}

void buddy_resume_others(void)
{
    set_closed(closed_at_rest());
}

/* ---- Records ---- */

static void make_ready(uint64_t pfn)
{
    uint64_t chunk = pfn >> CHUNK_SHIFT;
    if (chunk_ready(pfn))
        return;
    memset(&frame_records[chunk * CHUNK_FRAMES], 0, CHUNK_FRAMES * sizeof(uint64_t));
    memset(&buddy.mask[chunk * CHUNK_GROUPS], 0, CHUNK_GROUPS * sizeof(uint64_t));
    bittree_set(&buddy.ready, chunk);
}

static void write_record(uint64_t pfn, uint64_t record)
{
    make_ready(pfn);
    poke(frame_records[pfn], record);
}

/* ---- Masks ---- */

/* Of a block of an order below GROUP_ORDER, in its group's mask. */
static inline uint64_t mask_of(uint64_t pfn, unsigned order)
{
    return (BIT(order_frames(order)) - 1) << (pfn % GROUP_FRAMES);
}

/* The first frames of all aligned runs of 2^order free frames, whether or not part of larger ones. */
static uint64_t starts_of(uint64_t mask, unsigned order)
{
    for (unsigned o = 0; o < order; o++)
        mask = next_starts(mask, o);
    return mask;
}

/* Those of them that are free blocks, not part of larger ones, given the starts of the next order. */
static uint64_t blocks_among(uint64_t starts, uint64_t larger, unsigned order)
{
    return starts & ~(larger | larger << order_frames(order));
}

/* ---- What covers a frame ---- */

/* The live block that covers a frame below buddy.frames. */
bool buddy_find_live(uint64_t pfn, uint64_t *first, uint64_t *record)
{
    for (unsigned order = 0; order < BUDDY_ORDERS; order++) {
        uint64_t head = align_down(pfn, order_frames(order));
        if (order > 0 && head == align_down(pfn, order_frames(order - 1)))
            continue; /* the same candidate as before */
        if (!chunk_ready(head))
            continue;
        uint64_t found = peek(frame_records[head]);
        if (found != 0 && pfn - head < order_frames(frame_record_order(found))) {
            *first = head;
            *record = found;
            return true;
        }
    }
    return false;
}

/* The free block that covers a frame. */
bool buddy_find_free(uint64_t pfn, uint64_t *first, unsigned *order)
{
    uint64_t mask = group_mask(pfn >> GROUP_ORDER);
    for (unsigned o = GROUP_ORDER; o < BUDDY_ORDERS; o++)
        if (bittree_test(&buddy.set[o], pfn >> o)) {
            *first = align_down(pfn, order_frames(o));
            *order = o;
            return true;
        }
    for (unsigned o = GROUP_ORDER; o-- > 0;) {
        uint64_t head = align_down(pfn, order_frames(o));
        if ((mask & mask_of(head, o)) == mask_of(head, o)) {
            *first = head;
            *order = o;
            return true;
        }
    }
    return false;
}

/* Is the frame one of those that a CPU holds by mask? `*passing`: another CPU has its group, and may be
 * taking or giving back this very frame. */
static bool find_held(uint64_t pfn, bool *passing)
{
    const struct cpu *self = this_cpu_cache();
    for (unsigned i = 0; i < buddy.cpus; i++) {
        uint64_t bit = pfn ^ buddy_cpus[i].held_base;
        if (bit >= GROUP_FRAMES)
            continue;
        if ((__atomic_load_n(&buddy_cpus[i].held, __ATOMIC_ACQUIRE) >> bit & 1) != 0)
            return true;
        *passing = *passing || &buddy_cpus[i] != self;
    }
    return false;
}

static bool find_block(uint64_t pfn, uint64_t *first, uint64_t *record)
{
    unsigned order;
    bool passing = false, unused = false;
    if (buddy_find_live(pfn, first, record))
        return true;
    if (buddy_find_free(pfn, first, &order)) {
        *record = frame_record(FRAME_FREE, order, PURPOSE_FREE, OWNER_NONE);
        return true;
    }
    bool held = find_held(pfn, &passing);
    if (!held && passing) {
        buddy_stop_others(this_cpu_cache());
        held = find_held(pfn, &unused);
        bool live = !held && buddy_find_live(pfn, first, record);
        buddy_resume_others();
        if (live)
            return true;
    }
    *first = pfn;
    *record = cached_record(0);
    return held;
}

/* The lowest live block's first frame in [from, end), NO_FRAME for none. */
uint64_t buddy_next_live(uint64_t from, uint64_t end)
{
    uint64_t pfn = from;
    while (pfn < end) {
        uint64_t chunk = bittree_next(&buddy.ready, pfn >> CHUNK_SHIFT);
        if (chunk == BITTREE_NONE)
            break;
        if (chunk > pfn >> CHUNK_SHIFT)
            pfn = chunk << CHUNK_SHIFT;
        uint64_t stop = (chunk + 1) << CHUNK_SHIFT;
        for (stop = stop < end ? stop : end; pfn < stop; pfn++)
            if (peek(frame_records[pfn]) != 0)
                return pfn;
    }
    return NO_FRAME;
}

/* The lowest free frame that is at or above `from` and does not belong to a block of 64 or more frames
 * that starts below it; NO_FRAME for none. */
uint64_t buddy_next_free(uint64_t from)
{
    uint64_t group = from >> GROUP_ORDER, lowest = NO_FRAME;
    uint64_t mask = from < buddy.frames ? group_mask(group) : 0;
    mask &= ~UINT64_C(0) << (from % GROUP_FRAMES);
    if (mask != 0)
        return from - from % GROUP_FRAMES + lowest_bit(mask);
    for (unsigned order = 0; order < BUDDY_ORDERS; order++) {
        unsigned shift = order < GROUP_ORDER ? GROUP_ORDER : order;
        uint64_t index = (from + order_frames(shift) - 1) >> shift;
        uint64_t member = bittree_next(&buddy.set[order], index);
        if (member == BITTREE_NONE)
            continue;
        uint64_t frame = member << shift;
        if (order < GROUP_ORDER)
            frame += lowest_bit(buddy.mask[member]);
        lowest = frame < lowest ? frame : lowest;
    }
    return lowest;
}

/* The lowest frame at or above `from` that a CPU holds by mask, NO_FRAME for none. */
static uint64_t next_held(uint64_t from)
{
    uint64_t lowest = NO_FRAME;
    for (unsigned i = 0; i < buddy.cpus; i++) {
        uint64_t base = buddy_cpus[i].held_base, mask = peek(buddy_cpus[i].held);
        if (from > base)
            mask = from - base < GROUP_FRAMES ? mask & ~UINT64_C(0) << (from - base) : 0;
        if (mask != 0 && base + lowest_bit(mask) < lowest)
            lowest = base + lowest_bit(mask);
    }
    return lowest;
}

/* Is any frame of [first, first + count) free, cached, in use or reserved? */
static bool any_known(uint64_t first, uint64_t count)
{
    uint64_t head, record;
    return find_block(first, &head, &record) || buddy_next_free(first) < first + count ||
           next_held(first) < first + count || buddy_next_live(first, first + count) != NO_FRAME;
}

/* ---- The sets of free blocks ---- */

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

/* Changes a group's mask, neither value being all ones, and moves it to the set where it belongs. */
static void change_mask(uint64_t group, uint64_t before, uint64_t after)
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

/* Puts a block of 64 frames or more into the sets, merged with its buddy for as long as that is free. */
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
static void give_mask(uint64_t group, uint64_t given)
{
    const uint64_t even = UINT64_C(0x5555555555555555);
    uint64_t before = buddy.mask[group], after = before | given;
    uint64_t buddies = (given & even) << 1 | (given >> 1 & even);
    if (before != 0 && (after & buddies) == 0) {
        buddy.mask[group] = after; /* pairs with nothing, so the largest block is what it was */
    } else if (after != ~UINT64_C(0)) {
        change_mask(group, before, after);
    } else {
        change_mask(group, before, 0);
        give_large(group << GROUP_ORDER, GROUP_ORDER);
    }
}

static void give_block(uint64_t pfn, unsigned order)
{
    buddy.free_frames += order_frames(order);
    if (order >= GROUP_ORDER) {
        give_large(pfn, order);
        return;
    }
    make_ready(pfn);
    give_mask(pfn >> GROUP_ORDER, mask_of(pfn, order));
}

/* Takes the order-`order` block at `pfn` out of the free block of order `from` that contains it. */
static void carve_block(uint64_t pfn, unsigned order, unsigned from)
{
    uint64_t group = pfn >> GROUP_ORDER;
    buddy.free_frames -= order_frames(order);
    if (from < GROUP_ORDER) {
        change_mask(group, buddy.mask[group], buddy.mask[group] & ~mask_of(pfn, order));
        return;
    }
    set_remove(from, pfn >> from);
    for (; from > order && from > GROUP_ORDER; buddy.splits++) {
        from--;
        set_add(from, (pfn >> from) ^ 1);
    }
    if (order < GROUP_ORDER) {
        make_ready(pfn);
        change_mask(group, 0, ~mask_of(pfn, order));
    }
}

/* The largest order of a block that starts at `first` and has at most `count` frames. */
static unsigned largest_order(uint64_t first, uint64_t count)
{
    unsigned order = highest_bit(count);
    if (first != 0 && lowest_bit(first) < order)
        order = lowest_bit(first);
    return order < BUDDY_MAX_ORDER ? order : BUDDY_MAX_ORDER;
}

static void give_range(uint64_t first, uint64_t count)
{
    while (count > 0) {
        unsigned order = largest_order(first, count);
        give_block(first, order);
        first += order_frames(order);
        count -= order_frames(order);
    }
}

/* A member of a set: a group with a block of that order, or a block. */
struct member {
    unsigned order;
    uint64_t index;
};

static bool is_low(const struct member *member)
{
    unsigned shift = member->order < GROUP_ORDER ? GROUP_ORDER : member->order;
    return (member->index + 1) << shift <= LOW_FRAMES;
}

/* The highest member of the lowest set in which there are blocks of the order, and are not low; or
 * low ones if there are no others. False when there are none at all. `limit` is the highest order
 * to look for. */
static bool choose(unsigned order, unsigned limit, struct member *out)
{
    bool found = false;
    uint32_t open = buddy.open_orders & (uint32_t)BITS(limit, order);
    for (; open != 0; open &= open - 1) {
        unsigned o = lowest_bit(open);
        struct member member = {o, bittree_last(&buddy.set[o])};
        bool low = is_low(&member);
        if (!low || !found)
            *out = member;
        found = true;
        if (!low)
            break;
    }
    return found;
}

/* The highest part of a mask that can serve an order: of the smallest free block that is large enough. */
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

static uint64_t take_any(unsigned order)
{
    struct member member;
    uint64_t pfn;
    if (!choose(order, BUDDY_MAX_ORDER, &member))
        return NO_FRAME;
    if (member.order < GROUP_ORDER)
        pfn = member.index * GROUP_FRAMES + best_start(buddy.mask[member.index], order);
    else
        pfn = ((member.index + 1) << member.order) - order_frames(order);
    carve_block(pfn, order, member.order);
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

/* The same in any group: the one at either end may be within the bounds in part, those in between are
 * so as a whole, and any member of the sets will do. */
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
static uint64_t take_within(unsigned order, uint64_t first, uint64_t end)
{
    uint64_t low = (first + order_frames(order) - 1) >> order;
    uint64_t high = end >> order; /* blocks low .. high - 1 are candidates */
    if (low >= high)
        return NO_FRAME;
    if (order < GROUP_ORDER) {
        uint64_t pfn = within_groups(order, first, end);
        if (pfn != NO_FRAME) {
            carve_block(pfn, order, 0);
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
        carve_block(index << order, order, from);
        return index << order;
    }
    return NO_FRAME;
}

/* ---- Caches ---- */

static uint64_t cached_frames_of(const struct cpu *cpu)
{
    uint64_t frames = count_bits(peek(cpu->held));
    for (unsigned order = 0; order < CACHED_ORDERS; order++)
        frames += (uint64_t)peek(cpu->count[order]) << order;
    return frames;
}

static uint64_t cached_frames(void)
{
    uint64_t frames = 0;
    for (unsigned i = 0; i < buddy.cpus; i++)
        frames += cached_frames_of(&buddy_cpus[i]);
    return frames;
}

static inline void cache_push(struct cpu *cpu, unsigned order, uint64_t pfn)
{
    uint32_t count = cpu->count[order];
    cpu->slot[buddy_cache_shape[order].first + count] = pfn;
    poke(cpu->count[order], count + 1);
}

static inline uint64_t cache_pop(struct cpu *cpu, unsigned order)
{
    uint32_t count = cpu->count[order] - 1;
    uint64_t pfn = cpu->slot[buddy_cache_shape[order].first + count];
    poke(cpu->count[order], count);
    /* Fails when two CPUs freed one block at the same moment, which no check can see in time. */
    invariant(peek(frame_records[pfn]) == cached_record(order));
    return pfn;
}

/* Takes a frame that the CPU holds by mask, which must not be empty. The record is written before the bit
 * goes, and erased after it comes, so that who looks on sees the frame as one or the other. */
static inline uint64_t held_take(struct cpu *cpu, uint64_t record)
{
    uint64_t mask = peek(cpu->held), pfn = peek(cpu->held_base) + lowest_bit(mask);
    invariant(peek(frame_records[pfn]) == 0);
    poke(frame_records[pfn], record);
    __atomic_store_n(&cpu->held, mask & (mask - 1), __ATOMIC_RELEASE);
    return pfn;
}

static inline void held_give(struct cpu *cpu, uint64_t pfn)
{
    poke(cpu->held, peek(cpu->held) | BIT(pfn % GROUP_FRAMES));
    __atomic_store_n(&frame_records[pfn], 0, __ATOMIC_RELEASE);
}

static void held_spill(struct cpu *cpu)
{
    uint64_t mask = cpu->held;
    if (mask == 0)
        return;
    poke(cpu->held, 0);
    buddy.free_frames += count_bits(mask);
    give_mask(cpu->held_base >> GROUP_ORDER, mask);
}

/* Gives back the `n` blocks of a stack's bottom. They may lie anywhere, so their masks are on the way before
 * the first is needed. */
static inline __attribute__((always_inline)) void spill(const uint64_t *slot, unsigned n,
                                                        unsigned order)
{
    for (unsigned i = 0; i < n; i++)
        __builtin_prefetch(&buddy.mask[slot[i] >> GROUP_ORDER], 1);
    for (unsigned i = 0; i < n;) {
        uint64_t pfn = slot[i], group = pfn >> GROUP_ORDER, given = 0;
        do {
            invariant(peek(frame_records[pfn]) == cached_record(order));
            poke(frame_records[pfn], 0);
            given |= mask_of(pfn, order);
            i++;
        } while (i < n && (pfn = slot[i]) >> GROUP_ORDER == group);
        give_mask(group, given);
    }
    buddy.free_frames += (uint64_t)n << order;
}

/* Moves the `n` blocks that have been in the cache for longest to the sets. */
static void cache_spill(struct cpu *cpu, unsigned order, unsigned n)
{
    uint64_t *slot = &cpu->slot[buddy_cache_shape[order].first];
    unsigned rest = cpu->count[order] - n;
    if (order == 0) {
        spill(slot, n, 0);
    } else if (order < GROUP_ORDER) {
        spill(slot, n, order);
    } else {
        for (unsigned i = 0; i < n; i++) {
            invariant(peek(frame_records[slot[i]]) == cached_record(order));
            poke(frame_records[slot[i]], 0);
            give_block(slot[i], order);
        }
    }
    memmove(slot, slot + n, rest * sizeof(*slot));
    poke(cpu->count[order], rest);
}

/* Puts the blocks of [first, end) into the cache, the lowest on top. */
static void cache_put(struct cpu *cpu, unsigned order, uint64_t first, uint64_t end)
{
    uint64_t *slot = &cpu->slot[buddy_cache_shape[order].first + cpu->count[order]];
    uint64_t record = cached_record(order), blocks = (end - first) >> order;
    poke(cpu->count[order], cpu->count[order] + (uint32_t)blocks);
    for (uint64_t pfn = end; pfn > first;) {
        pfn -= order_frames(order);
        make_ready(pfn);
        poke(frame_records[pfn], record);
        *slot++ = pfn;
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
        poke(frame_records[pfn], cached_record(order));
        cache_push(cpu, order, pfn);
    }
    change_mask(group, mask, mask & ~taken);
    buddy.free_frames -= (uint64_t)n << order;
    return n;
}

/* Fills an empty cache: from blocks that are fragments already, and only where there are none by
 * splitting one; in groups, fragment is whatever the group has. */
static void cache_fill(struct cpu *cpu, unsigned order)
{
    unsigned batch_order = buddy_cache_shape[order].batch_order, n = 0;
    unsigned fragments = order < GROUP_ORDER ? GROUP_ORDER - 1 : order;
    struct member member;
    while (n < 1u << batch_order && choose(order, fragments, &member) && !is_low(&member)) {
        if (order < GROUP_ORDER) {
            n += cache_group(cpu, order, member.index, (1u << batch_order) - n);
        } else {
            carve_block(member.index << order, order, order);
            cache_put(cpu, order, member.index << order, (member.index + 1) << order);
            n++;
        }
    }
    if (n > 0 || !choose(order, BUDDY_MAX_ORDER, &member))
        return;
    if (member.order < GROUP_ORDER) {
        cache_group(cpu, order, member.index, 1u << batch_order);
        return;
    }
    unsigned whole = order + batch_order < member.order ? order + batch_order : member.order;
    uint64_t end = (member.index + 1) << member.order, first = end - order_frames(whole);
    carve_block(first, whole, member.order);
    cache_put(cpu, order, first, end);
}

/* Holds all the free frames of a group that has some: of fragments, or of a block that is split for it.
 * Nothing was held. False when no frame is free. */
static bool held_fill(struct cpu *cpu)
{
    struct member member;
    if (!choose(0, BUDDY_MAX_ORDER, &member))
        return false;
    bool whole = member.order >= GROUP_ORDER;
    uint64_t group = member.index, mask = ~UINT64_C(0);
    if (whole) {
        group = (((member.index + 1) << member.order) >> GROUP_ORDER) - 1;
        carve_block(group << GROUP_ORDER, GROUP_ORDER, member.order);
        make_ready(group << GROUP_ORDER);
    } else {
        mask = buddy.mask[group];
        change_mask(group, mask, 0);
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
        cache_spill(cpu, order, cpu->count[order]);
}

/* Empties every cache. False when there was nothing in them. */
static bool drain_all(struct cpu *self)
{
    uint64_t own = cached_frames_of(self);
    drain_cpu(self);
    if (cached_frames() == 0)
        return own > 0;
    buddy_stop_others(self);
    for (unsigned i = 0; i < buddy.cpus; i++)
        drain_cpu(&buddy_cpus[i]);
    buddy_resume_others();
    return true;
}

/* ---- Charging ---- */

/* Owner and purpose as they stand in a record; never 0 for those that can own. */
static inline uint64_t lease_key(enum frame_purpose purpose, owner_t owner)
{
    return frame_record(FRAME_FREE, 0, purpose, owner);
}

static inline uint64_t key_of_record(uint64_t record)
{
    return record & (FRAME_PURPOSE_MASK | FRAME_OWNER_MASK);
}

static inline struct lease *lease_of(struct cpu *cpu, uint64_t purpose, uint64_t owner)
{
    return &cpu->lease[(purpose ^ owner) % LEASES];
}

static inline struct lease *lease_slot(struct cpu *cpu, uint64_t key)
{
    return lease_of(cpu, key >> FRAME_PURPOSE_SHIFT, key >> FRAME_OWNER_SHIFT);
}

/* Changes what is charged by `frames`, modulo 2^64. */
static void add_charge(uint64_t key, uint64_t frames)
{
    buddy_accounts[frame_record_owner(key)].charged += frames;
    buddy.charged_for[frame_record_purpose(key)] += frames;
}

static void lease_return(struct lease *lease)
{
    add_charge(lease->key, -lease->left);
    poke(lease->left, 0);
    poke(lease->key, 0);
}

static bool is_leased_to(const struct cpu *cpu, owner_t owner)
{
    for (unsigned n = 0; n < LEASES; n++)
        if (frame_record_owner(peek(cpu->lease[n].key)) == owner)
            return true;
    return false;
}

/* Calls in every lease of this owner's quota, an empty one too. */
static void recall_leases(struct cpu *self, owner_t owner)
{
    bool others = false;
    for (unsigned i = 0; i < buddy.cpus; i++)
        others = others || (&buddy_cpus[i] != self && is_leased_to(&buddy_cpus[i], owner));
    if (others)
        buddy_stop_others(self);
    for (unsigned i = 0; i < buddy.cpus; i++)
        for (unsigned n = 0; n < LEASES && (others || &buddy_cpus[i] == self); n++)
            if (frame_record_owner(buddy_cpus[i].lease[n].key) == owner)
                lease_return(&buddy_cpus[i].lease[n]);
    if (others)
        buddy_resume_others();
}

/* Frames that may still be charged to an owner. */
static uint64_t quota_left(owner_t owner)
{
    uint64_t quota = quota_of(owner), charged = buddy_accounts[owner].charged;
    return quota > charged ? quota - charged : 0;
}

/* Gives the CPU a fresh lease, if the quota has room, so that what follows needs no lock. */
static void lease_renew(struct cpu *self, uint64_t key)
{
    owner_t owner = frame_record_owner(key);
    struct lease *lease = lease_slot(self, key);
    if (lease->key == key && lease->left >= LEASE_FRAMES / 2)
        return;
    lease_return(lease);
    if (buddy_accounts[owner].charged > quota_of(owner))
        return;
    uint64_t room = quota_left(owner), grant = room < LEASE_FRAMES ? room : LEASE_FRAMES;
    add_charge(key, grant);
    poke(lease->key, key);
    poke(lease->left, grant);
}

/* May so many frames be charged? If so, they are. */
static int charge(struct cpu *self, uint64_t key, uint64_t frames)
{
    owner_t owner = frame_record_owner(key);
    if (quota_left(owner) < frames) {
        recall_leases(self, owner);
        if (quota_left(owner) < frames)
            return E_QUOTA;
    }
    if (owner != OWNER_HOST && buddy.host_reserve > 0) {
        uint64_t available = buddy.free_frames + cached_frames();
        if (available < frames)
            return E_NOMEM;
        if (available - frames < buddy.host_reserve)
            return E_QUOTA;
    }
    add_charge(key, frames);
    return E_OK;
}

/* ---- Taking ---- */

static bool can_own(enum frame_purpose purpose, owner_t owner)
{
    return purpose > PURPOSE_FREE && purpose < PURPOSE_COUNT && owner != OWNER_NONE &&
           owner < OWNER_LIMIT;
}

/* One uncached request: any block within frames [first, end). */
static uint64_t take_block(struct cpu *self, unsigned order, uint64_t first, uint64_t end)
{
    bool anywhere = first == 0 && end >= buddy.frames;
    for (;;) {
        uint64_t pfn = NO_FRAME;
        if (anywhere)
            pfn = take_any(order);
        else if (first < LOW_FRAMES && end > LOW_FRAMES)
            pfn = take_within(order, LOW_FRAMES, end);
        if (pfn == NO_FRAME && !anywhere)
            pfn = take_within(order, first, end);
        if (pfn != NO_FRAME || !drain_all(self))
            return pfn;
    }
}

static uint64_t take_cached(struct cpu *self, unsigned order)
{
    do {
        if (order == 0 && (self->held != 0 || (self->count[0] == 0 && held_fill(self))))
            return held_take(self, cached_record(0));
        if (order > 0 && self->count[order] == 0)
            cache_fill(self, order);
        if (self->count[order] > 0)
            return cache_pop(self, order);
    } while (drain_all(self));
    return NO_FRAME;
}

/* Ends a request for which blocks were taken: for those who watch. */
static void note_taken(uint64_t pfn, uint64_t frames)
{
    if (watcher != NULL)
        watcher->taken(hpa_of_pfn(pfn), frames << PAGE_SHIFT);
}

static void note_freed(uint64_t pfn, uint64_t frames)
{
    if (watcher != NULL)
        watcher->freed(hpa_of_pfn(pfn), frames << PAGE_SHIFT);
}

/* The end of every request that was charged for, the lock held. */
static int finish_request(struct cpu *self, int error)
{
    if (error == E_OK)
        bump(self->allocations, 1);
    else
        buddy.failed++;
    buddy_drop_lock();
    return error;
}

/* The request for a block within frames [first, end) or, `cached`, for any, from this CPU's cache. */
static int alloc_locked(unsigned order, uint64_t first, uint64_t end, bool cached,
                        enum frame_purpose purpose, owner_t owner, hpa_t *out)
{
    if (order > BUDDY_MAX_ORDER || !can_own(purpose, owner))
        return E_INVAL;
    uint64_t key = lease_key(purpose, owner);
    struct cpu *self = buddy_take_lock();
    int error = charge(self, key, order_frames(order));
    if (error == E_OK) {
        uint64_t pfn = cached ? take_cached(self, order) : take_block(self, order, first, end);
        if (pfn != NO_FRAME) {
            write_record(pfn, frame_record(FRAME_USED, order, purpose, owner));
            note_taken(pfn, order_frames(order));
            *out = hpa_of_pfn(pfn);
            if (cached)
                lease_renew(self, key);
        } else {
            add_charge(key, -order_frames(order));
            error = E_NOMEM;
        }
    }
    return finish_request(self, error);
}

static __attribute__((noinline)) int alloc_slow(unsigned order, enum frame_purpose purpose,
                                                owner_t owner, hpa_t *out)
{
    return alloc_locked(order, 0, UINT64_MAX, order < CACHED_ORDERS, purpose, owner, out);
}

/* A hit in the CPU's cache. Whatever else it may be is alloc_slow()'s. */
static inline __attribute__((always_inline)) int alloc_on(struct cpu *self, bool alone,
                                                          unsigned order,
                                                          enum frame_purpose purpose, owner_t owner,
                                                          hpa_t *out)
{
    if (order < CACHED_ORDERS && (unsigned)purpose < PURPOSE_COUNT && cpu_enter(self, alone)) {
        /* A lease is only ever made out to those who can own, so to find one is to have checked. */
        uint64_t key = lease_key(purpose, owner), frames = order_frames(order), pfn = NO_FRAME;
        struct lease *lease = lease_of(self, purpose, owner);
        uint64_t record = key | frame_record(FRAME_USED, order, PURPOSE_FREE, OWNER_NONE);
        if (lease->key == key && lease->left >= frames) {
            if (order == 0 && self->held != 0) {
                pfn = held_take(self, record);
            } else if (self->count[order] > 0) {
                pfn = cache_pop(self, order);
                poke(frame_records[pfn], record);
            }
        }
        if (pfn != NO_FRAME) {
            poke(lease->left, lease->left - frames);
            bump(self->allocations, 1);
            cpu_leave(self, alone);
            *out = hpa_of_pfn(pfn);
            return E_OK;
        }
        cpu_leave(self, alone);
    }
    return alloc_slow(order, purpose, owner, out);
}

static __attribute__((noinline)) int alloc_on_this_cpu(unsigned order, enum frame_purpose purpose,
                                                       owner_t owner, hpa_t *out)
{
    return alloc_on(this_cpu_cache(), false, order, purpose, owner, out);
}

static __attribute__((noinline)) int alloc_alone(unsigned order, enum frame_purpose purpose,
                                                 owner_t owner, hpa_t *out)
{
    return alloc_on(&buddy_cpus[0], true, order, purpose, owner, out);
}

static __attribute__((noinline)) int alloc_traced(unsigned order, enum frame_purpose purpose,
                                                  owner_t owner, hpa_t *out, const void *caller)
{
    int error = cpu_index != NULL ? alloc_on_this_cpu(order, purpose, owner, out)
                                  : alloc_alone(order, purpose, owner, out);
    struct trace_point point = {TRACE_ALLOC, owner,   error, error ? 0 : out->v,
                                order,       purpose, caller};
    trace_hook(&point);
    return error;
}

int buddy_alloc(unsigned order, enum frame_purpose purpose, owner_t owner, hpa_t *out)
{
    if (trace_wanted(TRACE_ALLOC))
        return alloc_traced(order, purpose, owner, out, __builtin_return_address(0));
    /* What is asked for most, in a row of its own: a single frame, on the only CPU. */
    if (order == 0 && peek(alone_open) && (unsigned)purpose < PURPOSE_COUNT) {
        struct cpu *self = &buddy_cpus[0];
        uint64_t key = lease_key(purpose, owner);
        struct lease *lease = lease_of(self, purpose, owner);
        uint64_t left = lease->left;
        if (lease->key == key && left > 0 && self->held != 0) {
            uint64_t pfn = held_take(self, key | FRAME_USED);
            poke(lease->left, left - 1);
            bump(self->allocations, 1);
            *out = hpa_of_pfn(pfn);
            return E_OK;
        }
    }
    return cpu_index != NULL ? alloc_on_this_cpu(order, purpose, owner, out)
                             : alloc_alone(order, purpose, owner, out);
}

int buddy_alloc_within(unsigned order, uint64_t first, uint64_t last, enum frame_purpose purpose,
                       owner_t owner, hpa_t *out)
{
    /* Whole frames: the first at or above `first`, and the last that ends at or below `last`. */
    uint64_t first_frame = (first >> PAGE_SHIFT) + (is_aligned(first, PAGE_SIZE) ? 0 : 1);
    uint64_t end_frame = (last >> PAGE_SHIFT) + (is_aligned(last + 1, PAGE_SIZE) ? 1 : 0);
    if (first > last)
        return E_INVAL;
    end_frame = end_frame < buddy.frames ? end_frame : buddy.frames;
    return alloc_locked(order, first_frame, end_frame, false, purpose, owner, out);
}

int buddy_alloc_frames(uint64_t count, enum frame_purpose purpose, owner_t owner, hpa_t *out)
{
    if (count == 0 || count > order_frames(BUDDY_MAX_ORDER) || !can_own(purpose, owner))
        return E_INVAL;
    unsigned order = count == 1 ? 0 : highest_bit(count - 1) + 1;
    uint64_t key = lease_key(purpose, owner);
    struct cpu *self = buddy_take_lock();
    int error = charge(self, key, count);
    if (error == E_OK) {
        uint64_t pfn = take_block(self, order, 0, UINT64_MAX);
        if (pfn != NO_FRAME) {
            give_range(pfn + count, order_frames(order) - count);
            for (uint64_t i = 0; i < count; i++)
                write_record(pfn + i, frame_record(FRAME_USED, 0, purpose, owner));
            note_taken(pfn, count);
            *out = hpa_of_pfn(pfn);
        } else {
            add_charge(key, -count);
            error = E_NOMEM;
        }
    }
    error = finish_request(self, error);
    trace(TRACE_ALLOC, owner, error ? 0 : out->v, order, purpose, error);
    return error;
}

int buddy_alloc_at(hpa_t at, unsigned order, enum frame_purpose purpose, owner_t owner)
{
    uint64_t pfn = pfn_of(at), first;
    unsigned from;
    if (order > BUDDY_MAX_ORDER || !can_own(purpose, owner))
        return E_INVAL;
    if (!is_aligned(at.v, PAGE_SIZE << order))
        return E_ALIGN;
    if (pfn >= buddy.frames || order_frames(order) > buddy.frames - pfn)
        return E_RANGE;
    uint64_t key = lease_key(purpose, owner);
    struct cpu *self = buddy_take_lock();
    int error = charge(self, key, order_frames(order));
    if (error == E_OK) {
        /* Free frames of an aligned block are one free block or part of one, unless some are
         * cached. */
        bool found = buddy_find_free(pfn, &first, &from) && from >= order;
        if (!found && drain_all(self))
            found = buddy_find_free(pfn, &first, &from) && from >= order;
        if (found) {
            carve_block(pfn, order, from);
            write_record(pfn, frame_record(FRAME_USED, order, purpose, owner));
            note_taken(pfn, order_frames(order));
        } else {
            add_charge(key, -order_frames(order));
            error = E_EXIST;
        }
    }
    error = finish_request(self, error);
    trace(TRACE_ALLOC, owner, at.v, order, purpose, error);
    return error;
}

/* ---- Giving back ---- */

static int refuse(int error)
{
    switch (error) {
    case E_DOUBLE_FREE:
        buddy.refused_double++;
        break;
    case E_ORDER:
        buddy.refused_order++;
        break;
    case E_PERM:
        buddy.refused_owner++;
        break;
    case E_SHARED:
        buddy.refused_shared++;
        break;
    case E_STATE:
        buddy.refused_state++;
        break;
    default:
        buddy.refused_range++;
        break;
    }
    return error;
}

/* Is `head` the first frame of a block in use that belongs to `owner`? The lock is held. */
static int check_block(hpa_t head, owner_t owner, uint64_t *record)
{
    uint64_t pfn = pfn_of(head), first;
    if (!is_aligned(head.v, PAGE_SIZE))
        return E_ALIGN;
    if (pfn >= buddy.frames || !find_block(pfn, &first, record))
        return E_RANGE;
    switch (frame_record_state(*record)) {
    case FRAME_USED:
    case FRAME_SHARED:
        break;
    case FRAME_FREE:
    case FRAME_CACHED:
        return E_DOUBLE_FREE;
    default:
        return E_STATE;
    }
    if (frame_record_owner(*record) != owner)
        return E_PERM;
    return first == pfn ? E_OK : E_ORDER;
}

/* Gives back a block that check_block() has passed. */
static void free_locked(struct cpu *self, uint64_t pfn, uint64_t record)
{
    unsigned order = frame_record_order(record);
    add_charge(key_of_record(record), -order_frames(order));
    bump(self->frees, 1);
    note_freed(pfn, order_frames(order));
    if (order == 0 && (pfn ^ peek(self->held_base)) < GROUP_FRAMES) {
        held_give(self, pfn);
        lease_renew(self, key_of_record(record));
    } else if (order < CACHED_ORDERS) {
        if (self->count[order] == buddy_cache_shape[order].capacity)
            cache_spill(self, order, 1u << buddy_cache_shape[order].batch_order);
        poke(frame_records[pfn], cached_record(order));
        cache_push(self, order, pfn);
        lease_renew(self, key_of_record(record));
    } else {
        poke(frame_records[pfn], 0);
        give_block(pfn, order);
    }
}

/* The same of a block that is to be freed. */
static int check_free(hpa_t head, unsigned order, owner_t owner, uint64_t *record)
{
    int error = check_block(head, owner, record);
    if (error == E_OK && frame_record_state(*record) == FRAME_SHARED)
        error = E_SHARED;
    if (error == E_OK && frame_record_order(*record) != order)
        error = E_ORDER;
    return error;
}

static __attribute__((noinline)) int free_slow(hpa_t head, unsigned order, owner_t owner)
{
    uint64_t record;
    struct cpu *self = buddy_take_lock();
    int error = check_free(head, order, owner, &record);
    if (error == E_OK)
        free_locked(self, pfn_of(head), record);
    else
        refuse(error);
    buddy_drop_lock();
    return error;
}

/* Does a record say that a block in use of this order and owner starts here? */
static inline bool record_fits(uint64_t record, unsigned order, owner_t owner)
{
    return (record & (FRAME_STATE_MASK | FRAME_ORDER_MASK | FRAME_OWNER_MASK)) ==
           frame_record(FRAME_USED, order, PURPOSE_FREE, owner);
}

/* A block as its record says, into the CPU's cache. Whatever else it may be is free_slow()'s. */
static inline __attribute__((always_inline)) int free_on(struct cpu *self, bool alone, hpa_t head,
                                                         unsigned order, owner_t owner)
{
    uint64_t pfn = pfn_of(head);
    if (order >= CACHED_ORDERS || !is_aligned(head.v, PAGE_SIZE) || pfn >= buddy.frames ||
        !chunk_ready(pfn))
        return free_slow(head, order, owner);

    uint64_t record = peek(frame_records[pfn]), key = key_of_record(record);
    if (record_fits(record, order, owner) && cpu_enter(self, alone)) {
        struct lease *lease = lease_slot(self, key);
        bool held = order == 0 && (pfn ^ peek(self->held_base)) < GROUP_FRAMES;
        if (lease->key == key && (held || self->count[order] < buddy_cache_shape[order].capacity)) {
            if (held) {
                held_give(self, pfn);
            } else {
                poke(frame_records[pfn], cached_record(order));
                cache_push(self, order, pfn);
            }
            poke(lease->left, lease->left + order_frames(order));
            bump(self->frees, 1);
            cpu_leave(self, alone);
            return E_OK;
        }
        cpu_leave(self, alone);
    }
    return free_slow(head, order, owner);
}

static __attribute__((noinline)) int free_on_this_cpu(hpa_t head, unsigned order, owner_t owner)
{
    return free_on(this_cpu_cache(), false, head, order, owner);
}

static __attribute__((noinline)) int free_alone(hpa_t head, unsigned order, owner_t owner)
{
    return order == 0 ? free_on(&buddy_cpus[0], true, head, 0, owner)
                      : free_on(&buddy_cpus[0], true, head, order, owner);
}

static __attribute__((noinline)) int free_traced(hpa_t head, unsigned order, owner_t owner,
                                                 const void *caller)
{
    int error =
        cpu_index != NULL ? free_on_this_cpu(head, order, owner) : free_alone(head, order, owner);
    struct trace_point point = {TRACE_FREE, owner, error, head.v, order, 1, caller};
    trace_hook(&point);
    return error;
}

int buddy_free(hpa_t head, unsigned order, owner_t owner)
{
    if (trace_wanted(TRACE_FREE))
        return free_traced(head, order, owner, __builtin_return_address(0));
    struct cpu *self = &buddy_cpus[0];
    uint64_t pfn = pfn_of(head);
    /* As in buddy_alloc(). The records of a group that is held are ready. */
    if (order == 0 && peek(alone_open) && is_aligned(head.v, PAGE_SIZE) &&
        (pfn ^ peek(self->held_base)) < GROUP_FRAMES) {
        uint64_t record = peek(frame_records[pfn]);
        struct lease *lease = lease_of(self, record >> FRAME_PURPOSE_SHIFT, owner);
        if (record_fits(record, 0, owner) && lease->key == key_of_record(record)) {
            held_give(self, pfn);
            bump(lease->left, 1);
            bump(self->frees, 1);
            return E_OK;
        }
    }
    return cpu_index != NULL ? free_on_this_cpu(head, order, owner)
                             : free_alone(head, order, owner);
}

/* Frames of one group and with one key, whose records are erased already, on their way back. */
struct given {
    uint64_t group, mask, key;
    unsigned bits;   /* in the mask */
    unsigned frames; /* with this key and not yet discharged */
};

static void given_mask_flush(struct given *given)
{
    if (given->mask == 0)
        return;
    buddy.free_frames += given->bits;
    give_mask(given->group, given->mask);
    given->mask = 0;
    given->bits = 0;
}

static void given_flush(struct cpu *self, struct given *given)
{
    given_mask_flush(given);
    if (given->frames == 0)
        return;
    add_charge(given->key, -(uint64_t)given->frames);
    bump(self->frees, given->frames);
    given->frames = 0;
}

/* Erases the records at the head of a list, for as long as its frames are of the same group and key as those
 * before. Returns how many. */
static unsigned given_run(const hpa_t *frames, unsigned n, struct given *given)
{
    const uint64_t within = (GROUP_FRAMES - 1) << PAGE_SHIFT, expected = given->key | FRAME_USED;
    uint64_t *records = &frame_records[given->group << GROUP_ORDER], mask = given->mask;
    uint64_t base = given->group << (GROUP_ORDER + PAGE_SHIFT);
    unsigned i = 0;
    for (; i < n; i++) {
        uint64_t offset = frames[i].v - base, index = offset >> PAGE_SHIFT;
        if ((offset & ~within) != 0 || (peek(records[index]) & ~FRAME_PAYLOAD_MASK) != expected)
            break;
        poke(records[index], 0);
        mask |= BIT(index);
    }
    given->mask = mask;
    given->bits += i;
    given->frames += i;
    return i;
}

int buddy_free_frames(const hpa_t *frames, unsigned n, owner_t owner)
{
    struct given given = {.group = NO_FRAME};
    int result = E_OK;
    struct cpu *self = buddy_take_lock();
    for (unsigned i = 0; i < n; i++) {
        if (given.group != NO_FRAME && watcher == NULL)
            i += given_run(&frames[i], n - i, &given);
        if (i == n)
            break;
        uint64_t pfn = pfn_of(frames[i]), record;
        given_mask_flush(&given); /* what is asked now must see it */
        int error = check_free(frames[i], 0, owner, &record);
        if (error != E_OK) {
            refuse(error);
            result = result == E_OK ? error : result;
            continue;
        }
        if (key_of_record(record) != given.key)
            given_flush(self, &given);
        note_freed(pfn, 1);
        poke(frame_records[pfn], 0);
        given = (struct given){.group = pfn >> GROUP_ORDER,
                               .mask = BIT(pfn % GROUP_FRAMES),
                               .key = key_of_record(record),
                               .bits = 1,
                               .frames = given.frames + 1};
    }
    given_flush(self, &given);
    buddy_drop_lock();
    return result;
}

int buddy_share(hpa_t head, owner_t owner)
{
    uint64_t record;
    buddy_take_lock();
    int error = check_block(head, owner, &record);
    if (error == E_OK) {
        bool shared = frame_record_state(record) == FRAME_SHARED;
        uint64_t holders = shared ? (record >> FRAME_PAYLOAD_SHIFT) + 1 : 2;
        record &= ~(FRAME_PAYLOAD_MASK | FRAME_STATE_MASK);
        poke(frame_records[pfn_of(head)], record | FRAME_SHARED | holders << FRAME_PAYLOAD_SHIFT);
    } else {
        refuse(error);
    }
    buddy_drop_lock();
    return error;
}

int buddy_release(hpa_t head, unsigned order, owner_t owner, bool *last)
{
    uint64_t record;
    bool freed = false;
    struct cpu *self = buddy_take_lock();
    int error = check_block(head, owner, &record);
    if (error == E_OK && frame_record_order(record) != order)
        error = E_ORDER;
    if (error != E_OK) {
        refuse(error);
    } else if (frame_record_state(record) == FRAME_SHARED) {
        uint64_t holders = (record >> FRAME_PAYLOAD_SHIFT) - 1;
        record &= ~(FRAME_PAYLOAD_MASK | FRAME_STATE_MASK);
        record |= holders > 1 ? FRAME_SHARED | holders << FRAME_PAYLOAD_SHIFT : FRAME_USED;
        poke(frame_records[pfn_of(head)], record);
    } else {
        free_locked(self, pfn_of(head), record);
        freed = true;
    }
    buddy_drop_lock();
    if (last != NULL)
        *last = freed;
    return error;
}

void buddy_drain(void)
{
    drain_all(buddy_take_lock());
    buddy_drop_lock();
}

/* ---- Starting, and memory that arrives ---- */

static uint64_t frames_below(uint64_t ram_end)
{
    return ram_end > MAX_RAM_END ? 0 : (ram_end + PAGE_SIZE - 1) >> PAGE_SHIFT;
}

static uint64_t chunks_of(uint64_t frames)
{
    return (frames + CHUNK_FRAMES - 1) >> CHUNK_SHIFT;
}

/* Members that the set of an order can have: groups or blocks. */
static uint64_t members_of(uint64_t frames, unsigned order)
{
    unsigned shift = order < GROUP_ORDER ? GROUP_ORDER : order;
    return (frames + order_frames(shift) - 1) >> shift;
}

uint64_t buddy_metadata_size(uint64_t ram_end)
{
    uint64_t frames = frames_below(ram_end);
    if (frames == 0)
        return 0;
    uint64_t words = chunks_of(frames) * CHUNK_GROUPS + bittree_words(chunks_of(frames));
    for (unsigned order = 0; order < BUDDY_ORDERS; order++)
        words += bittree_words(members_of(frames, order));
    return chunks_of(frames) * PAGE_SIZE + align_up(words * sizeof(uint64_t), PAGE_SIZE);
}

int buddy_init(void *metadata, uint64_t metadata_size, uint64_t ram_end)
{
    uint64_t frames = frames_below(ram_end);
    if (frames == 0)
        return E_RANGE;
    if (!is_aligned((uint64_t)(uintptr_t)metadata, PAGE_SIZE))
        return E_ALIGN;
    if (metadata_size < buddy_metadata_size(ram_end))
        return E_NOMEM;
    if (buddy.frames != 0) { /* not the first start: a hosted test */
        memset(&buddy, 0, sizeof(buddy));
        memset(buddy_cpus, 0, sizeof(buddy_cpus));
        memset(buddy_accounts, 0, sizeof(buddy_accounts));
    }
    frame_records = metadata;
    buddy.mask = frame_records + chunks_of(frames) * CHUNK_FRAMES;
    uint64_t *words = buddy.mask + chunks_of(frames) * CHUNK_GROUPS;
    words = bittree_init(&buddy.ready, words, chunks_of(frames), UINT64_MAX);
    for (unsigned order = 0; order < BUDDY_ORDERS; order++)
        words = bittree_init(&buddy.set[order], words, members_of(frames, order), EAGER_WORDS);
    buddy.frames = frames;
    set_alone();
    return E_OK;
}

int buddy_set_cpus(unsigned (*index)(void), void (*fence)(void))
{
    if ((index == NULL) != (fence == NULL))
        return E_INVAL;
    cpu_index = index;
    cpu_fence = fence;
    set_alone();
    return E_OK;
}

void buddy_set_watch(const struct buddy_watch *watch)
{
    buddy_take_lock();
    watcher = watch;
    set_closed(closed_at_rest());
    set_alone();
    buddy_drop_lock();
}

static int check_range(hpa_t base, uint64_t size)
{
    if (size == 0)
        return E_INVAL;
    if (!is_aligned(base.v, PAGE_SIZE) || !is_aligned(size, PAGE_SIZE))
        return E_ALIGN;
    if (pfn_of(base) >= buddy.frames || size >> PAGE_SHIFT > buddy.frames - pfn_of(base))
        return E_RANGE;
    return E_OK;
}

int buddy_add(hpa_t base, uint64_t size)
{
    uint64_t first = pfn_of(base), count = size >> PAGE_SHIFT;
    int error = check_range(base, size);
    if (error != E_OK)
        return error;
    buddy_take_lock();
    if (any_known(first, count)) {
        error = E_EXIST;
    } else {
        give_range(first, count);
        buddy.total += count;
    }
    buddy_drop_lock();
    return error;
}

int buddy_record(hpa_t base, uint64_t size, enum frame_state state, enum frame_purpose purpose,
                 owner_t owner)
{
    uint64_t first = pfn_of(base), count = size >> PAGE_SHIFT;
    int error = check_range(base, size);
    if (error != E_OK)
        return error;
    if ((state != FRAME_USED && state != FRAME_RESERVED) ||
        !can_own(purpose, state == FRAME_RESERVED && owner == OWNER_NONE ? OWNER_HOST : owner))
        return E_INVAL;
    struct cpu *self = buddy_take_lock();
    if (any_known(first, count)) {
        error = E_EXIST;
    } else {
        for (uint64_t pfn = first, left = count; left > 0;) {
            unsigned order = state == FRAME_RESERVED ? largest_order(pfn, left) : 0;
            write_record(pfn, frame_record(state, order, purpose, owner));
            pfn += order_frames(order);
            left -= order_frames(order);
        }
        buddy.total += count;
        buddy.reserved += state == FRAME_RESERVED ? count : 0;
        add_charge(lease_key(purpose, owner), count);
        if (buddy_accounts[owner].charged > quota_of(owner))
            recall_leases(self, owner);
    }
    buddy_drop_lock();
    return error;
}

/* ---- Quotas ---- */

int buddy_set_quota(owner_t owner, uint64_t frames)
{
    if (owner == OWNER_NONE || owner >= OWNER_LIMIT)
        return E_INVAL;
    recall_leases(buddy_take_lock(),
                  owner); /* what is leased could be taken beyond a smaller quota */
    buddy_accounts[owner].forbidden = UINT64_MAX - frames;
    buddy_drop_lock();
    return E_OK;
}

void buddy_set_reserve(uint64_t frames)
{
    buddy_take_lock();
    buddy.host_reserve = frames;
    buddy_drop_lock();
}

uint64_t buddy_quota(owner_t owner)
{
    if (owner >= OWNER_LIMIT)
        return 0;
    buddy_take_lock();
    uint64_t quota = quota_of(owner);
    buddy_drop_lock();
    return quota;
}

/* ---- Looking ---- */

/* Frames in leases whose key has these bits under the mask. */
static uint64_t leased(uint64_t mask, uint64_t bits)
{
    uint64_t frames = 0;
    for (unsigned i = 0; i < buddy.cpus; i++)
        for (unsigned n = 0; n < LEASES; n++)
            if ((peek(buddy_cpus[i].lease[n].key) & mask) == bits)
                frames += peek(buddy_cpus[i].lease[n].left);
    return frames;
}

static uint64_t owner_frames(owner_t owner)
{
    return buddy_accounts[owner].charged -
           leased(FRAME_OWNER_MASK, frame_record(FRAME_FREE, 0, PURPOSE_FREE, owner));
}

uint64_t buddy_used_frames(enum frame_purpose purpose)
{
    return buddy.charged_for[purpose] -
           leased(FRAME_PURPOSE_MASK, frame_record(FRAME_FREE, 0, purpose, OWNER_NONE));
}

uint64_t buddy_owner_frames(owner_t owner)
{
    if (owner >= OWNER_LIMIT)
        return 0;
    buddy_take_lock();
    uint64_t frames = owner_frames(owner);
    buddy_drop_lock();
    return frames;
}

/* Adds the free blocks below GROUP_ORDER, which are only seen in the masks. */
static void count_small(uint64_t count[GROUP_ORDER])
{
    for (unsigned set = 0; set < GROUP_ORDER; set++) {
        uint64_t group = bittree_next(&buddy.set[set], 0);
        for (; group != BITTREE_NONE; group = bittree_next(&buddy.set[set], group + 1)) {
            uint64_t starts = buddy.mask[group];
            for (unsigned order = 0; order <= set; order++) {
                uint64_t larger = order < set ? next_starts(starts, order) : 0;
                count[order] += count_bits(blocks_among(starts, larger, order));
                starts = larger;
            }
        }
    }
}

void buddy_stats(struct buddy_stats *out)
{
    buddy_take_lock();
    *out = (struct buddy_stats){
        .total_frames = buddy.total,
        .free_frames = buddy.total,
        .cached_frames = cached_frames(),
        .reserved_frames = buddy.reserved,
        .failed = buddy.failed,
        .splits = buddy.splits,
        .merges = buddy.merges,
        .refused_double = buddy.refused_double,
        .refused_order = buddy.refused_order,
        .refused_owner = buddy.refused_owner,
        .refused_range = buddy.refused_range,
        .refused_shared = buddy.refused_shared,
        .refused_state = buddy.refused_state,
    };
    count_small(out->free_blocks);
    for (unsigned order = GROUP_ORDER; order < BUDDY_ORDERS; order++)
        out->free_blocks[order] = buddy.members[order];
    for (unsigned purpose = 0; purpose < PURPOSE_COUNT; purpose++) {
        out->by_purpose[purpose] = buddy_used_frames((enum frame_purpose)purpose);
        out->free_frames -= out->by_purpose[purpose];
    }
    for (unsigned i = 0; i < buddy.cpus; i++) {
        out->allocations += peek(buddy_cpus[i].allocations);
        out->frees += peek(buddy_cpus[i].frees);
    }
    buddy_drop_lock();
}

bool buddy_block(hpa_t frame, hpa_t *first, uint64_t *record)
{
    uint64_t head = 0;
    if (pfn_of(frame) >= buddy.frames)
        return false;
    buddy_take_lock();
    bool found = find_block(pfn_of(frame), &head, record);
    buddy_drop_lock();
    *first = hpa_of_pfn(head);
    return found;
}

bool buddy_is_free(hpa_t frame)
{
    hpa_t first;
    uint64_t record;
    if (!buddy_block(frame, &first, &record))
        return false;
    enum frame_state state = frame_record_state(record);
    return state == FRAME_FREE || state == FRAME_CACHED;
}

/* The lowest block that ends above `from`: the one that covers it, or the next. */
static bool block_from(uint64_t from, uint64_t *first, uint64_t *record)
{
    if (from >= buddy.frames)
        return false;
    if (find_block(from, first, record))
        return true;
    uint64_t free = buddy_next_free(from), held = next_held(from);
    free = held < free ? held : free;
    uint64_t live = buddy_next_live(from, free < buddy.frames ? free : buddy.frames);
    return (live != NO_FRAME || free != NO_FRAME) &&
           find_block(live != NO_FRAME ? live : free, first, record);
}

/* The maximal run that contains the lowest known frame at or above `from`. */
static bool run_from(uint64_t from, uint64_t *first, uint64_t *end, uint64_t *record)
{
    const uint64_t kind = FRAME_STATE_MASK | FRAME_PURPOSE_MASK | FRAME_OWNER_MASK;
    uint64_t next, other;
    buddy_take_lock();
    bool found = block_from(from, first, record);
    if (found) {
        *end = *first + order_frames(frame_record_order(*record));
        while (*end < buddy.frames && find_block(*end, &next, &other) && next == *end &&
               (other & kind) == (*record & kind))
            *end += order_frames(frame_record_order(other));
    }
    buddy_drop_lock();
    return found;
}

int buddy_visit(int (*fn)(void *ctx, hpa_t base, uint64_t size, const struct frame_info *info),
                void *ctx)
{
    uint64_t first, end, record;
    for (uint64_t from = 0; run_from(from, &first, &end, &record); from = end) {
        struct frame_info info = frame_record_decode(record);
        /* A block that has changed meanwhile may begin below what was shown already. */
        first = first < from ? from : first;
        int result = fn(ctx, hpa_of_pfn(first), (end - first) << PAGE_SHIFT, &info);
        if (result != 0)
            return result;
    }
    return 0;
}

int buddy_alloc_many(hpa_t *frames, unsigned n, enum frame_purpose purpose, owner_t owner)
{
    for (unsigned end = n; end > 0;) {
        struct cpu *self = &buddy_cpus[0];
        struct lease *lease = lease_of(self, purpose, owner);
        uint64_t key = lease_key(purpose, owner);
        hpa_t one;
        bool first = !self->held;
        if (first) {
            int error = buddy_alloc(0, purpose, owner, &one);
            if (error) {
                buddy_free_frames(&frames[end], n - end, owner);
                return error;
            }
        }
        unsigned rest = end - first, got = 0;
        if (peek(alone_open) && lease->key == key && !trace_wanted(TRACE_ALLOC)) {
            uint64_t mask = self->held, base = self->held_base;
            got = count_bits(mask);
            got = got < rest ? got : rest;
            got = got < lease->left ? got : (unsigned)lease->left;
            for (unsigned i = 0; i < got; i++, mask &= mask - 1) {
                uint64_t pfn = base + lowest_bit(mask);
                frame_records[pfn] = key | FRAME_USED;
                frames[end - got + i] = hpa_of_pfn(pfn);
            }
            self->held = mask;
            lease->left -= got;
            bump(self->allocations, got);
        }
        end -= got;
        if (first)
            frames[--end] = one;
        else if (!got) {
            int error = buddy_alloc(0, purpose, owner, &frames[--end]);
            if (error) {
                buddy_free_frames(&frames[end + 1], n - end - 1, owner);
                return error;
            }
        }
    }
    return E_OK;
}
