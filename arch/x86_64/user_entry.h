/*
 * The way into ring 3 and out of it (user_entry.asm), for the two who go there: programs (user.c)
 * and the oracle.
 */
#ifndef QUIRE_ARCH_USER_ENTRY_H
#define QUIRE_ARCH_USER_ENTRY_H

#include <stdint.h>

#include "arch/x86_64/percpu.h"
#include "arch/x86_64/trap.h"
#include "x86/control.h"

/* Runs ring 3 from `rip`, every register but RSP 0, on the table in CR3, with interrupts as in
 * `rflags`. Returns when a trap's frame was pointed at user_leave. The stack pointer of later traps
 * from ring 3 (tss_set_rsp0()) is the caller's to restore. */
void user_enter(uint64_t rip, uint64_t rsp, uint64_t rflags);
void user_leave(void);

/* Points the frame of a trap from ring 3 at user_leave: the trap's own return is then that of
 * user_enter(). */
static inline void user_leave_from(struct trap_frame *frame)
{
    frame->rip = (uint64_t)(uintptr_t)user_leave;
    frame->cs = SELECTOR_KERNEL_CODE;
    frame->rflags = RFLAGS_FIXED;
    frame->rsp = this_cpu()->tss.rsp[0];
    frame->ss = SELECTOR_KERNEL_DATA;
}

#endif
