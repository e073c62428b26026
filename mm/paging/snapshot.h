/*
 * What a table mapped, kept for after the table has gone: its first runs, and how many there were.
 */
#ifndef QUIRE_MM_SNAPSHOT_H
#define QUIRE_MM_SNAPSHOT_H

#include <stdint.h>

#include "mm/paging/table.h"

#define SNAPSHOT_RUNS 64

struct snapshot {
    const struct table_kind *kind; /* NULL: none was taken */
    hpa_t root;                    /* where the table was */
    uint64_t table_frames;         /* it had, the root included */
    uint64_t runs;                 /* it had; the first SNAPSHOT_RUNS of them are below */
    struct mapping run[SNAPSHOT_RUNS];
};

/* Replaces what the snapshot holds by the runs of `table`, as table_visit() gives them. */
void snapshot_take(struct snapshot *snapshot, struct table *table);

#endif
