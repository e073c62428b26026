/*
 * The direct map: every frame of RAM at DIRECT_BASE + its physical address, and nothing else there.
 * Holes, device memory and what the firmware keeps for itself stay absent, so that a stray access
 * faults instead of reaching a device.
 */
#ifndef QUIRE_ARCH_X86_64_MM_DIRECT_MAP_H
#define QUIRE_ARCH_X86_64_MM_DIRECT_MAP_H

#include "mm/frames/memblock.h"
#include "mm/paging/table.h"

/*
 * Maps the memory list of `memblock` below physical address `limit` (exclusive) into `table`, at
 * the largest pages that alignment and the CPU allow:
 *
 *   usable RAM                     read-write, no-execute, WB; whole frames only (edges inwards)
 *   ACPI reclaimable and ACPI NVS  read-only, no-execute, WB; every frame touched (edges outwards)
 *
 * All of it global. What a usable region shares with a neighbour (a frame in two kinds) is not RAM.
 * `*skipped` (may be NULL) receives the bytes of RAM at or beyond `limit`. Errors as table_map().
 */
int direct_map_build(struct table *table, const struct memblock *memblock, uint64_t limit,
                     uint64_t *skipped);

/* Takes the write permission from [base, base + size) of RAM in the direct map: what is executable
 * or read-only under its own address must not be writable under this one. Multiples of 4 KiB. */
int direct_map_seal(struct table *table, hpa_t base, uint64_t size);

#endif
