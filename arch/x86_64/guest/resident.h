/*
 * The guest registers that neither a VMCS or VMCB nor the code of an entry switches: x87, SSE and
 * AVX state, XCR0, DR0..DR3 and DR6, and the MSRs of SYSCALL and SWAPGS.
 *
 * The hypervisor itself uses none of them, so they stay in the CPU from exit to entry and change
 * hands only when another vCPU runs, or when ring 3 is about to (percpu.put_guest): then they are
 * as after a reset, so that nothing of a guest is left for a program. In between
 * CR0.TS is set in the host, by every exit, so that a stray use there traps instead of reading a
 * guest's values.
 */
#ifndef QUIRE_ARCH_GUEST_RESIDENT_H
#define QUIRE_ARCH_GUEST_RESIDENT_H

#include <stdint.h>

#include "mm/frames/frame.h"

/* The MSRs of SYSCALL and SWAPGS. */
enum shared_msr {
    SHARED_STAR,
    SHARED_LSTAR,
    SHARED_CSTAR,
    SHARED_FMASK,
    SHARED_KERNEL_GS_BASE,
    SHARED_MSR_COUNT
};

/* Those of one vCPU, while another has the CPU. */
struct resident {
    void *fpu; /* XSAVE area (FXSAVE image where there is no XSAVE) */
    hpa_t fpu_frame;
    uint64_t xcr0;
    uint64_t msr[SHARED_MSR_COUNT];
    uint64_t dr[4], dr6;
};

/* The components of XCR0 that guests may enable (0: this CPU has no XSAVE), and the order of the
 * block that holds an XSAVE area of all of them. Known after resident_init(). */
extern uint64_t resident_xcr0;
extern unsigned resident_fpu_order;
void resident_init(void);

/* The state after a reset, before the vCPU first runs. The area is zeroed already. */
void resident_reset(struct resident *v);

/* Whose registers are in this CPU; NULL: the host's. */
const struct resident *resident_now(void);

/* Has the CPU hold the registers of `next`, saving those it holds now where they belong. NULL: the
 * host's own. Nothing when they are there already. */
void resident_switch(struct resident *next);

/* XCR0 of this vCPU, which is the CPU's own while it is resident: not every CPU tells of XSETBV
 * (docs/SVM.md). */
uint64_t resident_xcr0_of(const struct resident *v);

/* DR0 .. DR3 of the vCPU that is resident, and one of them changed. */
void resident_debug(uint64_t dr[4]);
void resident_set_debug(unsigned n, uint64_t value);

/* What `from` holds goes into `to`, whose own is forgotten. The areas stay where they are. */
void resident_copy(struct resident *to, struct resident *from);

/* For a vCPU that is going away: forgets its registers. */
void resident_drop(struct resident *v);

#endif
