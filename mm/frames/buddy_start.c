/* How the buddy begins, and memory that is handed to it, at boot and later. */
#include "mm/frames/buddy_blocks.h"
#include "mm/frames/buddy_cache.h"

#include "lib/string.h"

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
    buddy.lock = LOCK_INIT_AT(LOCK_BUDDY);
    frame_records = metadata;
    buddy.mask = frame_records + chunks_of(frames) * CHUNK_FRAMES;
    uint64_t *words = buddy.mask + chunks_of(frames) * CHUNK_GROUPS;
    words = bittree_init(&buddy.ready, words, chunks_of(frames), UINT64_MAX);
    for (unsigned order = 0; order < BUDDY_ORDERS; order++)
        words = bittree_init(&buddy.set[order], words, members_of(frames, order), EAGER_WORDS);
    buddy.frames = frames;
    for (unsigned i = 0; i < BUDDY_CPUS; i++)
        buddy_start_cache(&buddy_cpus[i]);
    buddy_open();
    return E_OK;
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
    if (buddy_any_known(first, count)) {
        error = E_EXIST;
    } else {
        buddy_give_range(first, count);
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
    if (buddy_any_known(first, count)) {
        error = E_EXIST;
    } else {
        for (uint64_t pfn = first, left = count; left > 0;) {
            unsigned order = state == FRAME_RESERVED ? buddy_largest_order(pfn, left) : 0;
            buddy_write_record(pfn, frame_record(state, order, purpose, owner));
            pfn += order_frames(order);
            left -= order_frames(order);
        }
        buddy.total += count;
        buddy.reserved += state == FRAME_RESERVED ? count : 0;
        buddy_add_charge(lease_key(purpose, owner), count);
        if (buddy_accounts[owner].charged > quota_of(owner))
            buddy_recall_leases(self, owner);
    }
    buddy_drop_lock();
    return error;
}
