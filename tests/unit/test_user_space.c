/*
 * Loading ring-3 programs, without a CPU to run them: what is where afterwards, what is refused and
 * why, that every failure gives everything back, and that damaged images do no harm.
 */
#include "arch/x86_64/user_space.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "arch/x86_64/mm/layout.h"
#include "mm/frames/buddy.h"
#include "mm/frames/scrub.h"
#include "tests/unit/random.h"
#include "tests/unit/buddy_env.h"

#define ARENA_SIZE (64 * MiB)
#define PROGRAM OWNER_FIRST_USER
#define PF_X 1u
#define PF_W 2u
#define PF_R 4u

static uint8_t *arena;
static struct table kernel;
static struct user_space space;

/* ---- The machine -------------------------------------------------------------------------------
 */

static const struct user_space_setup setup = {&kernel, &buddy_env, PROGRAM, 3};

static int start(void **state)
{
    struct table_caps caps = {.maxphyaddr = 40,
                              .leaf_top = 3,
                              .nx = true,
                              .accessed_dirty = true,
                              .global = true,
                              .mem_types = 1u << MEM_WB};
    uint64_t metadata = align_up(buddy_metadata_size(ARENA_SIZE), 2 * MiB);

    (void)state;
    arena = aligned_alloc(2 * MiB, ARENA_SIZE);
    memset(arena, 0xcc, ARENA_SIZE);
    direct_base = (uint64_t)(uintptr_t)arena;
    assert_int_equal(buddy_init(arena, metadata, ARENA_SIZE), E_OK);
    poison_start();
    assert_int_equal(buddy_add(hpa(metadata), ARENA_SIZE - metadata), E_OK);
    assert_int_equal(
        table_init(&kernel, &kernel_kind, &caps, &buddy_env, PURPOSE_HOST_TABLE, OWNER_HOST), E_OK);
    assert_int_equal(table_preallocate(&kernel), E_OK);
    return 0;
}

static int stop(void **state)
{
    (void)state;
    free(arena);
    return 0;
}

/* ---- Images
 * -------------------------------------------------------------------------------------- */

#define IMAGE_SIZE_MAX 65536

struct part {
    uint64_t at, memory, file;
    unsigned flags;
};

static uint8_t image[IMAGE_SIZE_MAX];

static void put(uint8_t *at, uint64_t value, unsigned bytes)
{
    for (unsigned i = 0; i < bytes; i++)
        at[i] = (uint8_t)(value >> 8 * i);
}

/* The byte that the file has for address `at`. */
static uint8_t content(uint64_t at)
{
    return (uint8_t)(at ^ at >> 8 ^ 0x5a);
}

/* An ELF64 executable of these segments; returns its size. */
static uint64_t make_image(uint64_t entry, const struct part *parts, unsigned count)
{
    uint64_t end = 64 + 56 * count;

    memset(image, 0, sizeof(image));
    memcpy(image, "\177ELF\2\1\1", 7);
    put(image + 16, 2, 2);  /* ET_EXEC */
    put(image + 18, 62, 2); /* EM_X86_64 */
    put(image + 20, 1, 4);
    put(image + 24, entry, 8);
    put(image + 32, 64, 8);
    put(image + 52, 64, 2);
    put(image + 54, 56, 2);
    put(image + 56, count, 2);
    for (unsigned i = 0; i < count; i++) {
        uint8_t *header = image + 64 + 56 * i;

        put(header, 1, 4); /* PT_LOAD */
        put(header + 4, parts[i].flags, 4);
        put(header + 8, end, 8);
        put(header + 16, parts[i].at, 8);
        put(header + 24, parts[i].at, 8);
        put(header + 32, parts[i].file, 8);
        put(header + 40, parts[i].memory, 8);
        for (uint64_t j = 0; j < parts[i].file; j++)
            image[end + j] = content(parts[i].at + j);
        end += parts[i].file;
    }
    assert_true(end <= sizeof(image));
    return end;
}

/* Text that begins and ends off a page boundary, rodata, data with a bss of several pages. */
static const struct part good[] = {
    {0x400123, 0x2345, 0x2345, PF_R | PF_X},
    {0x403000, 0x10, 0x10, PF_R},
    {0x404ff0, 0x5000, 0x20, PF_R | PF_W},
    {0x500000, 0x1000, 0, PF_W}, /* "write only": x86 has no such page */
};
#define GOOD_FRAMES (3 + 1 + 6 + 1)
#define ENTRY 0x401000

static uint64_t make_good(void)
{
    return make_image(ENTRY, good, ARRAY_SIZE(good));
}

/* ---- Tests
 * --------------------------------------------------------------------------------------- */

static unsigned rights_at(uint64_t at)
{
    struct mapping mapping;

    if (table_translate(&space.table, at, &mapping) != E_OK)
        return RIGHT_NONE;
    assert_true(mapping.attrs.rights & RIGHT_U);
    return mapping.attrs.rights & ~(unsigned)RIGHT_U;
}

