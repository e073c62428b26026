/* The buddy's whole state as a number. */
#include "mm/frames/buddy_internal.h"

static void mix(uint64_t *sum, uint64_t value)
{
    *sum = (*sum ^ value) * UINT64_C(0x9e3779b97f4a7c15);
    *sum ^= *sum >> 32;
}

uint64_t buddy_fingerprint(void)
{
    uint64_t sum = 0;
    struct cpu *self = buddy_take_lock();

    buddy_stop_others(self);
    for (unsigned order = 0; order < BUDDY_ORDERS; order++) {
        const struct bittree *set = &buddy.set[order];
        for (uint64_t i = bittree_next(set, 0); i != BITTREE_NONE; i = bittree_next(set, i + 1)) {
            mix(&sum, i << 8 | order);
            if (order < GROUP_ORDER)
                mix(&sum, buddy.mask[i]);
        }
    }
    for (unsigned i = 0; i < buddy.cpus; i++)
        if (buddy_cpus[i].held != 0) {
            mix(&sum, buddy_cpus[i].held_base);
            mix(&sum, buddy_cpus[i].held);
        }
    for (uint64_t pfn = buddy_next_live(0, buddy.frames); pfn != NO_FRAME;
         pfn = buddy_next_live(pfn + 1, buddy.frames)) {
        mix(&sum, pfn);
        mix(&sum, peek(frame_records[pfn]));
    }
    buddy_resume_others();
    buddy_drop_lock();
    return sum;
}
