/*
 * For tests of the loaders: a plain array that plays the guest's memory, with a PC's hole or what a
 * PC has there.
 */
#ifndef QUIRE_TESTS_UNIT_LOAD_MEMORY_H
#define QUIRE_TESTS_UNIT_LOAD_MEMORY_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "lib/bits.h"
#include "lib/error.h"
#include "tests/unit/elf_image.h"
#include "vm/load_parts.h"

#define MEMORY (8 * MiB)
#define UNTOUCHED 0xcc

static uint8_t memory[MEMORY];
static char why[160];

/* As the slots do: memory ends, and nothing is placed into the hole. */
static inline int memory_place(void *ctx, uint64_t at, const void *from, uint64_t size)
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

static inline struct loader memory_loader(const uint8_t *bytes, uint64_t size)
{
    memset(memory, UNTOUCHED, sizeof(memory));
    why[0] = '\0';
    return (struct loader){
        .bytes = bytes,
        .size = size,
        .cmdline = "name and words",
        .pc = true,
        .region = {{0, 0xa0000, true}, {0xa0000, 0x60000, false}, {MiB, 7 * MiB, true}},
        .regions = 3,
        .place = memory_place,
        .why = why,
        .why_size = sizeof(why),
    };
}

static inline uint64_t memory_get(uint64_t at, unsigned width)
{
    uint64_t value = 0;

    assert_true(at <= MEMORY - width);
    memcpy(&value, memory + at, width);
    return value;
}

static inline const char *memory_string(uint64_t at)
{
    assert_true(at < MEMORY && memchr(memory + at, 0, MEMORY - at) != NULL);
    return (const char *)memory + at;
}

static inline void must_load(struct loader *loader, enum load_as as)
{
    if (load_image(loader, as) != E_OK)
        fail_msg("refused: %s", why);
}

static inline void must_refuse(struct loader *loader, enum load_as as, int error,
                               const char *fragment)
{
    int seen = load_image(loader, as);

    if (seen != error || strstr(why, fragment) == NULL)
        fail_msg("%s: \"%s\" does not mention \"%s\"", error_name(seen), why, fragment);
}

/* What a PC's map says of that memory: base, size, type. */
static inline void check_map(const uint64_t (*entry)[3], unsigned count)
{
    static const uint64_t expected[][3] = {
        {0, 0x9fc00, 1}, {0x9fc00, 0x400, 2}, {0xa0000, 0x60000, 2}, {MiB, 7 * MiB, 1}};

    assert_int_equal(count, ARRAY_SIZE(expected));
    for (unsigned i = 0; i < count; i++)
        for (unsigned j = 0; j < 3; j++)
            assert_int_equal(entry[i][j], expected[i][j]);
}

/* Every truncation and every damaged byte of `image`: loaded or refused with a reason, and never
 * beyond what the buffer holds, which the sanitizer sees. */
static inline void spoil(const uint8_t *image, uint64_t size, enum load_as as)
{
    static const uint8_t damage[] = {0x01, 0x80, 0xff, 0x7f};
    uint8_t *copy = malloc(size);
    struct loader loader;

    assert_non_null(copy);
    for (uint64_t cut = 0; cut < size; cut++) {
        uint8_t *part = malloc(cut != 0 ? cut : 1);

        assert_non_null(part);
        memcpy(part, image, cut);
        loader = memory_loader(part, cut);
        assert_true(load_image(&loader, as) == E_OK || why[0] != '\0');
        free(part);
    }
    for (uint64_t at = 0; at < size; at++) {
        for (unsigned i = 0; i < sizeof(damage); i++) {
            memcpy(copy, image, size);
            copy[at] ^= damage[i];
            loader = memory_loader(copy, size);
            assert_true(load_image(&loader, as) == E_OK || why[0] != '\0');
            assert_int_equal(memory_get(0xa0000, 8), 0xcccccccccccccccc);
        }
    }
    free(copy);
}

#endif
