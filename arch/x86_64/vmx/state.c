/* See state.h. SDM Vol. 3, 25.4 "Guest-state area". */
#include "arch/x86_64/vmx/state.h"

#include "arch/x86_64/vmx/events.h"
#include "arch/x86_64/vmx/names.h"
#include "arch/x86_64/vmx/vpid.h"
#include "lib/string.h"

#define EFER_GUEST (EFER_SCE | EFER_LME | EFER_LMA | EFER_NXE)

uint64_t vmx_guest_cr0(void)
{
    uint64_t owned = CR0_GUEST_OWNED;
    return (vmread(VMCS_GUEST_CR0) & owned) | (vmread(VMCS_CR0_SHADOW) & ~owned);
}

uint64_t vmx_guest_cr4(void)
{
    uint64_t owned = cr4_guest_owned();
    return (vmread(VMCS_GUEST_CR4) & owned) | (vmread(VMCS_CR4_SHADOW) & ~owned);
}

void vmx_write_crs(uint64_t cr0, uint64_t cr4, uint64_t efer)
{
    struct cr_fixed fixed0 = cr0_fixed_unrestricted(vmx_caps.cr0);
    uint64_t entry = vmread(VMCS_ENTRY_CONTROLS) & ~ENTRY_IA32E_GUEST;
    uint64_t host_cr4 = CR4_VMXE | (cpu_features.mce ? CR4_MCE : 0);

    efer &= ~EFER_LMA;
    if ((efer & EFER_LME) && (cr0 & CR0_PG)) {
        efer |= EFER_LMA;
        entry |= ENTRY_IA32E_GUEST;
    }
    /* A guest's CD and NW are kept from the CPU: they would disable its neighbours' caches. */
    vmwrite(VMCS_GUEST_CR0, cr_force(cr0 & ~(CR0_CD | CR0_NW), fixed0));
    vmwrite(VMCS_CR0_SHADOW, cr0 | CR0_ET);
    vmwrite(VMCS_GUEST_CR4, cr_force(cr4 | host_cr4, vmx_caps.cr4));
    vmwrite(VMCS_CR4_SHADOW, cr4);
    vmwrite(VMCS_GUEST_EFER, efer);
    vmwrite(VMCS_ENTRY_CONTROLS, entry);
}

bool vmx_in_64bit_mode(void)
{
    return (vmread(VMCS_GUEST_EFER) & EFER_LMA) && (vmread(VMCS_GUEST_CS_ACCESS) & ACCESS_LONG);
}

void vmx_read_segment(unsigned index, struct segment *out)
{
    unsigned offset = index * VMCS_SEGMENT_STRIDE;
    uint64_t access = vmread(VMCS_GUEST_ES_ACCESS + offset);

    *out = (struct segment){
        .base = vmread(VMCS_GUEST_ES_BASE + offset),
        .limit = (uint32_t)vmread(VMCS_GUEST_ES_LIMIT + offset),
        .selector = (uint16_t)vmread(VMCS_GUEST_ES_SELECTOR + offset),
        .access = (uint16_t)access,
        .unusable = (access & ACCESS_UNUSABLE) != 0,
    };
}

/* As the load of the register from a descriptor would leave it: accessed, or a busy TSS. */
static void write_segment(unsigned index, const struct segment *in)
{
    unsigned offset = index * VMCS_SEGMENT_STRIDE;
    uint64_t access = in->access;

    if (in->unusable)
        access |= ACCESS_UNUSABLE; /* the DPL of an unusable SS still counts */
    else if (index == SEG_TR)
        access |= BIT(1);
    else if (access & ACCESS_CODE_OR_DATA)
        access |= ACCESS_ACCESSED;
    vmwrite(VMCS_GUEST_ES_BASE + offset, in->base);
    vmwrite(VMCS_GUEST_ES_LIMIT + offset, in->limit);
    vmwrite(VMCS_GUEST_ES_SELECTOR + offset, in->selector);
    vmwrite(VMCS_GUEST_ES_ACCESS + offset, access);
}

int vmx_get_state(struct vcpu *vcpu, struct vcpu_state *out)
{
    struct vmx_vcpu *v = vmx_vcpu_of(vcpu);
    int error = vmx_vcpu_load(v);
    if (error != E_OK)
        return error;

    memcpy(out->gpr, vcpu->gpr, sizeof(out->gpr));
    out->gpr[RSP] = vmread(VMCS_GUEST_RSP);
    out->rip = vmread(VMCS_GUEST_RIP);
    out->rflags = vmread(VMCS_GUEST_RFLAGS);
    out->cr0 = vmx_guest_cr0();
    out->cr2 = v->live.cr2;
    out->cr3 = vmread(VMCS_GUEST_CR3);
    out->cr4 = vmx_guest_cr4();
    out->efer = vmread(VMCS_GUEST_EFER);
    for (unsigned i = 0; i < 4; i++)
        out->pdpte[i] = vmread(VMCS_GUEST_PDPTE0 + 2 * i);
    for (unsigned i = 0; i < SEG_COUNT; i++)
        vmx_read_segment(i, &out->segment[i]);
    out->gdt_base = vmread(VMCS_GUEST_GDTR_BASE);
    out->gdt_limit = (uint32_t)vmread(VMCS_GUEST_GDTR_LIMIT);
    out->idt_base = vmread(VMCS_GUEST_IDTR_BASE);
    out->idt_limit = (uint32_t)vmread(VMCS_GUEST_IDTR_LIMIT);
    out->dr7 = vmread(VMCS_GUEST_DR7);
    out->pat = vmread(VMCS_GUEST_PAT);
    out->xcr0 = v->resident.xcr0;
    out->halted = vmread(VMCS_GUEST_ACTIVITY) == ACTIVITY_HLT;
    return E_OK;
}

