/*
 * The CPUs of the machine as ACPI tells them: from the root pointer that the loader handed over,
 * through the RSDT or XSDT, to the MADT (ACPI 6.5, 5.2.7, 5.2.8, 5.2.12).
 *
 * Tables are the firmware's: each is read only after its length and its checksum are known to be
 * right, and nothing outside of it. No allocation; runs hosted too.
 */
#ifndef QUIRE_BOOT_MADT_H
#define QUIRE_BOOT_MADT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "boot/multiboot2.h"
#include "lib/error.h"

/* CPUs beyond are counted and not kept. */
#define MADT_CPUS 64

/* Room for any message of madt_read(). */
#define MADT_WHY 160

struct madt_cpu {
    uint32_t apic_id;
    uint32_t uid; /* ACPI's number of the processor */
    bool enabled; /* by the firmware. False: it may be one day (online capable), or is no CPU */
    bool online_capable;
};

struct madt {
    unsigned count;   /* entries of `cpu` in use, each APIC id once */
    unsigned dropped; /* CPUs for which there was no room */
    struct madt_cpu cpu[MADT_CPUS];
};

/* `size` bytes of physical memory at `at`, to be read; NULL where they cannot be. */
typedef const void *(*madt_reach_fn)(void *ctx, uint64_t at, uint64_t size);

/*
 * Fills `out` in the table's order. On error `why` (of why_size bytes) says what was found, what is
 * wrong and what would be right, and out->count is 0. E_NOENT: the loader passed no root pointer,
 * or there is no MADT. E_RANGE: a table lies where memory cannot be read. E_TRUNC, E_FORMAT: a
 * length, a checksum or an entry that cannot be.
 */
int madt_read(const struct boot_rsdp *rsdp, madt_reach_fn reach, void *ctx, struct madt *out,
              char *why, size_t why_size);

#endif
