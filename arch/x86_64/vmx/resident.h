/*
 * The guest registers that neither a VMCS field nor entry.asm switches: x87, SSE and AVX state,
 * XCR0, DR0..DR3 and DR6, and the MSRs of SYSCALL and SWAPGS.
 *
 * The hypervisor itself uses none of them, so they stay in the CPU from exit to entry and change
 * hands only when another vCPU runs, or when ring 3 is about to (percpu.put_guest). In between
 * CR0.TS is set in the host, by every exit, so that a stray use there traps instead of reading a
 * guest's values.
 */
#ifndef QUIRE_ARCH_VMX_RESIDENT_H
#define QUIRE_ARCH_VMX_RESIDENT_H

#include "arch/x86_64/vmx/vcpu.h"

/* The components that XCR0 may have in a guest (0 without XSAVE), and the order of the block that
 * holds an XSAVE area of all of them. */
uint64_t resident_xcr0(void);
unsigned resident_fpu_order(uint64_t xcr0);

/* The state after a reset, before the vCPU first runs. The area is zeroed already. */
void resident_reset(struct vmx_vcpu *v);

/* Has the CPU hold the registers of `next`, saving those it holds now where they belong. NULL: the
 * host's own. Nothing when they are there already. */
void resident_switch(struct vmx_vcpu *next);

/* DR0 .. DR3 of the vCPU that is resident. */
void resident_debug(uint64_t dr[4]);

/* For a vCPU that is going away: forgets its registers. */
void resident_drop(struct vmx_vcpu *v);

#endif
