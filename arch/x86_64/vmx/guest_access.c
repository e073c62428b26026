/* What the VMCS says of a guest's CPU, for instructions that are carried out for it. */
#include "arch/x86_64/guest/debug.h"
#include "arch/x86_64/mm/ept.h"
#include "arch/x86_64/vmx/exits.h"
#include "arch/x86_64/vmx/state.h"

static void registers(struct vcpu *vcpu, struct operand_cpu *out)
{
    *out = (struct operand_cpu){
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
        .walks_write = vmx_vcpu_of(vcpu)->table->caps.accessed_dirty,
    };
    if (paging_mode_of(&out->registers) != PAGING_PAE)
        return;
    for (unsigned i = 0; i < ARRAY_SIZE(out->registers.pdpte); i++)
        out->registers.pdpte[i] = vmread(VMCS_GUEST_PDPTE0 + 2 * i);
}

static void segment(struct vcpu *vcpu, enum segment_index index, struct segment *out)
{
    (void)vcpu;
    vmx_read_segment(index, out);
}

static void place(struct vcpu *vcpu, uint64_t *rip, uint64_t *rsp)
{
    (void)vcpu;
    *rip = vmread(VMCS_GUEST_RIP);
    *rsp = vmread(VMCS_GUEST_RSP);
}

static void store(struct vcpu *vcpu, uint64_t rsp, uint64_t rflags, uint64_t old)
{
    (void)vcpu;
    if (rsp != vmread(VMCS_GUEST_RSP))
        vmwrite(VMCS_GUEST_RSP, rsp);
    if (rflags != old)
        vmwrite(VMCS_GUEST_RFLAGS, rflags);
}

static bool skip_to(struct vcpu *vcpu, uint64_t rip)
{
    return vmx_skip_to(vmx_vcpu_of(vcpu), rip);
}

static void note_memory(struct vcpu *vcpu, uint64_t linear, unsigned bytes, bool write)
{
    vmx_note_memory(vmx_vcpu_of(vcpu), linear, bytes, write);
}

static bool watches(struct vcpu *vcpu)
{
    (void)vcpu;
    return vmx_watches();
}

static uint64_t delivering(struct vcpu *vcpu)
{
    uint64_t info = vmread(VMCS_IDT_VECTORING);

    (void)vcpu;
    return info & INTERRUPTION_VALID ? info : 0;
}

/* As the qualification of an EPT violation. */
static uint64_t tell(const struct operand_place *place)
{
    return place->refused.access |
           (uint64_t)(place->refused.allowed & RIGHT_RWX) << QUALIFICATION_ALLOWED_SHIFT |
           QUALIFICATION_LINEAR | (place->refused.walk ? 0 : QUALIFICATION_FINAL);
}

struct guest_access vmx_guest_access(struct vmx_vcpu *v)
{
    return (struct guest_access){
        .vcpu = &v->vcpu,
        .memory = {.table = v->table},
        .registers = registers,
        .segment = segment,
        .place = place,
        .store = store,
        .skip_to = skip_to,
        .iterated = vmx_iterated,
        .retry = vmx_retry,
        .note_memory = note_memory,
        .watches = watches,
        .tell = tell,
        .delivering = delivering,
    };
}

enum vm_operand_outcome vmx_operand(struct vcpu *vcpu, const struct vm_exit *exit,
                                    const struct vm_operand *asked, struct vm_operand_place *out)
{
    struct guest_access access = vmx_guest_access(vmx_vcpu_of(vcpu));

    return guest_operand(&access, exit, asked, out);
}

enum vm_operand_outcome vmx_emulate(struct vcpu *vcpu, const struct vm_exit *exit,
                                    const struct vm_bus *bus, struct vm_emulation *out)
{
    struct guest_access access = vmx_guest_access(vmx_vcpu_of(vcpu));

    return guest_emulate(&access, exit, bus, out);
}
