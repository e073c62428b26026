/*
 * Round trips and edges, for every kind: what is taken apart and joined again is as it was; what
 * the visitor tells builds the same table; what is destroyed gives back all that it took; and a
 * call that makes no sense is refused before anything is stored.
 */
#include "mm/paging/table.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "lib/lock.h"
#include "mm/frames/buddy.h"
#include "mm/paging/page_source.h"
#include "tests/property/five_levels.h"
#include "tests/property/world.h"
#include "tests/unit/hosted.h"

_Noreturn void world_fail(const char *message)
{
    fail_msg("%s", message);
    abort();
}

#define RWX_WB attrs_of(RIGHT_RWX, MEM_WB)

enum writer { MAP, REPLACE, UNMAP, PROTECT, SPLIT, MERGE, HARVEST, CLONE, COPY, FRESH, WRITERS };

/* ---- Lists of leaves
 * ------------------------------------------------------------------------------ */

#define LEAVES 4096

struct leaves {
    unsigned count;
    struct mapping leaf[LEAVES];
};

static int add_leaf(void *ctx, const struct mapping *leaf)
{
    struct leaves *leaves = ctx;

    assert_true(leaves->count < LEAVES);
    leaves->leaf[leaves->count++] = *leaf;
    return 0;
}

static struct leaves *leaves_of(struct table *table)
{
    struct leaves *leaves = malloc(sizeof(*leaves));

    leaves->count = 0;
    assert_int_equal(table_visit(table, table->kind->input_first, table->kind->input_last,
                                 VISIT_PAGES, add_leaf, leaves),
                     0);
    return leaves;
}

/* `with_ad`: A and D count as well. */
static void assert_same_leaves(const struct leaves *a, const struct leaves *b, bool with_ad)
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

static int do_map(struct table *table, uint64_t in, uint64_t out, uint64_t size, unsigned flags)
{
    struct flush_batch batch;

    flush_begin(&batch, table);
    int error = table_map(table, in, hpa(out), size, RWX_WB, flags, &batch);
    flush_commit(&batch);
    return error;
}

static void unmap(struct table *table, uint64_t in, uint64_t size)
{
    struct flush_batch batch;

    flush_begin(&batch, table);
    assert_int_equal(table_unmap(table, in, size, &batch), E_OK);
    flush_commit(&batch);
}

/* ---- Split and merge
 * -------------------------------------------------------------------------------- */

static void test_split_then_merge_restores(void **state)
{
    (void)state;
    for (unsigned l = 0; l < LANDS; l++)
        for (unsigned top = 2; top <= 3; top++)
            for (unsigned bottom = 1; bottom < top; bottom++) {
                struct table_caps caps = world_caps(lands[l].format);
                struct flush_batch batch;

                caps.leaf_top = (uint8_t)top;
                world_start(&lands[l], top == 2 ? PAGE_SIZE : 2 * MiB, &caps, l + 1);
                uint64_t in = w.base + 64 * w.unit, size = level_size(lands[l].kind, top);
                assert_int_equal(do_map(&w.table, in, 2 * size, size, MAP_DEFAULT), E_OK);
                struct found before = world_look(w.table.root.v, in);
                assert_int_equal(before.level, top);
                uint64_t frames = w.table.table_frames;

                for (unsigned ad = 0; ad < 2; ad++) {
                    struct leaves *whole = leaves_of(&w.table);
                    flush_begin(&batch, &w.table);
                    assert_int_equal(table_split(&w.table, in, size, bottom, &batch), E_OK);
                    flush_commit(&batch);
                    for (uint64_t at = 0; at < size; at += size / 64 + PAGE_SIZE) {
                        struct found part = world_look(w.table.root.v, in + at);
                        assert_int_equal(part.level, bottom);
                        assert_int_equal(part.accessed, before.accessed);
                        assert_int_equal(part.dirty, before.dirty);
                    }
                    assert_int_equal(w.table.table_frames, frames + (top - bottom == 2 ? 513 : 1));
                    flush_begin(&batch, &w.table);
                    assert_int_equal(table_merge(&w.table, in, size, &batch), E_OK);
                    flush_commit(&batch);
                    assert_int_equal(w.table.table_frames, frames);
                    struct leaves *again = leaves_of(&w.table);
                    assert_same_leaves(whole, again, true);
                    free(whole);
                    free(again);
                    /* Once more with A and D set in the page. */
                    *before.slot |= sdm_accessed(lands[l].format) | sdm_dirty(lands[l].format);
                    world_note(before.slot);
                    before = world_look(w.table.root.v, in);
                }
                world_end();
            }
}

/* One page of a 1 GiB page: two tables and no more; and a merge puts it back. */
static void test_split_of_a_part(void **state)
{
    (void)state;
    for (unsigned l = 0; l < LANDS; l++) {
        struct table_caps caps = world_caps(lands[l].format);
        struct flush_batch batch;

        world_start(&lands[l], 2 * MiB, &caps, 1);
        uint64_t in = w.base + 64 * w.unit;
        assert_int_equal(do_map(&w.table, in, GiB, GiB, MAP_DEFAULT), E_OK);
        uint64_t frames = w.table.table_frames;
        flush_begin(&batch, &w.table);
        assert_int_equal(table_split(&w.table, in + 5 * MiB, PAGE_SIZE, 1, &batch), E_OK);
        flush_commit(&batch);
        assert_int_equal(w.table.table_frames, frames + 2);
        assert_int_equal(world_look(w.table.root.v, in + 5 * MiB).level, 1);
        assert_int_equal(world_look(w.table.root.v, in + 6 * MiB).level, 2);
        flush_begin(&batch, &w.table);
        assert_int_equal(table_merge(&w.table, in, GiB, &batch), E_OK);
        flush_commit(&batch);
        assert_int_equal(world_look(w.table.root.v, in + 5 * MiB).level, 3);
        assert_int_equal(w.table.table_frames, frames);
        world_end();
    }
}

/* What differs in anything but A and D stays apart; so does what is not aligned, or has a hole. */
static void test_merge_refuses_unequal(void **state)
{
    (void)state;
    for (unsigned l = 0; l < LANDS; l++)
        for (unsigned what = 0; what < 5; what++) {
            struct table_caps caps = world_caps(lands[l].format);
            struct flush_batch batch;
            unsigned odd = what * 127 + 3; /* the slot that is unlike the others: 3 .. 511 */

            world_start(&lands[l], PAGE_SIZE, &caps, 1);
            uint64_t in = w.base + 64 * w.unit;
            uint64_t out = what == 4 ? 2 * MiB + PAGE_SIZE : 2 * MiB;
            assert_int_equal(do_map(&w.table, in, out, 2 * MiB, MAP_CAP_4K), E_OK);
            uint64_t at = in + odd * PAGE_SIZE;
            flush_begin(&batch, &w.table);
            if (what == 0)
                assert_int_equal(
                    table_protect(&w.table, at, PAGE_SIZE, attrs_of(RIGHT_RX, MEM_WB), &batch),
                    E_OK);
            if (what == 1)
                assert_int_equal(
                    table_protect(&w.table, at, PAGE_SIZE, attrs_of(RIGHT_RWX, MEM_UC), &batch),
                    E_OK);
            if (what == 2)
                assert_int_equal(
                    table_map(&w.table, at, hpa(64 * MiB), PAGE_SIZE, RWX_WB, MAP_REPLACE, &batch),
                    E_OK);
            if (what == 3)
                assert_int_equal(table_unmap(&w.table, at, PAGE_SIZE, &batch), E_OK);
            flush_commit(&batch);
            uint64_t frames = w.table.table_frames;
            struct leaves *before = leaves_of(&w.table);
            w.stores = 0;
            flush_begin(&batch, &w.table);
            assert_int_equal(table_merge(&w.table, in, 2 * MiB, &batch), E_OK);
            assert_true(flush_empty(&batch));
            flush_commit(&batch);
            assert_int_equal(w.stores, 0);
            assert_int_equal(w.table.table_frames, frames);
            struct leaves *after = leaves_of(&w.table);
            assert_same_leaves(before, after, true);
            free(before);
            free(after);
            world_end();
        }
}

/* A and D of any page are those of the page that they become. */
static void test_merge_gathers_ad(void **state)
{
    (void)state;
    for (unsigned l = 0; l < LANDS; l++)
        for (unsigned what = 0; what < 4; what++) {
            struct table_caps caps = world_caps(lands[l].format);
            struct flush_batch batch;

            world_start(&lands[l], PAGE_SIZE, &caps, 1);
            uint64_t in = w.base + 64 * w.unit;
            assert_int_equal(do_map(&w.table, in, 2 * MiB, 2 * MiB, MAP_CAP_4K), E_OK);
            struct found clean = world_look(w.table.root.v, in);
            struct found last = world_look(w.table.root.v, in + 2 * MiB - PAGE_SIZE);
            *last.slot |= (what & 1 ? sdm_accessed(lands[l].format) : 0) |
                          (what & 2 ? sdm_dirty(lands[l].format) : 0);
            world_note(last.slot);
            flush_begin(&batch, &w.table);
            assert_int_equal(table_merge(&w.table, in, 2 * MiB, &batch), E_OK);
            flush_commit(&batch);
            struct found merged = world_look(w.table.root.v, in);
            assert_int_equal(merged.level, 2);
            assert_int_equal(merged.accessed, clean.accessed || (what & 1));
            assert_int_equal(merged.dirty, clean.dirty || (what & 2));
            world_end();
        }
}

