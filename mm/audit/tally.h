/*
 * A count for each frame of memory: how often it was reached. Sparse: each 128 MiB in which
 * anything is counted takes one scratch frame from the buddy; a few more are directories. Where
 * frames are counted twice it takes as many again.
 *
 *   plane 0   bit 0 of every count     512 pages -> 512 pages -> 512 pages -> bits of 32768 frames
 *   plane 1   bit 1                    ...
 *
 * One caller at a time. tally_end() gives all memory back.
 */
#ifndef QUIRE_MM_TALLY_H
#define QUIRE_MM_TALLY_H

#include <stdint.h>

#include "mm/addr.h"

#define TALLY_PLANES 8
#define TALLY_MOST ((1u << TALLY_PLANES) - 1) /* a count that has come this far stays there */

struct tally {
    uint64_t frames; /* of scratch memory taken */
    uint64_t newest; /* the frame taken last: its number + 1; each links to the one before it */
    struct tally_plane {
        uint64_t *root;
        uint64_t page;  /* the page of bits used last: frame number / 32768 ... */
        uint64_t *bits; /* ... and where it is; NULL: none yet */
    } plane[TALLY_PLANES];
};

void tally_begin(struct tally *tally);

/* Counts the frames [pfn, pfn + count), pfn + count at most 2^40. *again: how many of them had been
 * counted before; *first_again: the lowest of these. E_NOMEM: no scratch memory, and the counts are
 * of no use any more. */
int tally_add(struct tally *tally, uint64_t pfn, uint64_t count, uint64_t *again,
              uint64_t *first_again);

/* How often the frame was counted, up to TALLY_MOST. */
unsigned tally_count(struct tally *tally, uint64_t pfn);

/* The lowest frame of [pfn, end) that was counted at least `times` times, 1 or 2; `end` when there
 * is none. Passes over parts of memory where nothing was counted. */
uint64_t tally_counted(struct tally *tally, uint64_t pfn, uint64_t end, unsigned times);

/* The lowest frame of [pfn, end) that was never counted; `end` when there is none. */
uint64_t tally_uncounted(struct tally *tally, uint64_t pfn, uint64_t end);

/* Gives all scratch memory back. */
void tally_end(struct tally *tally);

#endif
