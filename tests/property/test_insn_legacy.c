/*
 * What decoded instructions do in 16- and 32-bit code, against the CPU that runs this test: 16-bit
 * addresses, both widths of the stack, and all that test_insn_execute.c looks at in 64-bit mode.
 * Skipped where the system gives no LDT.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "lib/bits.h"
#include "tests/property/insn_legacy_cpu.h"
#include "tests/property/insn_trial.h"
#include "x86/control.h"

#define CASES 200000u
#define AROUND 160u /* bytes on either side of a place: filled before, compared after */

static uint8_t model[LEGACY_BYTES];
static unsigned done_by_op[2][INSN_OPS], by_addresses[2][9];

/* ---- The model's memory ---------------------------------------------------------------------- */

static bool fits(const struct insn_place *place)
{
    return place->offset <= LEGACY_BYTES - place->bytes;
}

static int model_read(void *ctx, const struct insn_place *place, uint64_t value[2])
{
    (void)ctx;
    assert_true(fits(place));
    value[0] = value[1] = random_next(&trial_chance); /* what is above does not count */
    memcpy(value, model + place->offset, place->bytes);
    return 0;
}

static int model_write(void *ctx, const struct insn_place *place, const uint64_t value[2])
{
    (void)ctx;
    assert_true(fits(place));
    memcpy(model + place->offset, value, place->bytes);
    return 0;
}

static const struct insn_bus bus = {model_read, model_write, NULL};

/* ---- Instructions ---------------------------------------------------------------------------- */

static void random_instruction(struct trial *t)
{
    static const uint8_t prefixes[] = {0x66, 0x67, 0x26, 0x36, 0x3e, 0xf0, 0xf2, 0xf3};
    enum insn_mode mode = trial_pick(2) ? INSN_CODE16 : INSN_CODE32;

    do {
        unsigned at = 0;
        for (unsigned i = 0; i < sizeof(t->bytes); i++)
            t->bytes[i] = (uint8_t)trial_pick(256);
        while (trial_pick(2) && at < 3)
            t->bytes[at++] = prefixes[trial_pick(sizeof(prefixes))];
        if (trial_pick(3) == 0)
            t->bytes[at++] = 0x0f;
        else if (trial_pick(16) == 0)
            t->bytes[at] = trial_pick(2) ? 0x8f : 0xff; /* POP; PUSH, CALL, JMP */
    } while (insn_decode(t->bytes, INSN_LONGEST, mode, &t->insn) != INSN_DECODED ||
             (t->insn.memory.segment != INSN_DS && t->insn.memory.segment != INSN_ES &&
              t->insn.memory.segment != INSN_SS) ||
             !trial_has_feature(t->insn.op, t->insn.memory.bytes));
}

static uint64_t upper_garbage(const struct insn *insn, uint64_t value)
{
    return insn->address_bytes == 2 ? value | trial_pick(1 << 16) << 16 : value;
}

/* 16 bits of address are everywhere in the segment. */
static bool aim(struct trial *t)
{
    uint64_t *gpr = t->state.gpr;

    if (insn_is_string(&t->insn)) {
        gpr[INSN_RSI] = upper_garbage(&t->insn, 1000 + trial_pick(60000));
        gpr[INSN_RDI] = upper_garbage(&t->insn, 1000 + trial_pick(60000));
        if (t->insn.repeat != INSN_ONCE)
            gpr[INSN_RCX] = upper_garbage(&t->insn, trial_pick(20));
        return true;
    }
    return t->insn.address_bytes == 2 || trial_aim(t, trial_pick(LEGACY_BYTES));
}

static bool all_in_reach(const struct trial *t)
{
    struct insn_place place[INSN_PLACES];
    unsigned places = insn_places(&t->insn, &t->state, place);
    bool locked = t->insn.lock || t->insn.op == INSN_XCHG;

    for (unsigned i = 0; i < places; i++)
        if (!fits(&place[i]) || (locked && place[i].offset % place[i].bytes))
            return false;
    return true;
}