/* Part by part, and the same in the end as one merge of everything. */
static void test_sweep(void **state)
{
    (void)state;
    for (unsigned l = 0; l < LANDS; l++) {
        struct table_caps caps = world_caps(lands[l].format);
        struct flush_batch batch;

        world_start(&lands[l], 2 * MiB, &caps, 1);
        uint64_t in = w.base + 64 * w.unit;
        /* Two blocks of 1 GiB in pages of 2 MiB; the second lacks one. And a lone page of 4 KiB. */
        assert_int_equal(do_map(&w.table, in, 4 * GiB, 2 * GiB, MAP_CAP_2M), E_OK);
        unmap(&w.table, in + GiB + 10 * MiB, 2 * MiB);
        assert_int_equal(do_map(&w.table, w.base, GiB, PAGE_SIZE, MAP_DEFAULT), E_OK);

        uint64_t cursor = lands[l].kind->input_first;
        uint64_t seen[8];
        unsigned parts = 0;
        int error;
        do {
            assert_true(parts < 8);
            flush_begin(&batch, &w.table);
            error = table_merge_sweep(&w.table, &cursor, &batch);
            flush_commit(&batch);
            seen[parts++] = cursor;
        } while (error == E_OK);
        assert_int_equal(error, E_NOENT);
        assert_int_equal(parts, 4);
        assert_int_equal(seen[0], in);
        assert_int_equal(seen[1], in + GiB);
        assert_int_equal(seen[2], in + 2 * GiB);
        assert_int_equal(cursor, lands[l].kind->input_first);
        assert_int_equal(world_look(w.table.root.v, in).level, 3);
        assert_int_equal(world_look(w.table.root.v, in + GiB).level, 2);
        /* The lowest page of the space belongs to the first part, wherever that would begin. */
        assert_int_equal(do_map(&w.table, lands[l].kind->input_first, GiB, PAGE_SIZE, 0), E_OK);
        flush_begin(&batch, &w.table);
        assert_int_equal(table_merge_sweep(&w.table, &cursor, &batch), E_OK);
        flush_commit(&batch);
        assert_int_equal(cursor, align_down(lands[l].kind->input_first, GiB) + GiB);
        /* The very end of the space is an end as well. */
        uint64_t end = lands[l].kind->input_last + 1 - PAGE_SIZE;
        assert_int_equal(do_map(&w.table, end, GiB, PAGE_SIZE, MAP_DEFAULT), E_OK);
        cursor = end;
        flush_begin(&batch, &w.table);
        assert_int_equal(table_merge_sweep(&w.table, &cursor, &batch), E_NOENT);
        flush_commit(&batch);
        assert_int_equal(cursor, lands[l].kind->input_first);
        world_end();
    }
}

/* ---- The visitor's word is enough
 * ---------------------------------------------------------------------- */

static int map_run(void *ctx, const struct mapping *run)
{
    struct table *table = ctx;
    struct flush_batch batch;

    flush_begin(&batch, table);
    assert_int_equal(table_map(table, run->in, run->out, run->last - run->in + 1, run->attrs,
                               run->level == 1   ? MAP_CAP_4K
                               : run->level == 2 ? MAP_CAP_2M
                                                 : MAP_DEFAULT,
                               &batch),
                     E_OK);
    flush_commit(&batch);
    return 0;
}

static void test_visitor_reproduces(void **state)
{
    (void)state;
    for (unsigned l = 0; l < LANDS; l++)
        for (unsigned seed = 1; seed <= 2; seed++) {
            struct table_caps caps = world_caps(lands[l].format);
            struct table again;

            world_start(&lands[l], PAGE_SIZE, &caps, seed);
            for (unsigned round = 0; round < 60; round++) {
                struct world_call call = world_random_call();
                call.refuse = 0;
                world_run(&call);
            }
            world_table_init(&again);
            assert_int_equal(table_visit(&w.table, lands[l].kind->input_first,
                                         lands[l].kind->input_last, VISIT_RUNS, map_run, &again),
                             0);
            struct leaves *one = leaves_of(&w.table), *two = leaves_of(&again);
            assert_same_leaves(one, two, false);
            assert_int_equal(again.table_frames, w.table.table_frames);
            free(one);
            free(two);
            world_table_end(&again);
            world_end();
        }
}

struct stop_after {
    unsigned calls, limit;
};

static int count_and_stop(void *ctx, const struct mapping *mapping)
{
    struct stop_after *stop = ctx;

    (void)mapping;
    return ++stop->calls == stop->limit ? 77 : 0;
}

static int stop_at_frame(void *ctx, hpa_t frame, unsigned level, uint64_t entries)
{
    unsigned *calls = ctx;

    (void)frame;
    (void)level;
    (void)entries;
    return ++*calls == 2 ? 78 : 0;
}

static void test_visitors_stop_when_told(void **state)
{
    (void)state;
    for (unsigned l = 0; l < LANDS; l++) {
        struct table_caps caps = world_caps(lands[l].format);
        unsigned frames = 0;

        world_start(&lands[l], PAGE_SIZE, &caps, 1);
        for (unsigned i = 0; i < 6; i++) /* six runs: no two adjoin in `out` */
            assert_int_equal(do_map(&w.table, w.base + i * PAGE_SIZE, (20 - 2 * i) * PAGE_SIZE,
                                    PAGE_SIZE, MAP_DEFAULT),
                             E_OK);
        for (unsigned limit = 1; limit <= 6; limit++) {
            struct stop_after stop = {.limit = limit};
            assert_int_equal(
                table_visit(&w.table, w.base, w.end - 1, VISIT_RUNS, count_and_stop, &stop), 77);
            assert_int_equal(stop.calls, limit);
        }
        struct stop_after all = {0};
        assert_int_equal(table_visit(&w.table, w.base, w.base + 4 * PAGE_SIZE - 1, VISIT_RUNS,
                                     count_and_stop, &all),
                         0);
        assert_int_equal(all.calls, 4);
        /* A and D keep runs apart if that is asked for. */
        assert_int_equal(do_map(&w.table, w.base + 8 * PAGE_SIZE, GiB, 4 * PAGE_SIZE, MAP_DEFAULT),
                         E_OK);
        uint64_t *slot = world_look(w.table.root.v, w.base + 9 * PAGE_SIZE).slot;
        *slot ^= sdm_dirty(lands[l].format);
        world_note(slot);
        for (unsigned flags = 0; flags < 8; flags++) {
            struct stop_after four = {0};
            if (flags == 4) { /* once more with A alone that differs */
                *slot ^= sdm_dirty(lands[l].format) | sdm_accessed(lands[l].format);
                world_note(slot);
            }
            assert_int_equal(table_visit(&w.table, w.base + 8 * PAGE_SIZE,
                                         w.base + 12 * PAGE_SIZE - 1, flags % 4, count_and_stop,
                                         &four),
                             0);
            assert_int_equal(four.calls, flags % 4 == 0 ? 1 : flags % 4 == VISIT_AD ? 3 : 4);
        }
        assert_int_equal(table_visit_frames(&w.table, stop_at_frame, &frames), 78);
        assert_int_equal(frames, 2);
        world_end();
    }
}

/* ---- Edges: refused before anything is stored
 * ---------------------------------------------------------- */

static struct buddy_pages pages;

static int write_by(enum writer writer, uint64_t in, uint64_t out, uint64_t size,
                    struct flush_batch *batch)
{
    switch (writer) {
    case MAP:
        return table_map(&w.table, in, hpa(out), size, RWX_WB, MAP_DEFAULT, batch);
    case REPLACE:
        return table_map(&w.table, in, hpa(out), size, RWX_WB, MAP_REPLACE, batch);
    case UNMAP:
        return table_unmap(&w.table, in, size, batch);
    case PROTECT:
        return table_protect(&w.table, in, size, RWX_WB, batch);
    case SPLIT:
        return table_split(&w.table, in, size, 1, batch);
    case MERGE:
        return table_merge(&w.table, in, size, batch);
    case HARVEST:
        return table_harvest(&w.table, in, size, 3, NULL, NULL, batch);
    case CLONE:
        return table_clone(&w.other, &w.table, in, size, batch);
    case COPY:
        return table_copy(&w.other, &w.table, in, size, &pages.source);
    default:
        return table_map_fresh(&w.table, in, size, RWX_WB, MAP_DEFAULT, &pages.source);
    }
}

static void refuse(enum writer writer, uint64_t in, uint64_t out, uint64_t size, int expected)
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

static void refuse_bad_calls(void)
{
    const struct table_kind *kind = w.land->kind;
    uint64_t first = kind->input_first, last = kind->input_last;
    uint64_t width = UINT64_C(1) << w.table.caps.maxphyaddr;
    uint64_t ok = w.base + 7 * PAGE_SIZE; /* free, beside what is mapped */
    unsigned bits = 12 + 9 * kind->levels;

    for (enum writer writer = 0; writer < WRITERS; writer++) {
        refuse(writer, ok, 0, 0, E_INVAL);
        refuse(writer, ok + 1, 0, PAGE_SIZE, E_ALIGN);
        refuse(writer, ok + 0x800, 0, PAGE_SIZE, E_ALIGN);
        refuse(writer, last, 0, PAGE_SIZE, E_ALIGN);
        refuse(writer, NO_PAGE, 0, PAGE_SIZE, E_ALIGN);
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
        if (writer != MAP && writer != REPLACE)
            continue;
        refuse(writer, ok, 0x800, PAGE_SIZE, E_ALIGN);
        refuse(writer, ok, width, PAGE_SIZE, E_RANGE);
        refuse(writer, ok, width - PAGE_SIZE, 2 * PAGE_SIZE, E_RANGE);
        refuse(writer, ok, width - 2 * MiB, 4 * MiB, E_RANGE);
        refuse(writer, ok, 0xfffffffffffff000, PAGE_SIZE, E_RANGE);
        refuse(writer, ok, 0xfffffffffffff000, 2 * PAGE_SIZE, E_RANGE);
    }
    /* Calls of one writer alone. */
    struct flush_batch batch;
    struct table stranger = w.other;
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
    assert_int_equal(table_clone(&w.table, &w.table, ok, PAGE_SIZE, &batch), E_INVAL);
    assert_int_equal(table_copy(&w.table, &w.table, ok, PAGE_SIZE, &pages.source), E_INVAL);
    assert_int_equal(table_clone(&w.table, &w.other, w.base, PAGE_SIZE, &batch), E_EXIST);
    assert_int_equal(table_copy(&w.table, &w.other, w.base, PAGE_SIZE, &pages.source), E_EXIST);
    stranger.kind = kind == &ept_kind ? &user_kind : &ept_kind;
    assert_int_equal(table_clone(&stranger, &w.table, ok, PAGE_SIZE, &batch), E_INVAL);
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
    struct stop_after none = {0};
    assert_int_equal(table_visit(&w.table, ok + 1, ok, 0, count_and_stop, &none), E_RANGE);
    if (first)
        assert_int_equal(table_visit(&w.table, first - 1, last, 0, count_and_stop, &none), E_RANGE);
    if (last != UINT64_MAX)
        assert_int_equal(table_visit(&w.table, first, last + 1, 0, count_and_stop, &none), E_RANGE);
    assert_int_equal(none.calls, 0);
    world_check_frames(&w.table);
}

