/*
 * A guest that was saved: the file that it becomes, and what is read of one. docs/SAVED-GUEST.md
 * describes the format, byte by byte.
 *
 *     head | GUEST | SLOTS | CPU | DEVICES | OTHER_CPU ... | PAGE ... | END | SHA-256 of all before
 *
 * A reader takes nothing for granted: every size is held against what is there, every value against
 * what the rest of vm/ can bear, before any of it is used. What it may be deceived about is what a
 * guest may do to itself.
 */
#ifndef QUIRE_VM_SAVED_H
#define QUIRE_VM_SAVED_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "vm/backend.h"
#include "vm/guest.h"

#define SAVED_MAGIC "QuireVM" /* with its zero: 8 bytes */
#define SAVED_ONE_CPU 1u      /* the version of a guest with one CPU, and of one with several */
#define SAVED_VERSION 2u
#define SAVED_HEAD 32u
#define SAVED_BACKEND 8u /* of the head: the backend's name, zeroes behind it */

enum saved_tag {
    SAVED_GUEST = 1,
    SAVED_SLOTS,
    SAVED_CPU,
    SAVED_DEVICES,
    SAVED_PAGE,
    SAVED_END,
    SAVED_OTHER_CPU,
};
#define SAVED_SECTION 8u /* bytes of a section's head: tag, size */

/* Flags of the guest. */
#define SAVED_PC 1u
#define SAVED_BARE 2u
#define SAVED_DEBUG_EXIT 4u
#define SAVED_BIOS 8u
#define SAVED_HALTED 16u
#define SAVED_LAZY 32u
#define SAVED_INIT 64u /* an INIT has come, and is not taken yet */
#define SAVED_FLAGS 127u

/* Flags of another CPU, beside SAVED_HALTED and SAVED_INIT. */
#define SAVED_WAITS 1u
#define SAVED_SIPI 2u

#define SAVED_WORD 8u           /* a PAGE of so many bytes is that word over and over */
#define SAVED_PAGE_MOST 4096u   /* one of so many is as it is; of fewer, runs (saved_unpack()) */
#define SAVED_DEVICES_MOST 8192 /* bytes of a DEVICES section */
#define SAVED_LAPIC_MOST 512    /* ... and of a local APIC in OTHER_CPU */

struct saved {
    uint32_t version;
    char backend[SAVED_BACKEND + 1];
    uint64_t memory, clock, hz; /* bytes of RAM; the guest's TSC, and its rate */
    uint32_t flags, pages, around;
    struct slot slot[GUEST_SLOTS];
    unsigned slots;
    struct saved_cpu {
        struct cpu_condition is; /* but for `deaf`, which its registers say */
        struct vcpu_state state;
        struct vcpu_rest rest;
    } cpu[GUEST_VCPUS];
    unsigned cpus;
    struct guest_devices devices;
    const uint8_t *page, *end; /* the PAGE sections that saved_next_page() has not given */
    uint64_t page_count;
};

/* Is this such a file, whole or not? */
bool saved_is(const uint8_t *bytes, uint64_t size);

/* Reads and judges all of it; *out goes on pointing into `bytes`. E_FORMAT, E_UNSUPPORTED (a
 * version that is not known), with one sentence in `why`. */
int saved_read(const uint8_t *bytes, uint64_t size, struct saved *out, char *why, size_t why_size);

/* The next page of memory, in ascending order. False: there are no more. */
bool saved_next_page(struct saved *saved, gpa_t *at, uint8_t page[PAGE_SIZE]);

/* ---- Within vm/ ------------------------------------------------------------------------------ */

/* Packs a page into at most PAGE_SIZE bytes; returns how many. 0: it is all zeroes. */
unsigned saved_pack(const uint8_t page[PAGE_SIZE], uint8_t out[PAGE_SIZE]);
/* False: it is not just one page. */
bool saved_unpack(const uint8_t *from, unsigned size, uint8_t page[PAGE_SIZE]);

/* The devices as bytes, each member little-endian in the order of a table; returns how many. */
unsigned saved_devices_put(const struct guest_devices *devices, uint8_t out[SAVED_DEVICES_MOST]);
/* Returns NULL, or the name of the first member that has a value which it cannot have; "size" where
 * there are more bytes or fewer. */
const char *saved_devices_take(struct guest_devices *devices, const uint8_t *from, uint64_t size);
/* The same of one local APIC; the first is among the devices as well. */
unsigned saved_lapic_put(const struct dev_lapic *lapic, uint8_t out[SAVED_LAPIC_MOST]);
const char *saved_lapic_take(struct dev_lapic *lapic, const uint8_t *from, uint64_t size);

/* ---- A guest's way out and back -------------------------------------------------------------- */

struct save {
    int (*put)(void *ctx, const void *bytes, size_t size); /* an error ends it */
    void *ctx;
    uint64_t bytes, pages; /* so far */
    char why[160];         /* E_UNSUPPORTED: what of the guest cannot be saved */
    struct sha256 *digest; /* of what has been put; not to be touched */
};

/* Puts out the whole file. The guest is out of its CPU, and is not changed by it. E_STATE: it has
 * ended, or is held at its end. E_UNSUPPORTED: see `why`. */
int guest_save(struct guest *guest, struct save *save);
/* Would that be so? Puts nothing out. */
int guest_save_check(struct guest *guest, struct save *save);

/* Within vm/: makes a guest, whose options are parsed, of its image, which is such a file: table,
 * slots, memory, vCPU, devices. On an error guest->reason says why. */
int guest_restore(struct guest *guest);

#endif
