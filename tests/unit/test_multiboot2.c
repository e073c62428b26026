/*
 * The boot information parser: what a loader gives, everything that can be wrong with it, the same
 * table cut at every byte, and tables with random damage. Each table is parsed in a block of
 * exactly its size, so that AddressSanitizer sees any step beyond it.
 */
#include "boot/multiboot2.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "lib/bits.h"
#include "tests/unit/boot_table.h"
#include "tests/unit/random.h"

static struct boot_table table;
static struct boot_info info;
static char why[4 * MULTIBOOT2_WHY];
static uint8_t *copy; /* what `info` points into */

/* Parses `size` bytes at the end of a block that is `shift` bytes off any alignment. */
static int parse_bytes(const void *bytes, size_t size, uint64_t limit, size_t shift)
{
    int error;

    free(copy);
    copy = malloc(size + shift);
    assert_non_null(copy);
    memcpy(copy + shift, bytes, size);
    memset(&info, 0xa5, sizeof(info));
    memset(why, '#', sizeof(why));
    error = multiboot2_parse(copy + shift, limit, &info, why, sizeof(why));
    if (error != E_OK) {
        /* Terminated, of some length, and within what the header promises. */
        assert_non_null(memchr(why, '\0', MULTIBOOT2_WHY));
        assert_true(strlen(why) > 20);
    }
    return error;
}

static int parse(void)
{
    return parse_bytes(table.bytes, table.size, table.size, 0);
}

static int teardown(void **state)
{
    (void)state;
    free(copy);
    copy = NULL;
    return 0;
}

#define assert_refused(error, ...)                                                                 \
    do {                                                                                           \
        const char *const fragments_[] = {__VA_ARGS__};                                            \
        assert_int_equal(parse(), error);                                                          \
        for (size_t i_ = 0; i_ < ARRAY_SIZE(fragments_); i_++) {                                   \
            if (strstr(why, fragments_[i_]) == NULL)                                               \
                fail_msg("\"%s\" does not say \"%s\"", why, fragments_[i_]);                       \
        }                                                                                          \
    } while (0)

static const struct table_entry pc_map[] = {
    {0, 0x9fc00, M_AVAILABLE},      {0x9fc00, 0x400, M_RESERVED},
    {0xf0000, 0x10000, M_RESERVED}, {0x100000, 0x7ee0000, M_AVAILABLE},
    {0x7fe0000, 0x10000, M_ACPI},   {0x7ff0000, 0x8000, M_NVS},
    {0x7ff8000, 0x8000, M_BAD},     {0xfffc0000, 0x40000, 12},
};

/* Offsets of the tags of the full table. */
static struct {
    size_t cmdline, loader, first_module, second_module, basic, map, framebuffer, rsdp_old,
        rsdp_new, load_base;
} at;

static void full_table(void)
{
    table_start(&table);
    at.cmdline = table_text(&table, T_CMDLINE, "reserve=1M quiet");
    at.loader = table_text(&table, T_LOADER, "GRUB 2.06");
    at.first_module = table_module(&table, 0x300000, 0x301234, "/guests/hello.elf hello mem=16M");
    at.basic = table_basic(&table, 639, 130048);
    table_tag(&table, T_BOOT_DEVICE, "\0\0\0\0\377\377\377\377\377\377\377\377", 12);
    at.second_module = table_module(&table, 0x302000, 0x302000, "");
    at.map = table_map(&table, 24, pc_map, ARRAY_SIZE(pc_map));
    at.framebuffer = table_framebuffer(&table, 0xfd000000, 4096, 1024, 768, 32);
    table_tag(&table, T_VBE, "vbe", 3);
    at.rsdp_old = table_rsdp_old(&table, 0x7fe1000);
    at.rsdp_new = table_rsdp_new(&table, 0x7fe1000, 0x7fe2000);
    at.load_base = table_load_base(&table, 0x200000);
    table_tag(&table, 1000, "unknown", 7);
    table_end(&table);
}

static int setup(void **state)
{
    (void)state;
    full_table();
    return 0;
}

/* --- what is right ------------------------------------------------------------------------- */

