/*
 * Exits: what concerns VMX alone is dealt with here, everything else is told in the neutral terms
 * of vm/backend.h. SDM Vol. 3, 26.1 "Instructions that cause VM exits", 28.2 "Recording VM-exit
 * information", appendix C.
 */
#include "arch/x86_64/vmx/exits.h"

#include "arch/x86_64/guest/machine_check_exit.h"
#include "arch/x86_64/lapic.h"
#include "arch/x86_64/trap.h"
#include "arch/x86_64/vmx/names.h"
#include "arch/x86_64/vmx/state.h"

/* ---- MSRs ---------------------------------------------------------------------------------- */

/* PAT is the guest's own, loaded by every entry. That exits save it is not asked of the CPU, so
 * writes come by here. The other registers are vm/'s. */
static void msr_exit(struct vmx_vcpu *v, bool write, struct vm_exit *exit)
{
    uint64_t *gpr = v->vcpu.gpr;
    uint64_t value = (gpr[RDX] & UINT32_MAX) << 32 | (gpr[RAX] & UINT32_MAX);

    exit->kind = VM_EXIT_MSR;
    exit->msr.index = (uint32_t)gpr[RCX];
    exit->msr.write = write;
    if (exit->msr.index != IA32_PAT)
        return;
    if (!write) {
        value = vmread(VMCS_GUEST_PAT);
        gpr[RAX] = value & UINT32_MAX;
        gpr[RDX] = value >> 32;
    } else if (pat_legal(value)) {
        vmwrite(VMCS_GUEST_PAT, value);
    } else {
        general_protection(v, exit);
        return;
    }
    emulated(v, exit);
}

/* ---- Exceptions and interrupts ------------------------------------------------------------- */

/* Delivers an intercepted #DB as it would have come (28.2.1: the qualification has what DR6 would
 * get; 18.2.3 for DR6 and 18.2.4 for DR7.GD). INT1 has no such side effects. */
static void deliver_debug(struct vmx_vcpu *v, uint32_t info, struct vm_exit *exit)
{
    exit->kind = VM_EXIT_HANDLED;
    if (interruption_type(info) == INTERRUPTION_PRIVILEGED_EXCEPTION) {
        vmwrite(VMCS_ENTRY_LENGTH, vmread(VMCS_EXIT_LENGTH));
        vmwrite(VMCS_ENTRY_INTERRUPTION,
                interruption(INTERRUPTION_PRIVILEGED_EXCEPTION, VECTOR_DB, false));
        return;
    }
    uint64_t causes = exit->qualification & (DEBUG_BREAKPOINTS | DEBUG_BD | DEBUG_BS);
    write_dr6((read_dr6() & ~DEBUG_BREAKPOINTS) | causes);
    if (causes & DEBUG_BD)
        vmwrite(VMCS_GUEST_DR7, vmread(VMCS_GUEST_DR7) & ~DEBUG_BD); /* GD has the same place */
    vmx_inject_exception(v, VECTOR_DB, false, 0);
}

static bool is_nmi(uint32_t info)
{
    return interruption_type(info) == INTERRUPTION_NMI;
}

void vmx_take_nmi(void)
{
    if ((uint32_t)vmread(VMCS_EXIT_REASON) != EXIT_EXCEPTION_OR_NMI ||
        !is_nmi((uint32_t)vmread(VMCS_EXIT_INTERRUPTION)))
        return;
    vmx_cpu()->nmis++;
    this_cpu()->nmis++;
    if (cpus_nmi)
        cpus_nmi(NULL);
    vmx_unblock_nmi();
}

