/*
 * What an image is recognised as, and what is said of one that is nothing: each format by its own
 * mark, the first of several, the one that it nearly is. And Multiboot 1 as GRUB has it.
 */
#include "tests/unit/load_memory.h"

#include "lib/format.h"

#define IMAGE 0x9000

static uint8_t image[IMAGE];

static struct {
    struct sink sink;
    char text[1024];
    size_t length;
} details;

static void write_details(struct sink *sink, const char *bytes, size_t n)
{
    (void)sink;
    assert_true(details.length + n < sizeof(details.text));
    memcpy(details.text + details.length, bytes, n);
    details.length += n;
    details.text[details.length] = '\0';
}

static struct loader start(uint64_t size)
{
    struct loader loader = memory_loader(image, size);

    details.sink.write = write_details;
    details.length = 0;
    details.text[0] = '\0';
    loader.details = &details.sink;
    return loader;
}

static int clear(void **state)
{
    (void)state;
    memset(image, 0, sizeof(image));
    return 0;
}

static void put_multiboot(unsigned at, unsigned version)
{
    uint32_t magic = version == 1 ? 0x1badb002 : 0xe85250d6, length = version == 1 ? 0 : 24;

    elf_put(image + at, 4, magic);
    elf_put(image + at + 4, 4, 0);
    if (version == 2)
        elf_put(image + at + 8, 4, length);
    elf_put(image + at + (version == 1 ? 8 : 12), 4, -(magic + length));
    if (version == 2) {
        elf_put(image + at + 16, 4, 0);
        elf_put(image + at + 20, 4, 8);
    }
}

static void put_elf(bool note)
{
    static const struct elf_part parts[] = {
        {1, 5, 0x200, 0x100000, 0x100000, 0x100, 0x100},
        {4, 4, 0x180, 0, 0, 0x20, 0x20},
    };

    elf_image(image, false, 0x100010, parts, note ? 2 : 1);
    elf_put(image + 0x180, 4, 4);
    elf_put(image + 0x184, 4, 4);
    elf_put(image + 0x188, 4, 18);
    memcpy(image + 0x18c, "Xen", 4);
    elf_put(image + 0x190, 4, 0x100020);
}

static void put_signature(void)
{
    elf_put(image + 510, 2, 0xaa55);
}

static const char *recognised(uint64_t size)
{
    struct loader loader = start(size);

    loader.pc = load_expects_pc(image, size);
    must_load(&loader, LOAD_RECOGNISED);
    assert_string_equal(details.text, "");
    return loader.kind;
}

/* Each mark counts before those that come later. */
static void precedence(void **state)
{
    (void)state;
    put_signature();
    assert_string_equal(recognised(512), "flat 16-bit");
    assert_false(load_expects_pc(image, 512));
    put_elf(true);
    put_signature();
    assert_string_equal(recognised(0x1000), "PVH ELF32");
    put_multiboot(0x400, 2);
    assert_string_equal(recognised(0x1000), "Multiboot2 ELF32");
    put_multiboot(0x500, 1);
    assert_string_equal(recognised(0x1000), "Multiboot ELF32");
    assert_true(load_expects_pc(image, 0x1000));
    /* A magic number alone is none. */
    image[0x508] ^= 1;
    assert_string_equal(recognised(0x1000), "Multiboot2 ELF32");
    image[0x40c] ^= 1;
    assert_string_equal(recognised(0x1000), "PVH ELF32");
    image[0x188] = 17;
    assert_string_equal(recognised(0x1000), "flat 16-bit");
}

static void places_of_headers(void **state)
{
    struct loader loader;

    (void)state;
    put_elf(false);
    put_multiboot(8192 - 12, 1);
    assert_string_equal(recognised(IMAGE), "Multiboot ELF32");
    clear(state);
    put_elf(false);
    put_multiboot(0x7fe8, 2);
    assert_string_equal(recognised(IMAGE), "Multiboot2 ELF32");
    clear(state);
    put_multiboot(0x8000, 2);
    loader = start(IMAGE);
    must_refuse(&loader, LOAD_RECOGNISED, E_FORMAT,
                "the Multiboot 2 header at 0x8000 lies beyond the first 32 KiB: link with ld -n");
}

