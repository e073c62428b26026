/* Translate, walk and visit: what they say is all there is, and builds the same table again. */
#include "tests/property/rounds.h"

static int map_run(void *ctx, const struct mapping *run)
{
    struct table *table = ctx;

    assert_ok(do_map_as(table, run->in, run->out, run->last - run->in + 1, run->attrs,
                        run->level == 1   ? MAP_CAP_4K
                        : run->level == 2 ? MAP_CAP_2M
                                          : MAP_DEFAULT));
    return 0;
}

void test_visitor_reproduces(void **state)
{
    (void)state;
    for (unsigned l = 0; l < LANDS; l++)
        for (unsigned seed = 1; seed <= 2; seed++) {
            struct table again;

            start(&lands[l], PAGE_SIZE, seed);
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

static enum node_verdict stop_at_second(void *ctx, const struct table_node *node)
{
    unsigned *calls = ctx;

    (void)node;
    return ++*calls == 2 ? NODE_STOP : NODE_ENTER;
}

void test_visitors_stop_when_told(void **state)
{
    (void)state;
    for (unsigned l = 0; l < LANDS; l++) {
        unsigned frames = 0;

        start(&lands[l], PAGE_SIZE, 1);
        for (unsigned i = 0; i < 6; i++) /* six runs: no two adjoin in `out` */
            assert_ok(do_map(&w.table, w.base + i * PAGE_SIZE, (20 - 2 * i) * PAGE_SIZE, PAGE_SIZE,
                             MAP_DEFAULT));
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
        assert_ok(do_map(&w.table, w.base + 8 * PAGE_SIZE, GiB, 4 * PAGE_SIZE, MAP_DEFAULT));
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
        assert_int_not_equal(table_visit_nodes(&w.table, stop_at_second, &frames), 0);
        assert_int_equal(frames, 2);
        world_end();
    }
}

struct told {
    unsigned skip, level[MAX_LEVELS + 1];
};

static enum node_verdict skip_below(void *ctx, const struct table_node *node)
{
    struct told *told = ctx;

    told->level[node->level]++;
    return node->level == told->skip ? NODE_SKIP : NODE_ENTER;
}

/* Below a node that is skipped nothing is told; what follows it is. */
void test_visitors_skip_when_told(void **state)
{
    (void)state;
    for (unsigned l = 0; l < LANDS; l++)
        for (unsigned skip = 0; skip <= lands[l].kind->levels; skip++) {
            struct told told = {.skip = skip};

            start(&lands[l], PAGE_SIZE, 1);
            uint64_t in = align_up(w.base, 512 * GiB);
            for (unsigned i = 0; i < 3; i++)
                assert_ok(do_map(&w.table, in + i * GiB, GiB, PAGE_SIZE, MAP_DEFAULT));
            assert_int_equal(table_visit_nodes(&w.table, skip_below, &told), 0);
            for (unsigned level = 1; level <= lands[l].kind->levels; level++)
                assert_int_equal(told.level[level], level < skip ? 0 : level > 2 ? 1 : 3);
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

void test_rights_of_all_levels(void **state)
{
    (void)state;
    for (unsigned l = 0; l < LANDS; l++)
        for (unsigned level = 2; level <= lands[l].kind->levels; level++) {
            struct mapping mapping;
            struct walk walk;
            unsigned rights = 0;

            start(&lands[l], PAGE_SIZE, 1);
            assert_ok(do_map(&w.table, w.base, GiB, PAGE_SIZE, MAP_DEFAULT));
            table_walk(&w.table, w.base, &walk);
            assert_int_equal(walk.error, E_OK);
            assert_int_equal(walk.count, lands[l].kind->levels);
            uint64_t *slot = direct(walk.step[lands[l].kind->levels - level].address);
            *slot &= ~BIT(1); /* W, in both formats */
            world_note(slot);
            assert_ok(table_translate(&w.table, w.base, &mapping));
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
            assert_int_equal(table_translate(&w.table, w.base, &mapping), E_ILLEGAL);
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
