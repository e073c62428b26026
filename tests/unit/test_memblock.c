/*
 * Memblock: by example at the edges, then random sequences of operations against a flat model that
 * keeps one byte of state for each byte of a small address space.
 */
#include "mm/frames/memblock.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "lib/bits.h"
#include "mm/frames/frame.h"
#include "tests/unit/random.h"

#define TOP (UINT64_C(1) << 63)

static struct memblock mb;

static int fresh(void **state)
{
    (void)state;
    memset(&mb, 0xa5, sizeof(mb));
    memblock_init(&mb);
    return 0;
}

static void assert_regions(const struct memregions *list, size_t count,
                           const struct memregion *expected)
{
    struct memregion region;
    size_t n = 0;

    regions_each (&region, list) {
        assert_true(n < count);
        assert_int_equal(region.base, expected[n].base);
        assert_int_equal(region.size, expected[n].size);
        assert_int_equal(region.flags, expected[n].flags);
        n++;
    }
    assert_int_equal(n, count);
}

#define assert_memory(...)                                                                         \
    do {                                                                                           \
        const struct memregion expected_[] = {__VA_ARGS__};                                        \
        assert_regions(&mb.memory, ARRAY_SIZE(expected_), expected_);                              \
    } while (0)
#define assert_reserved(...)                                                                       \
    do {                                                                                           \
        const struct memregion expected_[] = {__VA_ARGS__};                                        \
        assert_regions(&mb.reserved, ARRAY_SIZE(expected_), expected_);                            \
    } while (0)

/* --- by example ---------------------------------------------------------------------------- */

static void starts_empty(void **state)
{
    uint64_t at;

    (void)state;
    assert_int_equal(mb.memory.count, 0);
    assert_int_equal(mb.reserved.count, 0);
    assert_int_equal(memblock_ram_end(&mb), 0);
    assert_int_equal(memblock_usable_bytes(&mb), 0);
    assert_false(memblock_is_usable(&mb, 0, 1));
    assert_false(memblock_is_reserved(&mb, 0, UINT64_MAX));
    assert_int_equal(memblock_find(&mb, 4096, 4096, 0, UINT64_MAX, &at), E_NOMEM);
}

static void neighbours_merge_when_alike(void **state)
{
    (void)state;
    assert_int_equal(memblock_add(&mb, 0x3000, 0x1000, MEMKIND_USABLE), E_OK);
    assert_int_equal(memblock_add(&mb, 0x1000, 0x1000, MEMKIND_USABLE), E_OK);
    assert_memory({0x1000, 0x1000, MEMKIND_USABLE}, {0x3000, 0x1000, MEMKIND_USABLE});
    assert_int_equal(memblock_add(&mb, 0x2000, 0x1000, MEMKIND_USABLE), E_OK);
    assert_memory({0x1000, 0x3000, MEMKIND_USABLE});
    assert_int_equal(memblock_add(&mb, 0x4000, 0x1000, MEMKIND_ACPI_NVS), E_OK);
    assert_memory({0x1000, 0x3000, MEMKIND_USABLE}, {0x4000, 0x1000, MEMKIND_ACPI_NVS});
}

static void the_stronger_kind_wins(void **state)
{
    (void)state;
    /* Weaker over stronger: only the rest is filled, on both sides and between. */
    assert_int_equal(memblock_add(&mb, 0x2000, 0x1000, MEMKIND_RESERVED), E_OK);
    assert_int_equal(memblock_add(&mb, 0x5000, 0x1000, MEMKIND_BAD), E_OK);
    assert_int_equal(memblock_add(&mb, 0x1000, 0x6000, MEMKIND_USABLE), E_OK);
    assert_memory({0x1000, 0x1000, MEMKIND_USABLE}, {0x2000, 0x1000, MEMKIND_RESERVED},
                  {0x3000, 0x2000, MEMKIND_USABLE}, {0x5000, 0x1000, MEMKIND_BAD},
                  {0x6000, 0x1000, MEMKIND_USABLE});
    /* Stronger over weaker, with the strongest left standing. */
    assert_int_equal(memblock_add(&mb, 0x2800, 0x4000, MEMKIND_RESERVED), E_OK);
    assert_memory({0x1000, 0x1000, MEMKIND_USABLE}, {0x2000, 0x3000, MEMKIND_RESERVED},
                  {0x5000, 0x1000, MEMKIND_BAD}, {0x6000, 0x800, MEMKIND_RESERVED},
                  {0x6800, 0x800, MEMKIND_USABLE});
    /* The order of the kinds is the order of strength. */
    for (unsigned weak = MEMKIND_USABLE; weak < MEMKIND_BAD; weak++) {
        fresh(NULL);
        memblock_add(&mb, 0, 0x1000, (enum mem_kind)weak);
        memblock_add(&mb, 0, 0x1000, (enum mem_kind)(weak + 1));
        memblock_add(&mb, 0, 0x1000, (enum mem_kind)weak);
        assert_memory({0, 0x1000, weak + 1});
    }
}

