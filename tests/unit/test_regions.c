/*
 * Regions: random changes against a naive list of ranges, whose last word counts, and the shape of
 * the tree, which is what the cost depends on.
 */
#include "mm/frames/regions.c"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#include "tests/unit/random.h"

#define NODES 70000

static struct region_node nodes[NODES];
static struct memregions list;

static int setup(void **state)
{
    (void)state;
    regions_init(&list, nodes, NODES);
    return 0;
}

/* ---- The shape ---- */

static unsigned depth_of(uint32_t n)
{
    unsigned depth = 0;
    for (; nodes[n].parent != NONE; n = nodes[n].parent)
        depth++;
    return depth;
}

/* Every link, every summary, neighbours that differ, the counts. Returns the greatest depth. */
static unsigned check_tree(void)
{
    unsigned deepest = 0;
    size_t used = 1, count = 0;
    uint32_t before = NONE;
    for (uint32_t n = outermost(nodes, list.root, LEFT); n != NONE; n = step(nodes, n, RIGHT)) {
        for (unsigned side = LEFT; side <= RIGHT; side++) {
            uint32_t child = nodes[n].child[side];
            assert_true(child == NONE || nodes[child].parent == n);
            assert_true(priority(child) < priority(n));
        }
        assert_false(refresh(nodes, n));
        if (before == NONE)
            assert_int_equal(nodes[n].start, 0);
        else
            assert_true(nodes[before].start < nodes[n].start &&
                        nodes[before].level != nodes[n].level);
        unsigned depth = depth_of(n);
        deepest = depth > deepest ? depth : deepest;
        count += nodes[n].level != 0;
        used++;
        before = n;
    }
    assert_int_equal(list.used, used);
    assert_int_equal(list.count, count);
    return deepest;
}

enum order { ASCENDING, DESCENDING, SHUFFLED };

static void fill(enum order order, unsigned n)
{
    static uint32_t place[NODES];
    struct random random = {7};
    setup(NULL);
    for (unsigned i = 0; i < n; i++)
        place[i] = order == DESCENDING ? n - 1 - i : i;
    for (unsigned i = n - 1; order == SHUFFLED && i > 0; i--) {
        unsigned j = (unsigned)random_below(&random, i + 1);
        uint32_t other = place[i];
        place[i] = place[j];
        place[j] = other;
    }
    for (unsigned i = 0; i < n; i++)
        assert_int_equal(regions_set(&list, place[i] * 8 + 2, place[i] * 8 + 5, 3), E_OK);
    assert_int_equal(list.count, n);
}

/* What a search costs: no more than four times what a perfect tree would, in any order. */
static void the_depth_is_logarithmic(void **state)
{
    (void)state;
    for (enum order order = ASCENDING; order <= SHUFFLED; order++)
        for (unsigned n = 64; n <= 32768; n *= 8) {
            fill(order, n);
            assert_true(check_tree() < 4 * (highest_bit(list.used) + 1));
        }
}

/* A weak change over everything skips what stands: after the first one there is nothing to do, and
 * the root alone says so. */
static void what_stands_is_skipped(void **state)
{
    (void)state;
    fill(SHUFFLED, 32768);
    assert_int_equal(regions_raise(&list, 0, UINT64_MAX, 1), E_OK);
    assert_int_equal(list.count, 2 * 32768 + 1);
    assert_int_equal(nodes[list.root].lowest, 2);
    assert_int_equal(next_below(nodes, outermost(nodes, list.root, LEFT), 2), NONE);
    check_tree();
    assert_int_equal(regions_clear(&list, 0, UINT64_MAX), E_OK);
    assert_int_equal(list.count, 0);
    assert_int_equal(list.used, 2);
}

/* ---- Against a naive model ---- */

#define CHANGES 200

static struct {
    uint64_t first, last;
    int64_t flags; /* -1: cleared */
    bool raise;
} changes[CHANGES];

static int64_t model_at(unsigned n, uint64_t address)
{
    int64_t flags = -1;
    for (unsigned i = 0; i < n; i++)
        if (address >= changes[i].first && address <= changes[i].last &&
            (!changes[i].raise || changes[i].flags > flags))
            flags = changes[i].flags;
    return flags;
}

static int64_t list_at(uint64_t address)
{
    struct memsegment segment = regions_segment(&list, address);
    assert_true(segment.first <= address && address <= segment.last);
    return segment.gap ? -1 : (int64_t)segment.flags;
}

/* Few places, so that ranges overlap, touch and repeat; of the bottom, the top and the middle. */
static uint64_t random_place(struct random *random)
{
    static const uint64_t around[] = {0, UINT64_C(1) << 63, UINT64_MAX - 40};
    return around[random_below(random, 3)] + random_below(random, 41);
}

static void random_changes_against_a_model(void **state)
{
    struct random random = {11};
    (void)state;
    for (unsigned round = 0; round < 60; round++) {
        setup(NULL);
        for (unsigned n = 0; n < CHANGES; n++) {
            uint64_t a = random_place(&random), b = random_place(&random);
            uint64_t first = a < b ? a : b, last = a < b ? b : a;
            unsigned what = (unsigned)random_below(&random, 6);
            uint32_t flags = (uint32_t)random_below(&random, 5);
            changes[n].first = first;
            changes[n].last = last;
            changes[n].flags = what == 0 ? -1 : (int64_t)flags;
            changes[n].raise = what > 2;
            int error = what == 0   ? regions_clear(&list, first, last)
                        : what <= 2 ? regions_set(&list, first, last, flags)
                                    : regions_raise(&list, first, last, flags);
            assert_int_equal(error, E_OK);
            check_tree();
            for (unsigned i = 0; i < 8; i++) {
                uint64_t address = random_place(&random);
                assert_int_equal(list_at(address), model_at(n + 1, address));
            }
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(the_depth_is_logarithmic, setup),
        cmocka_unit_test_setup(what_stands_is_skipped, setup),
        cmocka_unit_test_setup(random_changes_against_a_model, setup),
    };
    return cmocka_run_group_tests_name("regions", tests, NULL, NULL);
}
