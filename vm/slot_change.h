/*
 * Changes to the slots of a guest that is there, whether it runs or not. It is out of its CPU, and
 * is told nothing: what it knows of its memory it has from its loader.
 *
 * What is removed is unmapped, forgotten by every CPU, and then given back (mm/paging/flush.h).
 * Tracking goes on (vm/dirty.h): what is gone counts as written, new memory does not. A snapshot
 * has the slots of its time, and going back brings them back, with what was in them
 * (vm/snapshot.h). A fork has those of the moment. A new start has those of the options.
 */
#ifndef QUIRE_VM_SLOT_CHANGE_H
#define QUIRE_VM_SLOT_CHANGE_H

#include "vm/guest.h"

/* All of them: E_STATE where the guest has ended; any other error, and nothing has changed but that
 * large pages may have been split. */

/* Adds a slot; memory that is not lazy is there at once, zeroed. A device's window is one that a
 * guest with `pc` has, all of it: the device answers there. E_ALIGN, E_RANGE (size 0, or beyond the
 * guest's addresses), E_EXIST (another is there), E_FULL (GUEST_SLOTS), E_UNSUPPORTED (a kind that
 * this CPU has not), E_NOENT (no device's window), E_NOMEM, E_QUOTA. */
int slot_insert(struct guest *guest, enum slot_kind kind, gpa_t base, uint64_t size);

/* Adds one of the memory of this name (vm/shared.h), which is made if nobody has it; shorter than
 * SHARE_NAME. `rights`:
 * RIGHT_R or RIGHT_RW. E_INVAL: it has another size; E_FULL: GUEST_SLOTS, or SHARED_LIMIT of other
 * names. Else as slot_insert(). */
int slot_insert_shared(struct guest *guest, const char *name, gpa_t base, uint64_t size,
                       unsigned rights);

/* Nothing is in [base, base + size) any more: all that slots have there goes. E_ALIGN, E_RANGE;
 * E_PERM: a part of a device's window; E_FULL, E_NOMEM, E_QUOTA as slot_remove(). */
int slot_hole(struct guest *guest, gpa_t base, uint64_t size);

/* Takes [base, base + size), a slot or a part of one, and gives back what is behind it. E_ALIGN;
 * E_NOENT: no slot has all of it; E_PERM: it is a part of a device's window; E_FULL: the slot would
 * become two, and there is no room for another; E_NOMEM, E_QUOTA: no frame for the nodes of a page
 * that is split. */
int slot_remove(struct guest *guest, gpa_t base, uint64_t size);

/* Gives [base, base + size) of one slot these rights. What the CPU or the table's kind cannot
 * express is E_UNSUPPORTED: no rights at all, to write without reading, to execute alone. Else as
 * slot_remove(). */
int slot_protect(struct guest *guest, gpa_t base, uint64_t size, unsigned rights);

#endif