static void of_each_format_why_not(void **state)
{
    struct loader loader = start(600);

    (void)state;
    must_refuse(&loader, LOAD_RECOGNISED, E_FORMAT,
                "not an image that can be started: no Linux, Multiboot 1 or 2, PVH or ELF, and no "
                "boot signature 55 AA at 510 (`flat` does without); its report says more");
    assert_string_equal(details.text,
                        "Linux: no \"HdrS\" at 0x202\n"
                        "Multiboot 1: no 0x1badb002 in its first 8 KiB\n"
                        "Multiboot 2: no 0xe85250d6 in its first 32 KiB\n"
                        "PVH: no ELF file\n"
                        "flat: no boot signature 55 AA at 510 (option `flat` does without)\n"
                        "ELF: no ELF file\n");
    put_elf(false);
    loader = start(0x1000);
    must_refuse(&loader, LOAD_RECOGNISED, E_FORMAT,
                "an ELF file without a Multiboot header or a PVH note; entry=elf32 or entry=elf64");
    assert_non_null(strstr(details.text, "PVH: no ELF note 18 of \"Xen\""));
    elf_put(image + 18, 2, 40);
    loader = start(0x1000);
    must_refuse(&loader, LOAD_RECOGNISED, E_FORMAT, "an ELF file without");
    assert_non_null(strstr(details.text, "PVH: the ELF image is for another processor than x86"));
    /* What it nearly is comes first. */
    put_multiboot(0x400, 1);
    image[0x408] ^= 1;
    loader = start(0x1000);
    must_refuse(&loader, LOAD_RECOGNISED, E_FORMAT, "the Multiboot header at 0x400 has a wrong");
}

static void named_to_be_refused(void **state)
{
    static const struct {
        const char *bytes;
        unsigned length;
        const char *fragment;
    } cases[] = {
        {"\x1f\x8b\x08", 3, "a gzip file: unpack it first, by gunzip"},
        {"\xfd"
         "7zXZ",
         6, "an xz file: unpack it first, by unxz"},
        {"\x28\xb5\x2f\xfd", 4, "a zstd file: unpack it first, by unzstd"},
        {"BZh9", 4, "a bzip2 file: unpack it first, by bunzip2"},
        {"\x04\x22\x4d\x18", 4, "an lz4 file: unpack it first, by unlz4"},
    };
    struct loader loader;

    (void)state;
    for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
        clear(state);
        put_signature();
        memcpy(image, cases[i].bytes, cases[i].length);
        loader = start(0x1000);
        must_refuse(&loader, LOAD_RECOGNISED, E_UNSUPPORTED, cases[i].fragment);
    }
    clear(state);
    put_signature();
    memcpy(image, "MZ", 2);
    assert_string_equal(recognised(0x1000), "flat 16-bit"); /* two instructions */
    elf_put(image + 0x3c, 4, 0x200);
    memcpy(image + 0x200, "PE\0", 4);
    loader = start(0x1000);
    must_refuse(&loader, LOAD_RECOGNISED, E_UNSUPPORTED,
                "an EFI program, and a guest has no EFI firmware");
    elf_put(image + 0x3c, 4, UINT32_MAX);
    assert_string_equal(recognised(0x1000), "flat 16-bit");
}

/* --- Multiboot 1 --- */

/* Some kernels' entry point is a physical address although they are linked elsewhere. */
static void physical_entry_point(void **state)
{
    static const struct elf_part parts[] = {
        {1, 5, 0x200, 0x80100000, 0x100000, 0x100, 0x100},
        {1, 6, 0x300, 0x80101000, 0x101000, 0x100, 0x100},
        {1, 6, 0x300, 0x100080, 0x180000, 0x10, 0x10},
    };
    struct loader loader;

    (void)state;
    elf_image(image, false, 0x10000c, parts, 3);
    put_multiboot(0x200, 1);
    loader = start(0x1000);
    must_load(&loader, LOAD_RECOGNISED);
    assert_int_equal(loader.state.rip, 0x10000c);
    /* A virtual address that fits goes first, as with GRUB. */
    elf_put(image + 24, 4, 0x100084);
    loader = start(0x1000);
    must_load(&loader, LOAD_RECOGNISED);
    assert_int_equal(loader.state.rip, 0x180004);
}

