/* What a vCPU is beside struct vcpu_state. APM Vol. 2, 15.20 "Event Injection", appendix B. */
#include "arch/x86_64/guest/keep.h"
#include "arch/x86_64/svm/vcpu.h"

#define EVENT_RESERVED BITS(30, 12)
#define EVENT_TYPE(event) ((event) >> EVENT_TYPE_SHIFT & 7)

/* An IRET that has exited and not run yet exits once more. */
int svm_get_rest(struct vcpu *vcpu, struct vcpu_rest *out)
{
    struct svm_vcpu *v = svm_vcpu_of(vcpu);
    const struct vmcb *vmcb = v->vmcb;

    *out = (struct vcpu_rest){0};
    int error = resident_keep(&v->resident, out);
    if (error != E_OK)
        return error;
    /* What VMLOAD and VMRUN load: resident.h has what was there at the last switch. */
    out->star = vmcb->star;
    out->lstar = vmcb->lstar;
    out->cstar = vmcb->cstar;
    out->fmask = vmcb->sfmask;
    out->kernel_gs_base = vmcb->kernel_gs_base;
    out->dr6 = vmcb->dr6;
    out->sysenter_cs = vmcb->sysenter_cs;
    out->sysenter_esp = vmcb->sysenter_esp;
    out->sysenter_eip = vmcb->sysenter_eip;
    out->pat = vmcb->pat;
    if (vmcb->event & EVENT_VALID) {
        out->event = (uint32_t)vmcb->event;
        out->event_code = (uint32_t)(vmcb->event >> EVENT_CODE_SHIFT);
    }
    if (vmcb->shadow & SHADOW_ACTIVE)
        out->blocked |= VCPU_BLOCKED_STI;
    if (v->nmi_blocked || (v->iret && v->iret_rip == vmcb->rip))
        out->blocked |= VCPU_BLOCKED_NMI;
    out->traps = v->traps;
    out->cr8 = vcpu->cr8;
    return E_OK;
}

static bool event_is_legal(const struct vcpu_rest *in)
{
    unsigned type = EVENT_TYPE(in->event);

    if (!(in->event & VCPU_EVENT_VALID))
        return in->event == 0;
    return !(in->event & EVENT_RESERVED) && (type == EVENT_INTERRUPT || type == EVENT_NMI ||
                                             type == EVENT_EXCEPTION || type == EVENT_SOFTWARE);
}

/* What else is wrong the CPU finds at VMRUN, which then ends the guest. */
int svm_set_rest(struct vcpu *vcpu, const struct vcpu_rest *in)
{
    struct svm_vcpu *v = svm_vcpu_of(vcpu);
    struct vmcb *vmcb = v->vmcb;

    if (!event_is_legal(in) || !pat_legal(in->pat) || in->cr8 > 15 || in->pending_debug != 0 ||
        (in->blocked & ~(VCPU_BLOCKED_STI | VCPU_BLOCKED_NMI)) || in->traps > BITS(3, 0))
        return E_ILLEGAL;
    int error = resident_take(&v->resident, in);
    if (error != E_OK)
        return error;
    vmcb->star = in->star;
    vmcb->lstar = in->lstar;
    vmcb->cstar = in->cstar;
    vmcb->sfmask = in->fmask;
    vmcb->kernel_gs_base = in->kernel_gs_base;
    vmcb->sysenter_cs = in->sysenter_cs;
    vmcb->sysenter_esp = in->sysenter_esp;
    vmcb->sysenter_eip = in->sysenter_eip;
    vmcb->pat = in->pat;
    vmcb->dr6 = in->dr6;
    vmcb->event = in->event | (uint64_t)in->event_code << EVENT_CODE_SHIFT;
    vmcb->shadow = in->blocked & VCPU_BLOCKED_STI ? SHADOW_ACTIVE : 0;
    v->nmi_blocked = (in->blocked & VCPU_BLOCKED_NMI) != 0;
    if (v->nmi_blocked)
        vmcb->intercept1 |= (uint32_t)INTERCEPT1_IRET;
    v->traps = in->traps;
    vcpu->cr8 = (uint8_t)in->cr8;
    return E_OK;
}
