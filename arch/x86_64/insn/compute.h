/*
 * What the instructions do between their reads and their write: registers, flags, and the value
 * to be written. Without memory, so that a refused write leaves nothing to be undone.
 */
#ifndef QUIRE_ARCH_X86_64_INSN_COMPUTE_H
#define QUIRE_ARCH_X86_64_INSN_COMPUTE_H

#include "arch/x86_64/insn/execute.h"

struct insn_step {
    const struct insn *insn;
    struct insn_state *state;    /* a copy: as it will be afterwards */
    uint64_t in[INSN_PLACES][2]; /* what was read, place by place */
    uint64_t out[2];             /* what is to be written */
};

enum insn_outcome insn_compute(struct insn_step *step);

/* The low bytes of a register, 1 to 8 of them; written as the CPU does: 4 clear what is above, 1
 * and 2 keep it (SDM Vol. 1, 3.4.1.1). */
uint64_t insn_register(const struct insn_state *state, unsigned number, unsigned bytes);
void insn_set_register(struct insn_state *state, unsigned number, unsigned bytes, uint64_t value);

/* The stack pointer after so many bytes have been taken off or, negative, put on. */
uint64_t insn_moved_stack(const struct insn_state *state, int64_t bytes);

#endif