static void a_pc_by_multiboot1(void **state)
{
    uint64_t entries[8][3], info, map;
    struct loader loader;
    unsigned count;

    (void)state;
    put_elf(false);
    put_multiboot(0x200, 1);
    elf_put(image + 0x204, 4, 4); /* a video mode: what there is is said */
    elf_put(image + 0x208, 4, -(0x1badb002u + 4));
    loader = start(0x1000);
    must_load(&loader, LOAD_RECOGNISED);
    info = loader.state.gpr[RBX];
    assert_int_equal(memory_get(info, 4), BIT(0) | BIT(2) | BIT(3) | BIT(6) | BIT(9) | BIT(12));
    assert_int_equal(memory_get(info + 4, 4), 639);
    assert_int_equal(memory_get(info + 88, 8), 0xb8000);
    assert_int_equal(memory_get(info + 96, 4), 160);
    assert_int_equal(memory_get(info + 100, 4), 80);
    assert_int_equal(memory_get(info + 104, 4), 25);
    assert_int_equal(memory_get(info + 108, 2), 16 | 2 << 8);
    map = memory_get(info + 48, 4);
    count = (unsigned)memory_get(info + 44, 4) / 24;
    assert_true(count <= ARRAY_SIZE(entries));
    for (unsigned i = 0; i < count; i++, map += 24) {
        assert_int_equal(memory_get(map, 4), 20);
        entries[i][0] = memory_get(map + 4, 8);
        entries[i][1] = memory_get(map + 12, 8);
        entries[i][2] = memory_get(map + 20, 4);
    }
    check_map((const uint64_t(*)[3])entries, count);
    assert_int_equal(memory_get(0x40e, 2), 0x9fc0);
    assert_int_equal(memory_get(0x9fc00, 1), 1);
}

/* An image that lies where a PC's firmware has its data goes first. */
static void image_in_low_memory(void **state)
{
    static const struct elf_part parts[] = {
        {1, 5, 0x200, 0x300, 0x300, 0x100, 0x180},
        {1, 6, 0x300, 0x9f000, 0x9f000, 0x100, 0x1000},
    };
    struct loader loader;
    uint64_t info;

    (void)state;
    elf_image(image, false, 0x300, parts, 2);
    put_multiboot(0x210, 1);
    loader = start(0x1000);
    must_load(&loader, LOAD_RECOGNISED);
    info = loader.state.gpr[RBX];
    assert_memory_equal(memory + 0x300, image + 0x200, 0x100);
    assert_memory_equal(memory + 0x9f000, image + 0x300, 0x100);
    assert_int_equal(memory_get(0x9fc00, 8), 0);
    assert_int_equal(memory_get(0, 8), 0xcccccccccccccccc);
    assert_int_equal(memory_get(info + 4, 4), 640); /* nothing is reserved for it */
    assert_int_equal(memory_get(info + 44, 4), 3 * 24);
}

/* Not right behind the image, where a kernel may put its first tables, if there is room. */
static void modules_keep_their_distance(void **state)
{
    static const uint8_t content[10];
    struct loader loader;
    uint64_t list;

    (void)state;
    put_elf(false);
    put_multiboot(0x200, 1);
    for (unsigned room = 0; room < 2; room++) {
        loader = start(0x1000);
        loader.modules = 1;
        loader.module[0] = (struct load_module){content, sizeof(content), "module"};
        if (!room)
            loader.region[2].size = MiB;
        must_load(&loader, LOAD_RECOGNISED);
        list = memory_get(loader.state.gpr[RBX] + 24, 4);
        assert_int_equal(memory_get(list, 4), room ? 0x201000 : 0x101000);
    }
}

/* load_find_highest() against a search page by page. */
static void finding_room_from_above(void **state)
{
    (void)state;
    for (unsigned first = 0; first < 16; first++) {
        for (unsigned pages = 1; pages < 20; pages++) {
            struct loader loader = start(1);
            uint64_t found = 0, expected = 0, last = 0x100000 + 40 * PAGE_SIZE - 1;
            uint64_t lowest = 0x100000 + first * PAGE_SIZE;

            loader.used[0] = (struct load_range){0x100000 + 30 * PAGE_SIZE, 0x11ffff};
            loader.used[1] = (struct load_range){0x100000 + 12 * PAGE_SIZE + 5, 0x10c005};
            loader.used_count = 2;
            for (unsigned at = first; at + pages <= 40; at++) {
                if (at + pages <= 12 || (at > 12 && at + pages <= 30) || at >= 32)
                    expected = 0x100000 + at * PAGE_SIZE;
            }
            if (load_find_highest(&loader, pages * PAGE_SIZE, PAGE_SIZE, lowest, last, &found) !=
                E_OK)
                found = 0;
            assert_int_equal(found, expected);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(precedence, clear),
        cmocka_unit_test_setup(places_of_headers, clear),
        cmocka_unit_test_setup(of_each_format_why_not, clear),
        cmocka_unit_test_setup(named_to_be_refused, clear),
        cmocka_unit_test_setup(physical_entry_point, clear),
        cmocka_unit_test_setup(a_pc_by_multiboot1, clear),
        cmocka_unit_test_setup(image_in_low_memory, clear),
        cmocka_unit_test_setup(modules_keep_their_distance, clear),
        cmocka_unit_test_setup(finding_room_from_above, clear),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
