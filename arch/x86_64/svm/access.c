/* What the VMCB says of a guest's CPU, for instructions that are carried out for it. */
#include "arch/x86_64/svm/vcpu.h"

#include "arch/x86_64/mm/host_entry.h"
#include "arch/x86_64/mm/npt.h"
#include "lib/string.h"
#include "mm/paging/typed.h"

/* The CPU reads PDPTEs at each walk (APM Vol. 2, 15.25.10 "Legacy PAE Mode"): so they are read here
 * from where CR3 says, without the A that QEMU sets in them. */
static void read_pdptes(struct svm_vcpu *v, uint64_t pdpte[4])
{
    const struct vmcb *vmcb = v->vmcb;
    bool pae = (vmcb->cr0 & CR0_PG) && (vmcb->cr4 & CR4_PAE) && !(vmcb->efer & EFER_LMA);
    gpa_t at = gpa(vmcb->cr3 & BITS(31, 5));

    if (!pae || gpa_read(v->table, at, RIGHT_R, pdpte, 32) != 32)
        memset(pdpte, 0, 32);
    for (unsigned i = 0; i < 4; i++)
        pdpte[i] &= ~PTE_A;
}

static void registers(struct vcpu *vcpu, struct operand_cpu *out)
{
    struct svm_vcpu *v = svm_vcpu_of(vcpu);
    const struct vmcb *vmcb = v->vmcb;

    *out = (struct operand_cpu){
        .registers =
            {
                .cr0 = vmcb->cr0,
                .cr3 = vmcb->cr3,
                .cr4 = svm_guest_cr4(v),
                .efer = vmcb->efer & ~EFER_SVME,
                .maxphyaddr = cpu_features.maxphyaddr,
                .page_1g = cpu_features.page1g,
            },
        .rflags = vmcb->rflags,
        .user = vmcb->cpl == 3,
        .code64 = svm_in_64bit_mode(vmcb),
        .walks_write = true, /* 15.25.6: reads of the guest's tables count as writes */
    };
    read_pdptes(v, out->registers.pdpte);
}

static void segment(struct vcpu *vcpu, enum segment_index index, struct segment *out)
{
    svm_read_segment(svm_vcpu_of(vcpu)->vmcb, index, out);
}

static void place(struct vcpu *vcpu, uint64_t *rip, uint64_t *rsp)
{
    const struct vmcb *vmcb = svm_vcpu_of(vcpu)->vmcb;

    *rip = vmcb->rip;
    *rsp = vmcb->rsp;
}

static void store(struct vcpu *vcpu, uint64_t rsp, uint64_t rflags, uint64_t old)
{
    struct vmcb *vmcb = svm_vcpu_of(vcpu)->vmcb;

    (void)old;
    vmcb->rsp = rsp;
    vmcb->rflags = rflags;
}

static bool skip_to(struct vcpu *vcpu, uint64_t rip)
{
    return svm_skip_to(svm_vcpu_of(vcpu), rip);
}

static uint64_t delivering(struct vcpu *vcpu)
{
    uint64_t event = svm_vcpu_of(vcpu)->vmcb->exit_event;

    return event & EVENT_VALID ? event : 0;
}

/* As EXITINFO1 of a nested page fault. */
static uint64_t tell(const struct operand_place *place)
{
    unsigned access = place->refused.access;

    return PF_USER | (place->refused.allowed != RIGHT_NONE ? PF_PRESENT : 0) |
           (access & RIGHT_W ? PF_WRITE : 0) | (access & RIGHT_X ? PF_FETCH : 0) |
           (place->refused.walk ? NPT_FAULT_WALK : NPT_FAULT_FINAL);
}

/* APM Vol. 2, 15.8.4 "Nested and intercepted #PF". */
static unsigned fetched_bytes(const struct vmcb *vmcb)
{
    bool told = svm_policy.decode_assists && vmcb->exit_code == SVM_EXIT_NPF;

    return told ? vmcb->fetched_bytes & 0xf : 0;
}

struct guest_access svm_guest_access(struct svm_vcpu *v)
{
    return (struct guest_access){
        .vcpu = &v->vcpu,
        .memory = {.table = v->table},
        .fetched = v->vmcb->fetched,
        .fetched_bytes = fetched_bytes(v->vmcb),
        .registers = registers,
        .segment = segment,
        .place = place,
        .store = store,
        .skip_to = skip_to,
        .iterated = svm_iterated,
        .retry = svm_retry,
        .note_memory = svm_note_memory,
        .watches = svm_watches,
        .tell = tell,
        .delivering = delivering,
    };
}
