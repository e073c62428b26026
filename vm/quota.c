/* See vm/quota.h. */
#include "vm/quota.h"

#include "mm/frames/buddy.h"

/* Of memory that arrives as it is touched. */
static uint64_t quota_of_lazy(uint64_t memory)
{
    struct buddy_stats stats;
    uint64_t most;

    buddy_stats(&stats);
    most = stats.free_frames / 4 * 3;
    return memory / PAGE_SIZE > most ? most : UINT64_MAX;
}

uint64_t quota_at_start(const struct guest *guest)
{
    if (guest->options.quota != 0)
        return quota_frames(guest, guest->options.quota);
    return guest->options.lazy ? quota_of_lazy(guest->memory) : UINT64_MAX;
}

uint64_t quota_of_fork(const struct guest *from)
{
    uint64_t quota = buddy_quota(guest_owner(from));

    return quota != UINT64_MAX ? quota : quota_of_lazy(from->memory);
}
