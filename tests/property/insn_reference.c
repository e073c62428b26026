/* See insn_reference.h. */
#include "tests/property/insn_reference.h"

#include <string.h>

#include <Zydis/Zydis.h>

#include "lib/bits.h"

static ZydisDecoder decoders[3];
static uint8_t op_of[ZYDIS_MNEMONIC_MAX_VALUE + 1], condition_of[ZYDIS_MNEMONIC_MAX_VALUE + 1];

#define CONDITIONS(prefix)                                                                         \
    {                                                                                              \
        ZYDIS_MNEMONIC_##prefix##O, ZYDIS_MNEMONIC_##prefix##NO, ZYDIS_MNEMONIC_##prefix##B,       \
            ZYDIS_MNEMONIC_##prefix##NB, ZYDIS_MNEMONIC_##prefix##Z, ZYDIS_MNEMONIC_##prefix##NZ,  \
            ZYDIS_MNEMONIC_##prefix##BE, ZYDIS_MNEMONIC_##prefix##NBE, ZYDIS_MNEMONIC_##prefix##S, \
            ZYDIS_MNEMONIC_##prefix##NS, ZYDIS_MNEMONIC_##prefix##P, ZYDIS_MNEMONIC_##prefix##NP,  \
            ZYDIS_MNEMONIC_##prefix##L, ZYDIS_MNEMONIC_##prefix##NL, ZYDIS_MNEMONIC_##prefix##LE,  \
            ZYDIS_MNEMONIC_##prefix##NLE                                                           \
    }

static const uint16_t sets[16] = CONDITIONS(SET), moves[16] = CONDITIONS(CMOV);

#define M(name) ZYDIS_MNEMONIC_##name
static const struct {
    uint16_t mnemonic;
    uint8_t op;
} operations[] = {
    {M(ADD), INSN_ADD},       {M(OR), INSN_OR},           {M(ADC), INSN_ADC},
    {M(SBB), INSN_SBB},       {M(AND), INSN_AND},         {M(SUB), INSN_SUB},
    {M(XOR), INSN_XOR},       {M(CMP), INSN_CMP},         {M(TEST), INSN_TEST},
    {M(INC), INSN_INC},       {M(DEC), INSN_DEC},         {M(NOT), INSN_NOT},
    {M(NEG), INSN_NEG},       {M(ROL), INSN_ROL},         {M(ROR), INSN_ROR},
    {M(RCL), INSN_RCL},       {M(RCR), INSN_RCR},         {M(SHL), INSN_SHL},
    {M(SHR), INSN_SHR},       {M(SAR), INSN_SAR},         {M(SHLD), INSN_SHLD},
    {M(SHRD), INSN_SHRD},     {M(BT), INSN_BT},           {M(BTS), INSN_BTS},
    {M(BTR), INSN_BTR},       {M(BTC), INSN_BTC},         {M(MOV), INSN_MOV},
    {M(MOVNTI), INSN_MOVNTI}, {M(MOVBE), INSN_MOVBE},     {M(MOVZX), INSN_MOVZX},
    {M(MOVSX), INSN_MOVSX},   {M(MOVSXD), INSN_MOVSX},    {M(XCHG), INSN_XCHG},
    {M(XADD), INSN_XADD},     {M(CMPXCHG), INSN_CMPXCHG}, {M(CMPXCHG8B), INSN_CMPXCHG8B},
    {M(PUSH), INSN_PUSH},     {M(POP), INSN_POP},         {M(CMPXCHG16B), INSN_CMPXCHG8B},
    {M(CALL), INSN_CALL},     {M(JMP), INSN_JMP},         {M(MOVSB), INSN_MOVS},
    {M(MOVSW), INSN_MOVS},    {M(MOVSD), INSN_MOVS},      {M(MOVSQ), INSN_MOVS},
    {M(CMPSB), INSN_CMPS},    {M(CMPSW), INSN_CMPS},      {M(CMPSD), INSN_CMPS},
    {M(CMPSQ), INSN_CMPS},    {M(STOSB), INSN_STOS},      {M(STOSW), INSN_STOS},
    {M(STOSD), INSN_STOS},    {M(STOSQ), INSN_STOS},      {M(LODSB), INSN_LODS},
    {M(LODSW), INSN_LODS},    {M(LODSD), INSN_LODS},      {M(LODSQ), INSN_LODS},
    {M(SCASB), INSN_SCAS},    {M(SCASW), INSN_SCAS},      {M(SCASD), INSN_SCAS},
    {M(SCASQ), INSN_SCAS},
};

