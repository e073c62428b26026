/*
 * What decoded instructions do (arch/x86_64/insn/execute.h) against the CPU that runs this test:
 * random instructions with random registers, flags and memory, in 64-bit mode. Registers, memory,
 * RIP and all flags that the manual defines must come out the same.
 *
 * An instruction is random bytes that the decoder takes. Its registers, or its displacement, are
 * then changed so that memory is in the arena; what cannot be brought there is left out.
 */
#include <cpuid.h>
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
#include "tests/unit/random.h"
#include "x86/control.h"

#define CASES 400000u
#define STATUS (RFLAGS_CF | RFLAGS_PF | RFLAGS_AF | RFLAGS_ZF | RFLAGS_SF | RFLAGS_OF)

static struct random chance = {1};
static uint8_t model[ARENA_BYTES];
static unsigned failures, done_by_op[INSN_OPS];

/* One instruction, before it is run. */
struct trial {
    uint8_t bytes[16];
    struct insn insn;
    struct insn_state state;
};

static uint64_t pick(uint64_t n)
{
    return random_below(&chance, n);
}

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
    value[0] = value[1] = random_next(&chance); /* what is above does not count */
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

static unsigned features; /* CPUID.1:ECX */

static bool has_feature(enum insn_op op, unsigned memory_bytes)
{
    if (op == INSN_MOVBE)
        return features & bit_MOVBE;
    return memory_bytes != 16 || (features & bit_CMPXCHG16B);
}

/* FS is the C library's. With 66, near jumps are not the same on all CPUs. */
static bool is_wanted(const struct trial *t)
{
    bool jump = t->insn.op == INSN_CALL || t->insn.op == INSN_JMP;

    if (t->insn.memory.segment == INSN_FS)
        return false;
    if (jump && memchr(t->bytes, 0x66, t->insn.length))
        return false;
    return has_feature(t->insn.op, t->insn.memory.bytes);
}

static void random_instruction(struct trial *t)
{
    static const uint8_t prefixes[] = {0x65, 0x66, 0x67, 0xf0, 0xf2, 0xf3, 0x3e};

    do {
        unsigned at = 0;
        for (unsigned i = 0; i < sizeof(t->bytes); i++)
            t->bytes[i] = (uint8_t)pick(256);
        while (pick(3) == 0 && at < 3)
            t->bytes[at++] = prefixes[pick(sizeof(prefixes))];
        if (pick(2))
            t->bytes[at++] = (uint8_t)(0x40 + pick(16));
        if (pick(3) == 0)
            t->bytes[at++] = 0x0f;
        if (at && t->bytes[at - 1] == 0x0f && pick(32) == 0) {
            t->bytes[at++] = 0x38;
            t->bytes[at] = (uint8_t)(0xf0 + pick(2));
        } else if (pick(16) == 0) {
            t->bytes[at] = pick(2) ? 0x8f : 0xff; /* POP; PUSH, CALL, JMP */
        }
    } while (insn_decode(t->bytes, 15, INSN_CODE64, &t->insn) != INSN_DECODED || !is_wanted(t));
}

/* ---- Bringing it into the arena -------------------------------------------------------------- */

/* An address in the middle; a multiple of 16 for what must not cross a cache line. */
static uint64_t random_target(const struct insn *insn)
{
    uint64_t at = (uint64_t)cpu_arena + 300 + pick(400);
    bool whole = insn->lock || insn->op == INSN_XCHG || insn->memory.bytes == 16;

    return whole ? align_down(at, 16) : at;
}

static uint64_t upper_garbage(const struct insn *insn, uint64_t value)
{
    return insn->address_bytes == 4 ? (value & UINT32_MAX) | random_next(&chance) << 32 : value;
}

/* The displacement's four (or of an offset eight) bytes lie somewhere in the instruction: where a
 * change of them, and of nothing else, leads to the target. */