static void the_smallest_table(void **state)
{
    uint32_t cursor = 0;
    struct boot_module module;
    struct boot_region region;

    (void)state;
    table_start(&table);
    table_end(&table);
    assert_int_equal(table.size, 16);
    assert_int_equal(parse(), E_OK);
    assert_int_equal(info.size, 16);
    assert_ptr_equal(info.table, copy);
    assert_string_equal(info.cmdline, "");
    assert_string_equal(info.loader, "");
    assert_false(info.has_load_base);
    assert_false(info.rsdp.present);
    assert_false(info.framebuffer.present);
    assert_false(info.has_basic_memory);
    assert_null(info.map);
    assert_int_equal(info.modules, 0);
    assert_false(boot_module_next(&info, &cursor, &module));
    assert_false(boot_module_next(&info, &cursor, &module));
    cursor = 0;
    assert_false(boot_region_next(&info, &cursor, &region));
}

static void check_full_table(void)
{
    static const enum mem_kind kinds[] = {
        MEMKIND_USABLE,           MEMKIND_RESERVED, MEMKIND_RESERVED, MEMKIND_USABLE,
        MEMKIND_ACPI_RECLAIMABLE, MEMKIND_ACPI_NVS, MEMKIND_BAD,      MEMKIND_RESERVED,
    };
    struct boot_module module;
    struct boot_region region;
    uint32_t cursor = 0;

    assert_string_equal(info.cmdline, "reserve=1M quiet");
    assert_string_equal(info.loader, "GRUB 2.06");
    assert_true(info.has_load_base);
    assert_int_equal(info.load_base.v, 0x200000);
    assert_true(info.rsdp.present);
    assert_int_equal(info.rsdp.revision, 2);
    assert_int_equal(info.rsdp.rsdt.v, 0x7fe1000);
    assert_int_equal(info.rsdp.xsdt.v, 0x7fe2000);
    assert_true(info.framebuffer.present);
    assert_int_equal(info.framebuffer.base.v, 0xfd000000);
    assert_int_equal(info.framebuffer.size, 4096 * 768);
    assert_int_equal(info.framebuffer.width, 1024);
    assert_int_equal(info.framebuffer.height, 768);
    assert_int_equal(info.framebuffer.pitch, 4096);
    assert_int_equal(info.framebuffer.bits_per_pixel, 32);
    assert_int_equal(info.framebuffer.type, 1);
    assert_true(info.has_basic_memory);
    assert_int_equal(info.lower_kib, 639);
    assert_int_equal(info.upper_kib, 130048);
    assert_int_equal(info.modules, 2);

    assert_true(boot_module_next(&info, &cursor, &module));
    assert_int_equal(module.base.v, 0x300000);
    assert_int_equal(module.size, 0x1234);
    assert_string_equal(module.cmdline, "/guests/hello.elf hello mem=16M");
    assert_true(boot_module_next(&info, &cursor, &module));
    assert_int_equal(module.base.v, 0x302000);
    assert_int_equal(module.size, 0);
    assert_string_equal(module.cmdline, "");
    assert_false(boot_module_next(&info, &cursor, &module));
    assert_false(boot_module_next(&info, &cursor, &module));

    cursor = 0;
    for (size_t i = 0; i < ARRAY_SIZE(pc_map); i++) {
        assert_true(boot_region_next(&info, &cursor, &region));
        assert_int_equal(region.base, pc_map[i].base);
        assert_int_equal(region.size, pc_map[i].length);
        assert_int_equal(region.type, pc_map[i].type);
        assert_int_equal(region.kind, kinds[i]);
    }
    assert_false(boot_region_next(&info, &cursor, &region));
    assert_false(boot_region_next(&info, &cursor, &region));
}

static void everything_a_loader_gives(void **state)
{
    (void)state;
    assert_int_equal(parse(), E_OK);
    check_full_table();
}

static void any_alignment_and_a_generous_limit(void **state)
{
    (void)state;
    for (size_t shift = 1; shift < 8; shift++) {
        assert_int_equal(parse_bytes(table.bytes, table.size, UINT64_MAX, shift), E_OK);
        check_full_table();
    }
}

static void what_follows_the_end_tag_is_ignored(void **state)
{
    (void)state;
    memset(table.bytes + table.size, 0, 40); /* tags of type 0 and size 0, had anybody looked */
    table.size += 40;
    table_put32(&table, 0, (uint32_t)table.size);
    assert_int_equal(parse(), E_OK);
    check_full_table();
}

