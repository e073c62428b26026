/* What the buddy knows of any frame, and what it adds up to. Nothing here changes anything. */
#include "mm/frames/buddy_blocks.h"
#include "mm/frames/buddy_cache.h"

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

/* Is the frame one of those that a CPU holds by mask? `*passing`: another CPU has its group, and
 * may be taking or giving back this very frame. */
static bool find_held(uint64_t pfn, bool *passing)
{
    const struct cpu *self = buddy_this_cpu();
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

bool buddy_find_block(uint64_t pfn, uint64_t *first, uint64_t *record)
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
        buddy_stop_others(buddy_this_cpu());
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

/* The lowest free frame that is at or above `from` and does not belong to a block of 64 or more
 * frames that starts below it; NO_FRAME for none. */
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

uint64_t buddy_next_held(uint64_t from)
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
bool buddy_any_known(uint64_t first, uint64_t count)
{
    uint64_t head, record;
    return buddy_find_block(first, &head, &record) || buddy_next_free(first) < first + count ||
           buddy_next_held(first) < first + count ||
           buddy_next_live(first, first + count) != NO_FRAME;
}

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
        .cached_frames = buddy_cached_frames(),
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
    bool found = buddy_find_block(pfn_of(frame), &head, record);
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
