/* See create.h. SDM Vol. 3, chapter 25 "Virtual machine control structures". */
#include "arch/x86_64/guest/reset_state.h"
#include "arch/x86_64/vmx/create.h"

#include "arch/x86_64/mm/tlb.h"
#include "arch/x86_64/vmx/eptp.h"
#include "arch/x86_64/guest/resident.h"
#include "arch/x86_64/vmx/log.h"
#include "arch/x86_64/vmx/state.h"
#include "arch/x86_64/vmx/vpid.h"
#include "mm/frames/buddy.h"
#include "mm/frames/scrub.h"
#include "mm/frames/slab.h"

#define PAT_RESET UINT64_C(0x0007040600070406)
#define LINK_NONE (~UINT64_C(0))

/* ---- What every VMCS holds ----------------------------------------------------------------- */

static void write_controls(const struct vmx_vcpu *v)
{
    uint32_t proc2 = vmx_policy.control[CONTROLS_PROC2];

    vmwrite(VMCS_PIN_CONTROLS, vmx_policy.control[CONTROLS_PIN]);
    vmwrite(VMCS_PROC_CONTROLS, vmx_policy.control[CONTROLS_PROC]);
    vmwrite(VMCS_PROC2_CONTROLS, proc2);
    vmwrite(VMCS_EXIT_CONTROLS, vmx_policy.control[CONTROLS_EXIT]);
    vmwrite(VMCS_ENTRY_CONTROLS, vmx_policy.control[CONTROLS_ENTRY]);

    /* A machine check is the host's. #DB and #AC may raise themselves while they are delivered, in
     * a loop that no interrupt ends: they have to come by here. */
    vmwrite(VMCS_EXCEPTION_BITMAP, BIT(VECTOR_MC) | BIT(VECTOR_DB) | BIT(VECTOR_AC));
    vmwrite(VMCS_PF_CODE_MASK, 0);
    vmwrite(VMCS_PF_CODE_MATCH, 0);
    vmwrite(VMCS_CR3_TARGET_COUNT, 0);
    vmwrite(VMCS_MSR_BITMAP, vmx_policy.msr_bitmap.v);
    vmwrite(VMCS_EXIT_MSR_STORE_COUNT, 0);
    vmwrite(VMCS_EXIT_MSR_LOAD_COUNT, 0);
    vmwrite(VMCS_ENTRY_MSR_LOAD_COUNT, 0);
    vmwrite(VMCS_ENTRY_INTERRUPTION, 0);
    vmwrite(VMCS_ENTRY_EXCEPTION_CODE, 0);
    vmwrite(VMCS_ENTRY_LENGTH, 0);
    vmwrite(VMCS_CR0_MASK, ~(uint64_t)CR0_GUEST_OWNED);
    vmwrite(VMCS_CR4_MASK, ~cr4_guest_owned());
    if (v->vpid)
        vmwrite(VMCS_VPID, v->vpid);
    if (proc2 & PROC2_ENCLS_EXITING)
        vmwrite(VMCS_ENCLS_EXITING, ~UINT64_C(0));
}

/* What vm/ has no say in. The rest comes by vmx_set_state(). */
static void write_fixed_guest_state(void)
{
    vmwrite(VMCS_LINK_POINTER, LINK_NONE);
    vmwrite(VMCS_GUEST_DEBUGCTL, 0);
    vmwrite(VMCS_GUEST_PAT, PAT_RESET);
    vmwrite(VMCS_GUEST_SYSENTER_CS, 0);
    vmwrite(VMCS_GUEST_SYSENTER_ESP, 0);
    vmwrite(VMCS_GUEST_SYSENTER_EIP, 0);
}

/* ---- Creation ------------------------------------------------------------------------------ */

static struct slab_cache vcpus;
_Static_assert(sizeof(struct vmx_vcpu) <= VCPU_MOST, "as quotas have it");

void vmx_vcpus_init(void)
{
    invariant(slab_init(&vcpus, "vCPUs", sizeof(struct vmx_vcpu), 64) == E_OK);
    slab_register(&vcpus);
}

/* A zeroed block for the structures of a vCPU. VMCS regions may have to lie below 4 GiB (A.1). */
static int take_block(unsigned order, owner_t owner, hpa_t *out)
{
    uint64_t last = vmx_caps.basic.below_4g ? UINT32_MAX : UINT64_MAX;
    int error = vmx_caps.basic.below_4g
                    ? buddy_alloc_within(order, 0, last, PURPOSE_VCPU, owner, out)
                    : buddy_alloc(order, PURPOSE_VCPU, owner, out);
    if (error == E_OK)
        scrub_block(*out, PAGE_SIZE << order);
    return error;
}

static void give_block(hpa_t block, unsigned order, owner_t owner)
{
    if (block.v)
        invariant(buddy_free(block, order, owner) == E_OK);
}

static void release(struct vmx_vcpu *v)
{
    give_block(v->resident.fpu_frame, resident_fpu_order, v->owner);
    give_block(v->vmcs, 0, v->owner);
    vpid_give(v->vpid);
    invariant(slab_free(&vcpus, v) == E_OK);
}

static int prepare(struct vmx_vcpu *v)
{
    int error = take_block(0, v->owner, &v->vmcs);
    if (error == E_OK)
        error = take_block(resident_fpu_order, v->owner, &v->resident.fpu_frame);
    if (error == E_OK)
        error = vpid_take(&v->vpid);
    if (error != E_OK)
        return error;
    v->resident.fpu = direct(v->resident.fpu_frame);
    resident_reset(&v->resident);

    *(uint32_t *)direct(v->vmcs) = vmx_caps.basic.revision;
    error = vmcs_clear(v->vmcs);
    if (error == E_OK)
        error = vmx_vcpu_load(v);
    if (error != E_OK)
        return error;
    write_controls(v);
    write_fixed_guest_state();
    v->table->tag = v->vpid;
    if (!vmx_caps.ept_vpid.invept_all) {
        tlb_count()->one_guest_table++;
        error = invept(INVEPT_SINGLE_CONTEXT, ept_eptp(v->table));
        if (error != E_OK)
            return error;
    }
    return ept_root_set(v->table);
}

int vmx_vcpu_create(struct guest *guest, struct table *table, owner_t owner, struct vcpu **out)
{
    if (!vmx_cpu() || !vmx_cpu()->on)
        return E_STATE;
    if (table->kind != &ept_kind)
        return E_INVAL;
    struct vmx_vcpu *v = slab_alloc(&vcpus);
    if (v == NULL)
        return E_NOMEM;
    v->vcpu.guest = guest;
    v->table = table;
    v->owner = owner;
    v->vcpu.frames = 1 + (UINT64_C(1) << resident_fpu_order); /* the VMCS and the XSAVE area */

    int error = prepare(v);
    if (error == E_OK)
        error = vmx_set_state(&v->vcpu, &guest_reset_state);
    if (error != E_OK) {
        vmx_vcpu_put(v);
        release(v);
        return error;
    }
    *out = &v->vcpu;
    return E_OK;
}

void vmx_vcpu_destroy(struct vcpu *vcpu)
{
    struct vmx_vcpu *v = vmx_vcpu_of(vcpu);

    vmx_log_stop(vcpu);
    vmx_vcpu_put(v);
    release(v);
}
