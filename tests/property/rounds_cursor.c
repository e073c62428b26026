/* Page by page by a cursor: the same tables as by a range, and the same promises for each page. */
#include "tests/property/rounds.h"

#include "tests/property/pte_hooks.h"

#include "mm/paging/cursor.h" /* its inline calls, with the hooks */

static void begin(struct table_cursor *cursor, uint64_t first, uint64_t size)
{
    assert_ok(table_cursor_begin(cursor, &w.table, first, first + size - 1));
    assert_true(lock_held(&w.table.lock));
}

static void end(struct table_cursor *cursor)
{
    table_cursor_end(cursor);
    assert_false(lock_held(&w.table.lock));
}

static void refuse(uint64_t first, uint64_t last, int expected)
{
    struct table_cursor cursor;

    assert_int_equal(table_cursor_begin(&cursor, &w.table, first, last), expected);
    assert_false(lock_held(&w.table.lock));
}

/* What is no range of the kind's space is refused, and nothing is held then. */
void test_cursor_begins_in_its_space(void **state)
{
    (void)state;
    for (unsigned l = 0; l < LANDS; l++) {
        uint64_t first = lands[l].kind->input_first, last = lands[l].kind->input_last;
        struct table_cursor cursor;

        start(&lands[l], PAGE_SIZE, 1);
        refuse(w.base + 8, w.base + PAGE_SIZE - 1, E_ALIGN);
        refuse(w.base, w.base + PAGE_SIZE, E_ALIGN);
        refuse(w.base, w.base + PAGE_SIZE - 2, E_ALIGN);
        refuse(w.base + PAGE_SIZE, w.base - 1, E_RANGE);
        if (first)
            refuse(first - PAGE_SIZE, w.base - 1, E_RANGE);
        if (last != UINT64_MAX) {
            refuse(w.base, last + PAGE_SIZE, E_RANGE);
            refuse(last + 1, last + PAGE_SIZE, E_RANGE);
            refuse(w.base, UINT64_MAX, E_RANGE);
        }
        assert_int_equal(w.stores, 0);
        /* All of it is a range; the first page and the last can be mapped. */
        assert_ok(table_cursor_begin(&cursor, &w.table, first, last));
        assert_ok(table_cursor_map(&cursor, hpa(GiB), RWX_WB));
        table_cursor_seek(&cursor, last - PAGE_SIZE + 1);
        assert_ok(table_cursor_map(&cursor, hpa(2 * GiB), RWX_WB));
        assert_int_equal(table_cursor_map(&cursor, hpa(2 * GiB), RWX_WB), E_RANGE);
        end(&cursor);
        struct leaves *leaves = leaves_of(&w.table);
        assert_int_equal(leaves->count, 2);
        assert_int_equal(leaves->leaf[0].in, first);
        assert_int_equal(leaves->leaf[1].last, last);
        free(leaves);
        world_end();
    }
}

/* The same leaves, the same nodes, and none left when all is unmapped again. */
void test_cursor_maps_as_a_range_does(void **state)
{
    (void)state;
    for (unsigned l = 0; l < LANDS; l++) {
        struct table_cursor cursor;

        uint64_t in = start(&lands[l], PAGE_SIZE, 1) - 3 * PAGE_SIZE;
        assert_ok(do_map(&w.table, in, GiB, 1030 * PAGE_SIZE, MAP_CAP_4K));
        struct leaves *by_range = leaves_of(&w.table);
        uint64_t frames = w.table.table_frames;
        assert_ok(do_unmap(&w.table, in, 1030 * PAGE_SIZE));

        uint64_t flushes = w.flushes;
        begin(&cursor, in, 1030 * PAGE_SIZE);
        for (uint64_t at = 0; at < 1030 * PAGE_SIZE; at += PAGE_SIZE)
            assert_ok(table_cursor_map(&cursor, hpa(GiB + at), RWX_WB));
        end(&cursor);
        assert_int_equal(w.flushes, flushes); /* absent to present */
        struct leaves *by_cursor = leaves_of(&w.table);
        assert_same_leaves(by_range, by_cursor, true);
        assert_int_equal(w.table.table_frames, frames);
        free(by_range);
        free(by_cursor);

        begin(&cursor, in, 1030 * PAGE_SIZE);
        for (uint64_t at = 0; at < 1030 * PAGE_SIZE; at += PAGE_SIZE)
            assert_ok(table_cursor_unmap(&cursor));
        end(&cursor);
        assert_int_equal(w.table.table_frames, 1);
        world_end();
    }
}