static void a_change_inside_splits(void **state)
{
    (void)state;
    assert_int_equal(memblock_add(&mb, 0x1000, 0x9000, MEMKIND_USABLE), E_OK);
    assert_int_equal(memblock_remove(&mb, 0x3000, 0x1000), E_OK);
    assert_memory({0x1000, 0x2000, MEMKIND_USABLE}, {0x4000, 0x6000, MEMKIND_USABLE});
    assert_int_equal(memblock_remove(&mb, 0, 0x1001), E_OK);
    assert_int_equal(memblock_remove(&mb, 0x9fff, 0x5000), E_OK);
    assert_memory({0x1001, 0x1fff, MEMKIND_USABLE}, {0x4000, 0x5fff, MEMKIND_USABLE});
    assert_int_equal(memblock_remove(&mb, 0x2000, 0x3000), E_OK);
    assert_memory({0x1001, 0xfff, MEMKIND_USABLE}, {0x5000, 0x4fff, MEMKIND_USABLE});
    assert_int_equal(memblock_remove(&mb, 0, UINT64_MAX), E_OK);
    assert_int_equal(mb.memory.count, 0);
    assert_int_equal(memblock_remove(&mb, 0x1000, 0x1000), E_OK); /* nothing there: fine */
}

static void the_newer_purpose_wins(void **state)
{
    (void)state;
    assert_int_equal(memblock_reserve(&mb, 0x1000, 0x4000, PURPOSE_IMAGE), E_OK);
    assert_int_equal(memblock_reserve(&mb, 0x2000, 0x1000, PURPOSE_FIRMWARE), E_OK);
    assert_reserved({0x1000, 0x1000, PURPOSE_IMAGE}, {0x2000, 0x1000, PURPOSE_FIRMWARE},
                    {0x3000, 0x2000, PURPOSE_IMAGE});
    assert_int_equal(memblock_reserve(&mb, 0x2000, 0x1000, PURPOSE_IMAGE), E_OK);
    assert_reserved({0x1000, 0x4000, PURPOSE_IMAGE});
    assert_int_equal(memblock_unreserve(&mb, 0x1800, 0x800), E_OK);
    assert_reserved({0x1000, 0x800, PURPOSE_IMAGE}, {0x2000, 0x3000, PURPOSE_IMAGE});
}

static void ranges_that_are_none(void **state)
{
    (void)state;
    memblock_add(&mb, 0x1000, 0x1000, MEMKIND_USABLE);
    memblock_reserve(&mb, 0x1000, 0x1000, PURPOSE_BOOT);
    assert_int_equal(memblock_add(&mb, 0x5000, 0, MEMKIND_USABLE), E_RANGE);
    assert_int_equal(memblock_add(&mb, 0, 0, MEMKIND_USABLE), E_RANGE);
    assert_int_equal(memblock_add(&mb, UINT64_MAX, 2, MEMKIND_USABLE), E_RANGE);
    assert_int_equal(memblock_add(&mb, TOP, TOP + 1, MEMKIND_USABLE), E_RANGE);
    assert_int_equal(memblock_add(&mb, 0x5000, 0x1000, (enum mem_kind)5), E_INVAL);
    assert_int_equal(memblock_remove(&mb, 0x1000, 0), E_RANGE);
    assert_int_equal(memblock_remove(&mb, 0x1000, UINT64_MAX), E_RANGE);
    assert_int_equal(memblock_reserve(&mb, 0x1000, 0, PURPOSE_BOOT), E_RANGE);
    assert_int_equal(memblock_reserve(&mb, 2, UINT64_MAX, PURPOSE_BOOT), E_RANGE);
    assert_int_equal(memblock_unreserve(&mb, 0x1000, 0), E_RANGE);
    assert_memory({0x1000, 0x1000, MEMKIND_USABLE});
    assert_reserved({0x1000, 0x1000, PURPOSE_BOOT});
}

