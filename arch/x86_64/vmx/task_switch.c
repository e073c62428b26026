/*
 * Task switches: VMX leaves each to the hypervisor (SDM Vol. 3, 26.4.2 "Treatment of task
 * switches"). The CPU has judged privilege and the selector of the new TSS; the rest is done here
 * in the order of 8.3 "Task switching".
 *
 * Whatever can fault before the old task's state is saved does so in the old task, with nothing
 * changed; what faults after that faults in the new one.
 */
#include "arch/x86_64/mm/operand.h"
#include "arch/x86_64/vmx/exits.h"
#include "arch/x86_64/vmx/state.h"
#include "lib/string.h"

enum task_source { TASK_CALL, TASK_IRET, TASK_JMP, TASK_GATE };

#define QUALIFICATION_SELECTOR BITS(15, 0)
#define QUALIFICATION_SOURCE_SHIFT 30

#define SELECTOR_LDT BIT(2) /* TI */
#define SELECTOR_RPL BITS(1, 0)
#define CODE_EXTERNAL BIT(0) /* error code: raised by an event from outside the program */

#define DESCRIPTOR_BUSY BIT(41)
#define DESCRIPTOR_ACCESSED BIT(40)
#define TSS_32BIT BIT(3)
#define TSS_AVAILABLE 1 /* or 9; busy: 3 or 11 */

#define DEBUG_BT BIT(15)
#define DR7_LOCAL (BIT(0) | BIT(2) | BIT(4) | BIT(6) | BIT(8)) /* L0 .. L3, LE */

/* Figure 8-2 and 8-10: where both formats keep what is switched. */
struct tss_layout {
    uint8_t word; /* bytes of a register */
    uint8_t cr3, ip, flags, gpr, segment, ldt, trap;
    uint8_t segments; /* ES CS SS DS, and FS GS in the larger one */
    uint8_t limit;
};
static const struct tss_layout layout32 = {
    .word = 4,
    .cr3 = 0x1c,
    .ip = 0x20,
    .flags = 0x24,
    .gpr = 0x28,
    .segment = 0x48,
    .ldt = 0x60,
    .trap = 0x64,
    .segments = 6,
    .limit = 0x67,
};
static const struct tss_layout layout16 = {
    .word = 2,
    .ip = 0x0e,
    .flags = 0x10,
    .gpr = 0x12,
    .segment = 0x22,
    .ldt = 0x2a,
    .segments = 4,
    .limit = 0x2b,
};
#define TSS_MAX 0x68

/* One switch in progress. A step that fails has said how in `event` or `exit`. */
struct task_switch {
    struct vmx_vcpu *v;
    struct vm_exit *exit;
    struct operand_cpu cpu;
    enum task_source source;
    uint16_t selector; /* of the new TSS */
    uint64_t descriptor;
    const struct tss_layout *from, *to;
    uint8_t old[TSS_MAX], new[TSS_MAX];
    uint32_t vectoring; /* the event that came through a task gate, or 0 */
    uint32_t external;  /* bit 0 of error codes */
    bool committed;     /* the new task's registers are loaded */
};

static bool fails(struct task_switch *s, uint8_t vector, uint32_t code)
{
    vmx_inject_exception(s->v, vector, true, code);
    s->exit->kind = VM_EXIT_HANDLED;
    return false;
}

static bool fails_by(struct task_switch *s, uint8_t vector, uint16_t selector)
{
    return fails(s, vector, (uint32_t)(selector & ~SELECTOR_RPL) | s->external);
}

/* ---- Memory: the CPU's own accesses to its tables, which are the supervisor's ---------------- */

