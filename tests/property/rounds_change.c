/* Changes of live pages: protect, harvest and clone, of pieces and of whole nodes. */
#include "tests/property/rounds.h"

/*
 * Pieces of a 1 GiB page, on any 4 KiB boundary: what a change does not name goes on being said.
 * The model is the list of changes; samples are taken at every edge there has been, and at random.
 */
struct change {
    uint64_t first, last; /* offsets within the page */
    enum world_op by;
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
        if (change->by == OP_UNMAP)
            present = false;
        if (change->by == OP_REPLACE) {
            present = true;
            out = change->out + (offset - change->first);
        }
        if (change->by == OP_REPLACE || (change->by == OP_PROTECT && present))
            attrs = change->attrs;
        if (change->by == OP_CLONE)
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
    int error = E_OK;

    if (random_below(r, 3) == 0) /* on a boundary of 2 MiB at one end */
        first = align_down(first, 512);
    *change = (struct change){.first = first * PAGE_SIZE,
                              .last = (first + pages) * PAGE_SIZE - 1,
                              .by = (enum world_op[]){OP_REPLACE, OP_UNMAP, OP_PROTECT, OP_PROTECT,
                                                      OP_CLONE}[random_below(r, 5)],
                              .attrs = attrs_of(random_below(r, 2) ? RIGHT_RWX : RIGHT_RX,
                                                random_below(r, 2) ? MEM_WB : MEM_UC),
                              .out = random_below(r, 4) * GiB + first * PAGE_SIZE};
    uint64_t at = in + change->first, size = pages * PAGE_SIZE;
    switch (change->by) {
    case OP_REPLACE:
        error = do_map_as(&w.table, at, hpa(change->out), size, change->attrs,
                          MAP_REPLACE | MAP_CAP_2M);
        break;
    case OP_UNMAP:
        error = do_unmap(&w.table, at, size);
        break;
    case OP_PROTECT:
        error = do_protect(&w.table, at, size, change->attrs);
        break;
    default:
        error = do_clone(&w.other, &w.table, at, size);
        break;
    }
    assert_int_equal(error, E_OK);
    check_pieces(&w.table, in, 0, GiB - 1, changes, n + 1);
    if (change->by != OP_CLONE)
        return;
    check_pieces(&w.other, in, change->first, change->last, changes, n + 1);
    assert_false(world_look(w.other.root.v, at - PAGE_SIZE).present);
    assert_false(world_look(w.other.root.v, at + size).present);
    assert_ok(do_unmap(&w.other, at, size));
    assert_int_equal(w.other.table_frames, 1);
}

void test_pieces_of_large_pages(void **state)
{
    (void)state;
    for (unsigned l = 0; l < LANDS; l++)
        for (unsigned seed = 0; seed < 4; seed++) {
            struct change changes[CHANGES];

            uint64_t in = start(&lands[l], 2 * MiB, 8 * l + seed);
            assert_ok(do_map(&w.table, in, 4 * GiB, GiB, MAP_DEFAULT));
            assert_int_equal(world_look(w.table.root.v, in).level, 3);
            for (unsigned n = 0; n < CHANGES; n++)
                one_change(in, changes, n);
            world_end();
        }
}

/* More tables than are changed between two flushes; with frames for copies, and without. */
void test_protect_of_many_tables(void **state)
{
    (void)state;
    for (unsigned l = 0; l < LANDS; l++)
        for (unsigned poor = 0; poor < 2; poor++) {
            struct attrs less = RX_WB;
            struct mapping mapping;

            uint64_t in = start(&lands[l], PAGE_SIZE, 1);
            assert_ok(do_map(&w.table, in, 64 * MiB, 40 * MiB, MAP_CAP_4K));
            /* One table is not like the others. */
            assert_ok(do_unmap(&w.table, in + 6 * MiB + 3 * PAGE_SIZE, PAGE_SIZE));
            uint64_t frames = w.table.table_frames;
            w.fail_in = poor ? 0 : UINT64_MAX;
            assert_ok(do_protect(&w.table, in, 40 * MiB, less));
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
            assert_changes_nothing(do_protect(&w.table, in, 40 * MiB, less));
            w.fail_in = UINT64_MAX;
            world_end();
        }
}