static bool patch_displacement(struct trial *t, uint64_t by)
{
    unsigned bytes =
        t->insn.op == INSN_MOV && t->insn.source == INSN_REGISTER && t->insn.opcode_bytes == 1
            ? t->insn.address_bytes
            : 4;
    uint64_t wanted = (uint64_t)t->insn.memory.displacement + by;
    struct trial changed;

    for (unsigned at = t->insn.length - bytes; at > 0; at--) {
        changed = *t;
        memcpy(changed.bytes + at, &wanted, bytes);
        if (insn_decode(changed.bytes, 15, INSN_CODE64, &changed.insn) != INSN_DECODED)
            continue;
        uint64_t found = (uint64_t)changed.insn.memory.displacement;
        changed.insn.memory.displacement = t->insn.memory.displacement;
        if (((found ^ wanted) & UINT32_MAX) || memcmp(&changed.insn, &t->insn, sizeof(t->insn)))
            continue;
        memcpy(t->bytes, changed.bytes, sizeof(t->bytes));
        t->insn.memory.displacement = (int64_t)found;
        return true;
    }
    return false;
}

static bool aim(struct trial *t)
{
    const struct insn_memory *memory = &t->insn.memory;
    uint64_t target = random_target(&t->insn) - (memory->segment == INSN_GS ? cpu_gs : 0);

    if (memory->base == INSN_RSP && memory->index != INSN_NO_REGISTER)
        t->state.gpr[memory->index] = pick(32); /* else the stack would be far away */
    if (memory->base < INSN_REGISTERS && memory->base != memory->index) {
        t->state.gpr[memory->base] += target - insn_offset(&t->insn, &t->state);
        return true;
    }
    if (memory->base < INSN_REGISTERS) { /* the same twice */
        int64_t times = 1 + memory->scale;
        t->state.gpr[memory->base] = (uint64_t)(((int64_t)target - memory->displacement) / times);
        return true;
    }
    if (memory->index != INSN_NO_REGISTER)
        t->state.gpr[memory->index] = pick(1 << 20);
    return patch_displacement(t, target - insn_offset(&t->insn, &t->state));
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
    uint64_t count = pick(20);
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
        t->state.gpr[i] = random_next(&chance) >> pick(2) * pick(64);
    t->state.rflags = (random_next(&chance) & (STATUS | RFLAGS_DF)) | RFLAGS_FIXED | RFLAGS_IF;
    t->state.rip = cpu_rip_for(t->insn.length);
    t->state.stack_bytes = 8;
    if (t->insn.op >= INSN_PUSH && t->insn.op <= INSN_CALL)
        t->state.gpr[INSN_RSP] = (uint64_t)cpu_arena + 512 + pick(64);
    if (t->insn.op >= INSN_BT && t->insn.op <= INSN_BTC && t->insn.source == INSN_REGISTER)
        t->state.gpr[t->insn.reg] = pick(2000) - 1000;
    if (insn_is_string(&t->insn))
        aim_string(t);
    else if (!aim(t))
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
    bool few = pick(2);
    unsigned bytes = t->insn.bytes;
    uint8_t most = (uint8_t)t->state.gpr[INSN_RAX];

    for (unsigned i = 0; i < ARENA_BYTES; i++)
        cpu_arena[i] = few && pick(40) ? most : (uint8_t)random_next(&chance);
    insn_places(&t->insn, &t->state, place);
    if (t->insn.op == INSN_CALL || t->insn.op == INSN_JMP)
        put(linear(&place[0]), cpu_landing(), 8);
    else if (t->insn.op == INSN_CMPXCHG && pick(2))
        put(linear(&place[0]), t->state.gpr[INSN_RAX], bytes);
    else if (t->insn.op == INSN_CMPXCHG8B && pick(2)) {
        put(linear(&place[0]), t->state.gpr[INSN_RAX], bytes);
        put(linear(&place[0]) + bytes, t->state.gpr[INSN_RDX], bytes);
    }
}

/* ---- What the manual leaves undefined -------------------------------------------------------- */

