/*
 * The loaders on a plain array that plays the guest's memory: what a right image finds when it is
 * entered, each reason to refuse one, and truncation and mutation of right ones.
 */
#include "vm/load_parts.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "lib/bits.h"
#include "lib/error.h"
#include "tests/unit/elf_image.h"
#include "tests/unit/random.h"

#define MEMORY (4 * MiB)
#define UNTOUCHED 0xcc
#define MB_MAGIC 0x1BADB002u

static uint8_t memory[MEMORY];
static char why[160];

/* As the slots do: memory ends, and the legacy hole holds nothing. */
static int place(void *ctx, uint64_t at, const void *from, uint64_t size)
{
    (void)ctx;
    if (at >= MEMORY || size > MEMORY - at || (at < MiB && at + size > 0xa0000))
        return E_RANGE;
    if (from != NULL)
        memcpy(memory + at, from, size);
    else
        memset(memory + at, 0, size);
    return E_OK;
}

static struct loader loader_for(const uint8_t *bytes, uint64_t size)
{
    struct loader loader = {
        .bytes = bytes,
        .size = size,
        .cmdline = "name and words",
        .region = {{0, 0xa0000, true}, {MiB, 2 * MiB, true}, {3 * MiB, MiB, false}},
        .regions = 3,
        .place = place,
        .why = why,
        .why_size = sizeof(why),
    };

    memset(memory, UNTOUCHED, sizeof(memory));
    why[0] = '\0';
    return loader;
}

static void expect_refusal(struct loader *loader, int error, const char *fragment)
{
    assert_int_equal(load_image(loader, LOAD_RECOGNISED), error);
    if (strstr(why, fragment) == NULL)
        fail_msg("\"%s\" does not mention \"%s\"", why, fragment);
}

static void put_header(uint8_t *at, uint32_t flags)
{
    elf_put(at, 4, MB_MAGIC);
    elf_put(at + 4, 4, flags);
    elf_put(at + 8, 4, (uint32_t) - (MB_MAGIC + flags));
}

/* --- ELF with a Multiboot header --- */

#define ELF_BYTES 0x400

static uint8_t *make_elf(bool is64, uint32_t flags)
{
    static const struct elf_part parts[] = {
        {1, 5, 0x200, 0xc0100000, 0x100000, 0x100, 0x100},
        {1, 6, 0x300, 0xc0102000, 0x102000, 0x100, 0x3000},
    };
    uint8_t *image = calloc(1, ELF_BYTES);

    assert_non_null(image);
    elf_image(image, is64, 0xc0100020, parts, 2);
    memset(image + 0x200, 0x11, 0x100);
    memset(image + 0x300, 0x22, 0x100);
    put_header(image + 0x204, flags);
    return image;
}

static uint32_t get32(uint64_t at)
{
    assert_true(at + 4 <= MEMORY);
    return (uint32_t)memory[at] | (uint32_t)memory[at + 1] << 8 | (uint32_t)memory[at + 2] << 16 |
           (uint32_t)memory[at + 3] << 24;
}

static uint64_t get64(uint64_t at)
{
    return get32(at) | (uint64_t)get32(at + 4) << 32;
}

static void check_machine_state(const struct vcpu_state *state)
{
    assert_int_equal(state->gpr[RAX], 0x2BADB002);
    assert_int_equal(state->gpr[RSP], 0x7ff00);
    assert_int_equal(state->cr0 & (BIT(0) | BIT(31)), BIT(0)); /* protected, not paged */
    assert_int_equal(state->rflags & (BIT(9) | BIT(17)), 0);   /* IF and VM clear */
    assert_int_equal(state->efer, 0);
    for (unsigned i = SEG_ES; i <= SEG_GS; i++) {
        assert_int_equal(state->segment[i].base, 0);
        assert_int_equal(state->segment[i].limit, 0xffffffff);
        /* present, ring 0, 4 KiB granularity, 32-bit; code for CS, writable data elsewhere */
        assert_int_equal(state->segment[i].access & 0xc0fe, i == SEG_CS ? 0xc09a : 0xc092);
    }
}

