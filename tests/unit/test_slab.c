/* Small objects: apart from each other, zero when taken, all misuse and damage noticed, no leak
 * unnamed. */
#include "mm/frames/slab.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "lib/bits.h"
#include "lib/error.h"
#include "mm/frames/buddy.h"
#include "tests/unit/hosted.h"
#include "tests/unit/random.h"

#define RAM (4 * MiB)
#define MOST 2000u

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
    memset(arena, 0x5a, RAM);
    direct_base = (uint64_t)(uintptr_t)arena;
    assert_int_equal(buddy_init(metadata, size, RAM), E_OK);
    assert_int_equal(buddy_add(hpa(0), RAM), E_OK);
    return 0;
}

static void verify(struct slab_cache *cache)
{
    char why[160] = "";
    if (slab_check(cache, why, sizeof(why)) != E_OK)
        fail_msg("%s", why);
}

static void test_init_refuses(void **state)
{
    struct slab_cache cache;

    (void)state;
    assert_int_equal(slab_init(&cache, "none", 0, 0), E_INVAL);
    assert_int_equal(slab_init(&cache, "huge", SLAB_SIZE_LIMIT + 1, 0), E_INVAL);
    assert_int_equal(slab_init(&cache, "odd", 24, 24), E_INVAL);
    assert_int_equal(slab_init(&cache, "far", 24, 8192), E_INVAL);
    for (size_t size = 1; size <= SLAB_SIZE_LIMIT; size++)
        for (size_t align = 1; align <= PAGE_SIZE; align *= 8)
            assert_int_equal(slab_init(&cache, "any", size, align), E_OK);
}

/* Objects of several sizes come and go at random; each keeps its bytes, and all is given back. */
static void test_random(void **state)
{
    static const struct {
        size_t size, align;
    } kinds[] = {{1, 1}, {24, 0}, {100, 64}, {640, 16}, {4096, 4096}, {5000, 8}};
    static uint8_t *object[MOST];
    struct random random = {11};

    (void)state;
    for (unsigned k = 0; k < ARRAY_SIZE(kinds); k++) {
        struct slab_cache cache;
        struct buddy_stats stats;
        unsigned n = 0, most = kinds[k].size > 1000 ? 200 : MOST;
        assert_int_equal(slab_init(&cache, "random", kinds[k].size, kinds[k].align), E_OK);
        for (unsigned round = 0; round < 6000; round++) {
            bool growing = round < 3000;
            if (n < most && random_below(&random, 100) < (growing ? 70 : 35)) {
                uint8_t *p = slab_alloc(&cache);
                assert_non_null(p);
                assert_true(is_aligned((uintptr_t)p, kinds[k].align ? kinds[k].align : 8));
                for (size_t i = 0; i < kinds[k].size; i++)
                    assert_int_equal(p[i], 0);
                memset(p, 1 + n % 250, kinds[k].size);
                p[0] = (uint8_t)((uintptr_t)p >> 4);
                object[n++] = p;
            } else if (n > 0) {
                unsigned i = (unsigned)random_below(&random, n);
                uint8_t *p = object[i];
                assert_int_equal(p[0], (uint8_t)((uintptr_t)p >> 4));
                for (size_t j = 2; j < kinds[k].size; j++)
                    assert_int_equal(p[j], p[1]);
                assert_int_equal(slab_free(&cache, p), E_OK);
                assert_true(slab_free(&cache, p) != E_OK); /* again */
                object[i] = object[--n];
            }
            assert_int_equal(cache.in_use, n);
            if (round % 500 == 0)
                verify(&cache);
        }
        while (n > 0)
            assert_int_equal(slab_free(&cache, object[--n]), E_OK);
        verify(&cache);
        assert_int_equal(cache.blocks, 0);
        assert_int_equal(slab_destroy(&cache), 0);
        buddy_stats(&stats);
        assert_int_equal(stats.by_purpose[PURPOSE_HEAP], 0);
    }
}

static void test_misuse(void **state)
{
    struct slab_cache cache, other;
    hpa_t frame;

    (void)state;
    assert_int_equal(slab_init(&cache, "a", 48, 0), E_OK);
    assert_int_equal(slab_init(&other, "b", 48, 0), E_OK);
    uint8_t *a = slab_alloc(&cache), *b = slab_alloc(&other), *c = slab_alloc(&cache);
    assert_int_equal(buddy_alloc(0, PURPOSE_HEAP, OWNER_HOST, &frame), E_OK);
    memset(direct(frame), 0, PAGE_SIZE);
    assert_int_equal(slab_free(&cache, b), E_INVAL);
    assert_int_equal(slab_free(&cache, a + 8), E_INVAL);
    assert_int_equal(slab_free(&cache, (void *)align_down((uintptr_t)a, PAGE_SIZE)), E_INVAL);
    assert_int_equal(slab_free(&cache, direct(frame)), E_INVAL);
    assert_int_equal(slab_free(&cache, arena + 2 * RAM), E_INVAL);
    assert_int_equal(slab_free(&cache, NULL), E_INVAL);
    assert_int_equal(slab_free(&cache, a), E_OK);
    assert_int_equal(slab_free(&cache, a), E_DOUBLE_FREE);
    assert_int_equal(cache.refused, 7);
    assert_int_equal(cache.in_use, 1);
    assert_int_equal(slab_free(&cache, c), E_OK);
    verify(&cache);
    verify(&other);
}

