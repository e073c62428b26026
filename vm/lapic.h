/*
 * The local APICs of a guest's CPUs, between those who raise interrupts and vm/interrupts.c, which
 * hands them to the CPU. SDM Vol. 3, chapter 11 "Advanced Programmable Interrupt Controller
 * (APIC)". What is not told of which, speaks of the vCPU that is dealt with (vm/guest_cpu.h).
 *
 * Guests with `pc` have them, one for each vCPU. Without effect, for nothing is there that could
 * cause or take it: SMI, thermal and performance interrupts.
 */
#ifndef QUIRE_VM_LAPIC_H
#define QUIRE_VM_LAPIC_H

#include <stdbool.h>
#include <stdint.h>

#include "vm/devices.h"
#include "x86/msr.h"

struct guest;

#define LAPIC_FIRST_VECTOR 16 /* those below are the CPU's own */
#define LAPIC_SVR_ENABLED BIT(8)
#define LAPIC_LVT_MASKED BIT(16)

enum lapic_error {
    LAPIC_ERROR_SEND_ILLEGAL = 1 << 5,
    LAPIC_ERROR_RECEIVED_ILLEGAL = 1 << 6,
    LAPIC_ERROR_ILLEGAL_REGISTER = 1 << 7,
};

/* Delivery modes of LVT, ICR and I/O APIC. */
enum lapic_delivery {
    LAPIC_DELIVER_FIXED = 0,
    LAPIC_DELIVER_LOWEST = 1,
    LAPIC_DELIVER_NMI = 4,
    LAPIC_DELIVER_INIT = 5,
    LAPIC_DELIVER_STARTUP = 6,
    LAPIC_DELIVER_EXTINT = 7,
};

bool guest_has_apic(const struct guest *guest);

/* ---- Interrupts on their way to the CPU ------------------------------------------------------ */

/* One by its delivery mode, from another vCPU or the I/O APIC, to those of a set: bit n is vCPU n.
 * By lowest priority it goes to one of them. Those that run on other CPUs are made to look. */
void lapic_route(struct guest *guest, unsigned to, unsigned mode, uint8_t vector, bool level);
/* From an entry of the local vector table. */
void lapic_raise(struct guest *guest, enum lapic_lvt which);
/* Which are meant (11.6.2)? `destination` is as x2APIC mode has it: LAPIC_EVERYBODY, or an ID. */
#define LAPIC_EVERYBODY UINT32_MAX
unsigned lapic_addressed(const struct guest *guest, uint32_t destination, bool logical);
/* As eight bits have it. */
static inline uint32_t lapic_destination(uint8_t destination)
{
    return destination == UINT8_MAX ? LAPIC_EVERYBODY : destination;
}
/* Is this vector requested, and not taken yet? By any of the guest's? */
bool lapic_has_vector(const struct guest *guest, uint8_t vector);
bool lapic_any_has_vector(const struct guest *guest, uint8_t vector);

/* Does anything wait, whatever its priority: a vector, or an NMI? */
bool lapic_holds(const struct guest *guest);
/* Does a vector wait whose priority the CPU takes? Which; it is in service from now on. */
bool lapic_asks(const struct guest *guest);
uint8_t lapic_acknowledge(struct guest *guest);
/* Do requests of the 8259 pair reach this vCPU? */
bool lapic_passes_pic(const struct guest *guest, unsigned index);
/* Is it the one that boots (11.4.4: IA32_APIC_BASE.BSP)? */
bool lapic_is_first(const struct guest *guest);
/* As after an INIT (11.4.7.3): the ID and the mode stay. */
void lapic_init(struct guest *guest);

/* ---- What its registers do (vm/dev_lapic.c) -------------------------------------------------- */

static inline bool lapic_is_x2apic(const struct dev_lapic *lapic)
{
    return (lapic->base & APIC_BASE_EXTD) != 0;
}

/* Its logical ID in x2APIC mode (11.12.10.2): cluster 0, a bit for each. */
static inline uint32_t lapic_x2apic_ldr(unsigned index)
{
    return 1u << index;
}

bool lapic_is_on(const struct dev_lapic *lapic); /* neither by its MSR nor by SVR switched off */
uint32_t lapic_task_priority(const struct guest *guest);
uint32_t lapic_processor_priority(const struct guest *guest);
void lapic_note_error(struct guest *guest, uint32_t error);
void lapic_end(struct guest *guest); /* EOI */
void lapic_send(struct guest *guest, uint64_t icr);

/* ---- Its MSRs -------------------------------------------------------------------------------- */

#define X2APIC_MSR_FIRST 0x800u
#define X2APIC_MSR_LAST 0x83fu

/* Of IA32_APIC_BASE, IA32_TSC_DEADLINE and x2APIC mode. False: #GP(0). */
bool lapic_has_msr(const struct guest *guest, uint32_t index);
bool lapic_rdmsr(struct guest *guest, uint32_t index, uint64_t *value);
bool lapic_wrmsr(struct guest *guest, uint32_t index, uint64_t value);

/* ---- Its timer (vm/lapic_timer.c) ------------------------------------------------------------ */

void lapic_timer_reset(struct guest *guest);
void lapic_timer_start_count(struct guest *guest, uint32_t count);
uint32_t lapic_timer_count(const struct guest *guest); /* what is left of it */
void lapic_timer_set_divide(struct guest *guest, uint32_t value);
/* The entry of the local vector table has become another. */
void lapic_timer_mode_changed(struct guest *guest, uint32_t before);
uint64_t lapic_timer_deadline(const struct guest *guest);
void lapic_timer_set_deadline(struct guest *guest, uint64_t tsc);
/* As the members of struct device. */
void lapic_timer_update(struct guest *guest, uint64_t now);
uint64_t lapic_timer_next(const struct guest *guest, uint64_t now);

#endif
