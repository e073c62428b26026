/* What an instruction is called, and why one cannot be carried out: words for people. */
#include "arch/x86_64/insn/decode.h"

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
    return "has an opcode that is not emulated";
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
        at += format_buffer(text + at, INSN_TEXT - at, ":");
        put_bytes(text + at, INSN_TEXT - at, insn->opcode, insn->opcode_bytes);
    }
    return text;
}
