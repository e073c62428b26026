/*
 * From boot information to memblock: what is RAM, what is occupied and as what, and what is said
 * about the parts of a map that cannot be used.
 */
#include "boot/memory_map.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "lib/bits.h"
#include "lib/log.h"
#include "mm/frames/frame.h"
#include "tests/unit/boot_table.h"

#define IMAGE (2 * MiB)
#define IMAGE_SIZE UINT64_C(0x5a800)
#define INFO_AT UINT64_C(0x10000)

static struct boot_table table;
static struct boot_info info;
static struct memblock mb;
static const struct mtrrs *types; /* NULL: nothing is said of them */

/* The log since the test began. */
static struct {
    struct sink sink;
    size_t length;
    char text[8192];
} heard;

static void hear(struct sink *sink, const char *bytes, size_t n)
{
    (void)sink;
    assert_true(heard.length + n < sizeof(heard.text));
    memcpy(heard.text + heard.length, bytes, n);
    heard.length += n;
    heard.text[heard.length] = '\0';
}

static int setup(void **state)
{
    (void)state;
    heard.sink.write = hear;
    heard.length = 0;
    heard.text[0] = '\0';
    types = NULL;
    log_attach(&heard.sink);
    table_start(&table);
    return 0;
}

/* Ends the table, parses it and builds the map. */
static int build_at(uint64_t info_at, unsigned maxphyaddr)
{
    struct memory_map_input input = {
        .info = &info,
        .info_at = hpa(info_at),
        .image = hpa(IMAGE),
        .image_size = IMAGE_SIZE,
        .maxphyaddr = maxphyaddr,
        .mtrrs = types,
    };
    char why[MULTIBOOT2_WHY];

    table_end(&table);
    assert_int_equal(multiboot2_parse(table.bytes, table.size, &info, why, sizeof(why)), E_OK);
    return memory_map_build(&mb, &input);
}

static int build(void)
{
    return build_at(INFO_AT, 40);
}

/* The purpose that an address is reserved for; PURPOSE_FREE for none. */
static unsigned purpose_at(uint64_t address)
{
    struct memsegment segment = regions_segment(&mb.reserved, address);

    return segment.gap ? PURPOSE_FREE : segment.flags;
}

#define assert_reserved(base, size, purpose)                                                       \
    do {                                                                                           \
        assert_int_equal(purpose_at(base), purpose);                                               \
        assert_int_equal(purpose_at((base) + (size)-1), purpose);                                  \
    } while (0)

static const struct table_entry pc_map[] = {
    {0, 0x9fc00, M_AVAILABLE},         {0x9fc00, 0x400, M_RESERVED},
    {0xf0000, 0x10000, M_RESERVED},    {0x100000, 0x7ee0000, M_AVAILABLE},
    {0x7fe0000, 0x10000, M_ACPI},      {0x7ff0000, 0x10000, M_NVS},
    {0xfffc0000, 0x40000, M_RESERVED},
};

static void everything_occupied_is_reserved(void **state)
{
    (void)state;
    table_map(&table, 24, pc_map, ARRAY_SIZE(pc_map));
    table_module(&table, 0x300000, 0x301234, "first");
    table_module(&table, 0x302000, 0x302000, "an empty one takes no room");
    table_module(&table, 0x303000, 0x500000, "second");
    table_framebuffer(&table, 0xfd000000, 4096, 1024, 768, 32);
    assert_int_equal(build_at(0x7000010, 40), E_OK);

    assert_int_equal(memblock_usable_bytes(&mb), 0x9fc00 + 0x7ee0000);
    assert_int_equal(memblock_ram_end(&mb), 0x7fe0000);
    assert_int_equal(mb.memory.count, ARRAY_SIZE(pc_map));
    const struct table_entry *expected = pc_map;
    struct memregion region;
    regions_each (&region, &mb.memory) {
        assert_int_equal(region.base, expected->base);
        assert_int_equal(region.size, expected->length);
        expected++;
    }

    assert_reserved(UINT64_C(0), MiB, PURPOSE_FIRMWARE);
    assert_int_equal(purpose_at(MiB), PURPOSE_FREE);
    assert_reserved(IMAGE, IMAGE_SIZE, PURPOSE_IMAGE);
    assert_int_equal(purpose_at(IMAGE - 1), PURPOSE_FREE);
    assert_int_equal(purpose_at(IMAGE + IMAGE_SIZE), PURPOSE_FREE);
    assert_reserved(UINT64_C(0x300000), 0x1234, PURPOSE_BOOT);
    assert_int_equal(purpose_at(0x301234), PURPOSE_FREE);
    assert_int_equal(purpose_at(0x302000), PURPOSE_FREE);
    assert_reserved(UINT64_C(0x303000), 0x1fd000, PURPOSE_BOOT);
    assert_reserved(UINT64_C(0x7000010), table.size, PURPOSE_BOOT);
    assert_int_equal(purpose_at(0x7000010 + table.size), PURPOSE_FREE);
    assert_reserved(UINT64_C(0x7fe0000), 0x20000, PURPOSE_FIRMWARE); /* ACPI, both kinds */
    assert_reserved(UINT64_C(0xfd000000), 4096 * 768, PURPOSE_FIRMWARE);
    assert_string_equal(heard.text, "");
}

