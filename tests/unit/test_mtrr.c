/*
 * Memory types by address: the registers of machines, real and emulated, and what the manual says
 * of them (SDM Vol. 3, 12.11).
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "arch/x86_64/mtrr.h"
#include "lib/bits.h"
#include "tests/unit/random.h"

#define ENABLED (BIT(11) | BIT(10))
#define VALID BIT(11)
#define MASK(bits, size) ((BITS((bits)-1, 0) & ~((uint64_t)(size)-1)) | VALID)

struct run {
    uint64_t first;
    enum mem_type type;
};

/* Runs from 0 on; the last one goes to the end of the addresses. */
static void expect_runs(const struct mtrrs *mtrrs, const struct run *run, unsigned count)
{
    uint64_t at = 0, last, end = BITS(mtrrs->maxphyaddr - 1, 0);

    for (unsigned i = 0; i < count; i++) {
        assert_int_equal(at, run[i].first);
        assert_int_equal(mtrr_run_at(mtrrs, at, end, &last), run[i].type);
        at = last + 1;
    }
    assert_int_equal(last, end);
}
#define EXPECT(mtrrs, ...)                                                                         \
    expect_runs(mtrrs, (const struct run[]){__VA_ARGS__},                                          \
                sizeof((const struct run[]){__VA_ARGS__}) / sizeof(struct run))

/* As SeaBIOS leaves a PC of 256 MiB: WB but for the hole of PCI below 4 GiB. */
static void qemu_with_seabios(void **state)
{
    struct mtrrs mtrrs = {
        .there = true,
        .maxphyaddr = 40,
        .cap = 0x508,
        .def_type = ENABLED | MEM_WB,
        .fixed = {0x0606060606060606, 0x0606060606060606, 0, 0x0505050505050505, 0x0505050505050505,
                  0x0505050505050505, 0x0505050505050505, 0x0505050505050505, 0x0505050505050505,
                  0x0505050505050505, 0x0505050505050505},
        .base = {0xc0000000 | MEM_UC},
        .mask = {MASK(40, GiB)},
    };

    (void)state;
    EXPECT(&mtrrs, {0, MEM_WB}, {0xa0000, MEM_UC}, {0xc0000, MEM_WP}, {MiB, MEM_WB},
           {0xc0000000, MEM_UC}, {4 * GiB, MEM_WB});
}

/* A laptop of 16 GiB whose default is UC: pieces of WB, and UC cut out of them for graphics. */
static void a_machine_whose_default_is_uc(void **state)
{
    struct mtrrs mtrrs = {
        .there = true,
        .maxphyaddr = 36,
        .cap = 0xd0a,
        .def_type = ENABLED | MEM_UC,
        .fixed = {0x0606060606060606, 0x0606060606060606, 0, 0x0505050505050505, 0x0505050505050505,
                  0x0505050505050505, 0x0505050505050505, 0x0505050505050505, 0x0505050505050505,
                  0x0505050505050505, 0x0505050505050505},
        .base = {0 | MEM_WB, 0x80000000 | MEM_WB, 0xbc000000 | MEM_UC, 0x100000000 | MEM_WB,
                 0x200000000 | MEM_WB, 0x400000000 | MEM_WB, 0x43c000000 | MEM_UC, 0x123456000},
        .mask = {MASK(36, 2 * GiB), MASK(36, GiB), MASK(36, 64 * MiB), MASK(36, 4 * GiB),
                 MASK(36, 8 * GiB), MASK(36, GiB), MASK(36, 64 * MiB), 0xfffffe000},
    };

    (void)state;
    EXPECT(&mtrrs, {0, MEM_WB}, {0xa0000, MEM_UC}, {0xc0000, MEM_WP}, {MiB, MEM_WB},
           {0xbc000000, MEM_UC}, {4 * GiB, MEM_WB}, {0x43c000000, MEM_UC});
}

/* AMD's: what is above 4 GiB is said by TOP_MEM2, and the variable ranges do not speak of it. */
static void a_server_with_top_of_memory(void **state)
{
    struct mtrrs mtrrs = {
        .there = true,
        .maxphyaddr = 48,
        .cap = 0x508,
        .def_type = ENABLED | MEM_UC,
        .fixed = {0x1e1e1e1e1e1e1e1e, 0x1e1e1e1e1e1e1e1e, 0},
        .base = {0 | MEM_WB, 0x80000000 | MEM_WB, 0xfd000000 | MEM_WC},
        .mask = {MASK(48, 2 * GiB), MASK(48, 512 * MiB), MASK(48, 16 * MiB)},
        .write_back_end = 0x2050000000,
    };

    (void)state;
    EXPECT(&mtrrs, {0, MEM_WB}, {0xa0000, MEM_UC}, {MiB, MEM_WB}, {0xa0000000, MEM_UC},
           {0xfd000000, MEM_WC}, {0xfe000000, MEM_UC}, {4 * GiB, MEM_WB}, {0x2050000000, MEM_UC});
}