static bool tell(struct task_switch *s, enum operand_outcome outcome,
                 const struct operand_place *place)
{
    if (outcome == OPERAND_EXCEPTION) {
        if (place->fault.vector == VECTOR_PF)
            s->v->live.cr2 = place->fault.address;
        return fails(s, place->fault.vector, place->fault.code);
    }
    if (s->committed) { /* there is no way back, and none on */
        s->exit->kind = VM_EXIT_UNKNOWN;
        return false;
    }
    s->exit->kind = VM_EXIT_HANDLED;
    if (outcome != OPERAND_AGAIN)
        vmx_tell_refusal(place, outcome, s->exit);
    /* It is all tried again: the instruction, or the delivery of the event. */
    if (s->vectoring)
        vmx_deliver_again(s->v);
    else
        vmx_retry(&s->v->vcpu);
    return false;
}

/* Up to 8 bytes; `to` NULL: only that they can be written. */
static bool access_bytes(struct task_switch *s, const struct operand *operand, void *to,
                         const void *from)
{
    struct operand_place place;
    enum operand_outcome outcome = operand_reach(&s->cpu, operand, &place);

    if (outcome != OPERAND_REACHED)
        return tell(s, outcome, &place);
    if (to != NULL)
        operand_load(&place, to);
    if (from != NULL)
        operand_store(&place, from);
    return true;
}

static struct operand flat_operand(uint64_t linear, unsigned bytes, unsigned access)
{
    return (struct operand){
        .which = OPERAND_DS,
        .segment = {.limit = UINT32_MAX, .access = 0xc093},
        .offset = linear & UINT32_MAX,
        .address_bytes = 4,
        .bytes = (uint8_t)bytes,
        .access = access,
    };
}

/* Words of 2 bytes, as both layouts consist of them. */
static bool read_linear(struct task_switch *s, uint64_t at, void *to, unsigned size)
{
    for (unsigned i = 0; i < size; i += 2) {
        struct operand operand = flat_operand(at + i, 2, RIGHT_R);
        if (!access_bytes(s, &operand, (uint8_t *)to + i, NULL))
            return false;
    }
    return true;
}

static bool write_linear(struct task_switch *s, uint64_t at, const void *from, unsigned size)
{
    for (unsigned i = 0; i < size; i += 2) {
        struct operand operand = flat_operand(at + i, 2, RIGHT_W);
        if (!access_bytes(s, &operand, NULL, from ? (const uint8_t *)from + i : NULL))
            return false;
    }
    return true;
}

/* ---- Descriptors ----------------------------------------------------------------------------- */

static uint64_t descriptor_base(uint64_t d)
{
    return (d >> 16 & BITS(23, 0)) | (d >> 32 & BITS(31, 24));
}

static uint16_t descriptor_access(uint64_t d)
{
    return (uint16_t)(d >> 40 & 0xf0ff);
}

static uint32_t descriptor_limit(uint64_t d)
{
    uint32_t limit = (uint32_t)((d & 0xffff) | (d >> 32 & 0xf0000));

    return descriptor_access(d) & ACCESS_GRANULARITY ? limit << 12 | 0xfff : limit;
}

/* Where a selector's descriptor lies; false where there is none. */
static bool descriptor_place(uint16_t selector, uint64_t *at)
{
    bool local = (selector & SELECTOR_LDT) != 0;
    uint32_t offset = selector & ~7u;
    uint64_t limit = vmread(local ? VMCS_GUEST_LDTR_LIMIT : VMCS_GUEST_GDTR_LIMIT);

    if (local && (vmread(VMCS_GUEST_LDTR_ACCESS) & ACCESS_UNUSABLE))
        return false;
    *at = vmread(local ? VMCS_GUEST_LDTR_BASE : VMCS_GUEST_GDTR_BASE) + offset;
    return offset + 7 <= limit;
}

static void set_hidden(unsigned index, uint16_t selector, uint64_t d)
{
    unsigned offset = index * VMCS_SEGMENT_STRIDE;

    vmwrite(VMCS_GUEST_ES_SELECTOR + offset, selector);
    vmwrite(VMCS_GUEST_ES_BASE + offset, descriptor_base(d));
    vmwrite(VMCS_GUEST_ES_LIMIT + offset, descriptor_limit(d));
    vmwrite(VMCS_GUEST_ES_ACCESS + offset, descriptor_access(d));
}