/* No CPU is asked to forget anything, and no frame goes back, before the end. */
void test_cursor_owes_until_its_end(void **state)
{
    (void)state;
    for (unsigned l = 0; l < LANDS; l++) {
        struct table_cursor cursor;

        uint64_t in = start(&lands[l], PAGE_SIZE, 1);
        assert_ok(do_map(&w.table, in, GiB, 3 * PAGE_SIZE, MAP_DEFAULT));
        uint64_t taken = w.taken, flushes = w.flushes;
        begin(&cursor, in, 3 * PAGE_SIZE);
        for (unsigned i = 0; i < 3; i++) {
            assert_ok(table_cursor_unmap(&cursor));
            assert_false(is_there(in + i * PAGE_SIZE));
        }
        assert_int_equal(w.taken, taken);
        assert_int_equal(w.flushes, flushes);
        end(&cursor);
        assert_int_equal(w.taken, 2);
        assert_int_equal(w.flushes, flushes + 1);
        assert_int_equal(w.table.open_batches, 0);
        world_end();
    }
}

static uint64_t named_first[8], named_last[8];
static unsigned named;

static void note_then_flush(const struct table_env *env, struct table *table,
                            const struct flush_batch *batch)
{
    for (named = 0; named < batch->count; named++) {
        named_first[named] = batch->range[named].first;
        named_last[named] = batch->range[named].last;
    }
    world_env.flush(env, table, batch);
}

/* Each page that was unmapped, and no other, is named to the CPUs, also where others were mapped
 * between two of them. */
void test_cursor_names_each_page_that_it_unmaps(void **state)
{
    (void)state;
    for (unsigned l = 0; l < LANDS; l++) {
        struct table_env noting = world_env;
        struct table_cursor cursor;

        uint64_t in = start(&lands[l], PAGE_SIZE, 1);
        assert_ok(do_map(&w.table, in, GiB, 16 * PAGE_SIZE, MAP_CAP_4K));
        assert_ok(do_unmap(&w.table, in + 2 * PAGE_SIZE, PAGE_SIZE));
        noting.flush = note_then_flush;
        w.table.env = &noting;
        begin(&cursor, in, 16 * PAGE_SIZE);
        assert_ok(table_cursor_unmap(&cursor));
        assert_ok(table_cursor_unmap(&cursor));
        assert_ok(table_cursor_map(&cursor, hpa(2 * GiB), RWX_WB));
        assert_ok(table_cursor_unmap(&cursor));
        assert_ok(table_cursor_unmap(&cursor));
        end(&cursor);
        w.table.env = &world_env;
        assert_int_equal(named, 2);
        assert_int_equal(named_first[0], in);
        assert_int_equal(named_last[0], in + 2 * PAGE_SIZE - 1);
        assert_int_equal(named_first[1], in + 3 * PAGE_SIZE);
        assert_int_equal(named_last[1], in + 5 * PAGE_SIZE - 1);
        world_end();
    }
}

static void refuse_page(struct table_cursor *cursor, uint64_t out, struct attrs attrs, int expected)
{
    uint64_t taken = w.taken;

    w.stores = 0;
    assert_int_equal(table_cursor_map(cursor, hpa(out), attrs), expected);
    assert_int_equal(w.stores, 0);
    assert_int_equal(w.taken, taken);
    assert_true(lock_held(&w.table.lock));
}