static void check_info(uint64_t info)
{
    uint32_t flags = get32(info);
    uint64_t map = get32(info + 48);

    assert_int_equal(flags & 1, 1);
    assert_int_equal(get32(info + 4), 640);
    assert_int_equal(get32(info + 8), 2048);
    assert_true(flags & BIT(2));
    assert_string_equal((char *)memory + get32(info + 16), "name and words");
    assert_true(flags & BIT(9));
    assert_string_equal((char *)memory + get32(info + 64), "Quire");
    assert_true(flags & BIT(6));
    assert_int_equal(get32(info + 44), 3 * 24);
    assert_int_equal(get32(map), 20);
    assert_int_equal(get64(map + 4), 0);
    assert_int_equal(get64(map + 12), 0xa0000);
    assert_int_equal(get32(map + 20), 1);
    assert_int_equal(get64(map + 24 + 4), MiB);
    assert_int_equal(get32(map + 24 + 20), 1);
    assert_int_equal(get64(map + 48 + 4), 3 * MiB);
    assert_int_equal(get32(map + 48 + 20), 2); /* not for free use */
}

static void elf_is_entered(bool is64)
{
    uint8_t *image = make_elf(is64, 3);
    struct loader loader = loader_for(image, ELF_BYTES);

    if (load_image(&loader, LOAD_RECOGNISED) != E_OK)
        fail_msg("refused: %s", why);
    assert_string_equal(loader.kind, is64 ? "Multiboot ELF64" : "Multiboot ELF32");
    assert_int_equal(loader.state.rip, 0x100020); /* virtual entry followed to its physical place */
    check_machine_state(&loader.state);
    assert_memory_equal(memory + 0x100000, image + 0x200, 0x100);
    assert_int_equal(memory[0x100100], UNTOUCHED);
    assert_memory_equal(memory + 0x102000, image + 0x300, 0x100);
    for (unsigned i = 0x102100; i < 0x105000; i++)
        assert_int_equal(memory[i], 0);
    assert_int_equal(memory[0x105000], UNTOUCHED);
    check_info(loader.state.gpr[RBX]);
    assert_int_equal(get32(loader.state.gpr[RBX] + 20), 0);
    free(image);
}

static void elf_both_classes(void **state)
{
    (void)state;
    elf_is_entered(false);
    elf_is_entered(true);
}

static void modules(void **state)
{
    uint8_t *image = make_elf(false, 3);
    uint8_t content[5000];
    struct loader loader = loader_for(image, ELF_BYTES);
    uint64_t list;

    (void)state;
    memset(content, 0x77, sizeof(content));
    loader.modules = 3;
    loader.module[0] = (struct load_module){content, sizeof(content), "first module"};
    loader.module[1] = (struct load_module){content, 0, ""};
    loader.module[2] = (struct load_module){content, 1, "third"};
    assert_int_equal(load_image(&loader, LOAD_RECOGNISED), E_OK);
    check_info(loader.state.gpr[RBX]);
    assert_true(get32(loader.state.gpr[RBX]) & BIT(3));
    assert_int_equal(get32(loader.state.gpr[RBX] + 20), 3);
    list = get32(loader.state.gpr[RBX] + 24);
    for (unsigned i = 0; i < 3; i++, list += 16) {
        uint32_t start = get32(list);

        assert_true(is_aligned(start, PAGE_SIZE));
        assert_true(start >= 0x105000 || start + loader.module[i].size <= 0x102000);
        assert_int_equal(get32(list + 4) - start, loader.module[i].size);
        assert_string_equal((char *)memory + get32(list + 8), loader.module[i].cmdline);
        assert_memory_equal(memory + start, content, loader.module[i].size);
    }
    free(image);
}

static void module_without_room(void **state)
{
    uint8_t *image = make_elf(false, 3), *large = calloc(1, 2 * MiB);
    struct loader loader = loader_for(image, ELF_BYTES);

    (void)state;
    assert_non_null(large);
    loader.modules = 1;
    loader.module[0] = (struct load_module){large, 2 * MiB, "large"};
    expect_refusal(&loader, E_NOMEM, "no room for a module");
    free(large);
    free(image);
}

/* However long: they get the pages that they take. */
static void long_module_strings(void **state)
{
    uint8_t *image = make_elf(false, 3), byte = 0;
    char *text = malloc(5000);
    struct loader loader = loader_for(image, ELF_BYTES);
    uint64_t list;

    (void)state;
    assert_non_null(text);
    memset(text, 'x', 4999);
    text[4999] = '\0';
    loader.modules = 1;
    loader.module[0] = (struct load_module){&byte, 1, text};
    assert_int_equal(load_image(&loader, LOAD_RECOGNISED), E_OK);
    list = get32(loader.state.gpr[RBX] + 24);
    assert_string_equal((char *)memory + get32(list + 8), text);
    free(text);
    free(image);
}

