/* See vpid.h. */
#include "arch/x86_64/vmx/vpid.h"

#include "arch/x86_64/mm/tlb.h"
#include "arch/x86_64/vmx/vcpu.h"
#include "lib/lock.h"

#define VPID_COUNT 256

static struct {
    struct lock lock;
    uint64_t taken[VPID_COUNT / 64];
    uint64_t used[VPID_COUNT / 64]; /* since boot: translations may be left */
} vpids = {.taken[0] = 1};

int vpid_take(uint16_t *out)
{
    *out = 0;
    if (!vmx_policy.vpid)
        return E_OK;
    lock_take(&vpids.lock);
    for (unsigned i = 0; i < ARRAY_SIZE(vpids.taken) && *out == 0; i++) {
        if (~vpids.taken[i] == 0)
            continue;
        unsigned bit = lowest_bit(~vpids.taken[i]);
        *out = (uint16_t)(i * 64 + bit);
        vpids.taken[i] |= BIT(bit);
    }
    bool stale = *out && (vpids.used[*out / 64] >> *out % 64 & 1);
    vpids.used[*out / 64] |= BIT(*out % 64);
    lock_drop(&vpids.lock);
    if (*out == 0)
        return E_FULL;
    /* What the tag's last holder left must not serve its next (29.4.3.3). */
    if (stale)
        vpid_flush(*out);
    return E_OK;
}

void vpid_give(uint16_t vpid)
{
    if (vpid == 0)
        return;
    lock_take(&vpids.lock);
    vpids.taken[vpid / 64] &= ~BIT(vpid % 64);
    lock_drop(&vpids.lock);
}

void vpid_flush(uint16_t vpid)
{
    /* Untagged translations do not survive an exit (29.4.3.1 "Operations that invalidate"). */
    if (vpid == 0)
        return;
    tlb_count()->guest_tag++;
    invariant(invvpid(INVVPID_SINGLE_CONTEXT, vpid, 0) == E_OK);
}