static unsigned count_of(const struct trial *t)
{
    uint64_t count = t->insn.count == INSN_CL ? t->state.gpr[INSN_RCX] : t->insn.immediate;

    return count & (t->insn.bytes == 8 ? 63 : 31);
}

/* From "Flags affected" of each (SDM Vol. 2). */
static uint64_t undefined_flags(const struct trial *t)
{
    unsigned count = count_of(t), size = 8 * t->insn.bytes;

    switch (t->insn.op) {
    case INSN_AND:
    case INSN_OR:
    case INSN_XOR:
    case INSN_TEST:
        return RFLAGS_AF;
    case INSN_ROL:
    case INSN_ROR:
    case INSN_RCL:
    case INSN_RCR:
        return count > 1 ? RFLAGS_OF : 0;
    case INSN_SHL:
    case INSN_SHR:
        return (count ? RFLAGS_AF : 0) | (count > 1 ? RFLAGS_OF : 0) |
               (count >= size ? RFLAGS_CF : 0);
    case INSN_SAR:
    case INSN_SHLD:
    case INSN_SHRD:
        return (count ? RFLAGS_AF : 0) | (count > 1 ? RFLAGS_OF : 0);
    case INSN_BT:
    case INSN_BTS:
    case INSN_BTR:
    case INSN_BTC:
        return RFLAGS_OF | RFLAGS_SF | RFLAGS_AF | RFLAGS_PF;
    default:
        return 0;
    }
}

static bool is_undefined(const struct trial *t)
{
    return (t->insn.op == INSN_SHLD || t->insn.op == INSN_SHRD) && count_of(t) > 8u * t->insn.bytes;
}

/* ---- Comparison ------------------------------------------------------------------------------ */

static void complain(const struct trial *t, const char *what, uint64_t ours, uint64_t cpus)
{
    char text[INSN_TEXT];

    if (++failures > 40)
        return;
    print_error("%s: %s is %lx, on the CPU %lx (flags were %lx): %s\n", insn_name(&t->insn), what,
                ours, cpus, t->state.rflags,
                insn_explain(INSN_DECODED, &t->insn, t->bytes, t->insn.length, text));
}

static void compare(const struct trial *t, const struct insn_state *ours,
                    const struct insn_state *cpus)
{
    static const char *const names[16] = {"RAX", "RCX", "RDX", "RBX", "RSP", "RBP", "RSI", "RDI",
                                          "R8",  "R9",  "R10", "R11", "R12", "R13", "R14", "R15"};
    uint64_t defined = ~undefined_flags(t);

    for (unsigned i = 0; i < INSN_REGISTERS; i++)
        if (ours->gpr[i] != cpus->gpr[i])
            complain(t, names[i], ours->gpr[i], cpus->gpr[i]);
    if ((ours->rflags ^ cpus->rflags) & defined)
        complain(t, "RFLAGS", ours->rflags & defined, cpus->rflags & defined);
    if (ours->rip != cpus->rip)
        complain(t, "RIP", ours->rip, cpus->rip);
    for (unsigned i = 0; i < ARENA_BYTES && memcmp(model, cpu_arena, ARENA_BYTES); i++) {
        if (model[i] == cpu_arena[i])
            continue;
        complain(t, "a byte in memory", model[i], cpu_arena[i]);
        break;
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
        complain(t, "the outcome", (uint64_t)outcome, INSN_DONE);
    cpu_run(t->bytes, t->insn.length, &cpus);
    compare(t, &ours, &cpus);
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
        if (!random_state(&t) || is_undefined(&t))
            continue;
        random_memory(&t);
        try(&t);
        done++;
    }
    assert_int_equal(failures, 0);
    for (enum insn_op op = INSN_ADD; op < INSN_OPS; op++) {
        struct insn named = {.op = op};
        print_message("%s %u\n", insn_name(&named), done_by_op[op]);
        if (has_feature(op, 0))
            assert_true(done_by_op[op] >= 100);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_against_the_cpu),
    };

    unsigned a, b, d;

    __cpuid(1, a, b, features, d);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