static void the_top_of_the_address_space(void **state)
{
    struct memframes run;
    uint64_t at;

    (void)state;
    assert_int_equal(memblock_add(&mb, UINT64_MAX - 0xfff, 0x1000, MEMKIND_USABLE), E_OK);
    assert_int_equal(memblock_add(&mb, UINT64_MAX - 0x1fff, 0x1000, MEMKIND_USABLE), E_OK);
    assert_memory({UINT64_MAX - 0x1fff, 0x2000, MEMKIND_USABLE});
    assert_true(memblock_is_usable(&mb, UINT64_MAX, 1));
    assert_false(memblock_is_usable(&mb, UINT64_MAX, 2));
    assert_true(memblock_next_frames(&mb, 0, &run));
    assert_int_equal(run.base, UINT64_MAX - 0x1fff);
    assert_int_equal(run.size, 0x2000);
    assert_int_equal(memblock_find(&mb, 0x1000, 0x1000, 0, UINT64_MAX, &at), E_OK);
    assert_int_equal(at, UINT64_MAX - 0xfff);
    assert_int_equal(memblock_reserve(&mb, UINT64_MAX, 1, PURPOSE_BOOT), E_OK);
    assert_true(memblock_is_reserved(&mb, UINT64_MAX - 0x10, UINT64_MAX)); /* wraps: cut */
    assert_false(memblock_is_reserved(&mb, UINT64_MAX - 0x10, 0x10));
    assert_int_equal(memblock_find(&mb, 0x1000, 0x1000, 0, UINT64_MAX, &at), E_OK);
    assert_int_equal(at, UINT64_MAX - 0x1fff);

    /* All of it: 2^64 bytes fit no size, so two regions stay two. */
    fresh(NULL);
    assert_int_equal(memblock_add(&mb, 0, TOP, MEMKIND_USABLE), E_OK);
    assert_int_equal(memblock_add(&mb, TOP, TOP, MEMKIND_USABLE), E_OK);
    assert_memory({0, TOP, MEMKIND_USABLE}, {TOP, TOP, MEMKIND_USABLE});
    assert_true(memblock_is_usable(&mb, 0, UINT64_MAX));
    assert_int_equal(memblock_find(&mb, TOP, TOP, 0, UINT64_MAX, &at), E_OK);
    assert_int_equal(at, TOP);
    assert_int_equal(memblock_remove(&mb, 0, UINT64_MAX), E_OK);
    assert_memory({UINT64_MAX, 1, MEMKIND_USABLE});
}

static void questions_about_ranges(void **state)
{
    (void)state;
    memblock_add(&mb, 0x1000, 0x2000, MEMKIND_USABLE);
    memblock_add(&mb, 0x3000, 0x1000, MEMKIND_RESERVED);
    memblock_add(&mb, 0x4000, 0x1000, MEMKIND_USABLE);
    memblock_reserve(&mb, 0x1800, 0x10, PURPOSE_BOOT);

    assert_true(memblock_is_usable(&mb, 0x1000, 0x2000));
    assert_true(memblock_is_usable(&mb, 0x2fff, 1));
    assert_false(memblock_is_usable(&mb, 0x1000, 0x2001));
    assert_false(memblock_is_usable(&mb, 0xfff, 2));
    assert_false(memblock_is_usable(&mb, 0x1000, 0x4000));
    assert_false(memblock_is_usable(&mb, 0x3000, 0x1000));
    assert_false(memblock_is_usable(&mb, 0x1000, 0));
    assert_false(memblock_is_usable(&mb, 0x1000, UINT64_MAX));
    assert_true(memblock_is_reserved(&mb, 0x1000, 0x801));
    assert_false(memblock_is_reserved(&mb, 0x1000, 0x800));
    assert_true(memblock_is_reserved(&mb, 0x180f, 1));
    assert_false(memblock_is_reserved(&mb, 0x1810, 0x100000));
    assert_false(memblock_is_reserved(&mb, 0x1800, 0));
    assert_int_equal(memblock_ram_end(&mb), 0x5000);
    assert_int_equal(memblock_usable_bytes(&mb), 0x3000);
    memblock_add(&mb, 0x10000, 0x1000, MEMKIND_ACPI_RECLAIMABLE); /* RAM of sorts, not usable */
    assert_int_equal(memblock_ram_end(&mb), 0x5000);
}

static void only_whole_frames_are_free(void **state)
{
    struct memframes run;

    (void)state;
    memblock_add(&mb, 0x1001, 0x2fff, MEMKIND_USABLE); /* 0x1001..0x4000: frames 2, 3 */
    memblock_add(&mb, 0x4000, 0x1fff, MEMKIND_USABLE); /* ..0x5fff: and 4 */
    memblock_add(&mb, 0x8800, 0x1000, MEMKIND_USABLE); /* none: no frame is whole */
    memblock_add(&mb, 0x5fff, 1, MEMKIND_BAD);         /* 5 stays broken */
    memblock_reserve(&mb, 0x3fff, 1, PURPOSE_IMAGE);   /* one byte takes frame 3 */

    assert_true(memblock_next_frames(&mb, 0, &run));
    assert_int_equal(run.base, 0x2000);
    assert_int_equal(run.size, 0x1000);
    assert_false(run.reserved);
    assert_true(memblock_next_frames(&mb, 0x3000, &run));
    assert_int_equal(run.base, 0x3000);
    assert_int_equal(run.size, 0x1000);
    assert_true(run.reserved);
    assert_int_equal(run.purpose, PURPOSE_IMAGE);
    assert_true(memblock_next_frames(&mb, 0x4000, &run));
    assert_int_equal(run.base, 0x4000);
    assert_int_equal(run.size, 0x1000);
    assert_false(run.reserved);
    assert_false(memblock_next_frames(&mb, 0x5000, &run));
}

