/*
 * ELF images for tests, built field by field: small ones that are right, to be spoilt on purpose.
 */
#ifndef QUIRE_TESTS_UNIT_ELF_IMAGE_H
#define QUIRE_TESTS_UNIT_ELF_IMAGE_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

struct elf_part {
    uint32_t type, flags;
    uint64_t offset, virtual, physical, file_size, memory_size;
};

static inline void elf_put(uint8_t *at, unsigned bytes, uint64_t value)
{
    for (unsigned i = 0; i < bytes; i++)
        at[i] = (uint8_t)(value >> (8 * i));
}

/* Writes the ELF header and the program headers to `image`; the parts' content is the caller's.
 * Returns where the headers end. */
static inline uint64_t elf_image(uint8_t *image, bool is64, uint64_t entry,
                                 const struct elf_part *parts, unsigned count)
{
    unsigned header = is64 ? 64 : 52, entry_size = is64 ? 56 : 32, word = is64 ? 8 : 4;
    uint8_t *at = image + header;

    memset(image, 0, header + count * entry_size);
    memcpy(image, "\177ELF", 4);
    image[4] = is64 ? 2 : 1;
    image[5] = 1;
    image[6] = 1;
    elf_put(image + 16, 2, 2);
    elf_put(image + 18, 2, is64 ? 62 : 3);
    elf_put(image + 20, 4, 1);
    elf_put(image + 24, word, entry);
    elf_put(image + 24 + word, word, header);
    elf_put(image + (is64 ? 52 : 40), 2, header);
    elf_put(image + (is64 ? 54 : 42), 2, entry_size);
    elf_put(image + (is64 ? 56 : 44), 2, count);
    for (unsigned i = 0; i < count; i++, at += entry_size) {
        elf_put(at, 4, parts[i].type);
        elf_put(at + (is64 ? 4 : 24), 4, parts[i].flags);
        elf_put(at + (is64 ? 8 : 4), word, parts[i].offset);
        elf_put(at + (is64 ? 16 : 8), word, parts[i].virtual);
        elf_put(at + (is64 ? 24 : 12), word, parts[i].physical);
        elf_put(at + (is64 ? 32 : 16), word, parts[i].file_size);
        elf_put(at + (is64 ? 40 : 20), word, parts[i].memory_size);
    }
    return (uint64_t)(at - image);
}

/* A small Multiboot 1 guest of 0x400 bytes, entered at 0x100010. */
#define ELF_GUEST 0x400
static inline void elf_multiboot_guest(uint8_t image[ELF_GUEST])
{
    static const struct elf_part part = {1, 5, 0x200, 0x100000, 0x100000, 0x100, 0x100};

    memset(image, 0, ELF_GUEST);
    elf_image(image, false, 0x100010, &part, 1);
    elf_put(image + 0x200, 4, 0x1badb002);
    elf_put(image + 0x208, 4, -0x1badb002u);
}

#endif
