/* A call that makes no sense is refused before anything is stored. */
#include "tests/property/rounds.h"

struct buddy_pages pages;

static int write_by(enum world_op writer, uint64_t in, uint64_t out, uint64_t size,
                    struct flush_batch *batch)
{
    switch (writer) {
    case OP_MAP:
        return table_map(&w.table, in, hpa(out), size, RWX_WB, MAP_DEFAULT, batch);
    case OP_REPLACE:
        return table_map(&w.table, in, hpa(out), size, RWX_WB, MAP_REPLACE, batch);
    case OP_UNMAP:
        return table_unmap(&w.table, in, size, batch);
    case OP_PROTECT:
        return table_protect(&w.table, in, size, RWX_WB, batch);
    case OP_SPLIT:
        return table_split(&w.table, in, size, 1, batch);
    case OP_MERGE:
        return table_merge(&w.table, in, size, batch);
    case OP_HARVEST:
        return table_harvest(&w.table, in, size, 3, NULL, NULL, batch);
    case OP_CLONE:
        return table_clone(&w.other, &w.table, in, size, NULL, batch);
    case OP_COPY:
        return table_copy(&w.other, &w.table, in, size, &pages.source);
    default:
        return table_map_fresh(&w.table, in, size, RWX_WB, MAP_DEFAULT, &pages.source);
    }
}

static void refuse(enum world_op writer, uint64_t in, uint64_t out, uint64_t size, int expected)
{
    struct flush_batch batch;
    uint64_t taken = w.taken, flushes = w.flushes;

    w.stores = 0;
    flush_begin(&batch, &w.table);
    int error = write_by(writer, in, out, size, &batch);
    if (error != expected)
        fail_msg("%s, writer %u: [%#lx, + %#lx) to %#lx gives %d, not %d", w.land->name, writer, in,
                 size, out, error, expected);
    assert_true(flush_empty(&batch));
    flush_commit(&batch);
    assert_int_equal(w.stores, 0);
    assert_int_equal(w.taken, taken);
    assert_int_equal(w.flushes, flushes);
    assert_false(lock_held(&w.table.lock));
    assert_false(lock_held(&w.other.lock));
}

static void refuse_bad_ranges(enum world_op writer, uint64_t ok)
{
    uint64_t first = w.land->kind->input_first, last = w.land->kind->input_last;
    unsigned bits = 12 + 9 * w.land->kind->levels;

    refuse(writer, ok, 0, 0, E_INVAL);
    refuse(writer, ok + 1, 0, PAGE_SIZE, E_ALIGN);
    refuse(writer, ok + 0x800, 0, PAGE_SIZE, E_ALIGN);
    refuse(writer, last, 0, PAGE_SIZE, E_ALIGN);
    refuse(writer, UINT64_MAX >> 1, 0, PAGE_SIZE, E_ALIGN);
    refuse(writer, ok, 0, PAGE_SIZE + 1, E_ALIGN);
    refuse(writer, ok, 0, 0x800, E_ALIGN);
    /* A wrap, and an end at 2^64 where that is not the end of the kind's space. */
    refuse(writer, 0xfffffffffffff000, 0, 2 * PAGE_SIZE, E_RANGE);
    refuse(writer, ok, 0, 0 - PAGE_SIZE, E_RANGE);
    if (last != UINT64_MAX) {
        refuse(writer, 0xfffffffffffff000, 0, PAGE_SIZE, E_RANGE);
        refuse(writer, last + 1, 0, PAGE_SIZE, E_RANGE);
        refuse(writer, last + 1 - PAGE_SIZE, 0, 2 * PAGE_SIZE, E_RANGE);
        refuse(writer, first, 0, last + 1 - first + PAGE_SIZE, E_RANGE);
    }
    if (first) {
        refuse(writer, first - PAGE_SIZE, 0, PAGE_SIZE, E_RANGE);
        refuse(writer, first - PAGE_SIZE, 0, 2 * PAGE_SIZE, E_RANGE);
        refuse(writer, 0, 0, PAGE_SIZE, E_RANGE);
    }
    /* Not canonical; or one bit too wide. */
    refuse(writer, UINT64_C(1) << (w.land->kind->sign_extended ? bits - 1 : bits), 0, PAGE_SIZE,
           E_RANGE);
    refuse(writer, UINT64_C(1) << 62, 0, PAGE_SIZE, E_RANGE);
}

static void refuse_bad_frames(enum world_op writer, uint64_t ok)
{
    uint64_t width = UINT64_C(1) << w.table.caps.maxphyaddr;

    refuse(writer, ok, 0x800, PAGE_SIZE, E_ALIGN);
    refuse(writer, ok, width, PAGE_SIZE, E_RANGE);
    refuse(writer, ok, width - PAGE_SIZE, 2 * PAGE_SIZE, E_RANGE);
    refuse(writer, ok, width - 2 * MiB, 4 * MiB, E_RANGE);
    refuse(writer, ok, 0xfffffffffffff000, PAGE_SIZE, E_RANGE);
    refuse(writer, ok, 0xfffffffffffff000, 2 * PAGE_SIZE, E_RANGE);
}

