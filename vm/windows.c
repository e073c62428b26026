/* See vm/windows.h. */
#include "vm/windows.h"

#include "lib/bits.h"
#include "lib/panic.h"
#include "vm/device.h"
#include "vm/exits.h"
#include "vm/guest.h"
#include "vm/report.h"
#include "vm/slots.h"

/* Those of all devices, in order. */
#define ROWS 8
static struct {
    struct row {
        const struct window *window;
        const struct device *device;
    } row[ROWS];
    unsigned rows;
} map;

void windows_init(void)
{
    const struct device *device;

    map.rows = 0;
    for (unsigned i = 0; (device = device_by_index(i)) != NULL; i++) {
        for (unsigned j = 0; j < device->window_count; j++) {
            invariant(map.rows < ROWS);
            map.row[map.rows++] = (struct row){&device->windows[j], device};
        }
    }
}

const struct window *window_at(gpa_t at, const struct device **device)
{
    for (unsigned i = 0; i < map.rows; i++) {
        const struct row *row = &map.row[i];

        if (at.v - row->window->base < row->window->size) {
            *device = row->device;
            return row->window;
        }
    }
    *device = NULL;
    return NULL;
}

bool window_is_nobodys(const struct guest *guest, gpa_t at, unsigned access)
{
    const struct slot *slot = guest_slot_at(guest, at);

    if (access & RIGHT_X)
        return false;
    return slot == NULL ||
           (access & RIGHT_W && (slot->kind == SLOT_ROM || slot->kind == SLOT_ROM_LAZY));
}

bool window_is_stray(const struct guest *guest, gpa_t at, unsigned access)
{
    return guest->options.stray == STRAY_LOST && window_is_nobodys(guest, at, access);
}

static bool is_device(const struct guest *guest, gpa_t at)
{
    const struct slot *slot = guest_slot_at(guest, at);

    return slot != NULL && slot->kind == SLOT_DEVICE;
}

static bool covers(struct guest *guest, gpa_t at, unsigned access)
{
    return is_device(guest, at) || window_is_stray(guest, at, access);
}

uint64_t window_read(struct guest *guest, gpa_t at, unsigned bytes)
{
    const struct device *device;
    const struct window *window = window_at(at, &device);

    if (window == NULL)
        return UINT64_MAX;
    device_touched(guest, device);
    return window->read(guest, at.v - window->base, bytes);
}

void window_write(struct guest *guest, gpa_t at, unsigned bytes, uint64_t value)
{
    const struct device *device;
    const struct window *window = window_at(at, &device);

    if (window == NULL)
        return;
    device_touched(guest, device);
    window->write(guest, at.v - window->base, bytes, value & BITS(8 * bytes - 1, 0));
}

static const char *part_at(const struct guest *guest, gpa_t at)
{
    const struct slot *slot = guest_slot_at(guest, at);
    const struct device *device;

    if (slot == NULL)
        return "nothing";
    if (slot->kind != SLOT_DEVICE)
        return slot_kind_name(slot->kind);
    return window_at(at, &device) != NULL ? device->name : "?";
}

/* What is no device's: nothing, or ROM that an instruction would write to. */
static uint64_t bus_read(struct guest *guest, gpa_t at, unsigned bytes)
{
    uint64_t value = 0;

    if (is_device(guest, at))
        return window_read(guest, at, bytes);
    if (guest_slot_at(guest, at) == NULL)
        return UINT64_MAX;
    (void)guest_read(guest, at, &value, bytes);
    return value;
}

static void bus_write(struct guest *guest, gpa_t at, unsigned bytes, uint64_t value)
{
    if (is_device(guest, at))
        window_write(guest, at, bytes, value);
}

static const struct vm_bus bus = {covers, bus_read, bus_write};

void exit_window(struct guest *guest, const struct vm_exit *exit)
{
    struct vm_emulation emulation;

    if (exit->memory.walk || exit->memory.access & RIGHT_X) {
        guest_stop(guest, exit, "%s in a device (%s at GPA 0x%lx), at RIP 0x%lx",
                   exit->memory.walk ? "page tables" : "code", part_at(guest, exit->memory.gpa),
                   exit->memory.gpa.v, exit->rip);
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
        guest_stop(guest, exit, "access to %s (%s at GPA 0x%lx) at RIP 0x%lx: %s",
                   is_device(guest, exit->memory.gpa) ? "a device" : "what is lost",
                   part_at(guest, exit->memory.gpa), exit->memory.gpa.v, exit->rip, emulation.why);
        break;
    }
}
