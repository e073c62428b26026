/* See vm/interrupts.h. */
#include "vm/interrupts.h"

#include "lib/error.h"
#include "vm/device.h"
#include "vm/guest.h"

void irq_set_line(struct guest *guest, unsigned irq, bool level)
{
    pic_set_line(guest, irq, level);
}

bool irq_pending(const struct guest *guest, unsigned irq)
{
    return pic_requested(guest, irq);
}

bool irq_masked(const struct guest *guest, unsigned irq)
{
    return pic_masked(guest, irq);
}

uint64_t interrupts_offer(struct guest *guest, uint64_t now)
{
    const struct vm_backend *backend = guests_backend();

    devices_update(guest, now);
    if (pic_asks(guest) && backend->interrupts_open(guest->vcpu)) {
        struct vm_event event = {.kind = VM_EVENT_INTERRUPT, .vector = pic_acknowledge(guest)};

        if (backend->inject(guest->vcpu, event) == E_OK) {
            guest->halted = false;
            guest->interrupts++;
        }
    }
    backend->want_window(guest->vcpu, pic_asks(guest));
    return devices_next(guest, now);
}

bool interrupts_can_wake(struct guest *guest)
{
    uint64_t now = guests_backend()->ticks();

    if (!guests_backend()->interrupts_open(guest->vcpu))
        return false;
    return pic_asks(guest) || serial_listens(guest) || keyboard_listens(guest) ||
           devices_next(guest, now) != UINT64_MAX;
}
