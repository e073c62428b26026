/*
 * The auditor on the real mapper and the real buddy: its own self-test; that it is content with
 * what the mapper builds; who may show which memory; guard pages and root registers.
 */
#include "mm/audit/audit_selftest.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "mm/frames/buddy.h"
#include "tests/unit/audit_fixture.h"
#include "tests/unit/random.h"

/* ---- The self-test --------------------------------------------------------------------------- */

static uint64_t rules_tried;

static void one_trial(void *ctx, const struct audit_trial *trial)
{
    (void)ctx;
    if (!trial->named)
        fail_msg("%s: not named; the auditor says \"%s\"", trial->corruption, trial->said);
    rules_tried |= BIT(trial->rule);
}

static void check_each_rule_is_named(const struct table_kind *guest)
{
    const struct audit_selftest setup = {&kernel_kind, &user_kind, guest, caps};
    unsigned trials, failed;

    rules_tried = 0;
    assert_int_equal(audit_selftest(&setup, one_trial, NULL, &trials, &failed), E_OK);
    assert_int_equal(rules_tried & AUDIT_ALL, AUDIT_ALL);
    assert_true(trials > 50);
    assert_int_equal(failed, 0);
}

static void test_each_rule_is_named(void **state)
{
    (void)state;
    check_each_rule_is_named(&ept_kind);
    check_each_rule_is_named(&npt_kind);
}

static void test_each_rule_has_its_own_sentence(void **state)
{
    (void)state;
    for (unsigned i = 0; i < AUDIT_RULES; i++)
        for (unsigned j = 0; j < i; j++)
            assert_string_not_equal(audit_rule_text((enum audit_rule)i),
                                    audit_rule_text((enum audit_rule)j));
    assert_string_equal(audit_rule_text(AUDIT_RULES), "unknown rule");
}

/* The self-test without memory for its tables, and for the scratch of each of its audits. */
static void test_selftest_gives_back_what_it_could_take(void **state)
{
    const struct audit_selftest setup = {&kernel_kind, &user_kind, &ept_kind, caps};
    unsigned trials, failed, short_of = 0;
    struct buddy_stats stats;
    hpa_t held[64];

    (void)state;
    buddy_stats(&stats);
    /* All but n frames are the host's reserve: the self-test's owners get no more than those. */
    for (uint64_t n = 0; n < 300; n += 7) {
        buddy_set_reserve(stats.free_frames - n);
        int error = audit_selftest(&setup, one_trial, NULL, &trials, &failed);
        if (error == E_OK)
            break;
        assert_true(error == E_QUOTA || error == E_NOMEM);
        assert_int_equal(free_frames(), free_before);
        short_of++;
    }
    buddy_set_reserve(0);
    assert_true(short_of > 10);

    /* Nothing at all is left, for whomever. */
    unsigned blocks = 0;
    for (unsigned order = BUDDY_ORDERS; order-- > 0;)
        while (buddy_alloc(order, PURPOSE_TEST, OWNER_HOST, &held[blocks]) == E_OK)
            blocks++;
    assert_int_equal(audit_selftest(&setup, one_trial, NULL, &trials, &failed), E_NOMEM);
    for (unsigned i = 0; i < blocks; i++) {
        struct frame_info info;
        assert_int_equal(frame_query(held[i], &info, NULL), E_OK);
        assert_int_equal(buddy_free(held[i], info.order, OWNER_HOST), E_OK);
    }
}

/* ---- What the mapper builds ------------------------------------------------------------------ */

