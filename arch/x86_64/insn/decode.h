/*
 * The instruction decoder: from bytes to what an instruction does to memory.
 *
 *     prefixes  REX  opcode       ModRM  SIB  displacement  immediate
 *     66 67 F0  4x   [0F [38]] op  mod/reg/rm
 *
 * It knows the instructions with a memory operand by which compilers and kernels reach devices: MOV
 * and its relatives, arithmetic, logic, shifts, bit and exchange instructions, strings, and PUSH,
 * POP, near CALL and near JMP by memory. It needs no CPU and no guest: bytes and a mode, that is
 * all. execute.h carries out what comes out.
 *
 * SDM Vol. 2, chapter 2 "Instruction format", and appendix A "Opcode map".
 */
#ifndef QUIRE_ARCH_X86_64_INSN_DECODE_H
#define QUIRE_ARCH_X86_64_INSN_DECODE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define INSN_LONGEST 15 /* bytes; what is longer raises #GP(0) (Vol. 3, 6.15) */

/* What the code segment says: not L and not D, not L and D, L in IA-32e mode. */
enum insn_mode { INSN_CODE16, INSN_CODE32, INSN_CODE64 };

enum insn_op {
    INSN_NONE,
    /* In the order of bits 5:3 of opcodes 00 to 3B, and of group 1. */
    INSN_ADD,
    INSN_OR,
    INSN_ADC,
    INSN_SBB,
    INSN_AND,
    INSN_SUB,
    INSN_XOR,
    INSN_CMP,
    INSN_TEST,
    INSN_INC,
    INSN_DEC,
    INSN_NOT,
    INSN_NEG,
    INSN_ROL,
    INSN_ROR,
    INSN_RCL,
    INSN_RCR,
    INSN_SHL, /* and SAL */
    INSN_SHR,
    INSN_SAR,
    INSN_SHLD,
    INSN_SHRD,
    INSN_BT,
    INSN_BTS,
    INSN_BTR,
    INSN_BTC,
    INSN_MOV,
    INSN_MOVNTI,
    INSN_MOVBE,
    INSN_MOVZX,
    INSN_MOVSX, /* and MOVSXD */
    INSN_CMOVCC,
    INSN_SETCC,
    INSN_XCHG,
    INSN_XADD,
    INSN_CMPXCHG,
    INSN_CMPXCHG8B, /* and CMPXCHG16B, by memory.bytes */
    INSN_PUSH,
    INSN_POP,
    INSN_CALL,
    INSN_JMP,
    INSN_MOVS, /* from here on: strings */
    INSN_CMPS,
    INSN_STOS,
    INSN_LODS,
    INSN_SCAS,
    INSN_OPS
};

/* In the order of their encoding in ModRM.reg, as everywhere in the architecture. */
enum insn_segment { INSN_ES, INSN_CS, INSN_SS, INSN_DS, INSN_FS, INSN_GS };

/* Registers have the numbers of their encoding: RAX RCX RDX RBX RSP RBP RSI RDI, R8 .. R15. */
enum {
    INSN_RAX,
    INSN_RCX,
    INSN_RDX,
    INSN_RBX,
    INSN_RSP,
    INSN_RBP,
    INSN_RSI,
    INSN_RDI,
    INSN_REGISTERS = 16,
    INSN_RIP,        /* a base alone: the address of the next instruction */
    INSN_NO_REGISTER /* neither base nor index */
};

enum insn_repeat { INSN_ONCE, INSN_REP, INSN_REPNE }; /* F3: REPE, where ZF is asked */

enum insn_source { INSN_NOTHING, INSN_REGISTER, INSN_IMMEDIATE, INSN_CL };

/* Of strings with two memory operands (MOVS, CMPS) the first; the second is always ES:RDI. */
struct insn_memory {
    enum insn_segment segment;
    uint8_t bytes; /* 1, 2, 4, 8, 16 */
    uint8_t base, index;
    uint8_t scale; /* 1, 2, 4, 8 */
    int64_t displacement;
};

struct insn {
    enum insn_op op;
    enum insn_mode mode;
    uint8_t length;
    uint8_t bytes;           /* operand size: of the register, the immediate, the stack's slot */
    uint8_t address_bytes;   /* 2, 4, 8 */
    bool lock;               /* XCHG is atomic without it, too */
    enum insn_repeat repeat; /* of strings alone */
    uint8_t condition;       /* SETcc, CMOVcc: bits 3:0 of the opcode */
    struct insn_memory memory;
    enum insn_source source; /* what stands beside memory: a register, an immediate */
    bool to_register;        /* that register is the destination */
    uint8_t reg;
    bool reg_high;          /* AH, CH, DH, BH are meant by the registers 0 .. 3 */
    enum insn_source count; /* shifts: an immediate or CL */
    uint64_t immediate;     /* sign-extended; a count or a bit's number: as it stands */
    uint8_t opcode[4];      /* for messages: opcode and, of a group, ModRM */
    uint8_t opcode_bytes;
};

enum insn_verdict {
    INSN_DECODED,
    INSN_TRUNCATED,     /* the bytes end before the instruction does */
    INSN_TOO_LONG,      /* more than 15 bytes: the CPU raises #GP(0) */
    INSN_LOCK,          /* LOCK where it is not allowed: the CPU raises #UD */
    INSN_REGISTER_FORM, /* decoded, but by its ModRM it touches no memory */
    INSN_UNKNOWN,       /* no such opcode in this mode, or none that is known here */
};

/* Decodes what begins at `bytes`, of which `count` are at hand; more than 15 are not looked at.
 * After another verdict than DECODED and REGISTER_FORM, opcode[] alone has a meaning. */
enum insn_verdict insn_decode(const uint8_t *bytes, size_t count, enum insn_mode mode,
                              struct insn *out);

static inline bool insn_is_string(const struct insn *insn)
{
    return insn->op >= INSN_MOVS;
}

/* The manual's mnemonic in small letters; SETcc and CMOVcc with their condition left open. */
const char *insn_name(const struct insn *insn);

/* A sentence on why an instruction cannot be carried out, with its bytes. Returns text. */
#define INSN_TEXT 160
const char *insn_explain(enum insn_verdict verdict, const struct insn *insn, const uint8_t *bytes,
                         size_t count, char text[INSN_TEXT]);

#endif
