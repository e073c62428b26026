/*
 * This CPU's local APIC, as far as the hypervisor uses it: its timer, which takes the CPU back from
 * a ring-3 program that does not end. In xAPIC mode the registers are reached through the fixmap,
 * in x2APIC mode by MSR; which mode the firmware left is kept.
 *
 * SDM Vol. 3, chapter 11 "Advanced Programmable Interrupt Controller (APIC)".
 */
#ifndef QUIRE_ARCH_LAPIC_H
#define QUIRE_ARCH_LAPIC_H

#include <stdbool.h>
#include <stdint.h>

/* Vectors of the highest priority class. The rest stay below the task priority, so that nothing a
 * device or the firmware left pending can arrive. */
#define VECTOR_TIMER 0xf0
#define VECTOR_SPURIOUS 0xff /* its low four bits must be ones on old CPUs; no end of interrupt */

/*
 * Software-enables the local APIC of this CPU: spurious vector set, task priority at
 * VECTOR_TIMER's class - 1, the legacy interrupt line (LINT0) and the timer masked. E_UNSUPPORTED
 * when there is none or the firmware has switched it off; errors of fixmap_map(). Idempotent.
 */
int lapic_enable(void);

/* One interrupt VECTOR_TIMER after `count` ticks of the bus clock divided by 16. */
void lapic_timer_start(uint32_t count);
/* Ticks until then; 0: it is over. */
uint32_t lapic_timer_left(void);

/* Masks the timer. An interrupt that it raised before may still be pending: see lapic_pending(). */
void lapic_timer_stop(void);

/* Was this vector requested and not delivered yet? */
bool lapic_pending(uint8_t vector);

/* Whether interrupts of the PC's 8259 reach this CPU, through LINT0. After
 * lapic_enable(). */
void lapic_take_pic(bool on);

/* Ends the interrupt that is being served. */
void lapic_end_of_interrupt(void);

#endif
