/* See vmx_caps.h. SDM Vol. 3, appendix A "VMX capability reporting facility". */
#include "arch/x86_64/vmx/vmx_caps.h"

#include "arch/x86_64/trap.h"

struct vmx_caps vmx_caps;

int vmx_caps_read(uint32_t *missing)
{
    struct vmx_caps caps = {0};
    struct {
        uint32_t msr;
        uint64_t *to;
    } always[] = {
        {IA32_VMX_MISC, &caps.misc_raw},         {IA32_VMX_CR0_FIXED0, &caps.cr0.fixed0},
        {IA32_VMX_CR0_FIXED1, &caps.cr0.fixed1}, {IA32_VMX_CR4_FIXED0, &caps.cr4.fixed0},
        {IA32_VMX_CR4_FIXED1, &caps.cr4.fixed1},
    };

    *missing = IA32_VMX_BASIC;
    if (rdmsr_safe(IA32_VMX_BASIC, &caps.basic_raw) != E_OK)
        return E_UNSUPPORTED;
    caps.basic = vmx_basic_decode(caps.basic_raw);

    for (unsigned i = 0; i < ARRAY_SIZE(always); i++) {
        *missing = always[i].msr;
        if (rdmsr_safe(always[i].msr, always[i].to) != E_OK)
            return E_UNSUPPORTED;
    }
    caps.misc = vmx_misc_decode(caps.misc_raw);

    static const enum control_word primary[] = {CONTROLS_PIN, CONTROLS_PROC, CONTROLS_EXIT,
                                                CONTROLS_ENTRY};
    for (unsigned i = 0; i < ARRAY_SIZE(primary); i++) {
        *missing = control_msr(primary[i], caps.basic.true_controls);
        if (rdmsr_safe(*missing, &caps.control[primary[i]]) != E_OK)
            return E_UNSUPPORTED;
    }

    /* The MSR of the secondary controls exists when they can be activated; that of EPT and VPID
     * when either of these can be enabled (A.3.3, A.10). */
    if (caps.control[CONTROLS_PROC] >> 32 & PROC_SECONDARY_CONTROLS) {
        *missing = IA32_VMX_PROCBASED_CTLS2;
        if (rdmsr_safe(*missing, &caps.control[CONTROLS_PROC2]) != E_OK)
            return E_UNSUPPORTED;
    }
    if (caps.control[CONTROLS_PROC2] >> 32 & (PROC2_EPT | PROC2_VPID)) {
        *missing = IA32_VMX_EPT_VPID_CAP;
        if (rdmsr_safe(*missing, &caps.ept_vpid_raw) != E_OK)
            return E_UNSUPPORTED;
        caps.ept_vpid = ept_vpid_caps_decode(caps.ept_vpid_raw);
    }
    vmx_caps = caps;
    *missing = 0;
    return E_OK;
}
