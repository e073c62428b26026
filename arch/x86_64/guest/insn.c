/*
 * An instruction that has reached a device, carried out by arch/x86_64/mm/emulate.h with what the
 * backend says of the guest. The exit tells where, and nothing of the instruction (SDM Vol. 3,
 * 28.2.5: its length is undefined for EPT violations; nor does every CPU with SVM give its bytes).
 */
#include "arch/x86_64/mm/emulate.h"

#include "arch/x86_64/cpu.h"
#include "arch/x86_64/guest/access.h"
#include "arch/x86_64/guest/legal.h"
#include "lib/string.h"

/* Iterations of a repeated string between two looks at the clock: at the end of the guest's turn
 * the rest has to wait for its next. */
#define ITERATIONS 16

_Static_assert((int)INSN_REGISTERS == (int)GPR_COUNT && (int)INSN_RSP == (int)RSP,
               "one order of registers");
_Static_assert(VM_EMULATION_WHY >= INSN_TEXT, "a sentence fits");

struct guest_insn {
    struct guest_access *access;
    const struct vm_bus *bus;
    struct emulate_cpu cpu;
    struct emulation emulation;
};

/* ---- What the emulator asks for ------------------------------------------------------------ */

static int reach(void *ctx, gpa_t at, unsigned access, uint8_t **bytes, unsigned *allowed)
{
    struct guest_insn *g = ctx;
    int error = guest_memory_reach(&g->access->memory, at, access, bytes, allowed);

    if ((error != E_NOENT && error != E_PERM) ||
        !g->bus->covers(g->access->vcpu->guest, at, access))
        return error;
    *bytes = NULL;
    *allowed = RIGHT_RW;
    return access & RIGHT_X ? E_PERM : E_OK;
}

/* Where there is no bus to ask. */
static int reach_memory(void *ctx, gpa_t at, unsigned access, uint8_t **bytes, unsigned *allowed)
{
    struct guest_insn *g = ctx;

    return guest_memory_reach(&g->access->memory, at, access, bytes, allowed);
}

static void mark(void *ctx, gpa_t at, bool write)
{
    struct guest_insn *g = ctx;

    (void)guest_memory_mark(&g->access->memory, at, write);
}

static struct operand_segment segment_of(void *ctx, enum operand_register which)
{
    struct guest_insn *g = ctx;

    return guest_operand_segment(g->access, (enum segment_index)which);
}

static uint64_t read_device(void *ctx, gpa_t at, unsigned bytes)
{
    struct guest_insn *g = ctx;

    return g->bus->read(g->access->vcpu->guest, at, bytes);
}

static void write_device(void *ctx, gpa_t at, unsigned bytes, uint64_t value)
{
    struct guest_insn *g = ctx;

    g->bus->write(g->access->vcpu->guest, at, bytes, value);
}

/* ---- From the guest's CPU and back --------------------------------------------------------- */

/* What the segments say outside of 64-bit mode. */
static void load_sizes(struct guest_insn *g)
{
    struct vcpu *vcpu = g->access->vcpu;
    struct segment stack, code;

    g->access->segment(vcpu, SEG_SS, &stack);
    g->access->segment(vcpu, SEG_CS, &code);
    g->cpu.state.stack_bytes = stack.access & ACCESS_DB ? 4 : 2;
    g->cpu.state.code_limit = code.limit;
    g->cpu.mode = code.access & ACCESS_DB ? INSN_CODE32 : INSN_CODE16;
}

static void load_cpu(struct guest_insn *g)
{
    struct emulate_cpu *cpu = &g->cpu;
    struct insn_state *state = &cpu->state;
    struct vcpu *vcpu = g->access->vcpu;

    cpu->access = guest_operand_cpu(g->access);
    cpu->access.reach = reach;
    cpu->access.mark = mark;
    cpu->access.ctx = g;
    cpu->segment = segment_of;
    cpu->read = read_device;
    cpu->write = write_device;
    cpu->ctx = g;
    cpu->fetched = g->access->fetched;
    cpu->fetched_bytes = g->access->fetched_bytes;
    memcpy(state->gpr, vcpu->gpr, sizeof(state->gpr));
    g->access->place(vcpu, &state->rip, &state->gpr[INSN_RSP]);
    state->rflags = cpu->access.rflags;
    if (cpu->access.code64) {
        state->stack_bytes = 8;
        cpu->mode = INSN_CODE64;
    } else {
        load_sizes(g);
    }
}

/* RIP and RFLAGS.RF are the caller's. */
static void store_cpu(const struct guest_insn *g)
{
    const struct insn_state *state = &g->cpu.state;
    uint64_t *gpr = g->access->vcpu->gpr, kept = gpr[RSP];

    memcpy(gpr, state->gpr, sizeof(state->gpr));
    gpr[RSP] = kept;
    g->access->store(g->access->vcpu, state->gpr[INSN_RSP], state->rflags, g->cpu.access.rflags);
}

