/*
 * A guest and its image: which machine the image expects, and its way into the guest's memory.
 */
#ifndef QUIRE_VM_GUEST_LOAD_H
#define QUIRE_VM_GUEST_LOAD_H

#include "vm/backend.h"
#include "vm/guest.h"
#include "vm/load_parts.h"

/* Sets options.pc for an image whose kernels look below 1 MiB; before the slots are laid out. */
void guest_choose_machine(struct guest *guest);

/* Loads the image into the guest's memory, which is there already; *state is what its CPU starts
 * with. On an error guest->reason says why, and guest->report may say more. */
int guest_load_image(struct guest *guest, struct vcpu_state *state);

/* The memory map that its kernel is told. */
unsigned guest_memory_map(const struct guest *guest, struct load_region map[LOAD_MAP]);

#endif
