/*
 * Images of Linux's boot protocol by their 16-bit entry: when it is taken, what the setup code
 * finds when it is entered, and each reason to refuse one.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "lib/bits.h"
#include "lib/error.h"
#include "vm/load.h"

#define MEMORY (8 * MiB)
#define SETUP_SECTS 3
#define SETUP ((1 + SETUP_SECTS) * 512)
#define CODE 5000

static uint8_t memory[MEMORY];
static uint8_t image[MiB];
static char why[160];

static int place(void *ctx, uint64_t at, const void *from, uint64_t size)
{
    (void)ctx;
    if (at >= MEMORY || size > MEMORY - at)
        return E_RANGE;
    if (from != NULL)
        memcpy(memory + at, from, size);
    else
        memset(memory + at, 0, size);
    return E_OK;
}

static struct loader loader_for(const char *cmdline)
{
    why[0] = '\0';
    memset(memory, 0xcc, sizeof(memory));
    return (struct loader){
        .bytes = image,
        .size = SETUP + CODE,
        .pc = true,
        .cmdline = cmdline,
        .region = {{0, 0xa0000, true}, {0xa0000, 0x60000, false}, {MiB, 7 * MiB, true}},
        .regions = 3,
        .place = place,
        .why = why,
        .why_size = sizeof(why),
    };
}

static void put(unsigned at, unsigned width, uint64_t value)
{
    memcpy(image + at, &value, width);
}

static uint64_t get(uint64_t at, unsigned width)
{
    uint64_t value = 0;

    memcpy(&value, memory + at, width);
    return value;
}

/* As iPXE's: protocol 2.07, loaded high, with no code for 32 bits. */
static int make_image(void **state)
{
    (void)state;
    for (unsigned i = 0; i < sizeof(image); i++)
        image[i] = (uint8_t)(i * 7);
    memset(image, 0, 0x300);
    put(0x1f1, 1, SETUP_SECTS);
    put(0x1fe, 2, 0xaa55);
    put(0x200, 2, 0x65eb);
    memcpy(image + 0x202, "HdrS", 4);
    put(0x206, 2, 0x0207);
    put(0x211, 1, 1);
    put(0x22c, 4, 0xffffffff);
    put(0x238, 4, 2047);
    return 0;
}

static struct loader load(const char *cmdline, enum load_as as)
{
    struct loader loader = loader_for(cmdline);

    if (load_image(&loader, as) != E_OK)
        fail_msg("%s", why);
    return loader;
}

static void refused(struct loader loader, enum load_as as, int error, const char *fragment)
{
    assert_int_equal(load_image(&loader, as), error);
    if (strstr(why, fragment) == NULL)
        fail_msg("\"%s\" does not mention \"%s\"", why, fragment);
}

static void the_setup_code_is_entered(void **state)
{
    struct loader loader = load("some words", LOAD_RECOGNISED);
    const struct vcpu_state *cpu = &loader.state;

    (void)state;
    assert_string_equal(loader.kind, "Linux 16-bit");
    assert_true(loader.bios);
    assert_false(loader.disk);
    assert_int_equal(cpu->cr0 & BIT(0), 0);
    assert_int_equal(cpu->rflags, 2); /* interrupts are off */
    assert_int_equal(cpu->segment[SEG_CS].selector, 0x1020);
    assert_int_equal(cpu->segment[SEG_CS].base, 0x10200);
    assert_int_equal(cpu->rip, 0);
    for (unsigned i = SEG_ES; i <= SEG_GS; i++) {
        if (i == SEG_CS)
            continue;
        assert_int_equal(cpu->segment[i].selector, 0x1000);
        assert_int_equal(cpu->segment[i].base, 0x10000);
    }
    assert_int_equal(cpu->gpr[RSP], 0xe000);
    /* The header, and what lies around it. */
    assert_int_equal(get(0x10210, 1), 0xff);
    assert_int_equal(get(0x10211, 1), 0x81);
    assert_int_equal(get(0x10214, 4), 0);
    assert_int_equal(get(0x10218, 8), 0);
    assert_int_equal(get(0x10224, 2), 0xe000 - 0x200);
    assert_string_equal((char *)memory + get(0x10228, 4), "some words");
    assert_memory_equal(memory + 0x10000, image, 0x210);
    assert_memory_equal(memory + 0x1022c, image + 0x22c, SETUP - 0x22c);
    assert_int_equal(get(0x10000 + SETUP, 8), 0);
    assert_memory_equal(memory + MiB, image + SETUP, CODE);
    /* A BIOS, and its data area. */
    assert_int_equal(get(0x10 * 4 + 2, 2), 0xf000);
    assert_int_equal(get(0xff000 + 0x10 * 16, 1), 0xe6);
    assert_int_equal(get(0x413, 2), 639);
    assert_int_equal(get(0x485, 1), 16);
}

static void when_it_is_taken(void **state)
{
    static const struct {
        unsigned version, flags, code32;
        bool by16;
    } images[] = {
        {0x0202, 1, MiB, true}, {0x0204, 1, MiB, true},  {0x0205, 1, MiB, false},
        {0x020f, 1, 0, true},   {0x020f, 1, MiB, false}, {0x020f, 0, MiB, true},
    };

    make_image(state);
    put(0x1f1, 1, 8); /* whatever a 32-bit entry is told of */
    put(0x258, 8, 2 * MiB);
    for (unsigned i = 0; i < ARRAY_SIZE(images); i++) {
        struct loader loader = loader_for("");

        put(0x206, 2, images[i].version);
        put(0x211, 1, images[i].flags);
        put(0x214, 4, images[i].code32);
        assert_int_equal(load_image(&loader, LOAD_RECOGNISED), E_OK);
        assert_int_equal(strcmp(loader.kind, "Linux 16-bit") == 0, images[i].by16);
        loader = load("", LOAD_AS_LINUX16);
        assert_string_equal(loader.kind, "Linux 16-bit");
    }
}

