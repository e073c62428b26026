/*
 * Every kind in the world of tests/property/world.h: random operations, with CPUs at work between
 * any two accesses of the mapper. What is checked is said there.
 */
#include "tests/property/world.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "lib/lock.h"

_Noreturn void world_fail(const char *message)
{
    fail_msg("%s", message);
    abort();
}

/* The CPUs that there are to run on: with everything; without 1 GiB pages and A and D in EPTs; and
 * so on. */
static struct table_caps some_cpu(enum sdm_format format, unsigned n)
{
    struct table_caps caps = world_caps(format);

    switch (n % 4) {
    case 1:
        caps.leaf_top = 2;
        caps.accessed_dirty = format != SDM_EPT;
        caps.execute_only = false;
        caps.maxphyaddr = 36;
        break;
    case 2:
        caps.nx = format == SDM_EPT;
        caps.global = false;
        caps.maxphyaddr = 52;
        break;
    default:
        break;
    }
    return caps;
}

static unsigned percent = 100; /* of the rounds that are worth the time */

static void run_world(const struct land *land, uint64_t unit, unsigned rounds)
{
    uint64_t stores = 0, walks = 0, flushes = 0, needless = 0;

    for (unsigned seed = 0; seed < 4; seed++) {
        struct table_caps caps = some_cpu(land->format, seed);

        locks_needed = seed % 2; /* alone, the mapper has shortcuts */
        world_start(land, unit, &caps,
                    16 * (uint64_t)(land - lands) + 4 * (unit > PAGE_SIZE) + seed);
        if (land->kind->id == KIND_KERNEL && seed == 0)
            assert_int_equal(table_preallocate(&w.table), E_OK);
        for (unsigned round = 0; round < rounds * percent / 100; round++) {
            struct world_call call = world_random_call();
            if (round % 4)
                world_fill_caches();
            world_run(&call);
        }
        stores += w.all_stores;
        walks += w.walks;
        flushes += w.flushes;
        needless += w.needless;
        world_end();
    }
    print_message("%s, cells of %lu KiB: %lu stores, %lu walks, %lu flushes, of which %lu "
                  "needless\n",
                  land->name, (unit / KiB), stores, walks, flushes, needless);
}

/*
 * One write of one CPU, at each moment of an operation in turn: between any two accesses of the
 * mapper, and while the flush goes from CPU to CPU. Long operations are sampled. Every page that is
 * still what it was keeps its A and D; the world looks after each run.
 */
struct scenario {
    const char *name;
    unsigned flags; /* how the block of 512 cells is mapped first */
    struct world_call call;
};

#define BLOCK 64
#define MOMENTS 20

static const struct scenario scenarios[] = {
    {"split", MAP_DEFAULT, {.op = OP_SPLIT, .first = BLOCK, .count = 512}},
    {"split, by a part", MAP_DEFAULT, {.op = OP_SPLIT, .first = BLOCK + 7, .count = 1}},
    {"merge", MAP_CAP_4K, {.op = OP_MERGE, .first = BLOCK, .count = 512}},
    {"sweep", MAP_CAP_4K, {.op = OP_SWEEP, .first = BLOCK, .count = 512}},
    {"protect of a piece", MAP_DEFAULT, {.op = OP_PROTECT, .first = BLOCK + 100, .count = 10}},
    {"protect of a page", MAP_DEFAULT, {.op = OP_PROTECT, .first = BLOCK, .count = 512}},
    {"protect of a table", MAP_CAP_4K, {.op = OP_PROTECT, .first = BLOCK, .count = 512}},
    {"protect of entries", MAP_CAP_4K, {.op = OP_PROTECT, .first = BLOCK + 95, .count = 20}},
    {"harvest of a page", MAP_DEFAULT, {.op = OP_HARVEST, .first = BLOCK, .count = 512}},
    {"harvest of entries", MAP_CAP_4K, {.op = OP_HARVEST, .first = BLOCK + 95, .count = 20}},
    {"clone of a page", MAP_DEFAULT, {.op = OP_CLONE, .first = BLOCK, .count = 512}},
    {"clone of a piece", MAP_DEFAULT, {.op = OP_CLONE, .first = BLOCK + 95, .count = 20}},
    {"clone of entries", MAP_CAP_4K, {.op = OP_CLONE, .first = BLOCK + 95, .count = 20}},
    {"replace of a piece", MAP_DEFAULT, {.op = OP_REPLACE, .first = BLOCK + 200, .count = 9}},
    {"unmap of a piece", MAP_DEFAULT, {.op = OP_UNMAP, .first = BLOCK + 200, .count = 9}},
    {"cursor, protect of a piece",
     MAP_DEFAULT,
     {.op = OP_CURSOR, .first = BLOCK + 104, .count = 3, .flags = CURSOR_PROTECT}},
    {"cursor, protect of entries",
     MAP_CAP_4K,
     {.op = OP_CURSOR, .first = BLOCK + 104, .count = 3, .flags = CURSOR_PROTECT}},
    {"cursor, protect and unmap",
     MAP_DEFAULT,
     {.op = OP_CURSOR,
      .first = BLOCK + 102,
      .count = 3,
      .flags = CURSOR_PROTECT | CURSOR_UNMAP | CURSOR_SCATTER}},
};

