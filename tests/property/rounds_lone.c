/* Pages that are mapped and unmapped one by one, alone on the machine. */
#include "tests/property/rounds.h"

/* Lone pages of three nodes in turn, alone on the machine. */
void test_lone_pages(void **state)
{
    (void)state;
    locks_needed = false;
    for (unsigned l = 0; l < LANDS; l++) {
        uint64_t out[3][512] = {0};
        struct attrs attrs[3][512];

        start(&lands[l], PAGE_SIZE, l);
        uint64_t in = w.base + 64 * w.unit - 2 * MiB;
        for (unsigned round = 0; round < 6000; round++) {
            unsigned part = (unsigned)random_below(&w.random, 3);
            unsigned slot = (unsigned)random_below(&w.random, round < 3000 ? 6 : 512);
            uint64_t at = in + part * 2 * MiB + slot * PAGE_SIZE;
            uint64_t to = (1 + random_below(&w.random, 100000)) * PAGE_SIZE;
            struct attrs a = random_below(&w.random, 8) ? RWX_WB : attrs_of(RIGHT_RX, MEM_UC);
            unsigned what = (unsigned)random_below(&w.random, 32);
            int error;

            if (what < 15) {
                error = do_map_as(&w.table, at, hpa(to), PAGE_SIZE, a, MAP_DEFAULT);
                assert_int_equal(error, out[part][slot] ? E_EXIST : E_OK);
                assert_false(owed);
                if (!error) {
                    out[part][slot] = to;
                    attrs[part][slot] = a;
                }
            } else if (what < 30) {
                assert_ok(do_unmap(&w.table, at, PAGE_SIZE));
                assert_int_equal(owed, out[part][slot] != 0);
                out[part][slot] = 0;
            } else if (what == 30) {
                unsigned from = random_below(&w.random, 2) ? slot : 0;
                assert_ok(do_unmap(&w.table, in + part * 2 * MiB + from * PAGE_SIZE,
                                   2 * MiB - from * PAGE_SIZE));
                memset(&out[part][from], 0, sizeof(out[part]) - from * sizeof(out[part][0]));
            } else {
                assert_ok(do_map_as(&w.table, in + part * 2 * MiB, hpa(GiB), 2 * MiB, RWX_WB,
                                    MAP_REPLACE | (random_below(&w.random, 2) ? MAP_CAP_4K : 0)));
                for (unsigned i = 0; i < 512; i++) {
                    out[part][i] = GiB + i * PAGE_SIZE;
                    attrs[part][i] = RWX_WB;
                }
            }
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
        assert_ok(do_unmap(&w.table, in, 6 * MiB));
        assert_int_equal(w.table.table_frames, 1);
        world_end();
    }
    locks_needed = true;
}

/* Lone pages that are no neighbours, in one batch: each of them is owed. */
void test_lone_pages_share_a_batch(void **state)
{
    (void)state;
    locks_needed = false;
    for (unsigned l = 0; l < LANDS; l++) {
        struct flush_batch batch;

        start(&lands[l], PAGE_SIZE, l);
        assert_ok(do_map_as(&w.table, w.base, hpa(0), 16 * PAGE_SIZE, RWX_WB, MAP_CAP_4K));
        flush_begin(&batch, &w.table);
        for (unsigned i = 0; i < 4; i++)
            assert_ok(table_unmap(&w.table, w.base + 3 * i * PAGE_SIZE, PAGE_SIZE, &batch));
        assert_int_equal(batch.count, 4);
        for (unsigned i = 0; i < 4; i++) {
            assert_int_equal(batch.range[i].first, w.base + 3 * i * PAGE_SIZE);
            assert_int_equal(batch.range[i].last, batch.range[i].first + PAGE_SIZE - 1);
        }
        flush_commit(&batch);
        assert_ok(do_unmap(&w.table, w.base, 16 * PAGE_SIZE));
        /* One range, of as many pages as are flushed one by one, and of one more; the page behind
         * keeps the table. */
        for (unsigned more = 0; more < 2; more++) {
            uint64_t in = w.base + 64 * w.unit, size = (FLUSH_PAGES + more) * PAGE_SIZE;
            uint64_t ranges = w.table.flushes.ranges, whole = w.table.flushes.whole;

            assert_ok(do_map(&w.table, in, 0, size + PAGE_SIZE, MAP_CAP_4K));
            flush_begin(&batch, &w.table);
            assert_ok(table_unmap(&w.table, in, size, &batch));
            flush_commit(&batch);
            assert_int_equal(w.table.flushes.ranges, ranges + 1 - more);
            assert_int_equal(w.table.flushes.whole, whole + more);
            assert_ok(do_unmap(&w.table, in + size, PAGE_SIZE));
        }
        world_end();
    }
    locks_needed = true;
}

/* A page beside the last one is refused for the same reasons as any other. */
void test_lone_pages_at_the_ends(void **state)
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
            assert_ok(table_map(&table, inside, hpa(0), PAGE_SIZE, RWX_WB, 0, &batch));
            assert_ok(table_map(&table, beside, hpa(0), PAGE_SIZE, RWX_WB, 0, &batch));
            assert_ok(table_unmap(&table, beside, PAGE_SIZE, &batch));
            flush_commit(&batch);
            flush_begin(&batch, &table);
            for (unsigned i = 0; i < ARRAY_SIZE(refused); i++)
                assert_int_equal(table_map(&table, refused[i].in, hpa(refused[i].out), PAGE_SIZE,
                                           RWX_WB, 0, &batch),
                                 refused[i].error);
            assert_int_equal(table_unmap(&table, outside, PAGE_SIZE, &batch), E_RANGE);
            assert_int_equal(table_unmap(&table, inside + 8, PAGE_SIZE, &batch), E_ALIGN);
            assert_true(flush_empty(&batch));
            assert_ok(table_unmap(&table, inside, PAGE_SIZE, &batch));
            flush_commit(&batch);
            assert_int_equal(table.table_frames, 1);
        }
        world_table_end(&table);
        world_end();
    }
    locks_needed = true;
}

