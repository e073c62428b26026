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

#define LOAD_RANGES 32 /* of the guest's memory */
#define LOAD_PARTS 96  /* of what is put there: segments, modules, ... */
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

/* How an image is started: as what it is recognised as, or as somebody says. */
enum load_as { LOAD_RECOGNISED, LOAD_AS_FLAT, LOAD_AS_ELF32, LOAD_AS_ELF64, LOAD_AS_LINUX16 };

struct loader {
    /* The image and what comes with it. */
    const uint8_t *bytes;
    uint64_t size;
    const char *cmdline;
    struct load_module module[LOAD_MODULES];
    unsigned modules;
    unsigned cpus;                        /* that the guest has, ... */
    uint32_t cpu_signature, cpu_features; /* ... and EAX and EDX of their CPUID leaf 1 */
    bool pc; /* the first MiB is as a PC's: what its firmware leaves there goes there */
    struct { /* ACPI's root pointer, where it is in the guest's memory already; size 0: none */
        uint64_t at;
        const uint8_t *bytes;
        uint32_t size;
    } rsdp;

    /* The guest's memory: regions sorted by base, disjoint. `place` copies `size` bytes there,
     * zeroes where `from` is NULL; E_RANGE where no memory is. */
    struct load_region region[LOAD_RANGES];
    unsigned regions;
    int (*place)(void *ctx, uint64_t at, const void *from, uint64_t size);
    void *ctx;

    /* Results. */
    struct vcpu_state state; /* to start with */
    const char *kind;        /* "Multiboot ELF32", ... */
    char *why;               /* why an image was refused: one line */
    size_t why_size;
    struct sink *details; /* where an image is no format's: one line for each; may be NULL */
    struct load_range used[LOAD_PARTS]; /* what is occupied already */
    unsigned used_count;
    uint64_t image_end; /* behind the image's last byte; 0: not known */
    bool bios;          /* it may call a BIOS (vm/bios.h) */
    bool disk;          /* whose disk the image is */
    bool ebda;          /* a PC's extended data area was put at LOAD_EBDA */
};

/* Recognises the format and loads the image. On an error `why` says what is wrong. */
int load_image(struct loader *loader, enum load_as as);

/* Before load_image(), where there is ROM for them: puts ACPI's tables there (vm/acpi_tables.h).
 * The one that the guest may write goes into a PC's extended data area, with that. */
int load_acpi_tables(struct loader *loader);

/* Refuses, with the reason; returns `error`. */
int load_refuse(struct loader *loader, int error, const char *why, ...)
    __attribute__((format(printf, 3, 4)));

/* Is it of a format whose kernels find a PC's first MiB wherever else they are started? */
bool load_expects_pc(const uint8_t *bytes, uint64_t size);

#endif
