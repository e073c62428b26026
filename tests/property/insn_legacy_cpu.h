/*
 * One instruction on the CPU that runs the test, in 16- or 32-bit code: segments of the LDT
 * (Linux's modify_ldt) with 64 KiB of memory behind DS, ES and SS, whatever an address of 16 bits
 * may be.
 */
#ifndef QUIRE_TESTS_PROPERTY_INSN_LEGACY_CPU_H
#define QUIRE_TESTS_PROPERTY_INSN_LEGACY_CPU_H

#include "arch/x86_64/insn/execute.h"

#define LEGACY_BYTES 0x10000u
#define LEGACY_CODE_LIMIT 0xfffu

extern uint8_t *legacy_arena;

/* False where the system gives no LDT. */
bool legacy_start(void);

/* EIP of an instruction of so many bytes; where a jump or call may lead. */
uint64_t legacy_rip_for(unsigned length);
uint64_t legacy_landing(void);

/* As cpu_run(), with the lower eight registers, 32 bits of each; the stack is as wide as
 * state->stack_bytes says. */
void legacy_run(const struct insn *insn, const uint8_t *bytes, struct insn_state *state);

#endif
