/* vCPUs and their VMCBs. APM Vol. 2, 15.5 "VMRUN Instruction", appendix B. */
#include "arch/x86_64/guest/reset_state.h"
#include "arch/x86_64/svm/asid.h"
#include "arch/x86_64/svm/vcpu.h"

#include "arch/x86_64/mm/npt.h"
#include "arch/x86_64/mm/tlb.h"
#include "lib/string.h"
#include "mm/frames/buddy.h"
#include "mm/frames/scrub.h"
#include "mm/frames/slab.h"

#define PAT_RESET UINT64_C(0x0007040600070406)

static struct slab_cache vcpus;
_Static_assert(sizeof(struct svm_vcpu) <= VCPU_MOST, "as quotas have it");

void svm_vcpus_init(void)
{
    invariant(slab_init(&vcpus, "vCPUs", sizeof(struct svm_vcpu), 64) == E_OK);
    slab_register(&vcpus);
}

/* A machine check is the host's. #UD may be VMCALL. #DB and #AC: see exits.c. */
static void fill_vmcb(struct svm_vcpu *v)
{
    struct vmcb *vmcb = v->vmcb;

    vmcb->intercept_cr = (uint32_t)(INTERCEPT_CR_READ(4) | INTERCEPT_CR_WRITE(4) |
                                    INTERCEPT_CR_READ(8) | INTERCEPT_CR_WRITE(8));
    vmcb->intercept_exceptions =
        (uint32_t)(BIT(VECTOR_MC) | BIT(VECTOR_UD) | BIT(VECTOR_DB) | BIT(VECTOR_AC));
    vmcb->intercept1 =
        (uint32_t)(INTERCEPT1_INTR | INTERCEPT1_NMI | INTERCEPT1_SMI | INTERCEPT1_INIT |
                   INTERCEPT1_VINTR | INTERCEPT1_RDPMC | INTERCEPT1_CPUID | INTERCEPT1_INVD |
                   INTERCEPT1_HLT | INTERCEPT1_INVLPGA | INTERCEPT1_IOIO | INTERCEPT1_MSR |
                   INTERCEPT1_SHUTDOWN);
    vmcb->intercept2 =
        (uint32_t)(INTERCEPT2_VMRUN | INTERCEPT2_VMMCALL | INTERCEPT2_VMLOAD | INTERCEPT2_VMSAVE |
                   INTERCEPT2_STGI | INTERCEPT2_CLGI | INTERCEPT2_SKINIT | INTERCEPT2_RDTSCP |
                   INTERCEPT2_WBINVD | INTERCEPT2_MONITOR | INTERCEPT2_MWAIT |
                   INTERCEPT2_MWAIT_ARMED | INTERCEPT2_XSETBV);
    vmcb->iopm = svm_policy.iopm.v;
    vmcb->msrpm = svm_policy.msrpm.v;
    vmcb->asid = v->asid;
    vmcb->nested = NESTED_PAGING;
    vmcb->ncr3 = ncr3_compose(v->table->root);
    vmcb->pat = PAT_RESET;
    vmcb->dr6 = DR6_RESET;
}

static int take_block(unsigned order, owner_t owner, hpa_t *out)
{
    int error = buddy_alloc(order, PURPOSE_VCPU, owner, out);

    if (error == E_OK)
        scrub_block(*out, PAGE_SIZE << order);
    return error;
}

static void give_block(hpa_t block, unsigned order, owner_t owner)
{
    if (block.v)
        invariant(buddy_free(block, order, owner) == E_OK);
}

static void release(struct svm_vcpu *v)
{
    resident_drop(&v->resident);
    give_block(v->resident.fpu_frame, resident_fpu_order, v->owner);
    give_block(v->frame, 0, v->owner);
    if (v->asid)
        asid_give(v->asid);
    invariant(slab_free(&vcpus, v) == E_OK);
}

static int prepare(struct svm_vcpu *v)
{
    int error = take_block(0, v->owner, &v->frame);
    if (error == E_OK)
        error = take_block(resident_fpu_order, v->owner, &v->resident.fpu_frame);
    if (error == E_OK)
        error = asid_take(&v->asid);
    if (error != E_OK)
        return error;
    v->last = shootdown_self(); /* nothing is cached under a new ASID, nowhere */
    v->vmcb = direct(v->frame);
    v->resident.fpu = direct(v->resident.fpu_frame);
    resident_reset(&v->resident);
    v->table->tag = asid_join(v->table->tag, v->asid);
    fill_vmcb(v);
    return E_OK;
}

int svm_vcpu_create(struct guest *guest, struct table *table, owner_t owner, struct vcpu **out)
{
    if (!svm_policy.on)
        return E_STATE;
    if (table->kind != &npt_kind)
        return E_INVAL;
    struct svm_vcpu *v = slab_alloc(&vcpus);
    if (v == NULL)
        return E_NOMEM;
    v->vcpu.guest = guest;
    v->table = table;
    v->owner = owner;
    v->vcpu.frames = 1 + (UINT64_C(1) << resident_fpu_order); /* the VMCB and the XSAVE area */

    int error = prepare(v);
    if (error == E_OK)
        error = svm_set_state(&v->vcpu, &guest_reset_state);
    if (error != E_OK) {
        release(v);
        return error;
    }
    *out = &v->vcpu;
    return E_OK;
}

void svm_vcpu_destroy(struct vcpu *vcpu)
{
    release(svm_vcpu_of(vcpu));
}

/* The VMCB is what the guest is, but for its tag and its table. */
int svm_vcpu_copy(struct vcpu *to, struct vcpu *from)
{
    struct svm_vcpu *target = svm_vcpu_of(to);
    const struct svm_vcpu *source = svm_vcpu_of(from);
    uint64_t root = target->vmcb->ncr3;

    resident_copy(&target->resident, &svm_vcpu_of(from)->resident);
    memcpy(target->vmcb, source->vmcb, sizeof(*target->vmcb));
    target->vmcb->asid = target->asid;
    target->vmcb->ncr3 = root;
    memcpy(to->gpr, from->gpr, sizeof(to->gpr));
    to->cr8 = from->cr8;
    target->window = source->window;
    target->halted = source->halted;
    target->nmi_blocked = source->nmi_blocked;
    target->iret = source->iret;
    target->iret_rip = source->iret_rip;
    target->traps = source->traps;
    target->mce = source->mce;
    svm_forget(target);
    return E_OK;
}
