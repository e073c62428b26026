/* See vm/quota.h. */
#include "vm/quota.h"

#include "lib/error.h"
#include "lib/format.h"
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

void quota_says_no_table(struct guest *guest, int error)
{
    char bound[SIZE_TEXT], beside[SIZE_TEXT];

    if (error != E_QUOTA || guest->options.quota == 0) {
        format_buffer(guest->reason, sizeof(guest->reason), "no frame for its table");
        return;
    }
    format_buffer(guest->reason, sizeof(guest->reason),
                  "quota=%s has no room for its table: itself and its vCPU take %s, and tables and "
                  "memory come on top",
                  size_text(bound, guest->options.quota),
                  size_text(beside, quota_beside(guest) * PAGE_SIZE));
}
