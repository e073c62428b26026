/*
 * The ELF reader: right images of both classes, each way of being wrong with its own error, and
 * truncation and mutation of a right one. Images live in blocks of exactly their size, so that the
 * address sanitizer sees a read of one byte too many.
 */
#include "vm/elf.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "lib/bits.h"
#include "mm/paging/attrs.h"
#include "tests/unit/elf_image.h"
#include "tests/unit/random.h"

#define IMAGE_SIZE 512

static const struct elf_part two_parts[] = {
    {1, 5, 0x100, 0xc0100000, 0x100000, 0x80, 0x80},
    {1, 6, 0x180, 0xc0101000, 0x101000, 0x40, 0x1000},
};

static uint8_t *make(bool is64)
{
    uint8_t *image = calloc(1, IMAGE_SIZE);

    assert_non_null(image);
    elf_image(image, is64, 0xc0100010, two_parts, 2);
    memset(image + 0x100, 0xab, 0xc0);
    return image;
}

static void right_image(bool is64)
{
    uint8_t *image = make(is64);
    struct elf elf;
    struct elf_segment segment;
    const char *why = NULL;

    assert_true(elf_recognise(image, IMAGE_SIZE));
    assert_int_equal(elf_parse(image, IMAGE_SIZE, &elf, &why), E_OK);
    assert_int_equal(elf.is64, is64);
    assert_int_equal(elf.entry, 0xc0100010);
    assert_int_equal(elf.segments, 2);
    assert_int_equal(elf_segment(&elf, 0, &segment, &why), E_OK);
    assert_true(segment.load);
    assert_int_equal(segment.rights, RIGHT_R | RIGHT_X);
    assert_int_equal(segment.virtual, 0xc0100000);
    assert_int_equal(segment.physical, 0x100000);
    assert_int_equal(segment.file_size, 0x80);
    assert_int_equal(segment.memory_size, 0x80);
    assert_ptr_equal(segment.bytes, image + 0x100);
    assert_int_equal(elf_segment(&elf, 1, &segment, &why), E_OK);
    assert_int_equal(segment.rights, RIGHT_R | RIGHT_W);
    assert_int_equal(segment.file_size, 0x40);
    assert_int_equal(segment.memory_size, 0x1000);
    assert_int_equal(elf_segment(&elf, 2, &segment, &why), E_INVAL);
    free(image);
}

static void both_classes(void **state)
{
    (void)state;
    right_image(false);
    right_image(true);
}

/* Parsing and every segment: the first error. */
static int read_all(const uint8_t *image, uint64_t size, const char **why)
{
    struct elf elf;
    struct elf_segment segment;
    int error = elf_parse(image, size, &elf, why);

    for (unsigned i = 0; error == E_OK && i < elf.segments; i++) {
        error = elf_segment(&elf, i, &segment, why);
        if (error == E_OK && segment.load && segment.file_size != 0) {
            volatile uint8_t last = segment.bytes[segment.file_size - 1];
            (void)last;
        }
    }
    return error;
}

struct spoil {
    unsigned at, bytes;
    uint64_t value;
    int error;
    const char *fragment;
};

static void each_way_of_being_wrong(void **state)
{
    static const struct spoil spoils[] = {
        {0, 1, 0x7e, E_FORMAT, "not an ELF"},
        {4, 1, 3, E_FORMAT, "class"},
        {5, 1, 2, E_UNSUPPORTED, "little-endian"},
        {6, 1, 0, E_FORMAT, "version"},
        {16, 2, 1, E_UNSUPPORTED, "no executable"},
        {16, 2, 3, E_UNSUPPORTED, "position-independent"},
        {18, 2, 40, E_UNSUPPORTED, "another processor"},
        {44, 2, 0, E_FORMAT, "no program headers"},
        {44, 2, 65, E_UNSUPPORTED, "more than 64"},
        {42, 2, 31, E_FORMAT, "smaller"},
        {28, 4, 500, E_TRUNC, "beyond the end"},
        {28, 4, 0xffffffff, E_TRUNC, "beyond the end"},
        {52 + 4, 4, 0x190, E_TRUNC, "bytes lie beyond"},
        {52 + 4, 4, 0xfffffff0, E_TRUNC, "bytes lie beyond"},
        {52 + 16, 4, 0x81, E_FORMAT, "more bytes in the file"},
        {52 + 20, 4, 0xffffffff, E_RANGE, "wrap"},
        {52 + 12, 4, 0xffffffa0, E_RANGE, "wrap"},
    };

    (void)state;
    for (unsigned i = 0; i < ARRAY_SIZE(spoils); i++) {
        uint8_t *image = make(false);
        uint64_t size = 0x1c0; /* ends with the second segment's bytes */
        const char *why = "";

        elf_put(image + spoils[i].at, spoils[i].bytes, spoils[i].value);
        assert_int_equal(read_all(image, size, &why), spoils[i].error);
        assert_non_null(strstr(why, spoils[i].fragment));
        free(image);
    }
}

