/*
 * The local APIC of a guest's CPU: which vectors wait, which are in service, and what sends them.
 * SDM Vol. 3, 11.5 "Handling Local Interrupts", 11.6 "Issuing Interprocessor Interrupts", 11.8
 * "Handling Interrupts". Its registers are in vm/dev_lapic.c, its timer in vm/lapic_timer.c.
 */
#include "vm/lapic.h"

#include "lib/bits.h"
#include "vm/guest.h"
#include "vm/interrupts.h"
#include "x86/msr.h"

#define LVT_DELIVERY(value) ((value) >> 8 & 7)

#define ICR_LOGICAL BIT(11)
#define ICR_SHORTHAND(icr) ((icr) >> 18 & 3)
enum { TO_DESTINATION, TO_SELF, TO_ALL, TO_OTHERS };

#define X2APIC_CLUSTER(destination) ((destination) >> 16) /* 11.12.10.2 */

bool guest_has_apic(const struct guest *guest)
{
    return guest->options.pc;
}

/* ---- Vectors -------------------------------------------------------------------------------- */

static int highest_vector(const uint64_t set[4])
{
    for (int i = 3; i >= 0; i--) {
        if (set[i] != 0)
            return i * 64 + (int)highest_bit(set[i]);
    }
    return -1;
}

static bool has_vector(const uint64_t set[4], uint8_t vector)
{
    return (set[vector / 64] & BIT(vector % 64)) != 0;
}

static void put_vector(uint64_t set[4], uint8_t vector, bool present)
{
    uint64_t bit = BIT(vector % 64);

    set[vector / 64] = present ? set[vector / 64] | bit : set[vector / 64] & ~bit;
}

bool lapic_is_on(const struct dev_lapic *lapic)
{
    return (lapic->base & APIC_BASE_EN) && lapic->svr & LAPIC_SVR_ENABLED;
}

uint32_t lapic_task_priority(const struct guest *guest)
{
    return (uint32_t)guest->vcpu->cr8 << 4 | guest->devices.lapic[guest->now].tpr_low;
}

/* 11.8.3.1 "Task and Processor Priorities". */
uint32_t lapic_processor_priority(const struct guest *guest)
{
    uint32_t task = lapic_task_priority(guest);
    int served = highest_vector(guest->devices.lapic[guest->now].isr);

    if (served < 0 || (task & 0xf0) >= ((uint32_t)served & 0xf0))
        return task;
    return (uint32_t)served & 0xf0;
}

void lapic_note_error(struct guest *guest, uint32_t error)
{
    struct dev_lapic *lapic = &guest->devices.lapic[guest->now];

    if (lapic->errors & error)
        return; /* one that is noted already raises nothing more, and so ends the recursion below */
    lapic->errors |= error;
    lapic_raise(guest, LAPIC_LVT_ERROR);
}

static void lapic_accept(struct guest *guest, uint8_t vector, bool level)
{
    struct dev_lapic *lapic = &guest->devices.lapic[guest->now];

    if (!lapic_is_on(lapic))
        return;
    if (vector < LAPIC_FIRST_VECTOR) {
        lapic_note_error(guest, LAPIC_ERROR_RECEIVED_ILLEGAL);
        return;
    }
    put_vector(lapic->irr, vector, true);
    put_vector(lapic->tmr, vector, level);
}

void lapic_raise(struct guest *guest, enum lapic_lvt which)
{
    uint32_t entry = guest->devices.lapic[guest->now].lvt[which];

    if (!(entry & LAPIC_LVT_MASKED)) /* timer and error have no mode but 0: fixed */
        lapic_deliver(guest, LVT_DELIVERY(entry), (uint8_t)entry, false);
}

bool lapic_has_vector(const struct guest *guest, uint8_t vector)
{
    return has_vector(guest->devices.lapic[guest->now].irr, vector);
}

bool lapic_holds(const struct guest *guest)
{
    const struct dev_lapic *lapic = &guest->devices.lapic[guest->now];

    return guest_has_apic(guest) && (lapic->nmi || highest_vector(lapic->irr) >= 0);
}

