/*
 * The local APICs of a guest's CPUs: which vectors wait, which are in service, and what sends them.
 * SDM Vol. 3, 11.5 "Handling Local Interrupts", 11.6 "Issuing Interprocessor Interrupts", 11.8
 * "Handling Interrupts". Its registers are in vm/dev_lapic.c, its timer in vm/lapic_timer.c.
 */
#include "vm/lapic.h"

#include "lib/bits.h"
#include "vm/guest.h"
#include "vm/interrupts.h"
#include "vm/sched.h"
#include "vm/startup.h"
#include "x86/msr.h"

#define LVT_DELIVERY(value) ((value) >> 8 & 7)

#define ICR_MODE(icr) ((icr) >> 8 & 7)
#define ICR_LOGICAL BIT(11)
#define ICR_ASSERT BIT(14)
#define ICR_LEVEL BIT(15)
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

/* To the vCPU that is dealt with. In wait-for-SIPI state there is no NMI. */
static void deliver(struct guest *guest, unsigned mode, uint8_t vector, bool level)
{
    struct guest_cpu *cpu = guest_at(guest);

    switch (mode) {
    case LAPIC_DELIVER_FIXED:
    case LAPIC_DELIVER_LOWEST:
        lapic_accept(guest, vector, level);
        break;
    case LAPIC_DELIVER_NMI:
        guest->devices.lapic[guest->now].nmi = !cpu->is.waits;
        break;
    case LAPIC_DELIVER_INIT:
        startup_init(cpu);
        break;
    case LAPIC_DELIVER_STARTUP:
        startup_sipi(cpu, vector);
        break;
    }
}

void lapic_raise(struct guest *guest, enum lapic_lvt which)
{
    uint32_t entry = guest->devices.lapic[guest->now].lvt[which];

    if (!(entry & LAPIC_LVT_MASKED)) /* timer and error have no mode but 0: fixed */
        deliver(guest, LVT_DELIVERY(entry), (uint8_t)entry, false);
}

bool lapic_has_vector(const struct guest *guest, uint8_t vector)
{
    return has_vector(guest->devices.lapic[guest->now].irr, vector);
}

bool lapic_any_has_vector(const struct guest *guest, uint8_t vector)
{
    for (unsigned i = 0; i < guest->cpus; i++)
        if (has_vector(guest->devices.lapic[i].irr, vector))
            return true;
    return false;
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
bool lapic_passes_pic(const struct guest *guest, unsigned index)
{
    const struct dev_lapic *lapic = &guest->devices.lapic[index];
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

/* 11.6.2 "Determining IPI Destination". */
static bool is_addressed(const struct guest *guest, unsigned index, uint32_t destination,
                         bool logical)
{
    const struct dev_lapic *lapic = &guest->devices.lapic[index];
    uint8_t low = (uint8_t)destination;

    if (!(lapic->base & APIC_BASE_EN))
        return false;
    if (destination == LAPIC_EVERYBODY)
        return true;
    if (lapic_is_x2apic(lapic)) {
        if (!logical)
            return destination == index;
        return X2APIC_CLUSTER(destination) == 0 && destination & lapic_x2apic_ldr(index);
    }
    if (!logical)
        return destination == lapic->id;
    if (lapic->dfr >> 28 == 0xf)
        return low & lapic->ldr;
    return (low >> 4 == 0xf || low >> 4 == lapic->ldr >> 4) && low & lapic->ldr & 0xf;
}

unsigned lapic_addressed(const struct guest *guest, uint32_t destination, bool logical)
{
    unsigned who = 0;

    for (unsigned i = 0; i < guest->cpus; i++)
        who |= is_addressed(guest, i, destination, logical) ? 1u << i : 0;
    return who;
}

/* 11.6.2.4 "Lowest Priority Delivery Mode": of those that take interrupts the one whose task is the
 * least important; of equals, that with the lowest number. */
static unsigned lowest_of(struct guest *guest, unsigned who)
{
    unsigned dealt_with = guest->now, best = 0;
    uint32_t least = UINT32_MAX;

    for (unsigned i = 0; i < guest->cpus; i++) {
        guest_deal_with(guest, i);
        if (!(who >> i & 1) || !lapic_is_on(&guest->devices.lapic[i]) ||
            lapic_processor_priority(guest) >= least)
            continue;
        least = lapic_processor_priority(guest);
        best = 1u << i;
    }
    guest_deal_with(guest, dealt_with);
    return best;
}

void lapic_route(struct guest *guest, unsigned to, unsigned mode, uint8_t vector, bool level)
{
    unsigned dealt_with = guest->now;

    if (mode == LAPIC_DELIVER_LOWEST)
        to = lowest_of(guest, to);
    for (unsigned i = 0; i < guest->cpus; i++) {
        if (!(to >> i & 1))
            continue;
        guest_deal_with(guest, i);
        deliver(guest, mode, vector, level);
        guest->cpu[i].quiet_until = 0;
        guest_nudge(&guest->cpu[i]);
    }
    guest_deal_with(guest, dealt_with);
}

/* Whom the command means. By a shorthand that includes the sender no INIT and no start-up goes
 * (11.6.1, table 11-3). */
static unsigned destinations(const struct guest *guest, uint64_t icr, bool x2apic)
{
    unsigned mode = ICR_MODE(icr), self = 1u << guest->now, all = (1u << guest->cpus) - 1;
    bool starts = mode == LAPIC_DELIVER_INIT || mode == LAPIC_DELIVER_STARTUP;

    switch (ICR_SHORTHAND(icr)) {
    case TO_SELF:
        return starts ? 0 : self;
    case TO_ALL:
        return starts ? 0 : all;
    case TO_OTHERS:
        return all & ~self;
    }
    return lapic_addressed(guest,
                           x2apic ? (uint32_t)(icr >> 32) : lapic_destination((uint8_t)(icr >> 56)),
                           icr & ICR_LOGICAL);
}

void lapic_send(struct guest *guest, uint64_t icr)
{
    unsigned mode = ICR_MODE(icr);
    bool fixed = mode == LAPIC_DELIVER_FIXED || mode == LAPIC_DELIVER_LOWEST;

    guest->devices.lapic[guest->now].icr = icr;
    if (fixed && (uint8_t)icr < LAPIC_FIRST_VECTOR) {
        lapic_note_error(guest, LAPIC_ERROR_SEND_ILLEGAL);
        return;
    }
    if (mode == LAPIC_DELIVER_INIT && icr & ICR_LEVEL && !(icr & ICR_ASSERT))
        return; /* the end of an INIT, which nothing waits for (11.6.1, note 3) */
    lapic_route(guest, destinations(guest, icr, lapic_is_x2apic(&guest->devices.lapic[guest->now])),
                mode, (uint8_t)icr, false);
}
