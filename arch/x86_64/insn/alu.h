/*
 * Arithmetic with flags, on operands of 1, 2, 4 or 8 bytes: as the manual has it (SDM Vol.
 * 1, 3.4.3.1 "Status flags", and "Flags affected" of each instruction in Vol. 2). Operands have no
 * bits above their size, and neither have results.
 */
#ifndef QUIRE_ARCH_X86_64_INSN_ALU_H
#define QUIRE_ARCH_X86_64_INSN_ALU_H

#include "arch/x86_64/insn/decode.h"

uint64_t alu_mask(unsigned bytes);

/* ADD to CMP and TEST, in the order of insn_op; a is the destination. */
uint64_t alu_binary(enum insn_op op, unsigned bytes, uint64_t a, uint64_t b, uint64_t *rflags);

/* INC, DEC, NOT, NEG. */
uint64_t alu_unary(enum insn_op op, unsigned bytes, uint64_t a, uint64_t *rflags);

/* ROL to SAR; the count as it stands in the instruction or in CL. */
uint64_t alu_shift(enum insn_op op, unsigned bytes, uint64_t a, unsigned count, uint64_t *rflags);

/* SHLD, SHRD: what is shifted in comes from b. */
uint64_t alu_double_shift(enum insn_op op, unsigned bytes, uint64_t a, uint64_t b, unsigned count,
                          uint64_t *rflags);

/* BT, BTS, BTR, BTC: of the bit's number only what counts within the operand. */
uint64_t alu_bit(enum insn_op op, unsigned bytes, uint64_t a, uint64_t number, uint64_t *rflags);

/* A condition, by bits 3:0 of the opcode (SDM Vol. 2, B.1.4.7 "Condition test field"). */
bool alu_condition(unsigned condition, uint64_t rflags);

#endif
