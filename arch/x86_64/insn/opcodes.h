/*
 * The opcodes that the decoder knows: what each is called and how its operands are encoded. The
 * letters in parentheses are the manual's, from the column "Op/En" of each instruction.
 */
#ifndef QUIRE_ARCH_X86_64_INSN_OPCODES_H
#define QUIRE_ARCH_X86_64_INSN_OPCODES_H

#include "arch/x86_64/insn/decode.h"
#include "lib/bits.h"

/* Size of the operand. */
#define OPCODE_BYTE BIT(0)      /* one byte; else 2, 4 or 8 by mode and prefixes */
#define OPCODE_FORCE64 BIT(1)   /* 8 in 64-bit mode, whatever the prefixes (f64): Intel's way */
#define OPCODE_DEFAULT64 BIT(2) /* 8 in 64-bit mode, or 2 (d64) */
#define OPCODE_4_OR_8 BIT(3)    /* 8 with REX.W, else 4 */
/* Size of the memory operand where it is another one. */
#define OPCODE_MEMORY8 BIT(4)
#define OPCODE_MEMORY16 BIT(5)
#define OPCODE_MEMORY32 BIT(6) /* or the operand's, if that is smaller */
#define OPCODE_PAIR BIT(7)     /* twice the operand's */
/* Operands. All but strings and offsets have a ModRM byte. */
#define OPCODE_REG BIT(8)         /* the register in ModRM.reg (MR) */
#define OPCODE_TO_REG BIT(9)      /* which is the destination (RM) */
#define OPCODE_IMMEDIATE BIT(10)  /* of the operand's size, at most 4 bytes (MI) */
#define OPCODE_IMMEDIATE8 BIT(11) /* one byte, sign-extended */
#define OPCODE_COUNT8 BIT(12)     /* a count or a bit's number, one byte */
#define OPCODE_COUNT_1 BIT(13)    /* a count of 1 */
#define OPCODE_COUNT_CL BIT(14)   /* CL */
#define OPCODE_OFFSET BIT(15)     /* the accumulator and an offset (FD, TD) */
#define OPCODE_SOURCE_RSI BIT(16) /* a string at RSI */
#define OPCODE_STRING BIT(17)     /* else at RDI */
/* Where it exists. */
#define OPCODE_NOT64 BIT(18)     /* not in 64-bit mode */
#define OPCODE_ONLY64 BIT(19)    /* in 64-bit mode alone */
#define OPCODE_LOCK BIT(20)      /* may be locked */
#define OPCODE_NO_PREFIX BIT(21) /* not with 66, F2, F3 (NP) */
#define OPCODE_NO_REPEAT BIT(22) /* not with F2, F3 */
#define OPCODE_MEMORY BIT(23)    /* not with ModRM.mod 3 */

enum insn_group {
    GROUP_NONE,
    GROUP_1,  /* 80 .. 83 */
    GROUP_1A, /* 8F */
    GROUP_2,  /* C0, C1, D0 .. D3 */
    GROUP_3,  /* F6, F7 */
    GROUP_4,  /* FE */
    GROUP_5,  /* FF */
    GROUP_8,  /* 0F BA */
    GROUP_9,  /* 0F C7 */
    GROUP_11, /* C6, C7 */
    GROUPS
};

/* With a group, ModRM.reg chooses the operation; flags of both add up. */
struct insn_opcode {
    uint8_t op, group;
    uint32_t flags;
};

enum insn_map { MAP_ONE_BYTE, MAP_0F, MAP_0F38 };

/* op is INSN_NONE for what is not known. */
struct insn_opcode insn_opcode_find(enum insn_map map, uint8_t byte);
struct insn_opcode insn_group_member(enum insn_group group, unsigned reg);

#endif
