/*
 * Linux kernels by their boot protocol, on a plain array that plays the guest's memory: what the
 * kernel finds when it is entered, each reason to refuse one, and mutations of right ones.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "lib/bits.h"
#include "lib/error.h"
#include "tests/unit/random.h"
#include "vm/load.h"

#define MEMORY (16 * MiB)
#define SETUP_SECTS 3
#define IMAGE ((1 + SETUP_SECTS) * 512 + 5000)

static uint8_t memory[MEMORY];
static uint8_t image[IMAGE];
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
        .size = sizeof(image),
        .pc = true,
        .cmdline = cmdline,
        .region = {{0, 0xa0000, true}, {0xa0000, 0x60000, false}, {MiB, 15 * MiB, true}},
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

/* A kernel of protocol 2.15 that would like to be at 4 MiB. */
static int make_image(void **state)
{
    (void)state;
    for (unsigned i = 0; i < sizeof(image); i++)
        image[i] = (uint8_t)(i * 7);
    memset(image, 0, 0x300);
    put(0x1f1, 1, SETUP_SECTS);
    put(0x1fe, 2, 0xaa55);
    put(0x200, 2, 0x6aeb);
    memcpy(image + 0x202, "HdrS", 4);
    put(0x206, 2, 0x020f);
    put(0x211, 1, 1);
    put(0x214, 4, MiB);
    put(0x22c, 4, 0x7fffffff);
    put(0x230, 4, 2 * MiB);
    put(0x234, 1, 1);
    put(0x238, 4, 100);
    put(0x258, 8, 4 * MiB);
    put(0x260, 4, MiB);
    return 0;
}

static void expect_refusal(struct loader loader, int error, const char *fragment)
{
    assert_int_equal(load_image(&loader, LOAD_RECOGNISED), error);
    if (strstr(why, fragment) == NULL)
        fail_msg("\"%s\" does not mention \"%s\"", why, fragment);
}

static void the_kernel_is_entered(void **state)
{
    struct loader loader = loader_for("console=ttyS0 quiet");
    const struct vcpu_state *cpu = &loader.state;
    uint64_t parameters, gdt = 0;

    (void)state;
    if (load_image(&loader, LOAD_RECOGNISED) != E_OK)
        fail_msg("%s", why);
    assert_string_equal(loader.kind, "Linux bzImage");
    assert_int_equal(cpu->rip, 4 * MiB);
    assert_memory_equal(memory + 4 * MiB, image + 2048, 5000);
    assert_int_equal(cpu->cr0 & (BIT(0) | BIT(31)), BIT(0));
    assert_int_equal(cpu->rflags, 2);
    assert_int_equal(cpu->gpr[RBX] | cpu->gpr[RBP] | cpu->gpr[RDI], 0);
    assert_int_equal(cpu->segment[SEG_CS].selector, 0x10);
    for (unsigned i = SEG_ES; i <= SEG_GS; i++)
        assert_int_equal(cpu->segment[i].selector, i == SEG_CS ? 0x10 : 0x18);
    /* The GDT says of these selectors what the segments are. */
    gdt = cpu->gdt_base;
    assert_int_equal(cpu->gdt_limit, 0x1f);
    assert_int_equal(get(gdt + 0x10, 8), 0x00cf9b000000ffff);
    assert_int_equal(get(gdt + 0x18, 8), 0x00cf93000000ffff);

    parameters = cpu->gpr[RSI];
    assert_true(parameters > 0x500 && parameters < 0x9f000);
    assert_memory_equal(memory + parameters + 0x202, "HdrS", 4);
    assert_int_equal(get(parameters + 0x210, 1), 0xff);
    assert_int_equal(get(parameters + 0x214, 4), 4 * MiB);
    assert_string_equal((char *)memory + get(parameters + 0x228, 4), "console=ttyS0 quiet");
    assert_int_equal(get(parameters + 0x218, 4) | get(parameters + 0x21c, 4), 0); /* no initrd */
    assert_int_equal(get(parameters + 0x1ef, 1) | get(parameters, 4), 0);

    static const uint64_t map[][3] = {
        {0, 0x9fc00, 1}, {0x9fc00, 0x400, 2}, {0xa0000, 0x60000, 2}, {MiB, 15 * MiB, 1}};
    assert_int_equal(get(parameters + 0x1e8, 1), ARRAY_SIZE(map));
    for (unsigned i = 0; i < ARRAY_SIZE(map); i++) {
        uint64_t entry = parameters + 0x2d0 + i * 20;
        assert_int_equal(get(entry, 8), map[i][0]);
        assert_int_equal(get(entry + 8, 8), map[i][1]);
        assert_int_equal(get(entry + 16, 4), map[i][2]);
    }
}

