/* See opcodes.h. SDM Vol. 2, appendix A.3 "One, two, and three-byte opcode maps" and A.4 "Opcode
 * extensions for one-byte and two-byte opcodes". */
#include "arch/x86_64/insn/opcodes.h"

#define BYTE OPCODE_BYTE
#define LOCK OPCODE_LOCK
#define MR OPCODE_REG
#define RM (OPCODE_REG | OPCODE_TO_REG)
#define MI OPCODE_IMMEDIATE
#define MI8 OPCODE_IMMEDIATE8

/* Four opcodes in a row: memory and register, in bytes and wider; then the other direction. */
#define ARITHMETIC(at, name, lock)                                                                 \
    [at] = {name, 0, MR | BYTE | (lock)}, [(at) + 1] = {name, 0, MR | (lock)},                     \
    [(at) + 2] = {name, 0, RM | BYTE}, [(at) + 3] = {name, 0, RM}

/* Two in a row: in bytes and wider. */
#define TWO(at, name, flags) [at] = {name, 0, (flags) | BYTE}, [(at) + 1] = {name, 0, flags}
#define TWO_OF_GROUP(at, group, flags)                                                             \
    [at] = {0, group, (flags) | BYTE}, [(at) + 1] = {0, group, flags}

static const struct insn_opcode one_byte[256] = {
    ARITHMETIC(0x00, INSN_ADD, LOCK),
    ARITHMETIC(0x08, INSN_OR, LOCK),
    ARITHMETIC(0x10, INSN_ADC, LOCK),
    ARITHMETIC(0x18, INSN_SBB, LOCK),
    ARITHMETIC(0x20, INSN_AND, LOCK),
    ARITHMETIC(0x28, INSN_SUB, LOCK),
    ARITHMETIC(0x30, INSN_XOR, LOCK),
    ARITHMETIC(0x38, INSN_CMP, 0),
    [0x63] = {INSN_MOVSX, 0, RM | OPCODE_MEMORY32 | OPCODE_ONLY64},
    TWO_OF_GROUP(0x80, GROUP_1, MI),
    [0x82] = {0, GROUP_1, MI | BYTE | OPCODE_NOT64},
    [0x83] = {0, GROUP_1, MI8},
    TWO(0x84, INSN_TEST, MR),
    TWO(0x86, INSN_XCHG, MR | LOCK),
    TWO(0x88, INSN_MOV, MR),
    TWO(0x8a, INSN_MOV, RM),
    [0x8f] = {0, GROUP_1A, OPCODE_DEFAULT64},
    TWO(0xa0, INSN_MOV, OPCODE_OFFSET | OPCODE_TO_REG),
    TWO(0xa2, INSN_MOV, OPCODE_OFFSET),
    TWO(0xa4, INSN_MOVS, OPCODE_STRING | OPCODE_SOURCE_RSI),
    TWO(0xa6, INSN_CMPS, OPCODE_STRING | OPCODE_SOURCE_RSI),
    TWO(0xaa, INSN_STOS, OPCODE_STRING),
    TWO(0xac, INSN_LODS, OPCODE_STRING | OPCODE_SOURCE_RSI),
    TWO(0xae, INSN_SCAS, OPCODE_STRING),
    TWO_OF_GROUP(0xc0, GROUP_2, OPCODE_COUNT8),
    TWO_OF_GROUP(0xc6, GROUP_11, MI),
    TWO_OF_GROUP(0xd0, GROUP_2, OPCODE_COUNT_1),
    TWO_OF_GROUP(0xd2, GROUP_2, OPCODE_COUNT_CL),
    [0xf6] = {0, GROUP_3, BYTE},
    [0xf7] = {0, GROUP_3, 0},
    [0xfe] = {0, GROUP_4, BYTE},
    [0xff] = {0, GROUP_5, 0},
};

