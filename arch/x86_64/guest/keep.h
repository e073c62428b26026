/*
 * The registers of resident.h as they are kept outside of this machine, and come back from there:
 * whatever is in them then, loading them must not fault the hypervisor.
 */
#ifndef QUIRE_ARCH_GUEST_KEEP_H
#define QUIRE_ARCH_GUEST_KEEP_H

#include "arch/x86_64/guest/resident.h"
#include "vm/backend.h"

/* Takes the registers out of the CPU, if they are there. E_UNSUPPORTED: the XSAVE area is larger
 * than VCPU_FPU_MOST. */
int resident_keep(struct resident *v, struct vcpu_rest *out);

/* E_ILLEGAL: a register of which the CPU would not take this value; E_UNSUPPORTED: XCR0 has
 * components that guests have not here. Nothing has changed then. */
int resident_take(struct resident *v, const struct vcpu_rest *in);

#endif
