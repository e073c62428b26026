/*
 * A guest's share of the CPU. Its turn is a slice of clock ticks; all that is done on its behalf
 * counts, in the guest and out of it. What went beyond the slice is a debt, and its next slices are
 * shorter by that, so that over time no guest has more than another, whatever it has the hypervisor
 * do. One that owes a slice or more sits its turn out.
 */
#ifndef QUIRE_VM_SHARE_H
#define QUIRE_VM_SHARE_H

#include <stdint.h>

#define SLICE_TICKS UINT64_C(1000000)

/* No debt is larger: a pause of the machine below, such as that of an emulator which is stopped,
 * falls into somebody's slice, and must not keep that guest out for as long. What a guest can cause
 * at one exit is far less. */
#define SHARE_MOST_DEBT (1024 * SLICE_TICKS)

struct share {
    uint64_t debt;    /* ticks still to be taken from slices to come */
    uint64_t overran; /* ticks beyond its slices since its guest was started; now debts */
    uint64_t sat_out; /* turns, since then */
};

/* Its turn has come: the ticks that it has, 0: none this time. */
static inline uint64_t share_turn(struct share *share)
{
    uint64_t paid = share->debt < SLICE_TICKS ? share->debt : SLICE_TICKS;

    share->debt -= paid;
    share->sat_out += paid == SLICE_TICKS;
    return SLICE_TICKS - paid;
}

/* Ticks that were spent for it and that no turn had room for. */
static inline void share_owe(struct share *share, uint64_t ticks)
{
    share->overran += ticks;
    share->debt = ticks < SHARE_MOST_DEBT - share->debt ? share->debt + ticks : SHARE_MOST_DEBT;
}

#endif
