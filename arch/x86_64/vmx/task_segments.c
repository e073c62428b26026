/* See task_switch.h. SDM Vol. 3, 8.3 "Task switching", table 8-1. */
#include "arch/x86_64/vmx/task_switch.h"

#define DESCRIPTOR_ACCESSED BIT(40)

static bool fails(struct task_switch *s, uint8_t vector, uint32_t code)
{
    vmx_inject_exception(s->v, vector, true, code);
    s->exit->kind = VM_EXIT_HANDLED;
    return false;
}

bool task_fails(struct task_switch *s, uint8_t vector, uint16_t selector)
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
    if (outcome != OPERAND_AGAIN) {
        struct guest_access access = vmx_guest_access(s->v);
        guest_tell_refusal(&access, place, outcome, s->exit);
    }
    /* It is all tried again: the instruction, or the delivery of the event. */
    if (s->vectoring)
        vmx_deliver_again(s->v);
    else
        vmx_retry(&s->v->vcpu);
    return false;
}

/* Up to 8 bytes; `to` NULL: only that they can be written. */
bool task_access(struct task_switch *s, const struct operand *operand, void *to, const void *from)
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
bool task_read(struct task_switch *s, uint64_t at, void *to, unsigned size)
{
    for (unsigned i = 0; i < size; i += 2) {
        struct operand operand = flat_operand(at + i, 2, RIGHT_R);
        if (!task_access(s, &operand, (uint8_t *)to + i, NULL))
            return false;
    }
    return true;
}

bool task_write(struct task_switch *s, uint64_t at, const void *from, unsigned size)
{
    for (unsigned i = 0; i < size; i += 2) {
        struct operand operand = flat_operand(at + i, 2, RIGHT_W);
        if (!task_access(s, &operand, NULL, from ? (const uint8_t *)from + i : NULL))
            return false;
    }
    return true;
}

/* ---- Descriptors ----------------------------------------------------------------------------- */

/* Where a selector's descriptor lies; false where there is none. */
bool task_descriptor_place(uint16_t selector, uint64_t *at)
{
    bool local = (selector & SELECTOR_LDT) != 0;
    uint32_t offset = selector & ~7u;
    uint64_t limit = vmread(local ? VMCS_GUEST_LDTR_LIMIT : VMCS_GUEST_GDTR_LIMIT);

    if (local && (vmread(VMCS_GUEST_LDTR_ACCESS) & ACCESS_UNUSABLE))
        return false;
    *at = vmread(local ? VMCS_GUEST_LDTR_BASE : VMCS_GUEST_GDTR_BASE) + offset;
    return offset + 7 <= limit;
}

void task_set_hidden(unsigned index, uint16_t selector, uint64_t d)
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
void task_set_v86(unsigned index, uint16_t selector)
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

bool task_load_segment(struct task_switch *s, unsigned index, uint16_t selector, unsigned cpl)
{
    uint64_t at, d;

    if ((selector & ~SELECTOR_RPL) == 0) {
        if (index == SEG_CS || index == SEG_SS)
            return task_fails(s, VECTOR_TS, selector);
        set_unusable(index, selector);
        return true;
    }
    if (!task_descriptor_place(selector, &at))
        return task_fails(s, VECTOR_TS, selector);
    if (!task_read(s, at, &d, sizeof(d)))
        return false;
    if (!descriptor_fits(index, selector, cpl, d))
        return task_fails(s, VECTOR_TS, selector);
    if (!(descriptor_access(d) & ACCESS_PRESENT))
        return task_fails(s, index == SEG_SS ? VECTOR_SS : VECTOR_NP, selector);
    if (!(d & DESCRIPTOR_ACCESSED)) {
        d |= DESCRIPTOR_ACCESSED;
        if (!task_write(s, at, &d, sizeof(d)))
            return false;
    }
    task_set_hidden(index, selector, d);
    return true;
}

bool task_load_ldt(struct task_switch *s, uint16_t selector)
{
    uint64_t at, d;

    if ((selector & ~SELECTOR_RPL) == 0) {
        set_unusable(SEG_LDTR, selector);
        return true;
    }
    if ((selector & SELECTOR_LDT) || !task_descriptor_place(selector, &at))
        return task_fails(s, VECTOR_TS, selector);
    if (!task_read(s, at, &d, sizeof(d)))
        return false;
    if ((descriptor_access(d) & (ACCESS_TYPE | ACCESS_CODE_OR_DATA | ACCESS_PRESENT)) !=
        (LDT_TYPE | ACCESS_PRESENT))
        return task_fails(s, VECTOR_TS, selector);
    task_set_hidden(SEG_LDTR, selector, d);
    return true;
}
