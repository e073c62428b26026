/*
 * A visit to the nodes of a table: which are shown, in what order, with what; that none is read
 * before it was shown, nor below one that is skipped.
 */
#include "mm/paging/table.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/unit/audit_fixture.h"

#define NODES 64

static struct table_node seen[NODES];
static unsigned count;
static unsigned skip_level, stop_after; /* 0: none */

static enum node_verdict note(void *ctx, const struct table_node *node)
{
    (void)ctx;
    assert_true(count < NODES);
    seen[count++] = *node;
    if (count == stop_after)
        return NODE_STOP;
    return node->level == skip_level ? NODE_SKIP : NODE_ENTER;
}

static int visit(struct table *t)
{
    count = 0;
    return table_visit_nodes(t, note, NULL);
}

static void check_node(unsigned n, unsigned level, uint64_t first, unsigned parent, unsigned index)
{
    const struct table_node *node = &seen[n];
    uint64_t *entries = direct(seen[parent].frame);

    assert_int_equal(node->level, level);
    assert_int_equal(node->first, first);
    assert_int_equal(node->last, first + (level_size(&ept_kind, level + 1) - 1));
    assert_int_equal(node->parent.v, seen[parent].frame.v);
    assert_int_equal(node->index, index);
    assert_int_equal(node->rights & RIGHT_RWX, RIGHT_RWX);
    assert_int_equal(entries[index] & BITS(51, 12), node->frame.v);
}

static void check_root(const struct table *t)
{
    assert_int_equal(seen[0].frame.v, t->root.v);
    assert_int_equal(seen[0].level, t->kind->levels);
    assert_int_equal(seen[0].first, t->kind->input_first);
    assert_int_equal(seen[0].last, t->kind->input_last);
    assert_int_equal(seen[0].parent.v, 0);
}

static void test_nodes_of_a_guest(void **state)
{
    struct table *guest = start_guest();

    (void)state;
    skip_level = stop_after = 0;
    assert_int_equal(visit(guest), 0);
    assert_int_equal(count, 1);
    check_root(guest);
    assert_true(show(guest, 0x5000, 0, RIGHT_RWX));
    assert_true(show(guest, 2 * MiB, 9, RIGHT_RWX)); /* a leaf: no node */
    assert_true(show(guest, 3 * GiB + 6 * MiB, 0, RIGHT_RWX));
    assert_true(show(guest, 5 * 512 * GiB, 0, RIGHT_RWX));
    assert_int_equal(visit(guest), 0);
    assert_int_equal(count, guest->table_frames);
    check_root(guest);
    check_node(1, 3, 0, 0, 0);
    check_node(2, 2, 0, 1, 0);
    check_node(3, 1, 0, 2, 0);
    check_node(4, 2, 3 * GiB, 1, 3);
    check_node(5, 1, 3 * GiB + 6 * MiB, 4, 3);
    check_node(6, 3, 5 * 512 * GiB, 0, 5);
    check_node(7, 2, 5 * 512 * GiB, 6, 0);
    check_node(8, 1, 5 * 512 * GiB, 7, 0);

    skip_level = 2;
    assert_int_equal(visit(guest), 0);
    assert_int_equal(count, 6); /* the root, two PDPTs, three PDs */
    skip_level = 4;
    assert_int_equal(visit(guest), 0);
    assert_int_equal(count, 1);
    skip_level = 0;
    for (stop_after = 1; stop_after <= 9; stop_after++) {
        assert_int_not_equal(visit(guest), 0);
        assert_int_equal(count, stop_after);
    }
    end_tables();
}

/* The halves of a root that are another kind's are not gone through. */
static void test_nodes_of_host_kinds(void **state)
{
    const uint64_t first = 0xffff800000000000;
    struct table *kernel = start(&kernel_kind, PURPOSE_HOST_TABLE, 0), *program = start_program();

    (void)state;
    skip_level = stop_after = 0;
    assert_int_equal(table_preallocate(kernel), E_OK);
    assert_int_equal(table_share_upper(program, kernel), E_OK);
    assert_true(show(program, 0x400000, 0, RIGHT_RX | RIGHT_U));
    assert_int_equal(visit(program), 0);
    assert_int_equal(count, program->table_frames);
    check_root(program);
    assert_int_equal(seen[3].first, 0x400000);
    skip_level = 3;
    stop_after = NODES;
    assert_int_not_equal(visit(kernel), 0);
    check_root(kernel);
    for (unsigned i = 1; i < NODES; i++) {
        assert_int_equal(seen[i].first, first + (i - 1) * 512 * GiB);
        assert_int_equal(seen[i].index, 256 + i - 1);
    }
    end_tables();
}

/* Where a node lies is not asked before it is entered: it may lie nowhere. */
static void test_what_is_skipped_is_not_read(void **state)
{
    struct table *guest = start_guest();

    (void)state;
    assert_true(show(guest, 0, 0, RIGHT_RWX));
    uint64_t *slot = slot_of(guest, 0, 3), was = *slot;
    *slot = BITS(51, 12) | 7;
    skip_level = 2;
    stop_after = 0;
    assert_int_equal(visit(guest), 0);
    assert_int_equal(count, 3);
    assert_int_equal(seen[2].frame.v, BITS(51, 12));
    *slot = was;
    end_tables();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_nodes_of_a_guest, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_nodes_of_host_kinds, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_what_is_skipped_is_not_read, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
