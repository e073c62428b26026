/* See call_chain.h. */
#include "arch/x86_64/call_chain.h"

#include <stdbool.h>

#include "arch/x86_64/symbols.h"
#include "lib/bits.h"
#include "lib/format.h"

#define FRAME_SIZE 16 /* RBP and the return address */

/* The stack that a whole frame at this address is on, or `count`. */
static unsigned stack_of(const struct stack_range *stacks, unsigned count, uint64_t frame)
{
    for (unsigned i = 0; i < count; i++)
        if (stacks[i].top != 0 && frame >= stacks[i].bottom && frame <= stacks[i].top - FRAME_SIZE)
            return i;
    return count;
}

/* A call that does not return may be the last instruction of its function. */
static const char *symbol_of_return(uint64_t at, uint64_t *offset)
{
    const char *name = symbol_of(at - 1, offset);

    if (name)
        ++*offset;
    return name;
}

/* The frame at `*frame`, and where the next is. False: it ends here. */
static bool step(struct call_chain *out, const struct stack_range *stacks, unsigned count,
                 uint64_t *frame)
{
    unsigned stack = stack_of(stacks, count, *frame), last = out->count - 1;
    uint64_t offset;

    out->end_at = *frame;
    out->end = CHAIN_BASE;
    if (*frame == 0)
        return false;
    out->end = CHAIN_OUTSIDE;
    if (stack == count || !is_aligned(*frame, sizeof(uint64_t)))
        return false;
    out->end = CHAIN_DESCENDS;
    if (last != 0 && stack == out->call[last].stack && *frame <= out->call[last].frame)
        return false;
    const uint64_t *saved = (const uint64_t *)(uintptr_t)*frame;
    out->end = CHAIN_BASE;
    if (saved[1] == 0)
        return false;
    out->end = CHAIN_NO_CODE;
    out->end_at = saved[1];
    if (!symbol_of_return(saved[1], &offset))
        return false;
    out->end = CHAIN_FULL;
    out->end_at = *frame;
    if (out->count == CHAIN_CALLS)
        return false;
    out->call[out->count].at = saved[1];
    out->call[out->count].frame = *frame;
    out->call[out->count++].stack = stack;
    *frame = saved[0];
    return true;
}

void call_chain_take(struct call_chain *out, const struct stack_range *stacks, unsigned count,
                     uint64_t rip, uint64_t rbp)
{
    out->call[0].at = rip;
    out->call[0].frame = 0;
    out->call[0].stack = stack_of(stacks, count, rbp);
    out->count = 1;
    /* Each step adds a call or is the last. */
    while (step(out, stacks, count, &rbp))
        continue;
}

__attribute__((noinline)) void call_chain_here(struct call_chain *out,
                                               const struct stack_range *stacks, unsigned count)
{
    const uint64_t *own = __builtin_frame_address(0);

    call_chain_take(out, stacks, count, own[1], own[0]);
}

const char *call_chain_symbol(const struct call_chain *chain, unsigned i, uint64_t *offset)
{
    return (i ? symbol_of_return : symbol_of)(chain->call[i].at, offset);
}

const char *call_chain_end_text(char buffer[CHAIN_END], const struct call_chain *chain)
{
    uint64_t at = chain->end_at;

    switch (chain->end) {
    case CHAIN_BASE:
        format_buffer(buffer, CHAIN_END, "the stack begins here");
        break;
    case CHAIN_OUTSIDE:
        format_buffer(buffer, CHAIN_END, "RBP 0x%lx is on none of this CPU's stacks", at);
        break;
    case CHAIN_DESCENDS:
        format_buffer(buffer, CHAIN_END,
                      "RBP 0x%lx does not lie above the frame before it: a loop, or no frame", at);
        break;
    case CHAIN_NO_CODE:
        format_buffer(buffer, CHAIN_END,
                      "0x%lx would be a return address, and is none of the hypervisor's", at);
        break;
    case CHAIN_FULL:
        format_buffer(buffer, CHAIN_END, "%u calls are shown; the chain goes on at 0x%lx",
                      CHAIN_CALLS, at);
        break;
    }
    return buffer;
}
