/* See compute.h. One function for each family, in the order of insn_op; SDM Vol. 2, chapters 3 and
 * 4 have each by its name. */
#include "arch/x86_64/insn/compute.h"

#include "arch/x86_64/insn/alu.h"
#include "lib/bits.h"
#include "x86/control.h"

/* ---- Registers ----------------------------------------------------------------------------- */

uint64_t insn_register(const struct insn_state *state, unsigned number, unsigned bytes)
{
    return state->gpr[number] & alu_mask(bytes);
}

void insn_set_register(struct insn_state *state, unsigned number, unsigned bytes, uint64_t value)
{
    uint64_t kept = bytes < 4 ? state->gpr[number] & ~alu_mask(bytes) : 0;

    state->gpr[number] = kept | (value & alu_mask(bytes));
}

uint64_t insn_moved_stack(const struct insn_state *state, int64_t bytes)
{
    struct insn_state moved = *state;

    insn_set_register(&moved, INSN_RSP, state->stack_bytes, state->gpr[INSN_RSP] + (uint64_t)bytes);
    return moved.gpr[INSN_RSP];
}

/* The register that the instruction names. */
static uint64_t named(const struct insn_step *step)
{
    const struct insn *insn = step->insn;

    if (insn->reg_high)
        return step->state->gpr[insn->reg] >> 8 & 0xff;
    return insn_register(step->state, insn->reg, insn->bytes);
}

static void set_named(struct insn_step *step, uint64_t value)
{
    const struct insn *insn = step->insn;
    uint64_t *whole = &step->state->gpr[insn->reg];

    if (insn->reg_high)
        *whole = (*whole & ~BITS(15, 8)) | (value & 0xff) << 8;
    else
        insn_set_register(step->state, insn->reg, insn->bytes, value);
}

/* What stands beside memory. */
static uint64_t beside(const struct insn_step *step)
{
    if (step->insn->source == INSN_IMMEDIATE)
        return step->insn->immediate & alu_mask(step->insn->bytes);
    return named(step);
}

static unsigned count_of(const struct insn_step *step)
{
    if (step->insn->count == INSN_CL)
        return (unsigned)insn_register(step->state, INSN_RCX, 1);
    return (unsigned)step->insn->immediate;
}

static enum insn_outcome go_on(struct insn_step *step)
{
    uint64_t mask = step->insn->mode == INSN_CODE64 ? UINT64_MAX : UINT32_MAX;

    step->state->rip = (step->state->rip + step->insn->length) & mask;
    return INSN_DONE;
}

/* ---- Arithmetic, shifts, bits -------------------------------------------------------------- */

static enum insn_outcome binary(struct insn_step *step)
{
    const struct insn *insn = step->insn;
    uint64_t memory = step->in[0][0], other = beside(step);
    uint64_t result = insn->to_register
                          ? alu_binary(insn->op, insn->bytes, other, memory, &step->state->rflags)
                          : alu_binary(insn->op, insn->bytes, memory, other, &step->state->rflags);

    if (insn->to_register && insn->op != INSN_CMP)
        set_named(step, result);
    step->out[0] = result;
    return go_on(step);
}

static enum insn_outcome unary(struct insn_step *step)
{
    step->out[0] =
        alu_unary(step->insn->op, step->insn->bytes, step->in[0][0], &step->state->rflags);
    return go_on(step);
}

static enum insn_outcome shift(struct insn_step *step)
{
    step->out[0] = alu_shift(step->insn->op, step->insn->bytes, step->in[0][0], count_of(step),
                             &step->state->rflags);
    return go_on(step);
}

static enum insn_outcome double_shift(struct insn_step *step)
{
    step->out[0] = alu_double_shift(step->insn->op, step->insn->bytes, step->in[0][0], named(step),
                                    count_of(step), &step->state->rflags);
    return go_on(step);
}

static enum insn_outcome bit(struct insn_step *step)
{
    uint64_t number = step->insn->source == INSN_REGISTER ? named(step) : step->insn->immediate;

    step->out[0] =
        alu_bit(step->insn->op, step->insn->bytes, step->in[0][0], number, &step->state->rflags);
    return go_on(step);
}

/* ---- Moves and exchanges ------------------------------------------------------------------- */

