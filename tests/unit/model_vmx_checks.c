/* See model_vmx_checks.h. */
#define MODEL_ITSELF
#include "tests/unit/model_vmx_checks.h"

#include <stddef.h>

#include "arch/x86_64/vmx/controls.h"
#include "arch/x86_64/vmx/vmx_caps.h"
#include "tests/unit/model_cpu.h"
#include "tests/unit/model_vmx.h"

#define refuse_if(condition, why)                                                                  \
    do {                                                                                           \
        if (condition)                                                                             \
            return why;                                                                            \
    } while (0)

static bool bit(enum vmcs_field of, unsigned n)
{
    return field(of) >> n & 1;
}

static bool allowed(enum vmcs_field of, enum control_word word)
{
    uint64_t msr = vmx_caps.control[word], value = field(of);

    return ((uint32_t)msr & ~value) == 0 && (value & ~(msr >> 32)) == 0;
}

static bool is_canonical(uint64_t at)
{
    return (uint64_t)((int64_t)(at << 16) >> 16) == at;
}

static bool beyond_memory(uint64_t at)
{
    return (at >> cpu_features.maxphyaddr) != 0;
}

/* 27.2.1.3: type, vector, error code and length go together. */
static const char *event_rule(void)
{
    uint64_t info = field(VMCS_ENTRY_INTERRUPTION), length = field(VMCS_ENTRY_LENGTH);
    unsigned type = (unsigned)(info >> 8 & 7), vector = (unsigned)(info & 0xff);
    bool code = info >> 11 & 1, protected = bit(VMCS_GUEST_CR0, 0);
    bool has_code = vector == 8 || (vector >= 10 && vector <= 14) || vector == 17;

    refuse_if(!(info >> 31 & 1), NULL);
    refuse_if(type == 1 || type == 7, "event: a type that is reserved");
    refuse_if(type == 2 && vector != 2, "event: an NMI with another vector");
    refuse_if(type == 3 && vector > 31, "event: an exception with a vector above 31");
    refuse_if(code != (type == 3 && has_code && protected), "event: an error code, or none");
    refuse_if(info & 0x7ffff000, "event: a reserved bit");
    refuse_if(code && (field(VMCS_ENTRY_EXCEPTION_CODE) >> 16), "event: a wide error code");
    refuse_if(type >= 4 && type <= 6 && (length == 0 || length > 15), "event: the length");
    return NULL;
}

const char *model_controls_rule(void)
{
    uint64_t eptp = field(VMCS_EPT_POINTER), proc2 = field(VMCS_PROC2_CONTROLS);

    refuse_if(!allowed(VMCS_PIN_CONTROLS, CONTROLS_PIN), "the pin-based controls");
    refuse_if(!allowed(VMCS_PROC_CONTROLS, CONTROLS_PROC), "the primary controls");
    refuse_if(!allowed(VMCS_PROC2_CONTROLS, CONTROLS_PROC2), "the secondary controls");
    refuse_if(!allowed(VMCS_EXIT_CONTROLS, CONTROLS_EXIT), "the exit controls");
    refuse_if(!allowed(VMCS_ENTRY_CONTROLS, CONTROLS_ENTRY), "the entry controls");
    refuse_if(field(VMCS_CR3_TARGET_COUNT) > 4, "the CR3 targets");
    refuse_if(bit(VMCS_PROC_CONTROLS, 28) &&
                  ((field(VMCS_MSR_BITMAP) & 0xfff) || beyond_memory(field(VMCS_MSR_BITMAP))),
              "the MSR bitmap's address");
    refuse_if(!bit(VMCS_PIN_CONTROLS, 3) && bit(VMCS_PIN_CONTROLS, 5), "virtual NMIs alone");
    refuse_if((proc2 & PROC2_VPID) && field(VMCS_VPID) == 0, "VPID 0");
    refuse_if(!(proc2 & PROC2_EPT) && (proc2 & PROC2_UNRESTRICTED_GUEST), "no EPT");
    refuse_if((eptp & 7) != 6 || (eptp >> 3 & 7) != 3 || (eptp & 0xf80) || beyond_memory(eptp),
              "the EPTP");
    refuse_if(field(VMCS_EXIT_MSR_STORE_COUNT) || field(VMCS_EXIT_MSR_LOAD_COUNT) ||
                  field(VMCS_ENTRY_MSR_LOAD_COUNT),
              "lists of MSRs");
    return event_rule();
}

