/*
 * Exits: what concerns SVM alone is dealt with here, everything else is told in the neutral terms
 * of vm/backend.h. APM Vol. 2, 15.9 "Instruction Intercepts", 15.12 "Exception Intercepts", 15.25.6
 * "Nested versus Guest Page Faults", appendix C.
 */
#include "arch/x86_64/mm/npt.h"
#include "arch/x86_64/guest/machine_check_exit.h"
#include "arch/x86_64/mm/tlb.h"
#include "arch/x86_64/svm/instruction.h"
#include "arch/x86_64/svm/names.h"
#include "arch/x86_64/svm/vcpu.h"
#include "mm/paging/typed.h"

/* The ends of an exit that this folder deals with alone. */
static void undefined_opcode(struct svm_vcpu *v, struct vm_exit *exit)
{
    svm_inject_exception(v, VECTOR_UD, 0);
    exit->kind = VM_EXIT_HANDLED;
}

static void general_protection(struct svm_vcpu *v, struct vm_exit *exit)
{
    svm_inject_exception(v, VECTOR_GP, 0);
    exit->kind = VM_EXIT_HANDLED;
}

static void emulated(struct svm_vcpu *v, struct vm_exit *exit)
{
    svm_skip_to(v, v->vmcb->rip + exit->length);
    exit->kind = VM_EXIT_HANDLED;
}

/* ---- The instruction ----------------------------------------------------------------------- */

/* What lies at RIP. False: it cannot be read, or is no longer there; the guest tries again. */
static bool read_instruction(struct svm_vcpu *v, struct svm_instruction *out)
{
    struct guest_access access = svm_guest_access(v);
    struct operand_cpu cpu = guest_operand_cpu(&access);
    struct operand_place place;
    uint8_t bytes[INSTRUCTION_MOST];
    unsigned have = 0, count;
    uint64_t at = svm_linear_rip(v->vmcb);

    while (have < INSTRUCTION_MOST) {
        if (operand_fetch(&cpu, at + have, INSTRUCTION_MOST - have, bytes + have, &count, &place) !=
                OPERAND_REACHED ||
            count == 0)
            break;
        have += count;
        if (svm_instruction_parse(bytes, have, cpu.code64, out))
            return true;
    }
    return false;
}

/* The instruction that this exit is of, its length with it. */
static bool expect(struct svm_vcpu *v, enum svm_opcode opcode, struct svm_instruction *found,
                   struct vm_exit *exit)
{
    if (!read_instruction(v, found) || found->opcode != opcode) {
        exit->kind = VM_EXIT_HANDLED;
        return false;
    }
    exit->length = found->length;
    return true;
}

static void simple_exit(struct svm_vcpu *v, enum svm_opcode opcode, enum vm_exit_kind kind,
                        struct vm_exit *exit)
{
    struct svm_instruction found;

    if (expect(v, opcode, &found, exit))
        exit->kind = kind;
}

/* ---- MSRs ---------------------------------------------------------------------------------- */

static uint64_t edx_eax(const uint64_t *gpr)
{
    return (gpr[RDX] & UINT32_MAX) << 32 | (gpr[RAX] & UINT32_MAX);
}

/* EFER has SVME in the VMCB, of which the guest knows nothing. */
static bool write_efer(struct svm_vcpu *v, uint64_t value)
{
    uint64_t allowed = EFER_SCE | EFER_LME | EFER_LMA | (cpu_features.nx ? EFER_NXE : 0);
    uint64_t kept = EFER_LMA | EFER_SVME;

    if ((value & ~allowed) || ((v->vmcb->cr0 & CR0_PG) && ((value ^ v->vmcb->efer) & EFER_LME)))
        return false;
    v->vmcb->efer = (value & ~kept) | (v->vmcb->efer & kept);
    tlb_flush_asid(v->asid);
    return true;
}

