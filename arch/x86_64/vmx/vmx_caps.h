/*
 * What VMX this CPU offers: the capability MSRs, read once, and what they mean.
 */
#ifndef QUIRE_ARCH_VMX_CAPS_H
#define QUIRE_ARCH_VMX_CAPS_H

#include <stdint.h>

#include "arch/x86_64/vmx/controls.h"

struct vmx_caps {
    uint64_t basic_raw, misc_raw, ept_vpid_raw;
    struct vmx_basic basic;
    struct vmx_misc misc;
    struct ept_vpid_caps ept_vpid;    /* all false without secondary controls */
    uint64_t control[CONTROLS_COUNT]; /* the MSR to settle each word by; TRUE ones if present */
    struct cr_fixed cr0, cr4;
};
extern struct vmx_caps vmx_caps;

/* Fills vmx_caps. E_UNSUPPORTED where a capability MSR is missing; *missing is its number. Only on
 * a CPU whose CPUID has VMX. */
int vmx_caps_read(uint32_t *missing);

/* May this control be 1? */
static inline bool vmx_offers(enum control_word word, uint64_t bit)
{
    return (vmx_caps.control[word] >> 32 & bit) != 0;
}

#endif