void reference_start(void)
{
    ZydisDecoderInit(&decoders[INSN_CODE16], ZYDIS_MACHINE_MODE_LEGACY_16, ZYDIS_STACK_WIDTH_16);
    ZydisDecoderInit(&decoders[INSN_CODE32], ZYDIS_MACHINE_MODE_LEGACY_32, ZYDIS_STACK_WIDTH_32);
    ZydisDecoderInit(&decoders[INSN_CODE64], ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64);
    /* Without CET, whose notrack prefix is the override of DS. */
    for (unsigned i = 0; i < 3; i++)
        ZydisDecoderEnableMode(&decoders[i], ZYDIS_DECODER_MODE_CET, ZYAN_FALSE);
    for (size_t i = 0; i < ARRAY_SIZE(operations); i++)
        op_of[operations[i].mnemonic] = operations[i].op;
    for (unsigned i = 0; i < 16; i++) {
        op_of[sets[i]] = INSN_SETCC;
        op_of[moves[i]] = INSN_CMOVCC;
        condition_of[sets[i]] = condition_of[moves[i]] = (uint8_t)i;
    }
}

/* ---- Which operation, and whether it has to be known ----------------------------------------- */

static bool in_class(ZydisRegister reg, ZydisRegisterClass class)
{
    return ZydisRegisterGetClass(reg) == class;
}

/* MOV from and to segment registers, and far jumps, are not among the forms. */
static bool is_other(const ZydisDecodedInstruction *i, const ZydisDecodedOperand *operand)
{
    bool string = i->meta.category == ZYDIS_CATEGORY_STRINGOP;

    if (i->encoding != ZYDIS_INSTRUCTION_ENCODING_LEGACY || !op_of[i->mnemonic])
        return true;
    if (string != (op_of[i->mnemonic] >= INSN_MOVS) || i->meta.branch_type == ZYDIS_BRANCH_TYPE_FAR)
        return true;
    for (unsigned n = 0; n < i->operand_count_visible; n++)
        if (operand[n].type == ZYDIS_OPERAND_TYPE_REGISTER &&
            !in_class(operand[n].reg.value, ZYDIS_REGCLASS_GPR8) &&
            !in_class(operand[n].reg.value, ZYDIS_REGCLASS_GPR16) &&
            !in_class(operand[n].reg.value, ZYDIS_REGCLASS_GPR32) &&
            !in_class(operand[n].reg.value, ZYDIS_REGCLASS_GPR64))
            return true;
    return false;
}

/* The operand in memory that counts: the one that is named; of strings the one at RSI, if any. */
static const ZydisDecodedOperand *memory_operand(const ZydisDecodedInstruction *i,
                                                 const ZydisDecodedOperand *operand)
{
    const ZydisDecodedOperand *found = NULL;
    bool string = op_of[i->mnemonic] >= INSN_MOVS;
    unsigned count = string ? i->operand_count : i->operand_count_visible;

    for (unsigned n = 0; n < count; n++) {
        if (operand[n].type != ZYDIS_OPERAND_TYPE_MEMORY)
            continue;
        if (!found || ZydisRegisterGetId(operand[n].mem.base) == INSN_RSI)
            found = &operand[n];
    }
    return found;
}

/* ---- Its parts ------------------------------------------------------------------------------- */