static void larger_map_entries_are_honoured(void **state)
{
    static const uint32_t sizes[] = {24, 25, 28, 32, 40, 64, 1000};

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
        struct boot_region region;
        uint32_t cursor = 0;

        table_start(&table);
        table_map(&table, sizes[i], pc_map, ARRAY_SIZE(pc_map));
        table_end(&table);
        assert_int_equal(parse(), E_OK);
        for (size_t entry = 0; entry < ARRAY_SIZE(pc_map); entry++) {
            assert_true(boot_region_next(&info, &cursor, &region));
            assert_int_equal(region.base, pc_map[entry].base);
            assert_int_equal(region.size, pc_map[entry].length);
            assert_int_equal(region.type, pc_map[entry].type);
        }
        assert_false(boot_region_next(&info, &cursor, &region));
    }
}

static void empty_entries_are_passed_over(void **state)
{
    const struct table_entry entries[] = {
        {0x1000, 0, M_AVAILABLE}, {0x2000, 0x1000, M_AVAILABLE}, {UINT64_MAX, 0, M_BAD}};
    struct boot_region region;
    uint32_t cursor = 0;

    (void)state;
    table_start(&table);
    table_map(&table, 24, entries, ARRAY_SIZE(entries));
    table_end(&table);
    assert_int_equal(parse(), E_OK);
    assert_true(boot_region_next(&info, &cursor, &region));
    assert_int_equal(region.base, 0x2000);
    assert_false(boot_region_next(&info, &cursor, &region));
}

static void a_map_may_end_at_the_top(void **state)
{
    const struct table_entry entries[] = {{UINT64_MAX - 0xfff, 0x1000, M_RESERVED}};
    struct boot_region region;
    uint32_t cursor = 0;

    (void)state;
    table_start(&table);
    table_map(&table, 24, entries, 1);
    table_end(&table);
    assert_int_equal(parse(), E_OK);
    assert_true(boot_region_next(&info, &cursor, &region));
    assert_int_equal(region.base + region.size, 0);
}

static void basic_memory_stands_in_for_a_map(void **state)
{
    struct boot_region region;
    uint32_t cursor = 0;

    (void)state;
    table_start(&table);
    table_basic(&table, 640, UINT32_MAX);
    table_end(&table);
    assert_int_equal(parse(), E_OK);
    assert_true(boot_region_next(&info, &cursor, &region));
    assert_int_equal(region.base, 0);
    assert_int_equal(region.size, 640 * KiB);
    assert_int_equal(region.kind, MEMKIND_USABLE);
    assert_true(boot_region_next(&info, &cursor, &region));
    assert_int_equal(region.base, MiB);
    assert_int_equal(region.size, UINT32_MAX * KiB);
    assert_int_equal(region.kind, MEMKIND_USABLE);
    assert_false(boot_region_next(&info, &cursor, &region));

    /* A map, even an empty one, is the loader's word. */
    table_start(&table);
    table_basic(&table, 640, 1024);
    table_map(&table, 24, NULL, 0);
    table_end(&table);
    assert_int_equal(parse(), E_OK);
    assert_int_equal(info.map_entries, 0);
    cursor = 0;
    assert_false(boot_region_next(&info, &cursor, &region));
}

static void any_number_of_modules(void **state)
{
    const uint32_t count = 20000;
    struct boot_module module;
    uint32_t cursor = 0;

    (void)state;
    table_start(&table);
    for (uint32_t i = 0; i < count; i++)
        table_module(&table, i * 0x1000, i * 0x1000 + i, "module of some name");
    table_end(&table);
    assert_int_equal(parse(), E_OK);
    assert_int_equal(info.modules, count);
    for (uint32_t i = 0; i < count; i++) {
        assert_true(boot_module_next(&info, &cursor, &module));
        assert_int_equal(module.base.v, i * 0x1000);
        assert_int_equal(module.size, i);
    }
    assert_false(boot_module_next(&info, &cursor, &module));
}

static void modules_reach_to_the_end_of_32_bits(void **state)
{
    struct boot_module module;
    uint32_t cursor = 0;

    (void)state;
    table_start(&table);
    table_module(&table, 0, UINT32_MAX, "all");
    table_end(&table);
    assert_int_equal(parse(), E_OK);
    assert_true(boot_module_next(&info, &cursor, &module));
    assert_int_equal(module.size, UINT32_MAX);
}

