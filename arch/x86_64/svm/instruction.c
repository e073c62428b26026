/* See instruction.h. Encodings: APM Vol. 3, 1.2 "Instruction Encoding" and appendix A. */
#include "arch/x86_64/svm/instruction.h"

#define PREFIX_LOCK 0xf0
#define ESCAPE 0x0f

struct reader {
    const uint8_t *bytes;
    unsigned count, at;
    bool lock;
    uint8_t rex;
};

/* 0 behind the end; the caller looks at `at` at last. */
static uint8_t next(struct reader *r)
{
    unsigned at = r->at++;

    return at < r->count ? r->bytes[at] : 0;
}

/* Whether this byte is a prefix; a REX prefix counts right before the opcode alone. */
static bool take_prefix(struct reader *r, uint8_t byte, bool code64, struct svm_instruction *out)
{
    static const uint8_t segments[] = {0x26, 0x2e, 0x36, 0x3e, 0x64, 0x65};

    if (code64 && (byte & 0xf0) == 0x40) {
        r->rex = byte;
        return true;
    }
    bool is_prefix =
        byte == 0x66 || byte == 0x67 || byte == 0xf2 || byte == 0xf3 || byte == PREFIX_LOCK;
    out->address_override |= byte == 0x67;
    r->lock |= byte == PREFIX_LOCK;
    for (int i = 0; i < 6; i++) {
        if (byte != segments[i])
            continue;
        is_prefix = true;
        if (!code64 || i >= 4)
            out->segment = i;
    }
    if (is_prefix)
        r->rex = 0;
    return is_prefix;
}

static enum svm_opcode group_01(uint8_t modrm)
{
    switch (modrm) {
    case 0xc1:
        return OPCODE_VMCALL;
    case 0xd1:
        return OPCODE_XSETBV;
    case 0xd9:
        return OPCODE_VMMCALL;
    default:
        return OPCODE_OTHER;
    }
}

/* LOCK before MOV CR0 means CR8 (APM Vol. 3, "MOV CRn"). The mode bits of ModRM are ignored. */
static void mov_cr(struct reader *r, struct svm_instruction *out)
{
    uint8_t modrm = next(r);

    out->cr = (uint8_t)((modrm >> 3 & 7) | ((r->rex & 4) || r->lock ? 8 : 0));
    out->gpr = (uint8_t)((modrm & 7) | (r->rex & 1 ? 8 : 0));
}

static enum svm_opcode two_bytes(struct reader *r, struct svm_instruction *out)
{
    switch (next(r)) {
    case 0x01:
        return group_01(next(r));
    case 0x08:
        return OPCODE_INVD;
    case 0x09:
        return OPCODE_WBINVD;
    case 0x20:
        mov_cr(r, out);
        return OPCODE_MOV_FROM_CR;
    case 0x21:
        mov_cr(r, out);
        return OPCODE_MOV_FROM_DR;
    case 0x22:
        mov_cr(r, out);
        return OPCODE_MOV_TO_CR;
    case 0x23:
        mov_cr(r, out);
        return OPCODE_MOV_TO_DR;
    case 0x30:
        return OPCODE_WRMSR;
    case 0x32:
        return OPCODE_RDMSR;
    case 0xa2:
        return OPCODE_CPUID;
    default:
        return OPCODE_OTHER;
    }
}

bool svm_instruction_parse(const uint8_t *bytes, unsigned count, bool code64,
                           struct svm_instruction *out)
{
    struct reader r = {.bytes = bytes, .count = count};
    uint8_t byte;

    *out = (struct svm_instruction){.segment = -1};
    do
        byte = next(&r);
    while (r.at <= INSTRUCTION_MOST && take_prefix(&r, byte, code64, out));
    if (byte == ESCAPE)
        out->opcode = two_bytes(&r, out);
    else if (byte == 0xf4)
        out->opcode = OPCODE_HLT;
    else if (byte >= 0x6c && byte <= 0x6f)
        out->opcode = OPCODE_IO_STRING;
    out->length = r.at;
    return r.at <= count;
}
