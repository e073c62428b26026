/*
 * Who called whom in the hypervisor, by the frame pointers that all of its code keeps. RBP holds
 * the address of
 *
 *     [RBP]      the caller's RBP; 0 where a stack begins
 *     [RBP + 8]  where the caller goes on
 *
 * A chain is followed on the CPU that it is of, and on that CPU's own stacks alone: whatever RBP
 * holds, nothing is read that may be absent.
 */
#ifndef QUIRE_ARCH_CALL_CHAIN_H
#define QUIRE_ARCH_CALL_CHAIN_H

#include <stdint.h>

struct stack_range {
    uint64_t bottom, top; /* top exclusive; both 0: not there */
};

#define CHAIN_CALLS 32

enum chain_end {
    CHAIN_BASE,     /* RBP or the return address is 0, as where a stack begins */
    CHAIN_OUTSIDE,  /* the frame pointer is on none of the stacks, or no multiple of 8 */
    CHAIN_DESCENDS, /* the next frame lies not above the one before it */
    CHAIN_NO_CODE,  /* the return address is none of the hypervisor's */
    CHAIN_FULL,     /* CHAIN_CALLS are there */
};

struct call_chain {
    struct {
        uint64_t at;    /* the instruction that it is at, or goes on with */
        uint64_t frame; /* its frame; 0 for the first, which is read from RIP */
        unsigned stack; /* the one that the frame is on, of those given */
    } call[CHAIN_CALLS];
    unsigned count; /* 1 at least */
    enum chain_end end;
    uint64_t end_at; /* the address that ended it */
};

/* From RIP and RBP on, within `stacks`. */
void call_chain_take(struct call_chain *out, const struct stack_range *stacks, unsigned count,
                     uint64_t rip, uint64_t rbp);

/* From whoever calls this. */
void call_chain_here(struct call_chain *out, const struct stack_range *stacks, unsigned count);

/* The function of one of its calls, and how far in it that is; NULL: no function of ours. */
const char *call_chain_symbol(const struct call_chain *chain, unsigned i, uint64_t *offset);

#define CHAIN_END 112
const char *call_chain_end_text(char buffer[CHAIN_END], const struct call_chain *chain);

#endif
