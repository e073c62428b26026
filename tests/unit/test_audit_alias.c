/*
 * The auditor's rule that nothing is writable and executable: across tables, against a comparison
 * of every pair of runs, how its cost grows, and without memory.
 */
#include "mm/audit/audit.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "mm/frames/buddy.h"
#include "mm/paging/ops.h"
#include "tests/unit/audit_fixture.h"
#include "tests/unit/random.h"

/* ---- Writable or executable ------------------------------------------------------------------ */

static void test_aliases_across_tables_and_many_runs(void **state)
{
    struct mapping page;

    (void)state;
    struct table *one = start_program(), *two = start_program();
    /* Every other page executable: many times as many runs as are held at a time. */
    for (unsigned i = 0; i < 300; i++)
        assert_true(
            show(one, 0x400000 + i * PAGE_SIZE, 0, (i % 2 ? RIGHT_RX : RIGHT_RW) | RIGHT_U));
    assert_true(show(one, one->kind->input_last + 1 - PAGE_SIZE, 0, RIGHT_RX | RIGHT_U));
    content(AUDIT_ALL);

    /* The last page of the space, writable through the other program's table. */
    assert_int_equal(table_translate(one, one->kind->input_last, &page), E_OK);
    assert_int_equal(buddy_share(page.out, one->owner), E_OK);
    assert_int_equal(map_to(two, 0x1000, page.out, PAGE_SIZE, RIGHT_RW | RIGHT_U), E_OK);
    finds(AUDIT_WRITE_EXECUTE, "t1: 0x1000: at ");
    assert_int_equal(totals.found, 1);
    assert_non_null(strstr(heard[0].detail, "0x7fffffffe000 of t0"));

    /* Somewhere in the middle, both ways around. */
    struct flush_batch batch;
    flush_begin(&batch, two);
    assert_int_equal(
        table_protect(two, 0x1000, PAGE_SIZE, attrs_of(RIGHT_R | RIGHT_U, MEM_WB), &batch), E_OK);
    flush_commit(&batch);
    content(AUDIT_ALL);
    flush_begin(&batch, one);
    assert_int_equal(table_protect(one, 0x400000 + 201 * PAGE_SIZE, PAGE_SIZE,
                                   attrs_of(USER_RWX, MEM_WB), &batch),
                     E_OK);
    flush_commit(&batch);
    finds(AUDIT_WRITE_EXECUTE, "writable and executable");
    assert_int_equal(totals.found, 1);
    end_tables();
}

/* ---- Against every pair of runs ---------------------------------------------------------------
 */

#define RUNS 400
#define POOL 24

static struct {
    unsigned table;
    struct mapping run;
} runs[RUNS];
static unsigned run_count, run_table;

static int list_run(void *ctx, const struct mapping *run)
{
    (void)ctx;
    assert_true(run_count < RUNS);
    runs[run_count].table = run_table;
    runs[run_count++].run = *run;
    return 0;
}

/* The first executable run that shares a frame with writable run `w`, and is another; RUNS: none.
 */
static unsigned executable_alias(unsigned w, uint64_t *first)
{
    const struct mapping *a = &runs[w].run;

    for (unsigned x = 0; x < run_count; x++) {
        const struct mapping *b = &runs[x].run;

        *first = a->out.v > b->out.v ? a->out.v : b->out.v;
        if (x != w && (b->attrs.rights & RIGHT_X) && *first <= a->out.v + (a->last - a->in) &&
            *first <= b->out.v + (b->last - b->in))
            return x;
    }
    return RUNS;
}

static void expect_next(unsigned *expected, unsigned which, uint64_t in, uint64_t at,
                        const char *fragment)
{
    if (*expected < heard_count) {
        const struct audit_finding *f = &heard[*expected];

        assert_int_equal(f->rule, AUDIT_WRITE_EXECUTE);
        assert_string_equal(f->table, described[which].name);
        assert_int_equal(f->in, in);
        assert_int_equal(f->at.v, at);
        assert_non_null(strstr(f->detail, fragment));
    }
    (*expected)++;
}

