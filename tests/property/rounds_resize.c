/* Split and merge: what is taken apart and joined again is as it was. */
#include "tests/property/rounds.h"

void test_split_then_merge_restores(void **state)
{
    (void)state;
    for (unsigned l = 0; l < LANDS; l++)
        for (unsigned top = 2; top <= 3; top++)
            for (unsigned bottom = 1; bottom < top; bottom++) {
                struct table_caps caps = world_caps(lands[l].format);

                caps.leaf_top = (uint8_t)top;
                world_start(&lands[l], top == 2 ? PAGE_SIZE : 2 * MiB, &caps, l + 1);
                uint64_t in = w.base + 64 * w.unit, size = level_size(lands[l].kind, top);
                assert_ok(do_map(&w.table, in, 2 * size, size, MAP_DEFAULT));
                struct found before = world_look(w.table.root.v, in);
                assert_int_equal(before.level, top);
                uint64_t frames = w.table.table_frames;

                for (unsigned ad = 0; ad < 2; ad++) {
                    struct leaves *whole = leaves_of(&w.table);
                    assert_ok(do_split(&w.table, in, size, bottom));
                    for (uint64_t at = 0; at < size; at += size / 64 + PAGE_SIZE) {
                        struct found part = world_look(w.table.root.v, in + at);
                        assert_int_equal(part.level, bottom);
                        assert_int_equal(part.accessed, before.accessed);
                        assert_int_equal(part.dirty, before.dirty);
                    }
                    assert_int_equal(w.table.table_frames, frames + (top - bottom == 2 ? 513 : 1));
                    assert_ok(do_merge(&w.table, in, size));
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
void test_split_of_a_part(void **state)
{
    (void)state;
    for (unsigned l = 0; l < LANDS; l++) {
        uint64_t in = start(&lands[l], 2 * MiB, 1);
        assert_ok(do_map(&w.table, in, GiB, GiB, MAP_DEFAULT));
        uint64_t frames = w.table.table_frames;
        assert_ok(do_split(&w.table, in + 5 * MiB, PAGE_SIZE, 1));
        assert_int_equal(w.table.table_frames, frames + 2);
        assert_int_equal(world_look(w.table.root.v, in + 5 * MiB).level, 1);
        assert_int_equal(world_look(w.table.root.v, in + 6 * MiB).level, 2);
        assert_ok(do_merge(&w.table, in, GiB));
        assert_int_equal(world_look(w.table.root.v, in + 5 * MiB).level, 3);
        assert_int_equal(w.table.table_frames, frames);
        world_end();
    }
}

/* A range that begins before a 1 GiB page and ends within it. */
void test_split_from_before(void **state)
{
    (void)state;
    for (unsigned l = 0; l < LANDS; l++) {
        uint64_t in = start(&lands[l], 2 * MiB, 1);
        assert_ok(do_map(&w.table, in, GiB, GiB, MAP_DEFAULT));
        uint64_t frames = w.table.table_frames;
        assert_ok(do_split(&w.table, in - 4 * PAGE_SIZE, 8 * PAGE_SIZE, 1));
        assert_int_equal(w.table.table_frames, frames + 2);
        assert_int_equal(world_look(w.table.root.v, in).level, 1);
        assert_int_equal(world_look(w.table.root.v, in + 2 * MiB).level, 2);
        world_end();
    }
}

/* What differs in anything but A and D stays apart; so does what is not aligned, or has a hole. */
void test_merge_refuses_unequal(void **state)
{
    (void)state;
    for (unsigned l = 0; l < LANDS; l++)
        for (unsigned what = 0; what < 5; what++) {
            unsigned odd = what * 127 + 3; /* the slot that is unlike the others: 3 .. 511 */

            uint64_t in = start(&lands[l], PAGE_SIZE, 1);
            uint64_t out = what == 4 ? 2 * MiB + PAGE_SIZE : 2 * MiB;
            assert_ok(do_map(&w.table, in, out, 2 * MiB, MAP_CAP_4K));
            uint64_t at = in + odd * PAGE_SIZE;
            if (what == 0)
                assert_ok(do_protect(&w.table, at, PAGE_SIZE, RX_WB));
            if (what == 1)
                assert_ok(do_protect(&w.table, at, PAGE_SIZE, attrs_of(RIGHT_RWX, MEM_UC)));
            if (what == 2)
                assert_ok(do_map_as(&w.table, at, hpa(64 * MiB), PAGE_SIZE, RWX_WB, MAP_REPLACE));
            if (what == 3)
                assert_ok(do_unmap(&w.table, at, PAGE_SIZE));
            uint64_t frames = w.table.table_frames;
            struct leaves *before = leaves_of(&w.table);
            assert_changes_nothing(do_merge(&w.table, in, 2 * MiB));
            assert_int_equal(w.table.table_frames, frames);
            struct leaves *after = leaves_of(&w.table);
            assert_same_leaves(before, after, true);
            free(before);
            free(after);
            world_end();
        }
}

/* Where what is executed is to stay small, only what is not is joined. */
void test_merge_leaves_code_small(void **state)
{
    (void)state;
    for (unsigned l = 0; l < LANDS; l++) {
        struct table_caps caps = world_caps(lands[l].format);

        caps.exec_small = true;
        world_start(&lands[l], PAGE_SIZE, &caps, l + 1);
        uint64_t in = w.base + 64 * w.unit;
        assert_ok(do_map(&w.table, in, 2 * MiB, 2 * MiB, MAP_CAP_4K));
        assert_changes_nothing(do_merge(&w.table, in, 2 * MiB));
        assert_int_equal(world_look(w.table.root.v, in).level, 1);
        assert_ok(do_protect(&w.table, in, 2 * MiB, attrs_of(RIGHT_RW, MEM_WB)));
        assert_ok(do_merge(&w.table, in, 2 * MiB));
        assert_int_equal(world_look(w.table.root.v, in).level, 2);
        world_end();
    }
}

/* A and D of any page are those of the page that they become. */
void test_merge_gathers_ad(void **state)
{
    (void)state;
    for (unsigned l = 0; l < LANDS; l++)
        for (unsigned what = 0; what < 4; what++) {
            uint64_t in = start(&lands[l], PAGE_SIZE, 1);
            assert_ok(do_map(&w.table, in, 2 * MiB, 2 * MiB, MAP_CAP_4K));
            struct found clean = world_look(w.table.root.v, in);
            struct found last = world_look(w.table.root.v, in + 2 * MiB - PAGE_SIZE);
            *last.slot |= (what & 1 ? sdm_accessed(lands[l].format) : 0) |
                          (what & 2 ? sdm_dirty(lands[l].format) : 0);
            world_note(last.slot);
            assert_ok(do_merge(&w.table, in, 2 * MiB));
            struct found merged = world_look(w.table.root.v, in);
            assert_int_equal(merged.level, 2);
            assert_int_equal(merged.accessed, clean.accessed || (what & 1));
            assert_int_equal(merged.dirty, clean.dirty || (what & 2));
            world_end();
        }
}

/* A merge leaves alone what the range does not cover whole. */
void test_merge_stays_in_its_range(void **state)
{
    (void)state;
    for (unsigned l = 0; l < LANDS; l++)
        for (unsigned half = 0; half < 2; half++) {
            uint64_t in = start(&lands[l], PAGE_SIZE, 1);
            assert_ok(do_map(&w.table, in, 8 * MiB, 4 * MiB, MAP_CAP_4K));
            assert_ok(do_merge(&w.table, half ? in + PAGE_SIZE : in, 4 * MiB - PAGE_SIZE));
            assert_int_equal(world_look(w.table.root.v, in).level, half ? 1 : 2);
            assert_int_equal(world_look(w.table.root.v, in + 2 * MiB).level, half ? 2 : 1);
            world_end();
        }
}

/* Of 1 GiB in pages of 2 MiB the first is absent, or itself in small pages: no merge, and no
 * mistake. */
void test_merge_of_mixed_tables(void **state)
{
    (void)state;
    for (unsigned l = 0; l < LANDS; l++)
        for (unsigned what = 0; what < 3; what++) {
            uint64_t in = start(&lands[l], 2 * MiB, 1);
            assert_ok(do_map(&w.table, in, GiB, GiB, MAP_CAP_2M));
            if (what == 0)
                assert_ok(do_unmap(&w.table, in, 2 * MiB));
            else
                assert_ok(do_unmap(&w.table, what == 1 ? in : in + 64 * MiB, PAGE_SIZE));
            uint64_t frames = w.table.table_frames;
            assert_changes_nothing(do_merge(&w.table, in, GiB));
            assert_int_equal(w.table.table_frames, frames);
            /* With the hole filled it goes all the way up. */
            if (what)
                assert_ok(do_map(&w.table, what == 1 ? in : in + 64 * MiB,
                                 GiB + (what == 1 ? 0 : 64 * MiB), PAGE_SIZE, MAP_DEFAULT));
            else
                assert_ok(do_map(&w.table, in, GiB, 2 * MiB, MAP_DEFAULT));
            assert_ok(do_merge(&w.table, in, GiB));
            assert_int_equal(world_look(w.table.root.v, in).level, 3);
            world_end();
        }
}

/* Part by part, and the same in the end as one merge of everything. */
void test_sweep(void **state)
{
    (void)state;
    for (unsigned l = 0; l < LANDS; l++) {
        uint64_t in = start(&lands[l], 2 * MiB, 1);
        /* Two blocks of 1 GiB in pages of 2 MiB; the second lacks one. And a lone page of 4 KiB. */
        assert_ok(do_map(&w.table, in, 4 * GiB, 2 * GiB, MAP_CAP_2M));
        assert_ok(do_unmap(&w.table, in + GiB + 10 * MiB, 2 * MiB));
        assert_ok(do_map(&w.table, w.base, GiB, PAGE_SIZE, MAP_DEFAULT));

        uint64_t cursor = lands[l].kind->input_first;
        uint64_t seen[8];
        unsigned parts = 0;
        int error;
        do {
            assert_true(parts < 8);
            error = do_sweep(&w.table, &cursor);
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
        assert_ok(do_map(&w.table, lands[l].kind->input_first, GiB, PAGE_SIZE, 0));
        assert_ok(do_sweep(&w.table, &cursor));
        assert_int_equal(cursor, align_down(lands[l].kind->input_first, GiB) + GiB);
        /* The very end of the space is an end as well. */
        uint64_t end = lands[l].kind->input_last + 1 - PAGE_SIZE;
        assert_ok(do_map(&w.table, end, GiB, PAGE_SIZE, MAP_DEFAULT));
        cursor = end;
        assert_int_equal(do_sweep(&w.table, &cursor), E_NOENT);
        assert_int_equal(cursor, lands[l].kind->input_first);
        world_end();
    }
}
