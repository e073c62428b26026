/*
 * Multiboot 2 on an array that plays the guest's memory: each tag of the header, each of the
 * information, and spoilt images. And what both Multiboot formats do with an ELF file's sections.
 */
#include "tests/unit/load_memory.h"

#define IMAGE 0x800
#define HEADER 0x300
#define TEXT 0x200 /* in the file, loaded at 1 MiB */
#define SECTIONS 0x600
#define OPTIONAL 1

static uint8_t image[IMAGE];
static unsigned header_end;

static void end_header(void)
{
    unsigned length = header_end + 8 - HEADER;

    elf_put(image + header_end, 4, 0);
    elf_put(image + header_end + 4, 4, 8);
    elf_put(image + HEADER, 4, 0xe85250d6);
    elf_put(image + HEADER + 4, 4, 0);
    elf_put(image + HEADER + 8, 4, length);
    elf_put(image + HEADER + 12, 4, -(0xe85250d6 + length));
}

static void add_tag(unsigned type, unsigned flags, const uint32_t *words, unsigned count)
{
    elf_put(image + header_end, 2, type);
    elf_put(image + header_end + 2, 2, flags);
    elf_put(image + header_end + 4, 4, 8 + count * 4);
    for (unsigned i = 0; i < count; i++)
        elf_put(image + header_end + 8 + i * 4, 4, words[i]);
    header_end += (unsigned)align_up(8 + count * 4, 8);
    end_header();
}
#define TAG(type, flags, ...)                                                                      \
    add_tag(type, flags, (const uint32_t[]){__VA_ARGS__},                                          \
            sizeof((const uint32_t[]){__VA_ARGS__}) / 4)

/* Linked high, loaded at 1 MiB; the header is in its text. */
static void make(bool is64)
{
    const uint64_t base = is64 ? 0xffffffff80100000 : 0xc0100000;
    const struct elf_part parts[] = {
        {1, 5, TEXT, base, 0x100000, 0x300, 0x300},
        {1, 6, 0x500, base + 0x2000, 0x102000, 0x100, 0x3000},
    };

    memset(image, 0, sizeof(image));
    memset(image + TEXT, 0x11, 0x300);
    memset(image + 0x500, 0x22, 0x100);
    elf_image(image, is64, base + 0x20, parts, 2);
    memset(image + HEADER, 0, 0x100);
    header_end = HEADER + 16;
    end_header();
}

static struct loader start(void)
{
    return memory_loader(image, sizeof(image));
}

/* Offset in memory of the information's tag `type`, 0 for none; checks the form of all. */
static uint64_t find_tag(uint64_t info, uint32_t type)
{
    uint64_t end = info + memory_get(info, 4), found = 0;

    assert_int_equal(info % 8, 0);
    assert_int_equal(memory_get(info + 4, 4), 0);
    for (uint64_t at = info + 8;; at = align_up(at + memory_get(at + 4, 4), 8)) {
        assert_true(at + 8 <= end);
        if (memory_get(at, 4) == type && found == 0)
            found = at;
        if (memory_get(at, 4) == 0) {
            assert_int_equal(memory_get(at + 4, 4), 8);
            assert_int_equal(at + 8, end);
            return found;
        }
    }
}

static void check_information(uint64_t info)
{
    uint64_t entries[8][3], at = find_tag(info, 6);
    unsigned count = (unsigned)(memory_get(at + 4, 4) - 16) / 24;

    assert_string_equal(memory_string(find_tag(info, 1) + 8), "name and words");
    assert_string_equal(memory_string(find_tag(info, 2) + 8), "Quire");
    assert_int_equal(memory_get(at + 8, 4), 24);
    assert_int_equal(memory_get(at + 12, 4), 0);
    assert_true(count <= ARRAY_SIZE(entries));
    for (unsigned i = 0; i < count; i++) {
        entries[i][0] = memory_get(at + 16 + i * 24, 8);
        entries[i][1] = memory_get(at + 16 + i * 24 + 8, 8);
        entries[i][2] = memory_get(at + 16 + i * 24 + 16, 4);
    }
    check_map((const uint64_t(*)[3])entries, count);
    at = find_tag(info, 4);
    assert_int_equal(memory_get(at + 8, 4), 639);
    assert_int_equal(memory_get(at + 12, 4), 7 * 1024);
    at = find_tag(info, 8);
    assert_int_equal(memory_get(at + 8, 8), 0xb8000);
    assert_int_equal(memory_get(at + 16, 4), 160);
    assert_int_equal(memory_get(at + 20, 4), 80);
    assert_int_equal(memory_get(at + 24, 4), 25);
    assert_int_equal(memory_get(at + 28, 2), 16 | 2 << 8);
    assert_int_equal(find_tag(info, 5) | find_tag(info, 7) | find_tag(info, 14), 0);
}

