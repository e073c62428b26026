/*
 * This CPU's local APIC, as far as the hypervisor uses it: its timer, which takes the CPU back from
 * a ring-3 program that does not end, and what it sends to other CPUs. In xAPIC mode the registers
 * are reached through the fixmap, in x2APIC mode by MSR; which mode the firmware left is kept.
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
#define VECTOR_WAKE 0xf1     /* out of HLT, to look for work */
#define VECTOR_SPURIOUS 0xff /* its low four bits must be ones on old CPUs; no end of interrupt */

/*
 * Software-enables the local APIC of this CPU: spurious vector set, task priority at
 * VECTOR_TIMER's class - 1, the legacy interrupt line (LINT0) and the timer masked. E_UNSUPPORTED
 * when there is none or the firmware has switched it off; errors of fixmap_map(). Idempotent.
 */
int lapic_enable(void);

/* The id that other CPUs address this one by; 0 without a local APIC. */
uint32_t lapic_id(void);

/* In x2APIC mode? And: into it, where the CPU that booted is in it (11.12). */
bool lapic_x2apic(void);
void lapic_enter_x2apic(void);

/*
 * To another CPU, by its APIC id (11.6.1 "Interrupt Command Register"): INIT, which has it wait for
 * a start-up IPI; that one, which has it begin in real mode at page * 4 KiB; an NMI; a vector.
 * Return when the APIC has taken the message. E_RANGE: in xAPIC mode ids are below 255.
 */
int lapic_send_init(uint32_t id);
int lapic_send_startup(uint32_t id, uint8_t page);
int lapic_send_nmi(uint32_t id);
int lapic_send_vector(uint32_t id, uint8_t vector);

/* One interrupt VECTOR_TIMER after `count` ticks of the bus clock divided by 16. */
void lapic_timer_start(uint32_t count);
/* The same each time that as many have passed, until it is stopped. */
void lapic_timer_repeat(uint32_t count);
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
