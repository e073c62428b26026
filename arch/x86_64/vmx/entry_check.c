/* See entry_check.h. The functions follow the subsections of 27.3.1 in order. */
#include "arch/x86_64/vmx/entry_check.h"

#include "x86/control.h"

static bool canonical(const struct entry_state *s, uint64_t address)
{
    uint64_t high = address >> (s->linear_bits - 1);
    return high == 0 || high == ~UINT64_C(0) >> (s->linear_bits - 1);
}

static bool ia32e(const struct entry_state *s)
{
    return (s->entry_controls & ENTRY_IA32E_GUEST) != 0;
}

static bool virtual_8086(const struct entry_state *s)
{
    return (s->rflags & RFLAGS_VM) != 0;
}

/* 27.3.1.1 */
static const char *control_registers_rule(const struct entry_state *s)
{
    struct cr_fixed cr0 = s->unrestricted ? cr0_fixed_unrestricted(s->cr0_fixed) : s->cr0_fixed;

    if (!cr_fits(s->cr0, cr0))
        return "CR0 has a bit that VMX fixes otherwise";
    if ((s->cr0 & CR0_PG) && !(s->cr0 & CR0_PE))
        return "CR0.PG is 1 and CR0.PE is 0";
    if (!cr_fits(s->cr4, s->cr4_fixed))
        return "CR4 has a bit that VMX fixes otherwise";
    if ((s->cr4 & CR4_CET) && !(s->cr0 & CR0_WP))
        return "CR4.CET is 1 and CR0.WP is 0";
    if (ia32e(s) && !((s->cr0 & CR0_PG) && (s->cr4 & CR4_PAE)))
        return "IA-32e mode without CR0.PG and CR4.PAE";
    if (!ia32e(s) && (s->cr4 & CR4_PCIDE))
        return "CR4.PCIDE outside IA-32e mode";
    if (!cr3_legal(s->cr3, s->maxphyaddr, s->lam))
        return "CR3 is wider than a physical address";
    return NULL;
}

static const char *msrs_rule(const struct entry_state *s)
{
    bool lma = (s->efer & EFER_LMA) != 0, lme = (s->efer & EFER_LME) != 0;

    if ((s->entry_controls & ENTRY_LOAD_DEBUG_CONTROLS) && (s->dr7 & BITS(63, 32)))
        return "DR7 is wider than 32 bits";
    if (!canonical(s, s->sysenter_esp) || !canonical(s, s->sysenter_eip))
        return "IA32_SYSENTER_ESP or IA32_SYSENTER_EIP is not canonical";
    if ((s->entry_controls & ENTRY_LOAD_PAT) && !pat_legal(s->pat))
        return "IA32_PAT has a memory type that does not exist";
    if (s->entry_controls & ENTRY_LOAD_EFER) {
        if (s->efer & ~(EFER_SCE | EFER_LME | EFER_LMA | EFER_NXE))
            return "IA32_EFER has a reserved bit set";
        if (lma != ia32e(s))
            return "IA32_EFER.LMA differs from the control \"IA-32e mode guest\"";
        if ((s->cr0 & CR0_PG) && lma != lme)
            return "IA32_EFER.LMA differs from LME while CR0.PG is 1";
    }
    return NULL;
}

/* 27.3.1.2: limits and granularity agree. */
static bool granularity_legal(uint32_t limit, uint32_t access)
{
    bool pages = (access & ACCESS_GRANULARITY) != 0;
    if ((limit & 0xfff) != 0xfff && pages)
        return false;
    return !(limit & 0xfff00000u) || pages;
}

static bool usable(const struct entry_state *s, unsigned index)
{
    return !(s->segment[index].access & ACCESS_UNUSABLE);
}

static unsigned dpl(const struct entry_state *s, unsigned index)
{
    return s->segment[index].access >> ACCESS_DPL_SHIFT & 3;
}

