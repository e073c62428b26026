/*
 * INS and OUTS of a guest, with and without REP. The CPU exits before it has looked at the memory
 * operand; the backend does that, in the CPU's order, and what it finds wrong is the guest's own
 * fault or the exit that the access would have been.
 *
 * Each element is done whole or not at all, and RCX, RSI and RDI say after each how far it has
 * come. So whatever happens, the instruction can be run again from there.
 */
#include "lib/bits.h"
#include "lib/error.h"
#include "lib/string.h"
#include "vm/exits.h"
#include "vm/inject.h"
#include "vm/ports.h"
#include "vm/report.h"
#include "x86/control.h"

/* Elements between two looks at the clock: at the end of the guest's turn the rest has to wait for
 * its next. */
#define STRING_BURST 64

struct string_io {
    struct guest *guest;
    const struct vm_exit *exit;
    uint64_t mask; /* of SI, DI and CX by the address size */
    int64_t step;
    struct vm_operand_place place; /* of the element that comes next ... */
    unsigned reached;              /* ... while so many are known to be reached there */
};

/* Replaces the part of a register that the address size covers; a 32-bit result clears the upper
 * half, as it does everywhere. */
static void set_register(const struct string_io *io, enum gpr which, uint64_t value)
{
    uint64_t *gpr = &io->guest->vcpu->gpr[which];

    if (io->mask == UINT16_MAX)
        *gpr = (*gpr & ~io->mask) | (value & io->mask);
    else
        *gpr = value & io->mask;
}

static void transfer(struct string_io *io, const struct vm_operand_place *place)
{
    const struct vm_exit *exit = io->exit;
    unsigned first = place->piece[0].bytes, second = place->piece[1].bytes;
    uint8_t bytes[4] = {0};
    uint32_t value;

    if (exit->port.in) {
        value = port_read(io->guest, exit->port.port, exit->port.width);
        memcpy(bytes, &value, sizeof(value));
        memcpy(place->piece[0].at, bytes, first);
        if (second != 0)
            memcpy(place->piece[1].at, bytes + first, second);
    } else {
        memcpy(bytes, place->piece[0].at, first);
        if (second != 0)
            memcpy(bytes + first, place->piece[1].at, second);
        memcpy(&value, bytes, sizeof(value));
        port_write(io->guest, exit->port.port, exit->port.width, value);
    }
}

/* What the access itself comes to: the guest may be resumed at its instruction, or have ended. */
static void refuse(struct string_io *io, enum vm_operand_outcome outcome,
                   const struct vm_operand_place *place)
{
    const struct vm_backend *backend = guests_backend();

    if (outcome == VM_OPERAND_EXCEPTION) {
        (void)backend->inject(io->guest->vcpu, place->event);
        return;
    }
    backend->retry(io->guest->vcpu);
    if (outcome == VM_OPERAND_AGAIN)
        return;
    exit_refused(io->guest, &place->exit);
}

/* The operand is looked at before the port is: a byte that was read from a device could not be
 * given back. All elements in a page are looked at with the first of them. False: nothing was done.
 */
static bool reach_element(struct string_io *io)
{
    const struct vm_exit *exit = io->exit;
    struct vm_operand operand = {
        .segment = exit->port.segment,
        .offset = io->guest->vcpu->gpr[exit->port.in ? RDI : RSI],
        .address_bytes = exit->port.address_bytes,
        .bytes = exit->port.width,
        .access = exit->port.in ? RIGHT_W : RIGHT_R,
        .direction = !exit->port.rep ? 0
                     : io->step < 0  ? -1
                                     : 1,
    };
    enum vm_operand_outcome outcome;

    if (io->reached != 0)
        return true;
    outcome = guests_backend()->operand(io->guest->vcpu, exit, &operand, &io->place);
    if (outcome != VM_OPERAND_REACHED) {
        refuse(io, outcome, &io->place);
        return false;
    }
    io->reached = io->place.run;
    guests_backend()->note_port(io->guest->vcpu, exit->port.port, exit->port.width);
    return true;
}

static bool string_element(struct string_io *io)
{
    enum gpr index = io->exit->port.in ? RDI : RSI;

    if (!reach_element(io))
        return false;
    transfer(io, &io->place);
    set_register(io, index, io->guest->vcpu->gpr[index] + (uint64_t)io->step);
    io->place.piece[0].at += io->step;
    io->reached--;
    return true;
}

/* Elements from `count` down. True when none is left. Where several are reached at once, no
 * breakpoint is armed, and what follows the first iteration follows them all. */
static bool string_repeat(struct string_io *io, uint64_t count)
{
    const struct vm_backend *backend = guests_backend();
    struct vcpu *vcpu = io->guest->vcpu;

    for (unsigned done = 1; count > 0; done++) {
        bool first = io->reached == 0;

        if (!string_element(io) || guest_ended(io->guest))
            return false;
        set_register(io, RCX, --count);
        if (count > 0 && first && backend->iterated(vcpu))
            return false;
        if (done % STRING_BURST == 0 && backend->ticks() >= vcpu->deadline)
            return count == 0;
    }
    return true;
}

void exit_string(struct guest *guest, const struct vm_exit *exit)
{
    unsigned address_bytes = exit->port.address_bytes, width = exit->port.width;
    struct string_io io = {.guest = guest, .exit = exit, .reached = 0};
    struct vcpu_state state;
    bool finished;

    if (guests_backend()->get_state(guest->vcpu, &state) != E_OK) {
        guest_stop(guest, exit, "a string instruction, and its state cannot be read");
        return;
    }
    io.mask = address_bytes == 8 ? UINT64_MAX : BITS(address_bytes * 8 - 1, 0);
    io.step = state.rflags & RFLAGS_DF ? -(int64_t)width : width;
    finished = exit->port.rep ? string_repeat(&io, guest->vcpu->gpr[RCX] & io.mask)
                              : string_element(&io) && !guest_ended(guest);
    if (finished)
        skip_instruction(guest, exit);
}
