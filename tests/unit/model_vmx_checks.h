/*
 * The checks of a VM entry (SDM Vol. 3, 27.2 and 27.3.1) on the current VMCS of model_vmx.h: why
 * the CPU would refuse it, or NULL. A second time from the manual: the hypervisor's own
 * (arch/x86_64/vmx/entry_check.c) are held against them.
 */
#ifndef QUIRE_TESTS_UNIT_MODEL_VMX_CHECKS_H
#define QUIRE_TESTS_UNIT_MODEL_VMX_CHECKS_H

const char *model_controls_rule(void);
const char *model_host_rule(void);
const char *model_guest_rule(void);

#endif