static void test_edges_are_refused(void **state)
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
            assert_int_equal(do_map(&w.table, w.base, GiB, PAGE_SIZE, MAP_DEFAULT), E_OK);
            refuse_bad_calls();
            uint64_t end = kind->input_last + 1 - PAGE_SIZE;
            assert_int_equal(do_map(&w.table, end - PAGE_SIZE, GiB, PAGE_SIZE, MAP_DEFAULT), E_OK);
            refuse_bad_calls();
            /* The last page of the space, and the last frame that there can be. */
            uint64_t frame = (UINT64_C(1) << caps.maxphyaddr) - PAGE_SIZE;
            assert_int_equal(do_map(&w.table, end, frame, PAGE_SIZE, MAP_DEFAULT), E_OK);
            assert_int_equal(table_translate(&w.table, kind->input_last, &mapping), E_OK);
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
            struct flush_batch batch;
            flush_begin(&batch, &w.table);
            assert_int_equal(table_unmap(&w.table, kind->input_first,
                                         kind->input_last - kind->input_first + 1, &batch),
                             E_OK);
            flush_commit(&batch);
            assert_int_equal(w.table.table_frames, 1);
            world_end();
        }
    locks_needed = true;
}

/* ---- Corners
 * ------------------------------------------------------------------------------------------- */

/*
 * Pieces of a 1 GiB page, on any 4 KiB boundary: what a change does not name goes on being said.
 * The model is the list of changes; samples are taken at every edge there has been, and at random.
 */
struct change {
    uint64_t first, last; /* offsets within the page */
    enum writer by;
    struct attrs attrs;
    uint64_t out;
};

#define CHANGES 14

static void check_piece(struct table *table, uint64_t in, uint64_t offset,
                        const struct change *changes, unsigned count, bool shared)
{
    bool present = true;
    uint64_t out = 4 * GiB + offset;
    struct attrs attrs = RWX_WB;

    for (unsigned i = 0; i < count; i++) {
        const struct change *change = &changes[i];

        if (offset < change->first || offset > change->last)
            continue;
        if (change->by == UNMAP)
            present = false;
        if (change->by == REPLACE) {
            present = true;
            out = change->out + (offset - change->first);
        }
        if (change->by == REPLACE || (change->by == PROTECT && present))
            attrs = change->attrs;
        if (change->by == CLONE)
            attrs.rights &= (uint8_t)~RIGHT_W;
    }
    struct found found = world_look(table->root.v, in + offset);
    if (found.present != present ||
        (present && (found.out != out || !attrs_equal(found.attrs, attrs))))
        fail_msg("%s: after %u changes the page at %#lx of the %s is not as it should be",
                 w.land->name, count, offset, shared ? "clone" : "table");
}

static void check_pieces(struct table *table, uint64_t in, uint64_t first, uint64_t last,
                         const struct change *changes, unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        for (unsigned edge = 0; edge < 4; edge++) {
            uint64_t at = edge == 0   ? changes[i].first - PAGE_SIZE
                          : edge == 1 ? changes[i].first
                          : edge == 2 ? changes[i].last - PAGE_SIZE + 1
                                      : changes[i].last + 1;
            if (at >= first && at <= last)
                check_piece(table, in, at, changes, count, table == &w.other);
        }
    for (unsigned i = 0; i < 200; i++)
        check_piece(table, in,
                    first + align_down(random_below(&w.random, last - first + 1), PAGE_SIZE),
                    changes, count, table == &w.other);
}

static void one_change(uint64_t in, struct change *changes, unsigned n)
{
    static const uint64_t most[] = {4, 4, 600, 2000, 100000, 262144};
    struct random *r = &w.random;
    struct change *change = &changes[n];
    uint64_t pages = 1 + random_below(r, most[random_below(r, ARRAY_SIZE(most))]);
    uint64_t first = random_below(r, 262144 - pages + 1);
    struct flush_batch batch;
    int error = E_OK;

    if (random_below(r, 3) == 0) /* on a boundary of 2 MiB at one end */
        first = align_down(first, 512);
    *change = (struct change){
        .first = first * PAGE_SIZE,
        .last = (first + pages) * PAGE_SIZE - 1,
        .by = (enum writer[]){REPLACE, UNMAP, PROTECT, PROTECT, CLONE}[random_below(r, 5)],
        .attrs = attrs_of(random_below(r, 2) ? RIGHT_RWX : RIGHT_RX,
                          random_below(r, 2) ? MEM_WB : MEM_UC),
        .out = random_below(r, 4) * GiB + first * PAGE_SIZE};
    uint64_t at = in + change->first, size = pages * PAGE_SIZE;
    flush_begin(&batch, &w.table);
    switch (change->by) {
    case REPLACE:
        error = table_map(&w.table, at, hpa(change->out), size, change->attrs,
                          MAP_REPLACE | MAP_CAP_2M, &batch);
        break;
    case UNMAP:
        error = table_unmap(&w.table, at, size, &batch);
        break;
    case PROTECT:
        error = table_protect(&w.table, at, size, change->attrs, &batch);
        break;
    default:
        error = table_clone(&w.other, &w.table, at, size, &batch);
        break;
    }
    flush_commit(&batch);
    assert_int_equal(error, E_OK);
    check_pieces(&w.table, in, 0, GiB - 1, changes, n + 1);
    if (change->by != CLONE)
        return;
    check_pieces(&w.other, in, change->first, change->last, changes, n + 1);
    assert_false(world_look(w.other.root.v, at - PAGE_SIZE).present);
    assert_false(world_look(w.other.root.v, at + size).present);
    unmap(&w.other, at, size);
    assert_int_equal(w.other.table_frames, 1);
}

static void test_pieces_of_large_pages(void **state)
{
    (void)state;
    for (unsigned l = 0; l < LANDS; l++)
        for (unsigned seed = 0; seed < 4; seed++) {
            struct table_caps caps = world_caps(lands[l].format);
            struct change changes[CHANGES];

            world_start(&lands[l], 2 * MiB, &caps, 8 * l + seed);
            uint64_t in = w.base + 64 * w.unit;
            assert_int_equal(do_map(&w.table, in, 4 * GiB, GiB, MAP_DEFAULT), E_OK);
            assert_int_equal(world_look(w.table.root.v, in).level, 3);
            for (unsigned n = 0; n < CHANGES; n++)
                one_change(in, changes, n);
            world_end();
        }
}

/* A merge leaves alone what the range does not cover whole. */
static void test_merge_stays_in_its_range(void **state)
{
    (void)state;
    for (unsigned l = 0; l < LANDS; l++)
        for (unsigned half = 0; half < 2; half++) {
            struct table_caps caps = world_caps(lands[l].format);
            struct flush_batch batch;

            world_start(&lands[l], PAGE_SIZE, &caps, 1);
            uint64_t in = w.base + 64 * w.unit;
            assert_int_equal(do_map(&w.table, in, 8 * MiB, 4 * MiB, MAP_CAP_4K), E_OK);
            flush_begin(&batch, &w.table);
            assert_int_equal(
                table_merge(&w.table, half ? in + PAGE_SIZE : in, 4 * MiB - PAGE_SIZE, &batch),
                E_OK);
            flush_commit(&batch);
            assert_int_equal(world_look(w.table.root.v, in).level, half ? 1 : 2);
            assert_int_equal(world_look(w.table.root.v, in + 2 * MiB).level, half ? 2 : 1);
            world_end();
        }
}

/* Of 1 GiB in pages of 2 MiB the first is absent, or itself in small pages: no merge, and no
 * mistake. */
static void test_merge_of_mixed_tables(void **state)
{
    (void)state;
    for (unsigned l = 0; l < LANDS; l++)
        for (unsigned what = 0; what < 3; what++) {
            struct table_caps caps = world_caps(lands[l].format);
            struct flush_batch batch;

            world_start(&lands[l], 2 * MiB, &caps, 1);
            uint64_t in = w.base + 64 * w.unit;
            assert_int_equal(do_map(&w.table, in, GiB, GiB, MAP_CAP_2M), E_OK);
            flush_begin(&batch, &w.table);
            if (what == 0)
                assert_int_equal(table_unmap(&w.table, in, 2 * MiB, &batch), E_OK);
            else
                assert_int_equal(
                    table_unmap(&w.table, what == 1 ? in : in + 64 * MiB, PAGE_SIZE, &batch), E_OK);
            flush_commit(&batch);
            uint64_t frames = w.table.table_frames;
            w.stores = 0;
            flush_begin(&batch, &w.table);
            assert_int_equal(table_merge(&w.table, in, GiB, &batch), E_OK);
            assert_true(flush_empty(&batch));
            flush_commit(&batch);
            assert_int_equal(w.stores, 0);
            assert_int_equal(w.table.table_frames, frames);
            /* With the hole filled it goes all the way up. */
            if (what)
                assert_int_equal(do_map(&w.table, what == 1 ? in : in + 64 * MiB,
                                        GiB + (what == 1 ? 0 : 64 * MiB), PAGE_SIZE, MAP_DEFAULT),
                                 E_OK);
            else
                assert_int_equal(do_map(&w.table, in, GiB, 2 * MiB, MAP_DEFAULT), E_OK);
            flush_begin(&batch, &w.table);
            assert_int_equal(table_merge(&w.table, in, GiB, &batch), E_OK);
            flush_commit(&batch);
            assert_int_equal(world_look(w.table.root.v, in).level, 3);
            world_end();
        }
}

/* A range that begins before a 1 GiB page and ends within it. */
static void test_split_from_before(void **state)
{
    (void)state;
    for (unsigned l = 0; l < LANDS; l++) {
        struct table_caps caps = world_caps(lands[l].format);
        struct flush_batch batch;

        world_start(&lands[l], 2 * MiB, &caps, 1);
        uint64_t in = w.base + 64 * w.unit;
        assert_int_equal(do_map(&w.table, in, GiB, GiB, MAP_DEFAULT), E_OK);
        uint64_t frames = w.table.table_frames;
        flush_begin(&batch, &w.table);
        assert_int_equal(table_split(&w.table, in - 4 * PAGE_SIZE, 8 * PAGE_SIZE, 1, &batch), E_OK);
        flush_commit(&batch);
        assert_int_equal(w.table.table_frames, frames + 2);
        assert_int_equal(world_look(w.table.root.v, in).level, 1);
        assert_int_equal(world_look(w.table.root.v, in + 2 * MiB).level, 2);
        world_end();
    }
}

