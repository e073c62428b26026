/*
 * The auditor at its limits: without memory, with a flood of findings, asked for one rule alone,
 * with tables that keep no records, and with tables that were damaged at random.
 */
#include "mm/audit/audit.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "mm/frames/buddy.h"
#include "tests/unit/audit_fixture.h"
#include "tests/unit/buddy_env.h"
#include "tests/unit/random.h"

/* ---- At the limits --------------------------------------------------------------------------- */

static void test_no_scratch_memory(void **state)
{
    static hpa_t held[ARENA / PAGE_SIZE];
    uint64_t taken = 0;

    (void)state;
    struct table *guest = start_guest(), *other = start_guest();
    struct mapping shared;
    assert_true(show(guest, 0, 9, RIGHT_RWX));
    assert_true(show(guest, 512 * GiB - PAGE_SIZE, 0, RIGHT_RWX));
    /* What is counted twice takes more memory to count. */
    assert_int_equal(table_translate(guest, 0, &shared), E_OK);
    assert_int_equal(buddy_share(shared.out, guest->owner), E_OK);
    assert_int_equal(map_to(other, 0, shared.out, 2 * MiB, RIGHT_R), E_OK);
    content(AUDIT_ALL);
    assert_int_equal(totals.scratch, 8);
    uint64_t scratch = totals.scratch;
    while (buddy_alloc(0, PURPOSE_TEST, OWNER_HOST, &held[taken]) == E_OK)
        taken++;
    for (uint64_t n = 0; n <= scratch; n++) {
        int error = ask(AUDIT_ALL);
        assert_int_equal(error, n < scratch ? E_NOMEM : E_OK);
        assert_int_equal(free_frames(), n);
        assert_int_equal(totals.found, 0);
        assert_int_equal(buddy_free(held[--taken], 0, OWNER_HOST), E_OK);
    }
    while (taken > 0)
        assert_int_equal(buddy_free(held[--taken], 0, OWNER_HOST), E_OK);
    end_tables();
}

static void test_a_flood_is_counted_not_reported(void **state)
{
    (void)state;
    struct table *guest = start_guest();
    for (unsigned i = 0; i < 700; i++)
        assert_true(show(guest, i * PAGE_SIZE, 0, RIGHT_RWX));
    for (unsigned i = 0; i < 700; i++)
        *slot_of(guest, i * PAGE_SIZE, 1) |= BITS(5, 3); /* memory type 7 */
    assert_int_equal(ask(AUDIT_ALL), E_STATE);
    assert_int_equal(totals.findings[AUDIT_ENTRY_LEGAL], 700);
    assert_int_equal(totals.found, 700);
    assert_int_equal(heard_count, AUDIT_REPORTED);
    assert_true(totals.moot);
    assert_int_equal(audit_run(&audit, NULL, NULL, &totals), E_STATE);
    assert_int_equal(totals.found, 700);
    for (unsigned i = 0; i < 700; i++)
        *slot_of(guest, i * PAGE_SIZE, 1) &= ~(BITS(5, 3) & ~BITS(5, 4));
    content(AUDIT_ALL);
    end_tables();
}

static void test_what_is_not_asked_for_is_not_judged(void **state)
{
    (void)state;
    struct table *guest = start_guest();
    assert_true(show(guest, 0, 0, RIGHT_RWX));
    *slot_of(guest, 0, 1) |= BITS(5, 3);
    guest->open_batches++;
    for (unsigned rule = 0; rule < AUDIT_RULES; rule++) {
        bool broken = rule == AUDIT_ENTRY_LEGAL || rule == AUDIT_BATCHES;
        assert_int_equal(ask(BIT(rule)), broken ? E_STATE : E_OK);
        assert_int_equal(totals.rules & ~BIT(rule), 0);
    }
    guest->open_batches--;
    *slot_of(guest, 0, 1) &= ~BIT(3);
    content(AUDIT_ALL);
    end_tables();
}

static void test_tables_without_records_are_refused(void **state)
{
    static const struct table_env early = {.take = buddy_env_take,
                                           .give = buddy_env_give,
                                           .flush = buddy_env_flush,
                                           .frame_records = false};

    (void)state;
    struct table *guest = start_guest();
    guest->env = &early;
    assert_int_equal(ask(AUDIT_ALL), E_INVAL);
    assert_int_equal(ask(AUDIT_ADDRESS_SPACE), E_OK);
    guest->env = &buddy_env;
    audit.tables = 1000;
    assert_int_equal(ask(AUDIT_ALL), E_INVAL);
    audit.tables = 1;
    end_tables();
}

