/*
 * Round trips and edges, for every kind: what is taken apart and joined again is as it was; what
 * the visitor tells builds the same table; what is destroyed gives back all that it took; and a
 * call that makes no sense is refused before anything is stored. The tests are in rounds_*.c.
 */
#include "tests/property/rounds.h"

#include <stdio.h>

_Noreturn void world_fail(const char *message)
{
    fail_msg("%s", message);
    abort();
}

uint64_t start(const struct land *land, uint64_t unit, uint64_t seed)
{
    struct table_caps caps = world_caps(land->format);

    world_start(land, unit, &caps, seed);
    return w.base + 64 * unit;
}

bool owed;

static int settle(struct flush_batch *batch, int said)
{
    owed = !flush_empty(batch);
    flush_commit(batch);
    return said;
}

int do_map_as(struct table *table, uint64_t in, hpa_t out, uint64_t size, struct attrs attrs,
              unsigned flags)
{
    struct flush_batch batch;

    flush_begin(&batch, table);
    return settle(&batch, table_map(table, in, out, size, attrs, flags, &batch));
}

int do_map(struct table *table, uint64_t in, uint64_t out, uint64_t size, unsigned flags)
{
    return do_map_as(table, in, hpa(out), size, RWX_WB, flags);
}

int do_unmap(struct table *table, uint64_t in, uint64_t size)
{
    struct flush_batch batch;

    flush_begin(&batch, table);
    return settle(&batch, table_unmap(table, in, size, &batch));
}

int do_protect(struct table *table, uint64_t in, uint64_t size, struct attrs attrs)
{
    struct flush_batch batch;

    flush_begin(&batch, table);
    return settle(&batch, table_protect(table, in, size, attrs, &batch));
}

int do_split(struct table *table, uint64_t in, uint64_t size, unsigned level)
{
    struct flush_batch batch;

    flush_begin(&batch, table);
    return settle(&batch, table_split(table, in, size, level, &batch));
}

int do_merge(struct table *table, uint64_t in, uint64_t size)
{
    struct flush_batch batch;

    flush_begin(&batch, table);
    return settle(&batch, table_merge(table, in, size, &batch));
}

int do_sweep(struct table *table, uint64_t *cursor)
{
    struct flush_batch batch;

    flush_begin(&batch, table);
    return settle(&batch, table_merge_sweep(table, cursor, table->kind->input_last, &batch));
}

int do_clone(struct table *to, struct table *from, uint64_t in, uint64_t size)
{
    struct flush_batch batch;

    flush_begin(&batch, from);
    return settle(&batch, table_clone(to, from, in, size, NULL, &batch));
}

int do_harvest(struct table *table, uint64_t in, uint64_t size, unsigned clear, visit_fn fn,
               void *ctx)
{
    struct flush_batch batch;

    flush_begin(&batch, table);
    return settle(&batch, table_harvest(table, in, size, clear, fn, ctx, &batch));
}

static int add_leaf(void *ctx, const struct mapping *leaf)
{
    struct leaves *leaves = ctx;

    assert_true(leaves->count < LEAVES);
    leaves->leaf[leaves->count++] = *leaf;
    return 0;
}

struct leaves *leaves_of(struct table *table)
{
    struct leaves *leaves = malloc(sizeof(*leaves));

    leaves->count = 0;
    assert_int_equal(table_visit(table, table->kind->input_first, table->kind->input_last,
                                 VISIT_PAGES, add_leaf, leaves),
                     0);
    return leaves;
}

void assert_same_leaves(const struct leaves *a, const struct leaves *b, bool with_ad)
{
    assert_int_equal(a->count, b->count);
    for (unsigned i = 0; i < a->count; i++) {
        const struct mapping *m = &a->leaf[i], *n = &b->leaf[i];

        assert_int_equal(m->in, n->in);
        assert_int_equal(m->last, n->last);
        assert_int_equal(m->out.v, n->out.v);
        assert_int_equal(m->level, n->level);
        assert_true(attrs_equal(m->attrs, n->attrs));
        if (with_ad) {
            assert_int_equal(m->raw, n->raw);
            assert_int_equal(m->accessed, n->accessed);
            assert_int_equal(m->dirty, n->dirty);
        }
    }
}

int count_and_stop(void *ctx, const struct mapping *mapping)
{
    struct stop_after *stop = ctx;

    (void)mapping;
    return ++stop->calls == stop->limit ? 77 : 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_split_then_merge_restores),
        cmocka_unit_test(test_split_of_a_part),
        cmocka_unit_test(test_split_from_before),
        cmocka_unit_test(test_merge_leaves_code_small),
        cmocka_unit_test(test_merge_refuses_unequal),
        cmocka_unit_test(test_merge_gathers_ad),
        cmocka_unit_test(test_merge_stays_in_its_range),
        cmocka_unit_test(test_merge_of_mixed_tables),
        cmocka_unit_test(test_sweep),
        cmocka_unit_test(test_visitor_reproduces),
        cmocka_unit_test(test_visitors_stop_when_told),
        cmocka_unit_test(test_visitors_skip_when_told),
        cmocka_unit_test(test_rights_of_all_levels),
        cmocka_unit_test(test_edges_are_refused),
        cmocka_unit_test(test_pieces_of_large_pages),
        cmocka_unit_test(test_protect_of_many_tables),
        cmocka_unit_test(test_protect_of_mixed_tables),
        cmocka_unit_test(test_marks_set_late_in_a_copy),
        cmocka_unit_test(test_protect_of_what_is_so),
        cmocka_unit_test(test_protect_below_a_pinned_root),
        cmocka_unit_test(test_harvest_stops),
        cmocka_unit_test(test_clone_at_the_end),
        cmocka_unit_test(test_clone_without_frames),
        cmocka_unit_test(test_lone_pages),
        cmocka_unit_test(test_lone_pages_share_a_batch),
        cmocka_unit_test(test_lone_pages_at_the_ends),
        cmocka_unit_test(test_lone_page_beside_copies),
        cmocka_unit_test(test_lone_page_comes_and_goes),
        cmocka_unit_test(test_lone_page_after_a_copy),
        cmocka_unit_test(test_marks_of_new_pages),
        cmocka_unit_test(test_leaf_sizes),
        cmocka_unit_test(test_tables_begin_and_share),
        cmocka_unit_test(test_without_records),
        cmocka_unit_test(test_any_number_of_tables_dies),
        cmocka_unit_test(test_batch_of_several_calls),
        cmocka_unit_test(test_batches),
        cmocka_unit_test(test_fresh_frames),
        cmocka_unit_test(test_fresh_frames_are_small),
        cmocka_unit_test(test_data_dies_after_the_flush),
        cmocka_unit_test(test_cursor_begins_in_its_space),
        cmocka_unit_test(test_cursor_maps_as_a_range_does),
        cmocka_unit_test(test_cursor_owes_until_its_end),
        cmocka_unit_test(test_cursor_names_each_page_that_it_unmaps),
        cmocka_unit_test(test_cursor_stays_where_it_was_refused),
        cmocka_unit_test(test_cursor_judges_each_page),
        cmocka_unit_test(test_cursor_splits_large_pages),
        cmocka_unit_test(test_cursor_changes_no_more_than_it_must),
        cmocka_unit_test(test_cursor_counts_each_node),
        cmocka_unit_test(test_cursor_protects_without_a_mark),
        cmocka_unit_test(test_cursor_tells_what_comes_next),
    };
    return cmocka_run_group_tests_name("mapper rounds", tests, NULL, NULL);
}
