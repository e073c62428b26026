/*
 * Memory that a guest gives back while it runs, and asks for again (guests/abi.h,
 * QUIRE_HC_GIVE and QUIRE_HC_TAKE).
 *
 *     RAM with a frame  --give-->  RAM without  --take, or a touch-->  RAM with a frame, zeroed
 *
 * What was given back stays RAM: it reads as zeroes, and gets a frame as lazy memory does, at a
 * touch or when it is asked for. So there is no state of a page beside the table: absent or not.
 *
 * A frame that is the guest's alone is free once no CPU can reach it (mm/paging/flush.h). Of one
 * that forks, a snapshot or equal pages hold as well the guest gives up its hold: the others keep
 * it. A snapshot has what was in it, and going back brings that back (vm/snapshot.h). What is given
 * back counts as written (vm/dirty.h).
 *
 * Both go on until the turn of the guest's vCPU is over, by pieces of at most 2 MiB or one leaf,
 * and at least by one; *at and *left say what is left then, as they do after an error. `left` 0:
 * done.
 */
#ifndef QUIRE_VM_BALLOON_H
#define QUIRE_VM_BALLOON_H

#include "vm/guest.h"

/* E_ALIGN: not whole pages; E_RANGE: it wraps; E_PERM: some of it is not RAM that is the guest's
 * own and that its slot lets it write; E_NOMEM, E_QUOTA: a part of a large page, and there is no
 * frame for the node that its other parts need. */
int balloon_give(struct guest *guest, uint64_t *at, uint64_t *left);

/* Gives frames to what of the range has none, in the largest pages up to 2 MiB that there are.
 * E_NOMEM, E_QUOTA: there is none for the page at *at. Else as above. */
int balloon_take(struct guest *guest, uint64_t *at, uint64_t *left);

#endif