static void the_new_root_pointer_is_preferred(void **state)
{
    (void)state;
    for (int new_first = 0; new_first < 2; new_first++) {
        table_start(&table);
        if (new_first)
            table_rsdp_new(&table, 0x1000, UINT64_C(0x123456789000));
        table_rsdp_old(&table, 0x2000);
        if (!new_first)
            table_rsdp_new(&table, 0x1000, UINT64_C(0x123456789000));
        table_end(&table);
        assert_int_equal(parse(), E_OK);
        assert_int_equal(info.rsdp.revision, 2);
        assert_int_equal(info.rsdp.rsdt.v, 0x1000);
        assert_int_equal(info.rsdp.xsdt.v, UINT64_C(0x123456789000));
    }
    table_start(&table);
    table_rsdp_old(&table, 0x2000);
    table_end(&table);
    assert_int_equal(parse(), E_OK);
    assert_true(info.rsdp.present);
    assert_int_equal(info.rsdp.revision, 0);
    assert_int_equal(info.rsdp.rsdt.v, 0x2000);
    assert_int_equal(info.rsdp.xsdt.v, 0);
}

static void a_framebuffer_may_be_empty_or_end_at_the_top(void **state)
{
    (void)state;
    table_start(&table);
    table_framebuffer(&table, UINT64_MAX, 0, 0, 0, 0);
    table_end(&table);
    assert_int_equal(parse(), E_OK);
    assert_int_equal(info.framebuffer.size, 0);

    table_start(&table);
    table_framebuffer(&table, -UINT64_C(0x10000), 0x100, 64, 0x100, 32);
    table_end(&table);
    assert_int_equal(parse(), E_OK);
    assert_int_equal(info.framebuffer.size, 0x10000);

    /* The product of two 32-bit numbers is not cut to 32 bits. */
    table_start(&table);
    table_framebuffer(&table, 0, UINT32_MAX, 1, UINT32_MAX, 32);
    table_end(&table);
    assert_int_equal(parse(), E_OK);
    assert_int_equal(info.framebuffer.size, (uint64_t)UINT32_MAX * UINT32_MAX);
}

/* --- what is wrong ------------------------------------------------------------------------- */

static void the_total_size(void **state)
{
    (void)state;
    for (uint64_t limit = 0; limit < 16; limit++) {
        assert_int_equal(parse_bytes(table.bytes, limit, limit, 0), E_TRUNC);
        assert_non_null(strstr(why, "the smallest has 16"));
    }
    for (uint32_t size = 0; size < 16; size++) {
        table_put32(&table, 0, size);
        assert_refused(E_FORMAT, "gives its size as ", "the smallest has 16");
    }
    table_put32(&table, 0, (uint32_t)table.size + 1);
    assert_refused(E_TRUNC, "it may have at most");
    table_put32(&table, 0, UINT32_MAX);
    assert_refused(E_TRUNC, "4294967295 bytes");
}

static void the_end_tag_is_missing(void **state)
{
    (void)state;
    table.size -= 8;
    table_put32(&table, 0, (uint32_t)table.size);
    assert_refused(E_TRUNC, "without an end tag");
}

static void a_tag_of_impossible_size(void **state)
{
    (void)state;
    for (uint32_t size = 0; size < 8; size++) {
        table_put32(&table, at.loader + 4, size);
        assert_refused(E_FORMAT, "tag of type 2", "at least 8");
    }
    for (uint32_t excess = 1; excess < 20; excess++) {
        table_put32(&table, at.loader + 4, (uint32_t)(table.size - at.loader) + excess);
        assert_refused(E_TRUNC, "tag of type 2", "bytes left");
    }
    for (uint32_t below = 0; below < 20; below++) {
        table_put32(&table, at.loader + 4, UINT32_MAX - below);
        assert_refused(E_TRUNC, "tag of type 2", "bytes left");
    }
    /* To the table's end exactly: a tag, but then none can follow. */
    table_put32(&table, at.loader + 4, (uint32_t)(table.size - at.loader));
    assert_refused(E_TRUNC, "without an end tag");
}

