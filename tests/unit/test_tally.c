/* The tally that the auditor keeps its notes in, against plain counters. */
#include "mm/audit/tally.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/unit/audit_fixture.h"
#include "tests/unit/random.h"

#define FRAMES 70000

static void test_tally_against_plain_counters(void **state)
{
    static unsigned model[FRAMES];
    /* The second lies across the end of what one directory reaches. */
    static const uint64_t bases[] = {0, (UINT64_C(1) << 33) - 35000, (UINT64_C(1) << 40) - FRAMES};
    struct random random = {3};

    (void)state;
    for (unsigned b = 0; b < ARRAY_SIZE(bases); b++) {
        uint64_t base = bases[b];
        struct tally tally;

        memset(model, 0, sizeof(model));
        tally_begin(&tally);
        assert_int_equal(tally_uncounted(&tally, base, base + FRAMES), base);
        for (unsigned round = 0; round < 600; round++) {
            uint64_t first = random_below(&random, FRAMES - 3000), again = 0, first_again = 0;
            uint64_t count = 1 + random_below(&random, round % 3 ? 3000 : 130);
            uint64_t expected = 0, expected_first = 0;

            if (round % 5 == 0)
                first = 40000; /* some frames are counted to the limit and beyond */
            for (uint64_t i = first; i < first + count; i++) {
                if (model[i] != 0 && expected++ == 0)
                    expected_first = base + i;
                model[i] += model[i] < TALLY_MOST;
            }
            for (unsigned more = round == 50 ? 300 : 0; more > 0; more--) {
                assert_int_equal(tally_add(&tally, base + 77, 1, &again, &first_again), E_OK);
                model[77] += model[77] < TALLY_MOST;
            }
            assert_int_equal(tally_add(&tally, base + first, count, &again, &first_again), E_OK);
            if (first > 77 || first + count <= 77) {
                assert_int_equal(again, expected);
                if (expected != 0)
                    assert_int_equal(first_again, expected_first);
            }
        }
        assert_int_equal(model[77], TALLY_MOST);
        uint64_t uncounted = FRAMES, counted[] = {FRAMES, FRAMES};
        for (uint64_t i = FRAMES; i-- > 0;) {
            assert_int_equal(tally_count(&tally, base + i), model[i]);
            uncounted = model[i] == 0 ? i : uncounted;
            for (unsigned times = 1; times <= 2; times++)
                counted[times - 1] = model[i] >= times ? i : counted[times - 1];
            if (i % 97 != 0)
                continue;
            assert_int_equal(tally_uncounted(&tally, base + i, base + FRAMES), base + uncounted);
            for (unsigned times = 1; times <= 2; times++)
                assert_int_equal(tally_counted(&tally, base + i, base + FRAMES, times),
                                 base + counted[times - 1]);
        }
        assert_true(tally.frames > 8 && tally.frames < 80);
        tally_end(&tally);
        assert_int_equal(free_frames(), free_before);
    }
}

/* Single frames, far apart: what lies between is passed over. */
static void test_tally_finds_what_was_counted_wherever_it_is(void **state)
{
    static const uint64_t frames[] = {
        3, 64, 32767, 32768, 1u << 20, (1u << 24) + 5, UINT64_C(1) << 33, (UINT64_C(1) << 40) - 1};
    const uint64_t all = UINT64_C(1) << 40;
    uint64_t again, first_again;
    struct tally tally;

    (void)state;
    tally_begin(&tally);
    assert_int_equal(tally_counted(&tally, 0, all, 1), all);
    for (unsigned i = 0; i < ARRAY_SIZE(frames); i++)
        for (unsigned times = 0; times <= i % 2; times++)
            assert_int_equal(tally_add(&tally, frames[i], 1, &again, &first_again), E_OK);
    uint64_t once = 0, twice = 0;
    for (unsigned i = 0; i < ARRAY_SIZE(frames); i++) {
        assert_int_equal(tally_counted(&tally, once, all, 1), frames[i]);
        assert_int_equal(tally_counted(&tally, once, frames[i], 1), frames[i]); /* none before it */
        assert_int_equal(tally_counted(&tally, once, frames[i] + 1, 1), frames[i]);
        once = frames[i] + 1;
        if (i % 2 == 0)
            continue;
        assert_int_equal(tally_counted(&tally, twice, all, 2), frames[i]);
        twice = frames[i] + 1;
    }
    assert_int_equal(tally_counted(&tally, once, all, 1), all);
    tally_end(&tally);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_tally_against_plain_counters, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_tally_finds_what_was_counted_wherever_it_is, set_up,
                                        tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
