/* What holds between operations: cells, visitor, node frames and their records. */
#include "tests/property/world_internal.h"

static void check_cell(unsigned i)
{
    const struct cell *cell = &w.cell[i];

    for (unsigned part = 0; part < parts(); part++) {
        uint64_t offset = part_offset(part);
        uint64_t in = cell_in(i) + offset;
        struct found found = world_look(w.table.root.v, in);
        struct mapping mapping;
        int error = table_translate(&w.table, in + 0x123, &mapping);

        if (!says(&found, cell, offset))
            wrong("%#lx is not what was asked for", in);
        must(error == (cell->present ? E_OK : E_NOENT));
        if (!cell->present)
            continue;
        must(mapping.out.v + (in - mapping.in) == cell->out + offset);
        must(attrs_equal(mapping.attrs, cell->attrs));
        must(mapping.level == found.level && mapping.raw == *found.slot);
        must(mapping.accessed == found.accessed && mapping.dirty == found.dirty);
        must(mapping.last - mapping.in + 1 == sdm_page_bytes(found.level));
        if (w.table.caps.accessed_dirty &&
            (accessed[i][part] > found.accessed || dirty[i][part] > found.dirty))
            wrong("%#lx has lost its %s bit", in, dirty[i][part] > found.dirty ? "D" : "A");
    }
}

struct run_check {
    unsigned next; /* cell */
    struct mapping last;
    bool any;
};

/* The visitor's runs, cut to the window, are the model's runs. */
static int check_run(void *ctx, const struct mapping *run)
{
    struct run_check *check = ctx;
    uint64_t first = run->in < w.base ? w.base : run->in;

    must(run->in <= run->last);
    if (check->any) {
        must(run->in > check->last.last);
        bool joins = check->last.last + 1 == run->in && check->last.level == run->level &&
                     check->last.out.v + (run->in - check->last.in) == run->out.v &&
                     attrs_equal(check->last.attrs, run->attrs);
        must(!joins); /* it should have been one run */
    }
    check->last = *run;
    check->any = true;
    for (; check->next < CELLS && cell_in(check->next) < first; check->next++)
        must(!w.cell[check->next].present);
    for (; check->next < CELLS && cell_in(check->next) <= run->last; check->next++) {
        must(w.cell[check->next].present);
        if (run->in <= cell_in(check->next))
            must(w.cell[check->next].out == run->out.v + (cell_in(check->next) - run->in));
        must(attrs_equal(w.cell[check->next].attrs, run->attrs));
    }
    return 0;
}

struct frame_check {
    const struct table *table;
    uint64_t frames;
};

static enum node_verdict check_node(void *ctx, const struct table_node *node)
{
    struct frame_check *check = ctx;
    const struct shadow *shadow = shadow_of(node->frame.v);
    struct frame_info info;
    unsigned present_slots = 0;

    must(frame_query(node->frame, &info, NULL) == E_OK);
    must(info.state == FRAME_USED && info.purpose == PURPOSE_TEST && info.owner == WORLD_OWNER);
    must(shadow && !shadow->dead && shadow->level == node->level);
    for (unsigned i = 0; i < 512; i++)
        present_slots += present(shadow->entry[i]);
    must(info.payload == present_slots);
    if (present_slots == 0 && node->level < w.land->kind->levels) /* no other empty table is kept */
        must(check->table->root_pinned && node->level == w.land->kind->levels - 1u);
    check->frames++;
    return NODE_ENTER;
}

void world_check_frames(struct table *table)
{
    struct frame_check frames = {.table = table};

    must(table_visit_nodes(table, check_node, &frames) == 0);
    must(frames.frames == table->table_frames);
}

void world_check(void)
{
    struct run_check check = {0};

    for (unsigned i = 0; i < CELLS; i++)
        check_cell(i);
    must(table_visit(&w.table, w.base, w.end - 1, VISIT_RUNS, check_run, &check) == 0);
    for (; check.next < CELLS; check.next++)
        must(!w.cell[check.next].present);
    must(!world_look(w.table.root.v, w.base - PAGE_SIZE).present);
    must(!world_look(w.table.root.v, w.end).present);

    check_by_cursor();
    check_shadows();
    world_check_frames(&w.table);
    must(w.other.table_frames == 1 || op.call.op == OP_CLONE || op.call.op == OP_COPY);
    must(w.table.open_batches == 0);
    must(!lock_held(&w.table.lock));
}
