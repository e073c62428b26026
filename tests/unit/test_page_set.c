/* Sets of pages against an array of flags: what is covered, added, found again, emptied; and that
 * every frame comes back, also where there are too few. */
#include "vm/page_set.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "lib/bits.h"
#include "lib/error.h"
#include "mm/frames/buddy.h"
#include "tests/unit/random.h"

#define RAM (8 * MiB)
#define OWNER 20
/* Pages of the model: three stretches, the last of which ends where a set can end. */
#define STRETCH 40000u
static const uint64_t stretch[] = {0, 130 * GiB + 5 * PAGE_SIZE,
                                   (UINT64_C(1) << 53) - STRETCH *PAGE_SIZE};

static uint8_t *arena;
static void *metadata;

static int start(void **state)
{
    uint64_t size = buddy_metadata_size(RAM);

    (void)state;
    free(metadata);
    metadata = aligned_alloc(PAGE_SIZE, size);
    if (!arena)
        arena = aligned_alloc(2 * MiB, RAM);
    direct_base = (uint64_t)(uintptr_t)arena;
    assert_int_equal(buddy_init(metadata, size, RAM), E_OK);
    assert_int_equal(buddy_add(hpa(0), RAM), E_OK);
    return 0;
}

static bool model[ARRAY_SIZE(stretch)][STRETCH];

static void expect_model(const struct page_set *set)
{
    uint64_t page = 0, from = 0, pages = 0;

    for (unsigned s = 0; s < ARRAY_SIZE(stretch); s++)
        for (unsigned i = 0; i < STRETCH; i++)
            if (model[s][i]) {
                assert_true(page_set_next(set, from, &page));
                assert_int_equal(page, stretch[s] + i * PAGE_SIZE);
                from = page + PAGE_SIZE;
                pages++;
            }
    assert_false(page_set_next(set, from, &page));
    assert_int_equal(set->pages, pages);
}

static const struct page_set *visited;

static void test_against_flags(void **state)
{
    struct random random = {1};
    struct page_set set;

    (void)state;
    page_set_begin(&set, OWNER);
    page_set_add(&set, 0, PAGE_SIZE);
    assert_int_equal(set.pages, 0); /* it covers nothing */
    for (unsigned s = 0; s < ARRAY_SIZE(stretch); s++)
        assert_int_equal(page_set_cover(&set, stretch[s], STRETCH * PAGE_SIZE), E_OK);
    assert_int_equal(buddy_owner_frames(OWNER), set.frames);
    for (unsigned round = 0; round < 30; round++) {
        for (unsigned n = 0; n < 40; n++) {
            unsigned s = (unsigned)random_below(&random, ARRAY_SIZE(stretch));
            uint64_t first = random_below(&random, STRETCH), count = random_below(&random, 200);

            count = count < STRETCH - first ? count : STRETCH - first;
            page_set_add(&set, stretch[s] + first * PAGE_SIZE, count * PAGE_SIZE);
            memset(&model[s][first], true, count);
        }
        expect_model(&set);
        for (unsigned n = 0; n < 1000; n++) {
            unsigned s = (unsigned)random_below(&random, ARRAY_SIZE(stretch));
            uint64_t i = random_below(&random, STRETCH);

            assert_int_equal(page_set_has(&set, stretch[s] + i * PAGE_SIZE + 17), model[s][i]);
        }
        if (round % 5 == 4) {
            page_set_clear(&set);
            memset(model, 0, sizeof(model));
        }
    }
    page_set_end(&set);
    assert_int_equal(buddy_owner_frames(OWNER), 0);
}

/* Ascending, each once, and no further than asked. */
static int expect_next(void *ctx, uint64_t page)
{
    uint64_t *from = ctx, next;

    assert_true(page_set_next(visited, *from, &next));
    assert_int_equal(page, next);
    *from = page + PAGE_SIZE;
    return page == stretch[1] + 5 * PAGE_SIZE;
}

static void test_visit(void **state)
{
    struct random random = {2};
    struct page_set set;
    uint64_t from = 0, next;

    (void)state;
    page_set_begin(&set, OWNER);
    visited = &set;
    assert_int_equal(page_set_visit(&set, expect_next, &from), 0);
    for (unsigned s = 0; s < ARRAY_SIZE(stretch); s++) {
        assert_int_equal(page_set_cover(&set, stretch[s], STRETCH * PAGE_SIZE), E_OK);
        for (unsigned n = 0; n < 100; n++)
            page_set_add(&set, stretch[s] + (6 + random_below(&random, STRETCH - 6)) * PAGE_SIZE,
                         PAGE_SIZE);
    }
    assert_int_equal(page_set_visit(&set, expect_next, &from), 0);
    assert_false(page_set_next(&set, from, &next));
    page_set_add(&set, stretch[1] + 5 * PAGE_SIZE, PAGE_SIZE);
    from = 0;
    assert_int_equal(page_set_visit(&set, expect_next, &from), 1);
    assert_int_equal(from, stretch[1] + 6 * PAGE_SIZE);
    page_set_end(&set);
}

static void test_runs(void **state)
{
    struct page_set set;
    uint64_t first, last;

    (void)state;
    page_set_begin(&set, OWNER);
    assert_int_equal(page_set_cover(&set, 0, 256 * MiB), E_OK);
    page_set_add(&set, 64 * MiB - PAGE_SIZE + 1, PAGE_SIZE); /* parts of two pages, of two leaves */
    page_set_add(&set, 0x3000, 1);
    assert_true(page_set_run(&set, 0, &first, &last));
    assert_int_equal(first, 0x3000);
    assert_int_equal(last, 0x3fff);
    assert_true(page_set_run(&set, last + 1, &first, &last));
    assert_int_equal(first, 64 * MiB - PAGE_SIZE);
    assert_int_equal(last, 64 * MiB + PAGE_SIZE - 1);
    assert_false(page_set_run(&set, last + 1, &first, &last));
    page_set_end(&set);
}

static void test_shortage_and_ranges(void **state)
{
    struct page_set set;

    (void)state;
    page_set_begin(&set, OWNER);
    assert_int_equal(page_set_cover(&set, 0, 0), E_RANGE);
    assert_int_equal(page_set_cover(&set, UINT64_C(1) << 53, PAGE_SIZE), E_RANGE);
    assert_int_equal(page_set_cover(&set, UINT64_MAX - PAGE_SIZE + 1, PAGE_SIZE), E_RANGE);
    for (unsigned frames = 0; frames < 8; frames++) {
        buddy_set_quota(OWNER, frames);
        int error = page_set_cover(&set, 0, 256 * MiB); /* three directories, four leaves */
        assert_int_equal(error, frames < 7 ? E_QUOTA : E_OK);
        page_set_add(&set, 0, 256 * MiB);
        page_set_end(&set);
        assert_int_equal(buddy_owner_frames(OWNER), 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_against_flags, start),
        cmocka_unit_test_setup(test_visit, start),
        cmocka_unit_test_setup(test_runs, start),
        cmocka_unit_test_setup(test_shortage_and_ranges, start),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