static uint8_t number_of(ZydisRegister reg)
{
    if (reg == ZYDIS_REGISTER_NONE)
        return INSN_NO_REGISTER;
    if (reg == ZYDIS_REGISTER_RIP || reg == ZYDIS_REGISTER_EIP)
        return INSN_RIP;
    return (uint8_t)ZydisRegisterGetId(reg);
}

static void take_memory(const ZydisDecodedOperand *operand, struct insn_memory *out)
{
    out->segment = (enum insn_segment)(operand->mem.segment - ZYDIS_REGISTER_ES);
    out->bytes = (uint8_t)(operand->size / 8);
    out->base = number_of(operand->mem.base);
    out->index = number_of(operand->mem.index);
    out->scale = operand->mem.scale;
    out->displacement = operand->mem.disp.has_displacement ? operand->mem.disp.value : 0;
}

/* AL .. BH, then SPL .. R15B: the first eight are the registers of encodings 0 .. 7 without REX. */
static void take_register(const ZydisDecodedOperand *operand, struct insn *out)
{
    ZydisRegister reg = operand->reg.value;

    out->source = INSN_REGISTER;
    out->reg_high = reg >= ZYDIS_REGISTER_AH && reg <= ZYDIS_REGISTER_BH;
    if (reg >= ZYDIS_REGISTER_AL && reg <= ZYDIS_REGISTER_BH)
        out->reg = (uint8_t)(reg - ZYDIS_REGISTER_AL) % 4;
    else if (reg >= ZYDIS_REGISTER_SPL && reg <= ZYDIS_REGISTER_R15B)
        out->reg = (uint8_t)(reg - ZYDIS_REGISTER_SPL) + 4;
    else
        out->reg = number_of(reg);
}

static bool is_shift(enum insn_op op)
{
    return op >= INSN_ROL && op <= INSN_SHRD;
}

static void take_others(const ZydisDecodedInstruction *i, const ZydisDecodedOperand *operand,
                        struct insn *out)
{
    for (unsigned n = 0; n < i->operand_count_visible; n++) {
        bool last = n + 1 == i->operand_count_visible;

        if (operand[n].type == ZYDIS_OPERAND_TYPE_IMMEDIATE) {
            out->immediate = operand[n].imm.value.u;
            if (out->op >= INSN_ROL && out->op <= INSN_BTC)
                out->count = INSN_IMMEDIATE;
            else
                out->source = INSN_IMMEDIATE;
        } else if (operand[n].type == ZYDIS_OPERAND_TYPE_REGISTER) {
            if (is_shift(out->op) && last)
                out->count = INSN_CL;
            else
                take_register(&operand[n], out);
            out->to_register |= n == 0;
        }
    }
}

static uint8_t operand_bytes(const ZydisDecodedOperand *operand, const struct insn *out)
{
    if (out->op == INSN_CMPXCHG8B)
        return out->memory.bytes / 2;
    if (operand[0].type == ZYDIS_OPERAND_TYPE_REGISTER && !insn_is_string(out))
        return (uint8_t)(operand[0].size / 8);
    return out->memory.bytes;
}

/* With strings that compare nothing, REPNE does what REP does (SDM Vol. 2, "REP"). */
static enum insn_repeat repeat_of(const ZydisDecodedInstruction *i, enum insn_op op)
{
    if ((i->attributes & ZYDIS_ATTRIB_HAS_REPNE) && op != INSN_CMPS && op != INSN_SCAS)
        return INSN_REP;
    if (i->attributes & (ZYDIS_ATTRIB_HAS_REP | ZYDIS_ATTRIB_HAS_REPE))
        return INSN_REP;
    return i->attributes & ZYDIS_ATTRIB_HAS_REPNE ? INSN_REPNE : INSN_ONCE;
}

void reference_decode(const uint8_t *bytes, size_t count, enum insn_mode mode,
                      struct reference *out)
{
    ZydisDecodedInstruction i;
    ZydisDecodedOperand operand[ZYDIS_MAX_OPERAND_COUNT];

