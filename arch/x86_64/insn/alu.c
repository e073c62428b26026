/* See alu.h. */
#include "arch/x86_64/insn/alu.h"

#include "lib/bits.h"
#include "x86/control.h"

#define RFLAGS_OF_RESULT (RFLAGS_SF | RFLAGS_ZF | RFLAGS_PF)
#define RFLAGS_STATUS (RFLAGS_OF_RESULT | RFLAGS_CF | RFLAGS_AF | RFLAGS_OF)

uint64_t alu_mask(unsigned bytes)
{
    return bytes == 8 ? UINT64_MAX : BITS(8 * bytes - 1, 0);
}

static bool bit_of(uint64_t value, unsigned n)
{
    return value >> n & 1;
}

static bool sign_of(uint64_t value, unsigned bytes)
{
    return bit_of(value, 8 * bytes - 1);
}

static void set_flag(uint64_t *rflags, uint64_t flag, bool value)
{
    *rflags = value ? *rflags | flag : *rflags & ~flag;
}

/* SF, ZF and PF, which is of the lowest byte alone. */
static void flags_of_result(uint64_t *rflags, unsigned bytes, uint64_t result)
{
    set_flag(rflags, RFLAGS_SF, sign_of(result, bytes));
    set_flag(rflags, RFLAGS_ZF, result == 0);
    set_flag(rflags, RFLAGS_PF, __builtin_popcount(result & 0xff) % 2 == 0);
}

/* ---- Arithmetic and logic ------------------------------------------------------------------ */

static uint64_t add(unsigned bytes, uint64_t a, uint64_t b, bool carry, uint64_t *rflags)
{
    uint64_t r = (a + b + carry) & alu_mask(bytes);

    /* Out of the top goes a carry where both had a bit, or one had and the sum lost it. */
    set_flag(rflags, RFLAGS_CF, sign_of((a & b) | ((a | b) & ~r), bytes));
    set_flag(rflags, RFLAGS_OF, sign_of((a ^ r) & (b ^ r), bytes));
    set_flag(rflags, RFLAGS_AF, bit_of(a ^ b ^ r, 4));
    flags_of_result(rflags, bytes, r);
    return r;
}

static uint64_t subtract(unsigned bytes, uint64_t a, uint64_t b, bool borrow, uint64_t *rflags)
{
    uint64_t r = (a - b - borrow) & alu_mask(bytes);

    set_flag(rflags, RFLAGS_CF, sign_of((~a & b) | ((~a | b) & r), bytes));
    set_flag(rflags, RFLAGS_OF, sign_of((a ^ b) & (a ^ r), bytes));
    set_flag(rflags, RFLAGS_AF, bit_of(a ^ b ^ r, 4));
    flags_of_result(rflags, bytes, r);
    return r;
}

static uint64_t logic(unsigned bytes, uint64_t r, uint64_t *rflags)
{
    *rflags &= ~RFLAGS_STATUS;
    flags_of_result(rflags, bytes, r);
    return r;
}

uint64_t alu_binary(enum insn_op op, unsigned bytes, uint64_t a, uint64_t b, uint64_t *rflags)
{
    bool carry = (*rflags & RFLAGS_CF) != 0;

    switch (op) {
    case INSN_ADD:
        return add(bytes, a, b, false, rflags);
    case INSN_ADC:
        return add(bytes, a, b, carry, rflags);
    case INSN_SBB:
        return subtract(bytes, a, b, carry, rflags);
    case INSN_OR:
        return logic(bytes, a | b, rflags);
    case INSN_XOR:
        return logic(bytes, a ^ b, rflags);
    case INSN_AND:
    case INSN_TEST:
        return logic(bytes, a & b, rflags);
    default: /* SUB, CMP */
        return subtract(bytes, a, b, false, rflags);
    }
}

uint64_t alu_unary(enum insn_op op, unsigned bytes, uint64_t a, uint64_t *rflags)
{
    bool carry = (*rflags & RFLAGS_CF) != 0;
    uint64_t r;

    if (op == INSN_NOT)
        return ~a & alu_mask(bytes);
    if (op == INSN_NEG)
        return subtract(bytes, 0, a, false, rflags);
    r = op == INSN_INC ? add(bytes, a, 1, false, rflags) : subtract(bytes, a, 1, false, rflags);
    set_flag(rflags, RFLAGS_CF, carry);
    return r;
}

/* ---- Shifts and rotates -------------------------------------------------------------------- */

/* CF is the last bit that went out; a count at or beyond the size leaves it undefined but for SAR.
 */
