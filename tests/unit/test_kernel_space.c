/*
 * The hypervisor's address space, built as at boot on a small physical memory of the test's own.
 *
 * The direct map is compared page by page, around every edge of the memory map, with what the map
 * says of that page; page sizes with the largest that could be there. Then the space is broken in
 * one way after another, and the check must name each.
 */
#include "arch/x86_64/mm/space_check.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "arch/x86_64/mm/direct_map.h"
#include "arch/x86_64/mm/image.h"
#include "arch/x86_64/mm/layout.h"
#include "arch/x86_64/mm/space_map.h"
#include "mm/frames/buddy.h"
#include "tests/unit/random.h"

#define ARENA_SIZE (16 * MiB)
#define BUDDY_SIZE (64 * KiB) /* behind the arena: for the check to note in what it has seen */
#define MAXPHYADDR 40

static uint8_t *arena, *metadata;
static uint64_t used;
static struct memblock memblock;
static struct table table;

static int take(const struct table_env *env, struct table *of, hpa_t *out)
{
    (void)env;
    (void)of;
    if (used == ARENA_SIZE)
        return E_NOMEM;
    memset(arena + used, 0xa5, PAGE_SIZE);
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

/* Text spans a whole 2 MiB page and some pages on both sides of it. */
static const struct image_layout image = {
    .text = {IMAGE_BASE + 0x1ff000, IMAGE_BASE + 0x403000},
    .rodata = {IMAGE_BASE + 0x480000, IMAGE_BASE + 0x490000},
    .data = {IMAGE_BASE + 0x403000, IMAGE_BASE + 0x480000},
    .guard = IMAGE_BASE + 0x470000,
};

static void start_table(unsigned leaf_top, bool global)
{
    struct table_caps caps = {
        .maxphyaddr = MAXPHYADDR,
        .leaf_top = (uint8_t)leaf_top,
        .nx = true,
        .accessed_dirty = true,
        .global = global,
        .mem_types = 1u << MEM_UC | 1u << MEM_WC | 1u << MEM_WT | 1u << MEM_WP | 1u << MEM_WB,
    };

    used = 0;
    assert_int_equal(table_init(&table, &kernel_kind, &caps, &env, PURPOSE_HOST_TABLE, OWNER_HOST),
                     E_OK);
    assert_int_equal(table_preallocate(&table), E_OK);
}

static void add(uint64_t first, uint64_t end, enum mem_kind kind)
{
    assert_int_equal(memblock_add(&memblock, first, end - first, kind), E_OK);
}

/* A PC with 6 GiB: hole below 4 GiB, edges that no page boundary knows. */
static void add_pc(void)
{
    memblock_init(&memblock);
    add(0, 0x9fc00, MEMKIND_USABLE);
    add(0x9fc00, 0xa0000, MEMKIND_RESERVED);
    add(0xf0000, 0x100000, MEMKIND_RESERVED);
    add(0x100000, 0xbffe1234, MEMKIND_USABLE);
    add(0xbffe1234, 0xbffe8000, MEMKIND_ACPI_RECLAIMABLE);
    add(0xbffe8000, 0xbffe8400, MEMKIND_ACPI_NVS);
    add(0xbffe8400, 0xbffff000, MEMKIND_RESERVED);
    add(0xfee00000, 0xfee01000, MEMKIND_RESERVED);
    add(0x100000000, 0x1c0000000, MEMKIND_USABLE);
}

static void build(unsigned leaf_top, bool global)
{
    add_pc();
    start_table(leaf_top, global);
    assert_int_equal(direct_map_build(&table, &memblock, UINT64_C(1) << MAXPHYADDR, NULL), E_OK);
    assert_int_equal(image_map(&table, &image), E_OK);
    assert_int_equal(image_seal(&table, &image), E_OK);
}

/* ---- What the direct map must be ------------------------------------------------------------- */

static bool is_kind(uint64_t address, bool ram)
{
    struct memregion region_;
    regions_each (&region_, &memblock.memory) {
        const struct memregion *region = &region_;

        if (address - region->base < region->size)
            return ram ? region->flags == MEMKIND_USABLE
                       : region->flags == MEMKIND_ACPI_RECLAIMABLE ||
                             region->flags == MEMKIND_ACPI_NVS;
    }
    return false;
}

/* The rights of the page at `page`, judged byte by byte at the only places where kinds change. */
static unsigned expected_rights(uint64_t page, uint64_t limit)
{
    bool all_ram = is_kind(page, true), any_tables = is_kind(page, false);

    if (page >= limit)
        return RIGHT_NONE;
    struct memregion region_;
    regions_each (&region_, &memblock.memory) {
        const struct memregion *region = &region_;
        uint64_t edges[] = {region->base, region->base + region->size};

        for (unsigned j = 0; j < 2; j++) {
            if (edges[j] < page || edges[j] >= page + PAGE_SIZE)
                continue;
            all_ram = all_ram && is_kind(edges[j], true);
            any_tables = any_tables || is_kind(edges[j], false);
        }
    }
    return any_tables ? RIGHT_R : all_ram ? RIGHT_RW : RIGHT_NONE;
}

static void check_page(uint64_t page, uint64_t limit)
{
    struct mapping mapping;
    int error = table_translate(&table, DIRECT_BASE + page, &mapping);
    unsigned rights = expected_rights(page, limit);

    if (page >= DIRECT_SIZE)
        return; /* no address of the direct map */
    if (rights == RIGHT_NONE) {
        assert_int_equal(error, E_NOENT);
        return;
    }
    assert_int_equal(error, E_OK);
    assert_int_equal(mapping.out.v + (DIRECT_BASE + page - mapping.in), page);
    assert_int_equal(mapping.attrs.rights, rights | RIGHT_G);
    assert_int_equal(mapping.attrs.type, MEM_WB);
}

static void check_direct_map(uint64_t limit)
{
    struct memregion region_;
    regions_each (&region_, &memblock.memory) {
        const struct memregion *region = &region_;
        uint64_t edges[] = {region->base, region->base + region->size};

        for (unsigned j = 0; j < 2; j++) {
            uint64_t page = align_down(edges[j], PAGE_SIZE);

            for (int k = -3; k <= 3; k++)
                if (k >= 0 || page >= (uint64_t)-k * PAGE_SIZE)
                    check_page(page + (uint64_t)(int64_t)k * PAGE_SIZE, limit);
        }
    }
    check_page(limit - PAGE_SIZE, limit);
    check_page(limit, limit);
}

static int check_leaf_size(void *ctx, const struct mapping *page)
{
    unsigned top = *(unsigned *)ctx;
    uint64_t size = page->last - page->in + 1;

    /* The next larger page around this one must not be RAM throughout. */
    if (page->level < top) {
        uint64_t larger = size * 512;
        uint64_t first = align_down(page->out.v, larger);
        bool uniform = page->attrs.rights & RIGHT_W;

        struct memregion region_;
        regions_each (&region_, &memblock.memory) {
            const struct memregion *region = &region_;
            if (!uniform)
                break;

            if (region->flags == MEMKIND_USABLE && region->base <= first &&
                first + larger <= region->base + region->size)
                fail_msg("%lx is a page of level %u within RAM that a larger one could map",
                         page->in, page->level);
        }
    }
    return 0;
}

static void test_direct_map_of_a_pc(void **state)
{
    (void)state;
    for (unsigned top = 2; top <= 3; top++) {
        add_pc();
        start_table(top, true);
        assert_int_equal(direct_map_build(&table, &memblock, UINT64_C(1) << MAXPHYADDR, NULL),
                         E_OK);
        check_direct_map(UINT64_C(1) << MAXPHYADDR);
        assert_int_equal(
            table_visit(&table, UPPER_FIRST, UPPER_LAST, VISIT_PAGES, check_leaf_size, &top), 0);
    }
}

static void test_direct_map_of_random_maps(void **state)
{
    struct random random = {7};
    unsigned top = 3;

    (void)state;
    for (unsigned round = 0; round < 300; round++) {
        memblock_init(&memblock);
        for (unsigned i = 0; i < 12; i++) {
            unsigned shift = (unsigned)random_below(&random, 33);
            uint64_t unit = random_below(&random, 2) ? 1 : 2 * MiB;
            uint64_t base = align_down(random_below(&random, 16 * GiB), unit);

            memblock_add(&memblock, base, 1 + random_below(&random, UINT64_C(1) << shift),
                         (enum mem_kind)random_below(&random, 5));
        }
        start_table(top, true);
        assert_int_equal(direct_map_build(&table, &memblock, UINT64_C(1) << MAXPHYADDR, NULL),
                         E_OK);
        check_direct_map(UINT64_C(1) << MAXPHYADDR);
        table_visit(&table, UPPER_FIRST, UPPER_LAST, VISIT_PAGES, check_leaf_size, &top);
    }
}

static void test_memory_beyond_the_limit(void **state)
{
    uint64_t skipped;

    (void)state;
    memblock_init(&memblock);
    add(0, 8 * MiB, MEMKIND_USABLE);
    add(GiB - 0x800, GiB + 0x1000, MEMKIND_USABLE);
    add(5 * GiB, 6 * GiB, MEMKIND_USABLE);
    add(~UINT64_C(0) - 0xffff, ~UINT64_C(0), MEMKIND_ACPI_NVS);
    start_table(3, true);
    assert_int_equal(direct_map_build(&table, &memblock, GiB, &skipped), E_OK);
    assert_int_equal(skipped, GiB + 0x1000);
    check_direct_map(GiB);

    /* A region that is not cut at a page's end is, at the limit. */
    memblock_init(&memblock);
    add(GiB - 0x2800, GiB + 0x2800, MEMKIND_ACPI_RECLAIMABLE);
    start_table(3, true);
    assert_int_equal(direct_map_build(&table, &memblock, GiB, &skipped), E_OK);
    assert_int_equal(skipped, 0); /* of RAM */
    check_direct_map(GiB);
}

static void test_a_space_as_built_is_right(void **state)
{
    (void)state;
    for (unsigned top = 2; top <= 3; top++) {
        for (unsigned global = 0; global < 2; global++) {
            char why[200] = "";
            struct mapping mapping;

            build(top, global);
            if (space_check(&table, &image, why, sizeof(why)) != E_OK)
                fail_msg("%s", why);
            assert_int_equal(table_translate(&table, image.guard, &mapping), E_NOENT);
            assert_int_equal(table_translate(&table, image.text.first + 2 * MiB, &mapping), E_OK);
            assert_int_equal(mapping.level, 2);
            assert_int_equal(mapping.attrs.rights, RIGHT_RX | (global ? RIGHT_G : 0));
            assert_int_equal(table_translate(&table, image.rodata.first, &mapping), E_OK);
            assert_int_equal(mapping.attrs.rights, RIGHT_R | (global ? RIGHT_G : 0));
            assert_int_equal(table_translate(&table, image.data.first, &mapping), E_OK);
            assert_int_equal(mapping.attrs.rights, RIGHT_RW | (global ? RIGHT_G : 0));
        }
    }
}

static void test_no_frames(void **state)
{
    (void)state;
    add_pc();
    start_table(3, true);
    used = ARENA_SIZE;
    assert_int_equal(direct_map_build(&table, &memblock, UINT64_C(1) << MAXPHYADDR, NULL), E_NOMEM);
    assert_int_equal(image_map(&table, &image), E_NOMEM);
}

/* ---- Breaking it
 * --------------------------------------------------------------------------------- */

static struct attrs all_global(unsigned rights, enum mem_type type)
{
    return attrs_of(rights | (table.caps.global ? RIGHT_G : 0u), type);
}

static void place(uint64_t at, uint64_t to, uint64_t size, unsigned rights, enum mem_type type)
{
    struct flush_batch batch;

    flush_begin(&batch, &table);
    assert_int_equal(
        table_map(&table, at, hpa(to), size, all_global(rights, type), MAP_DEFAULT, &batch), E_OK);
    flush_commit(&batch);
}

static void change(uint64_t at, uint64_t size, unsigned rights, enum mem_type type)
{
    struct flush_batch batch;

    flush_begin(&batch, &table);
    assert_int_equal(table_protect(&table, at, size, all_global(rights, type), &batch), E_OK);
    flush_commit(&batch);
}

static void break_alias(void)
{
    place(FIXMAP_BASE, image.text.first - IMAGE_BASE + 0x5000, PAGE_SIZE, RIGHT_RW, MEM_WB);
}

static void break_alias_in_direct_map(void)
{
    change(DIRECT_BASE + image.text.end - IMAGE_BASE - PAGE_SIZE, PAGE_SIZE, RIGHT_RW, MEM_WB);
}

static void break_alias_of_many_pages(void)
{
    /* Ends with the first frame of the text. */
    place(FIXMAP_BASE + 0x10000, image.text.first - IMAGE_BASE - 0xf000, 0x10000, RIGHT_RW, MEM_WB);
}

static void break_rodata(void)
{
    change(DIRECT_BASE + image.rodata.end - IMAGE_BASE - PAGE_SIZE, PAGE_SIZE, RIGHT_RW, MEM_WB);
}

static void break_write_and_execute(void)
{
    change(image.text.first, PAGE_SIZE, RIGHT_RWX, MEM_WB);
}

static void break_execute_elsewhere(void)
{
    change(image.rodata.first, PAGE_SIZE, RIGHT_RX, MEM_WB);
}

static void break_execute_in_direct_map(void)
{
    change(DIRECT_BASE + 0x100000000, 2 * MiB, RIGHT_RX, MEM_WB);
}

static void break_text_frame(void)
{
    struct mapping mapping;
    uint64_t *entry;
    struct walk walk;

    table_walk(&table, image.text.first, &walk);
    entry = direct(walk.step[walk.count - 1].address);
    assert_int_equal(table_translate(&table, image.text.first, &mapping), E_OK);
    *entry += PAGE_SIZE;
}

static void break_text_rights(void)
{
    change(image.text.first + 0x3000, PAGE_SIZE, RIGHT_R, MEM_WB);
}

static void break_user(void)
{
    /* Every table on the way must let ring 3 through as well for this to count. */
    struct walk walk;

    table_walk(&table, image.data.first, &walk);
    for (unsigned i = 0; i < walk.count; i++)
        *(uint64_t *)direct(walk.step[i].address) |= BIT(2);
}

static void break_direct_frame(void)
{
    place(DIRECT_BASE + 0xa0000, 0xb0000, PAGE_SIZE, RIGHT_RW, MEM_WB);
}

static void break_direct_type(void)
{
    change(DIRECT_BASE + 0x120000000, 2 * MiB, RIGHT_RW, MEM_UC);
}

static void break_mmio(void)
{
    place(MMIO_BASE + PAGE_SIZE, 0xbffe0000 - PAGE_SIZE, 3 * PAGE_SIZE, RIGHT_RW, MEM_UC);
}

static void break_stack_guard(void)
{
    place(stack_slot_base(3).v - STACK_GUARD, 0x8000, PAGE_SIZE, RIGHT_RW, MEM_WB);
}

static void break_stack_guard_between(void)
{
    place(stack_slot_base(0).v, 0x8000, STACK_SIZE + PAGE_SIZE, RIGHT_RW, MEM_WB);
}

static void break_boot_guard(void)
{
    place(image.guard, image.guard - IMAGE_BASE, PAGE_SIZE, RIGHT_RW, MEM_WB);
}

static void break_windows(void)
{
    place(MMIO_BASE - 2 * MiB, 0xe0000000, 2 * MiB, RIGHT_RW, MEM_UC);
}

static void break_global(void)
{
    struct flush_batch batch;

    flush_begin(&batch, &table);
    assert_int_equal(table_map(&table, FIXMAP_BASE, hpa(0x8000), PAGE_SIZE,
                               attrs_of(RIGHT_R, MEM_WB), MAP_DEFAULT, &batch),
                     E_OK);
    flush_commit(&batch);
}

static void break_lower_half(void)
{
    uint64_t *root = direct(table.root);

    root[255] = root[256];
}

static void test_every_violation_is_named(void **state)
{
    static const struct {
        void (*inflict)(void);
        const char *named;
    } cases[] = {
        {break_alias, "writable here, executable at another address"},
        {break_alias_in_direct_map, "writable here, executable at another address"},
        {break_alias_of_many_pages, "writable here, executable at another address"},
        {break_rodata, "writable here, the image's read-only data"},
        {break_write_and_execute, "writable and executable"},
        {break_execute_elsewhere, "executable, but not the image's text"},
        {break_execute_in_direct_map, "executable, but not the image's text"},
        {break_text_frame, "the text shows another frame here"},
        {break_text_rights, "part of the text is not executable"},
        {break_user, "ring 3 can reach the upper half"},
        {break_direct_frame, "the direct map shows another frame here"},
        {break_direct_type, "RAM in the direct map is not write-back"},
        {break_mmio, "the MMIO window covers RAM"},
        {break_stack_guard, "a stack's guard page is mapped"},
        {break_stack_guard_between, "a stack's guard page is mapped"},
        {break_boot_guard, "the guard page of the boot stack is mapped"},
        {break_windows, "mapped outside every window"},
        {break_global, "not global, so that a flush leaves it to other PCIDs"},
        {break_lower_half, "the lower half of the kernel's table is not empty"},
    };

    (void)state;
    for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
        char why[200] = "";

        build(3, true);
        cases[i].inflict();
        assert_int_equal(space_check(&table, &image, why, sizeof(why)), E_STATE);
        if (strstr(why, cases[i].named) == NULL)
            fail_msg("expected \"%s\", the check says \"%s\"", cases[i].named, why);
    }
}

