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
void vmx_want_window(struct vcpu *vcpu, bool wanted);
/* An NMI can be taken that was refused: it is to be injected again. */
void vmx_nmi_window_exit(struct vmx_vcpu *v);
/* until.c: the primary controls, with those of them that come and go. */
void vmx_write_proc_controls(struct vmx_vcpu *v);
void vmx_set_halted(struct vcpu *vcpu, bool halted);
bool vmx_skip(struct vcpu *vcpu, const struct vm_exit *exit);
/* The same for an instruction of `length` bytes that this folder emulated; for one that leads to
 * `rip`. */
bool vmx_skip_bytes(struct vmx_vcpu *v, unsigned length);
bool vmx_skip_to(struct vmx_vcpu *v, uint64_t rip);
/* Right after an exit: what was pending of debug traps, and is not. */
void vmx_drop_traps(struct vmx_vcpu *v);
bool vmx_iterated(struct vcpu *vcpu);
void vmx_retry(struct vcpu *vcpu);
/* Could a breakpoint be met by an access? */
bool vmx_watches(void);
/* What the instruction in progress accesses, for breakpoints. */
void vmx_note_port(struct vcpu *vcpu, uint16_t port, unsigned width);
void vmx_note_memory(struct vmx_vcpu *v, uint64_t linear, unsigned bytes, bool write);
/* Puts the event whose delivery this exit interrupted back to be delivered by the next entry. */
void vmx_deliver_again(struct vmx_vcpu *v);
/* What a task switch ends: the shadow of STI or MOV SS, by IRET the blocking of NMIs. */
void vmx_leave_old_task(bool by_iret);
/* First thing after an exit: puts an event whose delivery was interrupted back to be delivered by
 * the next entry (28.2.4), and notes an NMI window that an IRET had opened too early (28.2.3). */
void vmx_requeue_event(struct vmx_vcpu *v, unsigned reason, uint64_t qualification);

#endif