static void test_everything_is_in_its_place(void **state)
{
    const char *why = NULL;
    uint64_t size = make_good();
    uint64_t before = buddy_owner_frames(OWNER_HOST);
    uint8_t byte;

    (void)state;
    assert_int_equal(user_space_load(&space, &setup, image, size, &why), E_OK);
    memset(image, 0, sizeof(image)); /* it is not needed any more */
    assert_int_equal(space.entry, ENTRY);
    assert_int_equal(space.table.tag, 3);
    assert_int_equal(buddy_owner_frames(PROGRAM),
                     GOOD_FRAMES + USER_STACK_SIZE / PAGE_SIZE + space.table.table_frames);

    for (unsigned i = 0; i < ARRAY_SIZE(good); i++) {
        unsigned rights =
            RIGHT_R | (good[i].flags & PF_W ? RIGHT_W : 0u) | (good[i].flags & PF_X ? RIGHT_X : 0u);
        uint64_t first = align_down(good[i].at, PAGE_SIZE);
        uint64_t end = align_up(good[i].at + good[i].memory, PAGE_SIZE);

        for (uint64_t at = first; at < end; at++) {
            bool in_file = at >= good[i].at && at < good[i].at + good[i].file;

            if (at % PAGE_SIZE == 0)
                assert_int_equal(rights_at(at), rights);
            assert_int_equal(user_space_read(&space, at, &byte, 1), 1);
            assert_int_equal(byte, in_file ? content(at) : 0);
        }
        assert_int_equal(rights_at(end), i == 0   ? RIGHT_R
                                         : i == 1 ? RIGHT_RW
                                                  : RIGHT_NONE); /* the next segment, or nothing */
    }

    assert_int_equal(space.stack_top % 16, 0);
    for (uint64_t at = space.stack_top - USER_STACK_SIZE; at < space.stack_top; at += PAGE_SIZE)
        assert_int_equal(rights_at(at), RIGHT_RW);
    assert_int_equal(rights_at(space.stack_top - USER_STACK_SIZE - 1), RIGHT_NONE);

    /* The upper half is the kernel's, entry by entry. */
    assert_memory_equal((uint64_t *)direct(space.table.root) + 256,
                        (uint64_t *)direct(kernel.root) + 256, 256 * sizeof(uint64_t));
    user_space_destroy(&space);
    assert_int_equal(buddy_owner_frames(PROGRAM), 0);
    assert_int_equal(buddy_owner_frames(OWNER_HOST), before);
}

static void test_reading_stops_where_the_program_may_not_read(void **state)
{
    const char *why = NULL;
    uint64_t size = make_good();
    uint8_t bytes[0x8000];

    (void)state;
    assert_int_equal(user_space_load(&space, &setup, image, size, &why), E_OK);
    /* Across pages, up to the first absent one. */
    assert_int_equal(user_space_read(&space, 0x404ff8, bytes, sizeof(bytes)), 0x40a000 - 0x404ff8);
    assert_int_equal(bytes[0], content(0x404ff8));
    bytes[16] = 0x77;
    assert_int_equal(user_space_read(&space, 0x404ff8, bytes, 16), 16);
    assert_int_equal(bytes[15], content(0x405007));
    assert_int_equal(bytes[16], 0x77);
    assert_int_equal(user_space_read(&space, 0x3ff000, bytes, 1), 0);
    assert_int_equal(user_space_read(&space, 0, bytes, 1), 0);
    assert_int_equal(user_space_read(&space, space.stack_top - 8, bytes, 16), 8);
    assert_int_equal(user_space_read(&space, UPPER_FIRST, bytes, 16), 0);
    assert_int_equal(user_space_read(&space, IMAGE_BASE, bytes, 16), 0);
    assert_int_equal(user_space_read(&space, UINT64_MAX - 4, bytes, 16), 0);
    user_space_destroy(&space);
}

static void refused(uint64_t size, int error, const char *fragment)
{
    const char *why = "";

    assert_int_equal(user_space_load(&space, &setup, image, size, &why), error);
    if (strstr(why, fragment) == NULL)
        fail_msg("expected \"%s\", it says \"%s\"", fragment, why);
    assert_int_equal(buddy_owner_frames(PROGRAM), 0);
}