static void exception_exit(struct vmx_vcpu *v, struct vm_exit *exit)
{
    uint32_t info = (uint32_t)vmread(VMCS_EXIT_INTERRUPTION);
    uint8_t vector = (uint8_t)(info & INTERRUPTION_VECTOR);

    if (is_nmi(info)) {
        exit->kind = VM_EXIT_INTERRUPT; /* vmx_take_nmi() has taken it */
        return;
    }
    if (vector == VECTOR_DB && interruption_type(info) == INTERRUPTION_EXCEPTION &&
        vmx_until_met(v, exit->qualification)) {
        exit->kind = VM_EXIT_UNTIL;
        return;
    }
    if (vector == VECTOR_DB) {
        deliver_debug(v, info, exit);
        return;
    }
    if (vector == VECTOR_MC) {
        machine_check_exit(exit);
        return;
    }
    if (vector == VECTOR_AC) {
        vmx_inject_exception(v, VECTOR_AC, true, (uint32_t)vmread(VMCS_EXIT_INTERRUPTION_CODE));
        exit->kind = VM_EXIT_HANDLED;
        return;
    }
    exit->kind = VM_EXIT_EXCEPTION;
    exit->exception.vector = vector;
    exit->exception.has_code = (info & INTERRUPTION_CODE_VALID) != 0;
    if (exit->exception.has_code)
        exit->exception.code = (uint32_t)vmread(VMCS_EXIT_INTERRUPTION_CODE);
    if (vector == VECTOR_PF)
        exit->exception.address = exit->qualification;
}

/* Acknowledged by the exit, so that it is in service in the local APIC until it is ended there. */
static void interrupt_exit(struct vm_exit *exit)
{
    struct vmx_cpu *cpu = vmx_cpu();
    uint32_t info = (uint32_t)vmread(VMCS_EXIT_INTERRUPTION);
    uint8_t vector = (uint8_t)(info & INTERRUPTION_VECTOR);

    cpu->external_interrupts++;
    if (cpu->lapic && (info & INTERRUPTION_VALID) && vector != VECTOR_SPURIOUS)
        lapic_end_of_interrupt();
    exit->kind = vector == VECTOR_TIMER ? VM_EXIT_SLICE : VM_EXIT_INTERRUPT;
}

/* ---- Memory and ports ---------------------------------------------------------------------- */

static void ept_violation_exit(struct vm_exit *exit)
{
    struct ept_violation violation = ept_violation_decode(exit->qualification);

    exit->kind = VM_EXIT_MEMORY;
    exit->length = 0;
    exit->memory.gpa = gpa(vmread(VMCS_GUEST_PHYSICAL_ADDRESS));
    exit->memory.gva_valid = violation.gva_valid;
    if (violation.gva_valid)
        exit->memory.gva = gva(vmread(VMCS_GUEST_LINEAR_ADDRESS));
    exit->memory.walk = violation.walk;
    exit->memory.access = violation.access;
    exit->memory.allowed = violation.allowed;
}

/* The address size of the code segment, where no prefix is known of. */
static unsigned default_address_bytes(void)
{
    if (vmx_in_64bit_mode())
        return 8;
    return vmread(VMCS_GUEST_CS_ACCESS) & ACCESS_DB ? 4 : 2;
}

/* Table 28-8, "Format of the VM-Exit Instruction-Information Field as Used for INS and OUTS". A CPU
 * that does not give it leaves prefixes unseen. */
static unsigned string_address_bytes(void)
{
    unsigned size = (unsigned)vmread(VMCS_EXIT_INSTRUCTION) >> 7 & 7;

    if (!vmx_caps.basic.ins_outs_info || size > 2)
        return default_address_bytes();
    return 2u << size;
}

/* INS has no other than ES. */
static enum segment_index string_segment(bool in)
{
    unsigned segment = (unsigned)vmread(VMCS_EXIT_INSTRUCTION) >> 15 & 7;

    if (in)
        return SEG_ES;
    return vmx_caps.basic.ins_outs_info && segment <= SEG_GS ? (enum segment_index)segment : SEG_DS;
}

static void io_exit(struct vm_exit *exit)
{
    struct io_access access = io_access_decode(exit->qualification);

    if (access.string) {
        exit->port.address_bytes = (uint8_t)string_address_bytes();
        exit->port.segment = string_segment(access.in);
    }

    exit->kind = VM_EXIT_PORT;
    exit->port.port = access.port;
    exit->port.width = access.width;
    exit->port.in = access.in;
    exit->port.string = access.string;
    exit->port.rep = access.rep;
}

/* ---- The dispatch -------------------------------------------------------------------------- */