static void set_unusable(unsigned index, uint16_t selector)
{
    unsigned offset = index * VMCS_SEGMENT_STRIDE;

    vmwrite(VMCS_GUEST_ES_SELECTOR + offset, selector);
    vmwrite(VMCS_GUEST_ES_ACCESS + offset, ACCESS_UNUSABLE);
}

/* Virtual-8086 mode's segments follow from their selectors. */
static void set_v86(unsigned index, uint16_t selector)
{
    unsigned offset = index * VMCS_SEGMENT_STRIDE;

    vmwrite(VMCS_GUEST_ES_SELECTOR + offset, selector);
    vmwrite(VMCS_GUEST_ES_BASE + offset, (uint64_t)selector << 4);
    vmwrite(VMCS_GUEST_ES_LIMIT + offset, 0xffff);
    vmwrite(VMCS_GUEST_ES_ACCESS + offset, 0xf3);
}

/* Table 8-1: type and privilege of what a segment register is to hold. */
static bool descriptor_fits(unsigned index, uint16_t selector, unsigned cpl, uint64_t d)
{
    unsigned access = descriptor_access(d), rpl = selector & SELECTOR_RPL;
    unsigned dpl = access >> ACCESS_DPL_SHIFT & 3;
    bool code = access & ACCESS_CODE, second = access & ACCESS_WRITABLE;
    bool conforming = code && (access & ACCESS_CONFORMING);

    if (!(access & ACCESS_CODE_OR_DATA))
        return false;
    if (index == SEG_CS)
        return code && (conforming ? dpl <= rpl : dpl == rpl);
    if (index == SEG_SS)
        return !code && second && dpl == cpl && rpl == cpl;
    return (!code || second) && (conforming || (dpl >= cpl && dpl >= rpl));
}

static bool load_segment(struct task_switch *s, unsigned index, uint16_t selector, unsigned cpl)
{
    uint64_t at, d;

    if ((selector & ~SELECTOR_RPL) == 0) {
        if (index == SEG_CS || index == SEG_SS)
            return fails_by(s, VECTOR_TS, selector);
        set_unusable(index, selector);
        return true;
    }
    if (!descriptor_place(selector, &at))
        return fails_by(s, VECTOR_TS, selector);
    if (!read_linear(s, at, &d, sizeof(d)))
        return false;
    if (!descriptor_fits(index, selector, cpl, d))
        return fails_by(s, VECTOR_TS, selector);
    if (!(descriptor_access(d) & ACCESS_PRESENT))
        return fails_by(s, index == SEG_SS ? VECTOR_SS : VECTOR_NP, selector);
    if (!(d & DESCRIPTOR_ACCESSED)) {
        d |= DESCRIPTOR_ACCESSED;
        if (!write_linear(s, at, &d, sizeof(d)))
            return false;
    }
    set_hidden(index, selector, d);
    return true;
}

static bool load_ldt(struct task_switch *s, uint16_t selector)
{
    uint64_t at, d;

    if ((selector & ~SELECTOR_RPL) == 0) {
        set_unusable(SEG_LDTR, selector);
        return true;
    }
    if ((selector & SELECTOR_LDT) || !descriptor_place(selector, &at))
        return fails_by(s, VECTOR_TS, selector);
    if (!read_linear(s, at, &d, sizeof(d)))
        return false;
    if ((descriptor_access(d) & (ACCESS_TYPE | ACCESS_CODE_OR_DATA | ACCESS_PRESENT)) !=
        (LDT_TYPE | ACCESS_PRESENT))
        return fails_by(s, VECTOR_TS, selector);
    set_hidden(SEG_LDTR, selector, d);
    return true;
}