/* One byte before or behind, and one in what was freed. */
static void test_damage(void **state)
{
    struct slab_cache cache;
    char why[160];

    (void)state;
    assert_int_equal(slab_init(&cache, "things", 33, 0), E_OK);
    uint8_t *a = slab_alloc(&cache);
    for (int side = 0; side < 2; side++) {
        uint8_t *at = side ? a + 33 : a - 1, kept = *at;
        *at = 0;
        assert_int_equal(slab_check(&cache, why, sizeof(why)), E_STATE);
        assert_non_null(strstr(why, "slab things: "));
        *at = kept;
        verify(&cache);
    }
    a[33] ^= 1;
    assert_int_equal(slab_free(&cache, a), E_STATE);
    a[33] ^= 1;
    verify(&cache);
    a[32] = 1;
    assert_int_equal(slab_check(&cache, why, sizeof(why)), E_STATE);
    assert_panics(slab_alloc(&cache), "slab things: ");
}

static char logged[200];

void log_line(const char *text, ...)
{
    va_list args;
    va_start(args, text);
    vsnprintf(logged, sizeof(logged), text, args);
    va_end(args);
}

static void test_leak_is_named(void **state)
{
    struct slab_cache cache;
    void *object[100];

    (void)state;
    assert_int_equal(slab_init(&cache, "tokens", 100, 0), E_OK);
    for (unsigned i = 0; i < 100; i++)
        object[i] = slab_alloc(&cache);
    for (unsigned i = 0; i < 98; i++)
        assert_int_equal(slab_free(&cache, object[i]), E_OK);
    assert_int_equal(slab_destroy(&cache), 2);
    assert_non_null(strstr(logged, "slab tokens: 2 objects leaked"));
    assert_int_equal(slab_free(&cache, object[98]), E_OK);
    assert_int_equal(slab_free(&cache, object[99]), E_OK);
    assert_int_equal(slab_destroy(&cache), 0);
    assert_int_equal(buddy_owner_frames(OWNER_HOST), 0);
}

/* All caches that are registered are looked at, and the end names those that have objects left. */
static void test_all_together(void **state)
{
    static struct slab_cache cache[3];
    static const char *const name[] = {"first", "second", "third"};
    void *object[3];
    char why[160] = "";

    (void)state;
    assert_int_equal(slab_destroy_all(), 0);
    for (unsigned i = 0; i < 3; i++) {
        assert_int_equal(slab_init(&cache[i], name[i], 40 + i, 0), E_OK);
        slab_register(&cache[i]);
        object[i] = slab_alloc(&cache[i]);
    }
    assert_int_equal(slab_check_all(why, sizeof(why)), E_OK);
    ((uint8_t *)object[1])[41] ^= 1;
    assert_int_equal(slab_check_all(why, sizeof(why)), E_STATE);
    assert_non_null(strstr(why, "slab second: "));
    ((uint8_t *)object[1])[41] ^= 1;
    assert_int_equal(slab_free(&cache[0], object[0]), E_OK);
    assert_int_equal(slab_free(&cache[1], object[1]), E_OK);
    assert_int_equal(slab_destroy_all(), 1);
    assert_non_null(strstr(logged, "slab third: 1 objects leaked"));
    assert_int_equal(cache[0].blocks + cache[1].blocks, 0);
    assert_int_equal(slab_free(&cache[2], object[2]), E_OK);
    assert_int_equal(slab_destroy_all(), 0);
    assert_int_equal(buddy_owner_frames(OWNER_HOST), 0);
}

static void test_no_memory(void **state)
{
    struct slab_cache cache;
    uint64_t n = 0;

    (void)state;
    assert_int_equal(slab_init(&cache, "all", 2000, 0), E_OK);
    while (slab_alloc(&cache) != NULL)
        n++;
    assert_int_equal(n, cache.in_use);
    assert_int_equal(n, cache.blocks * cache.objects);
    verify(&cache);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_init_refuses, start),
        cmocka_unit_test_setup(test_random, start),
        cmocka_unit_test_setup(test_misuse, start),
        cmocka_unit_test_setup(test_damage, start),
        cmocka_unit_test_setup(test_leak_is_named, start),
        cmocka_unit_test_setup(test_all_together, start),
        cmocka_unit_test_setup(test_no_memory, start),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    free(metadata);
    free(arena);
    return failed;
}
