/*
 * What the loaders share: recognising and refusing, placing and finding room, ELF files, what a
 * kernel is told, how it is entered. Each format has a file of its own, vm/load_NAME.c.
 */
#ifndef QUIRE_VM_LOAD_PARTS_H
#define QUIRE_VM_LOAD_PARTS_H

#include "vm/elf.h"
#include "vm/load.h"

#define LOAD_LOW_FIRST UINT64_C(0x1000)    /* vectors and BIOS data lie below */
#define LOAD_LOW_LAST UINT64_C(0x9ffff)    /* where a PC's first RAM ends ... */
#define LOAD_HIGH_FIRST UINT64_C(0x100000) /* ... and the rest begins */
#define LOAD_LAST_32BIT UINT64_C(0xffffffff)
/* ESP of a Multiboot kernel, which should bring a stack: GRUB's, for those that have come to use
 * it. Nothing is kept free for it. */
#define LOAD_STACK UINT64_C(0x7ff00)
#define LOAD_LOADER_NAME "Quire"

/* --- recognising --- */

enum load_verdict {
    LOAD_NO,
    LOAD_NEARLY, /* it is meant to be this format, and something is wrong with it */
    LOAD_YES,
};

/* NO: `why` receives a few words; NEARLY: the sentence of a refusal. */
typedef enum load_verdict load_recognise_fn(const uint8_t *bytes, uint64_t size, char *why,
                                            size_t why_size);
load_recognise_fn linux_recognise;      /* "HdrS" and a boot signature */
load_recognise_fn multiboot_recognise;  /* a header in the first 8 KiB */
load_recognise_fn multiboot2_recognise; /* a header in the first 32 KiB */
load_recognise_fn pvh_recognise;        /* an ELF note */
load_recognise_fn flat_recognise;       /* boot signature 55 AA at 510 */

/* Images of Linux's boot protocol have a 16-bit entry, and most a 32-bit one. The protocol has no
 * flag for it: one is there from 2.05 on, in images that are loaded high; and those that have it
 * say by code32_start where it goes unless it is moved. */
bool linux_has_entry32(const struct loader *loader);
int load_linux(struct loader *loader);   /* by its 32-bit entry */
int load_linux16(struct loader *loader); /* by its 16-bit entry */
int load_multiboot(struct loader *loader);
int load_multiboot2(struct loader *loader);
int load_pvh(struct loader *loader);
int load_flat(struct loader *loader);
int load_plain_elf(struct loader *loader, bool is64);

/* --- memory --- */

/* Occupies [at, at + size) and fills it: all of it must be guest memory and none occupied yet.
 * `what` is for the refusal ("the image's segment 2"). */
int load_place(struct loader *loader, uint64_t at, const void *from, uint64_t file_size,
               uint64_t size, const char *what);

/* The lowest, or highest, free RAM of `size` bytes, aligned, within [first, last] (inclusive).
 * E_NOMEM. */
int load_find(const struct loader *loader, uint64_t size, uint64_t align, uint64_t first,
              uint64_t last, uint64_t *out);
int load_find_highest(const struct loader *loader, uint64_t size, uint64_t align, uint64_t first,
                      uint64_t last, uint64_t *out);

/* Where a module goes: beyond the image, with room for what a kernel puts right behind itself
 * before it looks, as GRUB leaves it, if there is any; else the lowest free RAM from 1 MiB up. */
int load_find_beyond(const struct loader *loader, uint64_t size, uint64_t *out);

/* Occupies the gaps in [first, last] as well, between what was placed there. */
void load_claim(struct loader *loader, uint64_t first, uint64_t last);

/* Is all of [first, last] the guest's memory, and none of it occupied? */
bool load_is_free(const struct loader *loader, uint64_t first, uint64_t last);

/* Occupies and fills what a PC's firmware has in low memory. What of it the image itself covers, or
 * where there is no memory, is left out, or, where the format cannot do without, refused. */
#define LOAD_EBDA UINT64_C(0x9fc00) /* its extended data area, to 0xa0000 */
#define LOAD_EBDA_SIZE 1024
#define LOAD_EBDA_MP 0x10    /* in it the MP tables ... */
#define LOAD_EBDA_ACPI 0x200 /* ... and from here on ACPI's that a guest may write */
#define LOAD_NO_VECTOR 0x4f0 /* an IRET, in segment 0: where vectors lead */
int load_pc_area(struct loader *loader, bool needed);
/* What makes the sum of these bytes 0, put where one of them is 0 now. */
uint8_t load_checksum(const uint8_t *bytes, uint64_t size);
/* The MP tables that say what the MADT does, in an extended data area that is zeroed. */
void load_mp_tables(const struct loader *loader, const uint8_t *madt, uint8_t ebda[LOAD_EBDA_SIZE]);
/* After load_pc_area(): a BIOS in the last page of the ROM, and vectors that lead there. */
int load_bios(struct loader *loader);

