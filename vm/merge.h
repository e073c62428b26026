/*
 * Equal pages of guests that allow it (`merge`), kept once: a sweep over their RAM. First pages of
 * zeroes, then all others, found by a hash of what is in them and compared before they are shared.
 * Copy-on-write afterwards (vm/cow.h): who writes gets a page of his own again.
 *
 * Pages of 2 MiB are split where many of their pages are zeroes; larger ones stay as they are.
 */
#ifndef QUIRE_VM_MERGE_H
#define QUIRE_VM_MERGE_H

#include "vm/guest.h"

struct merge_entry {
    uint64_t hash;
    uint64_t place; /* guest-physical page, and the guest's number in its low bits; 0: nothing */
};

struct merge {
    uint64_t looked; /* at pages of 4 KiB */
    uint64_t shared; /* pages that are shared with an equal one, and were not ... */
    uint64_t freed;  /* ... and frames that came free by that */
    /* Where it is. */
    bool zeroes_done;
    unsigned guest;
    uint64_t at;
    /* What has been seen: places that may have changed since. */
    struct merge_entry zeroes, *seen;
};

/* E_NOMEM, E_QUOTA: there is no sweep. Its memory is the host's, and goes with merge_end(). */
int merge_begin(struct merge *merge);
/* Looks at so many pages more, and up to one of 2 MiB. True: the sweep is over. Guests may have
 * run, ended or been made since the last step; none runs meanwhile. */
bool merge_step(struct merge *merge, unsigned pages);
void merge_end(struct merge *merge);

/* What all guests and their snapshots have, in frames, if each page were its own. */
uint64_t merge_frames_shown(void);

#endif