static void the_lowest_purpose_counts_in_a_shared_frame(void **state)
{
    struct memframes run;

    (void)state;
    memblock_add(&mb, 0, 0x10000, MEMKIND_USABLE);
    memblock_reserve(&mb, 0x1000, 0x1800, PURPOSE_BOOT);   /* frames 1, 2 */
    memblock_reserve(&mb, 0x2900, 0x10, PURPOSE_FIRMWARE); /* 2 */
    memblock_reserve(&mb, 0x2f00, 0x1200, PURPOSE_IMAGE);  /* 2, 3, 4 */

    assert_true(memblock_next_frames(&mb, 0x1000, &run));
    assert_int_equal(run.size, 0x1000);
    assert_int_equal(run.purpose, PURPOSE_BOOT);
    assert_true(memblock_next_frames(&mb, 0x2000, &run));
    assert_int_equal(run.size, 0x1000);
    assert_int_equal(run.purpose, PURPOSE_FIRMWARE);
    assert_true(memblock_next_frames(&mb, 0x3000, &run));
    assert_int_equal(run.base, 0x3000);
    assert_int_equal(run.size, 0x2000);
    assert_int_equal(run.purpose, PURPOSE_IMAGE);
}

static void finds_from_the_top_down(void **state)
{
    uint64_t at = 7;

    (void)state;
    memblock_add(&mb, 0x100000, 0x100000, MEMKIND_USABLE);
    memblock_add(&mb, 0x300000, 0x4000, MEMKIND_USABLE);

    assert_int_equal(memblock_find(&mb, 0x1000, 0x1000, 0, UINT64_MAX, &at), E_OK);
    assert_int_equal(at, 0x303000);
    assert_int_equal(memblock_find(&mb, 0x5000, 0x1000, 0, UINT64_MAX, &at), E_OK);
    assert_int_equal(at, 0x1fb000);
    assert_int_equal(memblock_find(&mb, 0x1000, 0x10000, 0, UINT64_MAX, &at), E_OK);
    assert_int_equal(at, 0x300000);
    assert_int_equal(memblock_find(&mb, 0x1000, 0x1000, 0, 0x302ffe, &at), E_OK);
    assert_int_equal(at, 0x301000);
    assert_int_equal(memblock_find(&mb, 0x1000, 0x1000, 0, 0x302fff, &at), E_OK);
    assert_int_equal(at, 0x302000);
    assert_int_equal(memblock_find(&mb, 0x100000, 0x1000, 0x100000, 0x1fffff, &at), E_OK);
    assert_int_equal(at, 0x100000);

    at = 7;
    assert_int_equal(memblock_find(&mb, 0x100001, 1, 0, UINT64_MAX, &at), E_NOMEM);
    assert_int_equal(memblock_find(&mb, 0x100000, 0x1000, 0x100001, UINT64_MAX, &at), E_NOMEM);
    assert_int_equal(memblock_find(&mb, 0x1000, 0x400000, 0, UINT64_MAX, &at), E_NOMEM);
    assert_int_equal(memblock_find(&mb, UINT64_MAX, 1, 0, UINT64_MAX, &at), E_NOMEM);
    assert_int_equal(memblock_find(&mb, 0, 0x1000, 0, UINT64_MAX, &at), E_INVAL);
    assert_int_equal(memblock_find(&mb, 0x1000, 0, 0, UINT64_MAX, &at), E_INVAL);
    assert_int_equal(memblock_find(&mb, 0x1000, 0x3000, 0, UINT64_MAX, &at), E_INVAL);
    assert_int_equal(memblock_find(&mb, 0x1000, 0x1000, 2, 1, &at), E_INVAL);
    assert_int_equal(at, 7);
}

static int stop_at_second(void *ctx, uint64_t base, uint64_t size)
{
    (void)base;
    (void)size;
    return ++*(int *)ctx == 2 ? -42 : 0;
}

static void a_visit_can_be_stopped(void **state)
{
    int calls = 0;

    (void)state;
    for (uint64_t i = 0; i < 4; i++)
        memblock_add(&mb, i * 0x2000, 0x1000, MEMKIND_USABLE);
    assert_int_equal(memblock_visit_free(&mb, stop_at_second, &calls), -42);
    assert_int_equal(calls, 2);
}

