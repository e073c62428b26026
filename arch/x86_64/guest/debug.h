/*
 * A guest's debug registers where the hypervisor has a part in them: which of its breakpoints an
 * access matches that is carried out for it; a breakpoint of the hypervisor's among its own; and
 * MOV to and from them, which exits while that is there. Pure functions. SDM Vol. 3, 18.2 "Debug
 * Registers", 18.3.1.1 to 18.3.1.3.
 *
 * The hypervisor's breakpoint (struct vcpu's `until`) is in the CPU only while guest code runs: in
 * one of DR0 to DR3 that the guest has not enabled, from right before an entry until right after
 * the exit. So at every exit all registers are the guest's own, and MOV, which then exits, is
 * answered from them. A breakpoint goes by the linear address, whatever the guest's tables say of
 * it and before they are asked (6.9, table 6-2: its #DB comes before the faults of the fetch). To
 * take the execute right from the page behind it would need to know that page, which the guest's
 * next write to its tables changes; and a step by RFLAGS.TF is seen by PUSHF and by SYSCALL.
 *
 * As any breakpoint on an instruction it is passed over where RF is set, and right behind a MOV or
 * POP to SS (18.3.1.1, 6.8.3).
 */
#ifndef QUIRE_ARCH_GUEST_DEBUG_H
#define QUIRE_ARCH_GUEST_DEBUG_H

#include <stdbool.h>
#include <stdint.h>

#define DR7_ENABLES UINT64_C(0xff) /* L0, G0 .. L3, G3 */

/* As R/W of DR7 says; DEBUG_FETCH is of an instruction's first byte. */
enum debug_access { DEBUG_FETCH = 0, DEBUG_WRITE = 1, DEBUG_PORT = 2, DEBUG_READ = 3 };

/* Those enabled breakpoints (bit n: DRn) that an access of `bytes` at `at` meets. R/W 3 of DR7
 * matches reads and writes; with CR4.DE clear, 2 matches nothing. */
unsigned debug_matches(const uint64_t dr[4], uint64_t dr7, enum debug_access access, uint64_t at,
                       unsigned bytes);

/* One of DR0 to DR3 that DR7 does not enable; -1: there is none. */
int debug_spare(uint64_t dr7);
/* DR7 with DRn, which is spare, enabled for an instruction, and nothing else changed. G, since a
 * task switch clears L. */
uint64_t debug_armed(uint64_t dr7, unsigned n);
/* DR7 as an exit has left it, without that: `own` is what it was. */
uint64_t debug_disarmed(uint64_t dr7, uint64_t own, unsigned n);

struct debug_registers {
    uint64_t dr[4], dr6, dr7;
};

struct debug_move {
    unsigned dr;    /* 0 to 7, as the instruction says */
    bool write;     /* to the debug register */
    unsigned bytes; /* 4 or 8: of the operand */
    unsigned cpl;
    bool extensions; /* CR4.DE */
    uint64_t value;  /* written, or, then, what was read */
};

enum debug_outcome {
    DEBUG_MOVED,
    DEBUG_UNDEFINED,  /* #UD */
    DEBUG_PROTECTION, /* #GP(0) */
    /* #DB: DR7.GD; DR6 and DR7 are as its delivery has them, RF is to be pushed as 1, as by every
     * fault but #DB of a breakpoint on an instruction (18.3.1.1). */
    DEBUG_DETECTED,
};

/* SDM Vol. 2, "MOV -- Move to/from Debug Registers". */
enum debug_outcome debug_move(struct debug_registers *registers, struct debug_move *move);

#endif
