/*
 * translate is the short form of a walk: whatever an entry on the way holds, the two say the same.
 * Every bit of every entry of a path is flipped, in each kind, below leaves of each size. What is
 * read through a table is what it translates to; and how a table's entries are counted.
 */
#include "mm/paging/table.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define ARENA (64 * PAGE_SIZE)

static uint8_t *arena;
static uint64_t used;
static struct table table;

static int take(const struct table_env *env, struct table *of, hpa_t *out)
{
    (void)env;
    (void)of;
    if (used == ARENA)
        return E_NOMEM;
    memset(arena + used, 0, PAGE_SIZE);
    *out = hpa(used);
    used += PAGE_SIZE;
    return E_OK;
}

static void give(const struct table_env *env, struct table *of, hpa_t frame)
{
    (void)env;
    (void)of;
    fail_msg("table frame %lx given back", frame.v);
}

static void flush(const struct table_env *env, struct table *of, const struct flush_batch *batch)
{
    (void)env;
    (void)of;
    (void)batch;
}

static const struct table_env env = {.take = take, .give = give, .flush = flush};

static void start(const struct table_kind *kind, bool execute_only)
{
    const struct table_caps caps = {
        .maxphyaddr = 40,
        .leaf_top = 3,
        .nx = true,
        .accessed_dirty = true,
        .execute_only = execute_only,
        .global = true,
        .mem_types = 1u << MEM_UC | 1u << MEM_WB,
    };

    used = 0;
    assert_int_equal(table_init(&table, kind, &caps, &env, PURPOSE_TEST, OWNER_HOST), E_OK);
}

static void same_as_walk(uint64_t in)
{
    struct mapping mapping;
    struct walk walk;
    int error = table_translate(&table, in, &mapping);

    table_walk(&table, in, &walk);
    assert_int_equal(error, walk.error);
    if (error != E_OK)
        return;
    assert_int_equal(mapping.in, walk.mapping.in);
    assert_int_equal(mapping.last, walk.mapping.last);
    assert_int_equal(mapping.out.v, walk.mapping.out.v);
    assert_true(attrs_equal(mapping.attrs, walk.mapping.attrs));
    assert_int_equal(mapping.level, walk.mapping.level);
    assert_int_equal(mapping.accessed, walk.mapping.accessed);
    assert_int_equal(mapping.dirty, walk.mapping.dirty);
    assert_int_equal(mapping.raw, walk.mapping.raw);
}

/* A second bit is flipped along with the first, so that one illegal entry may hide behind another.
 */
static void flip_all(uint64_t in)
{
    struct walk walk;

    table_walk(&table, in, &walk);
    assert_int_equal(walk.error, E_OK);
    for (unsigned i = 0; i < walk.count; i++) {
        uint64_t *entry = direct(walk.step[i].address), was = *entry;

        for (unsigned bit = 0; bit < 64; bit++) {
            /* An address that stays within the CPU's width leads into memory that the arena has
             * not. */
            if (bit >= 12 && bit < 40 && walk.step[i].class == ENTRY_TABLE)
                continue;
            for (unsigned other = 0; other < 12; other++) {
                *entry = was ^ BIT(bit) ^ (other != bit ? BIT(other) : 0);
                /* Likewise a leaf bit that goes. */
                bool leads_away = walk.step[i].class == ENTRY_LEAF && walk.step[i].level > 1 &&
                                  !(*entry & table.kind->leaf_bit);
                if (!leads_away)
                    same_as_walk(in);
            }
            *entry = was ^ BIT(bit);
            if (walk.step[i].class != ENTRY_LEAF || bit != 7)
                same_as_walk(in);
        }
        *entry = was;
    }
}

static void map(uint64_t in, uint64_t size)
{
    struct flush_batch batch;

    flush_begin(&batch, &table);
    assert_int_equal(
        table_map(&table, in, hpa(GiB), size, attrs_of(RIGHT_RX, MEM_WB), MAP_DEFAULT, &batch),
        E_OK);
    flush_commit(&batch);
    flip_all(in);
}

