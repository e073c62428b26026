/* See decode.h. The steps are the instruction's own parts, in their order (SDM Vol. 2, 2.1
 * "Instruction format for protected mode, real-address mode, and virtual-8086 mode" and 2.2
 * "IA-32e mode"). */
#include "arch/x86_64/insn/decode.h"

#include "arch/x86_64/insn/opcodes.h"
#include "lib/bits.h"
#include "lib/string.h"

#define REX_W BIT(3)
#define REX_R BIT(2)
#define REX_X BIT(1)
#define REX_B BIT(0)

#define NO_OVERRIDE 0xff

/* An instruction that is being read. */
struct reading {
    const uint8_t *bytes;
    size_t count; /* at most INSN_LONGEST */
    unsigned at;
    enum insn_verdict verdict; /* DECODED so far, or what was found first */

    bool operand_size, address_size, lock; /* prefixes 66, 67, F0 */
    uint8_t repeat;                        /* the last of F2 and F3 */
    uint8_t segment, rex;
    struct insn_opcode opcode;
    uint8_t opcode_byte, mod, reg, rm; /* ModRM, without the bits of REX */
    struct insn *out;
};

static bool refuse(struct reading *in, enum insn_verdict verdict)
{
    if (in->verdict == INSN_DECODED)
        in->verdict = verdict;
    return false;
}

static uint8_t next_byte(struct reading *in)
{
    if (in->at >= INSN_LONGEST)
        refuse(in, INSN_TOO_LONG);
    else if (in->at >= in->count)
        refuse(in, INSN_TRUNCATED);
    return in->verdict == INSN_DECODED ? in->bytes[in->at++] : 0;
}

/* A little-endian number of 1, 2, 4 or 8 bytes, sign-extended. */
static int64_t next_number(struct reading *in, unsigned bytes)
{
    size_t end = in->at + bytes;
    uint64_t value = 0;

    if (end > in->count) {
        refuse(in, in->count < INSN_LONGEST ? INSN_TRUNCATED : INSN_TOO_LONG);
        return 0;
    }
    memcpy(&value, in->bytes + in->at, bytes);
    in->at += bytes;
    return sign_extend(value, 8 * bytes);
}

/* ---- Prefixes and opcode ------------------------------------------------------------------- */

/* In 64-bit mode overrides of ES, CS, SS and DS are without effect (2.1.1, Vol. 1, 3.3.4). */
static void override_segment(struct reading *in, enum insn_segment segment)
{
    if (in->out->mode != INSN_CODE64 || segment >= INSN_FS)
        in->segment = segment;
}

static bool note_prefix(struct reading *in, uint8_t byte)
{
    switch (byte) {
    case 0x26:
    case 0x2e:
    case 0x36:
    case 0x3e:
        override_segment(in, (enum insn_segment)(byte >> 3 & 3));
        return true;
    case 0x64:
    case 0x65:
        override_segment(in, byte == 0x64 ? INSN_FS : INSN_GS);
        return true;
    case 0x66:
        in->operand_size = true;
        return true;
    case 0x67:
        in->address_size = true;
        return true;
    case 0xf0:
        in->lock = true;
        return true;
    case 0xf2:
    case 0xf3:
        in->repeat = byte;
        return true;
    }
    return false;
}

/* Returns the first byte behind the prefixes. A REX counts only right before the opcode (2.2.1). */
static uint8_t read_prefixes(struct reading *in)
{
    for (;;) {
        uint8_t byte = next_byte(in);

        if (in->verdict != INSN_DECODED)
            return 0;
        if (note_prefix(in, byte))
            in->rex = 0;
        else if (in->out->mode == INSN_CODE64 && (byte & 0xf0) == 0x40)
            in->rex = byte;
        else
            return byte;
    }
}

static void read_modrm(struct reading *in)
{
    uint8_t byte = next_byte(in);

    in->mod = byte >> 6;
    in->reg = byte >> 3 & 7;
    in->rm = byte & 7;
}

static bool has_modrm(const struct reading *in)
{
    return !(in->opcode.flags & (OPCODE_STRING | OPCODE_OFFSET));
}

/* Whether the opcode exists in this mode, with these prefixes, and with a register in ModRM. */
static bool opcode_allowed(const struct reading *in)
{
    uint32_t flags = in->opcode.flags;
    bool code64 = in->out->mode == INSN_CODE64;

    if (flags & (code64 ? OPCODE_NOT64 : OPCODE_ONLY64))
        return false;
    if ((flags & OPCODE_MEMORY) && in->mod == 3)
        return false;
    if ((flags & (OPCODE_NO_PREFIX | OPCODE_NO_REPEAT)) && in->repeat)
        return false;
    return !(flags & OPCODE_NO_PREFIX) || !in->operand_size;
}

