/*
 * Memblock: physical memory before there is an allocator, as two lists of regions.
 *
 * `memory` is what exists (RAM, by kind), `reserved` what is occupied. In both, neighbours of equal
 * flags are one region, and a change inside a region splits it. A list that is full grows into
 * memory that a callback provides, or the call answers E_FULL; nothing is lost and nothing panics.
 *
 * Cost for n regions: each call O(log n), amortised; O(1) for changes in ascending or descending
 * order (mm/frames/regions.h says why). Who walks over regions pays that for each region.
 *
 * Offered as a library, and not used by this hypervisor: memblock_remove(), memblock_is_usable(),
 * memblock_is_reserved().
 */
#ifndef QUIRE_MM_MEMBLOCK_H
#define QUIRE_MM_MEMBLOCK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/error.h"
#include "mm/addr.h"
#include "mm/frames/regions.h"

/* Region types, from the memory map; the one further down wins where two overlap (reserved beats
 * usable, bad beats all). */
enum mem_kind {
    MEMKIND_USABLE = 0,
    MEMKIND_ACPI_RECLAIMABLE,
    MEMKIND_ACPI_NVS,
    MEMKIND_RESERVED,
    MEMKIND_BAD,
};
const char *mem_kind_name(enum mem_kind kind);

/* Regions that either list has room for at the start, and more where regions touch. */
#define MEMBLOCK_INITIAL 64

/* Must stay where memblock_init() found it: it points into itself. */
struct memblock {
    struct memregions memory;   /* flags: enum mem_kind. The map's exact edges, not whole frames */
    struct memregions reserved; /* flags: enum frame_purpose */
    struct region_node initial_memory[REGION_NODES(MEMBLOCK_INITIAL)];
    struct region_node initial_reserved[REGION_NODES(MEMBLOCK_INITIAL)];
    /* Provides an array of `count` nodes, MEMBLOCK_GROWTH times as many as the list has, or NULL.
     * The old array is not handed back. Must not call back into this memblock. */
    struct region_node *(*grow)(void *ctx, size_t count);
    void *grow_ctx;
};

#define MEMBLOCK_GROWTH 4

/* Empties it; `grow` and `grow_ctx` are NULL then, for the caller to set. */
void memblock_init(struct memblock *mb);

/*
 * Changes to the lists. A range may end at the top of the address space (base + size = 2^64).
 * E_RANGE: size 0, or a wrap past that. E_FULL: the list has no room for the edges of the range and
 * cannot grow. On any error both lists are as they were.
 */

/* Overlap with existing memory: the stronger kind wins, piece by piece. E_INVAL: no such kind. */
int memblock_add(struct memblock *mb, uint64_t base, uint64_t size, enum mem_kind kind);
int memblock_remove(struct memblock *mb, uint64_t base, uint64_t size);
/* Reserving twice is fine; where purposes differ the newer one wins. Need not be RAM. E_INVAL: a
 * purpose above REGION_FLAGS_MAX. */
int memblock_reserve(struct memblock *mb, uint64_t base, uint64_t size, uint32_t purpose);
int memblock_unreserve(struct memblock *mb, uint64_t base, uint64_t size);

/* All of it usable RAM? False for an empty or wrapping range. */
bool memblock_is_usable(const struct memblock *mb, uint64_t base, uint64_t size);
/* Any of it reserved? False for an empty range; a wrapping one is cut at the top. */
bool memblock_is_reserved(const struct memblock *mb, uint64_t base, uint64_t size);

/* Highest usable address + 1, 0 for none. */
uint64_t memblock_ram_end(const struct memblock *mb);
uint64_t memblock_usable_bytes(const struct memblock *mb);

/*
 * The same in whole frames: a run of frames of usable RAM that are all free, or all reserved alike.
 * A frame is RAM only when all its bytes are usable, and reserved as soon as one byte is. Where
 * several regions reach into one frame, the lowest purpose counts (firmware, then the image, ...).
 */
struct memframes {
    uint64_t base, size; /* bytes, multiples of 4 KiB */
    bool reserved;
    uint32_t purpose; /* when reserved */
};

/* The run that contains `from` (a multiple of 4 KiB), cut to start there, or the first one above
 * it. False when there is none. */
bool memblock_next_frames(const struct memblock *mb, uint64_t from, struct memframes *out);

/* Calls fn for each run of free frames, in address order. Stops when fn returns non-zero and
 * returns it. */
int memblock_visit_free(const struct memblock *mb,
                        int (*fn)(void *ctx, uint64_t base, uint64_t size), void *ctx);

/* The run of free frames that holds `from`, or the next one below it. Cut to end at `from`,
 * inclusive, which then need not be at the end of a frame. False when there is none. */
bool memblock_free_below(const struct memblock *mb, uint64_t from, struct memframes *out);

/* The highest (top-down) range of `size` bytes in free frames, aligned to `align`, within
 * [first, last] inclusive. Does not reserve it. E_NOMEM; E_INVAL: size 0, align no power of two,
 * first above last. */
int memblock_find(const struct memblock *mb, uint64_t size, uint64_t align, uint64_t first,
                  uint64_t last, uint64_t *out);

#endif