/* PAT and EFER are the VMCB's. The other registers are vm/'s. */
static void msr_exit(struct svm_vcpu *v, struct vm_exit *exit)
{
    uint64_t *gpr = v->vcpu.gpr, value = edx_eax(gpr);
    bool write = v->vmcb->exit_info1 & 1, legal = true;
    struct svm_instruction found;

    if (!expect(v, write ? OPCODE_WRMSR : OPCODE_RDMSR, &found, exit))
        return;
    exit->kind = VM_EXIT_MSR;
    exit->msr.index = (uint32_t)gpr[RCX];
    exit->msr.write = write;
    if (exit->msr.index != IA32_PAT && exit->msr.index != IA32_EFER)
        return;
    if (!write) {
        value = exit->msr.index == IA32_PAT ? v->vmcb->pat : v->vmcb->efer & ~EFER_SVME;
        gpr[RAX] = value & UINT32_MAX;
        gpr[RDX] = value >> 32;
    } else if (exit->msr.index == IA32_EFER) {
        legal = write_efer(v, value);
    } else if ((legal = pat_legal(value))) {
        v->vmcb->pat = value;
    }
    if (legal)
        emulated(v, exit);
    else
        general_protection(v, exit);
}

/* ---- Control registers --------------------------------------------------------------------- */

static void set_cr4(struct svm_vcpu *v, uint64_t value, struct vm_exit *exit)
{
    const struct cr_context now = {
        .cr0 = v->vmcb->cr0,
        .cr3 = v->vmcb->cr3,
        .cr4 = svm_guest_cr4(v),
        .efer = v->vmcb->efer,
    };

    if (cr4_refusal(&now, value, svm_policy.guest_cr4)) {
        general_protection(v, exit);
        return;
    }
    svm_set_guest_cr4(v, value);
    tlb_flush_asid(v->asid);
    emulated(v, exit);
}

static void cr_exit(struct svm_vcpu *v, bool write, unsigned cr, struct vm_exit *exit)
{
    struct svm_instruction found;
    uint64_t mask = svm_in_64bit_mode(v->vmcb) ? UINT64_MAX : UINT32_MAX;

    if (!expect(v, write ? OPCODE_MOV_TO_CR : OPCODE_MOV_FROM_CR, &found, exit) || found.cr != cr)
        return;
    uint64_t *gpr = found.gpr == RSP ? &v->vmcb->rsp : &v->vcpu.gpr[found.gpr];
    if (write && cr == 4) {
        set_cr4(v, *gpr & mask, exit);
    } else if (!write) {
        *gpr = cr == 4 ? svm_guest_cr4(v) : v->vcpu.cr8;
        emulated(v, exit);
    } else if (*gpr & mask & ~UINT64_C(0xf)) {
        general_protection(v, exit);
    } else {
        v->vcpu.cr8 = (uint8_t)*gpr;
        emulated(v, exit);
    }
}

/* The number of the register is in the exit's code, and of 0 to 7. */
static void dr_exit(struct svm_vcpu *v, unsigned code, struct vm_exit *exit)
{
    bool write = code >= SVM_EXIT_DR_WRITE;
    struct svm_instruction found;

    if (!expect(v, write ? OPCODE_MOV_TO_DR : OPCODE_MOV_FROM_DR, &found, exit))
        return;
    switch (svm_move_dr(v, code & 7, write, found.gpr)) {
    case DEBUG_MOVED:
        emulated(v, exit);
        return;
    case DEBUG_UNDEFINED:
        undefined_opcode(v, exit);
        return;
    case DEBUG_PROTECTION:
        general_protection(v, exit);
        return;
    case DEBUG_DETECTED: /* of faults only the one by an instruction's breakpoint leaves RF 0 */
        v->vmcb->rflags |= RFLAGS_RF;
        svm_inject_exception(v, VECTOR_DB, 0);
        exit->kind = VM_EXIT_HANDLED;
        return;
    }
}

static void xsetbv_exit(struct svm_vcpu *v, struct vm_exit *exit)
{
    uint64_t value = edx_eax(v->vcpu.gpr);
    struct svm_instruction found;

    if (!expect(v, OPCODE_XSETBV, &found, exit))
        return;
    if (v->vmcb->cpl != 0 || (uint32_t)v->vcpu.gpr[RCX] != 0 || !xcr0_legal(value, resident_xcr0)) {
        general_protection(v, exit);
        return;
    }
    v->resident.xcr0 = value;
    xsetbv(0, value); /* the vCPU is resident: this is its XCR0 */
    emulated(v, exit);
}