static void overlaps_resolve(void **state)
{
    const struct table_entry entries[] = {
        {0, 0x8000000, M_AVAILABLE},      {0x4000000, 0x2000, M_RESERVED},
        {0x4001000, 0x2000, M_AVAILABLE}, {0x4800000, 0x1000, M_BAD},
        {0x4800000, 0x1000, M_RESERVED},  {0x5000000, 0x10000, M_ACPI},
        {IMAGE + 0x1000, 0x1000, M_ACPI},
    };

    (void)state;
    table_map(&table, 24, entries, ARRAY_SIZE(entries));
    table_module(&table, 0x5008000, 0x5018000, "partly over ACPI memory");
    table_module(&table, (uint32_t)IMAGE - 0x1000, (uint32_t)IMAGE + 0x1000, "over the image");
    table_module(&table, 0x9000, 0xa000, "in low memory");
    assert_int_equal(build(), E_OK);

    /* Reserved wins over usable, whichever comes first; bad over reserved. */
    assert_false(memblock_is_usable(&mb, 0x4000000, 1));
    assert_false(memblock_is_usable(&mb, 0x4001fff, 1));
    assert_true(memblock_is_usable(&mb, 0x4002000, 0x1000));
    assert_int_equal(regions_segment(&mb.memory, 0x4800000).flags, MEMKIND_BAD);
    /* The image over all, then firmware. */
    assert_reserved(UINT64_C(0x5000000), 0x10000, PURPOSE_FIRMWARE);
    assert_reserved(UINT64_C(0x5010000), 0x8000, PURPOSE_BOOT);
    assert_reserved(IMAGE, IMAGE_SIZE, PURPOSE_IMAGE);
    assert_reserved(IMAGE - 0x1000, 0x1000, PURPOSE_BOOT);
    assert_reserved(UINT64_C(0x9000), 0x1000, PURPOSE_FIRMWARE);
}

static void beyond_the_address_width_is_dropped(void **state)
{
    const struct table_entry entries[] = {
        {0x100000, 0x7f00000, M_AVAILABLE},
        {BIT(36) - 0x10000, 0x30000, M_AVAILABLE}, /* across the edge */
        {BIT(36) + 0x100000, 0x10000, M_AVAILABLE},
        {BIT(40), 0x10000, M_ACPI},
        {UINT64_MAX - 0xfff, 0x1000, M_RESERVED},
    };

    (void)state;
    table_map(&table, 24, entries, ARRAY_SIZE(entries));
    table_framebuffer(&table, BIT(37), 4096, 1024, 768, 32);
    assert_int_equal(build_at(INFO_AT, 36), E_OK);
    assert_int_equal(memblock_ram_end(&mb), BIT(36));
    assert_int_equal(memblock_usable_bytes(&mb), 0x7f00000 + 0x10000);
    assert_int_equal(mb.memory.count, 2);
    assert_false(memblock_is_reserved(&mb, BIT(36), UINT64_MAX));
    assert_non_null(strstr(heard.text, "quire: memory map: usable at 0xfffff0000, 0x30000 bytes, "
                                       "reaches beyond this CPU's 36 address bits: cut there\n"));
    assert_non_null(strstr(heard.text, "quire: memory map: usable at 0x1000100000, 0x10000 bytes, "
                                       "lies beyond this CPU's 36 address bits: dropped\n"));
    assert_non_null(strstr(heard.text, "ACPI reclaimable at 0x10000000000"));
    assert_non_null(strstr(heard.text, "reserved at 0xfffffffffffff000"));
    assert_non_null(strstr(heard.text, "framebuffer at 0x2000000000"));

    /* With as many bits as there can be, only what no CPU can have is dropped. */
    setup(state);
    table_map(&table, 24, entries, ARRAY_SIZE(entries));
    assert_int_equal(build_at(INFO_AT, 52), E_OK);
    assert_int_equal(memblock_ram_end(&mb), BIT(36) + 0x110000);
    assert_int_equal(mb.memory.count, 4);
}

static void a_width_that_no_cpu_has(void **state)
{
    (void)state;
    table_map(&table, 24, pc_map, ARRAY_SIZE(pc_map));
    assert_int_equal(build_at(INFO_AT, 31), E_INVAL);
    assert_non_null(strstr(heard.text, "31 bits; 32 to 52 is possible"));
    setup(state);
    table_map(&table, 24, pc_map, ARRAY_SIZE(pc_map));
    assert_int_equal(build_at(INFO_AT, 53), E_INVAL);
}

static void no_memory_at_all(void **state)
{
    const struct table_entry entries[] = {{0x100000, 0x1000000, M_RESERVED}};

    (void)state;
    assert_int_equal(build(), E_NOENT); /* neither a map nor basic memory */
    assert_non_null(strstr(heard.text, "no usable memory"));
    setup(state);
    table_map(&table, 24, entries, 1);
    assert_int_equal(build(), E_NOENT);
}

