/*
 * Task switches: VMX leaves each to the hypervisor (SDM Vol. 3, 26.4.2 "Treatment of task
 * switches"). The CPU has judged privilege and the selector of the new TSS; the rest is done here
 * in the order of 8.3 "Task switching".
 *
 * Whatever can fault before the old task's state is saved does so in the old task, with nothing
 * changed; what faults after that faults in the new one.
 */
#include "arch/x86_64/vmx/task_switch.h"

#include "lib/string.h"

#define QUALIFICATION_SELECTOR BITS(15, 0)
#define QUALIFICATION_SOURCE_SHIFT 30

#define CODE_EXTERNAL BIT(0) /* error code: raised by an event from outside the program */
#define DESCRIPTOR_BUSY BIT(41)
#define TSS_32BIT BIT(3)

#define DEBUG_BT BIT(15)
#define DR7_LOCAL (BIT(0) | BIT(2) | BIT(4) | BIT(6) | BIT(8)) /* L0 .. L3, LE */

/* Figures 8-2 and 8-10. */
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

static uint64_t below_stack(const struct task_switch *s, uint64_t rsp, unsigned access)
{
    return (rsp - s->to->word) & (access & ACCESS_DB ? UINT32_MAX : UINT16_MAX);
}

/* That an error code can be pushed, where the new task sees the stack as this one does. */
static bool reach_stack(struct task_switch *s, uint64_t ss)
{
    const struct tss_layout *l = s->to;
    uint64_t at = descriptor_base(ss) +
                  below_stack(s, field(s->new, l, l->gpr + RSP * l->word), descriptor_access(ss));
    bool same = !(vmx_guest_cr0() & CR0_PG) ||
                (l->cr3 != 0 && field(s->new, l, l->cr3) == vmread(VMCS_GUEST_CR3));

    return !same || !(s->vectoring & INTERRUPTION_CODE_VALID) || task_write(s, at, NULL, l->word);
}

/* That the descriptors of the new task's segments are there: they are looked at again when it is
 * too late to turn back. */
static bool reach_descriptors(struct task_switch *s)
{
    const struct tss_layout *l = s->to;
    uint16_t ldt = selector_at(s->new, l, l->ldt);
    uint64_t at, d = 0, found;

    if ((ldt & ~SELECTOR_RPL) && !(ldt & SELECTOR_LDT) && task_descriptor_place(ldt, &at) &&
        !task_read(s, at, &d, sizeof(d)))
        return false;
    for (unsigned i = 0; i < l->segments; i++) {
        uint16_t selector = selector_at(s->new, l, l->segment + i * l->word);
        bool local = (selector & SELECTOR_LDT) != 0;

        if (!(selector & ~SELECTOR_RPL) || (local && d == 0))
            continue;
        at = local ? descriptor_base(d) + (selector & ~7u) : 0;
        if (local ? (selector | 7u) > descriptor_limit(d) : !task_descriptor_place(selector, &at))
            continue;
        if (!task_read(s, at, &found, sizeof(found)))
            return false;
        if (i == SEG_SS && !reach_stack(s, found))
            return false;
    }
    return true;
}

/* The new TSS, and that the old one and the descriptors can be written. */
static bool prepare(struct task_switch *s)
{
    uint64_t at, tr_access = vmread(VMCS_GUEST_TR_ACCESS);

    s->from = tr_access & TSS_32BIT ? &layout32 : &layout16;
    if (!task_descriptor_place(s->selector, &at))
        return task_fails(s, s->source == TASK_IRET ? VECTOR_TS : VECTOR_GP, s->selector);
    if (!task_read(s, at, &s->descriptor, sizeof(s->descriptor)))
        return false;
    if (!(descriptor_access(s->descriptor) & ACCESS_PRESENT))
        return task_fails(s, VECTOR_NP, s->selector);
    s->to = descriptor_access(s->descriptor) & TSS_32BIT ? &layout32 : &layout16;
    if (descriptor_limit(s->descriptor) < s->to->limit)
        return task_fails(s, VECTOR_TS, s->selector);
    if (vmread(VMCS_GUEST_TR_LIMIT) < s->from->limit)
        return task_fails(s, VECTOR_TS, (uint16_t)vmread(VMCS_GUEST_TR_SELECTOR));
    return task_read(s, vmread(VMCS_GUEST_TR_BASE), s->old, s->from->limit + 1u) &&
           task_write(s, vmread(VMCS_GUEST_TR_BASE), NULL, s->from->limit + 1u) &&
           task_read(s, descriptor_base(s->descriptor), s->new, s->to->limit + 1u) &&
           task_write(s, descriptor_base(s->descriptor), NULL, 2) && reach_descriptors(s);
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
        exception_is_fault((uint8_t)(s->vectoring & INTERRUPTION_VECTOR)))
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
    if (!task_write(s, vmread(VMCS_GUEST_TR_BASE) + l->ip, s->old + l->ip,
                    (unsigned)(l->ldt - l->ip)))
        return false;
    if ((s->source == TASK_JMP || s->source == TASK_IRET) &&
        task_descriptor_place((uint16_t)vmread(VMCS_GUEST_TR_SELECTOR), &at)) {
        if (!task_read(s, at, &d, sizeof(d)))
            return false;
        d &= ~DESCRIPTOR_BUSY;
        if (!task_write(s, at, &d, sizeof(d)))
            return false;
    }
    if (s->source == TASK_IRET || !task_descriptor_place(s->selector, &at))
        return true;
    s->descriptor |= DESCRIPTOR_BUSY;
    return task_write(s, at, &s->descriptor, sizeof(s->descriptor));
}

/* What a task has of its own besides segments. */
static bool load_registers(struct task_switch *s)
{
    const struct tss_layout *l = s->to;
    uint64_t flags = field(s->new, l, l->flags) | RFLAGS_FIXED;
    uint16_t old = (uint16_t)vmread(VMCS_GUEST_TR_SELECTOR);

    if (s->source == TASK_CALL || s->source == TASK_GATE) {
        flags |= RFLAGS_NT;
        if (!task_write(s, descriptor_base(s->descriptor), &old, sizeof(old)))
            return false;
    }
    s->committed = true;
    task_set_hidden(SEG_TR, s->selector, s->descriptor | DESCRIPTOR_BUSY);
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
    if (!task_load_ldt(s, selector_at(s->new, l, l->ldt)))
        return false;
    for (unsigned i = 0; i < ARRAY_SIZE(order); i++) {
        unsigned index = order[i];

        if (v86)
            task_set_v86(index, selector[index]);
        else if (!task_load_segment(s, index, selector[index], selector[SEG_CS] & SELECTOR_RPL))
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
    uint64_t rsp = vmread(VMCS_GUEST_RSP), below = below_stack(s, rsp, ss.access);
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
    if (!task_access(s, &operand, NULL, &code))
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
    struct guest_access access = vmx_guest_access(v);
    struct task_switch s = {
        .v = v,
        .exit = exit,
        .cpu = guest_operand_cpu(&access),
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