/* ---- Exceptions ---------------------------------------------------------------------------- */

/* VMCALL is Intel's hypercall and undefined here: guests know no other. */
static void undefined_exit(struct svm_vcpu *v, struct vm_exit *exit)
{
    struct svm_instruction found;

    if (read_instruction(v, &found) && found.opcode == OPCODE_VMCALL) {
        exit->length = found.length;
        exit->kind = VM_EXIT_HYPERCALL;
        return;
    }
    undefined_opcode(v, exit);
}

/* #DB and #AC pass through here since they may raise themselves while they are delivered, in a loop
 * that no interrupt ends. DR6 has what it should have (15.12.2). */
static void exception_exit(struct svm_vcpu *v, uint8_t vector, struct vm_exit *exit)
{
    switch (vector) {
    case VECTOR_UD:
        undefined_exit(v, exit);
        return;
    case VECTOR_MC:
        machine_check_exit(exit);
        return;
    case VECTOR_DB:
        if (svm_until_met(v)) {
            exit->kind = VM_EXIT_UNTIL;
            return;
        }
        /* fall through */
    case VECTOR_AC:
        svm_inject_exception(v, vector, (uint32_t)v->vmcb->exit_info1);
        exit->kind = VM_EXIT_HANDLED;
        return;
    default:
        exit->kind = VM_EXIT_EXCEPTION;
        exit->exception.vector = vector;
        exit->exception.has_code = exception_has_code(vector);
        exit->exception.code = (uint32_t)v->vmcb->exit_info1;
        exit->exception.address = v->vmcb->exit_info2;
    }
}

/* ---- Memory and ports ---------------------------------------------------------------------- */

/* The error code of the fault: what the access was. What the table allows it does not say, so the
 * table is asked; an illegal entry is one by a reserved bit or one without U/S. */
static void nested_fault_exit(struct svm_vcpu *v, struct vm_exit *exit)
{
    uint64_t info = v->vmcb->exit_info1;
    gpa_t at = gpa(v->vmcb->exit_info2);
    struct mapping page;
    int error = gpa_translate(v->table, at, &page);

    if ((info & PF_RESERVED) || error == E_ILLEGAL) {
        exit->kind = VM_EXIT_MISCONFIG;
        exit->memory.gpa = at;
        return;
    }
    exit->kind = VM_EXIT_MEMORY;
    exit->memory.gpa = at;
    exit->memory.gva_valid = false;
    exit->memory.walk = (info & NPT_FAULT_WALK) != 0;
    exit->memory.access = npt_fault_access(info);
    exit->memory.allowed = error == E_OK ? page.attrs.rights : RIGHT_NONE;
}

static void io_exit(struct svm_vcpu *v, struct vm_exit *exit)
{
    uint64_t info = v->vmcb->exit_info1;
    struct svm_instruction found;
    unsigned usual = svm_in_64bit_mode(v->vmcb)                            ? 8
                     : v->vmcb->cs.attributes & (uint16_t)(ACCESS_DB >> 4) ? 4
                                                                           : 2;

    exit->length = (unsigned)(v->vmcb->exit_info2 - v->vmcb->rip);
    if (info & IOIO_STRING) {
        if (!expect(v, OPCODE_IO_STRING, &found, exit))
            return;
        if (found.address_override)
            usual = usual == 4 ? 2 : 4;
        exit->port.address_bytes = (uint8_t)usual;
        exit->port.segment = info & IOIO_IN       ? SEG_ES
                             : found.segment >= 0 ? (enum segment_index)found.segment
                                                  : SEG_DS;
    }
    exit->kind = VM_EXIT_PORT;
    exit->port.port = (uint16_t)(info >> IOIO_PORT_SHIFT);
    exit->port.width = (uint8_t)(info >> IOIO_SIZE_SHIFT & 7);
    exit->port.in = info & IOIO_IN;
    exit->port.string = (info & IOIO_STRING) != 0;
    exit->port.rep = (info & IOIO_REP) != 0;
}

