/* See asid.h. */
#include "arch/x86_64/svm/asid.h"

#include "arch/x86_64/mm/shootdown.h"
#include "arch/x86_64/mm/tlb.h"
#include "lib/lock.h"

#define ASID_MOST 256

static struct {
    struct lock lock;
    uint32_t count;
    bool taken[ASID_MOST];
    uint16_t next[ASID_MOST];              /* of the same table; 0: none */
    bool stale[SHOOTDOWN_CPUS][ASID_MOST]; /* each CPU has TLBs of its own */
} asids;

void asid_init(uint32_t count)
{
    asids.count = count < ASID_MOST ? count : ASID_MOST;
}

int asid_take(uint16_t *out)
{
    int error = E_FULL;

    lock_take(&asids.lock);
    for (unsigned i = 1; i < asids.count && error != E_OK; i++) {
        if (asids.taken[i])
            continue;
        asids.taken[i] = true;
        for (unsigned cpu = 0; cpu < SHOOTDOWN_CPUS; cpu++)
            asids.stale[cpu][i] = true;
        *out = (uint16_t)i;
        error = E_OK;
    }
    lock_drop(&asids.lock);
    return error;
}

uint16_t asid_join(uint16_t first, uint16_t asid)
{
    if (first == 0)
        return asid;
    lock_take(&asids.lock);
    asids.next[asid] = asids.next[first];
    asids.next[first] = asid;
    lock_drop(&asids.lock);
    return first;
}

void asid_give(uint16_t asid)
{
    lock_take(&asids.lock);
    for (unsigned i = 1; i < ASID_MOST; i++)
        if (asids.next[i] == asid)
            asids.next[i] = asids.next[asid];
    asids.next[asid] = 0;
    asids.taken[asid] = false;
    lock_drop(&asids.lock);
}

void tlb_flush_asid(uint16_t asid)
{
    for (; asid != 0; asid = asids.next[asid]) {
        tlb_count()->guest_tag_at_entry++;
        asids.stale[shootdown_self()][asid] = true;
    }
}

bool asid_take_stale(uint16_t asid)
{
    bool *stale = &asids.stale[shootdown_self()][asid], was = *stale;

    *stale = false;
    return was;
}