/* More tables than are changed between two flushes; with frames for copies, and without. */
static void test_protect_of_many_tables(void **state)
{
    (void)state;
    for (unsigned l = 0; l < LANDS; l++)
        for (unsigned poor = 0; poor < 2; poor++) {
            struct table_caps caps = world_caps(lands[l].format);
            struct attrs less = attrs_of(RIGHT_RX, MEM_WB);
            struct flush_batch batch;
            struct mapping mapping;

            world_start(&lands[l], PAGE_SIZE, &caps, 1);
            uint64_t in = w.base + 64 * w.unit;
            assert_int_equal(do_map(&w.table, in, 64 * MiB, 40 * MiB, MAP_CAP_4K), E_OK);
            /* One table is not like the others. */
            flush_begin(&batch, &w.table);
            assert_int_equal(table_unmap(&w.table, in + 6 * MiB + 3 * PAGE_SIZE, PAGE_SIZE, &batch),
                             E_OK);
            flush_commit(&batch);
            uint64_t frames = w.table.table_frames;
            w.fail_in = poor ? 0 : UINT64_MAX;
            flush_begin(&batch, &w.table);
            assert_int_equal(table_protect(&w.table, in, 40 * MiB, less, &batch), E_OK);
            flush_commit(&batch);
            assert_int_equal(w.table.table_frames, frames);
            assert_int_equal(w.taken, frames + 1);
            for (uint64_t at = 0; at < 40 * MiB; at += PAGE_SIZE) {
                int error = table_translate(&w.table, in + at, &mapping);
                assert_int_equal(error, at == 6 * MiB + 3 * PAGE_SIZE ? E_NOENT : E_OK);
                if (error)
                    continue;
                assert_true(attrs_equal(mapping.attrs, less));
                assert_int_equal(mapping.out.v, 64 * MiB + at);
            }
            /* As it is already: nothing to store, nothing to flush. */
            w.stores = 0;
            flush_begin(&batch, &w.table);
            assert_int_equal(table_protect(&w.table, in, 40 * MiB, less, &batch), E_OK);
            assert_true(flush_empty(&batch));
            flush_commit(&batch);
            assert_int_equal(w.stores, 0);
            w.fail_in = UINT64_MAX;
            world_end();
        }
}

/* Takes A and D from all pages, as one who looks what is in use does. */
static void clear_marks(struct table *table, uint64_t in, uint64_t size)
{
    struct flush_batch batch;

    flush_begin(&batch, table);
    assert_int_equal(
        table_harvest(table, in, size, HARVEST_CLEAR_A | HARVEST_CLEAR_D, NULL, NULL, &batch),
        E_OK);
    flush_commit(&batch);
}

static void protect(struct table *table, uint64_t in, uint64_t size, struct attrs attrs)
{
    struct flush_batch batch;

    flush_begin(&batch, table);
    assert_int_equal(table_protect(table, in, size, attrs, &batch), E_OK);
    flush_commit(&batch);
}

/* 1 GiB of large pages, among them some that became small ones; their marks are none, those of the
 * first few, and those of every third. */
static void test_protect_of_mixed_tables(void **state)
{
    static const uint64_t small[] = {0, 17, 300, 511};

    (void)state;
    for (unsigned l = 0; l < LANDS; l++)
        for (unsigned n = 0; n < 5 * 3; n++) {
            struct table_caps caps = world_caps(lands[l].format);
            uint64_t ad = sdm_accessed(lands[l].format) | sdm_dirty(lands[l].format);
            struct attrs less = attrs_of(RIGHT_RX, MEM_WB);
            struct flush_batch batch;

            world_start(&lands[l], PAGE_SIZE, &caps, 1);
            uint64_t in = align_up(w.end, GiB);
            assert_int_equal(do_map(&w.table, in, GiB, GiB, MAP_CAP_2M), E_OK);
            flush_begin(&batch, &w.table);
            if (n % 5 < 4)
                assert_int_equal(
                    table_split(&w.table, in + small[n % 5] * 2 * MiB, 2 * MiB, 1, &batch), E_OK);
            flush_commit(&batch);
            clear_marks(&w.table, in, GiB);
            for (uint64_t at = 0; n / 5 && at < 512; at += n / 5 == 1 ? 1 : 3) {
                uint64_t *slot = world_look(w.table.root.v, in + at * 2 * MiB).slot;
                if (n / 5 == 1 && at == 9)
                    break;
                *slot |= ad;
                world_note(slot);
            }
            protect(&w.table, in, GiB, less);
            for (uint64_t at = 0; at < GiB; at += 512 * KiB) {
                struct found found = world_look(w.table.root.v, in + at);
                bool marked =
                    n / 5 == 1 ? at / (2 * MiB) < 9 : n / 5 == 2 && at / (2 * MiB) % 3 == 0;
                bool split = n % 5 < 4 && at / (2 * MiB) == small[n % 5];
                assert_true(found.present && attrs_equal(found.attrs, less));
                assert_int_equal(found.out, GiB + at);
                assert_int_equal(found.level, split ? 1 : 2);
                if (!split) {
                    assert_int_equal(found.accessed, marked);
                    assert_int_equal(found.dirty, marked);
                }
            }
            world_end();
        }
}

/* The tables below a pinned root are those of all programs: changed in place, never replaced. */
static void test_protect_below_a_pinned_root(void **state)
{
    struct table_caps caps = world_caps(SDM_HOST);
    struct attrs less = attrs_of(RIGHT_R, MEM_WB);
    static struct table user;
    struct mapping mapping;

    (void)state;
    world_start(&lands[0], PAGE_SIZE, &caps, 1);
    assert_int_equal(table_init(&user, &user_kind, &caps, &world_env, PURPOSE_TEST, WORLD_OWNER),
                     E_OK);
    assert_int_equal(table_preallocate(&w.table), E_OK);
    assert_int_equal(table_share_upper(&user, &w.table), E_OK);
    uint64_t in = align_up(w.end, 512 * GiB);
    assert_int_equal(do_map(&w.table, in, 0, 512 * GiB, MAP_DEFAULT), E_OK);
    assert_int_equal(world_look(w.table.root.v, in).level, 3);
    clear_marks(&w.table, in, 512 * GiB);
    protect(&w.table, in, 512 * GiB, less);
    for (uint64_t at = 0; at < 512 * GiB; at += GiB) {
        assert_int_equal(table_translate(&w.table, in + at, &mapping), E_OK);
        assert_true(attrs_equal(mapping.attrs, less) && mapping.level == 3);
        assert_int_equal(mapping.out.v, at);
    }
    const uint64_t *ours = direct(user.root), *theirs = direct(w.table.root);
    for (unsigned i = 256; i < 512; i++)
        assert_int_equal(ours[i], theirs[i]);
    assert_int_equal(table_destroy(&user), E_OK);
    world_end();
}

/* Lone pages of three tables in turn, alone on the machine, where the mapper has shortcuts; and
 * what makes it forget where it was. */
static void test_lone_pages(void **state)
{
    (void)state;
    locks_needed = false;
    for (unsigned l = 0; l < LANDS; l++) {
        struct table_caps caps = world_caps(lands[l].format);
        struct flush_batch batch;
        uint64_t out[3][512] = {0};
        struct attrs attrs[3][512];

        world_start(&lands[l], PAGE_SIZE, &caps, l);
        uint64_t in = w.base + 64 * w.unit - 2 * MiB;
        for (unsigned round = 0; round < 6000; round++) {
            unsigned part = (unsigned)random_below(&w.random, 3);
            unsigned slot = (unsigned)random_below(&w.random, round < 3000 ? 6 : 512);
            uint64_t at = in + part * 2 * MiB + slot * PAGE_SIZE;
            uint64_t to = (1 + random_below(&w.random, 100000)) * PAGE_SIZE;
            struct attrs a = random_below(&w.random, 8) ? RWX_WB : attrs_of(RIGHT_RX, MEM_UC);
            unsigned what = (unsigned)random_below(&w.random, 32);
            int error;

            flush_begin(&batch, &w.table);
            if (what < 15) {
                error = table_map(&w.table, at, hpa(to), PAGE_SIZE, a, MAP_DEFAULT, &batch);
                assert_int_equal(error, out[part][slot] ? E_EXIST : E_OK);
                assert_true(flush_empty(&batch));
                if (!error) {
                    out[part][slot] = to;
                    attrs[part][slot] = a;
                }
            } else if (what < 30) {
                assert_int_equal(table_unmap(&w.table, at, PAGE_SIZE, &batch), E_OK);
                assert_int_equal(flush_empty(&batch), out[part][slot] == 0);
                out[part][slot] = 0;
            } else if (what == 30) {
                unsigned from = random_below(&w.random, 2) ? slot : 0;
                assert_int_equal(table_unmap(&w.table, in + part * 2 * MiB + from * PAGE_SIZE,
                                             2 * MiB - from * PAGE_SIZE, &batch),
                                 E_OK);
                memset(&out[part][from], 0, sizeof(out[part]) - from * sizeof(out[part][0]));
            } else {
                assert_int_equal(
                    table_map(&w.table, in + part * 2 * MiB, hpa(GiB), 2 * MiB, RWX_WB,
                              MAP_REPLACE | (random_below(&w.random, 2) ? MAP_CAP_4K : 0), &batch),
                    E_OK);
                for (unsigned i = 0; i < 512; i++) {
                    out[part][i] = GiB + i * PAGE_SIZE;
                    attrs[part][i] = RWX_WB;
                }
            }
            flush_commit(&batch);
            if (round % 8 == 0)
                world_check_frames(&w.table);
            for (unsigned p = 0; p < 3; p++)
                for (unsigned i = round % 8 ? slot : 0; i < (round % 8 ? slot + 1 : 6); i++) {
                    struct found found =
                        world_look(w.table.root.v, in + p * 2 * MiB + i * PAGE_SIZE);
                    assert_int_equal(found.present, out[p][i] != 0);
                    if (found.present) {
                        assert_int_equal(found.out, out[p][i]);
                        assert_true(attrs_equal(found.attrs, attrs[p][i]));
                    }
                }
        }
        unmap(&w.table, in, 6 * MiB);
        assert_int_equal(w.table.table_frames, 1);
        world_end();
    }
    locks_needed = true;
}

