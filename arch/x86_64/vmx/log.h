/*
 * Page-modification logging: the CPU writes the guest-physical address of each page whose D it sets
 * into a list of 512, and exits when that is full. The operations of vm/backend.h.
 */
#ifndef QUIRE_ARCH_VMX_LOG_H
#define QUIRE_ARCH_VMX_LOG_H

#include "arch/x86_64/vmx/vcpu.h"

int vmx_log_start(struct vcpu *vcpu);
void vmx_log_stop(struct vcpu *vcpu);
void vmx_log_take(struct vcpu *vcpu, vm_logged_fn fn, void *ctx);

#endif
