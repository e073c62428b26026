/* See vm/backtrace.h. */
#include "vm/backtrace.h"

#include "lib/bits.h"
#include "lib/format.h"
#include "vm/guest.h"
#include "x86/control.h"

#define CODE_LONG BIT(13) /* of a segment's access: L and D/B */
#define CODE_32 BIT(14)

/* What the mode that the guest is in makes of its registers. */
struct code {
    unsigned width; /* bytes of an offset */
    uint64_t mask;
    uint64_t code_base, stack_base;
    uint64_t linear_mask;
};

static struct code code_of(const struct vcpu_state *state)
{
    const struct segment *cs = &state->segment[SEG_CS];

    if ((state->efer & EFER_LMA) && (cs->access & CODE_LONG))
        return (struct code){8, UINT64_MAX, 0, 0, UINT64_MAX};
    /* A real mode's segment of code, or one of virtual-8086 mode, has D clear. */
    return (struct code){
        .width = cs->access & CODE_32 ? 4 : 2,
        .mask = cs->access & CODE_32 ? UINT32_MAX : UINT16_MAX,
        .code_base = cs->base,
        .stack_base = state->segment[SEG_SS].base,
        .linear_mask = UINT32_MAX,
    };
}

uint64_t linear_rip(const struct vcpu_state *state)
{
    struct code code = code_of(state);

    return (code.code_base + state->rip) & code.linear_mask;
}

static bool load(struct vcpu *vcpu, const struct vcpu_state *state, const struct code *code,
                 uint64_t offset, uint64_t *out)
{
    *out = 0;
    return guests_backend()->read_linear(
        vcpu, state, (code->stack_base + offset) & code->linear_mask, out, code->width);
}

/* The frame at `*offset`, and the offset of the next. False: it ends here. */
static bool step(struct vcpu *vcpu, const struct vcpu_state *state, const struct code *code,
                 struct backtrace *out, uint64_t *offset)
{
    uint64_t saved, back, at, here = (code->stack_base + *offset) & code->linear_mask;
    uint8_t byte;

    out->end_at = here;
    out->end = BACKTRACE_UNREADABLE;
    if (!load(vcpu, state, code, *offset, &saved) ||
        !load(vcpu, state, code, (*offset + code->width) & code->mask, &back))
        return false;
    out->end = BACKTRACE_OUTERMOST;
    if (back == 0)
        return false;
    at = (code->code_base + back) & code->linear_mask;
    out->end = BACKTRACE_NO_CODE;
    out->end_at = at;
    if (!guests_backend()->read_linear(vcpu, state, at, &byte, 1))
        return false;
    out->end_at = here;
    out->end = BACKTRACE_FULL;
    if (out->count == BACKTRACE_FRAMES)
        return false;
    out->frame[out->count].at = at;
    out->frame[out->count].frame = here;
    out->frame[out->count++].framed = true;
    out->end_at = (code->stack_base + saved) & code->linear_mask;
    out->end = saved == 0 ? BACKTRACE_OUTERMOST : BACKTRACE_DESCENDS;
    if (saved <= *offset)
        return false;
    *offset = saved;
    return true;
}

void backtrace_take(struct vcpu *vcpu, const struct vcpu_state *state, struct backtrace *out)
{
    struct code code = code_of(state);
    uint64_t offset = state->gpr[RBP] & code.mask;

    out->count = 1;
    out->frame[0].at = linear_rip(state);
    out->frame[0].framed = false;
    out->end = BACKTRACE_OUTERMOST;
    out->end_at = 0;
    if (offset == 0)
        return;
    /* Each step adds a frame or is the last. */
    while (step(vcpu, state, &code, out, &offset))
        ;
}

const char *backtrace_end_text(char buffer[BACKTRACE_END], const struct backtrace *trace)
{
    uint64_t at = trace->end_at;

    switch (trace->end) {
    case BACKTRACE_OUTERMOST:
        format_buffer(buffer, BACKTRACE_END, "the chain of frame pointers ends with 0");
        break;
    case BACKTRACE_UNREADABLE:
        format_buffer(buffer, BACKTRACE_END, "no memory at 0x%lx: RBP is no frame pointer there",
                      at);
        break;
    case BACKTRACE_DESCENDS:
        format_buffer(buffer, BACKTRACE_END,
                      "0x%lx does not lie above the frame before it: no frame pointer, or a loop",
                      at);
        break;
    case BACKTRACE_NO_CODE:
        format_buffer(buffer, BACKTRACE_END,
                      "no memory at 0x%lx, which would be a return address: no frame pointer", at);
        break;
    case BACKTRACE_FULL:
        format_buffer(buffer, BACKTRACE_END, "%u frames are shown; the chain goes on at 0x%lx",
                      BACKTRACE_FRAMES, at);
        break;
    }
    return buffer;
}