static void header_flags(void **state)
{
    static const struct {
        uint32_t flags;
        int error;
        const char *fragment;
    } cases[] = {
        {0, E_OK, ""},
        {3, E_OK, ""},
        {0xfffe0003, E_OK, ""}, /* unknown, but not required */
        {7, E_UNSUPPORTED, "a `bare` guest has no screen"},
        {0x8, E_UNSUPPORTED, "0x8"},
        {0x8001, E_UNSUPPORTED, "0x8000"},
    };

    (void)state;
    for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
        uint8_t *image = make_elf(false, cases[i].flags);
        struct loader loader = loader_for(image, ELF_BYTES);

        assert_int_equal(load_image(&loader, LOAD_RECOGNISED), cases[i].error);
        assert_non_null(strstr(why, cases[i].fragment));
        free(image);
    }
}

static void header_place(void **state)
{
    uint8_t *image = calloc(1, 16 * KiB);
    struct loader loader;

    (void)state;
    assert_non_null(image);
    assert_int_not_equal(multiboot_recognise(image, 16 * KiB, why, sizeof(why)), LOAD_YES);
    put_header(image + 8192 - 12, 3);
    assert_int_equal(multiboot_recognise(image, 16 * KiB, why, sizeof(why)), LOAD_YES);
    assert_int_not_equal(multiboot_recognise(image, 8191, why, sizeof(why)),
                         LOAD_YES); /* cut off with the file */
    memset(image, 0, 16 * KiB);
    put_header(image + 8192 - 8, 3); /* not all of it within 8 KiB */
    assert_int_not_equal(multiboot_recognise(image, 16 * KiB, why, sizeof(why)), LOAD_YES);
    loader = loader_for(image, 16 * KiB);
    expect_refusal(&loader, E_FORMAT, "0x1ff8 lies beyond the first 8 KiB: link with ld -n");
    memset(image, 0, 16 * KiB);
    memcpy(image, "\177ELF", 4);
    loader = loader_for(image, 16 * KiB);
    expect_refusal(&loader, E_FORMAT, "an ELF file without a Multiboot header");
    memset(image, 0, 16 * KiB);
    put_header(image + 2, 3); /* not 4-aligned */
    assert_int_not_equal(multiboot_recognise(image, 16 * KiB, why, sizeof(why)), LOAD_YES);

    put_header(image + 0x40, 3);
    image[0x48] ^= 1;
    loader = loader_for(image, 16 * KiB);
    expect_refusal(&loader, E_FORMAT,
                   "0x40 has a wrong checksum: magic, flags and checksum must add up to 0");
    /* A right one behind a wrong one counts. */
    put_header(image + 0x80, 3);
    loader = loader_for(image, 16 * KiB);
    expect_refusal(&loader, E_FORMAT, "not an ELF image");
    free(image);
}

static void elf_refusals(void **state)
{
    struct {
        unsigned at;
        uint32_t value;
        int error;
        const char *fragment;
    } cases[] = {
        {24, 0xc0103000 + 0x10000, E_FORMAT, "entry point 0xc0113000 lies in no segment"},
        {52 + 12, 0xa0000, E_RANGE, "lies outside the guest's memory: link it from 1M up"},
        {52 + 12, 0x9ff80, E_RANGE, "lies outside"},
        {52 + 12, 0x3fffff, E_RANGE, "give more by mem=, or link it lower"},
        {52 + 32 + 12, 0x100080, E_EXIST, "ELF segment 1 at 0x100080..0x10307f overlaps"},
        {52 + 32 + 20, 0x400000, E_RANGE, "ELF segment 1"},
        {52 + 16, 0x101, E_FORMAT, "(program header 0)"},
    };

    (void)state;
    for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
        uint8_t *image = make_elf(false, 3);
        struct loader loader = loader_for(image, ELF_BYTES);

        elf_put(image + cases[i].at, 4, cases[i].value);
        expect_refusal(&loader, cases[i].error, cases[i].fragment);
        free(image);
    }
}

/* For addresses that the array does not reach. */
static int place_nowhere(void *ctx, uint64_t at, const void *from, uint64_t size)
{
    (void)ctx;
    (void)at;
    (void)from;
    (void)size;
    return E_OK;
}