/* A page that is refused changes nothing, and the cursor stays; what was done before stays done. */
void test_cursor_stays_where_it_was_refused(void **state)
{
    (void)state;
    for (unsigned l = 0; l < LANDS; l++) {
        struct attrs none = attrs_of(RIGHT_NONE, MEM_UC);
        struct table_cursor cursor;

        uint64_t in = start(&lands[l], PAGE_SIZE, 1);
        uint64_t beyond = UINT64_C(1) << w.table.caps.maxphyaddr;
        assert_ok(do_map(&w.table, in + PAGE_SIZE, GiB, PAGE_SIZE, MAP_DEFAULT));
        begin(&cursor, in, 2 * MiB + 2 * PAGE_SIZE);
        assert_ok(table_cursor_map(&cursor, hpa(2 * GiB), RWX_WB));
        refuse_page(&cursor, 2 * GiB, RWX_WB, E_EXIST);
        refuse_page(&cursor, 2 * GiB, RWX_WB, E_EXIST);
        table_cursor_seek(&cursor, in + 2 * MiB);
        refuse_page(&cursor, 2 * GiB, none, E_ILLEGAL);
        refuse_page(&cursor, beyond, RWX_WB, E_RANGE);
        refuse_page(&cursor, 2 * GiB + 8, RWX_WB, E_ALIGN);
        w.fail_in = 0;
        refuse_page(&cursor, 2 * GiB, RWX_WB, E_NOMEM);
        w.fail_in = UINT64_MAX;
        assert_ok(table_cursor_map(&cursor, hpa(3 * GiB), RWX_WB));
        assert_ok(table_cursor_map(&cursor, hpa(4 * GiB), RWX_WB));
        refuse_page(&cursor, 2 * GiB, RWX_WB, E_RANGE); /* the end is passed */
        assert_int_equal(table_cursor_unmap(&cursor), E_RANGE);
        assert_int_equal(table_cursor_protect(&cursor, RX_WB), E_RANGE);
        table_cursor_seek(&cursor, in);
        assert_int_equal(table_cursor_protect(&cursor, none), E_ILLEGAL);
        assert_ok(table_cursor_protect(&cursor, RX_WB));
        end(&cursor);
        assert_int_equal(world_look(w.table.root.v, in).attrs.rights, RIGHT_RX);
        assert_int_equal(world_look(w.table.root.v, in + PAGE_SIZE).attrs.rights, RIGHT_RWX);
        assert_int_equal(world_look(w.table.root.v, in + 2 * MiB).out, 3 * GiB);
        assert_int_equal(world_look(w.table.root.v, in + 2 * MiB + PAGE_SIZE).out, 4 * GiB);
        world_check_frames(&w.table);
        world_end();
    }
}

/* What the page before was allowed says nothing of the next one. */
void test_cursor_judges_each_page(void **state)
{
    (void)state;
    for (unsigned l = 0; l < LANDS; l++) {
        struct table_cursor cursor;

        uint64_t in = start(&lands[l], PAGE_SIZE, 1);
        uint64_t beyond = UINT64_C(1) << w.table.caps.maxphyaddr;
        const uint64_t frames[] = {beyond, beyond * 2, beyond + GiB, GiB + 8, GiB + PAGE_SIZE / 2};
        begin(&cursor, in, 16 * PAGE_SIZE);
        for (unsigned i = 0; i < ARRAY_SIZE(frames); i++) {
            assert_ok(table_cursor_map(&cursor, hpa(beyond - (i + 1) * PAGE_SIZE), RWX_WB));
            refuse_page(&cursor, frames[i], RWX_WB, frames[i] < beyond ? E_ALIGN : E_RANGE);
        }
        assert_ok(table_cursor_map(&cursor, hpa(GiB), RWX_WB));
        refuse_page(&cursor, GiB, attrs_of(RIGHT_NONE, MEM_UC), E_ILLEGAL);
        assert_ok(table_cursor_map(&cursor, hpa(GiB), RWX_WB));
        assert_ok(table_cursor_map(&cursor, hpa(GiB), RX_WB));
        end(&cursor);
        for (unsigned i = 0; i < ARRAY_SIZE(frames); i++)
            assert_int_equal(world_look(w.table.root.v, in + i * PAGE_SIZE).out,
                             beyond - (i + 1) * PAGE_SIZE);
        assert_int_equal(world_look(w.table.root.v, in + 6 * PAGE_SIZE).attrs.rights, RIGHT_RWX);
        assert_int_equal(world_look(w.table.root.v, in + 7 * PAGE_SIZE).attrs.rights, RIGHT_RX);
        world_check_frames(&w.table);
        world_end();
    }
}