/* Tables of another kind, or for another CPU, have no pages in common. */
static void refuse_strangers(uint64_t ok)
{
    struct table stranger = w.other;
    struct flush_batch batch;

    flush_begin(&batch, &w.table);
    stranger.kind = w.land->kind == &ept_kind ? &user_kind : &ept_kind;
    assert_int_equal(table_clone(&stranger, &w.table, ok, PAGE_SIZE, NULL, &batch), E_INVAL);
    for (unsigned n = 0; n < 7; n++) {
        stranger = w.other;
        stranger.caps.maxphyaddr ^= n == 0;
        stranger.caps.leaf_top ^= n == 1;
        stranger.caps.nx ^= n == 2;
        stranger.caps.execute_only ^= n == 3;
        stranger.caps.mode_based_execute ^= n == 4;
        stranger.caps.global ^= n == 5;
        stranger.caps.mem_types ^= n == 6;
        assert_int_equal(table_copy(&stranger, &w.table, ok, PAGE_SIZE, &pages.source), E_INVAL);
    }
    assert_true(flush_empty(&batch));
    flush_commit(&batch);
}

/* Calls of one writer alone. */
static void refuse_single_calls(uint64_t ok)
{
    struct flush_batch batch;

    flush_begin(&batch, &w.table);
    assert_int_equal(table_split(&w.table, ok, PAGE_SIZE, 0, &batch), E_INVAL);
    assert_int_equal(table_split(&w.table, ok, PAGE_SIZE, 3, &batch), E_INVAL);
    assert_int_equal(table_map_fresh(&w.table, ok, PAGE_SIZE, RWX_WB, MAP_REPLACE, &pages.source),
                     E_INVAL);
    assert_int_equal(table_map_fresh(&w.table, ok, PAGE_SIZE, attrs_of(RIGHT_W, MEM_WB),
                                     MAP_DEFAULT, &pages.source),
                     E_ILLEGAL);
    assert_int_equal(table_map_fresh(&w.table, w.base, PAGE_SIZE, RWX_WB, 0, &pages.source),
                     E_EXIST);
    assert_int_equal(table_clone(&w.table, &w.table, ok, PAGE_SIZE, NULL, &batch), E_INVAL);
    assert_int_equal(table_copy(&w.table, &w.table, ok, PAGE_SIZE, &pages.source), E_INVAL);
    assert_int_equal(table_clone(&w.table, &w.other, w.base, PAGE_SIZE, NULL, &batch), E_EXIST);
    assert_int_equal(table_copy(&w.table, &w.other, w.base, PAGE_SIZE, &pages.source), E_EXIST);
    assert_true(flush_empty(&batch));
    flush_commit(&batch);
}

static void refuse_bad_visits(uint64_t ok)
{
    uint64_t first = w.land->kind->input_first, last = w.land->kind->input_last;
    struct stop_after none = {0};

    assert_int_equal(table_visit(&w.table, ok + 1, ok, 0, count_and_stop, &none), E_RANGE);
    if (first)
        assert_int_equal(table_visit(&w.table, first - 1, last, 0, count_and_stop, &none), E_RANGE);
    if (last != UINT64_MAX)
        assert_int_equal(table_visit(&w.table, first, last + 1, 0, count_and_stop, &none), E_RANGE);
    assert_int_equal(none.calls, 0);
}

static void refuse_bad_calls(void)
{
    uint64_t ok = w.base + 7 * PAGE_SIZE; /* free, beside what is mapped */

    for (enum world_op writer = OP_MAP; writer <= OP_FRESH; writer++) {
        if (writer == OP_SWEEP)
            continue; /* it has no range */
        refuse_bad_ranges(writer, ok);
        if (writer == OP_MAP || writer == OP_REPLACE)
            refuse_bad_frames(writer, ok);
    }
    refuse_single_calls(ok);
    refuse_strangers(ok);
    refuse_bad_visits(ok);
    world_check_frames(&w.table);
}

void test_edges_are_refused(void **state)
{
    (void)state;
    for (unsigned l = 0; l < LANDS; l++)
        for (unsigned alone = 0; alone < 2; alone++) {
            struct table_caps caps = world_caps(lands[l].format);
            const struct table_kind *kind = lands[l].kind;
            struct mapping mapping;
            struct walk walk;

            locks_needed = !alone;
            world_start(&lands[l], PAGE_SIZE, &caps, 1);
            buddy_pages_init(&pages, PURPOSE_TEST, WORLD_OWNER + 1);
            /* Beside a table that was mapped into last, and not. */
            assert_ok(do_map(&w.table, w.base, GiB, PAGE_SIZE, MAP_DEFAULT));
            refuse_bad_calls();
            uint64_t end = kind->input_last + 1 - PAGE_SIZE;
            assert_ok(do_map(&w.table, end - PAGE_SIZE, GiB, PAGE_SIZE, MAP_DEFAULT));
            refuse_bad_calls();
            /* The last page of the space, and the last frame that there can be. */
            uint64_t frame = (UINT64_C(1) << caps.maxphyaddr) - PAGE_SIZE;
            assert_ok(do_map(&w.table, end, frame, PAGE_SIZE, MAP_DEFAULT));
            assert_ok(table_translate(&w.table, kind->input_last, &mapping));
            assert_int_equal(mapping.last, kind->input_last);
            assert_int_equal(mapping.out.v, frame);
            if (kind->input_last != UINT64_MAX) {
                assert_int_equal(table_translate(&w.table, kind->input_last + 1, &mapping),
                                 E_RANGE);
                table_walk(&w.table, kind->input_last + 1, &walk);
                assert_int_equal(walk.error, E_RANGE);
            }
            if (kind->input_first) {
                assert_int_equal(table_translate(&w.table, kind->input_first - 1, &mapping),
                                 E_RANGE);
                table_walk(&w.table, kind->input_first - 1, &walk);
                assert_int_equal(walk.error, E_RANGE);
            }
            refuse_bad_calls();
            /* And all of it, in one call. */
            assert_ok(
                do_unmap(&w.table, kind->input_first, kind->input_last - kind->input_first + 1));
            assert_int_equal(w.table.table_frames, 1);
            world_end();
        }
    locks_needed = true;
}