/* As a PC's firmware leaves it. */
static void low_memory(void **state)
{
    struct loader loader = loader_for("");

    (void)state;
    assert_int_equal(load_image(&loader, LOAD_RECOGNISED), E_OK);
    for (unsigned vector = 0; vector < 256; vector++)
        assert_int_equal(memory[get(vector * 4 + 2, 2) * 16 + get(vector * 4, 2)], 0xcf);
    assert_int_equal(get(0x413, 2), 639);
    assert_int_equal(get(0x40e, 2) * 16, 0x9fc00);
    assert_int_equal(get(0x400, 2), 0x3f8);
    assert_int_equal(get(0x9fc00, 1), 1);
}

/* `bare`: none of it, and nothing that is reserved for it. */
static void low_memory_without_a_pc(void **state)
{
    struct loader loader = loader_for("");
    uint64_t entry;

    (void)state;
    loader.pc = false;
    loader.region[1] = loader.region[--loader.regions];
    assert_int_equal(load_image(&loader, LOAD_RECOGNISED), E_OK);
    assert_int_equal(get(0, 4), 0xcccccccc);
    assert_int_equal(get(0x9fc00, 4), 0xcccccccc);
    entry = loader.state.gpr[RSI] + 0x2d0;
    assert_int_equal(get(loader.state.gpr[RSI] + 0x1e8, 1), 2);
    assert_int_equal(get(entry + 8, 8), 0xa0000);
}

static void modules_are_one_initrd(void **state)
{
    struct loader loader = loader_for("");
    uint8_t first[4097], second[10];

    (void)state;
    memset(first, 1, sizeof(first));
    memset(second, 2, sizeof(second));
    loader.module[0] = (struct load_module){first, sizeof(first), "a"};
    loader.module[1] = (struct load_module){second, sizeof(second), "b"};
    loader.modules = 2;
    assert_int_equal(load_image(&loader, LOAD_RECOGNISED), E_OK);
    uint64_t parameters = loader.state.gpr[RSI], at = get(parameters + 0x218, 4);
    assert_int_equal(at % 4096, 0);
    assert_true(at >= MiB);
    assert_int_equal(get(parameters + 0x21c, 4), 4100 + 10);
    assert_memory_equal(memory + at, first, sizeof(first));
    assert_int_equal(get(at + 4097, 3), 0);
    assert_memory_equal(memory + at + 4100, second, sizeof(second));
    /* Below the kernel's limit, or not at all. */
    loader = loader_for("");
    loader.module[0] = (struct load_module){first, sizeof(first), "a"};
    loader.modules = 1;
    put(0x22c, 4, MiB + 4095);
    expect_refusal(loader, E_NOMEM, "no room below 0x100fff for an initrd of 0x1001 bytes");
}

static void where_the_kernel_goes(void **state)
{
    struct loader loader = loader_for("");

    (void)state;
    put(0x258, 8, 64 * MiB); /* beyond this memory: it can be moved */
    assert_int_equal(load_image(&loader, LOAD_RECOGNISED), E_OK);
    assert_int_equal(loader.state.rip, 2 * MiB);
    put(0x234, 1, 0);
    expect_refusal(loader_for(""), E_NOMEM, "needs 0x100000 bytes of RAM at 0x4000000; mem=66M");
    put(0x234, 1, 1);
    put(0x260, 4, 16 * MiB);
    expect_refusal(loader_for(""), E_NOMEM, "needs 0x1000000 bytes");
    /* Before 2.10 there is no preference. */
    put(0x206, 2, 0x0205);
    loader = loader_for("");
    assert_int_equal(load_image(&loader, LOAD_RECOGNISED), E_OK);
    assert_int_equal(loader.state.rip, 2 * MiB);
    put(0x234, 1, 0);
    loader = loader_for("");
    assert_int_equal(load_image(&loader, LOAD_RECOGNISED), E_OK);
    assert_int_equal(loader.state.rip, MiB);
}

