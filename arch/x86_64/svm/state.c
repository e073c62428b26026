/* The registers of a guest, as vm/ sees them and as its VMCB holds them. APM Vol. 2, appendix B. */
#include "arch/x86_64/svm/vcpu.h"

#include "arch/x86_64/mm/tlb.h"
#include "lib/string.h"

#define EFER_GUEST (EFER_SCE | EFER_LME | EFER_LMA | EFER_NXE)
#define DR7_FIXED BIT(10)

/* Attributes lie without the gap of the descriptor's bits 19:16 of the limit. */
#define ATTRIBUTES_LOW 0xff
#define ATTRIBUTES_HIGH 0xf00
#define ATTRIBUTES_GAP 4

static struct vmcb_segment *segment_of(struct vmcb *vmcb, enum segment_index index)
{
    struct vmcb_segment *const all[SEG_COUNT] = {
        [SEG_ES] = &vmcb->es, [SEG_CS] = &vmcb->cs, [SEG_SS] = &vmcb->ss,     [SEG_DS] = &vmcb->ds,
        [SEG_FS] = &vmcb->fs, [SEG_GS] = &vmcb->gs, [SEG_LDTR] = &vmcb->ldtr, [SEG_TR] = &vmcb->tr,
    };

    return all[index];
}

bool svm_in_64bit_mode(const struct vmcb *vmcb)
{
    return (vmcb->efer & EFER_LMA) && (vmcb->cs.attributes & (ACCESS_LONG >> ATTRIBUTES_GAP));
}

uint64_t svm_linear_rip(const struct vmcb *vmcb)
{
    return svm_in_64bit_mode(vmcb) ? vmcb->rip : (vmcb->cs.base + vmcb->rip) & UINT32_MAX;
}

void svm_read_segment(const struct vmcb *vmcb, enum segment_index index, struct segment *out)
{
    const struct vmcb_segment *in = segment_of((struct vmcb *)(uintptr_t)vmcb, index);
    unsigned access = (in->attributes & ATTRIBUTES_LOW) |
                      (unsigned)(in->attributes & ATTRIBUTES_HIGH) << ATTRIBUTES_GAP;

    *out = (struct segment){
        .base = in->base,
        .limit = in->limit,
        .selector = in->selector,
        .access = (uint16_t)access,
        .unusable = !(access & ACCESS_PRESENT),
    };
    /* The VMCB keeps the privilege level apart (15.5.1). */
    if (index == SEG_SS)
        out->access = (uint16_t)((out->access & ~(3u << ACCESS_DPL_SHIFT)) |
                                 (unsigned)vmcb->cpl << ACCESS_DPL_SHIFT);
}

/* As the load of the register from a descriptor would leave it: accessed, or a busy TSS. */
static void write_segment(struct vmcb *vmcb, enum segment_index index, const struct segment *in)
{
    unsigned access = in->access;

    if (in->unusable)
        access &= ~(unsigned)ACCESS_PRESENT;
    else if (index == SEG_TR)
        access |= BIT(1);
    else if (access & ACCESS_CODE_OR_DATA)
        access |= ACCESS_ACCESSED;
    *segment_of(vmcb, index) = (struct vmcb_segment){
        .selector = in->selector,
        .attributes =
            (uint16_t)((access & ATTRIBUTES_LOW) | (access >> ATTRIBUTES_GAP & ATTRIBUTES_HIGH)),
        .limit = in->limit,
        .base = in->base,
    };
}

uint64_t svm_guest_cr4(const struct svm_vcpu *v)
{
    return v->mce ? v->vmcb->cr4 : v->vmcb->cr4 & ~CR4_MCE;
}

void svm_set_guest_cr4(struct svm_vcpu *v, uint64_t value)
{
    v->mce = (value & CR4_MCE) != 0;
    v->vmcb->cr4 = value | (cpu_features.mce ? CR4_MCE : 0);
}

int svm_get_state(struct vcpu *vcpu, struct vcpu_state *out)
{
    struct svm_vcpu *v = svm_vcpu_of(vcpu);
    struct guest_access access = svm_guest_access(v);
    const struct vmcb *vmcb = v->vmcb;
    struct operand_cpu cpu;

    memcpy(out->gpr, vcpu->gpr, sizeof(out->gpr));
    out->gpr[RSP] = vmcb->rsp;
    out->rip = vmcb->rip;
    out->rflags = vmcb->rflags;
    out->cr0 = vmcb->cr0;
    out->cr2 = vmcb->cr2;
    out->cr3 = vmcb->cr3;
    out->cr4 = svm_guest_cr4(v);
    out->efer = vmcb->efer & ~EFER_SVME;
    access.registers(vcpu, &cpu);
    memcpy(out->pdpte, cpu.registers.pdpte, sizeof(out->pdpte));
    for (unsigned i = 0; i < SEG_COUNT; i++)
        svm_read_segment(vmcb, (enum segment_index)i, &out->segment[i]);
    out->gdt_base = vmcb->gdtr.base;
    out->gdt_limit = vmcb->gdtr.limit;
    out->idt_base = vmcb->idtr.base;
    out->idt_limit = vmcb->idtr.limit;
    out->dr7 = vmcb->dr7;
    out->pat = vmcb->pat;
    out->xcr0 = resident_xcr0_of(&v->resident);
    out->halted = v->halted;
    return E_OK;
}