static void kinds_have_names(void **state)
{
    (void)state;
    assert_string_equal(mem_kind_name(MEMKIND_USABLE), "usable");
    assert_string_equal(mem_kind_name(MEMKIND_ACPI_RECLAIMABLE), "ACPI reclaimable");
    assert_string_equal(mem_kind_name(MEMKIND_ACPI_NVS), "ACPI NVS");
    assert_string_equal(mem_kind_name(MEMKIND_RESERVED), "reserved");
    assert_string_equal(mem_kind_name(MEMKIND_BAD), "bad");
    assert_string_equal(mem_kind_name((enum mem_kind)17), "unknown");
}

/* --- a full list --------------------------------------------------------------------------- */

static void fill_up(void)
{
    for (uint64_t i = 0; i < MEMBLOCK_INITIAL; i++)
        assert_int_equal(memblock_reserve(&mb, i * 0x2000, 0x1000, PURPOSE_BOOT), E_OK);
    assert_int_equal(mb.reserved.count, MEMBLOCK_INITIAL);
}

static void a_full_list_errs_and_loses_nothing(void **state)
{
    struct memregion before[MEMBLOCK_INITIAL], region;
    size_t n = 0;

    (void)state;
    fill_up();
    regions_each (&region, &mb.reserved)
        before[n++] = region;
    assert_int_equal(memblock_reserve(&mb, 0x1000000, 1, PURPOSE_BOOT), E_FULL);
    assert_int_equal(memblock_reserve(&mb, 0x2100, 0x10, PURPOSE_IMAGE), E_FULL);
    assert_int_equal(memblock_unreserve(&mb, 0x2100, 0x10), E_FULL);
    assert_regions(&mb.reserved, MEMBLOCK_INITIAL, before);

    /* What needs no new edge is done. */
    assert_int_equal(memblock_reserve(&mb, 0x1000, 0x1000, PURPOSE_BOOT), E_OK);
    assert_int_equal(mb.reserved.count, MEMBLOCK_INITIAL - 1);
    assert_int_equal(memblock_reserve(&mb, 0x1000000, 1, PURPOSE_BOOT), E_OK);
    assert_int_equal(memblock_reserve(&mb, 0x2000, 0x4000, PURPOSE_IMAGE), E_OK);
    assert_int_equal(mb.reserved.count, MEMBLOCK_INITIAL);
    assert_int_equal(memblock_reserve(&mb, 0x7800, 0x4000, PURPOSE_IMAGE), E_OK);
    /* The other list has its own room. */
    assert_int_equal(memblock_add(&mb, 0, 0x100000, MEMKIND_USABLE), E_OK);
}

struct provider {
    unsigned calls;
    size_t last_count;
    bool refuses;
    struct region_node *arrays[8];
};

static struct region_node *provide(void *ctx, size_t count)
{
    struct provider *provider = ctx;

    provider->calls++;
    provider->last_count = count;
    if (provider->refuses || provider->calls > ARRAY_SIZE(provider->arrays))
        return NULL;
    return provider->arrays[provider->calls - 1] = malloc(count * sizeof(struct region_node));
}

static void release(struct provider *provider)
{
    for (size_t i = 0; i < ARRAY_SIZE(provider->arrays); i++)
        free(provider->arrays[i]);
}

static void a_full_list_grows(void **state)
{
    struct provider provider = {0};

    (void)state;
    mb.grow = provide;
    mb.grow_ctx = &provider;
    fill_up();
    assert_int_equal(provider.calls, 0); /* not before it must */
    for (uint64_t i = MEMBLOCK_INITIAL; i < 1000; i++)
        assert_int_equal(memblock_reserve(&mb, i * 0x2000, 0x1000, PURPOSE_BOOT), E_OK);
    assert_int_equal(mb.reserved.count, 1000);
    assert_int_equal(mb.reserved.capacity, 16 * REGION_NODES(MEMBLOCK_INITIAL));
    assert_int_equal(provider.calls, 2);
    assert_int_equal(provider.last_count, mb.reserved.capacity);
    struct memregion region;
    uint64_t i = 0;
    regions_each (&region, &mb.reserved) {
        assert_int_equal(region.base, i++ * 0x2000);
        assert_int_equal(region.size, 0x1000);
    }
    assert_int_equal(i, 1000);
    assert_int_equal(mb.memory.capacity, REGION_NODES(MEMBLOCK_INITIAL));
    release(&provider);
}

/* One addition over many strong regions fills every gap between them: more than twice as many
 * regions, with two edges more. */
