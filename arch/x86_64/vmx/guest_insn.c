/*
 * An instruction that has reached a device, carried out by arch/x86_64/mm/emulate.h with what the
 * VMCS says of the guest. The exit tells where, and nothing of the instruction (SDM Vol. 3, 28.2.5:
 * its length is undefined for EPT violations).
 */
#include "arch/x86_64/mm/emulate.h"

#include "arch/x86_64/mm/guest_memory.h"
#include "arch/x86_64/vmx/exits.h"
#include "arch/x86_64/vmx/state.h"
#include "lib/string.h"

/* Iterations of a repeated string at one exit: the rest follows at the next, so that a guest cannot
 * hold the CPU beyond its slice. */
#define ITERATIONS 256

_Static_assert((int)INSN_REGISTERS == (int)GPR_COUNT && (int)INSN_RSP == (int)RSP,
               "one order of registers");
_Static_assert(VM_EMULATION_WHY >= INSN_TEXT, "a sentence fits");

struct guest_insn {
    struct vmx_vcpu *v;
    const struct vm_bus *bus;
    struct emulate_cpu cpu;
    struct emulation emulation;
};

/* ---- What the emulator asks for ------------------------------------------------------------ */

static int reach(void *ctx, gpa_t at, unsigned access, uint8_t **bytes, unsigned *allowed)
{
    struct guest_insn *g = ctx;
    int error = guest_memory_reach(g->v->table, at, access, bytes, allowed);

    if (error != E_NOENT || !g->bus->covers(g->v->vcpu.guest, at))
        return error;
    *bytes = NULL;
    *allowed = RIGHT_RW;
    return access & RIGHT_X ? E_PERM : E_OK;
}

static void mark(void *ctx, gpa_t at, bool write)
{
    struct guest_insn *g = ctx;

    (void)guest_memory_mark(g->v->table, at, write);
}

static struct operand_segment segment_of(void *ctx, enum operand_register which)
{
    (void)ctx;
    return vmx_operand_segment((enum segment_index)which);
}

static uint64_t read_device(void *ctx, gpa_t at, unsigned bytes)
{
    struct guest_insn *g = ctx;

    return g->bus->read(g->v->vcpu.guest, at, bytes);
}

static void write_device(void *ctx, gpa_t at, unsigned bytes, uint64_t value)
{
    struct guest_insn *g = ctx;

    g->bus->write(g->v->vcpu.guest, at, bytes, value);
}

/* ---- From the VMCS and back ---------------------------------------------------------------- */

static bool segment_big(uint64_t access)
{
    return (access & ACCESS_DB) != 0;
}

static void load_cpu(struct guest_insn *g)
{
    struct emulate_cpu *cpu = &g->cpu;
    struct insn_state *state = &cpu->state;
    bool code64 = vmx_in_64bit_mode();

    cpu->access = vmx_operand_cpu(g->v);
    cpu->access.reach = reach;
    cpu->access.mark = mark;
    cpu->access.ctx = g;
    cpu->segment = segment_of;
    cpu->read = read_device;
    cpu->write = write_device;
    cpu->ctx = g;
    memcpy(state->gpr, g->v->vcpu.gpr, sizeof(state->gpr));
    state->gpr[INSN_RSP] = vmread(VMCS_GUEST_RSP);
    state->rip = vmread(VMCS_GUEST_RIP);
    state->rflags = cpu->access.rflags;
    state->stack_bytes = code64 ? 8 : segment_big(vmread(VMCS_GUEST_SS_ACCESS)) ? 4 : 2;
    state->code_limit = (uint32_t)vmread(VMCS_GUEST_CS_LIMIT);
    cpu->mode = code64                                      ? INSN_CODE64
                : segment_big(vmread(VMCS_GUEST_CS_ACCESS)) ? INSN_CODE32
                                                            : INSN_CODE16;
}

/* RIP and RFLAGS.RF are the caller's. */
static void store_cpu(const struct guest_insn *g)
{
    const struct insn_state *state = &g->cpu.state;
    uint64_t *gpr = g->v->vcpu.gpr, kept = gpr[RSP];

    memcpy(gpr, state->gpr, sizeof(state->gpr));
    gpr[RSP] = kept;
    if (state->gpr[INSN_RSP] != vmread(VMCS_GUEST_RSP))
        vmwrite(VMCS_GUEST_RSP, state->gpr[INSN_RSP]);
    if (state->rflags != g->cpu.access.rflags)
        vmwrite(VMCS_GUEST_RFLAGS, state->rflags);
}

static void note_places(const struct guest_insn *g)
{
    const struct emulation *emulation = &g->emulation;

    for (unsigned i = 0; i < emulation->places; i++)
        vmx_note_memory(g->v, emulation->place[i].linear, emulation->asked[i].bytes,
                        (emulation->asked[i].access & INSN_WRITE) != 0);
}

/* ---- The whole ----------------------------------------------------------------------------- */

static enum vm_operand_outcome refuse(struct guest_insn *g, enum emulate_outcome outcome,
                                      const struct vm_exit *exit, struct vm_emulation *out)
{
    const struct operand_place *place = &g->emulation.place[0];

    switch (outcome) {
    case EMULATE_EXCEPTION:
        out->event = (struct vm_event){
            .kind = VM_EVENT_EXCEPTION,
            .vector = place->fault.vector,
            .has_code = true,
            .code = place->fault.code,
            .address = place->fault.address,
        };
        return VM_OPERAND_EXCEPTION;
    case EMULATE_VIOLATION:
    case EMULATE_ILLEGAL:
        out->exit = *exit;
        vmx_tell_refusal(place, outcome == EMULATE_ILLEGAL ? OPERAND_ILLEGAL : OPERAND_VIOLATION,
                         &out->exit);
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

    for (unsigned i = 0; i < ITERATIONS && outcome == EMULATE_REPEATS; i++) {
        outcome = emulate_step(&g->cpu, &g->emulation);
        if (outcome != EMULATE_DONE && outcome != EMULATE_REPEATS)
            return outcome;
        note_places(g);
        store_cpu(g);
        g->cpu.access.rflags = g->cpu.state.rflags;
        if (outcome == EMULATE_REPEATS && vmx_iterated(&g->v->vcpu))
            return outcome;
    }
    if (outcome == EMULATE_DONE)
        vmx_skip_to(g->v, g->cpu.state.rip);
    return outcome;
}

enum vm_operand_outcome vmx_emulate(struct vcpu *vcpu, const struct vm_exit *exit,
                                    const struct vm_bus *bus, struct vm_emulation *out)
{
    struct guest_insn g = {.v = vmx_vcpu_of(vcpu), .bus = bus};
    enum emulate_outcome outcome;

    if (vmread(VMCS_IDT_VECTORING) & INTERRUPTION_VALID) {
        format_buffer(out->why, sizeof(out->why),
                      "an event's delivery reached it, not an instruction (vectoring 0x%lx)",
                      vmread(VMCS_IDT_VECTORING));
        return VM_OPERAND_UNKNOWN;
    }
    load_cpu(&g);
    outcome = emulate_decode(&g.cpu, &g.emulation);
    if (outcome == EMULATE_DONE)
        outcome = step(&g);
    if (outcome == EMULATE_DONE || outcome == EMULATE_REPEATS)
        return VM_OPERAND_REACHED;
    vmx_retry(vcpu);
    return refuse(&g, outcome, exit, out);
}
