/*
 * One random instruction with its registers and flags, to be carried out twice: by the executor
 * under test and by the CPU; and what the manual lets differ between the two.
 */
#ifndef QUIRE_TESTS_PROPERTY_INSN_TRIAL_H
#define QUIRE_TESTS_PROPERTY_INSN_TRIAL_H

#include "arch/x86_64/insn/execute.h"
#include "tests/unit/random.h"

#define TRIAL_STATUS (RFLAGS_CF | RFLAGS_PF | RFLAGS_AF | RFLAGS_ZF | RFLAGS_SF | RFLAGS_OF)

struct trial {
    uint8_t bytes[16];
    struct insn insn;
    struct insn_state state; /* before */
};

extern struct random trial_chance;
extern unsigned trial_failures;

/* 0 .. n - 1. */
uint64_t trial_pick(uint64_t n);

/* Changes a register, or the displacement in the instruction, so that the memory operand comes to
 * be at this offset, or up to eight bytes before it; false where that cannot be. Not for strings.
 */
bool trial_aim(struct trial *t, uint64_t offset);

/* MOVBE and CMPXCHG16B are not in every CPU. */
bool trial_has_feature(enum insn_op op, unsigned memory_bytes);

/* The result itself is undefined (SHLD and SHRD by more than the operand has). */
bool trial_is_undefined(const struct trial *t);

/* Registers in their low bytes, RIP, and all flags that are defined. */
void trial_compare(const struct trial *t, const struct insn_state *ours,
                   const struct insn_state *cpus, unsigned register_bytes);

/* `count` bytes of memory. */
void trial_compare_memory(const struct trial *t, const uint8_t *ours, const uint8_t *cpus,
                          size_t count);

void trial_complain(const struct trial *t, const char *what, uint64_t ours, uint64_t cpus);

#endif