static const char *virtual_8086_rule(const struct entry_state *s)
{
    for (unsigned i = SEG_ES; i <= SEG_GS; i++) {
        if (s->segment[i].base != (uint64_t)s->segment[i].selector << 4)
            return "in virtual-8086 mode a segment's base is not its selector times 16";
        if (s->segment[i].limit != 0xffff || s->segment[i].access != 0xf3)
            return "in virtual-8086 mode a segment's limit is not 0xffff or its access not 0xf3";
    }
    return NULL;
}

static const char *cs_rule(const struct entry_state *s)
{
    uint32_t access = s->segment[SEG_CS].access, type = access & ACCESS_TYPE;
    bool data = type == 3;

    if (!usable(s, SEG_CS))
        return "CS is unusable";
    if (s->segment[SEG_CS].base & BITS(63, 32))
        return "the base of CS is wider than 32 bits";
    if (data ? !s->unrestricted : (type & 9) != 9)
        return "the type of CS is no accessed code segment";
    if (!(access & ACCESS_CODE_OR_DATA) || !(access & ACCESS_PRESENT))
        return "CS is a system segment or not present";
    if (data && dpl(s, SEG_CS) != 0)
        return "CS is a data segment and its DPL not 0";
    if (!data && !(type & ACCESS_CONFORMING) && dpl(s, SEG_CS) != dpl(s, SEG_SS))
        return "the DPL of CS differs from that of SS";
    if (!data && (type & ACCESS_CONFORMING) && dpl(s, SEG_CS) > dpl(s, SEG_SS))
        return "the DPL of a conforming CS is above that of SS";
    if (ia32e(s) && (access & ACCESS_LONG) && (access & ACCESS_DB))
        return "CS has both L and D set in IA-32e mode";
    return NULL;
}

static const char *ss_rule(const struct entry_state *s)
{
    uint32_t type = s->segment[SEG_SS].access & ACCESS_TYPE;

    if (!usable(s, SEG_SS))
        return NULL;
    if (type != 3 && type != 7)
        return "SS is no writable, accessed data segment";
    if (s->segment[SEG_SS].base & BITS(63, 32))
        return "the base of SS is wider than 32 bits";
    return NULL;
}

static const char *privilege_rule(const struct entry_state *s)
{
    if (!s->unrestricted && dpl(s, SEG_SS) != (s->segment[SEG_SS].selector & 3u))
        return "the DPL of SS differs from its RPL";
    if (!s->unrestricted && (s->segment[SEG_SS].selector & 3) != (s->segment[SEG_CS].selector & 3))
        return "the RPL of SS differs from that of CS";
    if (((s->segment[SEG_CS].access & ACCESS_TYPE) == 3 || !(s->cr0 & CR0_PE)) &&
        dpl(s, SEG_SS) != 0)
        return "the DPL of SS is not 0 in real mode";
    return NULL;
}

static const char *data_rule(const struct entry_state *s, unsigned index)
{
    uint32_t access = s->segment[index].access;

    if (!usable(s, index))
        return NULL;
    if (!(access & ACCESS_ACCESSED))
        return "a data segment is not marked accessed";
    if ((access & ACCESS_CODE) && !(access & ACCESS_WRITABLE))
        return "a data segment register holds code that cannot be read";
    if (!(access & ACCESS_CODE_OR_DATA) || !(access & ACCESS_PRESENT))
        return "a data segment is a system segment or not present";
    if (!s->unrestricted && (access & ACCESS_TYPE) <= 11 &&
        dpl(s, index) < (s->segment[index].selector & 3u))
        return "the DPL of a data segment is below its RPL";
    if (index != SEG_FS && index != SEG_GS && (s->segment[index].base & BITS(63, 32)))
        return "the base of DS or ES is wider than 32 bits";
    return NULL;
}