/* Each tag that is read, one byte shorter than its fixed part. */
static void a_tag_too_short_for_what_it_is(void **state)
{
    const struct {
        uint32_t type, least;
        const char *name;
    } tags[] = {
        {T_CMDLINE, 9, "command line"}, {T_LOADER, 9, "boot loader name"},
        {T_MODULE, 17, "module"},       {T_BASIC, 16, "basic memory"},
        {T_MAP, 16, "memory map"},      {T_FRAMEBUFFER, 30, "framebuffer"},
        {T_RSDP_OLD, 28, "old ACPI"},   {T_RSDP_NEW, 44, "new ACPI"},
        {T_LOAD_BASE, 12, "load base"},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(tags); i++) {
        static const uint8_t zeros[64];

        for (uint32_t size = 8; size < tags[i].least; size++) {
            table_start(&table);
            table_tag(&table, tags[i].type, zeros, size - 8);
            table_end(&table);
            assert_refused(E_TRUNC, tags[i].name, "needs");
        }
    }
}

static void a_text_without_an_end(void **state)
{
    (void)state;
    table_start(&table);
    table_tag(&table, T_CMDLINE, "abcdefgh", 8);
    table_end(&table);
    assert_refused(E_TRUNC, "command line", "does not end");
    table_start(&table);
    table_tag(&table, T_LOADER, "abc", 3); /* the padding is not part of it */
    table_end(&table);
    assert_refused(E_TRUNC, "boot loader name", "does not end");
    table_start(&table);
    table_tag(&table, T_MODULE, "\0\0\0\0\0\1\0\0m", 9);
    table_end(&table);
    assert_refused(E_TRUNC, "module", "does not end");
}

static void a_module_that_ends_before_it_starts(void **state)
{
    (void)state;
    table_put32(&table, at.second_module + 8, 0x302001);
    assert_refused(E_FORMAT, "ends at 0x302000", "start 0x302001");
}

static void a_map_with_impossible_entries(void **state)
{
    (void)state;
    for (uint32_t size = 0; size < 24; size++) {
        table_put32(&table, at.map + 8, size);
        assert_refused(E_FORMAT, "memory map", "at least 24");
    }
    table_put32(&table, at.map + 8, 25);
    assert_refused(E_FORMAT, "memory map has 192 bytes", "no multiple", "25");
    table_put32(&table, at.map + 8, UINT32_MAX);
    assert_refused(E_FORMAT, "no multiple");
    table_put32(&table, at.map + 8, 24);
    assert_int_equal(parse(), E_OK);
}

static void a_map_entry_that_wraps(void **state)
{
    (void)state;
    table_put64(&table, at.map + 16 + 2 * 24, UINT64_MAX - 0xffff);
    assert_int_equal(parse(), E_OK); /* just not */
    table_put64(&table, at.map + 16 + 2 * 24, UINT64_MAX - 0xfffe);
    assert_refused(E_FORMAT, "entry 2", "wraps");
    table_put64(&table, at.map + 16 + 2 * 24, 1);
    table_put64(&table, at.map + 16 + 2 * 24 + 8, UINT64_MAX);
    assert_int_equal(parse(), E_OK);
    table_put64(&table, at.map + 16 + 2 * 24, 2);
    assert_refused(E_FORMAT, "entry 2", "wraps");
}

static void a_framebuffer_that_wraps(void **state)
{
    (void)state;
    table_put64(&table, at.framebuffer + 8, UINT64_MAX - 4096 * 768 + 2);
    assert_refused(E_FORMAT, "framebuffer", "wraps");
}

static void a_root_pointer_with_any_byte_changed(void **state)
{
    (void)state;
    for (size_t byte = 0; byte < 20; byte++) {
        full_table();
        table.bytes[at.rsdp_old + 8 + byte] ^= 0x10;
        assert_refused(E_FORMAT, "old ACPI");
    }
    for (size_t byte = 0; byte < 36; byte++) {
        full_table();
        table.bytes[at.rsdp_new + 8 + byte] ^= 0x10;
        assert_refused(E_FORMAT, "new ACPI");
    }
    /* The first 20 bytes have a sum of their own: a change that another one hides from the sum of
     * all is found. */
    full_table();
    table.bytes[at.rsdp_new + 8 + 10]++;
    table.bytes[at.rsdp_new + 8 + 33]--;
    assert_refused(E_FORMAT, "new ACPI", "sum to 0");
}