    memset(out, 0, sizeof(*out));
    if (!ZYAN_SUCCESS(ZydisDecoderDecodeFull(&decoders[mode], bytes, count, &i, operand)))
        return;
    out->class = REFERENCE_OTHER;
    if (is_other(&i, operand))
        return;
    const ZydisDecodedOperand *memory = memory_operand(&i, operand);

    out->class = memory ? REFERENCE_MEMORY : REFERENCE_REGISTERS;
    out->insn.op = op_of[i.mnemonic];
    out->insn.length = i.length;
    if (!memory)
        return;
    out->insn.condition = condition_of[i.mnemonic];
    out->insn.address_bytes = i.address_width / 8;
    out->insn.lock = (i.attributes & ZYDIS_ATTRIB_HAS_LOCK) != 0;
    out->insn.repeat = repeat_of(&i, out->insn.op);
    take_memory(memory, &out->insn.memory);
    /* A SIB without base has none with REX.B either (SDM Vol. 2, table 2-5); where addresses have 4
     * bytes in 64-bit mode, Zydis 4.0 makes R13D of it. test_insn_execute asks the CPU. */
    if (mode == INSN_CODE64 && i.raw.sib.offset && i.raw.modrm.mod == 0 && i.raw.sib.base == 5) {
        out->insn.memory.base = INSN_NO_REGISTER;
        out->insn.memory.displacement = i.raw.disp.value;
    }
    /* "63 /r MOVSXD r16, r/m16", says the manual, and so does the CPU; Zydis 4.0 has 4 bytes. */
    if (i.mnemonic == ZYDIS_MNEMONIC_MOVSXD && i.operand_width == 16)
        out->insn.memory.bytes = 2;
    if (!insn_is_string(&out->insn))
        take_others(&i, operand, &out->insn);
    out->insn.bytes = operand_bytes(operand, &out->insn);
}

const char *reference_text(const uint8_t *bytes, size_t count, enum insn_mode mode)
{
    static const ZydisMachineMode modes[] = {
        ZYDIS_MACHINE_MODE_LEGACY_16, ZYDIS_MACHINE_MODE_LEGACY_32, ZYDIS_MACHINE_MODE_LONG_64};
    static ZydisDisassembledInstruction text;

    if (!ZYAN_SUCCESS(ZydisDisassembleIntel(modes[mode], 0, bytes, count, &text)))
        return "no instruction";
    return text.text;
}

/* ---- Comparison ------------------------------------------------------------------------------ */

static uint64_t low_bytes(unsigned bytes)
{
    return bytes >= 8 ? UINT64_MAX : BITS(8 * bytes - 1, 0);
}

static const char *memory_difference(const struct insn *a, const struct insn *b)
{
    const struct insn_memory *x = &a->memory, *y = &b->memory;

    if (x->segment != y->segment)
        return "segment";
    if (x->bytes != y->bytes)
        return "size of the memory operand";
    if (x->base != y->base || x->index != y->index)
        return "base or index";
    if (x->index != INSN_NO_REGISTER && x->scale != y->scale)
        return "scale";
    if (((uint64_t)x->displacement ^ (uint64_t)y->displacement) & low_bytes(a->address_bytes))
        return "displacement";
    return NULL;
}

const char *reference_difference(const struct insn *a, const struct insn *b)
{
    if (a->op != b->op || a->condition != b->condition)
        return "operation";
    if (a->length != b->length)
        return "length";
    if (a->bytes != b->bytes)
        return "operand size";
    if (a->address_bytes != b->address_bytes)
        return "address size";
    if (a->lock != b->lock || a->repeat != b->repeat)
        return "LOCK or REP";
    if (a->source != b->source || a->to_register != b->to_register)
        return "direction";
    if (a->source == INSN_REGISTER && (a->reg != b->reg || a->reg_high != b->reg_high))
        return "register";
    if (a->count != b->count)
        return "count";
    if ((a->immediate ^ b->immediate) & low_bytes(a->bytes))
        return "immediate";
    return memory_difference(a, b);
}
