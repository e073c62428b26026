/*
 * What decoded instructions do (arch/x86_64/insn/execute.h) against the CPU that runs this test:
 * random instructions with random registers, flags and memory, in 64-bit mode. Registers, memory,
 * RIP and all flags that the manual defines must come out the same.
 *
 * An instruction is random bytes that the decoder takes. Its registers, or its displacement, are
 * then changed so that memory is in the arena; what cannot be brought there is left out.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "lib/bits.h"
#include "tests/property/insn_cpu.h"
#include "tests/property/insn_trial.h"
#include "x86/control.h"

#define CASES 400000u

static uint8_t model[ARENA_BYTES];
static unsigned done_by_op[INSN_OPS];

/* ---- The model's memory ---------------------------------------------------------------------- */

static uint64_t linear(const struct insn_place *place)
{
    return place->offset + (place->segment == INSN_GS ? cpu_gs : 0);
}

static uint64_t in_arena(const struct insn_place *place)
{
    return linear(place) - (uint64_t)cpu_arena;
}

static int model_read(void *ctx, const struct insn_place *place, uint64_t value[2])
{
    (void)ctx;
    assert_true(in_arena(place) <= ARENA_BYTES - place->bytes);
    value[0] = value[1] = random_next(&trial_chance); /* what is above does not count */
    memcpy(value, model + in_arena(place), place->bytes);
    return 0;
}

static int model_write(void *ctx, const struct insn_place *place, const uint64_t value[2])
{
    (void)ctx;
    assert_true(in_arena(place) <= ARENA_BYTES - place->bytes);
    memcpy(model + in_arena(place), value, place->bytes);
    return 0;
}

static const struct insn_bus bus = {model_read, model_write, NULL};

/* ---- Instructions ---------------------------------------------------------------------------- */

/* FS is the C library's. With 66, near jumps are not the same on all CPUs. */
static bool is_wanted(const struct trial *t)
{
    bool jump = t->insn.op == INSN_CALL || t->insn.op == INSN_JMP;

    if (t->insn.memory.segment == INSN_FS)
        return false;
    if (jump && memchr(t->bytes, 0x66, t->insn.length))
        return false;
    return trial_has_feature(t->insn.op, t->insn.memory.bytes);
}

static void random_instruction(struct trial *t)
{
    static const uint8_t prefixes[] = {0x65, 0x66, 0x67, 0xf0, 0xf2, 0xf3, 0x3e};

    do {
        unsigned at = 0;
        for (unsigned i = 0; i < sizeof(t->bytes); i++)
            t->bytes[i] = (uint8_t)trial_pick(256);
        while (trial_pick(3) == 0 && at < 3)
            t->bytes[at++] = prefixes[trial_pick(sizeof(prefixes))];
        if (trial_pick(2))
            t->bytes[at++] = (uint8_t)(0x40 + trial_pick(16));
        if (trial_pick(3) == 0)
            t->bytes[at++] = 0x0f;
        if (at && t->bytes[at - 1] == 0x0f && trial_pick(32) == 0) {
            t->bytes[at++] = 0x38;
            t->bytes[at] = (uint8_t)(0xf0 + trial_pick(2));
        } else if (trial_pick(16) == 0) {
            t->bytes[at] = trial_pick(2) ? 0x8f : 0xff; /* POP; PUSH, CALL, JMP */
        }
    } while (insn_decode(t->bytes, 15, INSN_CODE64, &t->insn) != INSN_DECODED || !is_wanted(t));
}

/* ---- Bringing it into the arena -------------------------------------------------------------- */

/* An address in the middle; a multiple of 16 for what must not cross a cache line. */
static uint64_t random_target(const struct insn *insn)
{
    uint64_t at = (uint64_t)cpu_arena + 300 + trial_pick(400);
    bool whole = insn->lock || insn->op == INSN_XCHG || insn->memory.bytes == 16;

    return whole ? align_down(at, 16) : at;
}

static uint64_t upper_garbage(const struct insn *insn, uint64_t value)
{
    return insn->address_bytes == 4 ? (value & UINT32_MAX) | random_next(&trial_chance) << 32
                                    : value;
}

static void aim_string(struct trial *t)
{
    const struct insn *insn = &t->insn;
    uint64_t gs = insn->memory.segment == INSN_GS ? cpu_gs : 0;

    t->state.gpr[INSN_RSI] = upper_garbage(insn, random_target(insn) - gs);
    t->state.gpr[INSN_RDI] = upper_garbage(insn, random_target(insn));
    if (insn->repeat == INSN_ONCE)
        return;
    /* With a count of 0 and addresses of 4 bytes, CPUs differ in the upper halves. */
    uint64_t count = trial_pick(20);
    t->state.gpr[INSN_RCX] = upper_garbage(insn, count + (insn->address_bytes == 4));
}

