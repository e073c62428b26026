/* The memory operand of an instruction carried out for a guest, as arch/x86_64/mm/operand.h judges
 * it, with what the VMCS says of the guest. */
#include "arch/x86_64/mm/guest_memory.h"
#include "arch/x86_64/mm/operand.h"
#include "arch/x86_64/vmx/exits.h"
#include "arch/x86_64/vmx/state.h"

/* As the CPU tells an access with a linear address (28.2.1, table 28-7). */
#define QUALIFICATION_ALLOWED_SHIFT 3
#define QUALIFICATION_LINEAR BIT(7)
#define QUALIFICATION_FINAL BIT(8)

_Static_assert((int)OPERAND_ES == SEG_ES && (int)OPERAND_CS == SEG_CS &&
                   (int)OPERAND_SS == SEG_SS && (int)OPERAND_DS == SEG_DS &&
                   (int)OPERAND_FS == SEG_FS && (int)OPERAND_GS == SEG_GS,
               "one order of segment registers");

static int reach(void *ctx, gpa_t at, unsigned access, uint8_t **bytes, unsigned *allowed)
{
    struct vmx_vcpu *v = ctx;

    return guest_memory_reach(v->table, at, access, bytes, allowed);
}

static void mark(void *ctx, gpa_t at, bool write)
{
    struct vmx_vcpu *v = ctx;

    (void)guest_memory_mark(v->table, at, write);
}

struct operand_cpu vmx_operand_cpu(struct vmx_vcpu *v)
{
    struct operand_cpu cpu = {
        .registers =
            {
                .cr0 = vmx_guest_cr0(),
                .cr3 = vmread(VMCS_GUEST_CR3),
                .cr4 = vmx_guest_cr4(),
                .efer = vmread(VMCS_GUEST_EFER),
                .maxphyaddr = cpu_features.maxphyaddr,
                .page_1g = cpu_features.page1g,
            },
        .rflags = vmread(VMCS_GUEST_RFLAGS),
        .user = (vmread(VMCS_GUEST_SS_ACCESS) >> ACCESS_DPL_SHIFT & 3) == 3,
        .code64 = vmx_in_64bit_mode(),
        .walks_write = v->table->caps.accessed_dirty,
        .reach = reach,
        .mark = mark,
        .ctx = v,
    };

    for (unsigned i = 0; i < ARRAY_SIZE(cpu.registers.pdpte); i++)
        cpu.registers.pdpte[i] = vmread(VMCS_GUEST_PDPTE0 + 2 * i);
    return cpu;
}

struct operand_segment vmx_operand_segment(enum segment_index index)
{
    struct segment segment;

    vmx_read_segment(index, &segment);
    return (struct operand_segment){
        .base = segment.base,
        .limit = segment.limit,
        .access = segment.access,
        .unusable = segment.unusable,
    };
}

void vmx_tell_refusal(const struct operand_place *place, enum operand_outcome outcome,
                      struct vm_exit *exit)
{
    bool walk = place->refused.walk;

    if (outcome == OPERAND_ILLEGAL) {
        exit->kind = VM_EXIT_MISCONFIG;
        exit->memory.gpa = place->refused.gpa;
        return;
    }
    exit->kind = VM_EXIT_MEMORY;
    exit->memory.gpa = place->refused.gpa;
    exit->memory.gva = place->refused.gva;
    exit->memory.gva_valid = true;
    exit->memory.walk = walk;
    exit->memory.access = place->refused.access;
    exit->memory.allowed = place->refused.allowed;
    exit->qualification = place->refused.access |
                          (uint64_t)(place->refused.allowed & RIGHT_RWX)
                              << QUALIFICATION_ALLOWED_SHIFT |
                          QUALIFICATION_LINEAR | (walk ? 0 : QUALIFICATION_FINAL);
}

enum vm_operand_outcome vmx_operand(struct vcpu *vcpu, const struct vm_exit *exit,
                                    const struct vm_operand *asked, struct vm_operand_place *out)
{
    struct vmx_vcpu *v = vmx_vcpu_of(vcpu);
    struct operand_cpu cpu = vmx_operand_cpu(v);
    struct operand_place place;
    struct operand operand = {
        .which = (enum operand_register)asked->segment,
        .segment = vmx_operand_segment(asked->segment),
        .offset = asked->offset,
        .address_bytes = asked->address_bytes,
        .bytes = asked->bytes,
        .access = asked->access,
    };
    enum operand_outcome outcome = operand_reach(&cpu, &operand, &place);

    switch (outcome) {
    case OPERAND_REACHED:
        for (unsigned i = 0; i < ARRAY_SIZE(out->piece); i++) {
            out->piece[i].at = place.piece[i].at;
            out->piece[i].bytes = place.piece[i].bytes;
        }
        vmx_note_memory(v, place.linear, asked->bytes, (asked->access & RIGHT_W) != 0);
        return VM_OPERAND_REACHED;
    case OPERAND_EXCEPTION:
        out->event = (struct vm_event){
            .kind = VM_EVENT_EXCEPTION,
            .vector = place.fault.vector,
            .has_code = true,
            .code = place.fault.code,
            .address = place.fault.address,
        };
        return VM_OPERAND_EXCEPTION;
    case OPERAND_VIOLATION:
    case OPERAND_ILLEGAL:
        out->exit = *exit;
        vmx_tell_refusal(&place, outcome, &out->exit);
        return VM_OPERAND_MEMORY;
    case OPERAND_AGAIN:
        break;
    }
    return VM_OPERAND_AGAIN;
}
