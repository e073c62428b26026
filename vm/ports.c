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

/* Elements of a REP string instruction that are done at one exit; the rest follow at the next, so
 * that a guest cannot hold the CPU beyond its slice. */
#define STRING_BURST 1024

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

/*
 * A string instruction in progress. Offsets move within the address size; the segment's base stays
 * what the first element's linear address says.
 */
struct string_io {
    struct guest *guest;
    const struct vm_exit *exit;
    uint64_t offset_mask; /* of SI, DI and CX by the address size */
    uint64_t linear_mask; /* linear addresses wrap at 4 GiB outside 64-bit mode */
    uint64_t base;
    int64_t step;
};

static int string_begin(struct string_io *io, struct guest *guest, const struct vm_exit *exit)
{
    unsigned address_bytes = exit->port.address_bytes;
    uint64_t offset = guest->vcpu->gpr[exit->port.in ? RDI : RSI];
    struct vcpu_state state;
    int error = guests_backend()->get_state(guest->vcpu, &state);

    if (error != E_OK)
        return error;
    io->guest = guest;
    io->exit = exit;
    io->offset_mask = address_bytes == 8 ? UINT64_MAX : BITS(address_bytes * 8 - 1, 0);
    io->linear_mask =
        address_bytes == 8 || exit->port.linear.v > UINT32_MAX ? UINT64_MAX : UINT32_MAX;
    io->base = exit->port.linear.v - (offset & io->offset_mask);
    io->step = state.rflags & RFLAGS_DF ? -(int64_t)exit->port.width : exit->port.width;
    return E_OK;
}

/* Replaces the part of a register that the address size covers; a 32-bit result clears the upper
 * half, as it does everywhere. */
static void set_offset(const struct string_io *io, enum gpr which, uint64_t value)
{
    uint64_t *gpr = &io->guest->vcpu->gpr[which];

    if (io->offset_mask == UINT16_MAX)
        *gpr = (*gpr & ~io->offset_mask) | (value & io->offset_mask);
    else
        *gpr = value & io->offset_mask;
}

/* Copies between `bytes` and the guest's memory at a linear address, as the guest may: INS needs a
 * writable slot, OUTS a readable one. */
static int copy_linear(const struct string_io *io, uint64_t linear, uint8_t *bytes)
{
    struct guest *guest = io->guest;
    unsigned needed = io->exit->port.in ? RIGHT_W : RIGHT_R;

    for (unsigned i = 0; i < io->exit->port.width; i++) {
        const struct slot *slot;
        gpa_t at;
        int error =
            guests_backend()->translate(guest->vcpu, gva((linear + i) & io->linear_mask), &at);

        if (error != E_OK)
            return error;
        slot = guest_slot_at(guest, at);
        if (slot == NULL || !(slot_rights(slot->kind) & needed))
            return E_PERM;
        error = slots_fill(guest, at);
        if (error != E_OK && error != E_EXIST && error != E_NOENT)
            return error;
        if ((io->exit->port.in ? guest_write(guest, at, &bytes[i], 1)
                               : guest_read(guest, at, &bytes[i], 1)) != 1)
            return E_NOENT;
    }
    return E_OK;
}

static int string_element(const struct string_io *io)
{
    const struct vm_exit *exit = io->exit;
    enum gpr index = exit->port.in ? RDI : RSI;
    uint64_t offset = io->guest->vcpu->gpr[index];
    uint64_t linear = io->base + (offset & io->offset_mask);
    uint8_t bytes[4] = {0};
    uint32_t value;
    int error;

    if (exit->port.in) {
        value = port_read(io->guest, exit->port.port, exit->port.width);
        memcpy(bytes, &value, sizeof(value));
    }
    error = copy_linear(io, linear, bytes);
    if (error != E_OK)
        return error;
    if (!exit->port.in) {
        memcpy(&value, bytes, sizeof(value));
        port_write(io->guest, exit->port.port, exit->port.width, value);
    }
    set_offset(io, index, offset + (uint64_t)io->step);
    return E_OK;
}

static void exit_string(struct guest *guest, const struct vm_exit *exit)
{
    struct string_io io;
    uint64_t count = 1;
    int error = string_begin(&io, guest, exit);

    if (error == E_OK && exit->port.rep)
        count = guest->vcpu->gpr[RCX] & io.offset_mask;
    for (unsigned done = 0; error == E_OK && count > 0 && done < STRING_BURST; done++) {
        error = string_element(&io);
        if (error != E_OK || guest_ended(guest))
            break;
        count--;
        if (exit->port.rep)
            set_offset(&io, RCX, count);
    }
    if (error != E_OK)
        guest_stop(guest, exit,
                   "%s at port 0x%x: its memory operand (linear 0x%llx at the start) cannot be "
                   "used: %s",
                   exit->port.in ? "INS" : "OUTS", exit->port.port,
                   (unsigned long long)exit->port.linear.v, error_text(error));
    else if (count == 0)
        skip_instruction(guest, exit);
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
    if (exit->port.in) {
        value = port_read(guest, exit->port.port, width);
        *rax = width == 4 ? value : (*rax & ~(uint64_t)width_mask(width)) | value;
    } else {
        port_write(guest, exit->port.port, width, (uint32_t)*rax);
    }
    skip_instruction(guest, exit);
}