/* A page beside others, in a table into which nothing was mapped by attributes yet. */
void test_lone_page_beside_copies(void **state)
{
    (void)state;
    locks_needed = false;
    for (unsigned l = 0; l < LANDS; l++) {
        struct table table;

        start(&lands[l], PAGE_SIZE, l);
        world_table_init(&table);
        uint64_t in = w.base + 64 * w.unit;
        assert_ok(do_map(&w.table, in, GiB, 2 * PAGE_SIZE, MAP_DEFAULT));
        assert_ok(do_clone(&table, &w.table, in, PAGE_SIZE));
        assert_int_equal(do_map_as(&table, in + PAGE_SIZE, hpa(GiB), PAGE_SIZE,
                                   attrs_of(RIGHT_NONE, MEM_UC), MAP_DEFAULT),
                         E_ILLEGAL);
        assert_false(world_look(table.root.v, in + PAGE_SIZE).present);
        assert_ok(do_unmap(&table, in, PAGE_SIZE));
        world_table_end(&table);
        world_end();
    }
    locks_needed = true;
}

/* A page that was mapped is there until something takes it away: a call of its own, after which a
 * second one finds nothing; or a range, which may also begin elsewhere. */
static void takes_a_page_away(uint64_t in, uint64_t page, uint64_t kept)
{
    assert_ok(do_map(&w.table, page, GiB, PAGE_SIZE, MAP_DEFAULT));
    assert_int_equal(do_map(&w.table, page, GiB, PAGE_SIZE, MAP_DEFAULT), E_EXIST);
    assert_ok(do_unmap(&w.table, page, PAGE_SIZE));
    assert_false(is_there(page));
    assert_ok(do_unmap(&w.table, page, PAGE_SIZE));
    world_check_frames(&w.table);
    for (unsigned from = 0; from < 2; from++) {
        assert_ok(do_map(&w.table, kept - PAGE_SIZE, GiB, PAGE_SIZE, 0));
        assert_ok(do_map(&w.table, page, GiB, PAGE_SIZE, MAP_DEFAULT));
        assert_ok(
            do_unmap(&w.table, from ? page : in, from ? 2 * PAGE_SIZE : 2 * MiB - 2 * PAGE_SIZE));
        assert_false(is_there(page));
        assert_ok(do_unmap(&w.table, page, PAGE_SIZE));
        world_check_frames(&w.table);
        assert_ok(do_unmap(&w.table, kept - PAGE_SIZE, PAGE_SIZE));
    }
}

