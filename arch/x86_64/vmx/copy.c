/* One vCPU made what another is. SDM Vol. 3, 25.4 "Guest-state area", 25.8 "VM-entry controls". */
#include "arch/x86_64/vmx/state.h"
#include "arch/x86_64/vmx/vpid.h"
#include "lib/string.h"

/* Controls that follow the guest. */
static bool is_of_guest(uint32_t field)
{
    switch (field) {
    case VMCS_PROC_CONTROLS: /* the windows, MOV-DR exiting */
    case VMCS_ENTRY_CONTROLS:
    case VMCS_ENTRY_INTERRUPTION:
    case VMCS_ENTRY_EXCEPTION_CODE:
    case VMCS_ENTRY_LENGTH:
    case VMCS_CR0_SHADOW:
    case VMCS_CR4_SHADOW:
        return true;
    default:
        return vmcs_field_type(field) == VMCS_TYPE_GUEST && field != VMCS_LINK_POINTER &&
               field != VMCS_PML_INDEX && field != VMCS_PREEMPTION_TIMER;
    }
}

static const uint32_t fields[] = {
#define FIELD(name, encoding, words) encoding,
    VMCS_FIELDS(FIELD)
#undef FIELD
};

int vmx_vcpu_copy(struct vcpu *to, struct vcpu *from)
{
    struct vmx_vcpu *target = vmx_vcpu_of(to), *source = vmx_vcpu_of(from);
    uint64_t value[ARRAY_SIZE(fields)];
    int error = vmx_vcpu_load(source);

    for (unsigned i = 0; error == E_OK && i < ARRAY_SIZE(fields); i++)
        if (is_of_guest(fields[i]))
            value[i] = vmread(fields[i]);
    if (error == E_OK)
        error = vmx_vcpu_load(target);
    if (error != E_OK)
        return error;
    for (unsigned i = 0; i < ARRAY_SIZE(fields); i++)
        if (is_of_guest(fields[i]))
            vmwrite(fields[i], value[i]);
    memcpy(to->gpr, from->gpr, sizeof(to->gpr));
    to->cr8 = from->cr8;
    target->live.cr2 = source->live.cr2;
    target->window = source->window;
    target->nmi_window = source->nmi_window;
    target->dr_exits = source->dr_exits;
    target->traps = source->traps;
    resident_copy(&target->resident, &source->resident);
    vpid_flush(target->vpid);
    return E_OK;
}
