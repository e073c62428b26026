/*
 * Exits: what concerns VMX alone is dealt with here, everything else is told in the neutral terms
 * of vm/backend.h. SDM Vol. 3, 26.1 "Instructions that cause VM exits", 28.2 "Recording VM-exit
 * information", appendix C.
 */
#include "arch/x86_64/lapic.h"
#include "arch/x86_64/mm/guest_memory.h"
#include "arch/x86_64/mm/tlb.h"
#include "arch/x86_64/vmx/resident.h"
#include "arch/x86_64/vmx/vcpu.h"

static void undefined_opcode(struct vmx_vcpu *v, struct vm_exit *exit)
{
    vmx_inject_exception(v, VECTOR_UD, false, 0);
    exit->kind = VM_EXIT_HANDLED;
}

static void general_protection(struct vmx_vcpu *v, struct vm_exit *exit)
{
    vmx_inject_exception(v, VECTOR_GP, true, 0);
    exit->kind = VM_EXIT_HANDLED;
}

static void emulated(struct vmx_vcpu *v, struct vm_exit *exit)
{
    vmx_skip_bytes(v, exit->length);
    exit->kind = VM_EXIT_HANDLED;
}

/* ---- General registers --------------------------------------------------------------------- */

static uint64_t get_gpr(const struct vmx_vcpu *v, unsigned gpr)
{
    uint64_t value = gpr == RSP ? vmread(VMCS_GUEST_RSP) : v->vcpu.gpr[gpr];
    return vmx_in_64bit_mode() ? value : value & UINT32_MAX;
}

static void set_gpr(struct vmx_vcpu *v, unsigned gpr, uint64_t value)
{
    if (!vmx_in_64bit_mode())
        value &= UINT32_MAX;
    if (gpr == RSP)
        vmwrite(VMCS_GUEST_RSP, value);
    else
        v->vcpu.gpr[gpr] = value;
}

/* ---- Control registers --------------------------------------------------------------------- */

static struct cr_context cr_context(void)
{
    uint64_t tr = vmread(VMCS_GUEST_TR_ACCESS) & ACCESS_TYPE;
    return (struct cr_context){
        .cr0 = vmx_guest_cr0(),
        .cr3 = vmread(VMCS_GUEST_CR3),
        .cr4 = vmx_guest_cr4(),
        .efer = vmread(VMCS_GUEST_EFER),
        .cs_long = (vmread(VMCS_GUEST_CS_ACCESS) & ACCESS_LONG) != 0,
        .tr_16bit = tr == TSS_TYPE_BUSY_16,
    };
}

/* The bits a change of which makes MOV to CR invalidate translations (SDM Vol. 3, 4.10.4.1). */
#define CR0_TRANSLATION (CR0_PG | CR0_WP)
#define CR4_TRANSLATION (CR4_PSE | CR4_PAE | CR4_PGE | CR4_PCIDE | CR4_SMEP | CR4_SMAP)

/* Loads the PDPTEs that `cr3` points at into the VMCS. False: the exit has been told, as the CPU
 * tells it when the memory is missing, or #GP raised for a reserved bit. */
static bool load_pdptes(struct vmx_vcpu *v, uint64_t cr3, struct vm_exit *exit)
{
    uint64_t pdpte[4], at = cr3 & BITS(31, 5);

    /* A load of PDPTEs is a read, whatever a walk counts as (29.3.5). */
    (void)guest_memory_mark(v->table, gpa(at), false);
    if (table_read(v->table, at, RIGHT_R, pdpte, sizeof(pdpte)) != sizeof(pdpte)) {
        struct mapping page; /* all four PDPTEs lie in one */

        exit->kind = VM_EXIT_MEMORY;
        exit->memory.gpa = gpa(at);
        exit->memory.gva_valid = false;
        exit->memory.walk = true;
        exit->memory.access = RIGHT_R;
        exit->memory.allowed =
            table_translate(v->table, at, &page) == E_OK ? page.attrs.rights : RIGHT_NONE;
        exit->name = "load of PDPTEs";
        exit->qualification = exit->memory.access | exit->memory.allowed << 3;
        return false;
    }
    for (unsigned i = 0; i < 4; i++) {
        if (!pdpte_legal(pdpte[i], cpu_features.maxphyaddr)) {
            general_protection(v, exit);
            return false;
        }
    }
    for (unsigned i = 0; i < 4; i++)
        vmwrite(VMCS_GUEST_PDPTE0 + 2 * i, pdpte[i]);
    return true;
}