static int stop_at_once(void *ctx, const struct mapping *mapping)
{
    (void)mapping;
    ++*(unsigned *)ctx;
    return 5;
}

/* Lone pages that are no neighbours, in one batch: each of them is owed. */
static void test_lone_pages_share_a_batch(void **state)
{
    (void)state;
    locks_needed = false;
    for (unsigned l = 0; l < LANDS; l++) {
        struct table_caps caps = world_caps(lands[l].format);
        struct flush_batch batch;

        world_start(&lands[l], PAGE_SIZE, &caps, l);
        flush_begin(&batch, &w.table);
        assert_int_equal(
            table_map(&w.table, w.base, hpa(0), 16 * PAGE_SIZE, RWX_WB, MAP_CAP_4K, &batch), E_OK);
        flush_commit(&batch);
        flush_begin(&batch, &w.table);
        for (unsigned i = 0; i < 4; i++)
            assert_int_equal(table_unmap(&w.table, w.base + 3 * i * PAGE_SIZE, PAGE_SIZE, &batch),
                             E_OK);
        assert_int_equal(batch.count, 4);
        for (unsigned i = 0; i < 4; i++) {
            assert_int_equal(batch.range[i].first, w.base + 3 * i * PAGE_SIZE);
            assert_int_equal(batch.range[i].last, batch.range[i].first + PAGE_SIZE - 1);
        }
        flush_commit(&batch);
        unmap(&w.table, w.base, 16 * PAGE_SIZE);
        /* One range, of as many pages as are flushed one by one, and of one more; the page behind
         * keeps the table. */
        for (unsigned more = 0; more < 2; more++) {
            uint64_t in = w.base + 64 * w.unit, size = (FLUSH_PAGES + more) * PAGE_SIZE;
            uint64_t ranges = w.table.flushes.ranges, whole = w.table.flushes.whole;

            assert_int_equal(do_map(&w.table, in, 0, size + PAGE_SIZE, MAP_CAP_4K), E_OK);
            flush_begin(&batch, &w.table);
            assert_int_equal(table_unmap(&w.table, in, size, &batch), E_OK);
            assert_int_equal(batch.state, FLUSH_ONE_RANGE);
            flush_commit(&batch);
            assert_int_equal(w.table.flushes.ranges, ranges + 1 - more);
            assert_int_equal(w.table.flushes.whole, whole + more);
            unmap(&w.table, in + size, PAGE_SIZE);
        }
        world_end();
    }
    locks_needed = true;
}

/* The short way for a page beside the last one refuses what the long way does, and says why as it
 * does. */
static void test_lone_pages_at_the_ends(void **state)
{
    (void)state;
    locks_needed = false;
    for (unsigned l = 0; l < LANDS; l++) {
        const struct table_kind *kind = lands[l].kind;
        struct table_caps caps = world_caps(lands[l].format);
        struct table table;

        world_start(&lands[l], PAGE_SIZE, &caps, l);
        world_table_init(&table);
        for (unsigned n = 0; n < 2; n++) {
            uint64_t inside = n ? kind->input_last - (PAGE_SIZE - 1) : kind->input_first;
            uint64_t outside = n ? kind->input_last + 1 : kind->input_first - PAGE_SIZE;
            uint64_t beside = n ? inside - PAGE_SIZE : inside + PAGE_SIZE;
            const struct {
                uint64_t in, out;
                int error;
            } refused[] = {
                {outside, 0, E_RANGE},      {beside + 8, 0, E_ALIGN},
                {beside, 8, E_ALIGN},       {beside, BIT(caps.maxphyaddr), E_RANGE},
                {beside, BIT(63), E_RANGE}, {inside, 0, E_EXIST},
            };
            struct flush_batch batch;

            flush_begin(&batch, &table);
            assert_int_equal(table_map(&table, inside, hpa(0), PAGE_SIZE, RWX_WB, 0, &batch), E_OK);
            assert_int_equal(table_map(&table, beside, hpa(0), PAGE_SIZE, RWX_WB, 0, &batch), E_OK);
            assert_int_equal(table_unmap(&table, beside, PAGE_SIZE, &batch), E_OK);
            flush_commit(&batch);
            flush_begin(&batch, &table);
            for (unsigned i = 0; i < ARRAY_SIZE(refused); i++)
                assert_int_equal(table_map(&table, refused[i].in, hpa(refused[i].out), PAGE_SIZE,
                                           RWX_WB, 0, &batch),
                                 refused[i].error);
            assert_int_equal(table_unmap(&table, outside, PAGE_SIZE, &batch), E_RANGE);
            assert_int_equal(table_unmap(&table, inside + 8, PAGE_SIZE, &batch), E_ALIGN);
            assert_true(flush_empty(&batch));
            assert_int_equal(table_unmap(&table, inside, PAGE_SIZE, &batch), E_OK);
            flush_commit(&batch);
            assert_int_equal(table.table_frames, 1);
        }
        world_table_end(&table);
        world_end();
    }
    locks_needed = true;
}

/* A page beside others, in a table into which nothing was mapped by attributes yet. */
static void test_lone_page_beside_copies(void **state)
{
    (void)state;
    locks_needed = false;
    for (unsigned l = 0; l < LANDS; l++) {
        struct table_caps caps = world_caps(lands[l].format);
        struct flush_batch batch;
        struct table table;

        world_start(&lands[l], PAGE_SIZE, &caps, l);
        world_table_init(&table);
        uint64_t in = w.base + 64 * w.unit;
        assert_int_equal(do_map(&w.table, in, GiB, 2 * PAGE_SIZE, MAP_DEFAULT), E_OK);
        flush_begin(&batch, &w.table);
        assert_int_equal(table_clone(&table, &w.table, in, PAGE_SIZE, &batch), E_OK);
        flush_commit(&batch);
        flush_begin(&batch, &table);
        assert_int_equal(table_map(&table, in + PAGE_SIZE, hpa(GiB), PAGE_SIZE,
                                   attrs_of(RIGHT_NONE, MEM_UC), MAP_DEFAULT, &batch),
                         E_ILLEGAL);
        assert_false(world_look(table.root.v, in + PAGE_SIZE).present);
        assert_int_equal(table_unmap(&table, in, PAGE_SIZE, &batch), E_OK);
        flush_commit(&batch);
        world_table_end(&table);
        world_end();
    }
    locks_needed = true;
}

static bool is_there(uint64_t in)
{
    return world_look(w.table.root.v, in).present;
}

/* A page that was mapped away from the quarter used last is known to be mapped for just as long as
 * it is, whatever takes it away, and its neighbours are not taken for it. */
static void test_known_page(void **state)
{
    (void)state;
    locks_needed = false;
    for (unsigned l = 0; l < LANDS; l++) {
        struct table_caps caps = world_caps(lands[l].format);
        struct flush_batch batch;

        world_start(&lands[l], PAGE_SIZE, &caps, 1);
        if (lands[l].kind->input_first == 0) { /* not even address 0 is known before it is mapped */
            assert_int_equal(do_map(&w.table, PAGE_SIZE, GiB, 3 * PAGE_SIZE, MAP_DEFAULT), E_OK);
            unmap(&w.table, PAGE_SIZE, PAGE_SIZE);
            unmap(&w.table, 0, PAGE_SIZE);
            world_check_frames(&w.table);
            unmap(&w.table, 2 * PAGE_SIZE, 2 * PAGE_SIZE);
        }
        uint64_t in = w.base + 64 * w.unit, kept = in + 2 * MiB - PAGE_SIZE;
        assert_int_equal(do_map(&w.table, kept, GiB, PAGE_SIZE, MAP_DEFAULT), E_OK);
        for (unsigned quarter = 0; quarter < 3; quarter++) {
            uint64_t page = in + quarter * 512 * KiB + quarter * 9 * PAGE_SIZE;
            uint64_t next = page + PAGE_SIZE;

            /* By a call of its own; a second one finds nothing. */
            assert_int_equal(do_map(&w.table, page, GiB, PAGE_SIZE, MAP_DEFAULT), E_OK);
            assert_int_equal(w.table.known_page, page);
            assert_int_equal(do_map(&w.table, page, GiB, PAGE_SIZE, MAP_DEFAULT), E_EXIST);
            unmap(&w.table, page, PAGE_SIZE);
            assert_false(is_there(page));
            unmap(&w.table, page, PAGE_SIZE);
            world_check_frames(&w.table);

            /* By a range, which may also begin elsewhere. */
            for (unsigned from = 0; from < 2; from++) {
                assert_int_equal(do_map(&w.table, kept - PAGE_SIZE, GiB, PAGE_SIZE, 0), E_OK);
                assert_int_equal(do_map(&w.table, page, GiB, PAGE_SIZE, MAP_DEFAULT), E_OK);
                unmap(&w.table, from ? page : in, from ? 2 * PAGE_SIZE : 2 * MiB - 2 * PAGE_SIZE);
                assert_false(is_there(page));
                unmap(&w.table, page, PAGE_SIZE);
                world_check_frames(&w.table);
                unmap(&w.table, kept - PAGE_SIZE, PAGE_SIZE);
            }

            /* Not by what happens to its neighbours, nor by another frame or other rights. */
            assert_int_equal(do_map(&w.table, page, GiB, PAGE_SIZE, MAP_DEFAULT), E_OK);
            assert_int_equal(do_map(&w.table, next, GiB, PAGE_SIZE, MAP_DEFAULT), E_OK);
            unmap(&w.table, next, PAGE_SIZE);
            unmap(&w.table, next, PAGE_SIZE);
            assert_true(is_there(page));
            assert_int_equal(do_map(&w.table, page, 2 * GiB, PAGE_SIZE, MAP_REPLACE), E_OK);
            protect(&w.table, page, PAGE_SIZE, attrs_of(RIGHT_RX, MEM_WB));
            assert_int_equal(do_map(&w.table, page, GiB, PAGE_SIZE, MAP_DEFAULT), E_EXIST);
            unmap(&w.table, page, PAGE_SIZE);
            assert_false(is_there(page));
            world_check_frames(&w.table);

            /* A page that was refused is none; and what is left is found in another quarter. */
            for (unsigned crooked = 0; crooked < 2; crooked++) {
                unmap(&w.table, kept - PAGE_SIZE, PAGE_SIZE); /* away from here, and back */
                assert_int_equal(
                    do_map(&w.table, page + crooked, GiB + !crooked, PAGE_SIZE, MAP_DEFAULT),
                    E_ALIGN);
                flush_begin(&batch, &w.table);
                assert_int_equal(table_unmap(&w.table, page + crooked, PAGE_SIZE, &batch),
                                 crooked ? E_ALIGN : E_OK);
                flush_commit(&batch);
                world_check_frames(&w.table);
            }
            assert_int_equal(do_map(&w.table, page, GiB, PAGE_SIZE, MAP_DEFAULT), E_OK);
            unmap(&w.table, kept, PAGE_SIZE);
            assert_true(is_there(page));
            unmap(&w.table, page, PAGE_SIZE); /* the last one of the table */
            assert_int_equal(w.table.table_frames, 1);
            assert_int_equal(do_map(&w.table, kept, GiB, PAGE_SIZE, MAP_DEFAULT), E_OK);
        }
        world_end();
    }
    locks_needed = true;
}