static void one_change_can_make_many_regions(void **state)
{
    struct provider provider = {0};

    (void)state;
    for (uint64_t i = 0; i < MEMBLOCK_INITIAL; i++)
        assert_int_equal(memblock_add(&mb, 0x1000 + i * 0x2000, 0x1000, MEMKIND_BAD), E_OK);
    assert_int_equal(memblock_add(&mb, 0, 0x1000000, MEMKIND_USABLE), E_FULL);
    assert_int_equal(mb.memory.count, MEMBLOCK_INITIAL);
    assert_int_equal(memblock_usable_bytes(&mb), 0);

    mb.grow = provide;
    mb.grow_ctx = &provider;
    assert_int_equal(memblock_add(&mb, 0, 0x1000000, MEMKIND_USABLE), E_OK);
    assert_int_equal(mb.memory.count, 2 * MEMBLOCK_INITIAL + 1);
    assert_int_equal(memblock_usable_bytes(&mb), 0x1000000 - MEMBLOCK_INITIAL * 0x1000);
    release(&provider);
}

static void growth_refused_is_an_error(void **state)
{
    struct provider provider = {.refuses = true};

    (void)state;
    mb.grow = provide;
    mb.grow_ctx = &provider;
    fill_up();
    assert_int_equal(memblock_reserve(&mb, 0x1000000, 1, PURPOSE_BOOT), E_FULL);
    assert_int_equal(provider.calls, 1);
    assert_int_equal(mb.reserved.count, MEMBLOCK_INITIAL);
    assert_int_equal(mb.reserved.capacity, REGION_NODES(MEMBLOCK_INITIAL));
    assert_int_equal(memblock_reserve(&mb, 0x2000, 0x1000, PURPOSE_IMAGE), E_OK);
}

/* --- random sequences against the flat model ------------------------------------------------- */

/* Sixty-fourths of a frame are the bytes of the model; memblock sees them as 64 bytes each. */
#define CELL 64
#define CELLS_PER_FRAME (PAGE_SIZE / CELL)
#define FRAMES 24
#define CELLS (FRAMES * CELLS_PER_FRAME)
#define NOTHING 0xff

struct model {
    uint64_t origin; /* where the space begins: also tried at the top of the address space */
    uint8_t memory[CELLS], reserved[CELLS];
};

static struct model model;

static void model_set(uint8_t *cells, uint64_t cell, uint64_t n, uint8_t value, bool strongest)
{
    for (uint64_t i = cell; i < cell + n; i++) {
        if (!strongest || cells[i] == NOTHING || cells[i] < value)
            cells[i] = value;
    }
}

/* A canonical list: what the cells say, as few regions as can be. */
static void check_list(const struct memregions *list, const uint8_t *cells)
{
    struct memregion region;
    bool more = regions_from(list, 0, &region);
    size_t n = 0;

    for (uint64_t i = 0; i < CELLS;) {
        uint64_t end = i + 1;

        while (end < CELLS && cells[end] == cells[i])
            end++;
        if (cells[i] != NOTHING) {
            assert_true(more);
            assert_int_equal(region.base, model.origin + i * CELL);
            assert_int_equal(region.size, (end - i) * CELL);
            assert_int_equal(region.flags, cells[i]);
            more = regions_next(list, &region);
            n++;
        }
        i = end;
    }
    assert_false(more);
    assert_int_equal(list->count, n);
}

/* -1 no RAM, 0 free, otherwise the purpose that counts. */
static int model_frame(uint64_t frame)
{
    int purpose = 0;

    for (uint64_t i = frame * CELLS_PER_FRAME; i < (frame + 1) * CELLS_PER_FRAME; i++) {
        if (model.memory[i] != MEMKIND_USABLE)
            return -1;
        if (model.reserved[i] != NOTHING && (purpose == 0 || model.reserved[i] < purpose))
            purpose = model.reserved[i];
    }
    return purpose;
}

/* The runs partition the frames of RAM, and each says what the model says of its frames. */
static void check_frames(void)
{
    struct memframes run = {.base = model.origin};
    uint64_t frame = 0;

    while (memblock_next_frames(&mb, run.base + run.size, &run)) {
        uint64_t first = (run.base - model.origin) / PAGE_SIZE, count = run.size / PAGE_SIZE;

        assert_true(is_aligned(run.base, PAGE_SIZE) && is_aligned(run.size, PAGE_SIZE) &&
                    count > 0);
        for (; frame < first; frame++)
            assert_int_equal(model_frame(frame), -1);
        for (; frame < first + count; frame++)
            assert_int_equal(model_frame(frame), run.reserved ? (int)run.purpose : 0);
        if (frame == FRAMES)
            return;
    }
    for (; frame < FRAMES; frame++)
        assert_int_equal(model_frame(frame), -1);
}

struct expected_visit {
    uint64_t frame; /* all below were visited or are not free */
};

