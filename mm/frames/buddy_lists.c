/*
 * Many single frames in one call: what fills and empties tables and guests. One lock and one charge
 * a list; neighbours are taken and given back by short loops, and of frames that lie anywhere the
 * records and masks are on their way into the CPU's cache well before their turn comes.
 */
#include "mm/frames/buddy_blocks.h"
#include "mm/frames/buddy_cache.h"

#define FREE_AHEAD 16  /* frames whose records are on their way while a list is given back */
#define ALLOC_AHEAD 16 /* cache lines of records on their way while a block is listed */

/* The list is filled from its end: blocks come from the top of memory down, and so it rises as a
 * whole. Caches like those best who then use the frames in its order. */

/* Records `count` neighbours, whose records are ready, as frames in use, and lists them before
 * `end`, which it moves. */
static inline void list_run(hpa_t **end, uint64_t pfn, uint64_t count, uint64_t record)
{
    uint64_t *records = computed(&frame_records[pfn]), address = pfn << PAGE_SHIFT;
    hpa_t *list = *end -= count;
    for (uint64_t i = 0; i < count; i++)
        poke(records[i], record);
    for (uint64_t i = 0; i < count; i++)
        list[i] = hpa(address + (i << PAGE_SHIFT));
    note_taken(pfn, count);
}

/* Likewise the highest frames of a group's mask that has some, as many as the list has room for;
 * what is left of the mask. */
static uint64_t list_mask(const hpa_t *list, hpa_t **end, uint64_t first, uint64_t mask,
                          uint64_t record)
{
    while (mask != 0 && *end > list) {
        unsigned highest = highest_bit(mask);
        list_run(end, first + highest, 1, record);
        mask ^= BIT(highest);
    }
    return mask;
}

/* Has the records that are likely to be written next on their way; there need not be such frames.
 */
static inline void prefetch_records(uint64_t pfn)
{
    uintptr_t records = (uintptr_t)frame_records + pfn * sizeof(uint64_t);
    for (unsigned line = 0; line < ALLOC_AHEAD; line++)
        __builtin_prefetch((void *)(records + line * 64), 1);
}

/* Lists the highest part of a free block of 64 frames or more, as much as there is room for, in a
 * power of two. */
static void list_block(const hpa_t *list, hpa_t **end, const struct member *member, uint64_t record)
{
    unsigned order = highest_bit((uint64_t)(*end - list));
    order = order < member->order ? order : member->order;
    uint64_t count = order_frames(order), pfn = ((member->index + 1) << member->order) - count;
    buddy_carve_block(pfn, order, member->order);
    prefetch_records(pfn - count);
    for (uint64_t chunk = pfn; chunk < pfn + count; chunk += CHUNK_FRAMES)
        buddy_make_ready(chunk);
    list_run(end, pfn, count, record);
}

/* Fills a list with free frames, of which the CPU and the sets have enough: what the CPU has, then
 * fragments, then blocks. */
static void list_frames(struct cpu *self, const hpa_t *list, hpa_t *end, uint64_t record)
{
    struct cache_stack *stack = &self->stack[0];
    struct member member;
    uint64_t *place;
    while (end > list) {
        if (self->held != 0) {
            uint64_t rest = list_mask(list, &end, self->held_base, self->held, record);
            __atomic_store_n(&self->held, rest, __ATOMIC_RELEASE);
        } else if (!stack_empty(stack)) {
            list_run(&end, cache_pop(stack, 0, &place), 1, record);
        } else if (end - list < (int64_t)GROUP_FRAMES) {
            bool found = buddy_fill_held(self);
            invariant(found);
        } else {
            bool found = buddy_choose(0, BUDDY_MAX_ORDER, &member);
            invariant(found);
            if (member.order >= GROUP_ORDER) {
                list_block(list, &end, &member, record);
                continue;
            }
            uint64_t mask = buddy.mask[member.index], first = member.index << GROUP_ORDER;
            uint64_t rest = list_mask(list, &end, first, mask, record);
            buddy.free_frames -= count_bits(mask ^ rest);
            buddy_change_mask(member.index, mask, rest);
        }
    }
}

/* The same under the lock and charged for, or an error. */
static int alloc_list(struct cpu *self, hpa_t *frames, unsigned n, uint64_t key)
{
    int error = buddy_charge(self, key, n);
    if (error != E_OK)
        return error;
    uint64_t own = count_bits(self->held) + stack_count(&self->stack[0]);
    if (buddy.free_frames + own < n && (!buddy_drain_all(self) || buddy.free_frames < n)) {
        buddy_add_charge(key, -(uint64_t)n);
        return E_NOMEM;
    }
    list_frames(self, frames, frames + n, key | FRAME_USED);
    bump(self->allocations, n);
    return E_OK;
}

