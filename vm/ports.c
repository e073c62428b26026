/* See vm/ports.h. */
#include "vm/ports.h"

#include "arch/x86_64/control.h"
#include "lib/bits.h"
#include "lib/error.h"
#include "lib/string.h"
#include "vm/exits.h"
#include "vm/guest.h"
#include "vm/slots.h"

static const struct port_device *const devices[] = {
    &serial_device, &debug_device, &cmos_device,     &pit_device,
    &pic_device,    &reset_device, &keyboard_device,
};

void devices_reset(struct guest *guest)
{
    memset(&guest->devices, 0, sizeof(guest->devices));
    for (unsigned i = 0; i < ARRAY_SIZE(devices); i++) {
        if (devices[i]->reset != NULL)
            devices[i]->reset(guest);
    }
}

static const struct port_range *find_range(uint16_t port, const struct port_device **device)
{
    for (unsigned i = 0; i < ARRAY_SIZE(devices); i++) {
        for (unsigned j = 0; j < devices[i]->count; j++) {
            const struct port_range *range = &devices[i]->ranges[j];
            if (port >= range->first && port <= range->last) {
                *device = devices[i];
                return range;
            }
        }
    }
    return NULL;
}

const char *port_name(uint16_t port)
{
    const struct port_device *device;

    return find_range(port, &device) != NULL ? device->name : NULL;
}

static uint32_t width_mask(unsigned width)
{
    return (uint32_t)BITS(width * 8 - 1, 0);
}

static bool takes_whole(const struct port_range *range, uint16_t port, unsigned width)
{
    return range != NULL && width <= range->width && (uint32_t)port + width - 1 <= range->last;
}

static uint32_t read_unit(struct guest *guest, uint16_t port, unsigned width)
{
    const struct port_device *device;
    const struct port_range *range = find_range(port, &device);

    if (range == NULL) {
        guest->devices.unclaimed++;
        guest->devices.last_unclaimed = port;
    }
    if (range == NULL || range->read == NULL)
        return width_mask(width);
    return range->read(guest, port, width) & width_mask(width);
}

static void write_unit(struct guest *guest, uint16_t port, unsigned width, uint32_t value)
{
    const struct port_device *device;
    const struct port_range *range = find_range(port, &device);

    if (range == NULL) {
        guest->devices.unclaimed++;
        guest->devices.last_unclaimed = port;
    }
    if (range != NULL && range->write != NULL)
        range->write(guest, port, width, value & width_mask(width));
}

uint32_t port_read(struct guest *guest, uint16_t port, unsigned width)
{
    const struct port_device *device;
    uint32_t value = 0;

    if (takes_whole(find_range(port, &device), port, width))
        return read_unit(guest, port, width);
    for (unsigned i = 0; i < width; i++)
        value |= read_unit(guest, (uint16_t)(port + i), 1) << (8 * i);
    return value;
}

void port_write(struct guest *guest, uint16_t port, unsigned width, uint32_t value)
{
    const struct port_device *device;

    if (takes_whole(find_range(port, &device), port, width)) {
        write_unit(guest, port, width, value);
        return;
    }
    for (unsigned i = 0; i < width; i++)
        write_unit(guest, (uint16_t)(port + i), 1, value >> (8 * i) & 0xff);
}

void exit_port(struct guest *guest, const struct vm_exit *exit)
{
    uint64_t *rax = &guest->vcpu->gpr[RAX];
    unsigned width = exit->port.width;
    uint32_t value;

    if (exit->port.string) {
        exit_string(guest, exit);
        return;
    }
    guests_backend()->note_port(guest->vcpu, exit->port.port, width);
    if (exit->port.in) {
        value = port_read(guest, exit->port.port, width);
        *rax = width == 4 ? value : (*rax & ~(uint64_t)width_mask(width)) | value;
    } else {
        port_write(guest, exit->port.port, width, (uint32_t)*rax);
    }
    skip_instruction(guest, exit);
}