static void a_root_pointer_of_impossible_length(void **state)
{
    static const uint32_t lengths[] = {0, 20, 35, 37, UINT32_MAX};

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(lengths); i++) {
        full_table();
        table_put32(&table, at.rsdp_new + 8 + 20, lengths[i]);
        assert_refused(E_FORMAT, "new ACPI", "length as ", "36 to 36");
    }
}

static void a_second_of_what_may_come_once(void **state)
{
    static const uint32_t single[] = {T_CMDLINE,     T_LOADER,   T_BASIC,    T_MAP,
                                      T_FRAMEBUFFER, T_RSDP_OLD, T_RSDP_NEW, T_LOAD_BASE};
    const size_t tags[] = {at.cmdline,     at.loader,   at.basic,    at.map,
                           at.framebuffer, at.rsdp_old, at.rsdp_new, at.load_base};

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(single); i++) {
        uint32_t size;

        full_table();
        memcpy(&size, table.bytes + tags[i] + 4, sizeof(size));
        table.size -= 8; /* over the end tag */
        table_tag(&table, single[i], table.bytes + tags[i] + 8, size - 8);
        table_end(&table);
        assert_refused(E_FORMAT, "a second ", "there may be one");
    }
    /* Of tags that are not read there may be any number. */
    full_table();
    table.size -= 8;
    table_tag(&table, T_BOOT_DEVICE, NULL, 0);
    table_tag(&table, 64 + T_CMDLINE, NULL, 0); /* not to be confused with its low bits */
    table_end(&table);
    assert_int_equal(parse(), E_OK);
    check_full_table();
}

static void a_message_is_cut_to_its_room(void **state)
{
    char small[8];

    (void)state;
    memset(small, '#', sizeof(small));
    assert_int_equal(multiboot2_parse(table.bytes, 3, &info, small, 5), E_TRUNC);
    assert_string_equal(small, "only");
    assert_int_equal(small[5], '#');
    assert_int_equal(multiboot2_parse(table.bytes, 3, &info, small, 0), E_TRUNC);
    assert_string_equal(small, "only");
}

/* --- cut and damaged tables ------------------------------------------------------------------ */

static void cut_at_every_byte(void **state)
{
    size_t whole = table.size;

    (void)state;
    for (size_t size = 0; size < whole; size++) {
        /* The loader says that there is more than there is. */
        assert_int_equal(parse_bytes(table.bytes, size, size, 0), E_TRUNC);
    }
    /* The loader itself stopped early. */
    for (size_t size = 16; size < whole; size++) {
        table_put32(&table, 0, (uint32_t)size);
        assert_int_equal(parse_bytes(table.bytes, size, size, 0), E_TRUNC);
    }
}

static bool in_table(const void *pointer)
{
    return (const uint8_t *)pointer >= info.table &&
           (const uint8_t *)pointer < info.table + info.size;
}

static void check_text(const char *text)
{
    if (*text == '\0' && !in_table(text))
        return; /* the parser's own "" */
    assert_true(in_table(text));
    assert_non_null(memchr(text, '\0', (size_t)(info.table + info.size - (const uint8_t *)text)));
}

/* What holds of every table that was taken, whatever it says. */
static void check_sane(void)
{
    struct boot_module module;
    struct boot_region region;
    uint32_t cursor = 0, modules = 0, regions = 0;

    check_text(info.cmdline);
    check_text(info.loader);
    while (boot_module_next(&info, &cursor, &module)) {
        check_text(module.cmdline);
        assert_true(module.base.v + module.size <= UINT32_MAX);
        assert_true(++modules <= info.modules);
    }
    assert_int_equal(modules, info.modules);
    cursor = 0;
    while (boot_region_next(&info, &cursor, &region)) {
        assert_true(region.size != 0);
        assert_true(region.base + (region.size - 1) >= region.base);
        assert_true((unsigned)region.kind <= MEMKIND_BAD);
        assert_true(++regions <= (info.map ? info.map_entries : 2));
    }
    if (info.framebuffer.size != 0)
        assert_true(info.framebuffer.base.v + (info.framebuffer.size - 1) >=
                    info.framebuffer.base.v);
}