/* The opcode, and ModRM where there is one. */
static bool read_opcode(struct reading *in)
{
    enum insn_map map = MAP_ONE_BYTE;
    uint8_t byte = read_prefixes(in);
    unsigned first = in->at - 1;

    if (byte == 0x0f) {
        byte = next_byte(in);
        map = MAP_0F;
        if (byte == 0x38) {
            byte = next_byte(in);
            map = MAP_0F38;
        }
    }
    if (in->verdict != INSN_DECODED)
        return false;
    in->opcode = insn_opcode_find(map, byte);
    in->opcode_byte = byte;
    if ((in->opcode.op || in->opcode.group) && has_modrm(in))
        read_modrm(in);
    if (in->verdict != INSN_DECODED)
        return false;
    in->out->opcode_bytes = (uint8_t)(in->at - first);
    memcpy(in->out->opcode, in->bytes + first, in->at - first);
    if (in->opcode.group) {
        struct insn_opcode member = insn_group_member(in->opcode.group, in->reg);
        in->opcode.op = member.op;
        in->opcode.flags |= member.flags;
    }
    if (!in->opcode.op || !opcode_allowed(in))
        return refuse(in, INSN_UNKNOWN);
    return true;
}

/* ---- Sizes --------------------------------------------------------------------------------- */

/* SDM Vol. 1, 3.6 "Operand-size and address-size attributes"; f64 and d64 in Vol. 2, A.2.5. */
static uint8_t operand_bytes(const struct reading *in)
{
    uint32_t flags = in->opcode.flags;
    bool code64 = in->out->mode == INSN_CODE64;

    if (flags & OPCODE_BYTE)
        return 1;
    if (code64 && ((flags & OPCODE_FORCE64) || (in->rex & REX_W)))
        return 8;
    if (flags & OPCODE_4_OR_8)
        return 4;
    if (code64 && (flags & OPCODE_DEFAULT64))
        return in->operand_size ? 2 : 8;
    return in->operand_size != (in->out->mode == INSN_CODE16) ? 2 : 4;
}

static uint8_t memory_bytes(uint32_t flags, uint8_t bytes)
{
    if (flags & OPCODE_MEMORY8)
        return 1;
    if (flags & OPCODE_MEMORY16)
        return 2;
    if ((flags & OPCODE_MEMORY32) && bytes > 4)
        return 4;
    return flags & OPCODE_PAIR ? 2 * bytes : bytes;
}

static void set_sizes(struct reading *in)
{
    static const uint8_t address_bytes[3][2] = {{2, 4}, {4, 2}, {8, 4}};
    struct insn *out = in->out;

    out->bytes = operand_bytes(in);
    out->memory.bytes = memory_bytes(in->opcode.flags, out->bytes);
    out->address_bytes = address_bytes[out->mode][in->address_size];
}

/* ---- Operands ------------------------------------------------------------------------------ */

/* SDM Vol. 2, table 2-1 "16-bit addressing forms with the ModR/M byte". */
static void read_address16(struct reading *in)
{
    static const uint8_t pairs[8][2] = {{INSN_RBX, INSN_RSI},         {INSN_RBX, INSN_RDI},
                                        {INSN_RBP, INSN_RSI},         {INSN_RBP, INSN_RDI},
                                        {INSN_RSI, INSN_NO_REGISTER}, {INSN_RDI, INSN_NO_REGISTER},
                                        {INSN_RBP, INSN_NO_REGISTER}, {INSN_RBX, INSN_NO_REGISTER}};
    struct insn_memory *memory = &in->out->memory;
    bool alone = in->mod == 0 && in->rm == 6;

    memory->base = alone ? INSN_NO_REGISTER : pairs[in->rm][0];
    memory->index = alone ? INSN_NO_REGISTER : pairs[in->rm][1];
    if (alone || in->mod != 0)
        memory->displacement = next_number(in, in->mod == 1 ? 1 : 2);
}

/* SDM Vol. 2, table 2-3 "32-bit addressing forms with the SIB byte". Returns SIB.base. */
static uint8_t read_sib(struct reading *in)
{
    struct insn_memory *memory = &in->out->memory;
    uint8_t byte = next_byte(in);
    uint8_t index = (byte >> 3 & 7) | (in->rex & REX_X ? 8 : 0);

    memory->scale = (uint8_t)(1u << (byte >> 6));
    memory->index = index == INSN_RSP ? INSN_NO_REGISTER : index;
    return byte & 7;
}

/* SDM Vol. 2, table 2-2; with REX, 2.2.1.2 "More on REX prefix fields"; 2.2.1.6 "RIP-relative
 * addressing". That a base of 5 without displacement means none is decided before REX.B. */