/* By name: what comes behind would be read from behind the block. */
static void headers_that_are_cut_off(void **state)
{
    static const struct {
        bool is64;
        unsigned size;
        const char *said;
    } all[] = {{false, 4, "identification"},   {false, 15, "identification"},
               {false, 16, "ELF header"},      {false, 51, "ELF header"},
               {true, 16, "ELF header"},       {true, 63, "ELF header"},
               {false, 52, "program headers"}, {true, 64, "program headers"}};

    (void)state;
    for (unsigned i = 0; i < ARRAY_SIZE(all); i++) {
        uint8_t *image = make(all[i].is64), *cut = malloc(all[i].size);
        struct elf elf;
        const char *why = "";

        memcpy(cut, image, all[i].size);
        assert_int_equal(elf_parse(cut, all[i].size, &elf, &why), E_TRUNC);
        assert_non_null(strstr(why, all[i].said));
        assert_non_null(strstr(why, "cut off: is the file whole?")
                            ?: strstr(why, "beyond the end"));
        free(cut);
        free(image);
    }
}

/* A segment of notes of `size` bytes at 0x100, in which the first note is 12 + 4 + 8 bytes long and
 * the second has a name of `name` and a descriptor of `descriptor` bytes. */
static unsigned count_notes(uint64_t size, uint32_t name, uint32_t descriptor)
{
    const struct elf_part part = {4, 4, 0x100, 0, 0, size, size};
    uint8_t *image = calloc(1, 0x100 + size);
    struct elf elf;
    struct elf_notes notes;
    struct elf_note note;
    unsigned count = 0;

    elf_image(image, true, 0, &part, 1);
    elf_put(image + 0x100, 4, 4);
    elf_put(image + 0x104, 4, 8);
    elf_put(image + 0x108, 4, 77);
    if (size >= 36) {
        elf_put(image + 0x118, 4, name);
        elf_put(image + 0x11c, 4, descriptor);
    }
    assert_int_equal(elf_parse_any(image, 0x100 + size, &elf, NULL), E_OK);
    assert_true(elf_notes(&elf, 0, &notes));
    while (elf_next_note(&notes, &note)) {
        assert_in_range((uintptr_t)note.bytes + note.size, (uintptr_t)image + 0x100,
                        (uintptr_t)image + 0x100 + size);
        if (count++ == 0)
            assert_int_equal(note.type, 77);
    }
    free(image);
    return count;
}

static void notes_within_their_segment(void **state)
{
    const struct elf_part beyond = {4, 4, 0x100, 0, 0, 0x100, 0x100};
    uint8_t *image = calloc(1, 0x1ff);
    struct elf elf;
    struct elf_notes notes;

    (void)state;
    assert_int_equal(count_notes(24, 0, 0), 1);
    assert_int_equal(count_notes(23, 0, 0), 0); /* its last byte is not there */
    assert_int_equal(count_notes(35, 0, 0), 1); /* nor all of the second's header */
    assert_int_equal(count_notes(44, 4, 4), 2);
    assert_int_equal(count_notes(44, 4, 5), 1);
    assert_int_equal(count_notes(44, 5, 4), 1);
    assert_int_equal(count_notes(44, UINT32_MAX, UINT32_MAX), 1);
    elf_image(image, true, 0, &beyond, 1);
    assert_int_equal(elf_parse_any(image, 0x1ff, &elf, NULL), E_OK);
    assert_false(elf_notes(&elf, 0, &notes));
    free(image);
}

/* Two section headers of 40 bytes at 0x150 in an image of `size`. */
static struct elf with_sections(uint8_t *image, uint64_t size, uint64_t at, unsigned header)
{
    struct elf elf;

    elf_image(image, false, 0, two_parts, 2);
    elf_put(image + 32, 4, at);
    elf_put(image + 46, 2, header);
    elf_put(image + 48, 2, 2);
    elf_put(image + 50, 2, 1);
    assert_int_equal(elf_parse(image, size, &elf, NULL), E_OK);
    return elf;
}

