/*
 * A second guest that goes on from where a first one is: its memory shared until either writes, its
 * CPU and its devices copied. The cost grows with the page tables, not with the memory.
 */
#ifndef QUIRE_VM_FORK_H
#define QUIRE_VM_FORK_H

#include "vm/guest.h"

/*
 * Makes a fork. Slots of RAM and ROM are shared copy-on-write, lazy memory that has no frame yet
 * gets one in each of them, devices' windows are the copied devices'. It has the first one's
 * options, a quota of its own (vm/quota.h), and the first one's state: runs, is paused, is halted.
 * A snapshot stays with the first. E_STATE: that has ended. E_FULL: there are GUEST_LIMIT guests.
 * E_NOMEM, E_QUOTA: the guest that was to be, refused; the first is as it was.
 */
int guest_fork(struct guest *guest, struct guest **out);

#endif
