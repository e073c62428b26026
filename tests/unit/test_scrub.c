/* What is in a frame when it changes hands: zeros for guests and programs, whole poison for
 * debugging. */
#include "mm/frames/scrub.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "lib/bits.h"
#include "lib/error.h"
#include "mm/frames/buddy.h"
#include "mm/paging/page_source.h"
#include "tests/unit/hosted.h"

#define RAM (8 * MiB)

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
    memset(arena, 0x5a, RAM); /* what firmware left */
    direct_base = (uint64_t)(uintptr_t)arena;
    assert_int_equal(buddy_init(metadata, size, RAM), E_OK);
    poison_stop(); /* a panic that was expected has left the lock taken, until now */
    assert_int_equal(buddy_add(hpa(0), RAM), E_OK);
    return 0;
}

static bool is_zero(hpa_t block, uint64_t size)
{
    const uint8_t *byte = direct(block);
    for (uint64_t i = 0; i < size; i++)
        if (byte[i] != 0)
            return false;
    return true;
}

/* One owner after the other gets all of memory: nothing of the one before is left, at any order. */
static void test_nothing_is_left(void **state)
{
    hpa_t block[RAM / PAGE_SIZE];

    (void)state;
    for (unsigned order = 0; order <= 9; order += 3)
        for (owner_t owner = 20; owner < 22; owner++) {
            unsigned n = 0;
            uint64_t before = scrub_count();
            while (scrub_alloc(order, PURPOSE_GUEST_RAM, owner, &block[n]) == E_OK) {
                assert_true(is_zero(block[n], PAGE_SIZE << order));
                memset(direct(block[n]), 0x11 * (owner - 18), PAGE_SIZE << order);
                n++;
            }
            assert_int_equal(n, (RAM / PAGE_SIZE) >> order);
            assert_int_equal(scrub_count(), before + RAM / PAGE_SIZE); /* each once */
            while (n-- > 0)
                assert_int_equal(buddy_free(block[n], order, owner), E_OK);
        }
}

/* A failure zeroes nothing; the host's own frames and copies are not zeroed on the way. */
static void test_only_what_is_needed(void **state)
{
    struct buddy_pages pages;
    struct mapping from = {.out = hpa(0)};
    uint64_t before = scrub_count();
    hpa_t block, copied;

    (void)state;
    assert_int_equal(buddy_set_quota(20, 1), E_OK);
    assert_int_equal(scrub_alloc(1, PURPOSE_GUEST_RAM, 20, &block), E_QUOTA);
    assert_int_equal(buddy_alloc(0, PURPOSE_HOST_TABLE, OWNER_HOST, &block), E_OK);
    assert_int_equal(scrub_count(), before);

    buddy_pages_init(&pages, PURPOSE_GUEST_RAM, 21);
    from.out = block;
    memset(direct(block), 0x77, PAGE_SIZE);
    assert_int_equal(pages.source.take(&pages.source, PAGE_SIZE, &copied), E_OK);
    pages.source.fill(&pages.source, copied, PAGE_SIZE, &from);
    assert_memory_equal(direct(copied), direct(block), PAGE_SIZE);
    assert_int_equal(scrub_count(), before);
    pages.source.fill(&pages.source, copied, PAGE_SIZE, NULL);
    assert_true(is_zero(copied, PAGE_SIZE));
    assert_int_equal(scrub_count(), before + 1);
}

static void take_all(owner_t owner)
{
    hpa_t block;
    while (buddy_alloc(0, PURPOSE_TEST, owner, &block) == E_OK)
        continue;
}

/* By whichever call a block is freed and taken. */
static void test_poison(void **state)
{
    hpa_t block, many[3];

    (void)state;
    poison_start();
    assert_int_equal(buddy_alloc(3, PURPOSE_TEST, 20, &block), E_OK);
    assert_int_equal(buddy_free(block, 3, 20), E_OK);
    for (uint64_t at = 0; at < PAGE_SIZE << 3; at += 8)
        assert_true(*(uint64_t *)direct(hpa(block.v + at)) == POISON_WORD);
    for (unsigned i = 0; i < 3; i++)
        assert_int_equal(buddy_alloc(0, PURPOSE_TEST, 20, &many[i]), E_OK);
    assert_int_equal(buddy_free_frames(many, 3, 20), E_OK);
    for (unsigned i = 0; i < 3; i++)
        assert_true(*(uint64_t *)direct(many[i]) == POISON_WORD);
    take_all(20); /* all of it whole */
    buddy_drain();
}

static void test_late_write_is_found(void **state)
{
    hpa_t block;

    (void)state;
    poison_start();
    assert_int_equal(buddy_alloc(0, PURPOSE_TEST, 20, &block), E_OK);
    assert_int_equal(buddy_free(block, 0, 20), E_OK);
    ((uint64_t *)direct(block))[511] = 1;
    assert_panics(take_all(21), "was written to after it was freed: 0x1 at offset 0xff8");
}

static void test_late_write_is_found_by_lists(void **state)
{
    static hpa_t list[1000];

    (void)state;
    poison_start();
    assert_int_equal(buddy_alloc_many(list, 1000, PURPOSE_TEST, 20), E_OK);
    assert_int_equal(buddy_free_frames(list, 1000, 20), E_OK);
    ((uint8_t *)direct(list[567]))[24]++;
    assert_panics(buddy_alloc_many(list, 1000, PURPOSE_TEST, 20), "after it was freed");
}

static void test_late_write_is_found_at(void **state)
{
    hpa_t block;

    (void)state;
    poison_start();
    assert_int_equal(buddy_alloc(4, PURPOSE_TEST, 20, &block), E_OK);
    assert_int_equal(buddy_free(block, 4, 20), E_OK);
    ((uint8_t *)direct(block))[5 * PAGE_SIZE + 16]++;
    assert_panics(buddy_alloc_at(block, 4, PURPOSE_TEST, 20), "after it was freed");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_nothing_is_left, start),
        cmocka_unit_test_setup(test_only_what_is_needed, start),
        cmocka_unit_test_setup(test_poison, start),
        cmocka_unit_test_setup(test_late_write_is_found, start),
        cmocka_unit_test_setup(test_late_write_is_found_by_lists, start),
        cmocka_unit_test_setup(test_late_write_is_found_at, start),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    free(metadata);
    free(arena);
    return failed;
}