/* A change of CR0 or CR4 that has been found legal. */
static void change_crs(struct vmx_vcpu *v, const struct cr_context *now, uint64_t cr0, uint64_t cr4,
                       struct vm_exit *exit)
{
    bool lma = (now->efer & EFER_LME) && (cr0 & CR0_PG);

    if (pdptes_reload(now, cr0, cr4, lma) && !load_pdptes(v, now->cr3, exit))
        return;
    vmx_write_crs(cr0, cr4, now->efer);
    if (((now->cr0 ^ cr0) & CR0_TRANSLATION) || ((now->cr4 ^ cr4) & CR4_TRANSLATION))
        vmx_flush_vpid(v);
    emulated(v, exit);
}

static void write_cr0_of(struct vmx_vcpu *v, uint64_t value, struct vm_exit *exit)
{
    struct cr_context now = cr_context();

    if (cr0_refusal(&now, value))
        general_protection(v, exit);
    else
        change_crs(v, &now, value, now.cr4, exit);
}

static void write_cr4_of(struct vmx_vcpu *v, uint64_t value, struct vm_exit *exit)
{
    struct cr_context now = cr_context();

    if (cr4_refusal(&now, value, vmx_policy.guest_cr4))
        general_protection(v, exit);
    else
        change_crs(v, &now, now.cr0, value, exit);
}

bool vmx_load_cr3(struct vmx_vcpu *v, uint64_t value, struct vm_exit *exit)
{
    struct cr_context now = cr_context();
    bool pae = (now.cr0 & CR0_PG) && (now.cr4 & CR4_PAE) && !(now.efer & EFER_LMA);
    bool keep = (now.cr4 & CR4_PCIDE) && (value & CR3_KEEP);

    if (now.cr4 & CR4_PCIDE)
        value &= ~CR3_KEEP;
    if (value & BITS(63, cpu_features.maxphyaddr)) {
        general_protection(v, exit);
        return false;
    }
    if (pae && !load_pdptes(v, value, exit))
        return false;
    vmwrite(VMCS_GUEST_CR3, value);
    if (!keep && v->vpid) {
        tlb_counters.invvpid++;
        invariant(invvpid(INVVPID_KEEP_GLOBALS, v->vpid, 0) == E_OK);
    }
    return true;
}

/* Only on a CPU that insists on these exits (its TRUE controls are missing). */
static void write_cr3_of(struct vmx_vcpu *v, uint64_t value, struct vm_exit *exit)
{
    if (vmx_load_cr3(v, value, exit))
        emulated(v, exit);
}

static void write_cr8_of(struct vmx_vcpu *v, uint64_t value, struct vm_exit *exit)
{
    if (value & ~UINT64_C(0xf)) {
        general_protection(v, exit);
        return;
    }
    v->cr8 = value;
    emulated(v, exit);
}

static void mov_to_cr(struct vmx_vcpu *v, const struct cr_access *access, struct vm_exit *exit)
{
    uint64_t value = get_gpr(v, access->gpr);

    switch (access->cr) {
    case 0:
        write_cr0_of(v, value, exit);
        return;
    case 3:
        write_cr3_of(v, value, exit);
        return;
    case 4:
        write_cr4_of(v, value, exit);
        return;
    case 8:
        write_cr8_of(v, value, exit);
        return;
    }
    undefined_opcode(v, exit);
}

