/*
 * HLT with interrupts let in for as long as it lasts. What is sent after the caller's last look at
 * whether there is work waits for STI, whose shadow lasts over the HLT, and ends that.
 *
 * NMIs need not heed the shadow (SDM Vol. 2, "STI"; AMD's CPUs and QEMU do not have them do so):
 * one that is taken between the two leaves the HLT without it, and an interrupt that came meanwhile
 * is taken before the HLT, which nothing then ends. So the handler of NMIs returns behind the HLT.
 */
#ifndef QUIRE_ARCH_HALT_H
#define QUIRE_ARCH_HALT_H

#include "arch/x86_64/trap.h"

#define HLT_LENGTH 1

/* Returns after an interrupt or an NMI, perhaps for nothing: who calls it looks, and calls it
 * again. Interrupts are off before and after. */
void cpu_halt(void);

extern const uint64_t cpu_halt_hlt; /* where its HLT is */

/* For the handler of NMIs. One that has ended the HLT itself finds RIP behind it already. */
static inline void halt_pass(struct trap_frame *frame)
{
    if (frame->rip == cpu_halt_hlt)
        frame->rip += HLT_LENGTH;
}

#endif