static void note_places(const struct guest_insn *g)
{
    const struct emulation *emulation = &g->emulation;

    for (unsigned i = 0; i < emulation->places; i++)
        g->access->note_memory(g->access->vcpu, emulation->place[i].linear,
                               emulation->asked[i].bytes,
                               (emulation->asked[i].access & INSN_WRITE) != 0);
}

/* ---- The whole ----------------------------------------------------------------------------- */

static enum vm_operand_outcome refuse(struct guest_insn *g, enum emulate_outcome outcome,
                                      const struct vm_exit *exit, struct vm_emulation *out)
{
    const struct operand_place *place = &g->emulation.place[0];

    switch (outcome) {
    case EMULATE_EXCEPTION:
        out->event = guest_fault(place);
        return VM_OPERAND_EXCEPTION;
    case EMULATE_VIOLATION:
    case EMULATE_ILLEGAL:
        out->exit = *exit;
        guest_tell_refusal(g->access, place, (enum operand_outcome)outcome, &out->exit);
        return VM_OPERAND_MEMORY;
    case EMULATE_UNKNOWN:
        memcpy(out->why, g->emulation.why, sizeof(g->emulation.why));
        return VM_OPERAND_UNKNOWN;
    default:
        return VM_OPERAND_AGAIN;
    }
}

/* As many iterations as an exit may take. A debug trap between them is the guest's first. */
static enum emulate_outcome step(struct guest_insn *g)
{
    enum emulate_outcome outcome = EMULATE_REPEATS;

    for (unsigned done = 1; outcome == EMULATE_REPEATS; done++) {
        if (done > 1)
            g->access->memory.known = false; /* an iteration is an instruction by itself here */
        outcome = emulate_step(&g->cpu, &g->emulation);
        if (outcome != EMULATE_DONE && outcome != EMULATE_REPEATS)
            return outcome;
        note_places(g);
        store_cpu(g);
        g->cpu.access.rflags = g->cpu.state.rflags;
        if (outcome == EMULATE_REPEATS &&
            (g->access->iterated(g->access->vcpu) ||
             (done % ITERATIONS == 0 && rdtsc() >= g->access->vcpu->deadline)))
            return outcome;
    }
    if (outcome == EMULATE_DONE)
        g->access->skip_to(g->access->vcpu, g->cpu.state.rip);
    return outcome;
}

enum vm_operand_outcome guest_emulate(struct guest_access *access, const struct vm_exit *exit,
                                      const struct vm_bus *bus, struct vm_emulation *out)
{
    uint64_t event = access->delivering(access->vcpu);
    enum emulate_outcome outcome;
    struct guest_insn g;

    if (event) {
        format_buffer(out->why, sizeof(out->why),
                      "an event's delivery reached it, not an instruction (vectoring 0x%lx)",
                      event);
        return VM_OPERAND_UNKNOWN;
    }
    g.access = access;
    g.bus = bus;
    load_cpu(&g);
    if (exit->memory.gva_valid) {
        g.cpu.access.exited.linear = exit->memory.gva.v;
        g.cpu.access.exited.gpa = exit->memory.gpa;
        g.cpu.access.exited.access = exit->memory.access;
    }
    outcome = emulate_decode(&g.cpu, &g.emulation);
    if (outcome == EMULATE_DONE)
        outcome = step(&g);
    if (outcome == EMULATE_DONE || outcome == EMULATE_REPEATS)
        return VM_OPERAND_REACHED;
    access->retry(access->vcpu);
    return refuse(&g, outcome, exit, out);
}

/* A and D are the CPU's affair, which has read the instruction already. */
static void leave(void *ctx, gpa_t at, bool write)
{
    (void)ctx;
    (void)at;
    (void)write;
}

unsigned guest_insn_places(struct guest_access *access, struct guest_place out[GUEST_PLACES])
{
    struct guest_insn g = {.access = access};
    unsigned count = 0;

    load_cpu(&g);
    g.cpu.access.reach = reach_memory;
    g.cpu.access.mark = leave;
    out[count++] = (struct guest_place){emulate_code_address(&g.cpu), RIGHT_X};
    if (emulate_decode(&g.cpu, &g.emulation) != EMULATE_DONE)
        return count;
    unsigned places = insn_places(&g.emulation.insn, &g.cpu.state, g.emulation.asked);
    for (unsigned i = 0; i < places; i++) {
        struct operand_place place;
        const struct operand operand = emulate_operand(&g.cpu, &g.emulation.asked[i]);

        if (operand_linear(&g.cpu.access, &operand, &place) == OPERAND_REACHED)
            out[count++] = (struct guest_place){place.linear, operand.access};
    }
    return count;
}
