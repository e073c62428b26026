/*
 * The debug registers of the vCPU that is resident: one lent to the hypervisor's breakpoint
 * (debug.h) from right before an entry until right after the exit, and MOV to and from them. DR7,
 * and where it is the backend's DR6, are handed in and out.
 */
#ifndef QUIRE_ARCH_GUEST_DEBUG_LOAN_H
#define QUIRE_ARCH_GUEST_DEBUG_LOAN_H

#include "arch/x86_64/guest/debug.h"

struct debug_loan {
    int slot;                 /* DRn that is lent, or was last; -1: none */
    uint64_t own_dr, own_dr7; /* the guest's */
};

/* Lends one to a breakpoint on the instruction at `at`, and changes DR7. False: the guest leaves
 * none. */
bool debug_lend(struct debug_loan *loan, uint64_t at, uint64_t *dr7);
/* Gives it back, and changes DR7 as the exit has left it. Only what is lent. */
void debug_give_back(const struct debug_loan *loan, uint64_t *dr7);

/* debug_move() with DR0 to DR3 as the CPU has them: of `registers` the others are used. */
enum debug_outcome debug_move_resident(struct debug_registers *registers, struct debug_move *move);

#endif
