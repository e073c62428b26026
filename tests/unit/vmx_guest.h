/*
 * A guest on VMX for hosted tests: model_guest.h with vmx_backend on model_vmx.h.
 */
#ifndef QUIRE_TESTS_UNIT_VMX_GUEST_H
#define QUIRE_TESTS_UNIT_VMX_GUEST_H

#include "arch/x86_64/vmx/vcpu.h"
#include "arch/x86_64/vmx/vmx.h"
#include "tests/unit/model_guest.h"
#include "tests/unit/model_vmx.h"

/* A machine on which VMX is on; the guest is in 64-bit mode at 0x1000, after a first exit. */
static inline void vmx_machine_start(void)
{
    const struct vm_backend *backend;
    const char *why;

    model_machine_start();
    model_vmx_start();
    memset(&vmx_caps, 0, sizeof(vmx_caps));
    memset(&vmx_policy, 0, sizeof(vmx_policy));
    if (vmx_init(&backend, &why) != E_OK)
        fail_msg("VMX is refused: %s", why);
    model_guest_start(backend);
    struct vcpu_state state = model_long_mode(0x1000);
    model_set(&state);
}

static inline struct vmx_vcpu *vmx_guest(void)
{
    return vmx_vcpu_of(g.vcpu);
}

/* The guest exits so, and is looked at. */
static inline void vmx_exit_by(struct model_exit exit)
{
    model_vmx.next = exit;
    model_run();
    if (model_vmx.refused)
        fail_msg("the entry is refused: %s", model_vmx.refused);
}

#endif