const char *model_host_rule(void)
{
    static const enum vmcs_field selectors[] = {
        VMCS_HOST_ES_SELECTOR, VMCS_HOST_CS_SELECTOR, VMCS_HOST_SS_SELECTOR, VMCS_HOST_DS_SELECTOR,
        VMCS_HOST_FS_SELECTOR, VMCS_HOST_GS_SELECTOR, VMCS_HOST_TR_SELECTOR};
    static const enum vmcs_field bases[] = {
        VMCS_HOST_FS_BASE, VMCS_HOST_GS_BASE, VMCS_HOST_GDTR_BASE,    VMCS_HOST_IDTR_BASE,
        VMCS_HOST_TR_BASE, VMCS_HOST_RIP,     VMCS_HOST_SYSENTER_ESP, VMCS_HOST_SYSENTER_EIP,
    };

    refuse_if(!cr_fits(field(VMCS_HOST_CR0), vmx_caps.cr0), "host CR0");
    refuse_if(!cr_fits(field(VMCS_HOST_CR4), vmx_caps.cr4), "host CR4");
    refuse_if(beyond_memory(field(VMCS_HOST_CR3)), "host CR3");
    refuse_if(!pat_legal(field(VMCS_HOST_PAT)), "host PAT");
    for (unsigned i = 0; i < ARRAY_SIZE(selectors); i++)
        refuse_if(field(selectors[i]) & 7, "a host selector with RPL or TI");
    refuse_if(!field(VMCS_HOST_CS_SELECTOR) || !field(VMCS_HOST_TR_SELECTOR), "host CS or TR is 0");
    for (unsigned i = 0; i < ARRAY_SIZE(bases); i++)
        refuse_if(!is_canonical(field(bases[i])), "a host base that is not canonical");
    refuse_if(!bit(VMCS_EXIT_CONTROLS, 9), "a host without 64-bit mode");
    refuse_if(!(field(VMCS_HOST_CR4) & CR4_PAE), "host CR4.PAE");
    refuse_if((field(VMCS_HOST_EFER) & (EFER_LME | EFER_LMA)) != (EFER_LME | EFER_LMA),
              "host EFER");
    refuse_if(!field(VMCS_HOST_RIP) || !field(VMCS_HOST_RSP), "host RIP or RSP");
    return NULL;
}

/* ---- 27.3.1 -------------------------------------------------------------------------------- */

static bool long_mode(void)
{
    return bit(VMCS_ENTRY_CONTROLS, 9);
}

static const char *registers_rule(void)
{
    uint64_t cr0 = field(VMCS_GUEST_CR0), cr4 = field(VMCS_GUEST_CR4),
             efer = field(VMCS_GUEST_EFER);
    uint64_t must0 = vmx_caps.cr0.fixed0 & ~(CR0_PE | CR0_PG); /* unrestricted */

    refuse_if((must0 & ~cr0) || (cr0 & ~vmx_caps.cr0.fixed1), "CR0");
    refuse_if((cr0 & CR0_PG) && !(cr0 & CR0_PE), "CR0.PG without PE");
    refuse_if(!cr_fits(cr4, vmx_caps.cr4), "CR4");
    refuse_if(long_mode() && (!(cr0 & CR0_PG) || !(cr4 & CR4_PAE)), "long mode without paging");
    refuse_if(!long_mode() && (cr4 & CR4_PCIDE), "PCIDE outside long mode");
    uint64_t lam = cpu_features.lam ? BIT(61) | BIT(62) : 0;
    refuse_if(beyond_memory(field(VMCS_GUEST_CR3) & ~lam), "CR3");
    refuse_if(field(VMCS_GUEST_DR7) >> 32, "DR7");
    refuse_if(!pat_legal(field(VMCS_GUEST_PAT)), "PAT");
    refuse_if(efer & ~UINT64_C(0xd01), "EFER: a reserved bit");
    refuse_if(((efer >> 10) & 1) != long_mode(), "EFER.LMA against the control");
    refuse_if((cr0 & CR0_PG) && ((efer >> 10 ^ efer >> 8) & 1), "EFER.LMA against LME");
    refuse_if(!is_canonical(field(VMCS_GUEST_SYSENTER_ESP)) ||
                  !is_canonical(field(VMCS_GUEST_SYSENTER_EIP)),
              "SYSENTER");
    return NULL;
}

