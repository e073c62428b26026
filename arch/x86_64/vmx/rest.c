/* What a vCPU is beside struct vcpu_state. SDM Vol. 3, 25.4 "Guest-state area", 25.8.3. */
#include "arch/x86_64/guest/keep.h"
#include "arch/x86_64/guest/legal.h"
#include "arch/x86_64/vmx/state.h"

#define EVENT_TYPE(event) ((event) >> 8 & 7)
#define EVENT_TYPE_NONE 1
#define EVENT_TYPE_OTHER 7
#define EVENT_RESERVED BITS(30, 12)
#define LONGEST 15 /* of an instruction */
#define BLOCKED_ALL (VCPU_BLOCKED_STI | VCPU_BLOCKED_MOV_SS | VCPU_BLOCKED_NMI)
#define PENDING_ALL (DEBUG_BREAKPOINTS | DEBUG_ENABLED_BREAKPOINT | DEBUG_BS)

int vmx_get_rest(struct vcpu *vcpu, struct vcpu_rest *out)
{
    struct vmx_vcpu *v = vmx_vcpu_of(vcpu);
    int error = vmx_vcpu_load(v);

    *out = (struct vcpu_rest){0};
    if (error == E_OK)
        error = resident_keep(&v->resident, out);
    if (error != E_OK)
        return error;
    out->sysenter_cs = vmread(VMCS_GUEST_SYSENTER_CS);
    out->sysenter_esp = vmread(VMCS_GUEST_SYSENTER_ESP);
    out->sysenter_eip = vmread(VMCS_GUEST_SYSENTER_EIP);
    out->pat = vmread(VMCS_GUEST_PAT);
    out->pending_debug = vmread(VMCS_GUEST_PENDING_DEBUG);
    uint32_t event = (uint32_t)vmread(VMCS_ENTRY_INTERRUPTION);
    if (event & VCPU_EVENT_VALID) { /* an exit clears that bit alone (25.8.3) */
        out->event = event;
        out->event_code = (uint32_t)vmread(VMCS_ENTRY_EXCEPTION_CODE);
        out->event_length = (uint32_t)vmread(VMCS_ENTRY_LENGTH);
    }
    out->blocked = (uint32_t)vmread(VMCS_GUEST_INTERRUPTIBILITY) & BLOCKED_ALL;
    out->traps = v->traps;
    out->cr8 = vcpu->cr8;
    return E_OK;
}

static bool event_is_legal(const struct vcpu_rest *in)
{
    if (!(in->event & VCPU_EVENT_VALID))
        return in->event == 0;
    return !(in->event & EVENT_RESERVED) && EVENT_TYPE(in->event) != EVENT_TYPE_NONE &&
           EVENT_TYPE(in->event) != EVENT_TYPE_OTHER && in->event_length <= LONGEST;
}

/* What else is wrong the CPU finds at the entry, which then ends the guest. */
int vmx_set_rest(struct vcpu *vcpu, const struct vcpu_rest *in)
{
    struct vmx_vcpu *v = vmx_vcpu_of(vcpu);
    int error = vmx_vcpu_load(v);

    if (error == E_OK && (!event_is_legal(in) || !pat_legal(in->pat) || in->cr8 > 15 ||
                          (in->blocked & ~BLOCKED_ALL) || (in->pending_debug & ~PENDING_ALL) ||
                          (in->traps & ~(uint32_t)DEBUG_BREAKPOINTS)))
        error = E_ILLEGAL;
    if (error == E_OK)
        error = resident_take(&v->resident, in);
    if (error != E_OK)
        return error;
    vmwrite(VMCS_GUEST_SYSENTER_CS, in->sysenter_cs);
    vmwrite(VMCS_GUEST_SYSENTER_ESP, in->sysenter_esp);
    vmwrite(VMCS_GUEST_SYSENTER_EIP, in->sysenter_eip);
    vmwrite(VMCS_GUEST_PAT, in->pat);
    vmwrite(VMCS_GUEST_PENDING_DEBUG, in->pending_debug);
    vmwrite(VMCS_GUEST_INTERRUPTIBILITY, in->blocked);
    vmwrite(VMCS_ENTRY_INTERRUPTION, in->event);
    vmwrite(VMCS_ENTRY_EXCEPTION_CODE, in->event_code);
    vmwrite(VMCS_ENTRY_LENGTH, in->event_length);
    v->traps = in->traps;
    vcpu->cr8 = (uint8_t)in->cr8;
    return E_OK;
}