static void entry_above_4g(void **state)
{
    uint8_t image[ELF_BYTES] = {0};
    static const struct elf_part part = {1, 5, 0x200, 5 * GiB, 5 * GiB, 0x100, 0x100};
    struct loader loader;

    (void)state;
    elf_image(image, true, 5 * GiB, &part, 1);
    put_header(image + 0x204, 3);
    loader = loader_for(image, sizeof(image));
    loader.region[loader.regions++] = (struct load_region){4 * GiB, 4 * GiB, true};
    loader.place = place_nowhere;
    expect_refusal(&loader, E_RANGE, "cannot be reached in 32-bit mode");
}

/* --- the address fields --- */

struct addresses {
    uint32_t header, load, load_end, bss_end, entry;
};

static uint8_t *make_raw(uint64_t size, uint64_t header_at, struct addresses a)
{
    uint8_t *image = malloc(size);

    assert_non_null(image);
    memset(image, 0x33, size);
    put_header(image + header_at, 0x10003);
    elf_put(image + header_at + 12, 4, a.header);
    elf_put(image + header_at + 16, 4, a.load);
    elf_put(image + header_at + 20, 4, a.load_end);
    elf_put(image + header_at + 24, 4, a.bss_end);
    elf_put(image + header_at + 28, 4, a.entry);
    return image;
}

static void by_addresses(void **state)
{
    uint8_t *image = make_raw(0x800, 0x110,
                              (struct addresses){0x100010, 0x100000, 0x100600, 0x101000, 0x100040});
    struct loader loader = loader_for(image, 0x800);

    (void)state;
    if (load_image(&loader, LOAD_RECOGNISED) != E_OK)
        fail_msg("refused: %s", why);
    /* The header is 0x10 behind the load address and 0x110 in the file: the text begins at 0x100.
     */
    assert_memory_equal(memory + 0x100000, image + 0x100, 0x600);
    for (unsigned i = 0x100600; i < 0x101000; i++)
        assert_int_equal(memory[i], 0);
    assert_int_equal(memory[0x101000], UNTOUCHED);
    assert_int_equal(loader.state.rip, 0x100040);
    check_machine_state(&loader.state);
    check_info(loader.state.gpr[RBX]);
    free(image);
}

/* No load end: all of the file; no bss end: no bss. */
static void by_addresses_open_ended(void **state)
{
    uint8_t *image = make_raw(0x800, 0, (struct addresses){0x200000, 0x200000, 0, 0, 0x200020});
    struct loader loader = loader_for(image, 0x800);

    (void)state;
    assert_int_equal(load_image(&loader, LOAD_RECOGNISED), E_OK);
    assert_memory_equal(memory + 0x200000, image, 0x800);
    assert_int_equal(memory[0x200800], UNTOUCHED);
    free(image);
}

static void by_addresses_refused(void **state)
{
    static const struct {
        struct addresses a;
        int error;
        const char *fragment;
    } cases[] = {
        {{0x100000, 0x100010, 0, 0, 0x100020}, E_FORMAT, "before its file"},
        {{0x100000, 0x0ffefc, 0, 0, 0x100020}, E_FORMAT, "before its file"},
        {{0x100000, 0x100000, 0x0ff000, 0, 0x100020}, E_FORMAT, "load end lies before"},
        {{0x100000, 0x100000, 0x100701, 0, 0x100020}, E_TRUNC, "ends before"},
        {{0x100000, 0x100000, 0x100600, 0x100500, 0x100020}, E_FORMAT, "bss ends before"},
        {{0x0b0000, 0x0b0000, 0, 0, 0x0b0020}, E_RANGE, "lies outside"},
        {{0x100000, 0x100000, 0x100600, 0xfffff000, 0x100020}, E_RANGE, "lies outside"},
    };

    (void)state;
    for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
        uint8_t *image = make_raw(0x800, 0x100, cases[i].a);
        struct loader loader = loader_for(image, 0x800);

        expect_refusal(&loader, cases[i].error, cases[i].fragment);
        free(image);
    }
}

static void address_fields_cut_off(void **state)
{
    uint8_t *image = make_raw(0x20, 0, (struct addresses){MiB, MiB, 0, 0, MiB});
    struct loader loader = loader_for(image, 0x1c);

    (void)state;
    expect_refusal(&loader, E_TRUNC, "cut off");
    free(image);
}

/* --- flat images --- */