static bool random_state(struct trial *t)
{
    uint64_t *gpr = t->state.gpr;

    for (unsigned i = 0; i < 8; i++)
        gpr[i] = (random_next(&trial_chance) & UINT32_MAX) >> trial_pick(2) * trial_pick(32);
    t->state.rflags =
        (random_next(&trial_chance) & (TRIAL_STATUS | RFLAGS_DF)) | RFLAGS_FIXED | RFLAGS_IF;
    t->state.rip = legacy_rip_for(t->insn.length);
    t->state.stack_bytes = trial_pick(2) ? 2 : 4;
    t->state.code_limit = LEGACY_CODE_LIMIT;
    if (t->insn.op >= INSN_PUSH && t->insn.op <= INSN_CALL)
        gpr[INSN_RSP] = trial_pick(1 << 16) | (t->state.stack_bytes == 2) * trial_pick(1 << 16)
                                                  << 16;
    if (t->insn.op >= INSN_BT && t->insn.op <= INSN_BTC && t->insn.source == INSN_REGISTER)
        gpr[t->insn.reg] = (trial_pick(2000) - 1000) & UINT32_MAX;
    if (!aim(t))
        return false;
    for (unsigned i = 0; i < 8; i++)
        gpr[i] &= UINT32_MAX;
    return all_in_reach(t);
}

/* ---- Memory around the places ---------------------------------------------------------------- */

struct stretch {
    uint32_t first, count;
};

static struct stretch around(const struct insn_place *place)
{
    uint32_t at = (uint32_t)place->offset;
    uint32_t first = at > AROUND ? at - AROUND : 0;
    uint32_t end = at + AROUND < LEGACY_BYTES ? at + AROUND : LEGACY_BYTES;

    return (struct stretch){first, end - first};
}

/* Random, or of few values, so that comparisons end both ways; a jump's target is a place of ours.
 */
static void fill(const struct trial *t, const struct insn_place *place, unsigned places)
{
    bool few = trial_pick(2);

    for (unsigned i = 0; i < places; i++) {
        struct stretch s = around(&place[i]);
        for (unsigned n = s.first; n < s.first + s.count; n++)
            model[n] = (uint8_t)(few && trial_pick(40) ? t->state.gpr[INSN_RAX]
                                                       : random_next(&trial_chance));
    }
    uint64_t value = t->state.gpr[INSN_RAX] | t->state.gpr[INSN_RDX] << 32;
    if (t->insn.op == INSN_CALL || t->insn.op == INSN_JMP)
        value = legacy_landing();
    else if ((t->insn.op != INSN_CMPXCHG && t->insn.op != INSN_CMPXCHG8B) || trial_pick(2))
        return;
    memcpy(model + place[0].offset, &value, place[0].bytes);
}

static void copy_to_cpu(const struct insn_place *place, unsigned places)
{
    for (unsigned i = 0; i < places; i++) {
        struct stretch s = around(&place[i]);
        memcpy(legacy_arena + s.first, model + s.first, s.count);
    }
}

/* ---- The comparison -------------------------------------------------------------------------- */

static void try(const struct trial *t)
{
    struct insn_place place[INSN_PLACES] = {0};
    struct insn_state ours = t->state, cpus = t->state;
    unsigned places = insn_places(&t->insn, &t->state, place);
    int outcome;

    fill(t, place, places);
    copy_to_cpu(place, places);
    do
        outcome = insn_execute(&t->insn, &ours, &bus);
    while (outcome == INSN_REPEATS);
    if (outcome != INSN_DONE)
        trial_complain(t, "the outcome", (uint64_t)outcome, INSN_DONE);
    legacy_run(&t->insn, t->bytes, &cpus);
    trial_compare(t, &ours, &cpus, 4);
    for (unsigned i = 0; i < places; i++) {
        struct stretch s = around(&place[i]);
        trial_compare_memory(t, model + s.first, legacy_arena + s.first, s.count);
    }
    done_by_op[t->insn.mode][t->insn.op]++;
    by_addresses[t->insn.mode][t->insn.address_bytes]++;
}

static void check_counts(void)
{
    for (enum insn_mode mode = INSN_CODE16; mode <= INSN_CODE32; mode++) {
        print_message("%d-bit code: %u with 16-bit addresses, %u with 32-bit ones\n", 16 << mode,
                      by_addresses[mode][2], by_addresses[mode][4]);
        for (enum insn_op op = INSN_ADD; op < INSN_OPS; op++)
            if (op != INSN_MOVBE) /* rare, and the same in 64-bit mode */
                assert_true(done_by_op[mode][op] >= 20);
    }
}

static void test_against_the_cpu(void **state)
{
    struct trial t;

    (void)state;
    memset(&t, 0, sizeof(t));
    if (!legacy_start()) { /* here: cmocka sets signal handlers of its own for each test */
        print_message("no LDT on this system\n");
        skip();
    }
    for (unsigned done = 0; done < CASES;) {
        random_instruction(&t);
        if (!random_state(&t) || trial_is_undefined(&t))
            continue;
        try(&t);
        done++;
    }
    trial_compare_memory(&t, model, legacy_arena, LEGACY_BYTES);
    assert_int_equal(trial_failures, 0);
    check_counts();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_against_the_cpu),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
