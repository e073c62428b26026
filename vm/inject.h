/*
 * What an instruction that exited comes to for its guest: it is done, or it faults.
 */
#ifndef QUIRE_VM_INJECT_H
#define QUIRE_VM_INJECT_H

#include "vm/guest.h"

/* Raises #GP(0) or #UD in the guest at the instruction that exited. */
void inject_gp(struct guest *guest);
void inject_ud(struct guest *guest);

/* Moves past the instruction that exited. */
void skip_instruction(struct guest *guest, const struct vm_exit *exit);

#endif