/* What looks like the violations above and is none. */
static void test_what_is_allowed(void **state)
{
    char why[200] = "";

    (void)state;
    build(3, true);
    place(FIXMAP_BASE, image.text.first - IMAGE_BASE, PAGE_SIZE, RIGHT_R, MEM_WB);
    place(FIXMAP_BASE + PAGE_SIZE, image.text.end - IMAGE_BASE, PAGE_SIZE, RIGHT_RW, MEM_WB);
    place(MMIO_BASE + PAGE_SIZE, 0xfee00000, PAGE_SIZE, RIGHT_RW, MEM_UC);
    place(MMIO_BASE + 2 * MiB, 0xc0000000, 4 * MiB, RIGHT_RW, MEM_WC);
    for (unsigned slot = 0; slot < 3; slot++)
        place(stack_slot_base(slot).v, 0x8000 + slot * STACK_STRIDE, STACK_SIZE, RIGHT_RW, MEM_WB);
    if (space_check(&table, &image, why, sizeof(why)) != E_OK)
        fail_msg("%s", why);
}

static void test_a_check_without_memory_says_that_it_did_not_judge(void **state)
{
    hpa_t held[BUDDY_SIZE / PAGE_SIZE];
    unsigned taken = 0;
    char why[200];

    (void)state;
    build(3, true);
    while (buddy_alloc(0, PURPOSE_TEST, OWNER_HOST, &held[taken]) == E_OK)
        taken++;
    assert_int_equal(taken, ARRAY_SIZE(held));
    for (unsigned frames = 0; frames < 4; frames++) {
        assert_int_equal(space_check(&table, &image, why, sizeof(why)), E_NOMEM);
        assert_string_equal(why, "not judged to the end: out of memory");
        assert_int_equal(buddy_free(held[--taken], 0, OWNER_HOST), E_OK);
    }
    assert_int_equal(space_check(&table, &image, why, sizeof(why)), E_OK);
    while (taken > 0)
        assert_int_equal(buddy_free(held[--taken], 0, OWNER_HOST), E_OK);
}