int buddy_alloc_many(hpa_t *frames, unsigned n, enum frame_purpose purpose, owner_t owner)
{
    if (!can_own(purpose, owner))
        return E_INVAL;
    struct cpu *self = buddy_take_lock();
    int error = alloc_list(self, frames, n, lease_key(purpose, owner));
    buddy.failed += error != E_OK;
    buddy_drop_lock();
    trace(TRACE_ALLOC, owner, error == E_OK && n != 0 ? frames[0].v : 0, 0,
          purpose | (uint64_t)n << 8, error);
    return error;
}

/* Frames of one group and with one key, whose records are erased already, on their way back. */
struct given {
    uint64_t group, mask, key;
    unsigned bits;   /* in the mask */
    unsigned frames; /* with this key and not yet discharged */
};

static inline void given_mask_flush(struct given *given)
{
    if (given->bits == 1)
        give_small((given->group << GROUP_ORDER) + lowest_bit(given->mask), 0);
    else if (given->bits > 1)
        buddy_give_mask(given->group, given->mask);
    buddy.free_frames += given->bits;
    given->mask = 0;
    given->bits = 0;
}

static void given_flush(struct cpu *self, struct given *given)
{
    given_mask_flush(given);
    if (given->frames == 0)
        return;
    buddy_add_charge(given->key, -(uint64_t)given->frames);
    bump(self->frees, given->frames);
    given->frames = 0;
}

/* Erases the records at the head of a list, for as long as its frames are of the same group and key
 * as those before. Returns how many. */
static unsigned given_run(const hpa_t *frames, unsigned n, struct given *given)
{
    const uint64_t expected = given->key | FRAME_USED, base = given->group << GROUP_ORDER;
    uint64_t mask = given->mask;
    unsigned i = 0, run = 0;
    for (; i < n; i += run) {
        uint64_t pfn = frame_number(frames[i]), first = pfn - base;
        if (first >= GROUP_FRAMES)
            break;
        uint64_t *record = computed(&frame_records[pfn]), address = frames[i].v;
        uint64_t most = n - i < GROUP_FRAMES - first ? n - i : GROUP_FRAMES - first;
        for (run = 0; run < most; run++, address += PAGE_SIZE) {
            if (frames[i + run].v != address ||
                (peek(record[run]) & ~FRAME_PAYLOAD_MASK) != expected)
                break;
            poke(record[run], 0);
        }
        if (run == 0)
            break;
        mask |= (~UINT64_C(0) >> (GROUP_FRAMES - run)) << first;
    }
    given->mask = mask;
    given->bits += i;
    given->frames += i;
    return i;
}

/* What will be looked at when this frame's turn comes; the address may be any. */
static inline void prefetch_frame(hpa_t frame)
{
    __builtin_prefetch((void *)((uintptr_t)frame_records + pfn_of(frame) * sizeof(uint64_t)), 1);
    __builtin_prefetch(
        (void *)((uintptr_t)buddy.mask + (pfn_of(frame) >> GROUP_ORDER) * sizeof(uint64_t)), 1);
}

int buddy_free_frames(const hpa_t *frames, unsigned n, owner_t owner)
{
    struct given given = {.group = NO_FRAME};
    int result = E_OK;
    struct cpu *self = buddy_take_lock();
    for (unsigned i = 0; i < n && i < FREE_AHEAD; i++)
        prefetch_frame(frames[i]);
    for (unsigned i = 0; i < n; i++) {
        if (n - i > FREE_AHEAD)
            prefetch_frame(frames[i + FREE_AHEAD]);
        uint64_t pfn = frame_number(frames[i]), record;
        given_mask_flush(&given); /* what is asked now must see it */
        record = pfn < buddy.frames && chunk_ready(pfn) ? peek(frame_records[pfn]) : 0;
        if (!record_fits(record, 0, owner)) {
            int error = buddy_check_free(frames[i], 0, owner, &record);
            if (error != E_OK) {
                buddy_refuse(error);
                result = result == E_OK ? error : result;
                continue;
            }
        }
        if (key_of_record(record) != given.key)
            given_flush(self, &given);
        note_freed(pfn, 1);
        poke(frame_records[pfn], 0);
        given.group = pfn >> GROUP_ORDER;
        given.mask = BIT(pfn % GROUP_FRAMES);
        given.key = key_of_record(record);
        given.bits = 1;
        given.frames++;
        if (buddy.watcher == NULL)
            i += given_run(&frames[i + 1], n - i - 1, &given);
    }
    given_flush(self, &given);
    buddy_drop_lock();
    trace(TRACE_FREE, owner, n != 0 ? frames[0].v : 0, 0, n, result);
    return result;
}
