/*
 * Protect by copies: an accelerator of protect (mm/paging/protect.h).
 *
 * Where hardware may set A or D in any of 512 live leaves, each needs an atomic exchange. A changed
 * copy of the whole node takes its place by one store instead. What hardware still sets in the old
 * node until the flush is gathered into the copy then.
 *
 * Worth: protect of 1 GiB of 4 KiB leaves by one call is 15 times as fast (docs/BENCHMARKS.md).
 * Contract: a node is copied only where the caller may change all of its leaves, with the table's
 * lock held; nothing is owed for it when copies_end() is done. Without a frame to be had, nothing
 * is done. Doors: the three functions below.
 */
#ifndef QUIRE_MM_PAGING_COPIES_H
#define QUIRE_MM_PAGING_COPIES_H

#include "mm/paging/nodes.h"

#define COPIES 16

struct copies {
    struct table *table;
    unsigned count;
    struct {
        uint64_t old, new; /* nodes */
    } pair[COPIES];
    struct supply spare; /* frames for copies: of old nodes that are settled */
};

void copies_start(struct copies *copies, struct table *t);

/* Replaces the node `old`, full of leaves, to which the entry *above leads, by a copy: its entries
 * keep the bits `keep`, A and D among them, and get `bits`. Returns the copy; 0, with nothing
 * changed, where there is no frame for it. */
uint64_t copies_replace(struct copies *copies, uint64_t *above, uint64_t old, uint64_t keep,
                        uint64_t bits);

/* Flushes, and gathers what hardware set meanwhile. */
void copies_end(struct copies *copies);

#endif