/* What happened to the guest without its asking. False: an instruction exited. */
static bool event_exit(struct vmx_vcpu *v, unsigned basic, struct vm_exit *exit)
{
    switch (basic) {
    case EXIT_EXCEPTION_OR_NMI:
        exception_exit(v, exit);
        return true;
    case EXIT_EXTERNAL_INTERRUPT:
        interrupt_exit(exit);
        return true;
    case EXIT_PREEMPTION_TIMER:
        exit->kind = VM_EXIT_SLICE;
        return true;
    case EXIT_INTERRUPT_WINDOW:
        exit->kind = VM_EXIT_WINDOW;
        return true;
    case EXIT_NMI_WINDOW:
        vmx_nmi_window_exit(v);
        exit->kind = VM_EXIT_WINDOW;
        return true;
    case EXIT_TRIPLE_FAULT:
        exit->kind = VM_EXIT_SHUTDOWN;
        return true;
    case EXIT_EPT_VIOLATION:
        ept_violation_exit(exit);
        return true;
    case EXIT_LOG_FULL:
        exit->kind = VM_EXIT_LOG_FULL;
        return true;
    case EXIT_EPT_MISCONFIGURATION:
        exit->kind = VM_EXIT_MISCONFIG;
        exit->length = 0;
        exit->memory.gpa = gpa(vmread(VMCS_GUEST_PHYSICAL_ADDRESS));
        return true;
    default:
        return false;
    }
}

/* Instructions that CPUID does not offer. */
static bool is_undefined(unsigned basic)
{
    switch (basic) {
    case EXIT_GETSEC:
    case EXIT_VMCLEAR:
    case EXIT_VMLAUNCH:
    case EXIT_VMPTRLD:
    case EXIT_VMPTRST:
    case EXIT_VMREAD:
    case EXIT_VMRESUME:
    case EXIT_VMWRITE:
    case EXIT_VMXOFF:
    case EXIT_VMXON:
    case EXIT_INVEPT:
    case EXIT_INVVPID:
    case EXIT_VMFUNC:
    case EXIT_MWAIT:
    case EXIT_MONITOR:
    case EXIT_ENCLS:
        return true;
    default:
        return false;
    }
}

static void instruction_exit(struct vmx_vcpu *v, unsigned basic, struct vm_exit *exit)
{
    switch (basic) {
    case EXIT_IO:
        io_exit(exit);
        return;
    case EXIT_RDMSR:
    case EXIT_WRMSR:
        msr_exit(v, basic == EXIT_WRMSR, exit);
        return;
    case EXIT_CPUID:
        exit->kind = VM_EXIT_CPUID;
        return;
    case EXIT_HLT:
        exit->kind = VM_EXIT_HALT;
        return;
    case EXIT_VMCALL:
        exit->kind = VM_EXIT_HYPERCALL;
        return;
    case EXIT_CR_ACCESS:
        vmx_cr_access_exit(v, exit);
        return;
    case EXIT_MOV_DR:
        vmx_dr_access_exit(v, exit);
        return;
    case EXIT_TASK_SWITCH:
        vmx_task_switch(v, exit);
        return;
    case EXIT_XSETBV:
        vmx_xsetbv_exit(v, exit);
        return;
    case EXIT_INVD:
        /* To discard what is in the caches would discard what others have written. Guest memory is
         * write-back and coherent, so that nothing is left to do here or there. */
    case EXIT_WBINVD:
        emulated(v, exit);
        return;
    case EXIT_RDPMC: /* no performance counters are offered */
        general_protection(v, exit);
        return;
    default:
        if (is_undefined(basic))
            undefined_opcode(v, exit);
        else
            exit->kind = VM_EXIT_UNKNOWN;
        return;
    }
}

void vmx_decode_exit(struct vmx_vcpu *v, uint32_t reason, struct vm_exit *exit)
{
    unsigned basic = (unsigned)(reason & EXIT_REASON_BASIC);

    exit->name = exit_reason_name(basic);
    exit->raw = reason;
    exit->qualification = vmread(VMCS_EXIT_QUALIFICATION);
    exit->rip = vmread(VMCS_GUEST_RIP);
    exit->length = (unsigned)vmread(VMCS_EXIT_LENGTH);
    vmx_drop_traps(v);
    vmx_requeue_event(v, basic, exit->qualification);

    if (!event_exit(v, basic, exit))
        instruction_exit(v, basic, exit);
}