static int make_arena(void **state)
{
    uint64_t size = buddy_metadata_size(ARENA_SIZE + BUDDY_SIZE);

    (void)state;
    arena = aligned_alloc(PAGE_SIZE, ARENA_SIZE + BUDDY_SIZE);
    metadata = aligned_alloc(PAGE_SIZE, size);
    if (arena == NULL || metadata == NULL)
        return 1;
    direct_base = (uint64_t)(uintptr_t)arena;
    return buddy_init(metadata, size, ARENA_SIZE + BUDDY_SIZE) != E_OK ||
           buddy_add(hpa(ARENA_SIZE), BUDDY_SIZE) != E_OK;
}

static int drop_arena(void **state)
{
    (void)state;
    free(arena);
    free(metadata);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_direct_map_of_a_pc),
        cmocka_unit_test(test_direct_map_of_random_maps),
        cmocka_unit_test(test_memory_beyond_the_limit),
        cmocka_unit_test(test_a_space_as_built_is_right),
        cmocka_unit_test(test_no_frames),
        cmocka_unit_test(test_every_violation_is_named),
        cmocka_unit_test(test_what_is_allowed),
        cmocka_unit_test(test_a_check_without_memory_says_that_it_did_not_judge),
    };
    return cmocka_run_group_tests(tests, make_arena, drop_arena);
}
