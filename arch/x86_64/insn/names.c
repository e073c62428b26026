/* What an instruction is called, and why one cannot be carried out: words for people. */
#include "arch/x86_64/insn/decode.h"

#include "lib/bits.h"
#include "lib/format.h"

static const char *const names[INSN_OPS] = {
    "none",  "add",   "or",   "adc",  "sbb",  "and",  "sub",     "xor",       "cmp",    "test",
    "inc",   "dec",   "not",  "neg",  "rol",  "ror",  "rcl",     "rcr",       "shl",    "shr",
    "sar",   "shld",  "shrd", "bt",   "bts",  "btr",  "btc",     "mov",       "movnti", "movbe",
    "movzx", "movsx", "cmov", "set",  "xchg", "xadd", "cmpxchg", "cmpxchg8b", "push",   "pop",
    "call",  "jmp",   "movs", "cmps", "stos", "lods", "scas",
};

const char *insn_name(const struct insn *insn)
{
    if (insn->op == INSN_CMPXCHG8B && insn->memory.bytes == 16)
        return "cmpxchg16b";
    return names[insn->op];
}

/* What is not emulated, by its opcode; of a group by ModRM.reg as well. */
static const struct family {
    uint8_t escape; /* 0F, or 0 */
    uint8_t first, last;
    uint8_t regs; /* a bit for each ModRM.reg; 0: any */
    const char *what;
} families[] = {
    {0, 0x50, 0x5f, 0, "PUSH or POP of a register"},
    {0, 0x60, 0x61, 0, "PUSHA or POPA"},
    {0, 0x62, 0x62, 0, "BOUND or AVX-512"},
    {0, 0x63, 0x63, 0, "ARPL"},
    {0, 0x68, 0x68, 0, "PUSH of a number"},
    {0, 0x6a, 0x6a, 0, "PUSH of a number"},
    {0, 0x69, 0x69, 0, "IMUL"},
    {0, 0x6b, 0x6b, 0, "IMUL"},
    {0, 0x6c, 0x6f, 0, "INS or OUTS"},
    {0, 0x8c, 0x8c, 0, "MOV of a segment register"},
    {0, 0x8e, 0x8e, 0, "MOV of a segment register"},
    {0, 0x9a, 0x9a, 0, "far CALL"},
    {0, 0x9c, 0x9d, 0, "PUSHF or POPF"},
    {0, 0xc2, 0xc3, 0, "RET"},
    {0, 0xc4, 0xc5, 0, "LES, LDS or AVX"},
    {0, 0xc8, 0xc9, 0, "ENTER or LEAVE"},
    {0, 0xca, 0xcb, 0, "far RET"},
    {0, 0xcf, 0xcf, 0, "IRET"},
    {0, 0xd7, 0xd7, 0, "XLAT"},
    {0, 0xd8, 0xdf, 0, "x87"},
    {0, 0xe8, 0xe8, 0, "CALL of a place in code"},
    {0, 0xf6, 0xf7, 0xf0, "MUL or DIV"},
    {0, 0xff, 0xff, BIT(3) | BIT(5), "far CALL or JMP"},
    {0x0f, 0x00, 0x01, 0, "a system instruction"},
    {0x0f, 0x0d, 0x0d, 0, "PREFETCH"},
    {0x0f, 0x10, 0x17, 0, "SSE"},
    {0x0f, 0x18, 0x1f, 0, "PREFETCH or NOP"},
    {0x0f, 0x28, 0x2f, 0, "SSE"},
    {0x0f, 0x38, 0x3a, 0, "SSSE3 or later"},
    {0x0f, 0x50, 0x7f, 0, "MMX or SSE"},
    {0x0f, 0xae, 0xae, 0, "FXSAVE, XSAVE or CLFLUSH"},
    {0x0f, 0xaf, 0xaf, 0, "IMUL"},
    {0x0f, 0xb2, 0xb2, 0, "LSS, LFS or LGS"},
    {0x0f, 0xb4, 0xb5, 0, "LSS, LFS or LGS"},
    {0x0f, 0xb8, 0xb8, 0, "POPCNT"},
    {0x0f, 0xbc, 0xbd, 0, "a bit scan"},
    {0x0f, 0xc2, 0xc2, 0, "SSE"},
    {0x0f, 0xc4, 0xc6, 0, "MMX or SSE"},
    {0x0f, 0xd0, 0xfe, 0, "MMX or SSE"},
};

/* NULL for what no name fits. */
static const char *family_of(const struct insn *insn)
{
    unsigned escaped = insn->opcode[0] == 0x0f;
    uint8_t opcode = insn->opcode[escaped];

    for (size_t i = 0; i < ARRAY_SIZE(families); i++) {
        const struct family *f = &families[i];

        if ((f->escape != 0) == escaped && opcode >= f->first && opcode <= f->last &&
            (!f->regs || (f->regs & BIT(insn->opcode[escaped + 1] >> 3 & 7))))
            return f->what;
    }
    return NULL;
}

static const char *reason(enum insn_verdict verdict)
{
    switch (verdict) {
    case INSN_DECODED:
        return "is known";
    case INSN_TRUNCATED:
        return "goes on where no more bytes can be read";
    case INSN_TOO_LONG:
        return "is longer than 15 bytes, for which the CPU raises #GP(0)";
    case INSN_LOCK:
        return "has a LOCK that it must not have, for which the CPU raises #UD";
    case INSN_REGISTER_FORM:
        return "touches no memory";
    case INSN_UNKNOWN:
        break;
    }
    return "is not emulated";
}

/* Bytes as the manual writes them: " 0F 38 F0". */
static size_t put_bytes(char *text, size_t size, const uint8_t *bytes, size_t count)
{
    size_t at = 0;

    for (size_t i = 0; i < count && at < size; i++)
        at += format_buffer(text + at, size - at, " %02X", bytes[i]);
    return at;
}

const char *insn_explain(enum insn_verdict verdict, const struct insn *insn, const uint8_t *bytes,
                         size_t count, char text[INSN_TEXT])
{
    size_t at = format_buffer(text, INSN_TEXT, "the instruction");

    at += put_bytes(text + at, INSN_TEXT - at, bytes, count < INSN_LONGEST ? count : INSN_LONGEST);
    at += format_buffer(text + at, INSN_TEXT - at, " %s", reason(verdict));
    if (verdict == INSN_UNKNOWN) {
        const char *family = family_of(insn);

        at += format_buffer(text + at, INSN_TEXT - at, ": %s%sopcode", family ? family : "",
                            family ? ", " : "");
        put_bytes(text + at, INSN_TEXT - at, insn->opcode, insn->opcode_bytes);
    }
    return text;
}