/* A table that a copy took the place of is no longer the one used last: its frame becomes
 * another's. */
static void test_lone_page_after_a_copy(void **state)
{
    (void)state;
    locks_needed = false;
    for (unsigned l = 0; l < LANDS; l++) {
        struct table_caps caps = world_caps(lands[l].format);

        world_start(&lands[l], PAGE_SIZE, &caps, 1);
        uint64_t in = w.base + 64 * w.unit;
        assert_int_equal(do_map(&w.table, in, GiB, 2 * MiB, MAP_CAP_4K), E_OK);
        unmap(&w.table, in + PAGE_SIZE, PAGE_SIZE);
        assert_int_equal(do_map(&w.table, in + PAGE_SIZE, GiB + PAGE_SIZE, PAGE_SIZE, 0), E_OK);
        clear_marks(&w.table, in, 2 * MiB);
        assert_int_not_equal(w.table.near.which, NEAR_NONE);
        protect(&w.table, in, 2 * MiB, attrs_of(RIGHT_RX, MEM_WB));
        assert_int_equal(do_map(&w.table, in - 2 * MiB, 2 * GiB, 16 * PAGE_SIZE, MAP_CAP_4K), E_OK);
        unmap(&w.table, in + 7 * PAGE_SIZE, PAGE_SIZE);
        assert_false(is_there(in + 7 * PAGE_SIZE));
        assert_true(is_there(in - 2 * MiB + 7 * PAGE_SIZE));
        world_end();
    }
    locks_needed = true;
}

/* Dead subtrees of many tables, and of any number: by one unmap, and with their table. */
static void test_any_number_of_tables_dies(void **state)
{
    (void)state;
    for (unsigned l = 0; l < LANDS; l++)
        for (unsigned n = 0; n < 6; n++) {
            struct table_caps caps = world_caps(lands[l].format);
            struct flush_batch batch;

            world_start(&lands[l], PAGE_SIZE, &caps, n);
            uint64_t in = align_down(w.base, 512 * GiB);
            in += in + 8 * GiB > w.base ? 8 * GiB + align_up(w.end - in, GiB) : 0;
            for (uint64_t at = 0; at < 4 * GiB; at += 2 * MiB)
                if (n < 2 || random_below(&w.random, 8))
                    assert_int_equal(do_map(&w.table, in + at, 0, PAGE_SIZE, MAP_CAP_4K), E_OK);
            flush_begin(&batch, &w.table);
            if (n % 2)
                assert_int_equal(table_unmap(&w.table, in, 4 * GiB, &batch), E_OK);
            flush_commit(&batch);
            world_end();
        }
}

/* A visitor that stops a harvest has seen each page whose bits were taken. */
static void test_harvest_stops(void **state)
{
    (void)state;
    for (unsigned l = 0; l < LANDS; l++) {
        struct table_caps caps = world_caps(lands[l].format);
        struct flush_batch batch;
        uint64_t ad = sdm_accessed(lands[l].format) | sdm_dirty(lands[l].format);
        unsigned calls = 0;

        world_start(&lands[l], PAGE_SIZE, &caps, 1);
        uint64_t in = w.base + 64 * w.unit;
        assert_int_equal(do_map(&w.table, in, 2 * MiB, 8 * PAGE_SIZE, MAP_DEFAULT), E_OK);
        for (unsigned i = 0; i < 8; i++) {
            uint64_t *slot = world_look(w.table.root.v, in + i * PAGE_SIZE).slot;
            *slot |= ad;
            world_note(slot);
        }
        flush_begin(&batch, &w.table);
        assert_int_equal(table_harvest(&w.table, in, 2 * MiB, 3, stop_at_once, &calls, &batch), 5);
        assert_int_equal(batch.count, 1);
        flush_commit(&batch);
        assert_int_equal(calls, 1);
        assert_false(world_look(w.table.root.v, in).dirty);
        assert_true(world_look(w.table.root.v, in + PAGE_SIZE).dirty);
        /* Without a visitor; and D alone. */
        flush_begin(&batch, &w.table);
        assert_int_equal(table_harvest(&w.table, in, 2 * MiB, HARVEST_CLEAR_D, NULL, NULL, &batch),
                         E_OK);
        flush_commit(&batch);
        assert_true(world_look(w.table.root.v, in + PAGE_SIZE).accessed);
        assert_false(world_look(w.table.root.v, in + PAGE_SIZE).dirty);
        world_end();
    }
}

/* Rights that a table's entry does not let through are no rights; for translate, walk and visitor.
 */
static int note_rights(void *ctx, const struct mapping *mapping)
{
    *(unsigned *)ctx = mapping->attrs.rights;
    return 0;
}

static void test_rights_of_all_levels(void **state)
{
    (void)state;
    for (unsigned l = 0; l < LANDS; l++)
        for (unsigned level = 2; level <= lands[l].kind->levels; level++) {
            struct table_caps caps = world_caps(lands[l].format);
            struct mapping mapping;
            struct walk walk;
            unsigned rights = 0;

            world_start(&lands[l], PAGE_SIZE, &caps, 1);
            assert_int_equal(do_map(&w.table, w.base, GiB, PAGE_SIZE, MAP_DEFAULT), E_OK);
            table_walk(&w.table, w.base, &walk);
            assert_int_equal(walk.error, E_OK);
            assert_int_equal(walk.count, lands[l].kind->levels);
            uint64_t *slot = direct(walk.step[lands[l].kind->levels - level].address);
            *slot &= ~BIT(1); /* W, in both formats */
            world_note(slot);
            assert_int_equal(table_translate(&w.table, w.base, &mapping), E_OK);
            assert_int_equal(mapping.attrs.rights, RIGHT_RX);
            table_walk(&w.table, w.base, &walk);
            assert_int_equal(walk.mapping.attrs.rights, RIGHT_RX);
            assert_int_equal(table_visit(&w.table, w.base, w.end - 1, 0, note_rights, &rights), 0);
            assert_int_equal(rights, RIGHT_RX);
            /* And what no CPU would take is not translated. */
            *slot |= BIT(1) | BIT(50);
            world_note(slot);
            table_walk(&w.table, w.base, &walk);
            assert_int_equal(walk.error, E_ILLEGAL);
            assert_int_equal(walk.step[walk.count - 1].rule, RULE_BEYOND_MAXPHYADDR);
            *slot &= ~BIT(50);
            world_note(slot);
            slot = world_look(w.table.root.v, w.base).slot;
            *slot |= BIT(50);
            world_note(slot);
            assert_int_equal(table_translate(&w.table, w.base, &mapping), E_ILLEGAL);
            table_walk(&w.table, w.base, &walk);
            assert_int_equal(walk.error, E_ILLEGAL);
            assert_int_equal(walk.step[walk.count - 1].class, ENTRY_BAD);
            table_walk(&w.table, w.base + PAGE_SIZE, &walk);
            assert_int_equal(walk.error, E_NOENT);
            *slot &= ~BIT(50);
            world_note(slot);
            world_end();
        }
}

/* The hypervisor's own pages need no marks of hardware: they begin with A and D. No others do. */
static void test_marks_of_new_pages(void **state)
{
    (void)state;
    for (unsigned l = 0; l < LANDS; l++)
        for (unsigned level = 1; level <= 3; level++) {
            struct table_caps caps = world_caps(lands[l].format);
            bool marked = lands[l].kind->id == KIND_KERNEL;

            world_start(&lands[l], 2 * MiB, &caps, 1);
            uint64_t in = w.base + 64 * w.unit;
            assert_int_equal(do_map(&w.table, in, GiB, level_size(lands[l].kind, level), 0), E_OK);
            struct found found = world_look(w.table.root.v, in);
            assert_int_equal(found.level, level);
            assert_int_equal(found.accessed, marked);
            assert_int_equal(found.dirty, marked);
            world_end();
        }
}

/* The largest leaves that alignment, the CPU and the caller allow; exactly those. */
static void test_leaf_sizes(void **state)
{
    static const struct {
        uint64_t in, out, size;
        unsigned flags, leaf_top, count, first, second;
    } cases[] = {
        {0, 0, GiB, 0, 3, 1, 3, 0},
        {0, 0, GiB, 0, 2, 512, 2, 2},
        {0, 0, GiB, MAP_CAP_2M, 3, 512, 2, 2},
        {0, 0, 2 * MiB, MAP_CAP_4K, 3, 512, 1, 1},
        {0, 0, 2 * MiB, 0, 1, 512, 1, 1},
        {0, 0, 2 * MiB, 0, 3, 1, 2, 0},
        {0, 0, 2 * MiB - PAGE_SIZE, 0, 3, 511, 1, 1},
        {0, PAGE_SIZE, 2 * MiB, 0, 3, 512, 1, 1},
        {0, 2 * MiB, GiB, 0, 3, 512, 2, 2},
        {PAGE_SIZE, PAGE_SIZE, 2 * MiB, 0, 3, 512, 1, 1},
        {2 * MiB - PAGE_SIZE, 2 * MiB - PAGE_SIZE, 2 * MiB + PAGE_SIZE, 0, 3, 2, 1, 2},
        {GiB - 2 * MiB, GiB - 2 * MiB, GiB + 2 * MiB, 0, 3, 2, 2, 3},
        {GiB - 2 * MiB, GiB - 2 * MiB, GiB + 4 * MiB, 0, 3, 3, 2, 3},
    };

    (void)state;
    for (unsigned l = 0; l < LANDS; l++)
        for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
            struct table_caps caps = world_caps(lands[l].format);

            caps.leaf_top = (uint8_t)cases[i].leaf_top;
            world_start(&lands[l], 2 * MiB, &caps, 1);
            uint64_t in = w.base + 64 * w.unit + cases[i].in;
            assert_int_equal(
                do_map(&w.table, in, 4 * GiB + cases[i].out, cases[i].size, cases[i].flags), E_OK);
            struct leaves *leaves = leaves_of(&w.table);
            assert_int_equal(leaves->count, cases[i].count);
            assert_int_equal(leaves->leaf[0].level, cases[i].first);
            if (cases[i].count > 1)
                assert_int_equal(leaves->leaf[1].level, cases[i].second);
            free(leaves);
            world_end();
        }
}

