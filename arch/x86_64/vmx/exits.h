/*
 * What an exit, or an entry that failed, comes to in the neutral terms of vm/backend.h.
 */
#ifndef QUIRE_ARCH_VMX_EXITS_H
#define QUIRE_ARCH_VMX_EXITS_H

#include "arch/x86_64/guest/access.h"
#include "arch/x86_64/vmx/events.h"

/* Tells what happened, having dealt with what is VMX's own. */
void vmx_decode_exit(struct vmx_vcpu *v, uint32_t reason, struct vm_exit *exit);
/* An NMI that this exit is by. Takes no lock, as its sender may hold any. */
void vmx_take_nmi(void);
/* explain_exit.c: why an access ended in an EPT violation or misconfiguration. */
void vmx_explain_access(struct vcpu *vcpu, const struct vm_exit *exit, struct sink *to);
/* entry_failure.c: why the CPU did not enter the guest. */
void vmx_explain_fail(struct vmx_vcpu *v, enum vmx_enter outcome, struct vm_exit *exit);
void vmx_explain_entry(struct vmx_vcpu *v, uint32_t reason, struct vm_exit *exit);

/* cr_exits.c: accesses to control registers, and XSETBV. What is legal is done; what is not raises
 * #GP or #UD. */
void vmx_cr_access_exit(struct vmx_vcpu *v, struct vm_exit *exit);
void vmx_xsetbv_exit(struct vmx_vcpu *v, struct vm_exit *exit);
/* A legal CR3 becomes the guest's. False: #GP has been raised, or the exit told that it has come
 * to. */
bool vmx_load_cr3(struct vmx_vcpu *v, uint64_t value, struct vm_exit *exit);

/* A general register as an operand of MOV to or from a control or debug register. */
uint64_t vmx_get_gpr(const struct vmx_vcpu *v, unsigned gpr);
void vmx_set_gpr(struct vmx_vcpu *v, unsigned gpr, uint64_t value);

/* until.c: `until` of the vCPU, where this entry or the one before has to do with it, right before
 * the entry and right after. False: the guest leaves no debug register for it. */
static inline bool vmx_until_concerns(const struct vmx_vcpu *v)
{
    return v->vcpu.until.on || v->dr_exits;
}
bool vmx_until_arm(struct vmx_vcpu *v);
void vmx_until_disarm(struct vmx_vcpu *v);
/* Is it by this that a #DB has exited? */
bool vmx_until_met(const struct vmx_vcpu *v, uint64_t qualification);
void vmx_dr_access_exit(struct vmx_vcpu *v, struct vm_exit *exit);

/* guest_access.c: this backend's vCPUs for arch/x86_64/guest/access.h. */
struct guest_access vmx_guest_access(struct vmx_vcpu *v);
enum vm_operand_outcome vmx_operand(struct vcpu *vcpu, const struct vm_exit *exit,
                                    const struct vm_operand *asked, struct vm_operand_place *out);
enum vm_operand_outcome vmx_emulate(struct vcpu *vcpu, const struct vm_exit *exit,
                                    const struct vm_bus *bus, struct vm_emulation *out);
/* task_switch.c */
void vmx_task_switch(struct vmx_vcpu *v, struct vm_exit *exit);

/* The ends of an exit that this folder deals with alone. */
static inline void undefined_opcode(struct vmx_vcpu *v, struct vm_exit *exit)
{
    vmx_inject_exception(v, VECTOR_UD, false, 0);
    exit->kind = VM_EXIT_HANDLED;
}

static inline void general_protection(struct vmx_vcpu *v, struct vm_exit *exit)
{
    vmx_inject_exception(v, VECTOR_GP, true, 0);
    exit->kind = VM_EXIT_HANDLED;
}

static inline void emulated(struct vmx_vcpu *v, struct vm_exit *exit)
{
    vmx_skip_bytes(v, exit->length);
    exit->kind = VM_EXIT_HANDLED;
}

#endif