static void damage(struct random *random, uint8_t *bytes, size_t size)
{
    static const uint32_t interesting[] = {0,  1,  2,   3,    6,          7,          8,
                                           15, 16, 24,  0xff, 0x7fffffff, 0x80000000, 0xfffffff0,
                                           23, 25, 100, 4096, 0xfffffff8, 0xffffffff};
    uint64_t times = 1 + random_below(random, 4);

    while (times-- > 0) {
        size_t offset = random_below(random, size);
        uint32_t value = interesting[random_below(random, ARRAY_SIZE(interesting))];

        switch (random_below(random, 4)) {
        case 0:
            bytes[offset] = (uint8_t)random_next(random);
            break;
        case 1:
            bytes[offset] ^= (uint8_t)BIT(random_below(random, 8));
            break;
        case 2: /* a number, where numbers are */
            offset &= ~(size_t)3;
            if (size - offset >= sizeof(value))
                memcpy(bytes + offset, &value, sizeof(value));
            break;
        default: /* a piece of it elsewhere */
            if (offset + 16 <= size)
                memmove(bytes + random_below(random, size - 15), bytes + offset, 16);
            break;
        }
    }
}

static void random_damage(void **state)
{
    static uint8_t bytes[BOOT_TABLE_MAX];
    struct random random = {1};
    unsigned taken = 0, refused = 0;

    (void)state;
    for (int i = 0; i < 30000; i++) {
        size_t size = table.size;

        memcpy(bytes, table.bytes, size);
        damage(&random, bytes, size);
        if (random_below(&random, 8) == 0)
            size = random_below(&random, size + 1);
        if (parse_bytes(bytes, size, size, random_below(&random, 8)) == E_OK) {
            check_sane();
            taken++;
        } else {
            refused++;
        }
    }
    assert_true(taken > 3000 && refused > 3000);
}

/* Tags of random type, size and contents, one after the other. */
static void random_tables(void **state)
{
    struct random random = {2};
    unsigned taken = 0, refused = 0;

    (void)state;
    for (int i = 0; i < 30000; i++) {
        uint64_t tags = random_below(&random, 6);

        table_start(&table);
        while (tags-- > 0) {
            uint8_t contents[80];
            size_t n = random_below(&random, sizeof(contents) + 1);
            uint8_t mask = random_below(&random, 2) ? 0xff : 0x01;

            for (size_t j = 0; j < n; j++)
                contents[j] = (uint8_t)random_next(&random) & mask;
            if (n >= 4 && random_below(&random, 2))
                memcpy(contents, "\x18\0\0\0", 4);
            table_tag(&table, (uint32_t)random_below(&random, 23), contents, n);
        }
        table_end(&table);
        if (parse() == E_OK) {
            check_sane();
            taken++;
        } else {
            refused++;
        }
    }
    assert_true(taken > 3000 && refused > 3000);
}

#define case_(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        case_(the_smallest_table),
        case_(everything_a_loader_gives),
        case_(any_alignment_and_a_generous_limit),
        case_(what_follows_the_end_tag_is_ignored),
        case_(larger_map_entries_are_honoured),
        case_(empty_entries_are_passed_over),
        case_(a_map_may_end_at_the_top),
        case_(basic_memory_stands_in_for_a_map),
        case_(any_number_of_modules),
        case_(modules_reach_to_the_end_of_32_bits),
        case_(the_new_root_pointer_is_preferred),
        case_(a_framebuffer_may_be_empty_or_end_at_the_top),
        case_(the_total_size),
        case_(the_end_tag_is_missing),
        case_(a_tag_of_impossible_size),
        case_(a_tag_too_short_for_what_it_is),
        case_(a_text_without_an_end),
        case_(a_module_that_ends_before_it_starts),
        case_(a_map_with_impossible_entries),
        case_(a_map_entry_that_wraps),
        case_(a_framebuffer_that_wraps),
        case_(a_root_pointer_with_any_byte_changed),
        case_(a_root_pointer_of_impossible_length),
        case_(a_second_of_what_may_come_once),
        case_(a_message_is_cut_to_its_room),
        case_(cut_at_every_byte),
        case_(random_damage),
        case_(random_tables),
    };

    return cmocka_run_group_tests_name("multiboot2", tests, NULL, NULL);
}
