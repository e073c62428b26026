/*
 * The sets of bits under the allocator, against an array of booleans: every operation, sizes around
 * the powers of 64, memory full of garbage, few levels lazy or all of them.
 */
#include "mm/frames/bittree.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/unit/random.h"

static uint64_t *start(struct bittree *tree, uint64_t bits, uint64_t eager_words)
{
    uint64_t words = bittree_words(bits);
    uint64_t *memory = malloc(words * sizeof(*memory)); /* its end is the sanitizer's business */
    memset(memory, 0xa5, words * sizeof(*memory));
    assert_ptr_equal(bittree_init(tree, memory, bits, eager_words), memory + words);
    return memory;
}

static uint64_t model_next(const bool *model, uint64_t bits, uint64_t bit)
{
    for (; bit < bits; bit++)
        if (model[bit])
            return bit;
    return BITTREE_NONE;
}

static uint64_t model_previous(const bool *model, uint64_t bits, uint64_t bit)
{
    for (bit = bit < bits ? bit + 1 : bits; bit-- > 0;)
        if (model[bit])
            return bit;
    return BITTREE_NONE;
}

/* A whole check, three words at a time. */
static bool check(const struct bittree *tree, uint64_t *count)
{
    struct bittree_check check = {.level = tree->top};
    while (!check.done)
        if (!bittree_check(tree, &check, 3))
            return false;
    *count = check.count;
    return true;
}

static void test_against_model(void **state)
{
    (void)state;
    static const uint64_t sizes[] = {1, 2, 63, 64, 65, 127, 4095, 4096, 4097, 262145, 300000};
    static const uint64_t eager[] = {1, 64, UINT64_MAX};
    struct random random = {7};
    for (unsigned i = 0; i < ARRAY_SIZE(sizes) * ARRAY_SIZE(eager); i++) {
        uint64_t bits = sizes[i / ARRAY_SIZE(eager)], words = eager[i % ARRAY_SIZE(eager)],
                 count = 0;
        struct bittree tree;
        uint64_t *memory = start(&tree, bits, words), found;
        bool *model = calloc(bits, sizeof(bool));

        for (unsigned step = 0; step < 3000; step++) {
            /* Clusters, so that words fill and empty. */
            uint64_t bit = random_below(&random, bits);
            if (random_below(&random, 4) != 0)
                bit = bit % 200 % bits;
            assert_int_equal(bittree_test(&tree, bit), model[bit]);
            if (words == UINT64_MAX)
                assert_int_equal(bittree_test_flat(&tree, bit), model[bit]);
            if (model[bit]) {
                bittree_clear(&tree, bit);
                count--;
            } else {
                bittree_set(&tree, bit);
                count++;
            }
            model[bit] = !model[bit];
            if (step % 16 == 0) {
                bit = random_below(&random, bits + 2);
                assert_int_equal(bittree_next(&tree, bit), model_next(model, bits, bit));
                assert_int_equal(bittree_previous(&tree, bit), model_previous(model, bits, bit));
                if (count > 0)
                    assert_int_equal(bittree_last(&tree), model_previous(model, bits, bits));
            }
            if (step % 300 == 0) {
                assert_true(check(&tree, &found));
                assert_int_equal(found, count);
            }
        }
        for (uint64_t bit = 0; bit < bits; bit++)
            if (model[bit])
                bittree_clear(&tree, bit);
        assert_int_equal(bittree_next(&tree, 0), BITTREE_NONE);
        assert_int_equal(bittree_previous(&tree, bits), BITTREE_NONE);
        assert_true(check(&tree, &found));
        assert_int_equal(found, 0);
        free(model);
        free(memory);
    }
}

/* However large, a set is started by few stores. */
static void test_few_words_are_written(void **state)
{
    (void)state;
    struct bittree tree;
    const uint64_t bits = UINT64_C(1) << 27;
    uint64_t *memory = start(&tree, bits, 64), written = 0;
    for (uint64_t i = 0; i < bittree_words(bits); i++)
        written += memory[i] != UINT64_C(0xa5a5a5a5a5a5a5a5);
    assert_true(written <= 64 + 2);
    bittree_set(&tree, bits - 1);
    bittree_set(&tree, 0);
    assert_int_equal(bittree_last(&tree), bits - 1);
    assert_int_equal(bittree_next(&tree, 1), bits - 1);
    free(memory);
}

static void test_check_finds_damage(void **state)
{
    (void)state;
    static const uint64_t eager[] = {1, 64};
    for (unsigned i = 0; i < ARRAY_SIZE(eager); i++) {
        struct bittree tree;
        uint64_t count, *memory = start(&tree, 300000, eager[i]);
        bittree_set(&tree, 5);
        bittree_set(&tree, 250000);
        for (unsigned level = 0; level <= tree.top; level++) {
            uint64_t *word = bittree_word(&tree, level, 250000);
            uint64_t good = *word;
            /* Below a summary bit nothing is left, or what is there is not summed up. */
            *word = good & ~bittree_mask(level, 250000);
            assert_false(check(&tree, &count) && count == 2);
            *word = good;
        }
        assert_true(check(&tree, &count));
        assert_int_equal(count, 2);
        free(memory);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_against_model),
        cmocka_unit_test(test_few_words_are_written),
        cmocka_unit_test(test_check_finds_damage),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
