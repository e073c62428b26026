/*
 * Instructions of any bytes, in any mode, on any registers, with memory that refuses at will. They
 * come out the same from no more bytes than they have; not at all from fewer; what is refused
 * changes nothing; each execution reads before it writes, where it said it would, and writes once.
 *
 * Input: how (a byte), the sum of what refuses (a byte), the instruction (15 bytes), flags (8
 * bytes), registers (8 bytes each); what is missing is 0.
 */
#include "arch/x86_64/insn/execute.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/bits.h"
#include "x86/control.h"

#define must(condition)                                                                            \
    ((condition) ? (void)0                                                                         \
                 : (fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition), abort()))

#define REFUSED (-7)
#define ITERATIONS 8

/* What one execution does to memory. */
struct world {
    struct insn_place place[INSN_PLACES];
    unsigned places, reads, writes;
    unsigned refuse; /* the access, counted from 1, that is refused */
    uint64_t memory;
};

static bool is_same(const struct insn_place *a, const struct insn_place *b)
{
    return a->segment == b->segment && a->bytes == b->bytes && a->offset == b->offset &&
           a->address_bytes == b->address_bytes && a->access == b->access &&
           a->aligned == b->aligned;
}

static void check_place(const struct world *world, const struct insn_place *place, unsigned access)
{
    bool foretold = false;

    for (unsigned i = 0; i < world->places; i++)
        foretold |= is_same(&world->place[i], place);
    must(foretold);
    must(place->access & access);
    must(is_power_of_two(place->bytes) && place->bytes <= 16);
    must(place->address_bytes == 8 || place->offset >> (8 * place->address_bytes) == 0);
    must(world->writes == 0);
}

static int read(void *ctx, const struct insn_place *place, uint64_t value[2])
{
    struct world *world = ctx;

    check_place(world, place, INSN_READ);
    if (++world->reads == world->refuse)
        return REFUSED;
    value[0] = world->memory += UINT64_C(0x9e3779b97f4a7c15);
    value[1] = ~world->memory;
    return 0;
}

static int write(void *ctx, const struct insn_place *place, const uint64_t value[2])
{
    struct world *world = ctx;

    check_place(world, place, INSN_WRITE);
    must(place->bytes >= 8 || value[0] >> (8 * place->bytes) == 0);
    must(place->bytes == 16 || value[1] == 0);
    if (world->reads + 1 == world->refuse)
        return REFUSED;
    world->writes++;
    return 0;
}

static int execute(const struct insn *insn, struct insn_state *state, unsigned refuse)
{
    struct world world = {.refuse = refuse, .memory = state->rflags};
    struct insn_bus bus = {read, write, &world};
    struct insn_state before;

    memcpy(&before, state, sizeof(before));
    world.places = insn_places(insn, state, world.place);
    int outcome = insn_execute(insn, state, &bus);
    must(outcome == REFUSED || outcome == INSN_DONE || outcome == INSN_REPEATS ||
         outcome == INSN_PROTECTION);
    if (outcome == REFUSED || outcome == INSN_PROTECTION)
        must(memcmp(&before, state, sizeof(before)) == 0 && world.writes == 0);
    if (outcome == INSN_REPEATS)
        must(insn->repeat != INSN_ONCE && state->rip == before.rip);
    if (insn->mode != INSN_CODE64 && outcome == INSN_DONE)
        must(state->rip <= UINT32_MAX);
    must(world.writes <= 1);
    return outcome;
}

static void check_decoded(const uint8_t *bytes, const struct insn *insn)
{
    struct insn again;

    must(insn->op > INSN_NONE && insn->op < INSN_OPS);
    must(insn->length >= 1 && insn->length <= INSN_LONGEST);
    must(is_power_of_two(insn->bytes) && insn->bytes <= 8);
    must(insn->memory.segment <= INSN_GS && insn->reg < INSN_REGISTERS);
    must(insn_decode(bytes, insn->length, insn->mode, &again) == INSN_DECODED);
    must(memcmp(&again, insn, sizeof(again)) == 0);
    must(insn_decode(bytes, insn->length - 1u, insn->mode, &again) == INSN_TRUNCATED);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const uint8_t stack_bytes[4] = {2, 4, 2, 4};
    struct __attribute__((packed)) {
        uint8_t how, refuse, bytes[INSN_LONGEST];
        uint64_t rflags, gpr[INSN_REGISTERS];
    } input = {0};
    struct insn_state state;
    struct insn insn;
    char text[INSN_TEXT];

    memcpy(&input, data, size < sizeof(input) ? size : sizeof(input));
    enum insn_mode mode = input.how % 3;
    memset(&state, 0, sizeof(state));
    enum insn_verdict verdict = insn_decode(input.bytes, INSN_LONGEST, mode, &insn);
    insn_explain(verdict, &insn, input.bytes, INSN_LONGEST, text);
    must(strlen(text) < INSN_TEXT - 1 && strlen(insn_name(&insn)) >= 2);
    must(verdict != INSN_TRUNCATED);
    if (verdict != INSN_DECODED)
        return 0;
    check_decoded(input.bytes, &insn);
    memcpy(state.gpr, input.gpr, sizeof(state.gpr));
    state.rflags = input.rflags;
    state.rip = mode == INSN_CODE64 ? input.gpr[0] : input.gpr[0] & UINT32_MAX;
    state.stack_bytes = mode == INSN_CODE64 ? 8 : stack_bytes[input.how >> 4 & 3];
    state.code_limit = (uint32_t)input.gpr[1];
    for (unsigned i = 0; i < ITERATIONS; i++)
        if (execute(&insn, &state, input.refuse) != INSN_REPEATS)
            break;
    return 0;
}