/* 0 sectors of setup code stand for 4. */
static void setup_sectors_by_default(void **state)
{
    (void)state;
    put(0x1f1, 1, 0);
    struct loader loader = loader_for("");
    assert_int_equal(load_image(&loader, LOAD_RECOGNISED), E_OK);
    assert_memory_equal(memory + 4 * MiB, image + 5 * 512, sizeof(image) - 5 * 512);
}

static void refusals(void **state)
{
    char longer[102];

    (void)state;
    memset(longer, 'x', 101);
    longer[101] = '\0';
    expect_refusal(loader_for(longer), E_RANGE, "101 characters; this kernel takes 100");
    put(0x230, 4, 3000);
    expect_refusal(loader_for(""), E_FORMAT, "alignment 0xbb8 is no power of two");
    put(0x230, 4, 0);
    expect_refusal(loader_for(""), E_FORMAT, "no power of two");
    put(0x234, 1, 0); /* one that cannot be moved has none */
    struct loader fixed = loader_for("");
    assert_int_equal(load_image(&fixed, LOAD_RECOGNISED), E_OK);
    assert_int_equal(fixed.state.rip, 4 * MiB);
    put(0x234, 1, 1);
    put(0x230, 4, 2 * MiB);
    put(0x1f1, 1, 200);
    expect_refusal(loader_for(""), E_TRUNC, "ends in its setup code");
    struct loader loader = loader_for("");
    loader.size = 0x300;
    expect_refusal(loader, E_TRUNC, "ends in its setup code");
    put(0x1f1, 1, 1); /* no kernel is smaller than the page of its parameters */
    loader.size = 4095;
    expect_refusal(loader, E_TRUNC, "ends in its setup code");
    loader = loader_for("");
    loader.regions = 0;
    put(0x1f1, 1, SETUP_SECTS);
    expect_refusal(loader, E_NOMEM, "needs 0x100000 bytes of RAM at 0x400000");
    loader = loader_for("");
    put(0x1fe, 2, 0);
    expect_refusal(loader, E_FORMAT, "without its boot signature 55 AA at 0x1fe");
}

/* Every truncation, and every damaged byte of boot sector and setup header. */
static void spoilt(void **state)
{
    struct loader loader;

    (void)state;
    for (uint64_t cut = 0; cut < sizeof(image); cut += cut < 0x300 ? 1 : 13) {
        uint8_t *part = malloc(cut != 0 ? cut : 1);

        assert_non_null(part);
        memcpy(part, image, cut);
        loader = loader_for("words");
        loader.bytes = part;
        loader.size = cut;
        assert_true(load_image(&loader, LOAD_RECOGNISED) == E_OK || why[0] != '\0');
        free(part);
    }
    for (unsigned at = 0; at < 0x300; at++) {
        for (unsigned damage = 1; damage < 0x100; damage = damage * 3 + 1) {
            image[at] ^= (uint8_t)damage;
            loader = loader_for("words");
            assert_true(load_image(&loader, LOAD_RECOGNISED) == E_OK || why[0] != '\0');
            image[at] ^= (uint8_t)damage;
        }
    }
}

/* Whatever the header says: loaded within memory, or refused with a reason. */
static void mutation(void **state)
{
    struct random random = {12};

    for (unsigned round = 0; round < 3000; round++) {
        struct loader loader = loader_for("words");
        make_image(state);
        for (unsigned n = 1 + (unsigned)random_below(&random, 6); n > 0; n--)
            image[0x1f1 + random_below(&random, 0x80)] = (uint8_t)random_next(&random);
        if (load_image(&loader, LOAD_RECOGNISED) != E_OK)
            assert_true(why[0] != '\0');
        else
            assert_int_equal(get(0xa0000, 4), 0xcccccccc);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(the_kernel_is_entered, make_image),
        cmocka_unit_test_setup(low_memory, make_image),
        cmocka_unit_test_setup(low_memory_without_a_pc, make_image),
        cmocka_unit_test_setup(modules_are_one_initrd, make_image),
        cmocka_unit_test_setup(where_the_kernel_goes, make_image),
        cmocka_unit_test_setup(setup_sectors_by_default, make_image),
        cmocka_unit_test_setup(refusals, make_image),
        cmocka_unit_test_setup(spoilt, make_image),
        cmocka_unit_test_setup(mutation, make_image),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