static enum insn_outcome move(struct insn_step *step)
{
    if (step->insn->to_register)
        set_named(step, step->in[0][0]);
    else
        step->out[0] = beside(step);
    return go_on(step);
}

static uint64_t swapped(uint64_t value, unsigned bytes)
{
    return __builtin_bswap64(value) >> (64 - 8 * bytes);
}

static enum insn_outcome move_swapped(struct insn_step *step)
{
    if (step->insn->to_register)
        set_named(step, swapped(step->in[0][0], step->insn->bytes));
    else
        step->out[0] = swapped(named(step), step->insn->bytes);
    return go_on(step);
}

static enum insn_outcome move_signed(struct insn_step *step)
{
    set_named(step, (uint64_t)sign_extend(step->in[0][0], 8 * step->insn->memory.bytes));
    return go_on(step);
}

/* Memory is read in any case, and 4 bytes clear what is above them in any case. */
static enum insn_outcome move_if(struct insn_step *step)
{
    bool met = alu_condition(step->insn->condition, step->state->rflags);

    set_named(step, met ? step->in[0][0] : named(step));
    return go_on(step);
}

static enum insn_outcome set_if(struct insn_step *step)
{
    step->out[0] = alu_condition(step->insn->condition, step->state->rflags);
    return go_on(step);
}

static enum insn_outcome exchange(struct insn_step *step)
{
    step->out[0] = named(step);
    set_named(step, step->in[0][0]);
    return go_on(step);
}

static enum insn_outcome exchange_add(struct insn_step *step)
{
    step->out[0] =
        alu_binary(INSN_ADD, step->insn->bytes, step->in[0][0], named(step), &step->state->rflags);
    set_named(step, step->in[0][0]);
    return go_on(step);
}

/* Memory is written in any case, if need be with what it had. */
static enum insn_outcome compare_exchange(struct insn_step *step)
{
    unsigned bytes = step->insn->bytes;
    uint64_t memory = step->in[0][0];

    alu_binary(INSN_CMP, bytes, insn_register(step->state, INSN_RAX, bytes), memory,
               &step->state->rflags);
    if (step->state->rflags & RFLAGS_ZF) {
        step->out[0] = named(step);
    } else {
        insn_set_register(step->state, INSN_RAX, bytes, memory);
        step->out[0] = memory;
    }
    return go_on(step);
}

/* EDX:EAX and ECX:EBX against 8 bytes in one number; RDX:RAX and RCX:RBX against 16 in two. */
static enum insn_outcome compare_exchange_pair(struct insn_step *step)
{
    struct insn_state *state = step->state;
    unsigned half = step->insn->bytes;
    uint64_t low = step->in[0][0] & alu_mask(half);
    uint64_t high = half == 8 ? step->in[0][1] : step->in[0][0] >> 32;

    if (low == insn_register(state, INSN_RAX, half) &&
        high == insn_register(state, INSN_RDX, half)) {
        state->rflags |= RFLAGS_ZF;
        low = insn_register(state, INSN_RBX, half);
        high = insn_register(state, INSN_RCX, half);
    } else {
        state->rflags &= ~RFLAGS_ZF;
        insn_set_register(state, INSN_RAX, half, low);
        insn_set_register(state, INSN_RDX, half, high);
    }
    step->out[0] = half == 8 ? low : low | high << 32;
    step->out[1] = half == 8 ? high : 0;
    return go_on(step);
}

/* ---- Stack and jumps ----------------------------------------------------------------------- */

static enum insn_outcome push(struct insn_step *step)
{
    step->state->gpr[INSN_RSP] = insn_moved_stack(step->state, -(int64_t)step->insn->bytes);
    step->out[0] = step->in[0][0];
    return go_on(step);
}

static enum insn_outcome pop(struct insn_step *step)
{
    step->state->gpr[INSN_RSP] = insn_moved_stack(step->state, step->insn->bytes);
    step->out[0] = step->in[0][0];
    return go_on(step);
}

static bool code_can_be(const struct insn_step *step, uint64_t at)
{
    if (step->insn->mode == INSN_CODE64)
        return (uint64_t)sign_extend(at, 48) == at;
    return at <= step->state->code_limit;
}

