/* See vm/startup.h. */
#include "vm/startup.h"

#include "lib/bits.h"
#include "lib/error.h"
#include "lib/string.h"
#include "vm/lapic.h"
#include "vm/report.h"
#include "x86/control.h"

#define DR7_RESET BIT(10)
#define LEAF_FEATURES 1 /* EAX: what EDX holds after a reset (10.1.2) */

#define ACCESS_DATA 0x93 /* present, writable, accessed */
#define ACCESS_CODE 0x9b
#define ACCESS_LDT 0x82
#define ACCESS_TSS 0x8b
#define LIMIT_RESET 0xffff

void startup_init(struct guest_cpu *cpu)
{
    cpu->is.init = true;
    cpu->is.sipi = false;
}

void startup_sipi(struct guest_cpu *cpu, uint8_t vector)
{
    if ((!cpu->is.waits && !cpu->is.init) || cpu->is.sipi)
        return;
    cpu->is.sipi = true;
    cpu->is.vector = vector;
}

bool startup_waits(const struct guest_cpu *cpu)
{
    return cpu->is.waits && !cpu->is.sipi && !cpu->is.init;
}

/* Table 10-1, column INIT: of CR0 the cache's two bits stay. */
static void fill_init(struct vcpu_state *state, uint64_t cr0)
{
    uint32_t features[4];

    guests_backend()->cpuid(LEAF_FEATURES, 0, features);
    *state = (struct vcpu_state){
        .rip = 0xfff0,
        .rflags = RFLAGS_FIXED,
        .cr0 = CR0_ET | (cr0 & (CR0_CD | CR0_NW)),
        .gdt_limit = LIMIT_RESET,
        .idt_limit = LIMIT_RESET,
        .dr7 = DR7_RESET,
    };
    state->gpr[RDX] = features[0];
    for (unsigned i = 0; i < SEG_COUNT; i++)
        state->segment[i] = (struct segment){.limit = LIMIT_RESET, .access = ACCESS_DATA};
    state->segment[SEG_CS].access = ACCESS_CODE;
    state->segment[SEG_CS].selector = 0xf000;
    state->segment[SEG_CS].base = 0xffff0000;
    state->segment[SEG_LDTR].access = ACCESS_LDT;
    state->segment[SEG_TR].access = ACCESS_TSS;
}

/* What an INIT leaves alone, the FPU's registers and MSRs, is among the rest and stays. */
static int init_registers(struct guest *guest)
{
    static struct vcpu_rest rest; /* large for a stack of 16 KiB; all is under the guests' lock */
    const struct vm_backend *backend = guests_backend();
    struct vcpu_state state;
    int error = backend->get_state(guest->vcpu, &state);

    if (error == E_OK)
        error = backend->get_rest(guest->vcpu, &rest);
    if (error != E_OK)
        return error;
    fill_init(&state, state.cr0);
    memset(rest.dr, 0, sizeof(rest.dr));
    rest.dr6 = DR6_RESET;
    rest.pending_debug = 0;
    rest.event = rest.event_code = rest.event_length = 0;
    rest.blocked = rest.traps = rest.cr8 = 0;
    error = backend->set_state(guest->vcpu, &state);
    return error == E_OK ? backend->set_rest(guest->vcpu, &rest) : error;
}

static int start_at(struct guest *guest, uint8_t vector)
{
    struct vcpu_state state;
    int error = guests_backend()->get_state(guest->vcpu, &state);

    if (error != E_OK)
        return error;
    state.segment[SEG_CS].selector = (uint16_t)(vector << 8);
    state.segment[SEG_CS].base = (uint64_t)vector << 12;
    state.rip = 0;
    return guests_backend()->set_state(guest->vcpu, &state);
}

bool startup_take_any(struct guest *guest)
{
    struct guest_cpu *cpu = guest_at(guest);
    int error = E_OK;

    if (cpu->is.init) {
        cpu->is.init = cpu->is.halted = cpu->is.deaf = false;
        cpu->is.waits = !lapic_is_first(guest);
        cpu->is.expect_fault.size = 0;
        lapic_init(guest);
        error = init_registers(guest);
    }
    if (error == E_OK && cpu->is.sipi && cpu->is.waits) {
        cpu->is.waits = cpu->is.sipi = false;
        error = start_at(guest, cpu->is.vector);
    }
    if (error != E_OK)
        guest_end(guest, GUEST_STOPPED, "CPU %u of it cannot be reset: %s", cpu->index,
                  error_text(error));
    return error == E_OK && !cpu->is.waits;
}