static void sections_within_the_image(void **state)
{
    enum { SIZE = 0x150 + 80 };
    uint8_t *image = calloc(1, SIZE), *header = image + 0x150 + 40;
    struct elf_section section;
    struct elf elf;

    (void)state;
    assert_int_equal(with_sections(image, SIZE, 0x150, 40).section_count, 2);
    assert_int_equal(with_sections(image, SIZE, 0x151, 40).section_count, 0);
    assert_int_equal(with_sections(image, SIZE, 0xfffffff0, 40).section_count, 0);
    assert_int_equal(with_sections(image, SIZE, 0x150, 41).section_count, 0);
    assert_int_equal(with_sections(image, SIZE, 0x150, 39).section_count, 0);
    assert_int_equal(with_sections(image, SIZE, 0, 40).section_count, 0);
    elf = with_sections(image, SIZE, 0x150, 40);
    assert_int_equal(elf.section_names, 1);
    elf_put(header + 4, 4, 3);
    elf_put(header + 16, 4, 0x100);
    elf_put(header + 20, 4, SIZE - 0x100);
    elf_section(&elf, 1, &section);
    assert_ptr_equal(section.bytes, image + 0x100);
    assert_int_equal(section.size, SIZE - 0x100);
    elf_put(header + 20, 4, SIZE - 0x100 + 1);
    elf_section(&elf, 1, &section);
    assert_null(section.bytes);
    elf_put(header + 16, 4, SIZE + 1);
    elf_put(header + 20, 4, 0);
    elf_section(&elf, 1, &section);
    assert_null(section.bytes);
    elf_put(header + 16, 4, 0x100);
    elf_put(header + 4, 4, 8); /* it has no bytes in the file */
    elf_section(&elf, 1, &section);
    assert_null(section.bytes);
    free(image);
}

/* The last byte of the address space may be used; one more wraps. */
static void top_of_the_addresses(void **state)
{
    uint8_t image[IMAGE_SIZE];
    struct elf elf;
    struct elf_segment segment;
    struct elf_part part = {1, 4, 0x100, UINT64_MAX - 0xfff, UINT64_MAX - 0xfff, 16, 0x1000};

    (void)state;
    elf_image(image, true, 0, &part, 1);
    assert_int_equal(elf_parse(image, sizeof(image), &elf, NULL), E_OK);
    assert_int_equal(elf_segment(&elf, 0, &segment, NULL), E_OK);
    part.memory_size++;
    elf_image(image, true, 0, &part, 1);
    assert_int_equal(elf_segment(&elf, 0, &segment, NULL), E_RANGE);
}

static void other_headers_are_passed_over(void **state)
{
    uint8_t image[IMAGE_SIZE];
    struct elf elf;
    struct elf_segment segment;
    /* PT_NOTE with nonsense in it: nobody asks for its bytes. */
    struct elf_part part = {4, 4, UINT64_MAX, 1, 1, UINT64_MAX, 0};

    (void)state;
    elf_image(image, true, 0, &part, 1);
    assert_int_equal(elf_parse(image, sizeof(image), &elf, NULL), E_OK);
    assert_int_equal(elf_segment(&elf, 0, &segment, NULL), E_OK);
    assert_false(segment.load);
}

static void truncated(bool is64)
{
    uint8_t *whole = make(is64);

    for (uint64_t size = 0; size < 0x1c0; size++) {
        uint8_t *part = malloc(size != 0 ? size : 1);
        const char *why = NULL;

        assert_non_null(part);
        memcpy(part, whole, size);
        assert_int_not_equal(read_all(part, size, &why), E_OK);
        assert_non_null(why);
        free(part);
    }
    free(whole);
}

static void truncation(void **state)
{
    (void)state;
    truncated(false);
    truncated(true);
}

/* Whatever bytes change, no read leaves the image, and a refusal has its reason. */
static void mutation(void **state)
{
    struct random random = {7};

    (void)state;
    for (unsigned round = 0; round < 50000; round++) {
        uint8_t *image = make(round & 1);
        const char *why = NULL;

        for (unsigned n = 1 + (unsigned)random_below(&random, 4); n > 0; n--)
            image[random_below(&random, 0x100)] = (uint8_t)random_next(&random);
        if (read_all(image, IMAGE_SIZE, &why) != E_OK)
            assert_non_null(why);
        free(image);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(both_classes),
        cmocka_unit_test(each_way_of_being_wrong),
        cmocka_unit_test(headers_that_are_cut_off),
        cmocka_unit_test(notes_within_their_segment),
        cmocka_unit_test(sections_within_the_image),
        cmocka_unit_test(top_of_the_addresses),
        cmocka_unit_test(other_headers_are_passed_over),
        cmocka_unit_test(truncation),
        cmocka_unit_test(mutation),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