static enum insn_outcome jump(struct insn_step *step)
{
    if (!code_can_be(step, step->in[0][0]))
        return INSN_PROTECTION;
    step->state->rip = step->in[0][0];
    return INSN_DONE;
}

static enum insn_outcome call(struct insn_step *step)
{
    push(step);
    step->out[0] = step->state->rip & alu_mask(step->insn->bytes);
    return jump(step);
}

/* ---- Strings ------------------------------------------------------------------------------- */

static void advance(struct insn_step *step, unsigned number)
{
    const struct insn *insn = step->insn;
    uint64_t by = step->state->rflags & RFLAGS_DF ? -(uint64_t)insn->bytes : insn->bytes;

    insn_set_register(step->state, number, insn->address_bytes, step->state->gpr[number] + by);
}

static void string_element(struct insn_step *step)
{
    struct insn_state *state = step->state;
    unsigned bytes = step->insn->bytes;
    uint64_t accumulator = insn_register(state, INSN_RAX, bytes);

    switch (step->insn->op) {
    case INSN_MOVS:
        step->out[0] = step->in[0][0];
        break;
    case INSN_CMPS:
        alu_binary(INSN_CMP, bytes, step->in[0][0], step->in[1][0], &state->rflags);
        break;
    case INSN_STOS:
        step->out[0] = accumulator;
        break;
    case INSN_LODS:
        insn_set_register(state, INSN_RAX, bytes, step->in[0][0]);
        break;
    default: /* SCAS */
        alu_binary(INSN_CMP, bytes, accumulator, step->in[0][0], &state->rflags);
        break;
    }
}

/* SDM Vol. 2, "REP/REPE/REPZ/REPNE/REPNZ": whether another iteration follows. */
static bool repeats(const struct insn_step *step)
{
    const struct insn *insn = step->insn;
    bool compares = insn->op == INSN_CMPS || insn->op == INSN_SCAS;
    bool equal = step->state->rflags & RFLAGS_ZF;

    if (insn_register(step->state, INSN_RCX, insn->address_bytes) == 0)
        return false;
    return !compares || equal == (insn->repeat == INSN_REP);
}

/* A count of 0 leaves all as it is. (For addresses of 4 bytes, the manual does not say whether the
 * upper halves of RCX, RSI and RDI survive that.) */
static enum insn_outcome string(struct insn_step *step)
{
    const struct insn *insn = step->insn;
    uint64_t count = insn_register(step->state, INSN_RCX, insn->address_bytes);

    if (insn->repeat != INSN_ONCE && count == 0)
        return go_on(step);
    string_element(step);
    if (insn->op != INSN_STOS && insn->op != INSN_SCAS)
        advance(step, INSN_RSI);
    if (insn->op != INSN_LODS)
        advance(step, INSN_RDI);
    if (insn->repeat == INSN_ONCE)
        return go_on(step);
    insn_set_register(step->state, INSN_RCX, insn->address_bytes, count - 1);
    return repeats(step) ? INSN_REPEATS : go_on(step);
}

/* ---- By operation -------------------------------------------------------------------------- */

typedef enum insn_outcome compute(struct insn_step *step);

static compute *const by_op[INSN_OPS] = {
    [INSN_ADD... INSN_TEST] = binary,
    [INSN_INC... INSN_NEG] = unary,
    [INSN_ROL... INSN_SAR] = shift,
    [INSN_SHLD] = double_shift,
    [INSN_SHRD] = double_shift,
    [INSN_BT... INSN_BTC] = bit,
    [INSN_MOV] = move,
    [INSN_MOVNTI] = move,
    [INSN_MOVBE] = move_swapped,
    [INSN_MOVZX] = move,
    [INSN_MOVSX] = move_signed,
    [INSN_CMOVCC] = move_if,
    [INSN_SETCC] = set_if,
    [INSN_XCHG] = exchange,
    [INSN_XADD] = exchange_add,
    [INSN_CMPXCHG] = compare_exchange,
    [INSN_CMPXCHG8B] = compare_exchange_pair,
    [INSN_PUSH] = push,
    [INSN_POP] = pop,
    [INSN_CALL] = call,
    [INSN_JMP] = jump,
    [INSN_MOVS... INSN_SCAS] = string,
};

enum insn_outcome insn_compute(struct insn_step *step)
{
    return by_op[step->insn->op](step);
}