static const char *system_rule(const struct entry_state *s)
{
    uint32_t tr = s->segment[SEG_TR].access, ldtr = s->segment[SEG_LDTR].access;
    uint32_t tr_type = tr & ACCESS_TYPE;

    if (!usable(s, SEG_TR))
        return "TR is unusable";
    if (tr_type != TSS_TYPE_BUSY && (ia32e(s) || tr_type != TSS_TYPE_BUSY_16))
        return "TR is no busy TSS";
    if ((tr & ACCESS_CODE_OR_DATA) || !(tr & ACCESS_PRESENT))
        return "TR is no system segment or not present";
    if (s->segment[SEG_TR].selector & 4)
        return "TR refers to the LDT";
    if (!granularity_legal(s->segment[SEG_TR].limit, tr))
        return "the limit of TR disagrees with its granularity";
    if (!canonical(s, s->segment[SEG_TR].base))
        return "the base of TR is not canonical";
    if (!usable(s, SEG_LDTR))
        return NULL;
    if ((ldtr & ACCESS_TYPE) != LDT_TYPE || (ldtr & ACCESS_CODE_OR_DATA) ||
        !(ldtr & ACCESS_PRESENT))
        return "LDTR is no present LDT";
    if (s->segment[SEG_LDTR].selector & 4)
        return "LDTR refers to the LDT";
    if (!granularity_legal(s->segment[SEG_LDTR].limit, ldtr))
        return "the limit of LDTR disagrees with its granularity";
    if (!canonical(s, s->segment[SEG_LDTR].base))
        return "the base of LDTR is not canonical";
    return NULL;
}

static const char *protected_segments_rule(const struct entry_state *s)
{
    static const uint8_t data[] = {SEG_DS, SEG_ES, SEG_FS, SEG_GS};
    const char *rule = cs_rule(s);

    if (!rule)
        rule = ss_rule(s);
    if (!rule)
        rule = privilege_rule(s);
    for (unsigned i = 0; !rule && i < ARRAY_SIZE(data); i++)
        rule = data_rule(s, data[i]);
    for (unsigned i = SEG_ES; !rule && i <= SEG_GS; i++) {
        if (usable(s, i) && !granularity_legal(s->segment[i].limit, s->segment[i].access))
            rule = "a segment's limit disagrees with its granularity";
        if (usable(s, i) && (s->segment[i].access & 0xfffe0f00u))
            rule = "a segment's access rights have a reserved bit set";
    }
    return rule;
}

static const char *segments_rule(const struct entry_state *s)
{
    const char *rule = virtual_8086(s) ? virtual_8086_rule(s) : protected_segments_rule(s);

    if (!rule && !(canonical(s, s->segment[SEG_FS].base) && canonical(s, s->segment[SEG_GS].base)))
        rule = "the base of FS or GS is not canonical";
    return rule ? rule : system_rule(s);
}

/* 27.3.1.3 */
static const char *tables_rule(const struct entry_state *s)
{
    if (!canonical(s, s->gdt_base) || !canonical(s, s->idt_base))
        return "the base of GDTR or IDTR is not canonical";
    if (((s->gdt_limit | s->idt_limit) & 0xffff0000u) != 0)
        return "the limit of GDTR or IDTR is wider than 16 bits";
    return NULL;
}

/* 27.3.1.4 */
static const char *rip_rule(const struct entry_state *s)
{
    bool long_code = ia32e(s) && (s->segment[SEG_CS].access & ACCESS_LONG);
    uint64_t reserved = BITS(63, 22) | BIT(15) | BIT(5) | BIT(3);

    if (!long_code && (s->rip & BITS(63, 32)))
        return "RIP is wider than 32 bits outside 64-bit mode";
    if (long_code && !canonical(s, s->rip))
        return "RIP is not canonical";
    if ((s->rflags & reserved) || !(s->rflags & RFLAGS_FIXED))
        return "RFLAGS has a reserved bit set or bit 1 clear";
    if (virtual_8086(s) && (ia32e(s) || !(s->cr0 & CR0_PE)))
        return "RFLAGS.VM in IA-32e mode or without CR0.PE";
    if ((s->event & INTERRUPTION_VALID) && interruption_type(s->event) == INTERRUPTION_EXTERNAL &&
        !(s->rflags & RFLAGS_IF))
        return "an interrupt to inject while RFLAGS.IF is 0";
    return NULL;
}

