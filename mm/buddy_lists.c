/*
 * Many single frames in one call: what fills and empties tables and guests. One lock and one charge a list;
 * neighbours are taken and given back by short loops, and of frames that lie anywhere the records and masks
 * are on their way into the CPU's cache well before their turn comes.
 */
#include "mm/buddy_internal.h"

#define FREE_AHEAD 16  /* frames whose records are on their way while a list is given back */
#define ALLOC_AHEAD 16 /* cache lines of records on their way while a block is listed */

/* Records `count` neighbours, whose records are ready, as frames in use, and lists them. */
static inline hpa_t *list_run(hpa_t *out, uint64_t pfn, uint64_t count, uint64_t record)
{
    uint64_t *records = computed(&frame_records[pfn]), address = pfn << PAGE_SHIFT;
    for (uint64_t i = 0; i < count; i++)
        poke(records[i], record);
    for (uint64_t i = 0; i < count; i++)
        out[i] = hpa(address + (i << PAGE_SHIFT));
    note_taken(pfn, count);
    return out + count;
}

/* Likewise the lowest frames of a group's mask that has some, until the list ends; what is left of the
 * mask. */
static uint64_t list_mask(hpa_t **out, const hpa_t *end, uint64_t first, uint64_t mask,
                          uint64_t record)
{
    for (; mask != 0 && *out < end; mask &= mask - 1)
        *out = list_run(*out, first + lowest_bit(mask), 1, record);
    return mask;
}

/* Has the records that are likely to be written next on their way; there need not be such frames. */
static inline void prefetch_records(uint64_t pfn)
{
    uintptr_t records = (uintptr_t)frame_records + pfn * sizeof(uint64_t);
    for (unsigned line = 0; line < ALLOC_AHEAD; line++)
        __builtin_prefetch((void *)(records + line * 64), 1);
}

/* Lists the highest part of a free block of 64 frames or more that is not longer than the rest of a list. */
static hpa_t *list_block(hpa_t *out, const hpa_t *end, const struct member *member, uint64_t record)
{
    unsigned order = highest_bit((uint64_t)(end - out));
    order = order < member->order ? order : member->order;
    uint64_t count = order_frames(order), pfn = ((member->index + 1) << member->order) - count;
    buddy_carve_block(pfn, order, member->order);
    prefetch_records(pfn - count);
    for (uint64_t chunk = pfn; chunk < pfn + count; chunk += CHUNK_FRAMES)
        buddy_make_ready(chunk);
    return list_run(out, pfn, count, record);
}

/* Fills a list with free frames, of which the CPU and the sets have enough: what the CPU has, then
 * fragments, then blocks. */
static void list_frames(struct cpu *self, hpa_t *out, const hpa_t *end, uint64_t record)
{
    struct cache_stack *stack = &self->stack[0];
    struct member member;
    uint64_t *place;
    while (out < end) {
        if (self->held != 0) {
            uint64_t rest = list_mask(&out, end, self->held_base, self->held, record);
            __atomic_store_n(&self->held, rest, __ATOMIC_RELEASE);
        } else if (!stack_empty(stack)) {
            out = list_run(out, cache_pop(stack, 0, &place), 1, record);
        } else if (end - out < (int64_t)GROUP_FRAMES) {
            bool found = buddy_fill_held(self);
            invariant(found);
        } else {
            bool found = buddy_choose(0, BUDDY_MAX_ORDER, &member);
            invariant(found);
            if (member.order >= GROUP_ORDER) {
                out = list_block(out, end, &member, record);
                continue;
            }
            uint64_t mask = buddy.mask[member.index], first = member.index << GROUP_ORDER;
            uint64_t rest = list_mask(&out, end, first, mask, record);
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
