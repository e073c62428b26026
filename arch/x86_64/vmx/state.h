/*
 * The registers of a guest, as vm/ sees them and as its VMCS holds them.
 */
#ifndef QUIRE_ARCH_VMX_STATE_H
#define QUIRE_ARCH_VMX_STATE_H

#include "arch/x86_64/vmx/vcpu.h"

#define DR7_FIXED BIT(10)

int vmx_get_state(struct vcpu *vcpu, struct vcpu_state *out);
int vmx_get_modes(struct vcpu *vcpu, struct vm_modes *out);

/* E_INVAL for what MOV to CR or WRMSR would refuse whatever the rest is; a combination that only
 * the CPU finds wrong comes back as a failed entry, explained. E_UNSUPPORTED for CR4 bits that this
 * CPU does not offer to guests. The whole state is replaced: an event that was on its way is
 * dropped. */
int vmx_set_state(struct vcpu *vcpu, const struct vcpu_state *in);
void vmx_set_clock(struct vcpu *vcpu, uint64_t offset);

/* Controls and exit information that are not zero, two a line; the guest's registers are shown by
 * vm/. */
int vmx_get_rest(struct vcpu *vcpu, struct vcpu_rest *out);
int vmx_set_rest(struct vcpu *vcpu, const struct vcpu_rest *in);
int vmx_vcpu_copy(struct vcpu *to, struct vcpu *from);
void vmx_dump(struct vcpu *vcpu, struct sink *to);

/* With the VMCS current: CR0 and CR4 as the guest sees them, whether it runs 64-bit
 * code; a segment register. */
uint64_t vmx_guest_cr0(void);
uint64_t vmx_guest_cr4(void);
bool vmx_in_64bit_mode(void);
void vmx_read_segment(unsigned index, struct segment *out);

/* Writes CR0, CR4, EFER and the entry control that follows from them, legal values only. */
void vmx_write_crs(uint64_t cr0, uint64_t cr4, uint64_t efer);

#endif