static void entered(void **state)
{
    (void)state;
    for (unsigned is64 = 0; is64 < 2; is64++) {
        struct loader loader;

        make(is64);
        loader = start();
        must_load(&loader, LOAD_RECOGNISED);
        assert_string_equal(loader.kind, is64 ? "Multiboot2 ELF64" : "Multiboot2 ELF32");
        assert_int_equal(loader.state.rip, 0x100020);
        assert_int_equal(loader.state.gpr[RAX], 0x36d76289);
        assert_int_equal(loader.state.gpr[RSP], 0x7ff00);
        assert_int_equal(loader.state.cr0 & (BIT(0) | BIT(31)), BIT(0));
        assert_int_equal(loader.state.efer, 0);
        assert_memory_equal(memory + 0x100000, image + TEXT, 0x300);
        assert_int_equal(memory_get(0x104ff8, 8), 0);
        check_information(loader.state.gpr[RBX]);
        assert_int_equal(find_tag(loader.state.gpr[RBX], 21), 0);
        assert_int_equal(find_tag(loader.state.gpr[RBX], 9), 0);
        assert_int_equal(memory_get(0x413, 2), 639);
    }
}

static void without_a_pc(void **state)
{
    struct loader loader;

    (void)state;
    make(false);
    loader = start();
    loader.pc = false;
    must_load(&loader, LOAD_RECOGNISED);
    assert_int_equal(find_tag(loader.state.gpr[RBX], 8), 0);
    assert_int_equal(memory_get(find_tag(loader.state.gpr[RBX], 4) + 8, 4), 640);
    assert_int_equal(memory_get(0x400, 8), 0xcccccccccccccccc);
}

static void modules_and_acpi(void **state)
{
    uint8_t content[5000], pointer[36];
    struct loader loader;
    uint64_t info, tag;

    (void)state;
    make(true);
    memset(content, 0x77, sizeof(content));
    for (unsigned i = 0; i < sizeof(pointer); i++)
        pointer[i] = (uint8_t)i;
    loader = start();
    loader.module[0] = (struct load_module){content, sizeof(content), "first module"};
    loader.modules = 1;
    loader.rsdp.at = 0xf0000;
    loader.rsdp.bytes = pointer;
    loader.rsdp.size = sizeof(pointer);
    must_load(&loader, LOAD_RECOGNISED);
    info = loader.state.gpr[RBX];
    tag = find_tag(info, 3);
    assert_int_equal(memory_get(tag + 8, 4) % PAGE_SIZE, 0);
    assert_int_equal(memory_get(tag + 12, 4) - memory_get(tag + 8, 4), sizeof(content));
    assert_memory_equal(memory + memory_get(tag + 8, 4), content, sizeof(content));
    assert_string_equal(memory_string(tag + 16), "first module");
    assert_int_equal(memory_get(find_tag(info, 14) + 4, 4), 28);
    assert_memory_equal(memory + find_tag(info, 14) + 8, pointer, 20);
    assert_int_equal(memory_get(find_tag(info, 15) + 4, 4), 44);
    assert_memory_equal(memory + find_tag(info, 15) + 8, pointer, 36);
}

static void harmless_tags(void **state)
{
    struct loader loader;

    (void)state;
    make(false);
    TAG(1, 0, 1, 2, 3, 4, 5, 6, 8, 9, 14, 15, 17, 21); /* all of them are known */
    TAG(1, OPTIONAL, 99);
    TAG(4, 0, 3);                    /* a console, text will do */
    TAG(5, OPTIONAL, 1024, 768, 32); /* graphics, if there are any */
    add_tag(6, 0, NULL, 0);
    add_tag(7, OPTIONAL, NULL, 0);
    TAG(8, 0, 0x100040);
    TAG(9, 0, 0x100040);
    TAG(77, OPTIONAL, 0);
    loader = start();
    must_load(&loader, LOAD_RECOGNISED);
    assert_int_equal(loader.state.rip, 0x100020);
    TAG(3, 0, 0x100044);
    loader = start();
    must_load(&loader, LOAD_RECOGNISED);
    assert_int_equal(loader.state.rip, 0x100044); /* wins over the ELF header */
    /* Required graphics, where text will do as well. */
    make(false);
    TAG(4, 0, 2);
    TAG(5, 0, 1024, 768, 32);
    loader = start();
    must_load(&loader, LOAD_RECOGNISED);
}

