/* See execute.h: where instructions reach, and the order of reading, computing and writing. */
#include "arch/x86_64/insn/execute.h"

#include "arch/x86_64/insn/alu.h"
#include "arch/x86_64/insn/compute.h"
#include "lib/bits.h"

/* ---- Offsets ------------------------------------------------------------------------------- */

/* A register that numbers a bit is signed and reaches beyond the operand (SDM Vol. 1, 3.7.5, and
 * Vol. 2, "BT": Bit(BitBase, BitOffset)): so many operands on, or back. */
static uint64_t bit_offset(const struct insn *insn, const struct insn_state *state)
{
    unsigned size = 8 * insn->bytes;
    int64_t wide = sign_extend(insn_register(state, insn->reg, insn->bytes), size);

    return (uint64_t)(wide >> lowest_bit(size)) * insn->bytes;
}

static uint64_t base_of(const struct insn *insn, const struct insn_state *state)
{
    switch (insn->memory.base) {
    case INSN_NO_REGISTER:
        return 0;
    case INSN_RIP:
        return state->rip + insn->length;
    case INSN_RSP:
        /* POP computes where to after it has moved RSP (SDM Vol. 2, "POP"). */
        if (insn->op == INSN_POP)
            return insn_moved_stack(state, insn->bytes);
    }
    return state->gpr[insn->memory.base];
}

uint64_t insn_offset(const struct insn *insn, const struct insn_state *state)
{
    const struct insn_memory *memory = &insn->memory;
    uint64_t offset = base_of(insn, state) + (uint64_t)memory->displacement;

    if (memory->index != INSN_NO_REGISTER)
        offset += state->gpr[memory->index] * memory->scale;
    if (insn->op >= INSN_BT && insn->op <= INSN_BTC && insn->source == INSN_REGISTER)
        offset += bit_offset(insn, state);
    return offset & alu_mask(insn->address_bytes);
}

/* ---- Places -------------------------------------------------------------------------------- */

static uint8_t access_of(const struct insn *insn)
{
    switch (insn->op) {
    case INSN_CMP:
    case INSN_TEST:
    case INSN_BT:
    case INSN_PUSH:
    case INSN_CALL:
    case INSN_JMP:
    case INSN_MOVS:
    case INSN_CMPS:
    case INSN_LODS:
    case INSN_SCAS:
        return INSN_READ;
    case INSN_MOV:
    case INSN_MOVNTI:
    case INSN_MOVBE:
        return insn->to_register ? INSN_READ : INSN_WRITE;
    case INSN_SETCC:
    case INSN_POP:
    case INSN_STOS:
        return INSN_WRITE;
    default:
        return insn->to_register ? INSN_READ : INSN_READ | INSN_WRITE;
    }
}

static struct insn_place memory_place(const struct insn *insn, const struct insn_state *state)
{
    return (struct insn_place){
        .segment = insn->memory.segment,
        .bytes = insn->memory.bytes,
        .address_bytes = insn->address_bytes,
        .access = access_of(insn),
        .aligned = insn->memory.bytes == 16,
        .offset = insn_offset(insn, state),
    };
}

static struct insn_place stack_place(const struct insn *insn, const struct insn_state *state)
{
    bool pops = insn->op == INSN_POP;
    uint64_t at = pops ? state->gpr[INSN_RSP] : insn_moved_stack(state, -(int64_t)insn->bytes);

    return (struct insn_place){
        .segment = INSN_SS,
        .bytes = insn->bytes,
        .address_bytes = state->stack_bytes,
        .access = pops ? INSN_READ : INSN_WRITE,
        .offset = at & alu_mask(state->stack_bytes),
    };
}

/* The second operand of MOVS and CMPS. */
static struct insn_place second_string(const struct insn *insn, const struct insn_state *state)
{
    return (struct insn_place){
        .segment = INSN_ES,
        .bytes = insn->bytes,
        .address_bytes = insn->address_bytes,
        .access = insn->op == INSN_MOVS ? INSN_WRITE : INSN_READ,
        .offset = insn_register(state, INSN_RDI, insn->address_bytes),
    };
}

unsigned insn_places(const struct insn *insn, const struct insn_state *state,
                     struct insn_place place[INSN_PLACES])
{
    if (insn->repeat != INSN_ONCE && insn_register(state, INSN_RCX, insn->address_bytes) == 0)
        return 0;
    place[0] = memory_place(insn, state);
    switch (insn->op) {
    case INSN_MOVS:
    case INSN_CMPS:
        place[1] = second_string(insn, state);
        return 2;
    case INSN_PUSH:
    case INSN_CALL:
        place[1] = stack_place(insn, state);
        return 2;
    case INSN_POP:
        place[1] = place[0];
        place[0] = stack_place(insn, state);
        return 2;
    default:
        return 1;
    }
}

/* ---- The whole ----------------------------------------------------------------------------- */

int insn_execute(const struct insn *insn, struct insn_state *state, const struct insn_bus *bus)
{
    struct insn_place place[INSN_PLACES];
    struct insn_state next = *state;
    struct insn_step step = {.insn = insn, .state = &next};
    unsigned places = insn_places(insn, state, place);

    for (unsigned i = 0; i < places; i++) {
        if (!(place[i].access & INSN_READ))
            continue;
        int error = bus->read(bus->ctx, &place[i], step.in[i]);
        if (error < 0)
            return error;
        if (place[i].bytes < 8)
            step.in[i][0] &= alu_mask(place[i].bytes);
    }
    enum insn_outcome outcome = insn_compute(&step);
    if (outcome == INSN_PROTECTION)
        return outcome;
    for (unsigned i = 0; i < places; i++) {
        if (!(place[i].access & INSN_WRITE))
            continue;
        int error = bus->write(bus->ctx, &place[i], step.out);
        if (error < 0)
            return error;
    }
    *state = next;
    return outcome;
}