/* Maximal runs are asked for: not two calls for one. */
static int check_visit(void *ctx, uint64_t base, uint64_t size)
{
    struct expected_visit *expected = ctx;
    uint64_t first = (base - model.origin) / PAGE_SIZE, count = size / PAGE_SIZE;

    assert_true(expected->frame == 0 || first > expected->frame);
    for (; expected->frame < first; expected->frame++)
        assert_int_not_equal(model_frame(expected->frame), 0);
    for (; expected->frame < first + count; expected->frame++)
        assert_int_equal(model_frame(expected->frame), 0);
    assert_true(expected->frame == FRAMES || model_frame(expected->frame) != 0);
    return 0;
}

static void check_find(struct random *random)
{
    uint64_t size = 1 + random_below(random, 4 * PAGE_SIZE);
    uint64_t align = BIT(random_below(random, 16));
    uint64_t first = model.origin + random_below(random, FRAMES * PAGE_SIZE);
    uint64_t last = first + random_below(random, model.origin + FRAMES * PAGE_SIZE - first);
    uint64_t found = 0, expected = 0;
    bool any = false;

    if (random_below(random, 4) == 0) {
        first = model.origin;
        last = model.origin + FRAMES * PAGE_SIZE - 1;
    }
    /* Every aligned address, from the top, each frame that the range touches: no cleverness. */
    for (uint64_t offset = FRAMES * PAGE_SIZE; offset-- > 0 && !any;) {
        uint64_t at = model.origin + offset;

        if (!is_aligned(at, align) || at < first || last - first < size - 1 ||
            at > last - (size - 1))
            continue;
        any = true;
        for (uint64_t frame = offset / PAGE_SIZE; frame <= (offset + size - 1) / PAGE_SIZE; frame++)
            any = any && frame < FRAMES && model_frame(frame) == 0;
        expected = at;
    }
    assert_int_equal(memblock_find(&mb, size, align, first, last, &found), any ? E_OK : E_NOMEM);
    if (any)
        assert_int_equal(found, expected);
}

static void check_questions(struct random *random)
{
    uint64_t cell = random_below(random, CELLS), n = 1 + random_below(random, CELLS - cell);
    bool usable = true, reserved = false;

    if (random_below(random, 2))
        n = 1 + n % 8;
    if (n > CELLS - cell)
        n = CELLS - cell;
    for (uint64_t i = cell; i < cell + n; i++) {
        usable = usable && model.memory[i] == MEMKIND_USABLE;
        reserved = reserved || model.reserved[i] != NOTHING;
    }
    assert_int_equal(memblock_is_usable(&mb, model.origin + cell * CELL, n * CELL), usable);
    assert_int_equal(memblock_is_reserved(&mb, model.origin + cell * CELL, n * CELL), reserved);
}

static void check_sums(void)
{
    uint64_t bytes = 0, end = 0;

    for (uint64_t i = 0; i < CELLS; i++) {
        if (model.memory[i] == MEMKIND_USABLE) {
            bytes += CELL;
            end = model.origin + (i + 1) * CELL;
        }
    }
    assert_int_equal(memblock_usable_bytes(&mb), bytes);
    assert_int_equal(memblock_ram_end(&mb), end);
}

/* A range whose ends are often frame edges. */
static void random_range(struct random *random, uint64_t *cell, uint64_t *n)
{
    *cell = random_below(random, CELLS);
    *n = 1 + random_below(random, random_below(random, 3) ? 2 * CELLS_PER_FRAME : CELLS);
    if (random_below(random, 2)) {
        *cell -= *cell % CELLS_PER_FRAME;
        *n += CELLS_PER_FRAME - *n % CELLS_PER_FRAME;
    }
    if (*n > CELLS - *cell)
        *n = CELLS - *cell;
}

static void random_operation(struct random *random)
{
    uint64_t cell, n, base, size;
    uint8_t value;

    random_range(random, &cell, &n);
    base = model.origin + cell * CELL;
    size = n * CELL;
    switch (random_below(random, 8)) {
    case 0:
    case 1:
    case 2:
        /* Mostly usable, or soon nothing would be. */
        value = random_below(random, 2) ? MEMKIND_USABLE : (uint8_t)random_below(random, 5);
        model_set(model.memory, cell, n, value, true);
        assert_int_equal(memblock_add(&mb, base, size, (enum mem_kind)value), E_OK);
        break;
    case 3:
        model_set(model.memory, cell, n, NOTHING, false);
        assert_int_equal(memblock_remove(&mb, base, size), E_OK);
        break;
    case 4:
    case 5:
        value = (uint8_t)(1 + random_below(random, 4));
        model_set(model.reserved, cell, n, value, false);
        assert_int_equal(memblock_reserve(&mb, base, size, value), E_OK);
        break;
    default:
        model_set(model.reserved, cell, n, NOTHING, false);
        assert_int_equal(memblock_unreserve(&mb, base, size), E_OK);
        break;
    }
}