/* ---- The dispatch -------------------------------------------------------------------------- */

/* What happened to the guest without its asking. False: an instruction exited. */
static bool event_exit(struct svm_vcpu *v, uint64_t code, struct vm_exit *exit)
{
    switch (code) {
    case SVM_EXIT_INTR:
    case SVM_EXIT_SMI:
    case SVM_EXIT_INIT:
        exit->kind = VM_EXIT_INTERRUPT; /* taken by the host, with its own gates */
        return true;
    case SVM_EXIT_NMI:
        svm_policy.nmis++;
        exit->kind = VM_EXIT_INTERRUPT;
        return true;
    case SVM_EXIT_VINTR:
        exit->kind = VM_EXIT_WINDOW;
        return true;
    case SVM_EXIT_IRET:
        svm_iret_exit(v);
        exit->kind = VM_EXIT_HANDLED;
        return true;
    case SVM_EXIT_SHUTDOWN:
        exit->kind = VM_EXIT_SHUTDOWN;
        return true;
    case SVM_EXIT_NPF:
        nested_fault_exit(v, exit);
        return true;
    default:
        if (code < SVM_EXIT_EXCEPTION || code >= SVM_EXIT_EXCEPTION + EXCEPTION_COUNT)
            return false;
        exception_exit(v, (uint8_t)(code - SVM_EXIT_EXCEPTION), exit);
        return true;
    }
}

static void instruction_exit(struct svm_vcpu *v, uint64_t code, struct vm_exit *exit)
{
    struct svm_instruction found;

    if (code >= SVM_EXIT_DR_READ && code < SVM_EXIT_EXCEPTION) {
        dr_exit(v, (unsigned)code, exit);
        return;
    }
    switch (code) {
    case SVM_EXIT_CR_WRITE + 4:
    case SVM_EXIT_CR_WRITE + 8:
        cr_exit(v, true, (unsigned)(code - SVM_EXIT_CR_WRITE), exit);
        return;
    case SVM_EXIT_CR_READ + 4:
    case SVM_EXIT_CR_READ + 8:
        cr_exit(v, false, (unsigned)(code - SVM_EXIT_CR_READ), exit);
        return;
    case SVM_EXIT_CPUID:
        simple_exit(v, OPCODE_CPUID, VM_EXIT_CPUID, exit);
        return;
    case SVM_EXIT_HLT:
        simple_exit(v, OPCODE_HLT, VM_EXIT_HALT, exit);
        return;
    case SVM_EXIT_VMMCALL:
        simple_exit(v, OPCODE_VMMCALL, VM_EXIT_HYPERCALL, exit);
        return;
    case SVM_EXIT_IOIO:
        io_exit(v, exit);
        return;
    case SVM_EXIT_MSR:
        msr_exit(v, exit);
        return;
    case SVM_EXIT_XSETBV:
        xsetbv_exit(v, exit);
        return;
    case SVM_EXIT_INVD:   /* guest memory is write-back and coherent: nothing is left to do */
    case SVM_EXIT_WBINVD: /* QEMU 7.2 has this for both */
        if (expect(v, OPCODE_INVD, &found, exit) || expect(v, OPCODE_WBINVD, &found, exit))
            emulated(v, exit);
        return;
    case SVM_EXIT_RDPMC: /* no performance counters are offered */
        general_protection(v, exit);
        return;
    default:
        if (svm_exit_undefined(code))
            undefined_opcode(v, exit);
        else
            exit->kind = VM_EXIT_UNKNOWN;
    }
}

void svm_decode_exit(struct svm_vcpu *v, struct vm_exit *exit)
{
    uint64_t code = v->vmcb->exit_code;

    *exit = (struct vm_exit){
        .name = svm_exit_name(code),
        .raw = code,
        .qualification = v->vmcb->exit_info1,
        .rip = v->vmcb->rip,
    };
    svm_requeue_event(v);
    if (!event_exit(v, code, exit))
        instruction_exit(v, code, exit);
}