static void test_content_with_what_the_mapper_builds(void **state)
{
    struct random random = {1};
    struct table *kernel = start(&kernel_kind, PURPOSE_HOST_TABLE, 0);
    uint64_t shown = 0;

    (void)state;
    assert_int_equal(table_preallocate(kernel), E_OK);
    described[0].others = AUDIT_UNKNOWN;
    assert_int_equal(map_to(kernel, 0xffff800000000000, hpa(0), ARENA, RIGHT_RW), E_OK);
    struct table *program = start_program();
    assert_int_equal(table_share_upper(program, kernel), E_OK);
    described[1].upper = kernel;
    for (unsigned i = 0; i < 3; i++)
        start_guest();
    audit.everyone = true;
    content(AUDIT_ALL);
    for (unsigned round = 0; round < 300; round++) {
        unsigned which = 1 + (unsigned)random_below(&random, 4);
        unsigned order = (unsigned)random_below(&random, 10);
        uint64_t in =
            random_below(&random, BIT(which == 1 ? 46 : 47)) & ~((PAGE_SIZE << order) - 1);
        unsigned rights =
            which > 1 ? RIGHT_RWX : (random_next(&random) & 1 ? RIGHT_RW : RIGHT_RX) | RIGHT_U;

        if (in != 0 && free_frames() > 2048 && show(&table[which], in, order, rights))
            shown += UINT64_C(1) << order;
        if (round % 30 == 29)
            content(AUDIT_ALL);
    }
    content(AUDIT_ALL);
    assert_int_equal(totals.memory, shown);
    assert_int_equal(totals.rules, AUDIT_ALL & ~(BIT(AUDIT_ROOT) | BIT(AUDIT_GUARD)));
    uint64_t tables = 0;
    for (unsigned i = 0; i < audit.tables; i++)
        tables += table[i].table_frames;
    assert_int_equal(totals.table_frames, tables);
    assert_true(totals.scratch > 0 && totals.scratch < 12);

    /* Large leaves split, with holes: still every frame is shown by someone. */
    struct table *guest = start_guest();
    assert_true(show(guest, GiB, 9, RIGHT_RWX));
    struct flush_batch batch;
    flush_begin(&batch, guest);
    assert_int_equal(
        table_protect(guest, GiB + 0x5000, PAGE_SIZE, attrs_of(RIGHT_R, MEM_WB), &batch), E_OK);
    flush_commit(&batch);
    content(AUDIT_ALL);
    hpa_t first;
    struct mapping page;
    assert_int_equal(table_translate(guest, GiB, &page), E_OK);
    first = page.out;
    flush_begin(&batch, guest);
    assert_int_equal(table_unmap(guest, GiB + 0x7000, 2 * PAGE_SIZE, &batch), E_OK);
    flush_commit(&batch);
    finds(AUDIT_LEAF_STRAY, "2 frames from here are recorded as guest memory");
    assert_int_equal(heard[heard_count - 1].at.v, first.v + 0x7000);
    assert_int_equal(map_to(guest, GiB + 0x7000, hpa(first.v + 0x7000), 2 * PAGE_SIZE, RIGHT_R),
                     E_OK);
    content(AUDIT_ALL);
    end_tables();
}

static void test_an_owner_without_a_table_is_seen_where_all_tables_are_known(void **state)
{
    hpa_t leaked, block;

    (void)state;
    start_guest();
    assert_int_equal(buddy_alloc(0, PURPOSE_EPT_TABLE, OWNER_FIRST_GUEST + 40, &leaked), E_OK);
    assert_int_equal(buddy_alloc(2, PURPOSE_USER_RAM, OWNER_FIRST_USER, &block), E_OK);
    content(AUDIT_ALL);
    audit.everyone = true;
    finds(AUDIT_TABLE_STRAY, "recorded as EPT tables of owner 56");
    finds(AUDIT_LEAF_STRAY, "4 frames from here are recorded as user memory of owner 2");
    assert_int_equal(totals.found, 2);
    assert_int_equal(buddy_free(leaked, 0, OWNER_FIRST_GUEST + 40), E_OK);
    assert_int_equal(buddy_free(block, 2, OWNER_FIRST_USER), E_OK);
    end_tables();
}

/* ---- Sharing --------------------------------------------------------------------------------- */

static void test_sharing(void **state)
{
    struct mapping page;

    (void)state;
    for (unsigned i = 0; i < 4; i++)
        start_guest();
    assert_true(show(&table[0], 2 * MiB, 9, RIGHT_R));
    assert_int_equal(table_translate(&table[0], 2 * MiB, &page), E_OK);
    for (unsigned i = 1; i < 4; i++) {
        assert_int_equal(buddy_share(page.out, table[0].owner), E_OK);
        assert_int_equal(map_to(&table[i], 4 * MiB, page.out, 2 * MiB, RIGHT_R), E_OK);
        content(AUDIT_ALL);
        assert_int_equal(totals.memory, 512);
    }
    /* One holder maps all but a page of it; then the page twice. */
    struct flush_batch batch;
    flush_begin(&batch, &table[3]);
    assert_int_equal(table_unmap(&table[3], 4 * MiB + 0x3000, PAGE_SIZE, &batch), E_OK);
    flush_commit(&batch);
    finds(AUDIT_LEAF_SHARED, "it is shown 3 times, and its record says it is shared by 4");
    assert_int_equal(heard[0].at.v, page.out.v + 0x3000);
    assert_int_equal(
        map_to(&table[3], 4 * MiB + 0x3000, hpa(page.out.v + 0x3000), PAGE_SIZE, RIGHT_R), E_OK);
    content(AUDIT_ALL);
    assert_int_equal(map_to(&table[3], 0, hpa(page.out.v + 0x5000), PAGE_SIZE, RIGHT_R), E_OK);
    finds(AUDIT_LEAF_SHARED, "it is shown 5 times, and its record says it is shared by 4");
    flush_begin(&batch, &table[3]);
    assert_int_equal(table_unmap(&table[3], 0, PAGE_SIZE, &batch), E_OK);
    flush_commit(&batch);

    /* A frame that its owner alone holds may not be shown by another, nor twice by itself. */
    assert_true(show(&table[0], 0, 0, RIGHT_R));
    assert_int_equal(table_translate(&table[0], 0, &page), E_OK);
    assert_int_equal(map_to(&table[1], 0, page.out, PAGE_SIZE, RIGHT_R), E_OK);
    finds(AUDIT_LEAF_OWNER, "t1: 0x0: at ");
    flush_begin(&batch, &table[1]);
    assert_int_equal(table_unmap(&table[1], 0, PAGE_SIZE, &batch), E_OK);
    flush_commit(&batch);
    content(AUDIT_ALL);
    while (audit.tables > 1) {
        struct table *t = &table[--audit.tables];
        table_visit(t, 0, t->kind->input_last, VISIT_RUNS, free_leaf, NULL);
        assert_int_equal(table_destroy(t), E_OK);
    }
    content(AUDIT_ALL);
    end_tables();
}