int svm_get_modes(struct vcpu *vcpu, struct vm_modes *out)
{
    struct svm_vcpu *v = svm_vcpu_of(vcpu);

    *out = (struct vm_modes){svm_guest_cr4(v), resident_xcr0_of(&v->resident),
                             svm_in_64bit_mode(v->vmcb)};
    return E_OK;
}

static void write_control_registers(struct svm_vcpu *v, const struct vcpu_state *in)
{
    struct vmcb *vmcb = v->vmcb;

    vmcb->cr0 = in->cr0 | CR0_ET;
    vmcb->cr2 = in->cr2;
    vmcb->cr3 = in->cr3;
    svm_set_guest_cr4(v, in->cr4);
    vmcb->efer = (in->efer & ~EFER_LMA) | EFER_SVME; /* VMRUN demands SVME (15.5.1) */
    if ((in->efer & EFER_LME) && (in->cr0 & CR0_PG))
        vmcb->efer |= EFER_LMA;
}

int svm_set_state(struct vcpu *vcpu, const struct vcpu_state *in)
{
    struct svm_vcpu *v = svm_vcpu_of(vcpu);
    struct vmcb *vmcb = v->vmcb;

    if ((in->cr0 & BITS(63, 32)) || ((in->cr0 & CR0_PG) && !(in->cr0 & CR0_PE)))
        return E_INVAL;
    if ((in->efer & ~EFER_GUEST) || (in->dr7 & BITS(63, 32)))
        return E_INVAL;
    if (in->cr4 & ~svm_policy.guest_cr4)
        return E_UNSUPPORTED;

    memcpy(vcpu->gpr, in->gpr, sizeof(vcpu->gpr));
    vmcb->rsp = in->gpr[RSP];
    vmcb->rip = in->rip;
    vmcb->rflags = in->rflags | RFLAGS_FIXED;
    write_control_registers(v, in);
    for (unsigned i = 0; i < SEG_COUNT; i++)
        write_segment(vmcb, (enum segment_index)i, &in->segment[i]);
    vmcb->cpl = (in->cr0 & CR0_PE) ? (uint8_t)segment_dpl(&in->segment[SEG_SS]) : 0;
    vmcb->gdtr = (struct vmcb_segment){.base = in->gdt_base, .limit = in->gdt_limit};
    vmcb->idtr = (struct vmcb_segment){.base = in->idt_base, .limit = in->idt_limit};
    vmcb->dr7 = in->dr7 | DR7_FIXED;
    vmcb->shadow = 0;
    vmcb->event = 0;
    vmcb->intercept1 &= ~(uint32_t)INTERCEPT1_IRET;
    v->nmi_blocked = v->iret = false;
    v->traps = 0;
    v->halted = in->halted;
    svm_forget(v);
    return E_OK;
}

void svm_set_clock(struct vcpu *vcpu, uint64_t offset)
{
    svm_vcpu_of(vcpu)->vmcb->tsc_offset = offset;
}

void svm_dump(struct vcpu *vcpu, struct sink *to)
{
    const struct svm_vcpu *v = svm_vcpu_of(vcpu);
    const struct vmcb *vmcb = v->vmcb;
    const struct {
        const char *text;
        uint64_t value;
    } fields[] = {
        {"intercepts of CRs", vmcb->intercept_cr},
        {"intercepts of exceptions", vmcb->intercept_exceptions},
        {"intercepts, word 1", vmcb->intercept1},
        {"intercepts, word 2", vmcb->intercept2},
        {"virtual interrupt", vmcb->interrupt},
        {"interrupt shadow", vmcb->shadow},
        {"EXITCODE", vmcb->exit_code},
        {"EXITINFO1", vmcb->exit_info1},
        {"EXITINFO2", vmcb->exit_info2},
        {"EXITINTINFO", vmcb->exit_event},
        {"EVENTINJ", vmcb->event},
        {"nCR3", vmcb->ncr3},
        {"DR6", vmcb->dr6},
    };

    format(to, "VMCB at 0x%lx, ASID %u, %lu entries, %lu events delivered again\n", v->frame.v,
           v->asid, vcpu->entries, v->reinjected);
    for (unsigned i = 0; i < ARRAY_SIZE(fields); i++)
        if (fields[i].value)
            format(to, "  %-34s 0x%lx\n", fields[i].text, fields[i].value);
}