/* ---- The steps ------------------------------------------------------------------------------- */

static uint32_t field(const uint8_t *tss, const struct tss_layout *layout, unsigned at)
{
    uint32_t value = 0;

    memcpy(&value, tss + at, layout->word);
    return value;
}

static uint16_t selector_at(const uint8_t *tss, const struct tss_layout *layout, unsigned at)
{
    return (uint16_t)field(tss, layout, at);
}

static void set_field(uint8_t *tss, const struct tss_layout *layout, unsigned at, uint64_t value)
{
    memcpy(tss + at, &value, layout->word);
}

/* That the descriptors of the new task's segments are there: they are looked at again when it is
 * too late to turn back. */
static bool reach_descriptors(struct task_switch *s)
{
    const struct tss_layout *l = s->to;
    uint16_t ldt = selector_at(s->new, l, l->ldt);
    uint64_t at, d = 0, ignored;

    if ((ldt & ~SELECTOR_RPL) && !(ldt & SELECTOR_LDT) && descriptor_place(ldt, &at) &&
        !read_linear(s, at, &d, sizeof(d)))
        return false;
    for (unsigned i = 0; i < l->segments; i++) {
        uint16_t selector = selector_at(s->new, l, l->segment + i * l->word);
        bool local = (selector & SELECTOR_LDT) != 0;

        if (!(selector & ~SELECTOR_RPL) || (local && d == 0))
            continue;
        at = local ? descriptor_base(d) + (selector & ~7u) : 0;
        if (local ? (selector | 7u) > descriptor_limit(d) : !descriptor_place(selector, &at))
            continue;
        if (!read_linear(s, at, &ignored, sizeof(ignored)))
            return false;
    }
    return true;
}

/* The new TSS, and that the old one and the descriptors can be written. */
static bool prepare(struct task_switch *s)
{
    uint64_t at, tr_access = vmread(VMCS_GUEST_TR_ACCESS);

    s->from = tr_access & TSS_32BIT ? &layout32 : &layout16;
    if (!descriptor_place(s->selector, &at))
        return fails_by(s, s->source == TASK_IRET ? VECTOR_TS : VECTOR_GP, s->selector);
    if (!read_linear(s, at, &s->descriptor, sizeof(s->descriptor)))
        return false;
    if (!(descriptor_access(s->descriptor) & ACCESS_PRESENT))
        return fails_by(s, VECTOR_NP, s->selector);
    s->to = descriptor_access(s->descriptor) & TSS_32BIT ? &layout32 : &layout16;
    if (descriptor_limit(s->descriptor) < s->to->limit)
        return fails_by(s, VECTOR_TS, s->selector);
    if (vmread(VMCS_GUEST_TR_LIMIT) < s->from->limit)
        return fails_by(s, VECTOR_TS, (uint16_t)vmread(VMCS_GUEST_TR_SELECTOR));
    return read_linear(s, vmread(VMCS_GUEST_TR_BASE), s->old, s->from->limit + 1u) &&
           write_linear(s, vmread(VMCS_GUEST_TR_BASE), NULL, s->from->limit + 1u) &&
           read_linear(s, descriptor_base(s->descriptor), s->new, s->to->limit + 1u) &&
           write_linear(s, descriptor_base(s->descriptor), NULL, 2) && reach_descriptors(s);
}