static uint64_t segment(enum vmcs_field first, unsigned index)
{
    return field((enum vmcs_field)(first + 2 * index));
}

static bool bad_limit(unsigned index)
{
    uint64_t limit = segment(VMCS_GUEST_ES_LIMIT, index);
    bool pages = segment(VMCS_GUEST_ES_ACCESS, index) >> 15 & 1;

    return ((limit & 0xfff) != 0xfff && pages) || ((limit >> 20) && !pages);
}

/* Of ES, CS, SS, DS, FS, GS outside virtual-8086 mode. */
static const char *segment_rule(unsigned index)
{
    uint64_t access = segment(VMCS_GUEST_ES_ACCESS, index), type = access & 15;
    unsigned dpl = (unsigned)(access >> 5 & 3);
    unsigned ss_dpl = (unsigned)(segment(VMCS_GUEST_ES_ACCESS, 2) >> 5 & 3);
    bool unusable = access >> 16 & 1;

    refuse_if(index == 1 && unusable, "CS is unusable");
    refuse_if(index == 2 && !(field(VMCS_GUEST_CR0) & 1) && dpl, "SS.DPL in real mode");
    refuse_if(unusable, NULL);
    refuse_if(access & 0xfffe0f00, "reserved bits of access rights");
    refuse_if(!(access >> 4 & 1) || !(access >> 7 & 1), "a system segment, or not present");
    refuse_if(bad_limit(index), "limit and granularity");
    if (index == 1) {
        refuse_if(type != 3 && type != 9 && type != 11 && type != 13 && type != 15, "CS: type");
        refuse_if(type == 3 && dpl, "CS: DPL of data");
        refuse_if((type == 9 || type == 11) && dpl != ss_dpl, "CS: DPL against SS");
        refuse_if((type == 13 || type == 15) && dpl > ss_dpl, "CS: conforming DPL");
        refuse_if(long_mode() && (access >> 13 & 1) && (access >> 14 & 1), "CS: L and D");
        refuse_if(segment(VMCS_GUEST_ES_BASE, 1) >> 32, "CS: base");
    } else if (index == 2) {
        refuse_if(type != 3 && type != 7, "SS: type");
        refuse_if((segment(VMCS_GUEST_ES_ACCESS, 1) & 15) == 3 && dpl, "SS: DPL beside a data CS");
        refuse_if(segment(VMCS_GUEST_ES_BASE, 2) >> 32, "SS: base");
    } else {
        refuse_if(!(type & 1), "not accessed");
        refuse_if((type & 8) && !(type & 2), "code that cannot be read");
        refuse_if(index < 4 && (segment(VMCS_GUEST_ES_BASE, index) >> 32), "DS or ES: base");
    }
    return NULL;
}

static const char *v86_rule(unsigned index)
{
    refuse_if(segment(VMCS_GUEST_ES_BASE, index) != segment(VMCS_GUEST_ES_SELECTOR, index) << 4 ||
                  segment(VMCS_GUEST_ES_LIMIT, index) != 0xffff ||
                  segment(VMCS_GUEST_ES_ACCESS, index) != 0xf3,
              "a segment of virtual-8086 mode");
    return NULL;
}

static const char *tables_rule(void)
{
    uint64_t tr = field(VMCS_GUEST_TR_ACCESS), ldtr = field(VMCS_GUEST_LDTR_ACCESS);

    refuse_if((tr >> 16 & 1) || (tr >> 4 & 1) || !(tr >> 7 & 1), "TR");
    refuse_if((tr & 15) != 11 && ((tr & 15) != 3 || long_mode()), "TR: type");
    refuse_if(field(VMCS_GUEST_TR_SELECTOR) & 4, "TR in the LDT");
    refuse_if(bad_limit(7), "TR: limit");
    refuse_if(!(ldtr >> 16 & 1) &&
                  ((ldtr & 0x9f) != 0x82 || bad_limit(6) || (field(VMCS_GUEST_LDTR_SELECTOR) & 4)),
              "LDTR");
    refuse_if(
        !is_canonical(field(VMCS_GUEST_GDTR_BASE)) || !is_canonical(field(VMCS_GUEST_IDTR_BASE)) ||
            !is_canonical(field(VMCS_GUEST_TR_BASE)) || !is_canonical(field(VMCS_GUEST_FS_BASE)) ||
            !is_canonical(field(VMCS_GUEST_GS_BASE)),
        "a base that is not canonical");
    refuse_if(field(VMCS_GUEST_GDTR_LIMIT) >> 16 || field(VMCS_GUEST_IDTR_LIMIT) >> 16, "a limit");
    return NULL;
}