static bool all_in_arena(const struct trial *t)
{
    struct insn_place place[INSN_PLACES];
    unsigned places = insn_places(&t->insn, &t->state, place);

    for (unsigned i = 0; i < places; i++) {
        if (in_arena(&place[i]) > ARENA_BYTES - place[i].bytes)
            return false;
        if ((place[i].aligned || t->insn.lock || t->insn.op == INSN_XCHG) &&
            linear(&place[i]) % place[i].bytes)
            return false;
    }
    return true;
}

/* Registers and flags, and the memory that they lead to. */
static bool random_state(struct trial *t)
{
    for (unsigned i = 0; i < INSN_REGISTERS; i++)
        t->state.gpr[i] = random_next(&trial_chance) >> trial_pick(2) * trial_pick(64);
    t->state.rflags =
        (random_next(&trial_chance) & (TRIAL_STATUS | RFLAGS_DF)) | RFLAGS_FIXED | RFLAGS_IF;
    t->state.rip = cpu_rip_for(t->insn.length);
    t->state.stack_bytes = 8;
    if (t->insn.op >= INSN_PUSH && t->insn.op <= INSN_CALL)
        t->state.gpr[INSN_RSP] = (uint64_t)cpu_arena + 512 + trial_pick(64);
    if (t->insn.op >= INSN_BT && t->insn.op <= INSN_BTC && t->insn.source == INSN_REGISTER)
        t->state.gpr[t->insn.reg] = trial_pick(2000) - 1000;
    if (insn_is_string(&t->insn))
        aim_string(t);
    else if (!trial_aim(t,
                        random_target(&t->insn) - (t->insn.memory.segment == INSN_GS ? cpu_gs : 0)))
        return false;
    return all_in_arena(t);
}

static void put(uint64_t at, uint64_t value, unsigned bytes)
{
    memcpy((void *)at, &value, bytes);
}

/* Random, or of few values, so that comparisons end both ways; a jump's target is a place of ours.
 */
static void random_memory(const struct trial *t)
{
    struct insn_place place[INSN_PLACES] = {0};
    bool few = trial_pick(2);
    unsigned bytes = t->insn.bytes;
    uint8_t most = (uint8_t)t->state.gpr[INSN_RAX];

    for (unsigned i = 0; i < ARENA_BYTES; i++)
        cpu_arena[i] = few && trial_pick(40) ? most : (uint8_t)random_next(&trial_chance);
    insn_places(&t->insn, &t->state, place);
    if (t->insn.op == INSN_CALL || t->insn.op == INSN_JMP)
        put(linear(&place[0]), cpu_landing(), 8);
    else if (t->insn.op == INSN_CMPXCHG && trial_pick(2))
        put(linear(&place[0]), t->state.gpr[INSN_RAX], bytes);
    else if (t->insn.op == INSN_CMPXCHG8B && trial_pick(2)) {
        put(linear(&place[0]), t->state.gpr[INSN_RAX], bytes);
        put(linear(&place[0]) + bytes, t->state.gpr[INSN_RDX], bytes);
    }
}

static void try(const struct trial *t)
{
    struct insn_state ours = t->state, cpus = t->state;
    int outcome;

    memcpy(model, cpu_arena, ARENA_BYTES);
    do
        outcome = insn_execute(&t->insn, &ours, &bus);
    while (outcome == INSN_REPEATS);
    if (outcome != INSN_DONE)
        trial_complain(t, "the outcome", (uint64_t)outcome, INSN_DONE);
    cpu_run(t->bytes, t->insn.length, &cpus);
    trial_compare(t, &ours, &cpus, 8);
    trial_compare_memory(t, model, cpu_arena, ARENA_BYTES);
    done_by_op[t->insn.op]++;
}

static void test_against_the_cpu(void **state)
{
    struct trial t;

    (void)state;
    memset(&t, 0, sizeof(t));
    cpu_start(); /* here: cmocka sets signal handlers of its own for each test */
    for (unsigned done = 0; done < CASES;) {
        random_instruction(&t);
        if (!random_state(&t) || trial_is_undefined(&t))
            continue;
        random_memory(&t);
        try(&t);
        done++;
    }
    assert_int_equal(trial_failures, 0);
    for (enum insn_op op = INSN_ADD; op < INSN_OPS; op++) {
        struct insn named = {.op = op};
        print_message("%s %u\n", insn_name(&named), done_by_op[op]);
        if (trial_has_feature(op, 0))
            assert_true(done_by_op[op] >= 100);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_against_the_cpu),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
