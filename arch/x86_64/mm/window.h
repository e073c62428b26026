/*
 * Address bookkeeping for a window into which physical ranges are placed one by one (the MMIO
 * window). It decides where a range goes and who still uses it; the caller maps and unmaps.
 *
 *    base                                                                base + size
 *     | absent | range | absent | range | absent |        free              |
 *
 * One absent page before each range keeps a run past its neighbour's end from reaching it.
 */
#ifndef QUIRE_ARCH_X86_64_MM_WINDOW_H
#define QUIRE_ARCH_X86_64_MM_WINDOW_H

#include <stdbool.h>
#include <stdint.h>

#include "mm/addr.h"
#include "mm/paging/attrs.h"

#define WINDOW_SLOTS 64

struct window_slot {
    uint64_t at;   /* address in the window */
    uint64_t size; /* bytes; at, size and out are multiples of 4 KiB */
    hpa_t out;
    enum mem_type type;
    unsigned users;
};

struct window {
    uint64_t base, size;
    unsigned count;
    struct window_slot slot[WINDOW_SLOTS]; /* sorted by `at` */
};

/*
 * Finds a place for physical [out, out + size), both multiples of 4 KiB. Where a range of the same
 * type covers it already that one gets another user and `*fresh` is false: nothing is to be mapped.
 * `*at` receives the address of `out`. A place keeps the physical address's offset within 2 MiB, so
 * that large ranges can have large pages.
 * E_INVAL (size 0), E_ALIGN, E_RANGE (wraps), E_EXIST (overlaps a range of another type, or one
 * that covers it in part), E_FULL (no slot), E_NOMEM (no room in the window).
 */
int window_take(struct window *window, hpa_t out, uint64_t size, enum mem_type type, uint64_t *at,
                bool *fresh);

/* One user less for the range that covers `at`. With the last one gone the slot is free, `*gone` is
 * true and `*slot` says what is to be unmapped. E_NOENT. */
int window_drop(struct window *window, uint64_t at, struct window_slot *slot, bool *gone);

#endif