static const struct {
    const struct table_kind *kind;
    uint64_t base;
} kinds[] = {{&kernel_kind, 0xffff800000000000}, {&user_kind, 512 * GiB}, {&ept_kind, 512 * GiB}};

static void test_translate_is_a_walk(void **state)
{
    (void)state;
    for (unsigned i = 0; i < ARRAY_SIZE(kinds); i++)
        for (unsigned execute_only = 0; execute_only < 2; execute_only++) {
            start(kinds[i].kind, execute_only);
            map(kinds[i].base, PAGE_SIZE);
            map(kinds[i].base + 2 * GiB, 2 * MiB);
            map(kinds[i].base + 4 * GiB, GiB);
        }
}

static void show_page(uint64_t in, uint64_t frame, unsigned rights)
{
    struct flush_batch batch;

    flush_begin(&batch, &table);
    assert_int_equal(table_map(&table, in, hpa(frame * PAGE_SIZE), PAGE_SIZE,
                               attrs_of(rights, MEM_WB), MAP_DEFAULT, &batch),
                     E_OK);
    flush_commit(&batch);
    memset(arena + frame * PAGE_SIZE, (int)frame, PAGE_SIZE);
}

/* Up to the first byte that is not there, or may not be read. */
static void test_read(void **state)
{
    static uint8_t read[4 * PAGE_SIZE];

    (void)state;
    for (unsigned i = 0; i < ARRAY_SIZE(kinds); i++) {
        uint64_t in = kinds[i].base + 7 * PAGE_SIZE, last = kinds[i].kind->input_last;

        start(kinds[i].kind, true);
        show_page(in, 62, RIGHT_R);
        show_page(in + PAGE_SIZE, 60, RIGHT_RX);
        memset(read, 0xee, sizeof(read));
        assert_int_equal(table_read(&table, in + PAGE_SIZE - 3, RIGHT_R, read + 1, 7), 7);
        assert_memory_equal(read, "\xee\x3e\x3e\x3e\x3c\x3c\x3c\x3c\xee", 9);
        assert_int_equal(table_read(&table, in, RIGHT_R, read, 0), 0);
        assert_int_equal(table_read(&table, in, RIGHT_RX, read, 9), 0);
        assert_int_equal(table_read(&table, in + PAGE_SIZE, RIGHT_RX, read, 9), 9);
        assert_int_equal(table_read(&table, in - 1, RIGHT_R, read, 9), 0);
        memset(read, 0xee, sizeof(read));
        assert_int_equal(table_read(&table, in + 1, RIGHT_R, read, sizeof(read)),
                         2 * PAGE_SIZE - 1);
        assert_int_equal(read[PAGE_SIZE - 2], 62);
        assert_int_equal(read[PAGE_SIZE - 1], 60);
        assert_int_equal(read[2 * PAGE_SIZE - 2], 60);
        assert_int_equal(read[2 * PAGE_SIZE - 1], 0xee);
        if (kinds[i].kind == &ept_kind) {
            show_page(in + 2 * PAGE_SIZE, 61, RIGHT_X);
            assert_int_equal(table_read(&table, in, RIGHT_R, read, sizeof(read)), 2 * PAGE_SIZE);
        }
        show_page(last - (PAGE_SIZE - 1), 63, RIGHT_R);
        assert_int_equal(table_read(&table, last - 9, RIGHT_R, read, sizeof(read)), 10);
        assert_int_equal(read[9], 63);
    }
}

static int make_arena(void **state)
{
    (void)state;
    arena = aligned_alloc(PAGE_SIZE, ARENA);
    direct_base = (uint64_t)(uintptr_t)arena;
    return arena == NULL;
}

static int drop_arena(void **state)
{
    (void)state;
    free(arena);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_translate_is_a_walk),
        cmocka_unit_test(test_read),
    };
    return cmocka_run_group_tests(tests, make_arena, drop_arena);
}
