/*
 * The bookkeeping of the MMIO window: where ranges go, who shares them, what is refused; and a
 * random sequence against a plain list of what is placed.
 */
#include "arch/x86_64/mm/window.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "lib/error.h"
#include "tests/unit/random.h"

#define BASE UINT64_C(0xffffd00000000000)
#define SIZE (64 * MiB)

static struct window window;

static int start(void **state)
{
    (void)state;
    window = (struct window){.base = BASE, .size = SIZE};
    return 0;
}

static uint64_t take(uint64_t out, uint64_t size, enum mem_type type, bool fresh)
{
    uint64_t at = 0;
    bool is_fresh = !fresh;

    assert_int_equal(window_take(&window, hpa(out), size, type, &at, &is_fresh), E_OK);
    assert_int_equal(is_fresh, fresh);
    return at;
}

static int take_error(uint64_t out, uint64_t size, enum mem_type type)
{
    struct window before = window;
    uint64_t at;
    bool fresh;
    int error = window_take(&window, hpa(out), size, type, &at, &fresh);

    assert_memory_equal(&window, &before, sizeof(before));
    return error;
}

static void test_sharing(void **state)
{
    struct window_slot slot;
    bool gone;
    uint64_t at = take(0xfee00000, 0x3000, MEM_UC, true);

    (void)state;
    assert_int_equal(take(0xfee01000, 0x1000, MEM_UC, false), at + 0x1000);
    assert_int_equal(window_drop(&window, at + 0x2fff, &slot, &gone), E_OK);
    assert_false(gone);
    assert_int_equal(window_drop(&window, at, &slot, &gone), E_OK);
    assert_true(gone);
    assert_int_equal(slot.at, at);
    assert_int_equal(slot.size, 0x3000);
    assert_int_equal(slot.out.v, 0xfee00000);
    assert_int_equal(window_drop(&window, at, &slot, &gone), E_NOENT);
}

static void test_refusals(void **state)
{
    (void)state;
    take(0xf0000000, 0x4000, MEM_UC, true);
    assert_int_equal(take_error(0xf0001000, 0x1000, MEM_WC), E_EXIST); /* two types */
    assert_int_equal(take_error(0xf0003000, 0x2000, MEM_UC), E_EXIST); /* covered in part */
    assert_int_equal(take_error(0xefffe000, 0x10000, MEM_UC), E_EXIST);
    assert_int_equal(take_error(0xe0000000, 0, MEM_UC), E_INVAL);
    assert_int_equal(take_error(0xe0000800, 0x1000, MEM_UC), E_ALIGN);
    assert_int_equal(take_error(0xe0000000, 0x800, MEM_UC), E_ALIGN);
    assert_int_equal(take_error(~UINT64_C(0xfff), 0x2000, MEM_UC), E_RANGE);
    assert_int_equal(take_error(0xe0000000, SIZE, MEM_UC), E_NOMEM);
    assert_int_equal(take_error(0, UINT64_C(1) << 63, MEM_UC), E_NOMEM);
}

static void test_slots_run_out(void **state)
{
    (void)state;
    for (unsigned i = 0; i < WINDOW_SLOTS; i++)
        take(0x100000000 + i * 0x10000, 0x1000, MEM_UC, true);
    assert_int_equal(take_error(0xe0000000, 0x1000, MEM_UC), E_FULL);
}

static void test_large_ranges_keep_their_place_in_a_large_page(void **state)
{
    uint64_t small = take(0xfee00000, 0x1000, MEM_UC, true);
    uint64_t large = take(0xd0201000, 4 * MiB, MEM_WC, true);

    (void)state;
    assert_int_equal(small, BASE + PAGE_SIZE);
    assert_int_equal(large % (2 * MiB), 0xd0201000 % (2 * MiB));
}

/* Every range lies in the window, with at least one page absent before it, and apart from all
 * others. */
static void check_window(void)
{
    uint64_t end = BASE;

    for (unsigned i = 0; i < window.count; i++) {
        const struct window_slot *slot = &window.slot[i];

        assert_true(slot->at >= end + PAGE_SIZE);
        end = slot->at + slot->size;
        assert_true(slot->users > 0);
        for (unsigned j = 0; j < i; j++)
            assert_true(slot->out.v + slot->size <= window.slot[j].out.v ||
                        window.slot[j].out.v + window.slot[j].size <= slot->out.v);
    }
    assert_true(end <= BASE + SIZE);
}

static void test_random(void **state)
{
    struct random random = {1};
    struct window_slot ignored;
    uint64_t held[4096];
    unsigned count = 0, placed = 0;
    bool gone;

    (void)state;
    for (unsigned step = 0; step < 20000; step++) {
        if (count < 4096 && random_below(&random, 2)) {
            uint64_t out = random_below(&random, 4096) * PAGE_SIZE * 4;
            uint64_t size = (1 + random_below(&random, 8)) * PAGE_SIZE;
            bool fresh;

            if (random_below(&random, 16) == 0)
                size *= 512;
            if (window_take(&window, hpa(out), size, MEM_UC, &held[count], &fresh) == E_OK) {
                count++;
                placed += fresh;
            }
        } else if (count) {
            unsigned which = (unsigned)random_below(&random, count);

            assert_int_equal(window_drop(&window, held[which], &ignored, &gone), E_OK);
            held[which] = held[--count];
        }
        check_window();
    }
    assert_true(placed > 1000);
    while (count)
        assert_int_equal(window_drop(&window, held[--count], &ignored, &gone), E_OK);
    assert_int_equal(window.count, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_sharing, start),
        cmocka_unit_test_setup(test_refusals, start),
        cmocka_unit_test_setup(test_slots_run_out, start),
        cmocka_unit_test_setup(test_large_ranges_keep_their_place_in_a_large_page, start),
        cmocka_unit_test_setup(test_random, start),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