/* One page of 1 GiB is changed: two nodes more, and the rest says what it said. Nothing at all
 * changes where no frame is to be had. */
void test_cursor_splits_large_pages(void **state)
{
    (void)state;
    for (unsigned l = 0; l < LANDS; l++)
        for (unsigned gone = 0; gone < 2; gone++) {
            struct table_cursor cursor;

            uint64_t in = start(&lands[l], 2 * MiB, 1), at = in + 5 * MiB;
            assert_ok(do_map(&w.table, in, GiB, GiB, MAP_DEFAULT));
            uint64_t frames = w.table.table_frames;
            begin(&cursor, in, GiB);
            table_cursor_seek(&cursor, at);
            for (unsigned few = 0; few < 2; few++) {
                w.fail_in = few;
                w.stores = 0;
                assert_int_equal(gone ? table_cursor_unmap(&cursor)
                                      : table_cursor_protect(&cursor, RX_WB),
                                 E_NOMEM);
                assert_int_equal(w.stores, 0);
                assert_int_equal(w.table.table_frames, frames);
            }
            w.fail_in = UINT64_MAX;
            assert_ok(gone ? table_cursor_unmap(&cursor) : table_cursor_protect(&cursor, RX_WB));
            end(&cursor);
            assert_int_equal(w.table.table_frames, frames + 2);
            for (uint64_t page = at - PAGE_SIZE; page <= at + PAGE_SIZE; page += PAGE_SIZE) {
                struct found found = world_look(w.table.root.v, page);

                assert_int_equal(found.present, page != at || !gone);
                if (found.present)
                    assert_int_equal(found.attrs.rights, page == at ? RIGHT_RX : RIGHT_RWX);
                if (found.present)
                    assert_int_equal(found.out, GiB + (page - in));
            }
            assert_int_equal(world_look(w.table.root.v, in).level, 2);
            world_end();
        }
}

/* Attributes as they are, and holes, need no store, no split and no flush. */
void test_cursor_changes_no_more_than_it_must(void **state)
{
    (void)state;
    for (unsigned l = 0; l < LANDS; l++) {
        struct table_cursor cursor;

        uint64_t in = start(&lands[l], PAGE_SIZE, 1);
        assert_ok(do_map(&w.table, in, GiB, 2 * MiB, MAP_DEFAULT));
        uint64_t frames = w.table.table_frames, flushes = w.flushes;
        w.stores = 0;
        begin(&cursor, in, 4 * MiB);
        assert_ok(table_cursor_protect(&cursor, RWX_WB));
        table_cursor_seek(&cursor, in + 2 * MiB);
        assert_ok(table_cursor_protect(&cursor, RX_WB));
        assert_ok(table_cursor_unmap(&cursor));
        end(&cursor);
        assert_int_equal(w.stores, 0);
        assert_int_equal(w.flushes, flushes);
        assert_int_equal(w.table.table_frames, frames);
        world_end();
    }
}

/* From one node into the next by a protect, or by a look: each goes on having its own count, so
 * that both are dropped with their last page, and not before. */
void test_cursor_counts_each_node(void **state)
{
    (void)state;
    for (unsigned l = 0; l < LANDS; l++)
        for (unsigned look = 0; look < 2; look++) {
            struct table_cursor cursor;
            struct mapping mapping;

            uint64_t in = start(&lands[l], 2 * MiB, 1), last = in + 2 * MiB - PAGE_SIZE;
            assert_ok(do_map(&w.table, in, GiB, 5 * PAGE_SIZE, MAP_CAP_4K));
            assert_ok(do_map(&w.table, in + 2 * MiB, 3 * GiB, 2 * PAGE_SIZE, MAP_CAP_4K));
            begin(&cursor, in, 4 * MiB);
            table_cursor_seek(&cursor, last);
            assert_ok(table_cursor_map(&cursor, hpa(2 * GiB), RWX_WB));
            if (look) {
                assert_ok(table_cursor_next(&cursor, &mapping));
                assert_int_equal(mapping.out.v, 3 * GiB);
            } else {
                assert_ok(table_cursor_protect(&cursor, RX_WB));
                assert_true(attrs_equal(world_look(w.table.root.v, in).attrs, RWX_WB));
                assert_true(attrs_equal(world_look(w.table.root.v, in + 2 * MiB).attrs, RX_WB));
            }
            end(&cursor);
            assert_ok(do_unmap(&w.table, in + 2 * MiB, PAGE_SIZE));
            assert_true(is_there(in + 2 * MiB + PAGE_SIZE));
            assert_ok(do_unmap(&w.table, in + 2 * MiB + PAGE_SIZE, PAGE_SIZE));
            assert_ok(do_unmap(&w.table, in, 5 * PAGE_SIZE));
            assert_true(is_there(last));
            assert_ok(do_unmap(&w.table, last, PAGE_SIZE));
            assert_int_equal(w.table.table_frames, 1);
            world_end();
        }
}