static void mov_from_cr(struct vmx_vcpu *v, const struct cr_access *access, struct vm_exit *exit)
{
    if (access->cr != 3 && access->cr != 8) {
        undefined_opcode(v, exit); /* reads of the others never exit */
        return;
    }
    set_gpr(v, access->gpr, access->cr == 3 ? vmread(VMCS_GUEST_CR3) : v->cr8);
    emulated(v, exit);
}

static void cr_access_exit(struct vmx_vcpu *v, struct vm_exit *exit)
{
    struct cr_access access = cr_access_decode(exit->qualification);
    uint64_t cr0 = vmx_guest_cr0();
    uint64_t low = CR0_MP | CR0_EM | CR0_TS;

    switch (access.kind) {
    case CR_ACCESS_MOV_TO:
        mov_to_cr(v, &access, exit);
        return;
    case CR_ACCESS_MOV_FROM:
        mov_from_cr(v, &access, exit);
        return;
    case CR_ACCESS_CLTS:
        write_cr0_of(v, cr0 & ~CR0_TS, exit);
        return;
    case CR_ACCESS_LMSW: /* sets PE, never clears it */
        write_cr0_of(v, (cr0 & ~low) | (access.source & (low | CR0_PE)), exit);
        return;
    }
}

static void xsetbv_exit(struct vmx_vcpu *v, struct vm_exit *exit)
{
    uint64_t value = (v->vcpu.gpr[RDX] & UINT32_MAX) << 32 | (v->vcpu.gpr[RAX] & UINT32_MAX);

    /* Privilege and CR4.OSXSAVE were judged before the exit. */
    if ((uint32_t)v->vcpu.gpr[RCX] != 0 || !xcr0_legal(value, vmx_policy.guest_xcr0)) {
        general_protection(v, exit);
        return;
    }
    v->xcr0 = value;
    xsetbv(0, value); /* the vCPU is resident: this is its XCR0 */
    emulated(v, exit);
}

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

static void nmi_exit(struct vm_exit *exit)
{
    vmx_cpu()->nmis++;
    this_cpu()->nmis++;
    vmx_unblock_nmi();
    exit->kind = VM_EXIT_INTERRUPT;
}

static void exception_exit(struct vmx_vcpu *v, struct vm_exit *exit)
{
    uint32_t info = (uint32_t)vmread(VMCS_EXIT_INTERRUPTION);
    uint8_t vector = (uint8_t)(info & INTERRUPTION_VECTOR);

    if (interruption_type(info) == INTERRUPTION_NMI) {
        nmi_exit(exit);
        return;
    }
    if (vector == VECTOR_DB) {
        deliver_debug(v, info, exit);
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

    switch (basic) {
    case EXIT_EXCEPTION_OR_NMI:
        exception_exit(v, exit);
        return;
    case EXIT_EXTERNAL_INTERRUPT:
        interrupt_exit(exit);
        return;
    case EXIT_PREEMPTION_TIMER:
        exit->kind = VM_EXIT_SLICE;
        return;
    case EXIT_TRIPLE_FAULT:
        exit->kind = VM_EXIT_SHUTDOWN;
        return;
    case EXIT_EPT_VIOLATION:
        ept_violation_exit(exit);
        return;
    case EXIT_EPT_MISCONFIGURATION:
        exit->kind = VM_EXIT_MISCONFIG;
        exit->length = 0;
        exit->memory.gpa = gpa(vmread(VMCS_GUEST_PHYSICAL_ADDRESS));
        return;
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
        cr_access_exit(v, exit);
        return;
    case EXIT_TASK_SWITCH:
        vmx_task_switch(v, exit);
        return;
    case EXIT_XSETBV:
        xsetbv_exit(v, exit);
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
    /* Instructions that CPUID does not offer. */
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
        undefined_opcode(v, exit);
        return;
    default:
        exit->kind = VM_EXIT_UNKNOWN;
        return;
    }
}
