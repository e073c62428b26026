/* See log.h. SDM Vol. 3, 25.6.19 "Page-Modification Logging", 29.3.6. */
#include "arch/x86_64/vmx/log.h"

#include "mm/frames/buddy.h"

#define LOG_ENTRIES (PAGE_SIZE / sizeof(uint64_t))
#define LOG_LAST (LOG_ENTRIES - 1) /* the list is filled from its end down */

int vmx_log_start(struct vcpu *vcpu)
{
    struct vmx_vcpu *v = vmx_vcpu_of(vcpu);
    int error;

    if (!vmx_policy.log)
        return E_UNSUPPORTED;
    error = vmx_vcpu_load(v);
    if (error == E_OK)
        error = buddy_alloc(0, PURPOSE_VCPU, v->owner, &v->log);
    if (error != E_OK)
        return error;
    vcpu->frames++;
    vmwrite(VMCS_PML_ADDRESS, v->log.v);
    vmwrite(VMCS_PML_INDEX, LOG_LAST);
    vmwrite(VMCS_PROC2_CONTROLS, vmread(VMCS_PROC2_CONTROLS) | PROC2_PML);
    return E_OK;
}

void vmx_log_stop(struct vcpu *vcpu)
{
    struct vmx_vcpu *v = vmx_vcpu_of(vcpu);

    if (!v->log.v)
        return;
    invariant(vmx_vcpu_load(v) == E_OK);
    vmwrite(VMCS_PROC2_CONTROLS, vmread(VMCS_PROC2_CONTROLS) & ~(uint64_t)PROC2_PML);
    invariant(buddy_free(v->log, 0, v->owner) == E_OK);
    v->log = hpa(0);
    vcpu->frames--;
}

/* The index is that of the next entry; behind the first it is 0xffff. */
void vmx_log_take(struct vcpu *vcpu, vm_logged_fn fn, void *ctx)
{
    struct vmx_vcpu *v = vmx_vcpu_of(vcpu);

    if (!v->log.v || vmx_vcpu_load(v) != E_OK)
        return;
    const uint64_t *entries = direct(v->log);
    uint16_t next = (uint16_t)vmread(VMCS_PML_INDEX);

    for (uint16_t i = (uint16_t)(next + 1); i < LOG_ENTRIES; i++)
        fn(ctx, gpa(align_down(entries[i], PAGE_SIZE)));
    vmwrite(VMCS_PML_INDEX, LOG_LAST);
}