static void read_address(struct reading *in)
{
    struct insn_memory *memory = &in->out->memory;
    bool sib = in->rm == 4;
    uint8_t base = sib ? read_sib(in) : in->rm;
    bool alone = in->mod == 0 && base == 5;

    if (!alone)
        memory->base = base | (in->rex & REX_B ? 8 : 0);
    else if (!sib && in->out->mode == INSN_CODE64)
        memory->base = INSN_RIP;
    if (alone || in->mod != 0)
        memory->displacement = next_number(in, in->mod == 1 ? 1 : 4);
}

/* Where ModRM, an offset or a string says that memory is. */
static void read_memory(struct reading *in)
{
    struct insn_memory *memory = &in->out->memory;
    uint32_t flags = in->opcode.flags;

    memory->base = INSN_NO_REGISTER;
    memory->index = INSN_NO_REGISTER;
    memory->scale = 1;
    memory->segment = INSN_DS;
    if (flags & OPCODE_STRING)
        memory->base = flags & OPCODE_SOURCE_RSI ? INSN_RSI : INSN_RDI;
    else if (flags & OPCODE_OFFSET)
        memory->displacement = next_number(in, in->out->address_bytes);
    else if (in->mod == 3)
        return;
    else if (in->out->address_bytes == 2)
        read_address16(in);
    else
        read_address(in);
    if (memory->base == INSN_RSP || memory->base == INSN_RBP)
        memory->segment = INSN_SS;
    if (in->segment != NO_OVERRIDE)
        memory->segment = in->segment;
    if ((flags & OPCODE_STRING) && !(flags & OPCODE_SOURCE_RSI))
        memory->segment = INSN_ES; /* which no prefix overrides */
}

static void read_register(struct reading *in)
{
    struct insn *out = in->out;
    bool high = out->bytes == 1 && !in->rex && in->reg >= 4;

    out->source = INSN_REGISTER;
    out->reg = high ? in->reg - 4 : in->reg | (in->rex & REX_R ? 8 : 0);
    out->reg_high = high;
}

/* The register, the immediate, the count. */
static void read_others(struct reading *in)
{
    struct insn *out = in->out;
    uint32_t flags = in->opcode.flags;

    out->to_register = (flags & OPCODE_TO_REG) != 0;
    if (flags & OPCODE_REG)
        read_register(in);
    else if (flags & OPCODE_OFFSET)
        out->source = INSN_REGISTER; /* RAX is 0 */
    else if (flags & (OPCODE_IMMEDIATE | OPCODE_IMMEDIATE8))
        out->source = INSN_IMMEDIATE;

    if (flags & OPCODE_IMMEDIATE)
        out->immediate = (uint64_t)next_number(in, out->bytes < 4 ? out->bytes : 4);
    if (flags & OPCODE_IMMEDIATE8)
        out->immediate = (uint64_t)next_number(in, 1);
    if (flags & OPCODE_COUNT8)
        out->immediate = next_byte(in);
    if (flags & OPCODE_COUNT_1)
        out->immediate = 1;
    if (flags & (OPCODE_COUNT8 | OPCODE_COUNT_1))
        out->count = INSN_IMMEDIATE;
    if (flags & OPCODE_COUNT_CL)
        out->count = INSN_CL;
}

/* ---- The whole ----------------------------------------------------------------------------- */

static void set_operation(struct reading *in)
{
    struct insn *out = in->out;

    out->op = in->opcode.op;
    out->lock = in->lock;
    if (out->op == INSN_CMOVCC || out->op == INSN_SETCC)
        out->condition = in->opcode_byte & 15;
    /* SDM Vol. 2, "REP": with MOVS, STOS and LODS, F2 does what F3 does. */
    if (insn_is_string(out) && in->repeat) {
        bool compares = out->op == INSN_CMPS || out->op == INSN_SCAS;
        out->repeat = compares && in->repeat == 0xf2 ? INSN_REPNE : INSN_REP;
    }
}

enum insn_verdict insn_decode(const uint8_t *bytes, size_t count, enum insn_mode mode,
                              struct insn *out)
{
    struct reading in = {.bytes = bytes,
                         .count = count < INSN_LONGEST ? count : INSN_LONGEST,
                         .segment = NO_OVERRIDE,
                         .out = out};

    memset(out, 0, sizeof(*out));
    out->mode = mode;
    if (!read_opcode(&in))
        return in.verdict;
    set_sizes(&in);
    set_operation(&in);
    read_memory(&in);
    read_others(&in);
    out->length = (uint8_t)in.at;
    if (in.verdict != INSN_DECODED)
        return in.verdict;
    bool registers = has_modrm(&in) && in.mod == 3;
    if (in.lock && (registers || !(in.opcode.flags & OPCODE_LOCK)))
        return INSN_LOCK;
    return registers ? INSN_REGISTER_FORM : INSN_DECODED;
}