/* ---- Damage at random ------------------------------------------------------------------------ */

static hpa_t frames[4096];
static unsigned frame_count;

static enum node_verdict list_node(void *ctx, const struct table_node *node)
{
    (void)ctx;
    frames[frame_count++] = node->frame;
    return NODE_ENTER;
}

/* An entry that leads anywhere at all: outside memory, back into the tables, into somebody's data.
 */
static uint64_t damaged(struct random *random, uint64_t entry)
{
    switch (random_below(random, 6)) {
    case 0:
        return entry ^ BIT(random_below(random, 64));
    case 1:
        return entry ^ BIT(random_below(random, 12));
    case 2:
        return random_next(random);
    case 3:
        return (entry & ~BITS(51, 12)) | frames[random_below(random, frame_count)].v | 7;
    case 4:
        return (entry & ~BITS(51, 12)) | random_below(random, ARENA / PAGE_SIZE) << 12;
    }
    return 0;
}

static void test_damaged_tables_do_no_harm(void **state)
{
    struct random random = {7};
    unsigned rounds_with_findings = 0;
    uint64_t rules_seen = 0;

    (void)state;
    struct table *kernel = start(&kernel_kind, PURPOSE_HOST_TABLE, 0);
    described[0].others = AUDIT_UNKNOWN;
    assert_int_equal(map_to(kernel, 0xffff800000000000, hpa(0), ARENA, RIGHT_RW), E_OK);
    struct table *program = start_program(), *guest = start_guest(), *other = start_guest();
    for (unsigned i = 0; i < 40; i++) {
        show(program, 0x400000 + i * 0x5000, 0, (i % 2 ? RIGHT_RX : RIGHT_RW) | RIGHT_U);
        show(guest, i * 0x7000, 0, RIGHT_RWX);
        show(other, i * 0x7000, 0, RIGHT_RWX);
    }
    show(guest, 64 * MiB, 9, RIGHT_RWX);
    show(guest, 512 * GiB, 3, RIGHT_RWX);
    audit.everyone = true;
    content(AUDIT_ALL);
    frame_count = 0;
    for (unsigned i = 0; i < audit.tables; i++)
        table_visit_nodes(&table[i], list_node, NULL);

    for (unsigned round = 0; round < 4000; round++) {
        struct {
            uint64_t *word, was;
        } hit[4];
        unsigned hits = 1 + (unsigned)random_below(&random, ARRAY_SIZE(hit));

        for (unsigned i = 0; i < hits; i++) {
            uint64_t *in = direct(frames[random_below(&random, frame_count)]);
            /* The first slots of a table are mostly those in use. */
            unsigned slot = (unsigned)random_below(&random, random_next(&random) & 1 ? 8 : 512);

            hit[i].word =
                random_below(&random, 8) == 0 ? &frame_records[pfn_of(direct_hpa(in))] : &in[slot];
            hit[i].was = *hit[i].word;
            *hit[i].word = damaged(&random, *hit[i].word);
        }
        /* Nothing outside the arena is touched (the sanitizer sees to that), and there is an end.
         */
        rounds_with_findings += ask(AUDIT_ALL) == E_STATE;
        for (unsigned i = 0; i < heard_count; i++)
            rules_seen |= BIT(heard[i].rule);
        while (hits-- > 0)
            *hit[hits].word = hit[hits].was;
    }
    content(AUDIT_ALL);
    assert_true(rounds_with_findings > 2500);
    for (enum audit_rule rule = AUDIT_TABLE_MEMORY; rule <= AUDIT_WRITE_EXECUTE; rule++)
        if (rule != AUDIT_TABLE_COUNT && !(rules_seen & BIT(rule)))
            fail_msg("no damage of 4000 rounds broke the rule: %s", audit_rule_text(rule));
    end_tables();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_no_scratch_memory, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_a_flood_is_counted_not_reported, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_what_is_not_asked_for_is_not_judged, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(test_tables_without_records_are_refused, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_damaged_tables_do_no_harm, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