int vmx_get_modes(struct vcpu *vcpu, struct vm_modes *out)
{
    struct vmx_vcpu *v = vmx_vcpu_of(vcpu);
    int error = vmx_vcpu_load(v);

    if (error == E_OK)
        *out = (struct vm_modes){vmx_guest_cr4(), v->resident.xcr0, vmx_in_64bit_mode()};
    return error;
}

int vmx_set_state(struct vcpu *vcpu, const struct vcpu_state *in)
{
    struct vmx_vcpu *v = vmx_vcpu_of(vcpu);

    if ((in->cr0 & BITS(63, 32)) || ((in->cr0 & CR0_PG) && !(in->cr0 & CR0_PE)))
        return E_INVAL;
    if ((in->efer & ~EFER_GUEST) || (in->dr7 & BITS(63, 32)))
        return E_INVAL;
    if (in->cr4 & ~vmx_policy.guest_cr4)
        return E_UNSUPPORTED;
    int error = vmx_vcpu_load(v);
    if (error != E_OK)
        return error;

    memcpy(vcpu->gpr, in->gpr, sizeof(vcpu->gpr));
    v->live.cr2 = in->cr2;
    vmwrite(VMCS_GUEST_RSP, in->gpr[RSP]);
    vmwrite(VMCS_GUEST_RIP, in->rip);
    vmwrite(VMCS_GUEST_RFLAGS, in->rflags | RFLAGS_FIXED);
    vmwrite(VMCS_GUEST_CR3, in->cr3);
    vmx_write_crs(in->cr0, in->cr4, in->efer);
    for (unsigned i = 0; i < 4; i++)
        vmwrite(VMCS_GUEST_PDPTE0 + 2 * i, in->pdpte[i]);
    for (unsigned i = 0; i < SEG_COUNT; i++)
        write_segment(i, &in->segment[i]);
    vmwrite(VMCS_GUEST_GDTR_BASE, in->gdt_base);
    vmwrite(VMCS_GUEST_GDTR_LIMIT, in->gdt_limit);
    vmwrite(VMCS_GUEST_IDTR_BASE, in->idt_base);
    vmwrite(VMCS_GUEST_IDTR_LIMIT, in->idt_limit);
    vmwrite(VMCS_GUEST_DR7, in->dr7 | DR7_FIXED);

    vmwrite(VMCS_GUEST_INTERRUPTIBILITY, 0);
    vmwrite(VMCS_GUEST_PENDING_DEBUG, 0);
    vmwrite(VMCS_ENTRY_INTERRUPTION, 0);
    vmwrite(VMCS_GUEST_ACTIVITY, ACTIVITY_ACTIVE);
    if (in->halted)
        vmx_set_halted(vcpu, true);
    vpid_flush(v->vpid);
    return E_OK;
}

/* SDM Vol. 3, 26.3 "Changes to instruction behavior": RDTSC gives the TSC plus this. */
void vmx_set_clock(struct vcpu *vcpu, uint64_t offset)
{
    if (vmx_vcpu_load(vmx_vcpu_of(vcpu)) == E_OK) /* where not, its run says so */
        vmwrite(VMCS_TSC_OFFSET, offset);
}

/* What a value of a field means, where it is more than a number. */
static void show_meaning(struct sink *to, uint32_t field, uint64_t value)
{
    const char *before = field == VMCS_EXCEPTION_BITMAP ? "  vectors " : "  ";

    if (field == VMCS_EXIT_REASON)
        format(to, "  %s", exit_reason_name((uint16_t)value));
    for (unsigned vector = 0; field == VMCS_EXCEPTION_BITMAP && vector < 32; vector++)
        if (value & BIT(vector)) {
            format(to, "%s%u", before, vector);
            before = ", ";
        }
    for (enum control_word word = 0; word < CONTROLS_COUNT; word++)
        for (unsigned bit = 0; vmcs_control_field[word] == field && bit < 32; bit++)
            if ((value & BIT(bit)) && control_is_named(word, bit)) {
                format(to, "%s%s", before, control_name(word, bit));
                before = ", ";
            }
}

void vmx_dump(struct vcpu *vcpu, struct sink *to)
{
    static const struct {
        uint32_t field;
        const char *text;
    } fields[] = {
#define FIELD(name, encoding, words) {encoding, words},
        VMCS_FIELDS(FIELD)
#undef FIELD
    };
    struct vmx_vcpu *v = vmx_vcpu_of(vcpu);

    if (vmx_vcpu_load(v) != E_OK) {
        format(to, "VMCS: not on this CPU\n");
        return;
    }
    format(to, "VMCS at 0x%lx, VPID %u, %lu entries, %lu events delivered again\n", v->vmcs.v,
           v->vpid, vcpu->entries, v->reinjected);
    for (unsigned i = 0; i < ARRAY_SIZE(fields); i++) {
        enum vmcs_type type = vmcs_field_type(fields[i].field);
        bool wanted = type == VMCS_TYPE_CONTROL ||
                      (type == VMCS_TYPE_EXIT && fields[i].field != VMCS_INSTRUCTION_ERROR) ||
                      fields[i].field == VMCS_GUEST_INTERRUPTIBILITY ||
                      fields[i].field == VMCS_GUEST_ACTIVITY ||
                      fields[i].field == VMCS_GUEST_PENDING_DEBUG;
        uint64_t value;
        /* A field that this CPU does not have is one that was not asked for; the failure to read it
         * replaces the VM-instruction error, which is why that one is left out. */
        if (!wanted || vmcs_read(fields[i].field, &value) != E_OK || value == 0)
            continue;
        format(to, "  %-34s 0x%lx", fields[i].text, value);
        show_meaning(to, fields[i].field, value);
        format(to, "\n");
    }
}