bool lapic_asks(const struct guest *guest)
{
    if (!guest_has_apic(guest))
        return false;
    const struct dev_lapic *lapic = &guest->devices.lapic[guest->now];
    int vector = highest_vector(lapic->irr);

    return vector >= 0 && lapic_is_on(lapic) &&
           ((uint32_t)vector & 0xf0) > (lapic_processor_priority(guest) & 0xf0);
}

uint8_t lapic_acknowledge(struct guest *guest)
{
    struct dev_lapic *lapic = &guest->devices.lapic[guest->now];
    uint8_t vector = (uint8_t)highest_vector(lapic->irr);

    put_vector(lapic->irr, vector, false);
    put_vector(lapic->isr, vector, true);
    return vector;
}

/* The wire from the 8259 pair: LINT0 as ExtINT, or the CPU's own pin where there is no APIC. */
bool lapic_passes_pic(const struct guest *guest)
{
    const struct dev_lapic *lapic = &guest->devices.lapic[guest->now];
    uint32_t entry = lapic->lvt[LAPIC_LVT_LINT0];

    if (!guest_has_apic(guest) || !(lapic->base & APIC_BASE_EN))
        return true;
    return !(entry & LAPIC_LVT_MASKED) && LVT_DELIVERY(entry) == LAPIC_DELIVER_EXTINT;
}

/* 11.8.5 "Signaling Interrupt Servicing Completion". The I/O APIC hears of it where the vector came
 * by a level. */
void lapic_end(struct guest *guest)
{
    struct dev_lapic *lapic = &guest->devices.lapic[guest->now];
    int vector = highest_vector(lapic->isr);

    if (vector < 0)
        return;
    put_vector(lapic->isr, (uint8_t)vector, false);
    if (has_vector(lapic->tmr, (uint8_t)vector))
        ioapic_end(guest, (uint8_t)vector);
}

/* ---- Interprocessor interrupts --------------------------------------------------------------- */

/* 11.6.2 "Determining IPI Destination"; the only CPU has the ID 0. */
bool lapic_is_addressed(const struct guest *guest, uint32_t destination, bool logical)
{
    const struct dev_lapic *lapic = &guest->devices.lapic[guest->now];

    if (lapic_is_x2apic(lapic)) {
        if (destination == UINT32_MAX)
            return true;
        if (!logical)
            return destination == 0;
        return X2APIC_CLUSTER(destination) == 0 && destination & LAPIC_X2APIC_LDR;
    }
    destination &= 0xff;
    if (!logical)
        return destination == 0xff || destination == lapic->id;
    if (lapic->dfr >> 28 == 0xf)
        return destination & lapic->ldr;
    return (destination >> 4 == 0xf || destination >> 4 == lapic->ldr >> 4) &&
           destination & lapic->ldr & 0xf;
}

void lapic_deliver(struct guest *guest, unsigned mode, uint8_t vector, bool level)
{
    switch (mode) {
    case LAPIC_DELIVER_FIXED:
    case LAPIC_DELIVER_LOWEST:
        lapic_accept(guest, vector, level);
        break;
    case LAPIC_DELIVER_NMI:
        guest->devices.lapic[guest->now].nmi = true;
        break;
    }
}

void lapic_send(struct guest *guest, uint64_t icr)
{
    unsigned mode = icr >> 8 & 7, shorthand = ICR_SHORTHAND(icr);
    bool x2apic = lapic_is_x2apic(&guest->devices.lapic[guest->now]);
    uint32_t destination = (uint32_t)(x2apic ? icr >> 32 : icr >> 56);
    bool fixed = mode == LAPIC_DELIVER_FIXED || mode == LAPIC_DELIVER_LOWEST;

    guest->devices.lapic[guest->now].icr = icr;
    if (fixed && (uint8_t)icr < LAPIC_FIRST_VECTOR) {
        lapic_note_error(guest, LAPIC_ERROR_SEND_ILLEGAL);
        return;
    }
    if (shorthand == TO_OTHERS ||
        (shorthand == TO_DESTINATION && !lapic_is_addressed(guest, destination, icr & ICR_LOGICAL)))
        return;
    lapic_deliver(guest, mode, (uint8_t)icr, false);
}