static void basic_memory_will_do(void **state)
{
    (void)state;
    table_basic(&table, 639, 64 * 1024);
    assert_int_equal(build(), E_OK);
    assert_int_equal(memblock_usable_bytes(&mb), 639 * KiB + 64 * MiB);
    assert_int_equal(memblock_ram_end(&mb), 65 * MiB);
    assert_true(memblock_is_reserved(&mb, 0, 1));
}

static struct table_entry many[8192];

/* `n` regions that cannot merge. */
static void many_regions(size_t n)
{
    for (size_t i = 0; i < n; i++)
        many[i] = (struct table_entry){16 * MiB + i * 0x2000, 0x1000, M_AVAILABLE};
    table_map(&table, 24, many, n);
}

/* As many regions as there is room for, both of memory and reserved. */
static void a_long_map_grows_the_lists(void **state)
{
    const uint32_t modules = 3000;

    (void)state;
    many_regions(4096);
    for (uint32_t i = 0; i < modules; i++)
        table_module(&table, 0x4000000 + i * 0x2000, 0x4000001 + i * 0x2000, "m");
    assert_int_equal(build(), E_OK);
    assert_int_equal(mb.memory.count, 4096);
    assert_int_equal(memblock_usable_bytes(&mb), 4096 * PAGE_SIZE);
    assert_true(mb.reserved.count >= modules);
    for (uint32_t i = 0; i < modules; i++)
        assert_int_equal(purpose_at(0x4000000 + i * 0x2000), PURPOSE_BOOT);

    /* The pool comes back with the next map: it does not run dry. */
    for (int again = 0; again < 5; again++) {
        setup(state);
        many_regions(4000);
        assert_int_equal(build(), E_OK);
        assert_int_equal(mb.memory.count, 4000);
    }
}

static void a_map_too_long_is_an_error(void **state)
{
    (void)state;
    many_regions(ARRAY_SIZE(many));
    assert_int_equal(build(), E_FULL);
    assert_non_null(strstr(heard.text, "no slot left"));
    setup(state);
    table_map(&table, 24, pc_map, ARRAY_SIZE(pc_map));
    assert_int_equal(build(), E_OK);
}

/* What is not write-back is left alone; where nothing is, the registers were not set. */
static void memory_of_other_types_is_left_alone(void **state)
{
    static struct mtrrs mtrrs = {
        .there = true,
        .maxphyaddr = 40,
        .cap = 2,
        .def_type = BIT(11), /* UC */
        .base = {MEM_WB, 0x5000000 | MEM_WC},
        .mask = {0xfff8000000 | BIT(11), 0xffffc00000 | BIT(11)}, /* 128 MiB; 4 MiB of these */
    };
    static const struct table_entry entries[] = {
        {0, 0x9fc00, M_AVAILABLE},
        {0x100000, 0x9f00000, M_AVAILABLE},
        {0xa000000, 0x1000, M_RESERVED},
    };

    (void)state;
    types = &mtrrs;
    table_map(&table, 24, entries, ARRAY_SIZE(entries));
    assert_int_equal(build(), E_OK);
    assert_int_equal(purpose_at(0x4ffffff), PURPOSE_FREE);
    assert_reserved(UINT64_C(0x5000000), 0x400000, PURPOSE_FIRMWARE);
    assert_int_equal(purpose_at(0x5400000), PURPOSE_FREE);
    assert_int_equal(purpose_at(0x7ffffff), PURPOSE_FREE);
    assert_reserved(UINT64_C(0x8000000), 0x2000000, PURPOSE_FIRMWARE);
    assert_int_equal(purpose_at(0xa000000), PURPOSE_FREE); /* it is no usable memory anyway */
    assert_non_null(strstr(heard.text, "0x5000000, 0x400000 bytes, is UC by the MTRRs"));
    assert_non_null(strstr(heard.text, "0x8000000, 0x2000000 bytes, is UC by the MTRRs"));
    setup(state);
    types = &mtrrs;
    mtrrs.base[0] = MEM_UC;
    table_map(&table, 24, entries, ARRAY_SIZE(entries));
    assert_int_equal(build(), E_OK);
    assert_int_equal(purpose_at(0x5000000), PURPOSE_FREE);
    assert_non_null(strstr(heard.text, "they were not set, and do not count"));
}

#define case_(name) cmocka_unit_test_setup(name, setup)

int main(void)
{
    const struct CMUnitTest tests[] = {
        case_(everything_occupied_is_reserved),
        case_(overlaps_resolve),
        case_(beyond_the_address_width_is_dropped),
        case_(a_width_that_no_cpu_has),
        case_(no_memory_at_all),
        case_(basic_memory_will_do),
        case_(a_long_map_grows_the_lists),
        case_(a_map_too_long_is_an_error),
        case_(memory_of_other_types_is_left_alone),
    };

    return cmocka_run_group_tests_name("memory_map", tests, NULL, NULL);
}
