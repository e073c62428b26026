/*
 * A bounded reader of ELF executables, 32- and 64-bit, little-endian x86.
 *
 * It trusts nothing: every offset and count is checked against the image before it is used, and
 * no field is read through a pointer that might be misaligned. It places nothing: what a segment
 * means is up to the caller (a guest's loader, a ring-3 program's loader).
 */
#ifndef QUIRE_VM_ELF_H
#define QUIRE_VM_ELF_H

#include <stdbool.h>
#include <stdint.h>

#include "lib/error.h"

/* More program headers than this are refused; linkers write fewer than a dozen. */
#define ELF_MAX_SEGMENTS 64

struct elf {
    const uint8_t *bytes;
    uint64_t size;
    bool is64;
    uint64_t entry;       /* virtual address */
    uint64_t headers;     /* offset of the program headers in the image */
    unsigned header_size; /* of each */
    unsigned segments;    /* number of program headers, of any type */
};

struct elf_segment {
    bool load;        /* PT_LOAD; the rest of this structure is then valid and checked */
    unsigned rights;  /* RIGHT_R, RIGHT_W, RIGHT_X (mm/paging/attrs.h) as the header's flags say */
    uint64_t virtual; /* addresses of the first byte; address + memory_size never wraps */
    uint64_t physical;
    const uint8_t *bytes; /* file_size bytes within the image */
    uint64_t file_size;
    uint64_t memory_size; /* at least file_size; the rest is zeroes */
};

/* Is there an ELF identification at all (to tell "not ELF" from "broken ELF")? */
bool elf_recognise(const void *bytes, uint64_t size);

/*
 * Checks the identification, the ELF header and that all program headers lie within the image.
 * Accepts executables (ET_EXEC) for i386 and x86-64. E_TRUNC, E_FORMAT, E_UNSUPPORTED; on an error
 * *why (may be NULL) points to a constant phrase that completes "refused: ".
 */
int elf_parse(const void *bytes, uint64_t size, struct elf *out, const char **why);

/* Program header `index` (below elf->segments). For PT_LOAD: the file bytes lie within the image,
 * file_size <= memory_size, addresses do not wrap. Errors as above. */
int elf_segment(const struct elf *elf, unsigned index, struct elf_segment *out, const char **why);

#endif