/* What happens to its neighbours does not, nor do another frame or other rights. */
static void leaves_a_page_there(uint64_t page)
{
    uint64_t next = page + PAGE_SIZE;

    assert_ok(do_map(&w.table, page, GiB, PAGE_SIZE, MAP_DEFAULT));
    assert_ok(do_map(&w.table, next, GiB, PAGE_SIZE, MAP_DEFAULT));
    assert_ok(do_unmap(&w.table, next, PAGE_SIZE));
    assert_ok(do_unmap(&w.table, next, PAGE_SIZE));
    assert_true(is_there(page));
    assert_ok(do_map(&w.table, page, 2 * GiB, PAGE_SIZE, MAP_REPLACE));
    assert_ok(do_protect(&w.table, page, PAGE_SIZE, RX_WB));
    assert_int_equal(do_map(&w.table, page, GiB, PAGE_SIZE, MAP_DEFAULT), E_EXIST);
    assert_ok(do_unmap(&w.table, page, PAGE_SIZE));
    assert_false(is_there(page));
    world_check_frames(&w.table);
}

/* A page that was refused is none; and what is left is found elsewhere in the node. */
static void refuses_a_page(uint64_t page, uint64_t kept)
{
    for (unsigned crooked = 0; crooked < 2; crooked++) {
        assert_ok(do_unmap(&w.table, kept - PAGE_SIZE, PAGE_SIZE));
        assert_int_equal(do_map(&w.table, page + crooked, GiB + !crooked, PAGE_SIZE, MAP_DEFAULT),
                         E_ALIGN);
        assert_int_equal(do_unmap(&w.table, page + crooked, PAGE_SIZE), crooked ? E_ALIGN : E_OK);
        world_check_frames(&w.table);
    }
}

void test_lone_page_comes_and_goes(void **state)
{
    (void)state;
    locks_needed = false;
    for (unsigned l = 0; l < LANDS; l++) {
        start(&lands[l], PAGE_SIZE, 1);
        if (lands[l].kind->input_first == 0) { /* not even address 0 is known before it is mapped */
            assert_ok(do_map(&w.table, PAGE_SIZE, GiB, 3 * PAGE_SIZE, MAP_DEFAULT));
            assert_ok(do_unmap(&w.table, PAGE_SIZE, PAGE_SIZE));
            assert_ok(do_unmap(&w.table, 0, PAGE_SIZE));
            world_check_frames(&w.table);
            assert_ok(do_unmap(&w.table, 2 * PAGE_SIZE, 2 * PAGE_SIZE));
        }
        uint64_t in = w.base + 64 * w.unit, kept = in + 2 * MiB - PAGE_SIZE;
        assert_ok(do_map(&w.table, kept, GiB, PAGE_SIZE, MAP_DEFAULT));
        for (unsigned part = 0; part < 3; part++) {
            uint64_t page = in + part * 512 * KiB + part * 9 * PAGE_SIZE;

            takes_a_page_away(in, page, kept);
            leaves_a_page_there(page);
            refuses_a_page(page, kept);
            assert_ok(do_map(&w.table, page, GiB, PAGE_SIZE, MAP_DEFAULT));
            assert_ok(do_unmap(&w.table, kept, PAGE_SIZE));
            assert_true(is_there(page));
            assert_ok(do_unmap(&w.table, page, PAGE_SIZE)); /* the last one of the table */
            assert_int_equal(w.table.table_frames, 1);
            assert_ok(do_map(&w.table, kept, GiB, PAGE_SIZE, MAP_DEFAULT));
        }
        world_end();
    }
    locks_needed = true;
}

/* A table that a copy took the place of is no longer the one used last: its frame becomes
 * another's. */
void test_lone_page_after_a_copy(void **state)
{
    (void)state;
    locks_needed = false;
    for (unsigned l = 0; l < LANDS; l++) {
        uint64_t in = start(&lands[l], PAGE_SIZE, 1);
        assert_ok(do_map(&w.table, in, GiB, 2 * MiB, MAP_CAP_4K));
        assert_ok(do_unmap(&w.table, in + PAGE_SIZE, PAGE_SIZE));
        assert_ok(do_map(&w.table, in + PAGE_SIZE, GiB + PAGE_SIZE, PAGE_SIZE, 0));
        clear_marks(&w.table, in, 2 * MiB);
        assert_ok(do_protect(&w.table, in, 2 * MiB, RX_WB));
        assert_ok(do_map(&w.table, in - 2 * MiB, 2 * GiB, 16 * PAGE_SIZE, MAP_CAP_4K));
        assert_ok(do_unmap(&w.table, in + 7 * PAGE_SIZE, PAGE_SIZE));
        assert_false(is_there(in + 7 * PAGE_SIZE));
        assert_true(is_there(in - 2 * MiB + 7 * PAGE_SIZE));
        world_end();
    }
    locks_needed = true;
}
