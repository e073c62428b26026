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
    bool movable;         /* ET_DYN: position-independent */
    uint64_t entry;       /* virtual address */
    uint64_t headers;     /* offset of the program headers in the image */
    unsigned header_size; /* of each */
    unsigned segments;    /* number of program headers, of any type */

    /* Section headers that lie within the image whole; section_count 0: none. */
    uint64_t section_headers;
    unsigned section_size, section_count;
    unsigned section_names; /* the section that has their names */
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

/* PT_NOTE: a series of notes (System V ABI, chapter 5, "Note Section"). */
struct elf_notes {
    const uint8_t *bytes;
    uint64_t size;
    unsigned align; /* of names and descriptors: 4 or 8 */
};

struct elf_section {
    uint64_t address;     /* 0: no segment loads it */
    uint64_t size;        /* in the file */
    const uint8_t *bytes; /* NULL: none in the image */
    bool symbols;         /* a table of symbols or of strings */
    bool table;           /* SHT_SYMTAB: `entry_size` bytes a symbol, ... */
    uint32_t link;        /* ... whose names are in this section */
    uint64_t entry_size;
    unsigned address_at; /* where its header has the address, and how wide that is */
    unsigned address_size;
};

/* Is there an ELF identification at all (to tell "not ELF" from "broken ELF")? */
bool elf_recognise(const void *bytes, uint64_t size);

/*
 * Checks the identification, the ELF header and that all program headers lie within the image.
 * Accepts executables (ET_EXEC) for i386 and x86-64. E_TRUNC, E_FORMAT, E_UNSUPPORTED; on an error
 * *why (may be NULL) points to a constant phrase that completes "refused: ".
 */
int elf_parse(const void *bytes, uint64_t size, struct elf *out, const char **why);

/* As elf_parse(), position-independent ones (ET_DYN) too. */
int elf_parse_any(const void *bytes, uint64_t size, struct elf *out, const char **why);
#define ELF_MOVABLE_TEXT "the ELF image is position-independent; link it with -static -no-pie"

/* Program header `index` (below elf->segments). For PT_LOAD: the file bytes lie within the image,
 * file_size <= memory_size, addresses do not wrap. Errors as above. */
int elf_segment(const struct elf *elf, unsigned index, struct elf_segment *out, const char **why);

/* Program header `index`, where it is a PT_NOTE whose bytes lie within the image. */
bool elf_notes(const struct elf *elf, unsigned index, struct elf_notes *out);

/* Takes the next note: its descriptor, by its owner's name and type. False: there is none left, or
 * it is broken. */
struct elf_note {
    const char *name; /* `name_size` bytes, the terminating zero among them */
    uint64_t name_size;
    uint32_t type;
    const uint8_t *bytes;
    uint64_t size;
};
bool elf_next_note(struct elf_notes *notes, struct elf_note *out);

/* Section header `index` (below elf->section_count). */
void elf_section(const struct elf *elf, unsigned index, struct elf_section *out);

#endif