/* --- images that say where they go --- */

struct load_elf {
    struct elf elf;
    uint64_t first, last; /* what its segments occupy, by their physical addresses */
    uint64_t entry;       /* the ELF header's, as a physical address */
    bool entry_found;
};

/* Reads an ELF file; nothing is placed. One that can be moved is taken where it is linked from 1
 * MiB up, or where `movable`. */
int load_elf_read(struct loader *loader, bool movable, struct load_elf *out);
/* Places its segments, `offset` (modulo 2^64) beyond their physical addresses. */
int load_elf_place(struct loader *loader, const struct load_elf *elf, uint64_t offset);
/* E_FORMAT unless the ELF header's entry point lies in a segment, and below 4 GiB. */
int load_elf_entry(struct loader *loader, const struct load_elf *elf, uint64_t *entry);

/* Section headers and those sections that no segment loads (symbols, strings, debugging), for
 * kernels that look their own symbols up. */
struct load_sections {
    const struct elf *elf;
    unsigned count, size, names; /* headers, bytes of each, which has the names; count 0: none */
};
struct load_sections load_sections_of(const struct elf *elf);
/* Puts the headers to `at`, which the caller has occupied, and the sections to free memory, if they
 * fit there: all, or symbols and strings. A section that is not there has address 0. */
int load_sections_put(struct loader *loader, const struct load_sections *sections, uint64_t at);

/* The address fields that both Multiboot formats have. */
struct load_addresses {
    uint64_t offset; /* of the header in the file */
    uint32_t header, load, load_end, bss_end;
};
struct load_text {
    const uint8_t *bytes;
    uint64_t at, file_size, memory_size;
};
int load_by_addresses(struct loader *loader, const struct load_addresses *addresses,
                      struct load_text *out);

/* --- what a kernel is told --- */

/* A stretch of guest memory that is filled from its start. Every piece begins at a multiple of 8.
 */
struct load_area {
    struct loader *loader;
    uint64_t base, size, used;
};
/* Takes whole pages for `size` bytes, in low memory if there is room. */
int load_area_take(struct load_area *area, struct loader *loader, uint64_t size, const char *what);
/* E_OK where `size` more bytes fit, or a refusal. */
int load_area_room(const struct load_area *area, uint64_t size);
int load_area_put(struct load_area *area, const void *bytes, uint64_t size, uint64_t *at);
int load_area_string(struct load_area *area, const char *text, uint64_t *at);
/* Bytes that the command line and those of the modules take there. */
uint64_t load_strings_size(const struct loader *loader);

/* Modules to the lowest free RAM from 1 MiB up, each to a page's start. */
int load_place_modules(struct loader *loader, uint64_t at[LOAD_MODULES]);

/* The memory map as a kernel is to see it, with a PC's extended data area taken out of RAM. */
#define LOAD_MAP (LOAD_RANGES + 2)
#define LOAD_MAP_RAM 1 /* as all formats number them */
#define LOAD_MAP_RESERVED 2
unsigned load_map(const struct loader *loader, struct load_region map[LOAD_MAP]);
uint32_t load_map_type(const struct load_region *region);
/* KiB of RAM without a gap: from 0 up, and from 1 MiB up to 4 GiB. */
uint32_t load_lower_kib(const struct loader *loader);
uint32_t load_upper_kib(const struct loader *loader);

/* A PC's text screen, as Multiboot's framebuffer fields have it. */
#define LOAD_TEXT_SCREEN 0xb8000
#define LOAD_TEXT_COLUMNS 80
#define LOAD_TEXT_ROWS 25
#define LOAD_TEXT_TYPE 2
#define LOAD_TEXT_BITS 16

/* PVH's start information, modules included: its address in *at. */
int load_start_info(struct loader *loader, uint64_t *at);

/* --- the CPU --- */

#define LOAD_CODE 0x08 /* selectors where the format does not name them */
#define LOAD_DATA 0x10
#define LOAD_DR7_RESET 0x400

/* 32-bit protected mode without paging, all segments flat; registers, RIP and a GDT are the
 * caller's. */
void load_enter_flat32(struct vcpu_state *state, uint16_t code, uint16_t data);
/* Real mode with all segments the same, interrupts off; RIP is the caller's. */
void load_enter_real(struct vcpu_state *state, uint16_t segment, uint16_t sp);
/* 64-bit mode by the page tables at `tables`. */
void load_enter_long(struct vcpu_state *state, uint64_t tables);

#endif
