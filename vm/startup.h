/*
 * How a vCPU of a guest is started and reset by another: INIT and start-up IPIs. SDM Vol. 3, 9.4
 * "Multiple-Processor (MP) Initialization"; 10.1.4 "First Instruction Executed", table 10-1.
 *
 * They come as interprocessor interrupts (vm/lapic.c), which only note them: the vCPU takes them
 * itself when its turn comes, for its registers may be in another of the machine's CPUs.
 */
#ifndef QUIRE_VM_STARTUP_H
#define QUIRE_VM_STARTUP_H

#include <stdbool.h>
#include <stdint.h>

#include "vm/guest.h"

/* The IPIs have arrived. Of start-up IPIs one counts, the first after an INIT: a vCPU that does not
 * wait for it ignores it. */
void startup_init(struct guest_cpu *cpu);
void startup_sipi(struct guest_cpu *cpu, uint8_t vector);

/* Does it wait for a start-up IPI, and has none come? */
bool startup_waits(const struct guest_cpu *cpu);

/* Before the vCPU that is dealt with is entered: it takes what has come. False: it waits. */
bool startup_take_any(struct guest *guest);
static inline bool startup_take(struct guest *guest)
{
    const struct cpu_condition *is = &guest_at(guest)->is;

    return !(is->init || is->waits) || startup_take_any(guest);
}

#endif
