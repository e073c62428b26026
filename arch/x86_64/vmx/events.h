/*
 * Events on their way into a guest, and the ends of an instruction that exited: it is done, or it
 * faults.
 */
#ifndef QUIRE_ARCH_VMX_EVENTS_H
#define QUIRE_ARCH_VMX_EVENTS_H

#include "arch/x86_64/vmx/vcpu.h"

int vmx_inject(struct vcpu *vcpu, struct vm_event event);
void vmx_inject_exception(struct vmx_vcpu *v, uint8_t vector, bool has_code, uint32_t code);
bool vmx_interrupts_open(struct vcpu *vcpu);
void vmx_set_halted(struct vcpu *vcpu, bool halted);
void vmx_skip(struct vcpu *vcpu, const struct vm_exit *exit);
/* The same for an instruction of `length` bytes that this folder emulated. */
void vmx_skip_bytes(struct vmx_vcpu *v, unsigned length);
/* First thing after an exit: puts an event whose delivery was interrupted back to be delivered by
 * the next entry (28.2.4), and notes an NMI window that an IRET had opened too early (28.2.3). */
void vmx_requeue_event(struct vmx_vcpu *v, unsigned reason, uint64_t qualification);

#endif