static void refused_tags(void **state)
{
    static const struct {
        unsigned type, flags, count;
        uint32_t words[4];
        int error;
        const char *fragment;
    } cases[] = {
        {1, 0, 2, {6, 99}, E_UNSUPPORTED, "demands information of type 99"},
        {5, 0, 3, {1024, 768, 32}, E_UNSUPPORTED, "demands a graphics mode, and a guest's screen"},
        {4, 0, 1, {1}, E_UNSUPPORTED, "demands a console, and a guest's screen is text alone"},
        {7, 0, 0, {0}, E_UNSUPPORTED, "tag 7 of the Multiboot 2 header demands EFI's boot"},
        {77, 0, 0, {0}, E_UNSUPPORTED, "tag 77 of the Multiboot 2 header is unknown"},
        {2, 0, 4, {0x100100, 0x100000, 0, 0}, E_FORMAT, "without the entry address tag (3)"},
        {2, 0, 3, {0x100100, 0x100000, 0}, E_FORMAT, "has only 20 bytes: it takes 24"},
        {10, 0, 4, {0, UINT32_MAX, 3000, 0}, E_FORMAT, "alignment 0xbb8 is no power of two"},
        {10, 0, 4, {0x800000, UINT32_MAX, 0, 0}, E_NOMEM, "no room for the image's 0x5000 bytes"},
        {10, 0, 4, {0x100000, 0x104ffe, 1, 0}, E_NOMEM, "within 0x100000..0x104ffe"},
        {3, 0, 1, {0x20}, E_OK, ""},
    };
    struct loader loader;

    (void)state;
    for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
        make(i % 2);
        add_tag(cases[i].type, cases[i].flags, cases[i].words, cases[i].count);
        loader = start();
        must_refuse(&loader, LOAD_RECOGNISED, cases[i].error, cases[i].fragment);
    }
    make(false);
    TAG(4, 0, 3);
    loader = start();
    loader.pc = false;
    must_refuse(&loader, LOAD_RECOGNISED, E_UNSUPPORTED, "demands a console, and a `bare` guest");
}

static void broken_headers(void **state)
{
    struct loader loader;

    (void)state;
    make(false);
    image[HEADER + 12] ^= 1;
    loader = start();
    must_refuse(&loader, LOAD_RECOGNISED, E_FORMAT, "header at 0x300 has a wrong checksum: magic");
    make(false);
    elf_put(image + HEADER + 4, 4, 4);
    elf_put(image + HEADER + 12, 4, -(0xe85250d6 + 4 + 24));
    loader = start();
    must_refuse(&loader, LOAD_RECOGNISED, E_FORMAT, "is for another architecture than i386");
    make(false);
    memmove(image + HEADER + 4, image + HEADER, 24);
    memset(image + HEADER, 0, 4);
    loader = start();
    must_refuse(&loader, LOAD_RECOGNISED, E_FORMAT, "is not aligned to 8 bytes");
    make(false);
    elf_put(image + header_end + 4, 4, 7); /* the end tag counts by its type */
    elf_put(image + header_end, 4, 12);
    loader = start();
    must_refuse(&loader, LOAD_RECOGNISED, E_FORMAT, "tag 12 of the Multiboot 2 header, 7 bytes");
    make(false);
    elf_put(image + HEADER + 8, 4, 16);
    elf_put(image + HEADER + 12, 4, -(0xe85250d6 + 16));
    loader = start();
    must_refuse(&loader, LOAD_RECOGNISED, E_FORMAT, "ends without its end tag");
    elf_put(image + HEADER + 8, 4, IMAGE);
    elf_put(image + HEADER + 12, 4, -(0xe85250d6 + IMAGE));
    loader = start();
    must_refuse(&loader, LOAD_RECOGNISED, E_TRUNC, "do not lie in the file's first 32 KiB");
}