/* 27.3.1.5 */
static const char *blocking_rule(const struct entry_state *s)
{
    uint32_t shadow = s->interruptibility & (uint32_t)(BLOCKING_BY_STI | BLOCKING_BY_MOV_SS);
    bool event = (s->event & INTERRUPTION_VALID) != 0;

    if (s->interruptibility & ~0x1fu)
        return "the interruptibility state has a reserved bit set";
    if (shadow == (BLOCKING_BY_STI | BLOCKING_BY_MOV_SS))
        return "blocked by STI and by MOV SS at once";
    if ((shadow & BLOCKING_BY_STI) && !(s->rflags & RFLAGS_IF))
        return "blocked by STI while RFLAGS.IF is 0";
    if (s->interruptibility & BLOCKING_BY_SMI)
        return "blocked by SMI outside SMM";
    if (event && shadow && interruption_type(s->event) == INTERRUPTION_EXTERNAL)
        return "an interrupt to inject while blocked by STI or MOV SS";
    if (event && interruption_type(s->event) == INTERRUPTION_NMI) {
        if (shadow)
            return "an NMI to inject while blocked by STI or MOV SS";
        if (s->virtual_nmis && (s->interruptibility & BLOCKING_BY_NMI))
            return "an NMI to inject while blocked by NMI";
    }
    return NULL;
}

static const char *activity_rule(const struct entry_state *s)
{
    uint32_t shadow = s->interruptibility & (uint32_t)(BLOCKING_BY_STI | BLOCKING_BY_MOV_SS);
    uint64_t reserved = BITS(63, 17) | BIT(15) | BIT(13) | BITS(11, 4);

    if (s->activity > ACTIVITY_WAIT_FOR_SIPI)
        return "an activity state that does not exist";
    if (s->activity == ACTIVITY_HLT && dpl(s, SEG_SS) != 0)
        return "halted at a privilege level other than 0";
    if (s->activity != ACTIVITY_ACTIVE && shadow)
        return "blocked by STI or MOV SS in an activity state other than active";
    if (s->pending_debug & reserved)
        return "the pending debug exceptions have a reserved bit set";
    if (shadow || s->activity == ACTIVITY_HLT) {
        bool step = (s->rflags & RFLAGS_TF) && !(s->debugctl & BIT(1)); /* BTF */
        if (step != ((s->pending_debug & DEBUG_BS) != 0))
            return "a pending single step that RFLAGS.TF does not explain, or none that it asks "
                   "for";
    }
    if (s->link_pointer != ~UINT64_C(0) && (s->link_pointer & BITS(11, 0)))
        return "the VMCS link pointer is misaligned";
    return NULL;
}

/* 27.3.1.6 */
static const char *pdptes_rule(const struct entry_state *s)
{
    if (!(s->cr0 & CR0_PG) || !(s->cr4 & CR4_PAE) || ia32e(s))
        return NULL;
    for (unsigned i = 0; i < 4; i++) {
        if (!pdpte_legal(s->pdpte[i], s->maxphyaddr))
            return "a PDPTE has a reserved bit set";
    }
    return NULL;
}

const char *entry_state_rule(const struct entry_state *state)
{
    static const char *(*const checks[])(const struct entry_state *) = {
        control_registers_rule, msrs_rule,     segments_rule, tables_rule, rip_rule,
        blocking_rule,          activity_rule, pdptes_rule,
    };
    for (unsigned i = 0; i < ARRAY_SIZE(checks); i++) {
        const char *rule = checks[i](state);
        if (rule)
            return rule;
    }
    return NULL;
}