/* A clone and a copy of the last page of the space. */
static void test_clone_at_the_end(void **state)
{
    (void)state;
    for (unsigned l = 0; l < LANDS; l++) {
        struct table_caps caps = world_caps(lands[l].format);
        uint64_t in = lands[l].kind->input_last + 1 - PAGE_SIZE;
        struct flush_batch batch;
        struct mapping one, two;

        world_start(&lands[l], PAGE_SIZE, &caps, 1);
        assert_int_equal(do_map(&w.table, in, GiB, PAGE_SIZE, MAP_DEFAULT), E_OK);
        flush_begin(&batch, &w.table);
        assert_int_equal(table_clone(&w.other, &w.table, in, PAGE_SIZE, &batch), E_OK);
        flush_commit(&batch);
        assert_int_equal(table_translate(&w.table, in, &one), E_OK);
        assert_int_equal(table_translate(&w.other, in, &two), E_OK);
        assert_int_equal(one.out.v, two.out.v);
        assert_int_equal(one.attrs.rights, RIGHT_RX);
        assert_int_equal(two.attrs.rights, RIGHT_RX);
        /* A clone of what nobody could write to any more changes nothing in the original. */
        unmap(&w.other, in, PAGE_SIZE);
        w.stores = 0;
        flush_begin(&batch, &w.table);
        assert_int_equal(table_clone(&w.other, &w.table, in, PAGE_SIZE, &batch), E_OK);
        assert_true(flush_empty(&batch));
        flush_commit(&batch);
        world_end();
    }
}

static void test_tables_begin_and_share(void **state)
{
    struct table_caps caps = world_caps(SDM_HOST);
    static struct table kernel, user;
    struct table_kind foreign = kernel_kind;
    struct mapping mapping;

    (void)state;
    world_start(&lands[0], PAGE_SIZE, &caps, 1);
    foreign.read_only = true;
    assert_int_equal(table_init(&user, &foreign, &caps, &world_env, PURPOSE_TEST, WORLD_OWNER),
                     E_PERM);
    w.fail_in = 0;
    assert_int_equal(table_init(&user, &user_kind, &caps, &world_env, PURPOSE_TEST, WORLD_OWNER),
                     E_NOMEM);
    /* 256 tables, or none; and those that are there already are kept. */
    assert_int_equal(do_map(&w.table, w.base, GiB, PAGE_SIZE, MAP_DEFAULT), E_NOMEM);
    w.fail_in = UINT64_MAX;
    assert_int_equal(do_map(&w.table, w.base, GiB, PAGE_SIZE, MAP_DEFAULT), E_OK);
    w.fail_in = 254;
    assert_int_equal(table_preallocate(&w.table), E_NOMEM);
    assert_int_equal(w.table.table_frames, 4);
    w.fail_in = UINT64_MAX;
    assert_int_equal(table_init(&user, &user_kind, &caps, &world_env, PURPOSE_TEST, WORLD_OWNER),
                     E_OK);
    assert_int_equal(table_share_upper(&user, &w.table), E_STATE);
    assert_int_equal(table_preallocate(&w.table), E_OK);
    assert_int_equal(w.table.table_frames, 4 + 255);
    assert_int_equal(table_preallocate(&w.table), E_OK);
    assert_int_equal(w.table.table_frames, 4 + 255);
    assert_int_equal(node_entries(frame_payload(w.table.root)), 256);
    kernel = w.table;
    kernel.kind = &kernel5_kind;
    assert_int_equal(table_share_upper(&user, &kernel), E_STATE);
    assert_int_equal(table_share_upper(&user, &w.table), E_OK);
    const uint64_t *ours = direct(user.root), *theirs = direct(w.table.root);
    for (unsigned i = 0; i < 512; i++)
        assert_int_equal(ours[i], i < 256 ? 0 : theirs[i]);
    assert_int_equal(table_translate(&user, w.base, &mapping), E_RANGE);

    /* Pinned entries stay, whatever is unmapped; and what is shared is not the user's to free. */
    unmap(&w.table, 0xffff800000000000, UINT64_C(1) << 47);
    assert_int_equal(w.table.table_frames, 257);
    for (unsigned i = 256; i < 512; i++)
        assert_int_equal(ours[i], theirs[i]);
    assert_int_equal(table_destroy(&user), E_OK);
    assert_int_equal(w.table.table_frames, 257);
    assert_int_equal(w.taken, 257 + 1);
    assert_int_equal(do_map(&w.table, w.base, GiB, PAGE_SIZE, MAP_DEFAULT), E_OK);
    unmap(&w.table, w.base, PAGE_SIZE);
    assert_int_equal(w.table.table_frames, 257);
    world_end();
}

/* Two maps into one batch that needs a flush already. */
static void test_batch_of_several_calls(void **state)
{
    struct table_caps caps = world_caps(SDM_EPT);
    struct flush_batch batch;

    (void)state;
    world_start(&lands[2], PAGE_SIZE, &caps, 1);
    assert_int_equal(do_map(&w.table, w.base, GiB, 8 * PAGE_SIZE, MAP_DEFAULT), E_OK);
    assert_int_equal(w.table.flushes.spared, 1);
    flush_begin(&batch, &w.table);
    assert_int_equal(table_unmap(&w.table, w.base, PAGE_SIZE, &batch), E_OK);
    assert_int_equal(
        table_map(&w.table, w.base, hpa(2 * GiB), PAGE_SIZE, RWX_WB, MAP_DEFAULT, &batch), E_OK);
    assert_int_equal(table_unmap(&w.table, w.base + 4 * PAGE_SIZE, PAGE_SIZE, &batch), E_OK);
    assert_int_equal(table_unmap(&w.table, w.base + 2 * PAGE_SIZE, PAGE_SIZE, &batch), E_OK);
    assert_int_equal(batch.count, 3);
    flush_commit(&batch);
    assert_int_equal(world_look(w.table.root.v, w.base).out, 2 * GiB);
    assert_int_equal(w.flushes, 1);
    world_end();
}

/* A table that was begun before there were records can be mapped into, and no more than that. */
static void test_without_records(void **state)
{
    (void)state;
    for (unsigned l = 0; l < LANDS; l++) {
        struct table_caps caps = world_caps(lands[l].format);
        struct table_env early = world_env;
        struct flush_batch batch;

        early.frame_records = false;
        world_start(&lands[l], PAGE_SIZE, &caps, 1);
        w.hardware = false; /* the world does not know the table that follows */
        world_table_end(&w.table);
        assert_int_equal(
            table_init(&w.table, lands[l].kind, &caps, &early, PURPOSE_TEST, WORLD_OWNER), E_OK);
        locks_needed = l % 2; /* the shortcuts need records */
        assert_int_equal(do_map(&w.table, w.base, 0, 4 * MiB, MAP_DEFAULT), E_OK);
        flush_begin(&batch, &w.table);
        assert_int_equal(table_split(&w.table, w.base, 4 * MiB, 1, &batch), E_OK);
        assert_int_equal(
            table_protect(&w.table, w.base, 4 * MiB, attrs_of(RIGHT_RX, MEM_WB), &batch), E_OK);
        flush_commit(&batch);
        struct leaves *leaves = leaves_of(&w.table);
        assert_int_equal(leaves->count, 1024);
        for (unsigned i = 0; i < 1024; i++)
            assert_int_equal(leaves->leaf[i].attrs.rights, RIGHT_RX);
        free(leaves);
        for (enum writer writer = REPLACE; writer <= MERGE; writer++) {
            if (writer != REPLACE && writer != UNMAP && writer != MERGE)
                continue;
            flush_begin(&batch, &w.table);
            assert_int_equal(write_by(writer, w.base, 0, PAGE_SIZE, &batch), E_STATE);
            flush_commit(&batch);
        }
        uint64_t cursor = w.base;
        flush_begin(&batch, &w.table);
        assert_int_equal(table_merge_sweep(&w.table, &cursor, &batch), E_STATE);
        flush_commit(&batch);
        assert_int_equal(table_adopt(&w.table, &early), E_STATE);
        assert_int_equal(table_adopt(&w.table, &world_env), E_OK);
        assert_int_equal(table_adopt(&w.table, &world_env), E_STATE);
        unmap(&w.table, w.base, 4 * MiB);
        assert_int_equal(w.table.table_frames, 1);
        world_end();
    }
    locks_needed = true;
}

/* ---- Frames of the buddy, and data that dies with its mapping
 * ---------------------------------------- */