/* The address tag: header, load address, load end, bss end. */
static void by_addresses(void **state)
{
    struct loader loader;

    (void)state;
    make(false);
    memset(image, 0, 0x100); /* no ELF file at all */
    TAG(2, 0, 0x180100, 0x180000, 0x180400, 0x181000);
    TAG(3, 0, 0x180040);
    loader = start();
    must_load(&loader, LOAD_RECOGNISED);
    assert_string_equal(loader.kind, "Multiboot2 by addresses");
    assert_int_equal(loader.state.rip, 0x180040);
    assert_memory_equal(memory + 0x180000, image + 0x200, 0x400);
    assert_int_equal(memory_get(0x180ff8, 8), 0);
    assert_int_equal(memory[0x181000], UNTOUCHED);
    check_information(loader.state.gpr[RBX]);
    /* -1: from the file's first byte; 0 and 0: to its last, no bss. */
    make(false);
    TAG(2, 0, 0x180000 + HEADER, UINT32_MAX, 0, 0);
    TAG(3, 0, 0x180040);
    loader = start();
    must_load(&loader, LOAD_RECOGNISED);
    assert_memory_equal(memory + 0x180000, image, IMAGE);
    /* It can be moved as well. */
    TAG(10, 0, 0x200000, UINT32_MAX, 0x1000, 2);
    loader = start();
    must_load(&loader, LOAD_RECOGNISED);
    assert_int_equal(loader.state.rip, 8 * MiB - 0x1000 + 0x40);
    assert_int_equal(memory_get(find_tag(loader.state.gpr[RBX], 21) + 8, 4), 8 * MiB - 0x1000);
}

static void moved(void **state)
{
    static const struct {
        uint32_t lowest, highest, align, preference, at;
    } cases[] = {
        {0, UINT32_MAX, 0x1000, 0, 0x100000},         /* where it is linked is fine */
        {0x200000, UINT32_MAX, 0x1000, 0, 0x200000},  /* it is not */
        {0, UINT32_MAX, 0x200000, 0, 0x200000},       /* nor aligned */
        {0x180001, UINT32_MAX, 0x10000, 1, 0x190000}, /* the lowest */
        {0, UINT32_MAX, 0x1000, 1, 0x1000},           /* behind vectors and BIOS data */
        {0, UINT32_MAX, 0x10000, 2, 0x7f0000},        /* the highest */
        {0, 0x4fffff, 0x1000, 2, 0x4fb000},           {0, 0x9ffff, 1, 2, 0x9b000},
    };

    (void)state;
    for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
        struct loader loader;
        uint64_t info;

        make(i % 2);
        elf_put(image + 16, 2, 3); /* ET_DYN, as such a file may be */
        TAG(10, 0, cases[i].lowest, cases[i].highest, cases[i].align, cases[i].preference);
        loader = start();
        must_load(&loader, LOAD_RECOGNISED);
        info = loader.state.gpr[RBX];
        assert_int_equal(memory_get(find_tag(info, 21) + 8, 4), cases[i].at);
        assert_int_equal(loader.state.rip, cases[i].at + 0x20);
        assert_memory_equal(memory + cases[i].at, image + TEXT, 0x300);
        assert_memory_equal(memory + cases[i].at + 0x2000, image + 0x500, 0x100);
        if (info + 0x1000 > cases[i].at && info < cases[i].at + 0x5000)
            fail_msg("the information at 0x%lx, the image at 0x%x", info, cases[i].at);
    }
}

/* --- sections: for both formats --- */

/* Nothing; the text, which a segment loads; symbols; strings; notes for debugging; zeroes. */
static void add_sections(bool is64, uint64_t debugging)
{
    static const uint32_t type[] = {0, 1, 2, 3, 1, 8};
    const uint64_t size[] = {0, 0x300, 0x30, 0x20, debugging, 0x100};
    unsigned word = is64 ? 8 : 4, entry = is64 ? 64 : 40;

    elf_put(image + (is64 ? 40 : 32), word, SECTIONS);
    elf_put(image + (is64 ? 58 : 46), 2, entry);
    elf_put(image + (is64 ? 60 : 48), 2, 6);
    elf_put(image + (is64 ? 62 : 50), 2, 3);
    for (unsigned i = 0; i < 6; i++) {
        uint8_t *at = image + SECTIONS + i * entry;
        unsigned address = is64 ? 16 : 12;

        memset(at, 0, entry);
        elf_put(at + 4, 4, type[i]);
        elf_put(at + address, word, i == 1 ? 0x100000 : 0);
        elf_put(at + address + word, word, i == 4 ? 0 : TEXT + i * 0x20);
        elf_put(at + address + 2 * word, word, size[i]);
    }
}