static void where_the_other_code_goes(void **state)
{
    (void)state;
    /* 2.10 with a preference, which it is told; moved where that is no memory. */
    put(0x206, 2, 0x020f);
    put(0x214, 4, MiB);
    put(0x230, 4, MiB);
    put(0x234, 1, 1);
    put(0x258, 8, 4 * MiB);
    put(0x260, 4, MiB);
    load("", LOAD_AS_LINUX16);
    assert_int_equal(get(0x10214, 4), 4 * MiB);
    assert_memory_equal(memory + 4 * MiB, image + SETUP, CODE);
    put(0x258, 8, 64 * MiB);
    load("", LOAD_AS_LINUX16);
    assert_int_equal(get(0x10214, 4), MiB);
    /* Before 2.05 those fields are code. */
    put(0x206, 2, 0x0203);
    put(0x230, 8, UINT64_MAX);
    load("", LOAD_AS_LINUX16);
    assert_memory_equal(memory + MiB, image + SETUP, CODE);
    assert_int_equal(get(0x10230, 8), UINT64_MAX);
}

static void a_low_image(void **state)
{
    struct loader loader;

    (void)state;
    put(0x211, 1, 0);
    loader = load("words", LOAD_RECOGNISED);
    assert_int_equal(loader.state.segment[SEG_CS].base, 0x90200);
    assert_int_equal(loader.state.segment[SEG_DS].base, 0x90000);
    assert_int_equal(loader.state.gpr[RSP], 0x9800);
    assert_string_equal((char *)memory + get(0x90228, 4), "words");
    assert_int_equal(get(0x90211, 1), 0x80);
    assert_memory_equal(memory + 0x10000, image + SETUP, CODE);
    loader = loader_for("");
    loader.size = SETUP + 0x80001;
    refused(loader, LOAD_RECOGNISED, E_RANGE, "a zImage of 0x80001 bytes does not fit into");
}

/* At the end of memory: what the image takes behind itself it does not say. */
static void modules_are_an_initrd(void **state)
{
    static uint8_t first[4097], second[10];
    struct loader loader = loader_for("");

    (void)state;
    memset(first, 1, sizeof(first));
    memset(second, 2, sizeof(second));
    loader.module[0] = (struct load_module){first, sizeof(first), "a"};
    loader.module[1] = (struct load_module){second, sizeof(second), "b"};
    loader.modules = 2;
    assert_int_equal(load_image(&loader, LOAD_RECOGNISED), E_OK);
    assert_int_equal(get(0x10218, 4), 8 * MiB - 8192);
    assert_int_equal(get(0x1021c, 4), 4100 + 10);
    assert_memory_equal(memory + 8 * MiB - 8192, first, sizeof(first));
    assert_memory_equal(memory + 8 * MiB - 8192 + 4100, second, sizeof(second));
}

static void refusals(void **state)
{
    struct loader loader = loader_for("");
    char longer[301];

    (void)state;
    loader.pc = false;
    refused(loader, LOAD_RECOGNISED, E_UNSUPPORTED, "leave `bare` out");
    loader = loader_for("");
    loader.size = SETUP;
    refused(loader, LOAD_RECOGNISED, E_TRUNC, "ends in its setup code");
    put(0x206, 2, 0x0201);
    refused(loader_for(""), LOAD_RECOGNISED, E_UNSUPPORTED, "boot protocol 2.01; 2.02 and later");
    put(0x206, 2, 0x0203); /* it takes 255 characters, without saying so */
    memset(longer, 'x', 300);
    longer[300] = '\0';
    refused(loader_for(longer), LOAD_RECOGNISED, E_RANGE, "300 characters; this kernel takes 255");
    put(0x1f1, 1, 64);
    loader = loader_for("");
    loader.size = sizeof(image);
    refused(loader, LOAD_RECOGNISED, E_RANGE, "setup code of 0x8200 bytes");
    put(0x202, 4, 0);
    refused(loader_for(""), LOAD_AS_LINUX16, E_FORMAT,
            "entry=linux16 is for images of Linux's boot protocol: no \"HdrS\"");
}

/* Every truncation, and every damaged byte of boot sector and setup header. */
static void spoilt(void **state)
{
    struct loader loader;

    (void)state;
    for (uint64_t cut = 0; cut < SETUP + 2; cut += cut < 0x300 ? 1 : 13) {
        uint8_t *part = malloc(cut != 0 ? cut : 1);

        assert_non_null(part);
        memcpy(part, image, cut);
        loader = loader_for("words");
        loader.bytes = part;
        loader.size = cut;
        assert_true(load_image(&loader, LOAD_AS_LINUX16) == E_OK || why[0] != '\0');
        free(part);
    }
    for (unsigned at = 0; at < 0x300; at++) {
        for (unsigned damage = 1; damage < 0x100; damage = damage * 5 + 1) {
            image[at] ^= (uint8_t)damage;
            loader = loader_for("words");
            assert_true(load_image(&loader, LOAD_AS_LINUX16) == E_OK || why[0] != '\0');
            image[at] ^= (uint8_t)damage;
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(the_setup_code_is_entered, make_image),
        cmocka_unit_test_setup(when_it_is_taken, make_image),
        cmocka_unit_test_setup(where_the_other_code_goes, make_image),
        cmocka_unit_test_setup(a_low_image, make_image),
        cmocka_unit_test_setup(modules_are_an_initrd, make_image),
        cmocka_unit_test_setup(refusals, make_image),
        cmocka_unit_test_setup(spoilt, make_image),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
