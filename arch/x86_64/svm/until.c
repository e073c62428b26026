/*
 * The hypervisor's breakpoint among the guest's (arch/x86_64/guest/debug.h), and MOV to and from
 * debug registers. APM Vol. 2, 15.9 "Instruction Intercepts", 13.1.1 "Debug Registers"; 15.6: DR7
 * enables nothing after #VMEXIT.
 */
#include "arch/x86_64/svm/vcpu.h"

#define DR7_NONE UINT64_C(0x400)

extern const char kernel_text[], kernel_text_end[]; /* boot/linker.ld */

bool svm_until_arm(struct svm_vcpu *v)
{
    const struct vm_until *until = &v->vcpu.until;
    struct vmcb *vmcb = v->vmcb;

    v->until.slot = -1;
    vmcb->intercept_dr = until->on ? UINT32_MAX : 0;
    if (!until->on)
        return true;
    v->own_dr6 = vmcb->dr6;
    return debug_lend(&v->until, until->at, &vmcb->dr7);
}

static bool is_hosts(uint64_t at)
{
    return at >= (uint64_t)(uintptr_t)kernel_text && at < (uint64_t)(uintptr_t)kernel_text_end;
}

/* QEMU has a breakpoint from a MOV to DR7 alone, not from VMRUN, and comes to its end where it is
 * met while CS has a base (docs/SVM.md). From here to VMRUN it is the host's as well, whose own
 * instructions are left out. */
void svm_until_show(const struct svm_vcpu *v)
{
    bool flat = svm_in_64bit_mode(v->vmcb) || v->vmcb->cs.base == 0;

    if (v->until.slot >= 0 && flat && !is_hosts(v->vcpu.until.at))
        write_dr7(debug_armed(DR7_NONE, (unsigned)v->until.slot));
}

void svm_until_disarm(struct svm_vcpu *v)
{
    if (v->until.slot < 0)
        return;
    write_dr7(DR7_NONE);
    debug_give_back(&v->until, &v->vmcb->dr7);
}

/* The bit may be an old one of the guest's. The exit has set DR6, which the guest is not to see. */
bool svm_until_met(struct svm_vcpu *v)
{
    if (v->until.slot < 0 || !(v->vmcb->dr6 & BIT((unsigned)v->until.slot)) ||
        svm_linear_rip(v->vmcb) != v->vcpu.until.at)
        return false;
    v->vmcb->dr6 = v->own_dr6;
    return true;
}

enum debug_outcome svm_move_dr(struct svm_vcpu *v, unsigned dr, bool write, unsigned gpr)
{
    struct vmcb *vmcb = v->vmcb;
    uint64_t *general = gpr == RSP ? &vmcb->rsp : &v->vcpu.gpr[gpr];
    struct debug_registers registers = {.dr6 = vmcb->dr6, .dr7 = vmcb->dr7};
    struct debug_move move = {
        .dr = dr,
        .write = write,
        .bytes = svm_in_64bit_mode(vmcb) ? 8 : 4,
        .cpl = vmcb->cpl,
        .extensions = (vmcb->cr4 & CR4_DE) != 0,
        .value = *general,
    };

    enum debug_outcome outcome = debug_move_resident(&registers, &move);
    vmcb->dr6 = registers.dr6;
    vmcb->dr7 = registers.dr7;
    if (outcome == DEBUG_MOVED && !write)
        *general = move.value;
    return outcome;
}
