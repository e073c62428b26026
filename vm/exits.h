/*
 * What happens at an exit: one function for each kind.
 *
 * A handler either leaves the guest ready to be resumed (the instruction skipped or a fault raised,
 * vm/inject.h) or ends it (vm/report.h); vm/sched.c looks at guest->state afterwards.
 */
#ifndef QUIRE_VM_EXITS_H
#define QUIRE_VM_EXITS_H

#include "vm/guest.h"

/* Deals with one exit. Returns false when the guest gave up the rest of its slice. */
bool exit_dispatch(struct guest *guest, const struct vm_exit *exit);

void exit_memory(struct guest *guest, const struct vm_exit *exit);    /* vm/faults.c */
void exit_misconfig(struct guest *guest, const struct vm_exit *exit); /* vm/faults.c */
/* An access that was made for the guest and refused, as the exit that it would have been: one of
 * those two. */
void exit_refused(struct guest *guest, const struct vm_exit *exit);   /* vm/faults.c */
void exit_cpuid(struct guest *guest, const struct vm_exit *exit);     /* vm/cpuid.c */
void exit_msr(struct guest *guest, const struct vm_exit *exit);       /* vm/msr.c */
bool exit_hypercall(struct guest *guest, const struct vm_exit *exit); /* vm/hypercall.c; as above */

#endif
