/*
 * The hypervisor's breakpoint among the guest's (arch/x86_64/guest/debug.h), and MOV to and from
 * debug registers. SDM Vol. 3, 25.6.2 "MOV-DR exiting", 26.1.3; 28.2.1, table 28-4.
 */
#include "arch/x86_64/vmx/exits.h"
#include "arch/x86_64/vmx/state.h"

#define DR_ACCESS_NUMBER(qualification) ((unsigned)(qualification)&7)
#define DR_ACCESS_READ BIT(4)
#define DR_ACCESS_GPR(qualification) ((unsigned)(qualification) >> 8 & 0xf)

/* "MOV-DR exiting" is had by every CPU with VMX. */
void vmx_write_proc_controls(struct vmx_vcpu *v)
{
    uint32_t controls = vmx_policy.control[CONTROLS_PROC];

    if (v->window)
        controls |= (uint32_t)PROC_INTERRUPT_WINDOW_EXITING;
    if (v->nmi_window)
        controls |= (uint32_t)PROC_NMI_WINDOW_EXITING;
    if (v->dr_exits)
        controls |= (uint32_t)PROC_MOV_DR_EXITING;
    vmwrite(VMCS_PROC_CONTROLS, controls);
}

bool vmx_until_arm(struct vmx_vcpu *v)
{
    const struct vm_until *until = &v->vcpu.until;
    uint64_t dr7;

    v->until.slot = -1;
    if (v->dr_exits != until->on) {
        v->dr_exits = until->on;
        vmx_write_proc_controls(v);
    }
    if (!until->on)
        return true;
    dr7 = vmread(VMCS_GUEST_DR7);
    if (!debug_lend(&v->until, until->at, &dr7))
        return false;
    vmwrite(VMCS_GUEST_DR7, dr7);
    return true;
}

void vmx_until_disarm(struct vmx_vcpu *v)
{
    if (v->until.slot < 0)
        return;
    uint64_t dr7 = vmread(VMCS_GUEST_DR7);

    debug_give_back(&v->until, &dr7);
    vmwrite(VMCS_GUEST_DR7, dr7);
}

bool vmx_until_met(const struct vmx_vcpu *v, uint64_t qualification)
{
    return v->vcpu.until.on && (qualification & BIT((unsigned)v->until.slot));
}

void vmx_dr_access_exit(struct vmx_vcpu *v, struct vm_exit *exit)
{
    struct debug_registers registers = {.dr6 = read_dr6(), .dr7 = vmread(VMCS_GUEST_DR7)};
    unsigned gpr = DR_ACCESS_GPR(exit->qualification);
    struct debug_move move = {
        .dr = DR_ACCESS_NUMBER(exit->qualification),
        .write = !(exit->qualification & DR_ACCESS_READ),
        .bytes = vmx_in_64bit_mode() ? 8 : 4,
        .cpl = vmx_guest_cr0() & CR0_PE
                   ? (unsigned)vmread(VMCS_GUEST_SS_ACCESS) >> ACCESS_DPL_SHIFT & 3
                   : 0,
        .extensions = (vmx_guest_cr4() & CR4_DE) != 0,
        .value = vmx_get_gpr(v, gpr),
    };

    enum debug_outcome outcome = debug_move_resident(&registers, &move);
    write_dr6(registers.dr6);
    vmwrite(VMCS_GUEST_DR7, registers.dr7);
    switch (outcome) {
    case DEBUG_MOVED:
        if (!move.write)
            vmx_set_gpr(v, gpr, move.value);
        emulated(v, exit);
        return;
    case DEBUG_UNDEFINED:
        undefined_opcode(v, exit);
        return;
    case DEBUG_PROTECTION:
        general_protection(v, exit);
        return;
    case DEBUG_DETECTED: /* of faults only the one by an instruction's breakpoint leaves RF 0 */
        vmwrite(VMCS_GUEST_RFLAGS, vmread(VMCS_GUEST_RFLAGS) | RFLAGS_RF);
        vmx_inject_exception(v, VECTOR_DB, false, 0);
        exit->kind = VM_EXIT_HANDLED;
        return;
    }
}
