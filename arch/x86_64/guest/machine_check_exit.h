/*
 * A machine check that struck while a guest ran, or was being entered: it is the host's affair.
 */
#ifndef QUIRE_ARCH_GUEST_MACHINE_CHECK_EXIT_H
#define QUIRE_ARCH_GUEST_MACHINE_CHECK_EXIT_H

#include "vm/backend.h"

/* Ends the machine check, and tells the exit as what it was: MACHINE_CHECK, with what the banks say
 * for its name until the next. Where they say that the CPU's state is lost, this panics. */
void machine_check_exit(struct vm_exit *exit);

#endif