static uint64_t shift(enum insn_op op, unsigned bytes, uint64_t a, unsigned count, uint64_t *rflags)
{
    unsigned size = 8 * bytes;
    int64_t wide = sign_extend(a, size);
    uint64_t r;
    bool out;

    if (op == INSN_SHL) {
        r = a << count & alu_mask(bytes);
        out = count <= size && bit_of(a, size - count);
        set_flag(rflags, RFLAGS_OF, sign_of(r, bytes) != out);
    } else if (op == INSN_SHR) {
        r = a >> count;
        out = bit_of(a, count - 1);
        set_flag(rflags, RFLAGS_OF, sign_of(a, bytes));
    } else {
        r = (uint64_t)(wide >> count) & alu_mask(bytes);
        out = wide >> (count - 1) & 1;
        set_flag(rflags, RFLAGS_OF, false);
    }
    set_flag(rflags, RFLAGS_CF, out);
    flags_of_result(rflags, bytes, r);
    return r;
}

/* One step at a time; RCL and RCR take CF in as one bit more. Only CF and OF change. */
static uint64_t rotate(enum insn_op op, unsigned bytes, uint64_t a, unsigned count,
                       uint64_t *rflags)
{
    bool left = op == INSN_ROL || op == INSN_RCL;
    bool carry = (*rflags & RFLAGS_CF) != 0;
    unsigned top = 8 * bytes - 1;

    for (; count; count--) {
        bool out = bit_of(a, left ? top : 0);
        bool in = op == INSN_RCL || op == INSN_RCR ? carry : out;

        a = left ? (a << 1 & alu_mask(bytes)) | in : a >> 1 | (uint64_t)in << top;
        carry = out;
    }
    set_flag(rflags, RFLAGS_CF, carry);
    set_flag(rflags, RFLAGS_OF, bit_of(a, top) != (left ? carry : bit_of(a, top - 1)));
    return a;
}

uint64_t alu_shift(enum insn_op op, unsigned bytes, uint64_t a, unsigned count, uint64_t *rflags)
{
    count &= bytes == 8 ? 63 : 31;
    if (count == 0)
        return a;
    if (op >= INSN_SHL)
        return shift(op, bytes, a, count, rflags);
    return rotate(op, bytes, a, count, rflags);
}

/* By more than the size, which 2 bytes allow, the manual leaves all undefined; here b comes again.
 */
uint64_t alu_double_shift(enum insn_op op, unsigned bytes, uint64_t a, uint64_t b, unsigned count,
                          uint64_t *rflags)
{
    unsigned top = 8 * bytes - 1;
    bool sign = bit_of(a, top), out = false;

    count &= bytes == 8 ? 63 : 31;
    if (count == 0)
        return a;
    for (; count; count--) {
        bool in = bit_of(b, op == INSN_SHLD ? top : 0);

        out = bit_of(a, op == INSN_SHLD ? top : 0);
        if (op == INSN_SHLD) {
            a = (a << 1 & alu_mask(bytes)) | in;
            b = (b << 1 & alu_mask(bytes)) | in;
        } else {
            a = a >> 1 | (uint64_t)in << top;
            b = b >> 1 | (uint64_t)in << top;
        }
    }
    set_flag(rflags, RFLAGS_CF, out);
    set_flag(rflags, RFLAGS_OF, bit_of(a, top) != sign);
    flags_of_result(rflags, bytes, a);
    return a;
}

/* ---- Bits and conditions ------------------------------------------------------------------- */

uint64_t alu_bit(enum insn_op op, unsigned bytes, uint64_t a, uint64_t number, uint64_t *rflags)
{
    uint64_t bit = BIT(number & (8 * bytes - 1));

    set_flag(rflags, RFLAGS_CF, (a & bit) != 0);
    switch (op) {
    case INSN_BTS:
        return a | bit;
    case INSN_BTR:
        return a & ~bit;
    case INSN_BTC:
        return a ^ bit;
    default: /* BT */
        return a;
    }
}

bool alu_condition(unsigned condition, uint64_t rflags)
{
    bool less = !(rflags & RFLAGS_SF) != !(rflags & RFLAGS_OF);
    bool met = false;

    switch (condition >> 1) {
    case 0: /* O */
        met = rflags & RFLAGS_OF;
        break;
    case 1: /* B */
        met = rflags & RFLAGS_CF;
        break;
    case 2: /* Z */
        met = rflags & RFLAGS_ZF;
        break;
    case 3: /* BE */
        met = rflags & (RFLAGS_CF | RFLAGS_ZF);
        break;
    case 4: /* S */
        met = rflags & RFLAGS_SF;
        break;
    case 5: /* P */
        met = rflags & RFLAGS_PF;
        break;
    case 6: /* L */
        met = less;
        break;
    case 7: /* LE */
        met = less || (rflags & RFLAGS_ZF);
        break;
    }
    return met != (condition & 1);
}
