/* See mm/paging/snapshot.h. */
#include "mm/paging/snapshot.h"

#include "lib/panic.h"

static int keep_run(void *ctx, const struct mapping *run)
{
    struct snapshot *snapshot = ctx;

    if (snapshot->runs < SNAPSHOT_RUNS)
        snapshot->run[snapshot->runs] = *run;
    snapshot->runs++;
    return 0;
}

void snapshot_take(struct snapshot *snapshot, struct table *table)
{
    snapshot->kind = table->kind;
    snapshot->root = table->root;
    snapshot->table_frames = table->table_frames;
    snapshot->runs = 0;
    int error = table_visit(table, table->kind->input_first, table->kind->input_last, VISIT_RUNS,
                            keep_run, snapshot);
    /* The range is the kind's own, and keep_run() never stops it. */
    invariant(error == E_OK);
}
