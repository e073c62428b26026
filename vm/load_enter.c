/* The state in which a CPU enters an image; see vm/load_parts.h. */
#include "lib/string.h"
#include "vm/load_parts.h"
#include "x86/control.h"

/* Access rights of segments: base 0, limit 4 GiB, present, accessed. */
#define CODE32 0xc09b
#define CODE64 0xa09b
#define DATA32 0xc093
#define LDT 0x82
#define TSS 0x8b

/* Real mode's segments as after reset (SDM Vol. 3, 9.1.4), and the tables that the CPU wants. */
#define DATA16 0x93
#define CODE16 0x9b
#define REAL_LIMIT 0xffff
#define IVT_LIMIT 0x3ff

void load_enter_flat32(struct vcpu_state *state, uint16_t code, uint16_t data)
{
    for (unsigned i = 0; i < SEG_COUNT; i++)
        state->segment[i] =
            (struct segment){.limit = UINT32_MAX, .selector = data, .access = DATA32};
    state->segment[SEG_CS].selector = code;
    state->segment[SEG_CS].access = CODE32;
    state->segment[SEG_LDTR] = (struct segment){.limit = 0xffff, .access = LDT};
    state->segment[SEG_TR] = (struct segment){.limit = 0xffff, .access = TSS};
    state->rflags = RFLAGS_FIXED;
    state->cr0 = CR0_PE | CR0_ET;
    state->dr7 = LOAD_DR7_RESET;
}

/* SDM Vol. 3, 10.8.5 "Initializing IA-32e Mode": what that sequence leaves. */
void load_enter_long(struct vcpu_state *state, uint64_t tables)
{
    load_enter_flat32(state, LOAD_CODE, LOAD_DATA);
    state->segment[SEG_CS].access = CODE64;
    state->cr0 |= CR0_PG;
    state->cr3 = tables;
    state->cr4 = CR4_PAE;
    state->efer = EFER_LME | EFER_LMA;
}

void load_enter_real(struct vcpu_state *state, uint16_t segment, uint16_t sp)
{
    memset(state, 0, sizeof(*state));
    for (unsigned i = 0; i < SEG_COUNT; i++)
        state->segment[i] = (struct segment){.base = segment * 16u,
                                             .limit = REAL_LIMIT,
                                             .selector = segment,
                                             .access = i == SEG_CS ? CODE16 : DATA16};
    state->segment[SEG_LDTR] = (struct segment){.limit = REAL_LIMIT, .access = LDT};
    state->segment[SEG_TR] = (struct segment){.limit = REAL_LIMIT, .access = TSS};
    state->gpr[RSP] = sp;
    state->rflags = RFLAGS_FIXED;
    state->cr0 = CR0_ET;
    state->gdt_limit = REAL_LIMIT;
    state->idt_limit = IVT_LIMIT;
    state->dr7 = LOAD_DR7_RESET;
}