static const struct insn_opcode two_byte[256] = {
    [0x40 ... 0x4f] = {INSN_CMOVCC, 0, RM},
    [0x90 ... 0x9f] = {INSN_SETCC, 0, BYTE},
    [0xa3] = {INSN_BT, 0, MR},
    [0xa4] = {INSN_SHLD, 0, MR | OPCODE_COUNT8},
    [0xa5] = {INSN_SHLD, 0, MR | OPCODE_COUNT_CL},
    [0xab] = {INSN_BTS, 0, MR | LOCK},
    [0xac] = {INSN_SHRD, 0, MR | OPCODE_COUNT8},
    [0xad] = {INSN_SHRD, 0, MR | OPCODE_COUNT_CL},
    TWO(0xb0, INSN_CMPXCHG, MR | LOCK),
    [0xb3] = {INSN_BTR, 0, MR | LOCK},
    [0xb6] = {INSN_MOVZX, 0, RM | OPCODE_MEMORY8},
    [0xb7] = {INSN_MOVZX, 0, RM | OPCODE_MEMORY16},
    [0xba] = {0, GROUP_8, OPCODE_COUNT8},
    [0xbb] = {INSN_BTC, 0, MR | LOCK},
    [0xbe] = {INSN_MOVSX, 0, RM | OPCODE_MEMORY8},
    [0xbf] = {INSN_MOVSX, 0, RM | OPCODE_MEMORY16},
    TWO(0xc0, INSN_XADD, MR | LOCK),
    [0xc3] = {INSN_MOVNTI, 0, MR | OPCODE_4_OR_8 | OPCODE_MEMORY | OPCODE_NO_PREFIX},
    [0xc7] = {0, GROUP_9, 0},
};

static const struct insn_opcode groups[GROUPS][8] = {
    [GROUP_1] = {{INSN_ADD, 0, LOCK},
                 {INSN_OR, 0, LOCK},
                 {INSN_ADC, 0, LOCK},
                 {INSN_SBB, 0, LOCK},
                 {INSN_AND, 0, LOCK},
                 {INSN_SUB, 0, LOCK},
                 {INSN_XOR, 0, LOCK},
                 {INSN_CMP, 0, 0}},
    [GROUP_1A] = {{INSN_POP, 0, 0}},
    /* 6 is SAL, as 4 is; the manual leaves it out, CPUs do not. */
    [GROUP_2] = {{INSN_ROL, 0, 0},
                 {INSN_ROR, 0, 0},
                 {INSN_RCL, 0, 0},
                 {INSN_RCR, 0, 0},
                 {INSN_SHL, 0, 0},
                 {INSN_SHR, 0, 0},
                 {INSN_SHL, 0, 0},
                 {INSN_SAR, 0, 0}},
    /* Likewise, 1 is TEST, as 0 is. */
    [GROUP_3] = {{INSN_TEST, 0, MI}, {INSN_TEST, 0, MI}, {INSN_NOT, 0, LOCK}, {INSN_NEG, 0, LOCK}},
    [GROUP_4] = {{INSN_INC, 0, LOCK}, {INSN_DEC, 0, LOCK}},
    [GROUP_5] = {{INSN_INC, 0, LOCK},
                 {INSN_DEC, 0, LOCK},
                 {INSN_CALL, 0, OPCODE_FORCE64},
                 [4] = {INSN_JMP, 0, OPCODE_FORCE64},
                 [6] = {INSN_PUSH, 0, OPCODE_DEFAULT64}},
    [GROUP_8] = {[4] = {INSN_BT, 0, 0},
                 {INSN_BTS, 0, LOCK},
                 {INSN_BTR, 0, LOCK},
                 {INSN_BTC, 0, LOCK}},
    [GROUP_9] = {[1] = {INSN_CMPXCHG8B, 0, OPCODE_4_OR_8 | OPCODE_PAIR | OPCODE_MEMORY | LOCK}},
    [GROUP_11] = {{INSN_MOV, 0, 0}},
};

struct insn_opcode insn_opcode_find(enum insn_map map, uint8_t byte)
{
    switch (map) {
    case MAP_ONE_BYTE:
        return one_byte[byte];
    case MAP_0F:
        return two_byte[byte];
    case MAP_0F38:
        /* With F2 these are CRC32. */
        if (byte == 0xf0)
            return (struct insn_opcode){INSN_MOVBE, 0, RM | OPCODE_MEMORY | OPCODE_NO_REPEAT};
        if (byte == 0xf1)
            return (struct insn_opcode){INSN_MOVBE, 0, MR | OPCODE_MEMORY | OPCODE_NO_REPEAT};
        break;
    }
    return (struct insn_opcode){0};
}

struct insn_opcode insn_group_member(enum insn_group group, unsigned reg)
{
    return groups[group][reg & 7];
}