static void random_sequences(uint64_t origin, uint64_t seed)
{
    struct random random = {seed};

    for (int sequence = 0; sequence < 60; sequence++) {
        struct provider provider = {0};

        fresh(NULL);
        mb.grow = provide;
        mb.grow_ctx = &provider;
        memset(&model, NOTHING, sizeof(model));
        model.origin = origin;
        for (int step = 0; step < 60; step++) {
            struct expected_visit expected = {0};

            random_operation(&random);
            check_list(&mb.memory, model.memory);
            check_list(&mb.reserved, model.reserved);
            check_frames();
            assert_int_equal(memblock_visit_free(&mb, check_visit, &expected), 0);
            for (; expected.frame < FRAMES; expected.frame++)
                assert_int_not_equal(model_frame(expected.frame), 0);
            check_questions(&random);
            check_sums();
            if (step % 4 == 3)
                check_find(&random);
        }
        release(&provider);
    }
}

static void random_sequences_at_the_bottom(void **state)
{
    (void)state;
    random_sequences(0, 1);
}

static void random_sequences_at_4_gib(void **state)
{
    (void)state;
    random_sequences(4 * GiB, 2);
}

static void random_sequences_at_the_top(void **state)
{
    (void)state;
    random_sequences(-(uint64_t)FRAMES * PAGE_SIZE, 3);
}

/* Segments of the model, gaps too, in a space that goes on behind it. */
static size_t model_segments(const uint8_t *cells)
{
    size_t n = 1;

    for (uint64_t i = 0; i < CELLS; i++)
        n += cells[i] != (i + 1 < CELLS ? cells[i + 1] : NOTHING);
    return n;
}

/* Without growth, in lists of few nodes: each operation is done whole, or E_FULL and not at all;
 * never E_FULL where two more edges have room, always where the result has none. */
static void random_sequences_in_full_lists(void **state)
{
    struct random random = {4};
    unsigned refused = 0, done = 0;

    (void)state;
    for (int sequence = 0; sequence < 300; sequence++) {
        fresh(NULL);
        memset(&model, NOTHING, sizeof(model));
        model.origin = 0;
        mb.memory.capacity = 4 + random_below(&random, 12);
        for (int step = 0; step < 40; step++) {
            struct model before = model;
            uint64_t cell, n;
            uint8_t kind = (uint8_t)random_below(&random, 5);
            bool add = random_below(&random, 3) != 0;
            int error;

            random_range(&random, &cell, &n);
            model_set(model.memory, cell, n, add ? kind : NOTHING, add);
            error = add ? memblock_add(&mb, cell * CELL, n * CELL, (enum mem_kind)kind)
                        : memblock_remove(&mb, cell * CELL, n * CELL);
            if (model_segments(before.memory) + 2 < mb.memory.capacity)
                assert_int_equal(error, E_OK);
            if (model_segments(model.memory) >= mb.memory.capacity)
                assert_int_equal(error, E_FULL);
            if (error == E_FULL)
                model = before;
            refused += error == E_FULL;
            done += error == E_OK;
            check_list(&mb.memory, model.memory);
        }
    }
    assert_true(refused > 1000 && done > 1000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(starts_empty, fresh),
        cmocka_unit_test_setup(neighbours_merge_when_alike, fresh),
        cmocka_unit_test_setup(the_stronger_kind_wins, fresh),
        cmocka_unit_test_setup(a_change_inside_splits, fresh),
        cmocka_unit_test_setup(the_newer_purpose_wins, fresh),
        cmocka_unit_test_setup(ranges_that_are_none, fresh),
        cmocka_unit_test_setup(the_top_of_the_address_space, fresh),
        cmocka_unit_test_setup(questions_about_ranges, fresh),
        cmocka_unit_test_setup(only_whole_frames_are_free, fresh),
        cmocka_unit_test_setup(the_lowest_purpose_counts_in_a_shared_frame, fresh),
        cmocka_unit_test_setup(finds_from_the_top_down, fresh),
        cmocka_unit_test_setup(a_visit_can_be_stopped, fresh),
        cmocka_unit_test_setup(kinds_have_names, fresh),
        cmocka_unit_test_setup(a_full_list_errs_and_loses_nothing, fresh),
        cmocka_unit_test_setup(a_full_list_grows, fresh),
        cmocka_unit_test_setup(one_change_can_make_many_regions, fresh),
        cmocka_unit_test_setup(growth_refused_is_an_error, fresh),
        cmocka_unit_test_setup(random_sequences_at_the_bottom, fresh),
        cmocka_unit_test_setup(random_sequences_at_4_gib, fresh),
        cmocka_unit_test_setup(random_sequences_at_the_top, fresh),
        cmocka_unit_test_setup(random_sequences_in_full_lists, fresh),
    };

    return cmocka_run_group_tests_name("memblock", tests, NULL, NULL);
}
