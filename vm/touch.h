/*
 * First touches: memory that has no frame yet gets one where a guest first uses it, between two
 * entries and without the rest of an exit.
 *
 * On a machine with several CPUs that happens at the same time: the guests' lock is shared
 * (lib/lock.h), so that guests on two CPUs wait for each other nowhere but in the buddy; vCPUs of
 * one guest take turns by its lock `touching`. Whoever has the guests' lock finds no first touch
 * half done.
 */
#ifndef QUIRE_VM_TOUCH_H
#define QUIRE_VM_TOUCH_H

#include <stdbool.h>

#include "vm/guest.h"

/* Under the guests' lock, or by guest_touch(): gives the page at `at` its frame, those around it
 * as the guest's options say, and counts them. E_NOENT: the slot does not fill by this access;
 * E_EXIST: it has one; E_NOMEM, E_QUOTA. */
int touch_fill(struct guest *guest, struct slot *slot, gpa_t at, unsigned access);

/* struct vcpu's `touch`, without the guests' lock. False: it takes more than a frame, or somebody
 * has the lock. */
bool guest_touch(struct vcpu *vcpu, gpa_t at, unsigned access);

#endif