/* Maps the block, has the CPUs look at it (or not), and runs the call; returns its moments. */
static uint64_t run_scenario(const struct scenario *scenario, bool known)
{
    uint64_t base = w.base + BLOCK * w.unit;
    struct world_call map = {.op = OP_MAP,
                             .first = BLOCK,
                             .count = 512,
                             .out = base & BITS(34, 12),
                             .attrs = attrs_of(RIGHT_RWX, MEM_WB),
                             .flags = scenario->flags};
    struct world_call unmap = {.op = OP_UNMAP, .first = BLOCK, .count = 512};
    struct world_call call = scenario->call;
    struct flush_batch batch;
    bool strike = w.strike;

    if (w.unit > PAGE_SIZE && map.flags == MAP_CAP_4K)
        map.flags = MAP_CAP_2M;
    call.attrs = attrs_of(RIGHT_RX, MEM_WB);
    call.out = base + 4 * GiB;
    call.out &= BITS(34, 12);
    if (call.op != OP_CURSOR)
        call.flags = call.op == OP_SPLIT ? (w.unit == PAGE_SIZE ? 1 : 2) : 0;
    if (call.op == OP_HARVEST)
        call.flags = HARVEST_CLEAR_A | HARVEST_CLEAR_D;
    w.strike = false;
    w.brief = true;
    world_run(&map);
    if (lands[0].kind == w.land->kind || w.land->kind->id == KIND_KERNEL) {
        /* Pages that begin with A and D are made clean. */
        flush_begin(&batch, &w.table);
        assert_int_equal(table_harvest(&w.table, base, 512 * w.unit, 3, NULL, NULL, &batch), E_OK);
        flush_commit(&batch);
    }
    world_forget();
    if (known)
        world_fill_caches();
    w.strike = strike;
    w.brief = false;
    world_run(&call);
    uint64_t events = w.events;
    w.strike = false;
    w.brief = true;
    world_run(&unmap);
    w.brief = false;
    w.strike = strike;
    return events;
}

static void every_moment(const struct land *land, uint64_t unit)
{
    static const unsigned cells[] = {BLOCK + 105, BLOCK + 511};
    struct table_caps caps = world_caps(land->format);
    unsigned runs = 0;

    world_start(land, unit, &caps, 1);
    w.hardware = false;
    for (unsigned s = 0; s < ARRAY_SIZE(scenarios); s++)
        for (unsigned known = 0; known < 2; known++)
            for (unsigned c = 0; c < ARRAY_SIZE(cells); c++) {
                w.strike = true;
                w.strike_cell = cells[c];
                w.strike_part = c;
                w.strike_at = UINT64_MAX;
                uint64_t events = run_scenario(&scenarios[s], known);
                uint64_t step = events <= 160 ? 1 : 1 + events * 100 / (MOMENTS * percent);
                for (uint64_t at = c % step; at < events + step; at += step, runs++) {
                    w.strike_at = at < events ? at : events - 1;
                    run_scenario(&scenarios[s], known);
                }
                /* None is left out around the first stores. */
                uint64_t stores[STORE_EVENTS];
                memcpy(stores, w.store_event, sizeof(stores));
                for (unsigned n = 0; step > 1 && n < 4 * STORE_EVENTS; n++, runs++) {
                    w.strike_at = stores[n / 4] + n % 4 - 2;
                    run_scenario(&scenarios[s], known);
                }
            }
    w.strike = false;
    world_end();
    print_message("%s, cells of %lu KiB: %u moments\n", land->name, (unit / KiB), runs);
}

static void test_every_moment_of_small_pages(void **state)
{
    (void)state;
    for (unsigned l = 0; l < 3; l++)
        every_moment(&lands[l], PAGE_SIZE);
}

static void test_every_moment_of_large_pages(void **state)
{
    (void)state;
    for (unsigned l = 0; l < 3; l++)
        every_moment(&lands[l], 2 * MiB);
}

#define WORLD_TEST(name, land)                                                                     \
    static void test_##name##_4k(void **state)                                                     \
    {                                                                                              \
        (void)state;                                                                               \
        run_world(&lands[land], PAGE_SIZE, 150);                                                   \
    }                                                                                              \
    static void test_##name##_2m(void **state)                                                     \
    {                                                                                              \
        (void)state;                                                                               \
        run_world(&lands[land], 2 * MiB, 100);                                                     \
    }

WORLD_TEST(kernel, 0)
WORLD_TEST(user, 1)
WORLD_TEST(ept, 2)
WORLD_TEST(kernel5, 3)
WORLD_TEST(user5, 4)
WORLD_TEST(ept5, 5)
WORLD_TEST(npt, 6)
WORLD_TEST(npt5, 7)

/* An argument: how many of 100 rounds to do, for who has many mappers to try. */
int main(int argc, char **argv)
{
    if (argc > 1)
        percent = (unsigned)atoi(argv[1]);

    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_moment_of_small_pages),
        cmocka_unit_test(test_every_moment_of_large_pages),
        cmocka_unit_test(test_kernel_4k),
        cmocka_unit_test(test_kernel_2m),
        cmocka_unit_test(test_user_4k),
        cmocka_unit_test(test_user_2m),
        cmocka_unit_test(test_ept_4k),
        cmocka_unit_test(test_ept_2m),
        cmocka_unit_test(test_kernel5_4k),
        cmocka_unit_test(test_kernel5_2m),
        cmocka_unit_test(test_user5_4k),
        cmocka_unit_test(test_user5_2m),
        cmocka_unit_test(test_ept5_4k),
        cmocka_unit_test(test_ept5_2m),
        cmocka_unit_test(test_npt_4k),
        cmocka_unit_test(test_npt_2m),
        cmocka_unit_test(test_npt5_4k),
        cmocka_unit_test(test_npt5_2m),
    };
    return cmocka_run_group_tests_name("mapper conformance", tests, NULL, NULL);
}