static void test_what_is_refused(void **state)
{
    static const struct {
        struct part part;
        int error;
        const char *fragment;
    } parts[] = {
        {{0x400000, 0x1000, 0, PF_R | PF_W | PF_X}, E_UNSUPPORTED, "writable and executable"},
        {{0xfff, 0x10, 0, PF_R}, E_RANGE, "outside"},
        {{0, 0x2000, 0, PF_R}, E_RANGE, "outside"},
        {{0x7fffffff0000, 0x1000, 0, PF_R}, E_RANGE, "outside"},
        /* The guard below the stack, and the last byte that a segment may have. */
        {{0x7ffffffee000, 0x1000, 0, PF_R}, E_RANGE, "outside"},
        {{0x7ffffffed000, 0x1001, 0, PF_R}, E_RANGE, "outside"},
        {{0xffff800000000000, 0x1000, 0, PF_R}, E_RANGE, "outside"},
        {{0x1000000, USER_MEMORY_MAX + 1, 0, PF_R}, E_RANGE, "more than 16M"},
        {{0x401ff0, 0x10, 0, PF_R}, E_EXIST, "share a page"},
        {{UINT64_MAX - 0xff, 0x1000, 0, PF_R}, E_RANGE, "wrap"},
    };
    struct part two[2] = {good[0]};
    uint64_t size;

    (void)state;
    for (unsigned i = 0; i < ARRAY_SIZE(parts); i++) {
        two[1] = parts[i].part;
        refused(make_image(ENTRY, two, 2), parts[i].error, parts[i].fragment);
    }
    refused(make_image(0x403000, good, 4), E_FORMAT, "entry point"); /* there, not executable */
    refused(make_image(0x300000, good, 4), E_FORMAT, "entry point"); /* absent */
    refused(make_image(IMAGE_BASE, good, 4), E_FORMAT, "entry point");
    size = make_good();
    refused(size - 1, E_TRUNC, "end of the image");
    image[4] = 1; /* ELF32 */
    refused(size, E_FORMAT, "");
    refused(3, E_FORMAT, "not an ELF");
}

/* The last page that a segment may have, next to the guard. */
static void test_the_highest_segment(void **state)
{
    struct part two[2] = {good[0], {0x7ffffffed000, 0x1000, 0, PF_R}};
    const char *why = "";

    (void)state;
    assert_int_equal(user_space_load(&space, &setup, image, make_image(ENTRY, two, 2), &why), E_OK);
    assert_int_equal(rights_at(0x7ffffffed000), RIGHT_R);
    assert_int_equal(rights_at(0x7ffffffee000), RIGHT_NONE);
    assert_int_equal(rights_at(0x7ffffffef000), RIGHT_RW);
    user_space_destroy(&space);
}

static void test_failure_at_every_frame(void **state)
{
    uint64_t size = make_good();
    unsigned refusals = 0;
    int error;

    (void)state;
    for (uint64_t quota = 0;; quota++) {
        const char *why = "";

        assert_int_equal(buddy_set_quota(PROGRAM, quota), E_OK);
        error = user_space_load(&space, &setup, image, size, &why);
        if (error == E_OK)
            break;
        assert_int_equal(error, E_QUOTA);
        assert_non_null(strstr(why, "no memory"));
        assert_int_equal(buddy_owner_frames(PROGRAM), 0);
        refusals++;
    }
    assert_int_equal(refusals, buddy_owner_frames(PROGRAM));
    user_space_destroy(&space);
    assert_int_equal(buddy_owner_frames(PROGRAM), 0);
    buddy_set_quota(PROGRAM, UINT64_MAX);
}

/* Random damage to the headers: loaded or refused with a reason, and nothing is ever kept. */
static void test_damaged_images(void **state)
{
    struct random random = {11};
    unsigned loaded = 0, refusals = 0;

    (void)state;
    for (unsigned round = 0; round < 5000; round++) {
        uint64_t size = make_good();
        unsigned hits = 1 + (unsigned)random_below(&random, 4);
        const char *why = NULL;

        while (hits--) {
            uint8_t *at = &image[random_below(&random, 64 + 56 * ARRAY_SIZE(good))];

            *at = random_below(&random, 2) ? (uint8_t)random_next(&random)
                                           : *at ^ (uint8_t)(1u << random_below(&random, 8));
        }
        if (user_space_load(&space, &setup, image, size, &why) == E_OK) {
            loaded++;
            user_space_destroy(&space);
        } else {
            assert_non_null(why);
            refusals++;
        }
        assert_int_equal(buddy_owner_frames(PROGRAM), 0);
    }
    assert_true(loaded > 500 && refusals > 500);
}

static void test_the_allocator_is_whole(void **state)
{
    char why[128] = "";

    (void)state;
    buddy_drain();
    if (buddy_verify(why, sizeof(why)) != E_OK)
        fail_msg("%s", why);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_everything_is_in_its_place),
        cmocka_unit_test(test_reading_stops_where_the_program_may_not_read),
        cmocka_unit_test(test_what_is_refused),
        cmocka_unit_test(test_the_highest_segment),
        cmocka_unit_test(test_failure_at_every_frame),
        cmocka_unit_test(test_damaged_images),
        cmocka_unit_test(test_the_allocator_is_whole),
    };
    return cmocka_run_group_tests(tests, start, stop);
}