static void test_fresh_frames(void **state)
{
    (void)state;
    for (unsigned l = 0; l < LANDS; l++) {
        struct table_caps caps = world_caps(lands[l].format);
        struct leaves *leaves;
        struct flush_batch batch;

        world_start(&lands[l], PAGE_SIZE, &caps, 1);
        buddy_pages_init(&pages, PURPOSE_TEST, WORLD_OWNER + 1);
        /* 64 pages, then two large ones, then 64 pages. */
        assert_int_equal(table_map_fresh(&w.table, w.base, w.end - w.base,
                                         attrs_of(RIGHT_RW | (caps.nx ? 0 : RIGHT_X), MEM_WB),
                                         MAP_DEFAULT, &pages.source),
                         E_OK);
        assert_int_equal(buddy_owner_frames(WORLD_OWNER + 1), CELLS);
        leaves = leaves_of(&w.table);
        assert_int_equal(leaves->count, 64 + 2 + 64);
        for (unsigned i = 0; i < leaves->count; i++) {
            const struct mapping *m = &leaves->leaf[i];
            const uint8_t *bytes = direct(m->out);
            for (uint64_t n = 0; n < m->last - m->in + 1; n += 61)
                assert_int_equal(bytes[n], 0);
        }

        /* A copy has frames of its own with the same contents, and leaves the original alone. */
        memset(direct(leaves->leaf[3].out), 0x33, PAGE_SIZE);
        memset(direct(leaves->leaf[64].out), 0x64, 2 * MiB);
        uint64_t from = w.base + 2 * PAGE_SIZE, bytes = (62 + 512 + 5) * PAGE_SIZE;
        w.stores = 0;
        assert_int_equal(table_copy(&w.other, &w.table, from, bytes, &pages.source), E_OK);
        struct leaves *copied = leaves_of(&w.other);
        assert_int_equal(copied->count, 62 + 1 + 5);
        for (unsigned i = 0; i < copied->count; i++) {
            struct mapping original;
            const struct mapping *m = &copied->leaf[i];
            assert_int_equal(table_translate(&w.table, m->in, &original), E_OK);
            assert_true(attrs_equal(m->attrs, original.attrs));
            uint64_t source = original.out.v + (m->in - original.in);
            assert_int_not_equal(source, m->out.v);
            assert_memory_equal(direct(m->out), direct(hpa(source)), m->last - m->in + 1);
        }
        assert_int_equal(buddy_owner_frames(WORLD_OWNER + 1), CELLS + 62 + 512 + 5);

        /* Too little memory: all that was taken comes back. */
        buddy_set_quota(WORLD_OWNER + 1, CELLS + 62 + 512 + 5 + 3);
        flush_begin(&batch, &w.table);
        assert_int_equal(table_unmap(&w.table, w.base, 8 * PAGE_SIZE, &batch), E_OK);
        for (unsigned i = 0; i < 8; i++)
            flush_free_after(&batch, leaves->leaf[i].out);
        flush_commit(&batch);
        assert_int_equal(buddy_owner_frames(WORLD_OWNER + 1), CELLS + 62 + 512 + 5 - 8);
        buddy_set_quota(WORLD_OWNER + 1, CELLS + 62 + 512 + 5 - 8 + 3);
        assert_int_equal(
            table_map_fresh(&w.table, w.base, 4 * PAGE_SIZE, RWX_WB, MAP_DEFAULT, &pages.source),
            E_QUOTA);
        assert_int_equal(buddy_owner_frames(WORLD_OWNER + 1), CELLS + 62 + 512 + 5 - 8);

        for (unsigned i = 0; i < 2; i++) {
            struct table *table = i ? &w.other : &w.table;
            struct leaves *left = leaves_of(table);
            flush_begin(&batch, table);
            assert_int_equal(table_unmap(table, w.base, w.end - w.base, &batch), E_OK);
            for (unsigned n = 0; n < left->count; n++)
                flush_free_after(&batch, left->leaf[n].out);
            flush_commit(&batch);
            free(left);
        }
        assert_int_equal(buddy_owner_frames(WORLD_OWNER + 1), 0);
        free(leaves);
        free(copied);
        world_end();
    }
}

/* A data block goes back to the buddy only after every CPU has forgotten it. */
static void test_data_dies_after_the_flush(void **state)
{
    (void)state;
    for (unsigned l = 0; l < LANDS; l++)
        for (unsigned order = 0; order <= 9; order += 9) {
            struct table_caps caps = world_caps(lands[l].format);
            uint64_t size = PAGE_SIZE << order;
            struct flush_batch batch;
            struct frame_info info;
            hpa_t block;

            world_start(&lands[l], PAGE_SIZE, &caps, 1);
            uint64_t in = w.base + 64 * w.unit;
            assert_int_equal(buddy_alloc(order, PURPOSE_TEST, WORLD_OWNER + 1, &block), E_OK);
            assert_int_equal(do_map(&w.table, in, block.v, size, MAP_DEFAULT), E_OK);
            for (unsigned i = 0; i < CELLS; i++) /* so that the CPUs look there */
                w.cell[i].present = i >= 64 && i < 64 + (1u << order);
            world_fill_caches();
            flush_begin(&batch, &w.table);
            assert_int_equal(table_unmap(&w.table, in, size, &batch), E_OK);
            flush_free_after(&batch, block);
            assert_int_equal(frame_query(block, &info, NULL), E_OK);
            assert_int_equal(info.state, FRAME_DYING);
            assert_int_equal(buddy_free(block, order, WORLD_OWNER + 1), E_STATE);
            flush_commit(&batch); /* the world looks at each block that is given back */
            assert_true(buddy_is_free(block));
            world_end();
        }
}

/* A batch that is dropped is noticed, and one that is used twice stops the machine. */
static void test_batches(void **state)
{
    struct table_caps caps = world_caps(SDM_EPT);
    struct flush_batch batch;

    (void)state;
    world_start(&lands[2], PAGE_SIZE, &caps, 1);
    flush_begin(&batch, &w.table);
    assert_int_equal(w.table.open_batches, 0); /* it owes nothing: to drop it would lose nothing */
    flush_add(&batch, 0, PAGE_SIZE - 1, 1);
    flush_add(&batch, 0, PAGE_SIZE - 1, 1);
    assert_int_equal(w.table.open_batches, 1);
    assert_int_equal(table_destroy(&w.table), E_STATE);
    flush_commit(&batch);
    assert_panics(flush_commit(&batch), "batch->open");
    assert_int_equal(w.table.open_batches, 0);

    /* Neighbours are one range; past FLUSH_RANGES, or FLUSH_PAGES, it is the whole context. */
    flush_begin(&batch, &w.table);
    for (unsigned i = 0; i < FLUSH_PAGES; i++)
        flush_add(&batch, i * PAGE_SIZE, (i + 1) * PAGE_SIZE - 1, 1);
    assert_int_equal(batch.count, 1);
    flush_add(&batch, 0, PAGE_SIZE - 1, 2); /* another stride */
    assert_int_equal(batch.count, 2);
    flush_add(&batch, UINT64_MAX - PAGE_SIZE + 1, UINT64_MAX, 1);
    flush_add(&batch, 0, PAGE_SIZE - 1, 1); /* no neighbour, though last + 1 is 0 */
    assert_int_equal(batch.count, 4);
    flush_commit(&batch);
    assert_int_equal(w.table.flushes.whole, 1);

    flush_begin(&batch, &w.table);
    flush_add(&batch, 0, FLUSH_PAGES * PAGE_SIZE - 1, 1);
    flush_commit(&batch);
    assert_int_equal(w.table.flushes.whole, 1);
    assert_int_equal(w.table.flushes.ranges, 2);

    flush_begin(&batch, &w.table);
    for (unsigned i = 0; i <= FLUSH_RANGES; i++) {
        assert_false(batch.whole);
        flush_add(&batch, i * 2 * PAGE_SIZE, i * 2 * PAGE_SIZE + PAGE_SIZE - 1, 1);
    }
    assert_true(batch.whole);
    flush_add(&batch, 0, PAGE_SIZE - 1, 1); /* nothing to add to that */
    assert_int_equal(table_map(&w.table, w.base, hpa(0), PAGE_SIZE, RWX_WB, 0, &batch), E_OK);
    flush_commit(&batch);
    assert_int_equal(w.table.flushes.whole, 2);
    assert_int_equal(w.table.flushes.spared, 0); /* it was not that map which needed the flush */
    flush_begin(&batch, &w.table);
    flush_whole(&batch);
    assert_int_equal(table_map(&w.table, w.base + PAGE_SIZE, hpa(0), PAGE_SIZE, RWX_WB, 0, &batch),
                     E_OK);
    flush_commit(&batch);
    assert_int_equal(w.table.flushes.spared, 0);

    /* What lies within the newest range changes nothing. */
    flush_begin(&batch, &w.table);
    flush_add(&batch, 0, 8 * PAGE_SIZE - 1, 1);
    flush_add(&batch, 2 * PAGE_SIZE, 4 * PAGE_SIZE - 1, 1);
    assert_int_equal(batch.count, 1);
    assert_int_equal(batch.range[0].first, 0);
    assert_int_equal(batch.range[0].last, 8 * PAGE_SIZE - 1);
    flush_commit(&batch);

    /* A block that nothing maps needs no flush to be freed. */
    hpa_t block;
    uint64_t flushes = w.flushes;
    assert_int_equal(buddy_alloc(3, PURPOSE_TEST, WORLD_OWNER + 1, &block), E_OK);
    flush_begin(&batch, &w.table);
    flush_free_after(&batch, block);
    assert_false(flush_empty(&batch));
    flush_commit(&batch);
    assert_true(buddy_is_free(block));
    assert_int_equal(w.flushes, flushes);
    world_end();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_split_then_merge_restores),
        cmocka_unit_test(test_split_of_a_part),
        cmocka_unit_test(test_merge_refuses_unequal),
        cmocka_unit_test(test_merge_gathers_ad),
        cmocka_unit_test(test_sweep),
        cmocka_unit_test(test_visitor_reproduces),
        cmocka_unit_test(test_visitors_stop_when_told),
        cmocka_unit_test(test_edges_are_refused),
        cmocka_unit_test(test_pieces_of_large_pages),
        cmocka_unit_test(test_merge_stays_in_its_range),
        cmocka_unit_test(test_merge_of_mixed_tables),
        cmocka_unit_test(test_split_from_before),
        cmocka_unit_test(test_protect_of_many_tables),
        cmocka_unit_test(test_protect_of_mixed_tables),
        cmocka_unit_test(test_protect_below_a_pinned_root),
        cmocka_unit_test(test_lone_page_beside_copies),
        cmocka_unit_test(test_lone_page_after_a_copy),
        cmocka_unit_test(test_known_page),
        cmocka_unit_test(test_any_number_of_tables_dies),
        cmocka_unit_test(test_lone_pages),
        cmocka_unit_test(test_lone_pages_share_a_batch),
        cmocka_unit_test(test_lone_pages_at_the_ends),
        cmocka_unit_test(test_harvest_stops),
        cmocka_unit_test(test_rights_of_all_levels),
        cmocka_unit_test(test_marks_of_new_pages),
        cmocka_unit_test(test_leaf_sizes),
        cmocka_unit_test(test_clone_at_the_end),
        cmocka_unit_test(test_tables_begin_and_share),
        cmocka_unit_test(test_batch_of_several_calls),
        cmocka_unit_test(test_without_records),
        cmocka_unit_test(test_fresh_frames),
        cmocka_unit_test(test_data_dies_after_the_flush),
        cmocka_unit_test(test_batches),
    };
    return cmocka_run_group_tests_name("mapper rounds", tests, NULL, NULL);
}
