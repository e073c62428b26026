/* See vm/interrupts.h. */
#include "vm/interrupts.h"

#include "lib/error.h"
#include "mm/trace.h"
#include "vm/device.h"
#include "vm/guest.h"
#include "vm/lapic.h"
#include "vm/sched.h"
#include "vm/startup.h"
#include "x86/control.h"

/* ---- Lines ---------------------------------------------------------------------------------- */

/* Each line goes to both kinds of controller; the guest opens one of the two. */
static unsigned pin_of(unsigned irq)
{
    return irq == IRQ_TIMER ? IOAPIC_TIMER_PIN : irq;
}

static bool is_replaced(const struct guest *guest, unsigned irq)
{
    return (irq == IRQ_TIMER || irq == IRQ_CLOCK) && hpet_replaces_legacy(guest);
}

static bool any_passes_pic(const struct guest *guest)
{
    for (unsigned i = 0; i < guest->cpus; i++)
        if (lapic_passes_pic(guest, i))
            return true;
    return false;
}

/* The 8259 pair asks those whose local APICs let it through. */
static void tell_of_pic(struct guest *guest)
{
    for (unsigned i = 0; i < guest->cpus; i++)
        if (lapic_passes_pic(guest, i)) {
            guest->cpu[i].quiet_until = 0;
            guest_nudge(&guest->cpu[i]);
        }
}

void irq_replace_line(struct guest *guest, unsigned irq, bool level)
{
    if (pic_line(guest, irq) == level)
        return;
    pic_set_line(guest, irq, level);
    if (level && pic_asks(guest))
        tell_of_pic(guest);
    if (guest_has_apic(guest))
        ioapic_set_pin(guest, pin_of(irq), level);
}

void irq_set_line(struct guest *guest, unsigned irq, bool level)
{
    if (pic_line(guest, irq) != level && !is_replaced(guest, irq))
        irq_replace_line(guest, irq, level);
}

bool irq_pending(const struct guest *guest, unsigned irq)
{
    if (any_passes_pic(guest) && !pic_masked(guest, irq) && pic_requested(guest, irq))
        return true;
    return guest_has_apic(guest) && ioapic_pending(guest, pin_of(irq));
}

bool irq_masked(const struct guest *guest, unsigned irq)
{
    if (is_replaced(guest, irq))
        return true;
    if (any_passes_pic(guest) && !pic_masked(guest, irq))
        return false;
    return !guest_has_apic(guest) || ioapic_masked(guest, pin_of(irq));
}

/* ---- The CPU -------------------------------------------------------------------------------- */

enum source { NOBODY, LOCAL_APIC, PIC_PAIR };

static enum source who_asks(const struct guest *guest)
{
    if (lapic_asks(guest))
        return LOCAL_APIC;
    return pic_asks(guest) && lapic_passes_pic(guest, guest->now) ? PIC_PAIR : NOBODY;
}

static uint8_t acknowledge(struct guest *guest, enum source source)
{
    return source == LOCAL_APIC ? lapic_acknowledge(guest) : pic_acknowledge(guest);
}

static void inject(struct guest *guest, struct vm_event event)
{
    if (guests_backend()->inject(guest->vcpu, event) != E_OK)
        return;
    guest_at(guest)->is.halted = guest_at(guest)->is.deaf = false;
    guest->interrupts++;
}

struct interrupt_origin interrupt_origin(const struct guest *guest, bool by_pic, uint8_t vector)
{
    const uint32_t *lvt = guest->devices.lapic[guest->now].lvt;
    unsigned pin = ioapic_pin_of(guest, vector);

    if (by_pic)
        return (struct interrupt_origin){ORIGIN_PIC, pic_line_of(guest, vector)};
    if (pin < IOAPIC_PINS)
        return (struct interrupt_origin){ORIGIN_IOAPIC, pin};
    for (unsigned which = 0; which < LAPIC_LVTS; which++)
        if ((uint8_t)lvt[which] == vector)
            return (struct interrupt_origin){ORIGIN_LVT, which};
    return (struct interrupt_origin){ORIGIN_IPI, 0};
}

static void trace_interrupt(const struct guest *guest, uint8_t vector,
                            struct interrupt_origin origin)
{
    trace(TRACE_INTERRUPT, guest_owner(guest), vector, 0,
          (uint64_t)origin.kind << 8 | origin.number, E_OK);
}

/* An NMI that cannot be taken at this entry is tried again at the next. */
static void offer_nmi(struct guest *guest)
{
    bool *waits = &guest->devices.lapic[guest->now].nmi;
    uint64_t before = guest->interrupts;

    if (!*waits)
        return;
    inject(guest, (struct vm_event){.kind = VM_EVENT_NMI});
    *waits = guest->interrupts == before;
    if (!*waits)
        trace_interrupt(guest, VECTOR_NMI, (struct interrupt_origin){.kind = ORIGIN_NMI});
}

void interrupts_look(struct guest *guest)
{
    for (unsigned i = 0; i < guest->cpus; i++)
        guest->cpu[i].quiet_until = 0;
}

void interrupts_come(struct guest *guest)
{
    interrupts_stir(guest);
    for (unsigned i = 0; i < guest->cpus; i++)
        guest_nudge(&guest->cpu[i]);
}

void interrupts_stir(struct guest *guest)
{
    devices_settle(guest);
    interrupts_look(guest);
}

uint64_t interrupts_offer(struct guest *guest, uint64_t ticks)
{
    const struct vm_backend *backend = guests_backend();
    uint64_t now = guest_clock_at(guest, ticks);
    enum source source;
    uint64_t next;

    if (now < guest_at(guest)->quiet_until)
        return guest_at(guest)->quiet_until - now;
    devices_update_due(guest, now);
    offer_nmi(guest);
    source = who_asks(guest);
    if (source != NOBODY && backend->interrupts_open(guest->vcpu)) {
        uint8_t vector = acknowledge(guest, source);

        if (trace_wanted(TRACE_INTERRUPT))
            trace_interrupt(guest, vector, interrupt_origin(guest, source == PIC_PAIR, vector));
        inject(guest, (struct vm_event){.kind = VM_EVENT_INTERRUPT, .vector = vector});
        source = who_asks(guest);
    }
    backend->want_window(guest->vcpu, source != NOBODY);
    next = devices_next_due(guest, now);
    if (source == NOBODY && !lapic_holds(guest))
        guest_at(guest)->quiet_until = next < UINT64_MAX - now ? now + next : UINT64_MAX;
    return next;
}

/* Of the vCPU that is dealt with, which has executed HLT. Its registers may be in another of the
 * machine's CPUs: what they say was noted then. */
static bool can_be_woken(struct guest *guest)
{
    uint64_t now = guest_now(guest);

    if (guest->devices.lapic[guest->now].nmi)
        return true;
    if (guest_at(guest)->is.deaf)
        return false;
    return who_asks(guest) != NOBODY || serial_listens(guest) || keyboard_listens(guest) ||
           devices_next(guest, now) != UINT64_MAX;
}

bool interrupts_can_wake(struct guest *guest)
{
    unsigned dealt_with = guest->now;
    bool can = false;

    for (unsigned i = 0; i < guest->cpus && !can; i++) {
        const struct guest_cpu *cpu = &guest->cpu[i];

        guest_deal_with(guest, i);
        can = !startup_waits(cpu) && (!cpu->is.halted || cpu->is.init || can_be_woken(guest));
    }
    guest_deal_with(guest, dealt_with);
    return can;
}
