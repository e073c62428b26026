/* See vmx_guest.h. */
#include "tests/unit/vmx_guest.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

void vmx_machine_start(void)
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

void vmx_exit_by(struct model_exit exit)
{
    model_vmx.next = exit;
    model_run();
    if (model_vmx.refused)
        fail_msg("the entry is refused: %s", model_vmx.refused);
}