/* The old task's registers into its TSS, and who is busy. */
static bool save_old(struct task_switch *s)
{
    const struct tss_layout *l = s->from;
    bool software = !s->vectoring || interruption_has_length(s->vectoring);
    uint64_t rip = vmread(VMCS_GUEST_RIP) + (software ? s->exit->length : 0);
    uint64_t flags = vmread(VMCS_GUEST_RFLAGS), at, d;

    if (s->source == TASK_IRET)
        flags &= ~RFLAGS_NT;
    if (s->vectoring && interruption_type(s->vectoring) == INTERRUPTION_EXCEPTION &&
        vmx_is_fault((uint8_t)(s->vectoring & INTERRUPTION_VECTOR)))
        flags |= RFLAGS_RF;
    set_field(s->old, l, l->ip, rip);
    set_field(s->old, l, l->flags, flags);
    for (unsigned i = 0; i < 8; i++)
        set_field(s->old, l, l->gpr + i * l->word,
                  i == RSP ? vmread(VMCS_GUEST_RSP) : s->v->vcpu.gpr[i]);
    for (unsigned i = 0; i < l->segments; i++)
        set_field(s->old, l, l->segment + i * l->word,
                  vmread(VMCS_GUEST_ES_SELECTOR + i * VMCS_SEGMENT_STRIDE));
    /* From EIP to the last segment: the rest of a TSS is not the CPU's to write. */
    if (!write_linear(s, vmread(VMCS_GUEST_TR_BASE) + l->ip, s->old + l->ip,
                      (unsigned)(l->ldt - l->ip)))
        return false;
    if ((s->source == TASK_JMP || s->source == TASK_IRET) &&
        descriptor_place((uint16_t)vmread(VMCS_GUEST_TR_SELECTOR), &at)) {
        if (!read_linear(s, at, &d, sizeof(d)))
            return false;
        d &= ~DESCRIPTOR_BUSY;
        if (!write_linear(s, at, &d, sizeof(d)))
            return false;
    }
    if (s->source == TASK_IRET || !descriptor_place(s->selector, &at))
        return true;
    s->descriptor |= DESCRIPTOR_BUSY;
    return write_linear(s, at, &s->descriptor, sizeof(s->descriptor));
}

/* What a task has of its own besides segments. */
static bool load_registers(struct task_switch *s)
{
    const struct tss_layout *l = s->to;
    uint64_t flags = field(s->new, l, l->flags) | RFLAGS_FIXED;
    uint16_t old = (uint16_t)vmread(VMCS_GUEST_TR_SELECTOR);

    if (s->source == TASK_CALL || s->source == TASK_GATE) {
        flags |= RFLAGS_NT;
        if (!write_linear(s, descriptor_base(s->descriptor), &old, sizeof(old)))
            return false;
    }
    s->committed = true;
    set_hidden(SEG_TR, s->selector, s->descriptor | DESCRIPTOR_BUSY);
    vmx_write_crs(vmx_guest_cr0() | CR0_TS, vmx_guest_cr4(), vmread(VMCS_GUEST_EFER));
    vmwrite(VMCS_GUEST_RIP, field(s->new, l, l->ip));
    vmwrite(VMCS_GUEST_RFLAGS, flags);
    for (unsigned i = 0; i < 8; i++) {
        uint32_t value = field(s->new, l, l->gpr + i * l->word);

        if (i == RSP)
            vmwrite(VMCS_GUEST_RSP, value);
        else
            s->v->vcpu.gpr[i] = value;
    }
    vmwrite(VMCS_GUEST_DR7, vmread(VMCS_GUEST_DR7) & ~DR7_LOCAL);
    if (l->cr3 != 0 && (vmx_guest_cr0() & CR0_PG) &&
        !vmx_load_cr3(s->v, field(s->new, l, l->cr3), s->exit))
        return false;
    s->cpu.registers.cr3 = vmread(VMCS_GUEST_CR3);
    for (unsigned i = 0; i < ARRAY_SIZE(s->cpu.registers.pdpte); i++)
        s->cpu.registers.pdpte[i] = vmread(VMCS_GUEST_PDPTE0 + 2 * i);
    return true;
}