static void switched_off(void **state)
{
    struct mtrrs mtrrs = {.maxphyaddr = 40};
    uint64_t last;

    (void)state;
    assert_false(mtrrs_enabled(&mtrrs));
    mtrrs.there = true;
    mtrrs.cap = 0x508;
    mtrrs.def_type = MEM_WB; /* E is 0: all is UC, whatever else is there */
    assert_false(mtrrs_enabled(&mtrrs));
    EXPECT(&mtrrs, {0, MEM_UC});
    mtrrs.def_type = BIT(11) | MEM_WT; /* without the fixed ones */
    EXPECT(&mtrrs, {0, MEM_WT});
    mtrrs.def_type = ENABLED | MEM_WT;
    mtrrs.cap = 0x008;
    EXPECT(&mtrrs, {0, MEM_WT});
    mtrrs.def_type = BIT(11) | 2; /* reserved */
    assert_int_equal(mtrr_type_at(&mtrrs, 5, &last), MEM_UC);
}

/* 12.11.4.1. */
static void where_they_overlap(void **state)
{
    static const uint8_t types[] = {MEM_UC, MEM_WC, MEM_WT, MEM_WP, MEM_WB};
    uint64_t last;

    (void)state;
    for (unsigned i = 0; i < 5; i++)
        for (unsigned j = 0; j < 5; j++) {
            struct mtrrs mtrrs = {
                .there = true,
                .maxphyaddr = 40,
                .cap = 2,
                .def_type = ENABLED | MEM_WB,
                .base = {types[i], types[j]},
                .mask = {MASK(40, 2 * GiB), MASK(40, 4 * GiB)},
            };
            enum mem_type both = i == j ? (enum mem_type)types[i]
                                 : (types[i] == MEM_WT && types[j] == MEM_WB) ||
                                         (types[i] == MEM_WB && types[j] == MEM_WT)
                                     ? MEM_WT
                                     : MEM_UC;

            assert_int_equal(mtrr_type_at(&mtrrs, GiB, &last), both);
            assert_int_equal(last, 2 * GiB - 1);
            assert_int_equal(mtrr_type_at(&mtrrs, 3 * GiB, &last), types[j]);
            assert_int_equal(last, 4 * GiB - 1);
        }
}

/* Of each byte by itself, against a plain reading of the rule; masks of several pieces, too. */
static void runs_are_what_each_byte_is(void **state)
{
    static const uint8_t types[] = {MEM_UC, MEM_WC, MEM_WT, MEM_WP, MEM_WB, MEM_WB};
    struct random chance = {5};

    (void)state;
    for (unsigned round = 0; round < 2000; round++) {
        struct mtrrs mtrrs = {.there = true, .maxphyaddr = 36, .cap = 4};

        mtrrs.def_type = BIT(11) | types[random_below(&chance, 6)];
        for (unsigned i = 0; i < 4; i++) {
            uint64_t mask = BITS(35, 20 + (unsigned)random_below(&chance, 12));

            if (random_below(&chance, 8) == 0)
                mask &= random_next(&chance);
            mtrrs.mask[i] = mask | (random_below(&chance, 5) != 0 ? VALID : 0);
            mtrrs.base[i] =
                (random_next(&chance) & BITS(33, 20) & mask) | types[random_below(&chance, 6)];
        }
        for (unsigned n = 0; n < 50; n++) {
            uint64_t at = random_next(&chance) & BITS(33, 0), last;
            enum mem_type type = mtrr_type_at(&mtrrs, at, &last), byte = MEM_UC;
            uint64_t other = at + random_next(&chance) % (last - at + 1), end;
            bool found = false;

            for (unsigned i = 0; i < 4; i++) {
                uint64_t mask = mtrrs.mask[i] & BITS(35, 12);

                if (!(mtrrs.mask[i] & VALID) || ((other ^ mtrrs.base[i]) & mask) != 0)
                    continue;
                enum mem_type own = (enum mem_type)(mtrrs.base[i] & 0xff);
                bool through =
                    (byte == MEM_WT && own == MEM_WB) || (byte == MEM_WB && own == MEM_WT);
                byte = !found || own == byte ? own : through ? MEM_WT : MEM_UC;
                found = true;
            }
            if (!found)
                byte = (enum mem_type)(mtrrs.def_type & 0xff);
            assert_in_range(last, at, BITS(35, 0));
            assert_int_equal(type, byte);
            assert_int_equal(mtrr_type_at(&mtrrs, other, &end), byte);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(qemu_with_seabios),
        cmocka_unit_test(a_machine_whose_default_is_uc),
        cmocka_unit_test(a_server_with_top_of_memory),
        cmocka_unit_test(switched_off),
        cmocka_unit_test(where_they_overlap),
        cmocka_unit_test(runs_are_what_each_byte_is),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