/* Compares what the auditor found with what each pair of runs says. Returns how much that was. */
static unsigned compare_with_pairs(void)
{
    unsigned expected = 0;

    run_count = 0;
    for (run_table = 0; run_table < audit.tables; run_table++)
        table_visit(&table[run_table], user_kind.input_first, user_kind.input_last, VISIT_RUNS,
                    list_run, NULL);
    ask(BIT(AUDIT_WRITE_EXECUTE));
    for (unsigned i = 0; i < run_count; i++)
        if ((runs[i].run.attrs.rights & (RIGHT_W | RIGHT_X)) == (RIGHT_W | RIGHT_X))
            expect_next(&expected, runs[i].table, runs[i].run.in, runs[i].run.out.v,
                        "writable and executable, up to");
    for (unsigned i = 0; i < run_count; i++) {
        const struct mapping *run = &runs[i].run;
        uint64_t first;
        unsigned x = run->attrs.rights & RIGHT_W ? executable_alias(i, &first) : RUNS;
        char fragment[64];

        if (x == RUNS)
            continue;
        snprintf(fragment, sizeof(fragment), "at another address, 0x%lx of %s",
                 runs[x].run.in + (first - runs[x].run.out.v), described[runs[x].table].name);
        expect_next(&expected, runs[i].table, run->in + (first - run->out.v), first, fragment);
    }
    assert_int_equal(totals.found, expected);
    assert_int_equal(heard_count, expected < AUDIT_REPORTED ? expected : AUDIT_REPORTED);
    assert_int_equal(totals.rules, BIT(AUDIT_WRITE_EXECUTE));
    return expected;
}

/* One mapping at random: a page of the pool, or all or a part of the large block. */
static void map_something(struct random *random, const hpa_t *pool, hpa_t block)
{
    static const unsigned rights[] = {RIGHT_R, RIGHT_R, RIGHT_RW, RIGHT_RW, RIGHT_RX, RIGHT_RWX};
    struct table *t = &table[random_below(random, audit.tables)];
    unsigned kinds = random_below(random, 8) == 0 ? ARRAY_SIZE(rights) : ARRAY_SIZE(rights) - 1;
    unsigned right = rights[random_below(random, kinds)] | RIGHT_U;
    uint64_t page = random_below(random, 40) * PAGE_SIZE;

    switch (random_below(random, 8)) {
    case 0:
        map_to(t, 4 * MiB + random_below(random, 3) * 2 * MiB, block, 2 * MiB, right);
        break;
    case 1:
        map_to(t, 12 * MiB + page, hpa(block.v + page), 3 * PAGE_SIZE, right);
        break;
    default:
        map_to(t, MiB + page, pool[random_below(random, POOL)], PAGE_SIZE, right);
    }
}

static void test_against_every_pair_of_runs(void **state)
{
    struct random random = {5};
    unsigned none = 0, few = 0, many = 0;
    hpa_t pool[POOL], block;

    (void)state;
    for (unsigned i = 0; i < 3; i++)
        described[start_program() - table].shows = 0; /* the frames are this test's */
    for (unsigned i = 0; i < POOL; i++)
        assert_int_equal(buddy_alloc(0, PURPOSE_TEST, OWNER_HOST, &pool[i]), E_OK);
    assert_int_equal(buddy_alloc(9, PURPOSE_TEST, OWNER_HOST, &block), E_OK);
    for (unsigned round = 0; round < 1500; round++) {
        for (uint64_t n = 1 + random_below(&random, round % 2 ? 12 : 200); n > 0; n--)
            map_something(&random, pool, block);
        unsigned found = compare_with_pairs();
        none += found == 0;
        few += found > 0 && found <= AUDIT_REPORTED;
        many += found > AUDIT_REPORTED;
        for (unsigned i = 0; i < audit.tables; i++) {
            struct flush_batch batch;

            flush_begin(&batch, &table[i]);
            assert_int_equal(table_unmap(&table[i], 0x1000, 16 * MiB, &batch), E_OK);
            flush_commit(&batch);
        }
    }
    assert_true(none > 100 && few > 100 && many > 100);
    for (unsigned i = 0; i < POOL; i++)
        assert_int_equal(buddy_free(pool[i], 0, OWNER_HOST), E_OK);
    assert_int_equal(buddy_free(block, 9, OWNER_HOST), E_OK);
    end_tables();
}

