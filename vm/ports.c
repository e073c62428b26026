/* See vm/ports.h. */
#include "vm/ports.h"

#include "lib/bits.h"
#include "lib/error.h"
#include "lib/string.h"
#include "vm/guest.h"
#include "vm/inject.h"
#include "vm/report.h"
#include "vm/slots.h"
#include "x86/control.h"

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
    bool user;       /* at privilege level 3 */
    gva_t touched;   /* the byte looked at last ... */
    bool page_fault; /* ... and whether it was the guest's own tables that refused it */
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
    io->user = segment_dpl(&state.segment[SEG_SS]) == 3;
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

/* Where the bytes of one element are in guest-physical memory, and that the guest may use them
 * there: INS needs a writable slot, OUTS a readable one. Lazy memory gets its frame. */
static int locate_element(struct string_io *io, uint64_t linear, gpa_t at[4])
{
    struct guest *guest = io->guest;
    unsigned access = io->exit->port.in ? RIGHT_W : RIGHT_R;

    for (unsigned i = 0; i < io->exit->port.width; i++) {
        const struct slot *slot;
        int error;

        io->touched = gva((linear + i) & io->linear_mask);
        error = guests_backend()->translate(guest->vcpu, io->touched, access, &at[i]);
        io->page_fault = error == E_NOENT || error == E_PERM;
        if (error != E_OK)
            return error;
        slot = guest_slot_at(guest, at[i]);
        if (slot == NULL || !(slot_rights(slot->kind) & access))
            return E_PERM;
        error = slots_fill(guest, at[i]);
        if (error != E_OK && error != E_EXIST && error != E_NOENT)
            return error;
    }
    return E_OK;
}

/* The operand is looked at before the port is: a byte that was read from a device could not be
 * given back. */
static int string_element(struct string_io *io)
{
    const struct vm_exit *exit = io->exit;
    enum gpr index = exit->port.in ? RDI : RSI;
    uint64_t offset = io->guest->vcpu->gpr[index];
    uint8_t bytes[4] = {0};
    gpa_t at[4];
    uint32_t value;
    int error = locate_element(io, io->base + (offset & io->offset_mask), at);

    if (error != E_OK)
        return error;
    if (exit->port.in) {
        value = port_read(io->guest, exit->port.port, exit->port.width);
        memcpy(bytes, &value, sizeof(value));
        for (unsigned i = 0; i < exit->port.width; i++)
            guest_write(io->guest, at[i], &bytes[i], 1);
    } else {
        for (unsigned i = 0; i < exit->port.width; i++)
            guest_read(io->guest, at[i], &bytes[i], 1);
        memcpy(&value, bytes, sizeof(value));
        port_write(io->guest, exit->port.port, exit->port.width, value);
    }
    set_offset(io, index, offset + (uint64_t)io->step);
    return E_OK;
}

/* The guest's own tables do not let its operand through: that is its own page fault, and the
 * elements before it have been done. */
static void raise_page_fault(struct string_io *io, int error)
{
    const struct vm_backend *backend = guests_backend();
    struct vcpu *vcpu = io->guest->vcpu;
    struct vcpu_state state;
    struct vm_event event = {.kind = VM_EVENT_EXCEPTION, .vector = VECTOR_PF, .has_code = true};

    if (error == E_PERM)
        event.code |= PF_PRESENT;
    if (io->exit->port.in)
        event.code |= PF_WRITE;
    if (io->user)
        event.code |= PF_USER;
    if (backend->get_state(vcpu, &state) == E_OK) {
        state.cr2 = io->touched.v;
        backend->set_state(vcpu, &state);
    }
    backend->inject(vcpu, event);
}

static void exit_string(struct guest *guest, const struct vm_exit *exit)
{
    struct string_io io = {0};
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
    if (error != E_OK && io.page_fault)
        raise_page_fault(&io, error);
    else if (error != E_OK)
        guest_stop(guest, exit,
                   "%s at port 0x%x: its memory operand (linear 0x%lx at the start) cannot be "
                   "used: %s",
                   exit->port.in ? "INS" : "OUTS", exit->port.port, exit->port.linear.v,
                   error_text(error));
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