/* Takes A and D from all pages, as one who looks what is in use does. */
void clear_marks(struct table *table, uint64_t in, uint64_t size)
{
    assert_ok(do_harvest(table, in, size, HARVEST_CLEAR_A | HARVEST_CLEAR_D, NULL, NULL));
}

/* 1 GiB of large pages, among them some that became small ones; their marks are none, those of the
 * first few, and those of every third. */
void test_protect_of_mixed_tables(void **state)
{
    static const uint64_t small[] = {0, 17, 300, 511};

    (void)state;
    for (unsigned l = 0; l < LANDS; l++)
        for (unsigned n = 0; n < 5 * 3; n++) {
            uint64_t ad = sdm_accessed(lands[l].format) | sdm_dirty(lands[l].format);
            struct attrs less = RX_WB;

            start(&lands[l], PAGE_SIZE, 1);
            uint64_t in = align_up(w.end, GiB);
            assert_ok(do_map(&w.table, in, GiB, GiB, MAP_CAP_2M));
            if (n % 5 < 4)
                assert_ok(do_split(&w.table, in + small[n % 5] * 2 * MiB, 2 * MiB, 1));
            clear_marks(&w.table, in, GiB);
            for (uint64_t at = 0; n / 5 && at < 512; at += n / 5 == 1 ? 1 : 3) {
                uint64_t *slot = world_look(w.table.root.v, in + at * 2 * MiB).slot;
                if (n / 5 == 1 && at == 9)
                    break;
                *slot |= ad;
                world_note(slot);
            }
            assert_ok(do_protect(&w.table, in, GiB, less));
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

static uint64_t *marked_late;

static void mark_then_flush(const struct table_env *env, struct table *table,
                            const struct flush_batch *batch)
{
    *marked_late |= sdm_accessed(w.land->format) | sdm_dirty(w.land->format);
    world_note(marked_late);
    world_env.flush(env, table, batch);
}

/* Hardware marks one page, whichever it is, in a node whose copy has taken its place already. */
void test_marks_set_late_in_a_copy(void **state)
{
    (void)state;
    for (unsigned l = 0; l < LANDS; l++)
        for (unsigned page = 0; page < 512; page += page < 32 ? 1 : 31) {
            struct table_env marking = world_env;

            uint64_t in = start(&lands[l], PAGE_SIZE, 1);
            assert_ok(do_map(&w.table, in, 64 * MiB, 2 * MiB, MAP_CAP_4K));
            clear_marks(&w.table, in, 2 * MiB);
            marked_late = world_look(w.table.root.v, in + page * PAGE_SIZE).slot;
            marking.flush = mark_then_flush;
            w.table.env = &marking;
            assert_ok(do_protect(&w.table, in, 2 * MiB, RX_WB));
            w.table.env = &world_env;
            for (unsigned i = 0; i < 512; i++) {
                struct found found = world_look(w.table.root.v, in + i * PAGE_SIZE);

                assert_ptr_not_equal(found.slot, marked_late);
                assert_true(attrs_equal(found.attrs, RX_WB));
                assert_int_equal(found.accessed, i == page);
                assert_int_equal(found.dirty, i == page);
            }
            world_end();
        }
}

/* What lies across an end of the range, and is so already, stays whole. */
void test_protect_of_what_is_so(void **state)
{
    (void)state;
    for (unsigned l = 0; l < LANDS; l++) {
        uint64_t in = start(&lands[l], 2 * MiB, 1);

        assert_ok(do_map(&w.table, in, GiB, 2 * GiB, MAP_DEFAULT));
        assert_changes_nothing(do_protect(&w.table, in + PAGE_SIZE, GiB, RWX_WB));
        assert_int_equal(world_look(w.table.root.v, in).level, 3);
        world_end();
    }
}

/* The tables below a pinned root are those of all programs: changed in place, never replaced. */
void test_protect_below_a_pinned_root(void **state)
{
    struct table_caps caps = world_caps(SDM_HOST);
    struct attrs less = attrs_of(RIGHT_R, MEM_WB);
    static struct table user;
    struct mapping mapping;

    (void)state;
    world_start(&lands[0], PAGE_SIZE, &caps, 1);
    assert_ok(table_init(&user, &user_kind, &caps, &world_env, PURPOSE_TEST, WORLD_OWNER));
    assert_ok(table_preallocate(&w.table));
    assert_ok(table_share_upper(&user, &w.table));
    uint64_t in = align_up(w.end, 512 * GiB);
    assert_ok(do_map(&w.table, in, 0, 512 * GiB, MAP_DEFAULT));
    assert_int_equal(world_look(w.table.root.v, in).level, 3);
    clear_marks(&w.table, in, 512 * GiB);
    assert_ok(do_protect(&w.table, in, 512 * GiB, less));
    for (uint64_t at = 0; at < 512 * GiB; at += GiB) {
        assert_ok(table_translate(&w.table, in + at, &mapping));
        assert_true(attrs_equal(mapping.attrs, less) && mapping.level == 3);
        assert_int_equal(mapping.out.v, at);
    }
    const uint64_t *ours = direct(user.root), *theirs = direct(w.table.root);
    for (unsigned i = 256; i < 512; i++)
        assert_int_equal(ours[i], theirs[i]);
    assert_ok(table_destroy(&user));
    world_end();
}

static int stop_at_once(void *ctx, const struct mapping *mapping)
{
    (void)mapping;
    ++*(unsigned *)ctx;
    return 5;
}

/* A visitor that stops a harvest has seen each page whose bits were taken. */
void test_harvest_stops(void **state)
{
    (void)state;
    for (unsigned l = 0; l < LANDS; l++) {
        struct flush_batch batch;
        uint64_t ad = sdm_accessed(lands[l].format) | sdm_dirty(lands[l].format);
        unsigned calls = 0;

        uint64_t in = start(&lands[l], PAGE_SIZE, 1);
        assert_ok(do_map(&w.table, in, 2 * MiB, 8 * PAGE_SIZE, MAP_DEFAULT));
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
        assert_ok(do_harvest(&w.table, in, 2 * MiB, HARVEST_CLEAR_D, NULL, NULL));
        assert_true(world_look(w.table.root.v, in + PAGE_SIZE).accessed);
        assert_false(world_look(w.table.root.v, in + PAGE_SIZE).dirty);
        world_end();
    }
}

/* A clone and a copy of the last page of the space. */
void test_clone_at_the_end(void **state)
{
    (void)state;
    for (unsigned l = 0; l < LANDS; l++) {
        uint64_t in = lands[l].kind->input_last + 1 - PAGE_SIZE;
        struct mapping one, two;

        start(&lands[l], PAGE_SIZE, 1);
        assert_ok(do_map(&w.table, in, GiB, PAGE_SIZE, MAP_DEFAULT));
        assert_ok(do_clone(&w.other, &w.table, in, PAGE_SIZE));
        assert_ok(table_translate(&w.table, in, &one));
        assert_ok(table_translate(&w.other, in, &two));
        assert_int_equal(one.out.v, two.out.v);
        assert_int_equal(one.attrs.rights, RIGHT_RX);
        assert_int_equal(two.attrs.rights, RIGHT_RX);
        /* A clone of what nobody could write to any more changes nothing in the original. */
        assert_ok(do_unmap(&w.other, in, PAGE_SIZE));
        assert_ok(do_clone(&w.other, &w.table, in, PAGE_SIZE));
        assert_false(owed);
        world_end();
    }
}

/* Too few frames for the clone, or for the splits of the original: all come back. */
void test_clone_without_frames(void **state)
{
    (void)state;
    for (unsigned l = 0; l < LANDS; l++) {
        uint64_t in = start(&lands[l], 2 * MiB, 1), few = 0;
        int error;

        assert_ok(do_map(&w.table, in, GiB, GiB, MAP_DEFAULT));
        uint64_t frames = w.table.table_frames, taken = w.taken;
        w.stores = 0;
        do {
            assert_int_equal(w.table.table_frames, frames);
            assert_int_equal(w.other.table_frames, 1);
            assert_int_equal(w.taken, taken);
            assert_int_equal(w.stores, 0);
            w.fail_in = few++;
            error = do_clone(&w.other, &w.table, in + PAGE_SIZE, 2 * MiB);
        } while (error == E_NOMEM);
        assert_ok(error);
        w.fail_in = UINT64_MAX;
        /* Two nodes of level 1 in each, one of level 2, and what is above in the clone. */
        assert_int_equal(few - 1, 3 + 3 + lands[l].kind->levels - 3);
        world_end();
    }
}