/* Pages that hardware has not marked stay so. */
void test_cursor_protects_without_a_mark(void **state)
{
    (void)state;
    for (unsigned l = 0; l < LANDS; l++) {
        struct table_cursor cursor;

        uint64_t in = start(&lands[l], PAGE_SIZE, 1);
        assert_ok(do_map(&w.table, in, GiB, 2 * PAGE_SIZE, MAP_CAP_4K));
        clear_marks(&w.table, in, 2 * PAGE_SIZE);
        begin(&cursor, in, 2 * PAGE_SIZE);
        assert_ok(table_cursor_protect(&cursor, RX_WB));
        end(&cursor);
        struct found found = world_look(w.table.root.v, in);
        assert_true(attrs_equal(found.attrs, RX_WB));
        assert_false(found.accessed);
        assert_false(found.dirty);
        world_end();
    }
}

static void expect_next(struct table_cursor *cursor, uint64_t in, uint64_t size, uint64_t out)
{
    struct mapping mapping;

    assert_ok(table_cursor_next(cursor, &mapping));
    assert_int_equal(mapping.in, in);
    assert_int_equal(mapping.last, in + size - 1);
    assert_int_equal(mapping.out.v, out);
    assert_true(attrs_equal(mapping.attrs, RWX_WB));
}

/* Whole pages of any size, those that the range only touches as well, and then no more. */
void test_cursor_tells_what_comes_next(void **state)
{
    (void)state;
    for (unsigned l = 0; l < LANDS; l++) {
        struct table_cursor cursor;
        struct mapping mapping;

        uint64_t in = start(&lands[l], 2 * MiB, 1), far = in + GiB + 64 * MiB;
        assert_ok(do_map(&w.table, in, GiB, GiB, MAP_DEFAULT));
        assert_ok(do_map(&w.table, far, 4 * GiB, 2 * MiB, MAP_DEFAULT));
        assert_ok(do_map(&w.table, far + 4 * MiB, 6 * GiB, 2 * PAGE_SIZE, MAP_DEFAULT));
        w.stores = 0;
        begin(&cursor, in + 8 * MiB, 2 * GiB);
        expect_next(&cursor, in, GiB, GiB);
        expect_next(&cursor, far, 2 * MiB, 4 * GiB);
        expect_next(&cursor, far + 4 * MiB, PAGE_SIZE, 6 * GiB);
        expect_next(&cursor, far + 4 * MiB + PAGE_SIZE, PAGE_SIZE, 6 * GiB + PAGE_SIZE);
        assert_int_equal(table_cursor_next(&cursor, &mapping), E_NOENT);
        assert_int_equal(table_cursor_next(&cursor, &mapping), E_NOENT);
        table_cursor_seek(&cursor, far + MiB); /* within a page */
        expect_next(&cursor, far, 2 * MiB, 4 * GiB);
        end(&cursor);
        /* What lies behind the range is none of its business. */
        begin(&cursor, in + GiB, 64 * MiB);
        assert_int_equal(table_cursor_next(&cursor, &mapping), E_NOENT);
        assert_int_equal(table_cursor_next(&cursor, &mapping), E_NOENT);
        end(&cursor);
        assert_int_equal(w.stores, 0);
        world_end();
    }
}