static void flat_is_entered(void **state)
{
    uint8_t *image = calloc(1, 1024);
    struct loader loader = loader_for(image, 1024);
    const struct vcpu_state *cpu = &loader.state;

    (void)state;
    assert_non_null(image);
    image[0] = 0xf4;
    image[1023] = 0x99;
    image[510] = 0x55;
    image[511] = 0xaa;
    assert_int_equal(load_image(&loader, LOAD_RECOGNISED), E_OK);
    assert_string_equal(loader.kind, "flat 16-bit");
    assert_memory_equal(memory + 0x7c00, image, 1024);
    assert_int_equal(cpu->rip, 0x7c00);
    assert_int_equal(cpu->gpr[RDX] & 0xff, 0x80);
    assert_int_equal(cpu->cr0 & BIT(0), 0);
    for (unsigned i = SEG_ES; i <= SEG_GS; i++) {
        assert_int_equal(cpu->segment[i].base, cpu->segment[i].selector * 16u);
        assert_int_equal(cpu->segment[i].limit, 0xffff);
    }
    /* Each vector leads to an IRET. */
    for (unsigned vector = 0; vector < 256; vector++) {
        uint32_t far = get32(vector * 4);
        assert_int_equal(memory[(far >> 16) * 16 + (far & 0xffff)], 0xcf);
    }
    free(image);
}

static void flat_refusals(void **state)
{
    uint8_t *image = calloc(1, 0x78400 + 1);
    struct loader loader = loader_for(image, 600);

    (void)state;
    assert_non_null(image);
    expect_refusal(&loader, E_FORMAT, "no boot signature");
    assert_int_equal(load_image(&loader, LOAD_AS_FLAT), E_OK); /* the option makes it so */
    image[510] = 0x55;
    image[511] = 0xaa;
    loader = loader_for(image, 511);
    expect_refusal(&loader, E_FORMAT, "no boot signature");
    loader = loader_for(image, 0x78400 + 1);
    expect_refusal(&loader, E_RANGE, "does not fit");
    loader = loader_for(image, 0x78400);
    assert_int_equal(load_image(&loader, LOAD_RECOGNISED), E_OK);
    loader = loader_for(image, 512);
    loader.modules = 1;
    expect_refusal(&loader, E_UNSUPPORTED, "mods=");
    loader = loader_for(image, 0);
    expect_refusal(&loader, E_TRUNC, "empty");
    loader = loader_for(image, 512);
    loader.regions = 0;
    expect_refusal(&loader, E_RANGE, "outside the guest's memory");
    free(image);
}

/* --- broken images of every sort --- */

static void truncation(void **state)
{
    (void)state;
    for (unsigned kind = 0; kind < 3; kind++) {
        uint8_t *whole = kind < 2 ? make_elf(kind == 1, 3)
                                  : make_raw(ELF_BYTES, 0x200,
                                             (struct addresses){0x100200, 0x100000,
                                                                0x100000 + ELF_BYTES, 0, 0x100100});

        for (uint64_t size = 0; size < ELF_BYTES; size++) {
            uint8_t *part = malloc(size != 0 ? size : 1);
            struct loader loader;

            assert_non_null(part);
            memcpy(part, whole, size);
            loader = loader_for(part, size);
            assert_int_not_equal(load_image(&loader, LOAD_RECOGNISED), E_OK);
            assert_true(why[0] != '\0');
            free(part);
        }
        free(whole);
    }
}

static void mutation(void **state)
{
    struct random random = {11};

    (void)state;
    for (unsigned round = 0; round < 2000; round++) {
        uint8_t *image =
            round % 3 < 2 ? make_elf(round % 3 == 1, 3)
                          : make_raw(ELF_BYTES, 0x200,
                                     (struct addresses){0x100200, 0x100000, 0, 0x108000, 0x100100});
        struct loader loader = loader_for(image, ELF_BYTES);

        for (unsigned n = 1 + (unsigned)random_below(&random, 6); n > 0; n--)
            image[random_below(&random, 0x220)] = (uint8_t)random_next(&random);
        if (load_image(&loader, round & 64 ? LOAD_AS_FLAT : LOAD_RECOGNISED) != E_OK)
            assert_true(why[0] != '\0');
        for (unsigned i = 0xa0000; i < MiB; i++) {
            if (memory[i] != UNTOUCHED)
                fail_msg("round %u wrote into the hole at 0x%x", round, i);
        }
        free(image);
    }
}

