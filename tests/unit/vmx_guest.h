/*
 * A guest on VMX for hosted tests: model_guest.h with vmx_backend on model_vmx.h.
 */
#ifndef QUIRE_TESTS_UNIT_VMX_GUEST_H
#define QUIRE_TESTS_UNIT_VMX_GUEST_H

#include "tests/unit/model_cpu.h"

#include "arch/x86_64/vmx/vcpu.h"
#include "arch/x86_64/vmx/vmx.h"
#include "tests/unit/model_guest.h"
#include "tests/unit/model_vmx.h"

/* A machine on which VMX is on; the guest is in 64-bit mode at 0x1000, and has not run. */
void vmx_machine_start(void);

static inline struct vmx_vcpu *vmx_guest(void)
{
    return vmx_vcpu_of(g.vcpu);
}

/* The guest exits so. */
void vmx_exit_by(struct model_exit exit);

#endif