static bool load_segments(struct task_switch *s)
{
    static const uint8_t order[] = {SEG_CS, SEG_SS, SEG_DS, SEG_ES, SEG_FS, SEG_GS};
    const struct tss_layout *l = s->to;
    bool v86 = vmread(VMCS_GUEST_RFLAGS) & RFLAGS_VM;
    uint16_t selector[6] = {0};

    for (unsigned i = 0; i < l->segments; i++) {
        selector[i] = selector_at(s->new, l, l->segment + i * l->word);
        vmwrite(VMCS_GUEST_ES_SELECTOR + i * VMCS_SEGMENT_STRIDE, selector[i]);
    }
    if (!load_ldt(s, selector_at(s->new, l, l->ldt)))
        return false;
    for (unsigned i = 0; i < ARRAY_SIZE(order); i++) {
        unsigned index = order[i];

        if (v86)
            set_v86(index, selector[index]);
        else if (!load_segment(s, index, selector[index], selector[SEG_CS] & SELECTOR_RPL))
            return false;
    }
    return true;
}

/* The error code of an exception that came through a task gate, onto the new task's stack. */
static bool push_code(struct task_switch *s)
{
    struct segment ss;

    if (!(s->vectoring & INTERRUPTION_CODE_VALID))
        return true;
    vmx_read_segment(SEG_SS, &ss);
    uint64_t mask = ss.access & ACCESS_DB ? UINT32_MAX : UINT16_MAX;
    uint64_t rsp = vmread(VMCS_GUEST_RSP), below = (rsp - s->to->word) & mask;
    uint32_t code = (uint32_t)vmread(VMCS_IDT_VECTORING_CODE);
    struct operand operand = {
        .which = OPERAND_SS,
        .segment = {.base = ss.base, .limit = ss.limit, .access = ss.access},
        .offset = below,
        .address_bytes = 4,
        .bytes = s->to->word,
        .access = RIGHT_W,
    };

    s->cpu.user = (ss.access >> ACCESS_DPL_SHIFT & 3) == 3;
    if (!access_bytes(s, &operand, NULL, &code))
        return false;
    vmwrite(VMCS_GUEST_RSP, (rsp & ~mask) | below);
    return true;
}

/* #DB by the TSS's T bit, before the new task's first instruction; the single step of the
 * instruction that switched comes with it. */
static void leave_debug_traps(struct task_switch *s, bool stepped)
{
    bool trap = s->to->trap != 0 && (s->new[s->to->trap] & 1);

    if (trap) {
        write_dr6(read_dr6() | DEBUG_BT | (stepped ? DEBUG_BS : 0));
        vmx_inject_exception(s->v, VECTOR_DB, false, 0);
    } else if (stepped) {
        vmwrite(VMCS_GUEST_PENDING_DEBUG, DEBUG_BS);
    }
}

void vmx_task_switch(struct vmx_vcpu *v, struct vm_exit *exit)
{
    uint64_t flags = vmread(VMCS_GUEST_RFLAGS);
    struct task_switch s = {
        .v = v,
        .exit = exit,
        .cpu = vmx_operand_cpu(v),
        .source = (enum task_source)(exit->qualification >> QUALIFICATION_SOURCE_SHIFT & 3),
        .selector = (uint16_t)(exit->qualification & QUALIFICATION_SELECTOR),
        .vectoring = (uint32_t)vmread(VMCS_IDT_VECTORING),
    };

    exit->kind = VM_EXIT_HANDLED;
    if (s.source != TASK_GATE || !(s.vectoring & INTERRUPTION_VALID))
        s.vectoring = 0;
    if (s.vectoring && !interruption_has_length(s.vectoring))
        s.external = CODE_EXTERNAL;
    s.cpu.user = false;
    s.cpu.rflags &= ~RFLAGS_AC; /* SMAP holds for accesses that no instruction makes itself */
    if (!prepare(&s) || !save_old(&s) || !load_registers(&s))
        return;
    vmx_leave_old_task(s.source == TASK_IRET);
    if (load_segments(&s) && push_code(&s))
        leave_debug_traps(&s, (flags & RFLAGS_TF) && s.source != TASK_GATE);
}
