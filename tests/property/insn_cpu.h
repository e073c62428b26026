/*
 * One instruction on the CPU that runs the test, with all registers and flags as wanted, in 64-bit
 * mode; and the memory that it may touch. Both lie in the low 2 GiB, for displacements and
 * addresses of four bytes to reach.
 */
#ifndef QUIRE_TESTS_PROPERTY_INSN_CPU_H
#define QUIRE_TESTS_PROPERTY_INSN_CPU_H

#include "arch/x86_64/insn/execute.h"

#define ARENA_BYTES 1024u

extern uint8_t *cpu_arena; /* aligned as a page is */
extern uint64_t cpu_gs;    /* the base of GS; that of the others is 0 */

void cpu_start(void);

/* The address that an instruction of so many bytes will have. */
uint64_t cpu_rip_for(unsigned length);

/* Where a jump or call may lead. */
uint64_t cpu_landing(void);

/* Runs it from state->gpr and state->rflags; afterwards the state is the CPU's. An exception ends
 * the program with a message. */
void cpu_run(const uint8_t *bytes, unsigned length, struct insn_state *state);

#endif
