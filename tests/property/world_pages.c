/* A source of data blocks that remembers what it gave, and the judge of copies. */
#include "tests/property/world_internal.h"

static int take_block(struct page_source *source, uint64_t size, hpa_t *out)
{
    static uint64_t next;
    unsigned first, end;

    (void)source;
    if (w.fail_in == 0 || size > 2 * MiB || (size < w.unit && op.call.op == OP_FRESH))
        return E_NOMEM;
    if (w.fail_in != UINT64_MAX)
        w.fail_in--;
    next = align_up(next, size) + size > DATA_BYTES ? 0 : align_up(next, size);
    *out = hpa(ARENA_BYTES + next);
    next += size;
    memset(direct(*out), 0x5a, 64);
    op.blocks++;
    if (op.call.op == OP_FRESH) {
        /* Blocks are taken in the order in which they will be mapped. */
        cells_of(op.next, size, &first, &end);
        must(end - first == size / w.unit);
        for (unsigned i = first; i < end; i++)
            op.after[i].out = out->v + (cell_in(i) - op.next);
        op.next += size;
    }
    return E_OK;
}

static void give_block(struct page_source *source, hpa_t block, uint64_t size)
{
    (void)source;
    must(block.v >= ARENA_BYTES && block.v + size <= ARENA_BYTES + DATA_BYTES);
    must(op.blocks);
    op.blocks--;
}

static void fill_block(struct page_source *source, hpa_t block, uint64_t size,
                       const struct mapping *from)
{
    static const uint8_t nothing[24];
    unsigned first, end;

    (void)source;
    must(is_aligned(block.v, size));
    must(memcmp(direct(block), nothing, sizeof(nothing)) == 0); /* no note of ours is left in it */
    must((from != NULL) == (op.call.op == OP_COPY));
    if (!from)
        return;
    must(from->last - from->in + 1 == size);
    cells_of(from->in, size, &first, &end);
    must(first < end);
    for (unsigned i = first; i < end; i++)
        for (unsigned part = 0; part < parts(); part++) {
            uint64_t in = cell_in(i) + part_offset(part);
            if (!part_within(i, part, from->in, size))
                continue;
            must(from->out.v + (in - from->in) == w.cell[i].out + part_offset(part));
            must(op.block[i][part] == 0);
            op.block[i][part] = block.v + (in - from->in);
        }
}

struct page_source world_source = {.take = take_block, .give = give_block, .fill = fill_block};

void check_other(void)
{
    uint64_t first = cell_in(op.call.first), size = op.call.count * w.unit;
    struct flush_batch batch;

    for (unsigned i = 0; i < CELLS; i++)
        for (unsigned part = 0; part < parts(); part++) {
            bool within = i - op.call.first < op.call.count;
            uint64_t in = cell_in(i) + part_offset(part);
            struct found found = world_look(w.other.root.v, in);
            struct cell expected = within ? w.cell[i] : (struct cell){0};

            if (expected.present && op.call.op == OP_COPY)
                expected.out = op.block[i][part] - part_offset(part);
            if (!says(&found, &expected, part_offset(part)))
                wrong("%#lx is not in the copy as it should be", in);
        }
    world_check_frames(&w.other);
    flush_begin(&batch, &w.other);
    must(table_unmap(&w.other, first, size, &batch) == E_OK);
    flush_commit(&batch);
    must(w.other.table_frames == 1 && !lock_held(&w.other.lock));
}
