/*
 * Memory types by physical address, as the firmware has set them: the memory type range registers
 * (SDM Vol. 3, 12.11; APM Vol. 2, 7.7). They are read once, and never written.
 *
 * Guests' memory and the host's view of it are write-back, by the tables of both. So what the
 * firmware calls anything else is no memory for us (boot/memory_map.h): then each frame has one
 * type, whoever maps it, and no large page has two.
 */
#ifndef QUIRE_ARCH_MTRR_H
#define QUIRE_ARCH_MTRR_H

#include <stdbool.h>
#include <stdint.h>

#include "mm/paging/attrs.h"

#define MTRR_FIXED 11 /* registers, of eight ranges each: all of the first MiB */
#define MTRR_KEPT 32  /* of them are looked at; no CPU has more */

/* The registers as they are read; all zeroes where the CPU has none. */
struct mtrrs {
    bool there;
    unsigned maxphyaddr;
    uint64_t cap, def_type;     /* IA32_MTRRCAP, IA32_MTRR_DEF_TYPE */
    uint64_t fixed[MTRR_FIXED]; /* in the order of their addresses */
    uint64_t base[MTRR_KEPT], mask[MTRR_KEPT];
    uint64_t write_back_end; /* AMD's TOP_MEM2: from 4 GiB up to here all is write-back; or 0 */
};

/* Of the CPU that asks first, read then. All CPUs of a machine have the same (12.11.8). */
const struct mtrrs *mtrrs_of_this_cpu(void);

/* Have they been set at all? Else they say UC of everything, and of nothing in particular. */
bool mtrrs_enabled(const struct mtrrs *mtrrs);

/* The type of the byte at `at`, and the last byte that is known to have the same (there may be
 * more). Where ranges overlap in a way that the manual leaves undefined it is UC (12.11.4.1); so is
 * a type that it has reserved. */
enum mem_type mtrr_type_at(const struct mtrrs *mtrrs, uint64_t at, uint64_t *last);

/* Likewise all of the run that goes on with this type, but not beyond `limit`. */
enum mem_type mtrr_run_at(const struct mtrrs *mtrrs, uint64_t at, uint64_t limit, uint64_t *last);

#endif
