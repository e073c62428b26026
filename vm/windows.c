/* See vm/windows.h. */
#include "vm/windows.h"

#include "lib/bits.h"
#include "vm/device.h"
#include "vm/exits.h"
#include "vm/guest.h"
#include "vm/interrupts.h"
#include "vm/report.h"
#include "vm/slots.h"

const struct window *window_at(gpa_t at, const struct device **device)
{
    for (unsigned i = 0; (*device = device_by_index(i)) != NULL; i++) {
        for (unsigned j = 0; j < (*device)->window_count; j++) {
            const struct window *window = &(*device)->windows[j];

            if (at.v >= window->base && at.v - window->base < window->size)
                return window;
        }
    }
    return NULL;
}

static bool covers(struct guest *guest, gpa_t at)
{
    const struct slot *slot = guest_slot_at(guest, at);

    return slot != NULL && slot->kind == SLOT_DEVICE;
}

uint64_t window_read(struct guest *guest, gpa_t at, unsigned bytes)
{
    const struct device *device;
    const struct window *window = window_at(at, &device);

    interrupts_stir(guest);
    return window != NULL ? window->read(guest, at.v - window->base, bytes) : UINT64_MAX;
}

void window_write(struct guest *guest, gpa_t at, unsigned bytes, uint64_t value)
{
    const struct device *device;
    const struct window *window = window_at(at, &device);

    interrupts_stir(guest);
    if (window != NULL)
        window->write(guest, at.v - window->base, bytes, value & BITS(8 * bytes - 1, 0));
}

static const struct vm_bus bus = {covers, window_read, window_write};

void exit_window(struct guest *guest, const struct vm_exit *exit)
{
    const struct device *device;
    struct vm_emulation emulation;

    (void)window_at(exit->memory.gpa, &device);
    const char *name = device != NULL ? device->name : "?";
    if (exit->memory.walk || exit->memory.access & RIGHT_X) {
        guest_stop(guest, exit, "%s in a device (%s at GPA 0x%lx), at RIP 0x%lx",
                   exit->memory.walk ? "page tables" : "code", name, exit->memory.gpa.v, exit->rip);
        return;
    }
    switch (guests_backend()->emulate(guest->vcpu, exit, &bus, &emulation)) {
    case VM_OPERAND_REACHED:
    case VM_OPERAND_AGAIN:
        break;
    case VM_OPERAND_EXCEPTION:
        (void)guests_backend()->inject(guest->vcpu, emulation.event);
        break;
    case VM_OPERAND_MEMORY:
        exit_refused(guest, &emulation.exit);
        break;
    case VM_OPERAND_UNKNOWN:
        guest_stop(guest, exit, "access to a device (%s at GPA 0x%lx) at RIP 0x%lx: %s", name,
                   exit->memory.gpa.v, exit->rip, emulation.why);
        break;
    }
}
