/* See controls.h. */
#include "arch/x86_64/vmx/controls.h"

#include "mm/paging/attrs.h"
#include "x86/control.h"

uint32_t control_msr(enum control_word word, bool true_controls)
{
    switch (word) {
    case CONTROLS_PIN:
        return true_controls ? IA32_VMX_TRUE_PINBASED_CTLS : IA32_VMX_PINBASED_CTLS;
    case CONTROLS_PROC:
        return true_controls ? IA32_VMX_TRUE_PROCBASED_CTLS : IA32_VMX_PROCBASED_CTLS;
    case CONTROLS_EXIT:
        return true_controls ? IA32_VMX_TRUE_EXIT_CTLS : IA32_VMX_EXIT_CTLS;
    case CONTROLS_ENTRY:
        return true_controls ? IA32_VMX_TRUE_ENTRY_CTLS : IA32_VMX_ENTRY_CTLS;
    default:
        return IA32_VMX_PROCBASED_CTLS2; /* has no default1 controls */
    }
}

int control_adjust(uint64_t msr, uint32_t required, uint32_t wanted, uint32_t *out,
                   uint32_t *missing)
{
    uint32_t must = (uint32_t)msr, may = (uint32_t)(msr >> 32);
    uint32_t lacking = required & ~may;
    if (missing)
        *missing = lacking;
    if (lacking)
        return E_UNSUPPORTED;
    *out = required | (wanted & may) | must;
    return E_OK;
}

struct vmx_basic vmx_basic_decode(uint64_t msr)
{
    return (struct vmx_basic){
        .revision = (uint32_t)(msr & BITS(30, 0)),
        .region_size = (uint32_t)(msr >> 32 & 0x1fff),
        .below_4g = (msr & BIT(48)) != 0,
        .memory_type = (uint8_t)(msr >> 50 & 0xf),
        .ins_outs_info = (msr & BIT(54)) != 0,
        .true_controls = (msr & BIT(55)) != 0,
    };
}

struct vmx_misc vmx_misc_decode(uint64_t msr)
{
    return (struct vmx_misc){
        .timer_shift = (unsigned)(msr & 0x1f),
        .stores_lma = (msr & BIT(5)) != 0,
        .activity_hlt = (msr & BIT(6)) != 0,
        .cr3_targets = (unsigned)(msr >> 16 & 0x1ff),
        .max_msr_list = 512 * ((unsigned)(msr >> 25 & 7) + 1),
        .inject_length_0 = (msr & BIT(30)) != 0,
    };
}

struct ept_vpid_caps ept_vpid_caps_decode(uint64_t msr)
{
    return (struct ept_vpid_caps){
        .execute_only = (msr & BIT(0)) != 0,
        .walk_4 = (msr & BIT(6)) != 0,
        .walk_5 = (msr & BIT(7)) != 0,
        .uc = (msr & BIT(8)) != 0,
        .wb = (msr & BIT(14)) != 0,
        .page_2m = (msr & BIT(16)) != 0,
        .page_1g = (msr & BIT(17)) != 0,
        .invept = (msr & BIT(20)) != 0,
        .accessed_dirty = (msr & BIT(21)) != 0,
        .advanced_exits = (msr & BIT(22)) != 0,
        .invept_single = (msr & BIT(25)) != 0,
        .invept_all = (msr & BIT(26)) != 0,
        .invvpid = (msr & BIT(32)) != 0,
        .invvpid_address = (msr & BIT(40)) != 0,
        .invvpid_single = (msr & BIT(41)) != 0,
        .invvpid_all = (msr & BIT(42)) != 0,
        .invvpid_keep_globals = (msr & BIT(43)) != 0,
    };
}

bool cr_fits(uint64_t value, struct cr_fixed fixed)
{
    return (fixed.fixed0 & ~value) == 0 && (value & ~fixed.fixed1) == 0;
}

struct cr_fixed cr0_fixed_unrestricted(struct cr_fixed cr0)
{
    return (struct cr_fixed){cr0.fixed0 & ~(CR0_PE | CR0_PG), cr0.fixed1};
}

uint64_t cr_force(uint64_t value, struct cr_fixed fixed)
{
    return (value | fixed.fixed0) & fixed.fixed1;
}

static unsigned ept_rights(uint64_t bits)
{
    return (bits & BIT(0) ? RIGHT_R : 0u) | (bits & BIT(1) ? RIGHT_W : 0u) |
           (bits & BIT(2) ? RIGHT_X : 0u);
}

struct ept_violation ept_violation_decode(uint64_t qualification)
{
    bool gva_valid = (qualification & BIT(7)) != 0;
    return (struct ept_violation){
        .access = ept_rights(qualification),
        .allowed = ept_rights(qualification >> 3),
        .gva_valid = gva_valid,
        /* Without a linear address it was the load of PDPTEs by MOV to CR. */
        .walk = !gva_valid || !(qualification & BIT(8)),
        .nmi_unblocked = (qualification & BIT(12)) != 0,
    };
}

struct cr_access cr_access_decode(uint64_t qualification)
{
    return (struct cr_access){
        .kind = (enum cr_access_kind)(qualification >> 4 & 3),
        .cr = (uint8_t)(qualification & 0xf),
        .gpr = (uint8_t)(qualification >> 8 & 0xf),
        .source = (uint16_t)(qualification >> 16),
    };
}

struct io_access io_access_decode(uint64_t qualification)
{
    return (struct io_access){
        .port = (uint16_t)(qualification >> 16),
        .width = (uint8_t)((qualification & 7) + 1),
        .in = (qualification & BIT(3)) != 0,
        .string = (qualification & BIT(4)) != 0,
        .rep = (qualification & BIT(5)) != 0,
    };
}

int invept_choose(struct ept_vpid_caps caps, unsigned type, unsigned *out)
{
    if (type != INVEPT_SINGLE_CONTEXT && type != INVEPT_ALL_CONTEXTS)
        return E_INVAL;
    if (!caps.invept)
        return E_UNSUPPORTED;
    if (type == INVEPT_SINGLE_CONTEXT && caps.invept_single)
        *out = INVEPT_SINGLE_CONTEXT;
    else if (caps.invept_all)
        *out = INVEPT_ALL_CONTEXTS;
    else
        return E_UNSUPPORTED;
    return E_OK;
}

int invvpid_choose(struct ept_vpid_caps caps, unsigned type, unsigned *out)
{
    if (type > INVVPID_KEEP_GLOBALS)
        return E_INVAL;
    if (!caps.invvpid)
        return E_UNSUPPORTED;
    if (type == INVVPID_ADDRESS && caps.invvpid_address)
        *out = INVVPID_ADDRESS;
    else if (type == INVVPID_KEEP_GLOBALS && caps.invvpid_keep_globals)
        *out = INVVPID_KEEP_GLOBALS;
    else if (type != INVVPID_ALL_CONTEXTS && caps.invvpid_single)
        *out = INVVPID_SINGLE_CONTEXT;
    else if (caps.invvpid_all)
        *out = INVVPID_ALL_CONTEXTS;
    else
        return E_UNSUPPORTED;
    return E_OK;
}

uint32_t timer_ticks(uint64_t tsc_ticks, unsigned shift)
{
    uint64_t ticks = tsc_ticks >> shift;
    if (ticks == 0)
        return 1;
    return ticks > UINT32_MAX ? UINT32_MAX : (uint32_t)ticks;
}