/* ---- What it costs ------------------------------------------------------------------------------
 */

static uint64_t runs_shown;

struct shown_to {
    visit_fn fn;
    void *ctx;
};

static int count_run(void *ctx, const struct mapping *run)
{
    const struct shown_to *to = ctx;

    runs_shown++;
    return to->fn(to->ctx, run);
}

static int visit_counting(struct table *t, uint64_t first, uint64_t last, unsigned flags,
                          visit_fn fn, void *ctx)
{
    struct shown_to to = {fn, ctx};

    return t->kind->ops->visit(t, first, last, flags, count_run, &to);
}

/* The runs that the auditor looks at for this rule. */
static uint64_t runs_looked_at(struct table *t)
{
    struct table_ops counting = *t->ops;

    counting.visit = visit_counting;
    t->ops = &counting;
    runs_shown = 0;
    ask(BIT(AUDIT_WRITE_EXECUTE));
    t->ops = t->kind->ops;
    return runs_shown;
}

/* Pages by turns executable and writable, each a run of its own: each is looked at twice, however
 * many there are, and once more where there is something to name. */
static void test_the_cost_grows_with_the_pages(void **state)
{
    struct table *program = start_program();
    uint64_t pages = 0;
    struct mapping page;

    (void)state;
    for (uint64_t most = 256; most <= 4096; most *= 4) {
        for (; pages < most; pages++)
            assert_true(show(program, 0x400000 + pages * PAGE_SIZE, 0,
                             (pages % 2 ? RIGHT_RX : RIGHT_RW) | RIGHT_U));
        assert_int_equal(runs_looked_at(program), 2 * pages);
        assert_int_equal(totals.found, 0);
        assert_true(totals.scratch <= 4);
    }
    content(AUDIT_ALL);
    assert_int_equal(table_translate(program, 0x400000 + PAGE_SIZE, &page), E_OK);
    assert_int_equal(map_to(program, 0x10000, page.out, PAGE_SIZE, RIGHT_RW | RIGHT_U), E_OK);
    assert_int_equal(runs_looked_at(program), 3 * (pages + 1));
    assert_int_equal(totals.found, 1);
    struct flush_batch batch;
    flush_begin(&batch, program);
    assert_int_equal(table_unmap(program, 0x10000, PAGE_SIZE, &batch), E_OK);
    flush_commit(&batch);
    end_tables();
}

static void test_without_memory_it_is_not_judged(void **state)
{
    static hpa_t held[ARENA / PAGE_SIZE];
    struct table *program = start_program();
    uint64_t taken = 0;

    (void)state;
    assert_true(show(program, 0x400000, 0, RIGHT_RX | RIGHT_U));
    assert_true(show(program, 0x401000, 0, RIGHT_RW | RIGHT_U));
    while (buddy_alloc(0, PURPOSE_TEST, OWNER_HOST, &held[taken]) == E_OK)
        taken++;
    for (uint64_t frames = 0; frames <= 4; frames++) {
        assert_int_equal(ask(BIT(AUDIT_WRITE_EXECUTE)), frames < 4 ? E_NOMEM : E_OK);
        assert_int_equal(totals.rules, frames < 4 ? 0 : BIT(AUDIT_WRITE_EXECUTE));
        assert_int_equal(free_frames(), frames);
        assert_int_equal(buddy_free(held[--taken], 0, OWNER_HOST), E_OK);
    }
    while (taken > 0)
        assert_int_equal(buddy_free(held[--taken], 0, OWNER_HOST), E_OK);
    end_tables();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_aliases_across_tables_and_many_runs, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(test_against_every_pair_of_runs, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_the_cost_grows_with_the_pages, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_without_memory_it_is_not_judged, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
