/* One operation under all judges: what it should do, that it does it, and what follows. */
#include "tests/property/world_internal.h"

struct operation op;
bool accessed[CELLS][PARTS], dirty[CELLS][PARTS];
bool accessed_new[CELLS][PARTS], dirty_new[CELLS][PARTS];

static int note_harvested(void *ctx, const struct mapping *mapping)
{
    unsigned first, end;

    (void)ctx;
    must(mapping->accessed || mapping->dirty);
    cells_of(mapping->in, mapping->last - mapping->in + 1, &first, &end);
    must(first < end);
    for (unsigned i = first; i < end; i++)
        for (unsigned part = 0; part < parts(); part++)
            if (part_within(i, part, mapping->in, mapping->last - mapping->in + 1)) {
                op.told_a[i][part] |= mapping->accessed;
                op.told_d[i][part] |= mapping->dirty;
            }
    return 0;
}

static int apply(const struct world_call *call, struct flush_batch *batch)
{
    uint64_t in = cell_in(call->first), size = call->count * w.unit;

    switch (call->op) {
    case OP_MAP:
        return table_map(&w.table, in, hpa(call->out), size, call->attrs, call->flags, batch);
    case OP_REPLACE:
        return table_map(&w.table, in, hpa(call->out), size, call->attrs, call->flags | MAP_REPLACE,
                         batch);
    case OP_UNMAP:
        return table_unmap(&w.table, in, size, batch);
    case OP_PROTECT:
        return table_protect(&w.table, in, size, call->attrs, batch);
    case OP_SPLIT:
        return table_split(&w.table, in, size, call->flags, batch);
    case OP_MERGE:
        return table_merge(&w.table, in, size, batch);
    case OP_SWEEP:
        for (int error = E_OK; !error;)
            error = table_merge_sweep(&w.table, &in, w.table.kind->input_last, batch);
        must(in == w.land->kind->input_first);
        return E_OK;
    case OP_CLONE:
        return table_clone(&w.other, &w.table, in, size, NULL, batch);
    case OP_COPY:
        memset(op.block, 0, sizeof(op.block));
        return table_copy(&w.other, &w.table, in, size, &world_source);
    case OP_FRESH:
        op.next = in;
        return table_map_fresh(&w.table, in, size, call->attrs, call->flags, &world_source);
    case OP_CURSOR:
        return apply_by_cursor(call);
    default:
        return table_harvest(&w.table, in, size, call->flags, note_harvested, NULL, batch);
    }
}

static bool maps(enum world_op op)
{
    return op == OP_MAP || op == OP_REPLACE || op == OP_FRESH;
}

/* What each cell should be afterwards; returns what the mapper should say. */
static int expect(const struct world_call *call)
{
    memcpy(op.after, w.cell, sizeof(op.after));
    for (unsigned i = 0; i < CELLS; i++)
        op.kept[i] = w.cell[i].present;
    if (call->op == OP_HARVEST && !w.table.caps.accessed_dirty)
        return E_UNSUPPORTED;
    for (unsigned i = call->first; i < call->first + call->count; i++)
        if ((call->op == OP_MAP || call->op == OP_FRESH) && w.cell[i].present)
            return E_EXIST;
    for (unsigned i = call->first; i < call->first + call->count; i++) {
        enum world_op what = call->op == OP_CURSOR ? cursor_action(call, i) : call->op;
        struct cell *cell = &op.after[i];

        if (call->op == OP_CURSOR && what == OP_MAP && cell->present)
            continue; /* it is passed over */
        if (maps(what)) {
            *cell = (struct cell){.present = true,
                                  .out = call->out + (i - call->first) * w.unit,
                                  .attrs = call->attrs};
            op.kept[i] = false;
        } else if (what == OP_UNMAP) {
            *cell = (struct cell){0};
            op.kept[i] = false;
        } else if (what == OP_PROTECT && cell->present) {
            cell->attrs = call->attrs;
        } else if (what == OP_CLONE) {
            cell->attrs.rights &= (uint8_t)~RIGHT_W;
        }
    }
    return E_OK;
}

static void check_harvest(const struct world_call *call, bool (*accessed_before)[PARTS],
                          bool (*dirty_before)[PARTS])
{
    for (unsigned i = 0; i < CELLS; i++)
        for (unsigned p = 0; p < PARTS; p++) {
            bool within = i >= call->first && i < call->first + call->count;

            if ((within && accessed_before[i][p] > op.told_a[i][p]) ||
                (within && dirty_before[i][p] > op.told_d[i][p]) ||
                op.cleared_a[i][p] > op.told_a[i][p] || op.cleared_d[i][p] > op.told_d[i][p])
                wrong("harvest has not told of %#lx", cell_in(i));
        }
}

/* With the k-th frame refused for each k below call->refuse first: nothing has changed then. */
static int apply_with_refusals(const struct world_call *call)
{
    struct flush_batch batch;
    uint64_t taken = w.taken;
    int result = E_NOMEM;

    op.active = true;
    for (unsigned k = 0; result == E_NOMEM && k <= call->refuse; k++) {
        w.fail_in = k < call->refuse ? k : UINT64_MAX;
        w.stores = 0;
        flush_begin(&batch, &w.table);
        result = apply(call, &batch);
        if (result) {
            must(flush_empty(&batch));
            must(w.stores == 0);
            must(w.taken == taken);
            must(op.blocks == 0);
        }
        op.active = result == E_OK || result == E_NOMEM;
        flush_commit(&batch);
    }
    op.active = false;
    w.fail_in = UINT64_MAX;
    return result;
}

int world_run(const struct world_call *call)
{
    static bool accessed_before[CELLS][PARTS], dirty_before[CELLS][PARTS];

    memset(&op, 0, sizeof(op));
    op.call = *call;
    op.quiet = (unsigned[]){1, 2, 40, 600}[random_below(&chance, 4)];
    w.events = 0;
    int expected = expect(call);
    memcpy(accessed_before, accessed, sizeof(accessed));
    memcpy(dirty_before, dirty, sizeof(dirty));
    memset(accessed_new, 0, sizeof(accessed_new));
    memset(dirty_new, 0, sizeof(dirty_new));
    int result = apply_with_refusals(call);
    if (result != expected)
        wrong("the mapper says %d, and %d was expected", result, expected);
    if (op.owes)
        wrong("a flush is owed that was not done");
    if (result == E_OK) {
        for (unsigned i = 0; i < CELLS; i++)
            if (!op.kept[i]) {
                memcpy(accessed[i], accessed_new[i], sizeof(accessed[i]));
                memcpy(dirty[i], dirty_new[i], sizeof(dirty[i]));
            }
        memcpy(w.cell, op.after, sizeof(w.cell));
        if (call->op == OP_HARVEST)
            check_harvest(call, accessed_before, dirty_before);
    }
    if (w.brief)
        return result;
    check_caches();
    world_check();
    if (result == E_OK && (call->op == OP_CLONE || call->op == OP_COPY))
        check_other();
    return result;
}
