/* See vm/interrupts.h. */
#include "vm/interrupts.h"

#include "lib/error.h"
#include "mm/trace.h"
#include "vm/device.h"
#include "vm/guest.h"
#include "vm/lapic.h"
#include "vm/sched.h"
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

void irq_replace_line(struct guest *guest, unsigned irq, bool level)
{
    if (pic_line(guest, irq) == level)
        return;
    pic_set_line(guest, irq, level);
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
    if (lapic_passes_pic(guest) && !pic_masked(guest, irq) && pic_requested(guest, irq))
        return true;
    return guest_has_apic(guest) && ioapic_pending(guest, pin_of(irq));
}

bool irq_masked(const struct guest *guest, unsigned irq)
{
    if (is_replaced(guest, irq))
        return true;
    if (lapic_passes_pic(guest) && !pic_masked(guest, irq))
        return false;
    return !guest_has_apic(guest) || ioapic_masked(guest, pin_of(irq));
}

/* ---- The CPU -------------------------------------------------------------------------------- */

enum source { NOBODY, LOCAL_APIC, PIC_PAIR };

static enum source who_asks(const struct guest *guest)
{
    if (lapic_asks(guest))
        return LOCAL_APIC;
    return pic_asks(guest) && lapic_passes_pic(guest) ? PIC_PAIR : NOBODY;
}

static uint8_t acknowledge(struct guest *guest, enum source source)
{
    return source == LOCAL_APIC ? lapic_acknowledge(guest) : pic_acknowledge(guest);
}

static void inject(struct guest *guest, struct vm_event event)
{
    if (guests_backend()->inject(guest->vcpu, event) != E_OK)
        return;
    guest->halted = false;
    guest->interrupts++;
}

struct interrupt_origin interrupt_origin(const struct guest *guest, bool by_pic, uint8_t vector)
{
    const uint32_t *lvt = guest->devices.lapic.lvt;
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
    bool *waits = &guest->devices.lapic.nmi;
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
    guest->devices.quiet_until = 0;
    guest_nudge(guest);
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

    if (now < guest->devices.quiet_until)
        return guest->devices.quiet_until - now;
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
        guest->devices.quiet_until = next < UINT64_MAX - now ? now + next : UINT64_MAX;
    return next;
}

bool interrupts_can_wake(struct guest *guest)
{
    uint64_t now = guest_now(guest);

    if (guest->devices.lapic.nmi)
        return true;
    if (!guests_backend()->interrupts_open(guest->vcpu))
        return false;
    return who_asks(guest) != NOBODY || serial_listens(guest) || keyboard_listens(guest) ||
           devices_next(guest, now) != UINT64_MAX;
}