static void check_sections(bool is64, uint64_t table, bool all)
{
    unsigned word = is64 ? 8 : 4, entry = is64 ? 64 : 40, address = is64 ? 16 : 12;

    for (unsigned i = 0; i < 6; i++) {
        uint64_t header = table + i * entry, at = memory_get(header + address, word);
        uint64_t size = memory_get(header + address + 2 * word, word);

        if (i == 1)
            assert_int_equal(at, 0x100000);
        else if (i == 2 || i == 3)
            assert_memory_equal(memory + at, image + TEXT + i * 0x20, size);
        else if (i == 4 && all)
            assert_memory_equal(memory + at, image, size);
        else
            assert_int_equal(at, 0);
    }
}

static void sections_of_multiboot2(void **state)
{
    (void)state;
    for (unsigned is64 = 0; is64 < 2; is64++) {
        struct loader loader;
        uint64_t tag;

        make(is64);
        add_sections(is64, 0x180);
        loader = start();
        must_load(&loader, LOAD_RECOGNISED);
        tag = find_tag(loader.state.gpr[RBX], 9);
        assert_int_equal(memory_get(tag + 8, 4), 6);
        assert_int_equal(memory_get(tag + 12, 4), is64 ? 64 : 40);
        assert_int_equal(memory_get(tag + 16, 4), 3);
        check_sections(is64, tag + 20, true);
    }
}

static void put_multiboot1(void)
{
    elf_put(image + HEADER, 4, 0x1badb002);
    elf_put(image + HEADER + 4, 4, 3);
    elf_put(image + HEADER + 8, 4, -(0x1badb002u + 3));
}

static void sections_of_multiboot1(void **state)
{
    (void)state;
    for (unsigned is64 = 0; is64 < 2; is64++) {
        struct loader loader;
        uint64_t info;

        make(is64);
        put_multiboot1();
        add_sections(is64, 0x180);
        loader = start();
        must_load(&loader, LOAD_RECOGNISED);
        info = loader.state.gpr[RBX];
        assert_int_equal(memory_get(info, 4) & BIT(5), BIT(5));
        assert_int_equal(memory_get(info + 28, 4), 6);
        assert_int_equal(memory_get(info + 32, 4), is64 ? 64 : 40);
        assert_int_equal(memory_get(info + 40, 4), 3);
        check_sections(is64, memory_get(info + 36, 4), true);
        /* A table that is not whole, or too long, is none. */
        elf_put(image + (is64 ? 60 : 48), 2, 0x100);
        loader = start();
        must_load(&loader, LOAD_RECOGNISED);
        assert_int_equal(memory_get(loader.state.gpr[RBX], 4) & BIT(5), 0);
    }
}

/* Where all of them find no room, symbols and strings still do; else the headers are alone. */
static void sections_without_room(void **state)
{
    struct loader loader;
    uint64_t table;

    (void)state;
    make(true);
    put_multiboot1();
    add_sections(true, IMAGE);
    loader = start();
    loader.used[loader.used_count++] = (struct load_range){0x101000, 0x101fff};
    loader.region[2].size = 0x5000 + 0x400;
    must_load(&loader, LOAD_RECOGNISED);
    table = memory_get(loader.state.gpr[RBX] + 36, 4);
    check_sections(true, table, false);
    loader = start();
    loader.used[loader.used_count++] = (struct load_range){0x101000, 0x101fff};
    loader.region[2].size = 0x5000;
    must_load(&loader, LOAD_RECOGNISED);
    table = memory_get(loader.state.gpr[RBX] + 36, 4);
    for (unsigned i = 0; i < 6; i++)
        assert_int_equal(memory_get(table + i * 64 + 16, 8), i == 1 ? 0x100000 : 0);
}

static void spoilt(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 4; i++) {
        make(i & 1);
        if (i & 2)
            put_multiboot1();
        else
            TAG(10, 0, 0x180000, UINT32_MAX, 0x1000, 1);
        add_sections(i & 1, 0x180);
        spoil(image, sizeof(image), LOAD_RECOGNISED);
    }
    make(false);
    memset(image, 0, 0x100);
    TAG(2, 0, 0x180100, 0x180000, 0x180400, 0x181000);
    TAG(3, 0, 0x180040);
    spoil(image, sizeof(image), LOAD_RECOGNISED);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(entered),
        cmocka_unit_test(without_a_pc),
        cmocka_unit_test(modules_and_acpi),
        cmocka_unit_test(harmless_tags),
        cmocka_unit_test(refused_tags),
        cmocka_unit_test(broken_headers),
        cmocka_unit_test(by_addresses),
        cmocka_unit_test(moved),
        cmocka_unit_test(sections_of_multiboot2),
        cmocka_unit_test(sections_of_multiboot1),
        cmocka_unit_test(sections_without_room),
        cmocka_unit_test(spoilt),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
