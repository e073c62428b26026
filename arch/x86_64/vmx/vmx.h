/*
 * Intel VMX as a backend for guests (vm/backend.h): whether this machine can, and switching it on.
 */
#ifndef QUIRE_ARCH_VMX_VMX_H
#define QUIRE_ARCH_VMX_VMX_H

#include "lib/format.h"
#include "vm/backend.h"

/*
 * Finds out what VMX this CPU has, enters VMX operation, and gives the backend. To be called once
 * on the CPU that booted, after the buddy, the kernel's own tables and the trap stacks stand.
 *
 * E_UNSUPPORTED: guests cannot run on this machine, and *why_not says in one sentence why; E_NOMEM,
 * E_HARDWARE likewise. The hypervisor goes on without guests.
 */
int vmx_init(const struct vm_backend **backend, const char **why_not);

/* Enters VMX operation on the CPU that runs this, vmx_init() having succeeded on the first one.
 * E_NOMEM, E_HARDWARE, E_PERM (the firmware has locked VMX off on this CPU). */
int vmx_enable_cpu(void);

/* The same on another CPU while the first waits, if its VMX is like the first one's: a
 * cpu_enable_fn (arch/x86_64/cpus.h). */
int vmx_enable_other(char *why_not);

/* For the console: the capabilities found, the controls in use, counters. */
void vmx_show(struct sink *to);

extern const struct vm_backend vmx_backend;

/* struct percpu's `cut_slice`, for an NMI that has come while a VMCS is current. */
void vmx_cut_slice(void);

#endif
