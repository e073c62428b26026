/* See insn_trial.h. */
#include <cpuid.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "lib/bits.h"
#include "tests/property/insn_trial.h"
#include "x86/control.h"

struct random trial_chance = {1};
unsigned trial_failures;

uint64_t trial_pick(uint64_t n)
{
    return random_below(&trial_chance, n);
}

bool trial_has_feature(enum insn_op op, unsigned memory_bytes)
{
    static unsigned features; /* CPUID.1:ECX */
    unsigned a, b, d;

    if (!features)
        __cpuid(1, a, b, features, d);
    if (op == INSN_MOVBE)
        return features & bit_MOVBE;
    return memory_bytes != 16 || (features & bit_CMPXCHG16B);
}

/* ---- Aiming ---------------------------------------------------------------------------------- */

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
        if (insn_decode(changed.bytes, 15, t->insn.mode, &changed.insn) != INSN_DECODED)
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

bool trial_aim(struct trial *t, uint64_t offset)
{
    const struct insn_memory *memory = &t->insn.memory;
    uint64_t *gpr = t->state.gpr;

    if (memory->base == INSN_RSP && memory->index != INSN_NO_REGISTER)
        gpr[memory->index] = trial_pick(32); /* else the stack would be far away */
    if (memory->base < INSN_REGISTERS && memory->base != memory->index) {
        gpr[memory->base] += offset - insn_offset(&t->insn, &t->state);
        return true;
    }
    if (memory->base < INSN_REGISTERS) { /* the same twice */
        int64_t times = 1 + memory->scale;
        gpr[memory->base] = (uint64_t)(((int64_t)offset - memory->displacement) / times);
        return true;
    }
    if (memory->index != INSN_NO_REGISTER)
        gpr[memory->index] = trial_pick(1 << 20);
    return patch_displacement(t, offset - insn_offset(&t->insn, &t->state));
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

bool trial_is_undefined(const struct trial *t)
{
    return (t->insn.op == INSN_SHLD || t->insn.op == INSN_SHRD) && count_of(t) > 8u * t->insn.bytes;
}

/* ---- Comparison ------------------------------------------------------------------------------ */

void trial_complain(const struct trial *t, const char *what, uint64_t ours, uint64_t cpus)
{
    char text[INSN_TEXT];

    if (++trial_failures > 40)
        return;
    print_error("%d-bit code, %s: %s is %lx, on the CPU %lx (flags were %lx): %s\n",
                16 << t->insn.mode, insn_name(&t->insn), what, ours, cpus, t->state.rflags,
                insn_explain(INSN_DECODED, &t->insn, t->bytes, t->insn.length, text));
}

void trial_compare(const struct trial *t, const struct insn_state *ours,
                   const struct insn_state *cpus, unsigned register_bytes)
{
    static const char *const names[16] = {"RAX", "RCX", "RDX", "RBX", "RSP", "RBP", "RSI", "RDI",
                                          "R8",  "R9",  "R10", "R11", "R12", "R13", "R14", "R15"};
    uint64_t defined = ~undefined_flags(t);

    for (unsigned i = 0; i < 2 * register_bytes; i++) /* 8 registers of 4 bytes, 16 of 8 */
        if ((ours->gpr[i] ^ cpus->gpr[i]) & (register_bytes == 8 ? UINT64_MAX : UINT32_MAX))
            trial_complain(t, names[i], ours->gpr[i], cpus->gpr[i]);
    if ((ours->rflags ^ cpus->rflags) & defined)
        trial_complain(t, "RFLAGS", ours->rflags & defined, cpus->rflags & defined);
    if (ours->rip != cpus->rip)
        trial_complain(t, "RIP", ours->rip, cpus->rip);
}

void trial_compare_memory(const struct trial *t, const uint8_t *ours, const uint8_t *cpus,
                          size_t count)
{
    if (memcmp(ours, cpus, count) == 0)
        return;
    for (size_t i = 0; i < count; i++) {
        if (ours[i] == cpus[i])
            continue;
        trial_complain(t, "a byte in memory", ours[i], cpus[i]);
        return;
    }
}