/* load_find() against a search byte by byte (page by page). */
static void finding_room(void **state)
{
    struct random random = {5};

    (void)state;
    for (unsigned round = 0; round < 2000; round++) {
        struct loader loader = loader_for(NULL, 0);
        bool used[MEMORY / PAGE_SIZE] = {false};
        uint64_t pages = 1 + random_below(&random, 300), found = UINT64_MAX, expected = UINT64_MAX;

        loader.regions = 3;
        loader.used_count = (unsigned)random_below(&random, LOAD_RANGES);
        for (unsigned i = 0; i < loader.used_count; i++) {
            uint64_t first = random_below(&random, MEMORY / PAGE_SIZE);
            uint64_t last = first + random_below(&random, 60);

            if (last >= MEMORY / PAGE_SIZE)
                last = MEMORY / PAGE_SIZE - 1;
            loader.used[i] =
                (struct load_range){first * PAGE_SIZE, last * PAGE_SIZE + PAGE_SIZE - 1};
            for (uint64_t page = first; page <= last; page++)
                used[page] = true;
        }
        for (uint64_t page = 0; page < MEMORY / PAGE_SIZE; page++) {
            uint64_t at = page * PAGE_SIZE;
            if (at >= 3 * MiB || (at >= 0xa0000 && at < MiB))
                used[page] = true;
        }
        for (uint64_t page = 0; expected == UINT64_MAX && page + pages <= MEMORY / PAGE_SIZE;
             page++) {
            uint64_t run = 0;
            while (run < pages && !used[page + run])
                run++;
            if (run == pages)
                expected = page * PAGE_SIZE;
        }
        if (load_find(&loader, pages * PAGE_SIZE, PAGE_SIZE, 0, UINT64_MAX, &found) != E_OK)
            found = UINT64_MAX;
        assert_int_equal(found, expected);
    }
}

/* A kernel that looks its own symbols up gets as many section headers as linkers write, or none. */
static void section_headers(void **state)
{
    struct elf elf = {.section_count = 512, .section_size = 40, .section_names = 3};

    (void)state;
    assert_int_equal(load_sections_of(&elf).count, 512);
    assert_int_equal(load_sections_of(&elf).size, 40);
    assert_int_equal(load_sections_of(&elf).names, 3);
    elf.section_count = 513;
    assert_int_equal(load_sections_of(&elf).count, 0);
    elf.section_count = 0;
    assert_int_equal(load_sections_of(&elf).size, 0);
}

/* What is placed lies in memory from its first byte to its last, and as many parts are kept as
 * there is room to note. */
static void placing(void **state)
{
    static const uint8_t bytes[16];
    struct loader loader = loader_for(NULL, 0);

    (void)state;
    assert_int_equal(load_place(&loader, MiB + 0x1000, bytes, 16, UINT64_MAX - 0xfff, "a part"),
                     E_RANGE);
    assert_non_null(strstr(why, "a virtual address?"));
    assert_int_equal(load_place(&loader, 0x9fff0, bytes, 16, 17, "a part"), E_RANGE);
    /* Regions may touch: a part may lie in two. */
    assert_int_equal(load_place(&loader, 3 * MiB - 8, bytes, 16, 16, "a part"), E_OK);
    assert_int_equal(load_place(&loader, 4 * MiB - 8, bytes, 8, 9, "a part"), E_RANGE);
    for (unsigned i = 1; i < LOAD_PARTS; i++)
        assert_int_equal(load_place(&loader, MiB + i * 64, bytes, 16, 16, "a part"), E_OK);
    assert_int_equal(loader.used_count, LOAD_PARTS);
    assert_int_equal(load_place(&loader, 2 * MiB, bytes, 16, 16, "a part"), E_FULL);
    assert_non_null(strstr(why, "more than 96 parts"));
    assert_int_equal(loader.used_count, LOAD_PARTS);
    assert_int_equal(loader.regions, 3); /* which lie behind them */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(placing),
        cmocka_unit_test(section_headers),
        cmocka_unit_test(elf_both_classes),
        cmocka_unit_test(modules),
        cmocka_unit_test(module_without_room),
        cmocka_unit_test(long_module_strings),
        cmocka_unit_test(header_flags),
        cmocka_unit_test(header_place),
        cmocka_unit_test(elf_refusals),
        cmocka_unit_test(entry_above_4g),
        cmocka_unit_test(by_addresses),
        cmocka_unit_test(by_addresses_open_ended),
        cmocka_unit_test(by_addresses_refused),
        cmocka_unit_test(address_fields_cut_off),
        cmocka_unit_test(flat_is_entered),
        cmocka_unit_test(flat_refusals),
        cmocka_unit_test(truncation),
        cmocka_unit_test(mutation),
        cmocka_unit_test(finding_room),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
