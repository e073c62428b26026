/*
 * Every kind in the world of tests/property/world.h: random operations, with CPUs at work between any two
 * accesses of the mapper. What is checked is said there.
 */
#include "tests/property/world.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <cmocka.h>

#include "arch/x86_64/vmx/vmcs.h"
#include "lib/lock.h"

/* The EPTP is read and written through the VMCS, of which this program has none. */
int vmcs_read(uint32_t field, uint64_t *out)
{
    (void)field;
    (void)out;
    return E_STATE;
}

int vmcs_write(uint32_t field, uint64_t value)
{
    (void)field;
    (void)value;
    return E_STATE;
}

_Noreturn void world_fail(const char *message)
{
    fail_msg("%s", message);
    abort();
}

/* The CPUs that there are to run on: with everything; without 1 GiB pages and A and D in EPTs; and so on. */
static struct table_caps some_cpu(enum sdm_format format, unsigned n)
{
    struct table_caps caps = world_caps(format);

    switch (n % 4) {
    case 1:
        caps.leaf_top = 2;
        caps.accessed_dirty = format == SDM_HOST;
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
    print_message("%s, cells of %llu KiB: %llu stores, %llu walks, %llu flushes, of which %llu "
                  "needless\n",
                  land->name, (unsigned long long)(unit / KiB), (unsigned long long)stores,
                  (unsigned long long)walks, (unsigned long long)flushes,
                  (unsigned long long)needless);
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

/* An argument: how many of 100 rounds to do, for who has many mappers to try. */
int main(int argc, char **argv)
{
    if (argc > 1)
        percent = (unsigned)atoi(argv[1]);

    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_kernel_4k),  cmocka_unit_test(test_kernel_2m),
        cmocka_unit_test(test_user_4k),    cmocka_unit_test(test_user_2m),
        cmocka_unit_test(test_ept_4k),     cmocka_unit_test(test_ept_2m),
        cmocka_unit_test(test_kernel5_4k), cmocka_unit_test(test_kernel5_2m),
        cmocka_unit_test(test_user5_4k),   cmocka_unit_test(test_user5_2m),
        cmocka_unit_test(test_ept5_4k),    cmocka_unit_test(test_ept5_2m),
    };
    return cmocka_run_group_tests_name("mapper conformance", tests, NULL, NULL);
}