/* ---- As a whole --------------------------------------------------------------------------------
 */

/* What kernel and program can do to one frame is not held against each other: the kernel's direct
 * map shows every program's text writable, to the kernel alone. */
static void test_kinds_are_apart(void **state)
{
    struct mapping page;

    (void)state;
    struct table *kernel = start(&kernel_kind, PURPOSE_HOST_TABLE, 0), *program = start_program();
    assert_true(show(program, 0x400000, 0, RIGHT_RX | RIGHT_U));
    assert_int_equal(table_translate(program, 0x400000, &page), E_OK);
    assert_int_equal(map_to(kernel, 0xffff800000000000, page.out, PAGE_SIZE, RIGHT_RW), E_OK);
    content(AUDIT_ALL);
    struct flush_batch batch;
    flush_begin(&batch, kernel);
    assert_int_equal(table_unmap(kernel, 0xffff800000000000, PAGE_SIZE, &batch), E_OK);
    flush_commit(&batch);
    end_tables();
}

static void test_guards(void **state)
{
    struct table *kernel = start(&kernel_kind, PURPOSE_HOST_TABLE, 0);
    struct audit_guard guard = {
        .table = kernel,
        .table_name = "t0",
        .name = "the guard page of a stack",
        .first = 0xffffe00000000000,
        .stride = 5 * PAGE_SIZE,
        .count = 1000,
    };

    (void)state;
    audit.guard = &guard;
    audit.guards = 1;
    hpa_t frame;
    assert_int_equal(buddy_alloc(0, PURPOSE_HEAP, OWNER_HOST, &frame), E_OK);
    assert_int_equal(map_to(kernel, guard.first + 4 * PAGE_SIZE, frame, PAGE_SIZE, RIGHT_RW), E_OK);
    content(AUDIT_ALL);
    assert_int_equal(map_to(kernel, guard.first + 999 * guard.stride, frame, PAGE_SIZE, RIGHT_R),
                     E_OK);
    finds(AUDIT_GUARD, "t0: 0xffffe00001383000: the guard page of a stack is mapped");
    assert_int_equal(totals.found, 1);
    /* Also one that the CPU would refuse is there. */
    *slot_of(kernel, guard.first + 999 * guard.stride, 1) |= BIT(51);
    assert_int_equal(ask(AUDIT_ADDRESS_SPACE), E_STATE);
    assert_int_equal(buddy_free(frame, 0, OWNER_HOST), E_OK);
    end_tables();
}

static int no_root(const struct audit_table *of, struct audit_root *out)
{
    (void)of;
    (void)out;
    return E_STATE;
}

static int five_levels(const struct audit_table *of, struct audit_root *out)
{
    *out = (struct audit_root){of->table->root, 5};
    return E_OK;
}

static void test_root_registers(void **state)
{
    (void)state;
    start_guest();
    described[0].read_root = no_root;
    finds(AUDIT_ROOT, "cannot be read back");
    described[0].read_root = five_levels;
    finds(AUDIT_ROOT, "for 5 levels");
    end_tables();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_each_rule_is_named, set_up, tear_down),
        cmocka_unit_test(test_each_rule_has_its_own_sentence),
        cmocka_unit_test_setup_teardown(test_selftest_gives_back_what_it_could_take, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(test_content_with_what_the_mapper_builds, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(
            test_an_owner_without_a_table_is_seen_where_all_tables_are_known, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_sharing, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_kinds_are_apart, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_guards, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_root_registers, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
