/*
 * Loaders: from an image to memory content and the state of a CPU that is about to run it.
 *
 * They see the guest's memory through struct loader and know nothing else of the guest, so that
 * they can be tested and fuzzed on a plain array. Every refusal has its reason in words.
 */
#ifndef QUIRE_VM_LOAD_H
#define QUIRE_VM_LOAD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "vm/backend.h"

#define LOAD_RANGES 40
#define LOAD_MODULES 8

/* A piece of the guest's address space, for its memory map. */
struct load_region {
    uint64_t base, size;
    bool ram; /* false: there, but not for free use (ROM, execute-only) */
};

struct load_module {
    const uint8_t *bytes;
    uint64_t size;
    const char *cmdline;
};

struct load_range {
    uint64_t first, last; /* inclusive */
};

struct loader {
    /* The image and what comes with it. */
    const uint8_t *bytes;
    uint64_t size;
    const char *cmdline;
    struct load_module module[LOAD_MODULES];
    unsigned modules;

    /* The guest's memory: regions sorted by base, disjoint. `place` copies `size` bytes there,
     * zeroes where `from` is NULL; E_RANGE where no memory is. */
    struct load_region region[LOAD_RANGES];
    unsigned regions;
    bool acpi; /* a PC with all of its ROM, for tables */
    int (*place)(void *ctx, uint64_t at, const void *from, uint64_t size);
    void *ctx;

    /* Results. */
    struct vcpu_state state; /* to start with */
    const char *kind;        /* "Multiboot ELF32", ... */
    char *why;               /* why an image was refused: one line */
    size_t why_size;
    struct load_range used[LOAD_RANGES]; /* what is occupied already */
    unsigned used_count;
};

/* Is there a Multiboot 1 header in the first 8 KiB? */
bool multiboot_recognise(const uint8_t *bytes, uint64_t size);

/* For a message: whether a right header lies further on than one may, and where. */
bool multiboot_late(const uint8_t *bytes, uint64_t size, uint64_t *offset);

/* Multiboot 1 (specification 0.6.96), ELF or by the header's address fields. */
int load_multiboot(struct loader *loader);

/* A flat 16-bit image at 0x7c00, entered in real mode as a PC's firmware enters a boot sector. */
int load_flat(struct loader *loader);
bool flat_recognise(const uint8_t *bytes, uint64_t size); /* boot signature 55 AA at 510 */

/* A Linux kernel, or what speaks its boot protocol. */
int load_linux(struct loader *loader);
bool linux_recognise(const uint8_t *bytes, uint64_t size); /* "HdrS" and a boot signature */

/* Linux where its header is, Multiboot where there is such a header, flat where there is a boot
 * signature or `flat` is set. */
int load_image(struct loader *loader, bool flat);

/* For the loaders. 32-bit protected mode without paging, all segments flat, by these selectors;
 * registers, RIP and a GDT are the caller's. */
void load_enter_flat32(struct vcpu_state *state, uint16_t code, uint16_t data);
#define LOAD_DR7_RESET 0x400

/* Occupies and fills what a PC's firmware has in low memory. */
#define LOAD_EBDA UINT64_C(0x9fc00) /* its extended data area, to 0xa0000 */
int load_pc_area(struct loader *loader);

/* Occupies and fills what ACPI tables there are (vm/acpi_tables.h), if loader->acpi. */
int load_acpi_tables(struct loader *loader);

/* Refuses, with the reason; returns `error`. */
int load_refuse(struct loader *loader, int error, const char *why, ...)
    __attribute__((format(printf, 3, 4)));

/* Occupies [at, at + size) and fills it: all of it must be guest memory and none occupied yet.
 * `what` is for the refusal ("the image's segment 2"). */
int load_place(struct loader *loader, uint64_t at, const void *from, uint64_t file_size,
               uint64_t size, const char *what);

/* The lowest free RAM of `size` bytes, aligned, within [first, last] (inclusive). E_NOMEM. */
int load_find(const struct loader *loader, uint64_t size, uint64_t align, uint64_t first,
              uint64_t last, uint64_t *out);

#endif
