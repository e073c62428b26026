/* Flush batches, frames of the buddy, and data that dies with its mapping. */
#include "tests/property/rounds.h"

/* Two maps into one batch that needs a flush already. */
void test_batch_of_several_calls(void **state)
{
    struct flush_batch batch;

    (void)state;
    start(&lands[2], PAGE_SIZE, 1);
    assert_ok(do_map(&w.table, w.base, GiB, 8 * PAGE_SIZE, MAP_DEFAULT));
    assert_int_equal(w.table.flushes.spared, 1);
    flush_begin(&batch, &w.table);
    assert_ok(table_unmap(&w.table, w.base, PAGE_SIZE, &batch));
    assert_ok(table_map(&w.table, w.base, hpa(2 * GiB), PAGE_SIZE, RWX_WB, MAP_DEFAULT, &batch));
    assert_ok(table_unmap(&w.table, w.base + 4 * PAGE_SIZE, PAGE_SIZE, &batch));
    assert_ok(table_unmap(&w.table, w.base + 2 * PAGE_SIZE, PAGE_SIZE, &batch));
    assert_int_equal(batch.count, 3);
    flush_commit(&batch);
    assert_int_equal(world_look(w.table.root.v, w.base).out, 2 * GiB);
    assert_int_equal(w.flushes, 1);
    world_end();
}

/* A batch that is dropped is noticed, and one that is used twice stops the machine. */
void test_batches(void **state)
{
    struct flush_batch batch;

    (void)state;
    start(&lands[2], PAGE_SIZE, 1);
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
    assert_ok(table_map(&w.table, w.base, hpa(0), PAGE_SIZE, RWX_WB, 0, &batch));
    flush_commit(&batch);
    assert_int_equal(w.table.flushes.whole, 2);
    assert_int_equal(w.table.flushes.spared, 0); /* it was not that map which needed the flush */
    flush_begin(&batch, &w.table);
    flush_whole(&batch);
    assert_ok(table_map(&w.table, w.base + PAGE_SIZE, hpa(0), PAGE_SIZE, RWX_WB, 0, &batch));
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

void test_fresh_frames(void **state)
{
    (void)state;
    for (unsigned l = 0; l < LANDS; l++) {
        struct table_caps caps = world_caps(lands[l].format);
        struct leaves *leaves;
        struct flush_batch batch;

        world_start(&lands[l], PAGE_SIZE, &caps, 1);
        buddy_pages_init(&pages, PURPOSE_TEST, WORLD_OWNER + 1);
        /* 64 pages, then two large ones, then 64 pages. */
        assert_ok(table_map_fresh(&w.table, w.base, w.end - w.base,
                                  attrs_of(RIGHT_RW | (caps.nx ? 0 : RIGHT_X), MEM_WB), MAP_DEFAULT,
                                  &pages.source));
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
        assert_ok(table_copy(&w.other, &w.table, from, bytes, &pages.source));
        struct leaves *copied = leaves_of(&w.other);
        assert_int_equal(copied->count, 62 + 1 + 5);
        for (unsigned i = 0; i < copied->count; i++) {
            struct mapping original;
            const struct mapping *m = &copied->leaf[i];
            assert_ok(table_translate(&w.table, m->in, &original));
            assert_true(attrs_equal(m->attrs, original.attrs));
            uint64_t source = original.out.v + (m->in - original.in);
            assert_int_not_equal(source, m->out.v);
            assert_memory_equal(direct(m->out), direct(hpa(source)), m->last - m->in + 1);
        }
        assert_int_equal(buddy_owner_frames(WORLD_OWNER + 1), CELLS + 62 + 512 + 5);

        /* Too little memory: all that was taken comes back. */
        buddy_set_quota(WORLD_OWNER + 1, CELLS + 62 + 512 + 5 + 3);
        flush_begin(&batch, &w.table);
        assert_ok(table_unmap(&w.table, w.base, 8 * PAGE_SIZE, &batch));
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
            assert_ok(table_unmap(table, w.base, w.end - w.base, &batch));
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

static int take_small(struct page_source *source, uint64_t size, hpa_t *out)
{
    (void)source;
    return size > PAGE_SIZE ? E_NOMEM : buddy_alloc(0, PURPOSE_TEST, WORLD_OWNER + 1, out);
}

/* Where no large block is to be had small ones do. */
void test_fresh_frames_are_small(void **state)
{
    (void)state;
    for (unsigned l = 0; l < LANDS; l++) {
        uint64_t in = start(&lands[l], PAGE_SIZE, 1);
        struct flush_batch batch;

        buddy_pages_init(&pages, PURPOSE_TEST, WORLD_OWNER + 1);
        pages.source.take = take_small;
        assert_ok(table_map_fresh(&w.table, in, 2 * MiB, RWX_WB, MAP_DEFAULT, &pages.source));
        struct leaves *leaves = leaves_of(&w.table);
        assert_int_equal(leaves->count, 512);
        flush_begin(&batch, &w.table);
        assert_ok(table_unmap(&w.table, in, 2 * MiB, &batch));
        for (unsigned i = 0; i < leaves->count; i++) {
            assert_int_equal(leaves->leaf[i].level, 1);
            flush_free_after(&batch, leaves->leaf[i].out);
        }
        flush_commit(&batch);
        assert_int_equal(buddy_owner_frames(WORLD_OWNER + 1), 0);
        free(leaves);
        world_end();
    }
}

/* A data block goes back to the buddy only after every CPU has forgotten it. */
void test_data_dies_after_the_flush(void **state)
{
    (void)state;
    for (unsigned l = 0; l < LANDS; l++)
        for (unsigned order = 0; order <= 9; order += 9) {
            uint64_t size = PAGE_SIZE << order;
            struct flush_batch batch;
            struct frame_info info;
            hpa_t block;

            uint64_t in = start(&lands[l], PAGE_SIZE, 1);
            assert_int_equal(buddy_alloc(order, PURPOSE_TEST, WORLD_OWNER + 1, &block), E_OK);
            assert_ok(do_map(&w.table, in, block.v, size, MAP_DEFAULT));
            for (unsigned i = 0; i < CELLS; i++) /* so that the CPUs look there */
                w.cell[i].present = i >= 64 && i < 64 + (1u << order);
            world_fill_caches();
            flush_begin(&batch, &w.table);
            assert_ok(table_unmap(&w.table, in, size, &batch));
            flush_free_after(&batch, block);
            assert_int_equal(frame_query(block, &info, NULL), E_OK);
            assert_int_equal(info.state, FRAME_DYING);
            assert_int_equal(buddy_free(block, order, WORLD_OWNER + 1), E_STATE);
            flush_commit(&batch); /* the world looks at each block that is given back */
            assert_true(buddy_is_free(block));
            world_end();
        }
}
