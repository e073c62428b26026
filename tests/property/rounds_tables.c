/* How tables begin and end, and what a new page is. */
#include "tests/property/rounds.h"

#include "mm/paging/cursor.h"

/* The hypervisor's own pages need no marks of hardware: they begin with A and D. No others do. */
void test_marks_of_new_pages(void **state)
{
    (void)state;
    for (unsigned l = 0; l < LANDS; l++)
        for (unsigned level = 1; level <= 3; level++) {
            bool marked = lands[l].kind->id == KIND_KERNEL;

            uint64_t in = start(&lands[l], 2 * MiB, 1);
            assert_ok(do_map(&w.table, in, GiB, level_size(lands[l].kind, level), 0));
            struct found found = world_look(w.table.root.v, in);
            assert_int_equal(found.level, level);
            assert_int_equal(found.accessed, marked);
            assert_int_equal(found.dirty, marked);
            world_end();
        }
}

/* The largest leaves that alignment, the CPU and the caller allow; exactly those. */
void test_leaf_sizes(void **state)
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
            assert_ok(do_map(&w.table, in, 4 * GiB + cases[i].out, cases[i].size, cases[i].flags));
            struct leaves *leaves = leaves_of(&w.table);
            assert_int_equal(leaves->count, cases[i].count);
            assert_int_equal(leaves->leaf[0].level, cases[i].first);
            if (cases[i].count > 1)
                assert_int_equal(leaves->leaf[1].level, cases[i].second);
            free(leaves);
            world_end();
        }
}

void test_tables_begin_and_share(void **state)
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
    assert_ok(do_map(&w.table, w.base, GiB, PAGE_SIZE, MAP_DEFAULT));
    w.fail_in = 254;
    assert_int_equal(table_preallocate(&w.table), E_NOMEM);
    assert_int_equal(w.table.table_frames, 4);
    w.fail_in = UINT64_MAX;
    assert_ok(table_init(&user, &user_kind, &caps, &world_env, PURPOSE_TEST, WORLD_OWNER));
    assert_int_equal(table_share_upper(&user, &w.table), E_STATE);
    assert_ok(table_preallocate(&w.table));
    assert_int_equal(w.table.table_frames, 4 + 255);
    assert_ok(table_preallocate(&w.table));
    assert_int_equal(w.table.table_frames, 4 + 255);
    assert_int_equal(frame_payload(w.table.root), 256);
    kernel = w.table;
    kernel.kind = &kernel5_kind;
    assert_int_equal(table_share_upper(&user, &kernel), E_STATE);
    assert_ok(table_share_upper(&user, &w.table));
    const uint64_t *ours = direct(user.root), *theirs = direct(w.table.root);
    for (unsigned i = 0; i < 512; i++)
        assert_int_equal(ours[i], i < 256 ? 0 : theirs[i]);
    assert_int_equal(table_translate(&user, w.base, &mapping), E_RANGE);

    /* Pinned entries stay, whatever is unmapped; and what is shared is not the user's to free. */
    assert_ok(do_unmap(&w.table, 0xffff800000000000, UINT64_C(1) << 47));
    assert_int_equal(w.table.table_frames, 257);
    for (unsigned i = 256; i < 512; i++)
        assert_int_equal(ours[i], theirs[i]);
    assert_ok(table_destroy(&user));
    assert_int_equal(w.table.table_frames, 257);
    assert_int_equal(w.taken, 257 + 1);
    assert_ok(do_map(&w.table, w.base, GiB, PAGE_SIZE, MAP_DEFAULT));
    assert_ok(do_unmap(&w.table, w.base, PAGE_SIZE));
    assert_int_equal(w.table.table_frames, 257);
    world_end();
}

/* A table that was begun before there were records can be mapped into, and no more than that. */
void test_without_records(void **state)
{
    (void)state;
    for (unsigned l = 0; l < LANDS; l++) {
        struct table_caps caps = world_caps(lands[l].format);
        struct table_env early = world_env;
        struct table_cursor by_page;

        early.frame_records = false;
        world_start(&lands[l], PAGE_SIZE, &caps, 1);
        w.hardware = false; /* the world does not know the table that follows */
        world_table_end(&w.table);
        assert_ok(table_init(&w.table, lands[l].kind, &caps, &early, PURPOSE_TEST, WORLD_OWNER));
        locks_needed = l % 2;
        assert_ok(do_map(&w.table, w.base, 0, 4 * MiB, MAP_DEFAULT));
        assert_ok(do_split(&w.table, w.base, 4 * MiB, 1));
        assert_ok(do_protect(&w.table, w.base, 4 * MiB, RX_WB));
        struct leaves *leaves = leaves_of(&w.table);
        assert_int_equal(leaves->count, 1024);
        for (unsigned i = 0; i < 1024; i++)
            assert_int_equal(leaves->leaf[i].attrs.rights, RIGHT_RX);
        free(leaves);
        assert_int_equal(do_map(&w.table, w.base, 0, PAGE_SIZE, MAP_REPLACE), E_STATE);
        assert_int_equal(do_unmap(&w.table, w.base, PAGE_SIZE), E_STATE);
        assert_int_equal(do_merge(&w.table, w.base, PAGE_SIZE), E_STATE);
        assert_ok(table_cursor_begin(&by_page, &w.table, w.base, w.base + PAGE_SIZE - 1));
        assert_int_equal(table_cursor_unmap(&by_page), E_STATE);
        table_cursor_end(&by_page);
        uint64_t cursor = w.base;
        assert_int_equal(do_sweep(&w.table, &cursor), E_STATE);
        assert_int_equal(table_adopt(&w.table, &early), E_STATE);
        assert_ok(table_adopt(&w.table, &world_env));
        assert_int_equal(table_adopt(&w.table, &world_env), E_STATE);
        assert_ok(do_unmap(&w.table, w.base, 4 * MiB));
        assert_int_equal(w.table.table_frames, 1);
        world_end();
    }
    locks_needed = true;
}

/* Dead subtrees of many tables, and of any number: by one unmap, and with their table. */
void test_any_number_of_tables_dies(void **state)
{
    (void)state;
    for (unsigned l = 0; l < LANDS; l++)
        for (unsigned n = 0; n < 6; n++) {
            start(&lands[l], PAGE_SIZE, n);
            uint64_t in = align_down(w.base, 512 * GiB);
            in += in + 8 * GiB > w.base ? 8 * GiB + align_up(w.end - in, GiB) : 0;
            for (uint64_t at = 0; at < 4 * GiB; at += 2 * MiB)
                if (n < 2 || random_below(&w.random, 8))
                    assert_ok(do_map(&w.table, in + at, 0, PAGE_SIZE, MAP_CAP_4K));
            if (n % 2)
                assert_ok(do_unmap(&w.table, in, 4 * GiB));
            world_end();
        }
}