static const char *flow_rule(void)
{
    uint64_t flags = field(VMCS_GUEST_RFLAGS), rip = field(VMCS_GUEST_RIP);
    bool code64 = long_mode() && (field(VMCS_GUEST_CS_ACCESS) >> 13 & 1);
    uint64_t blocked = field(VMCS_GUEST_INTERRUPTIBILITY), shadow = blocked & 3;
    uint64_t activity = field(VMCS_GUEST_ACTIVITY), pending = field(VMCS_GUEST_PENDING_DEBUG);
    uint64_t event = field(VMCS_ENTRY_INTERRUPTION);
    bool injected = event >> 31 & 1, step = flags >> 8 & 1;
    unsigned type = (unsigned)(event >> 8 & 7);

    refuse_if(code64 ? !is_canonical(rip) : rip >> 32, "RIP");
    refuse_if((flags & ~UINT64_C(0x3f7fd7)) || !(flags & 2), "RFLAGS");
    refuse_if((flags >> 17 & 1) && (long_mode() || !(field(VMCS_GUEST_CR0) & 1)), "RFLAGS.VM");
    refuse_if(injected && type == 0 && !(flags >> 9 & 1), "an interrupt while IF is 0");
    refuse_if(activity > (vmx_caps.misc.activity_hlt ? 1u : 0u), "the activity state");
    refuse_if(activity == 1 && (field(VMCS_GUEST_SS_ACCESS) >> 5 & 3), "HLT above level 0");
    refuse_if(activity && shadow, "a shadow in HLT");
    refuse_if(blocked & ~UINT64_C(0x1f), "interruptibility: a reserved bit");
    refuse_if(shadow == 3, "two shadows");
    refuse_if((shadow & 1) && !(flags >> 9 & 1), "the shadow of STI while IF is 0");
    refuse_if(blocked & 4, "blocked by SMI");
    refuse_if(injected && (type == 0 || type == 2) && shadow, "an event in a shadow");
    refuse_if(injected && type == 2 && bit(VMCS_PIN_CONTROLS, 5) && (blocked & 8), "two NMIs");
    refuse_if(pending & ~UINT64_C(0x1500f), "pending debug: a reserved bit");
    refuse_if((shadow || activity == 1) && step != (pending >> 14 & 1), "pending debug: BS");
    refuse_if(injected && activity == 1 && (type == 4 || type == 5 || type == 6), "HLT and INT n");
    refuse_if(field(VMCS_LINK_POINTER) != ~UINT64_C(0), "the link pointer");
    refuse_if(field(VMCS_GUEST_DEBUGCTL), "DEBUGCTL");
    return NULL;
}

static const char *pdptes_rule(void)
{
    uint64_t cr0 = field(VMCS_GUEST_CR0), cr4 = field(VMCS_GUEST_CR4);

    for (unsigned i = 0; (cr0 & CR0_PG) && (cr4 & CR4_PAE) && !long_mode() && i < 4; i++) {
        uint64_t entry = field((enum vmcs_field)(VMCS_GUEST_PDPTE0 + 2 * i));
        refuse_if((entry & 1) && ((entry & 0x1e6) || beyond_memory(entry)), "a PDPTE");
    }
    return NULL;
}

const char *model_guest_rule(void)
{
    bool v86 = bit(VMCS_GUEST_RFLAGS, 17);
    const char *rule = registers_rule();

    for (unsigned i = 0; !rule && i < 6; i++)
        rule = v86 ? v86_rule(i) : segment_rule(i);
    if (!rule)
        rule = tables_rule();
    if (!rule)
        rule = flow_rule();
    return rule ? rule : pdptes_rule();
}
