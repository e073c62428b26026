/* Which operation is next. */
#include "tests/property/world_internal.h"

static struct attrs random_attrs(void)
{
    static const uint8_t types[] = {MEM_WB, MEM_WB, MEM_WB, MEM_UC, MEM_WC, MEM_WT, MEM_WP};
    static const uint8_t rights[] = {RIGHT_R, RIGHT_RW, RIGHT_RX, RIGHT_RWX};
    struct random *r = &w.random;
    unsigned chosen = rights[random_below(r, 4)];
    enum kind_id id = w.land->kind->id;

    if (id == KIND_USER && random_below(r, 2))
        chosen |= RIGHT_U;
    if (id == KIND_KERNEL && w.table.caps.global && random_below(r, 2))
        chosen |= RIGHT_G;
    if (id == KIND_EPT && w.table.caps.execute_only && random_below(r, 5) == 0)
        chosen = RIGHT_X;
    if (!w.table.caps.nx)
        chosen |= RIGHT_X;
    enum mem_type type = (enum mem_type)types[random_below(r, sizeof(types))];
    return attrs_of(chosen, w.table.caps.mem_types & (1u << type) ? type : MEM_UC);
}

/* Cells of 2 MiB are not cut into so many pages of 4 KiB that they take all memory. */
void world_tame(struct world_call *call)
{
    bool small_cells = w.unit == PAGE_SIZE;
    unsigned most = CELLS;

    switch (call->op) {
    case OP_SPLIT:
        call->flags = small_cells || call->flags == 1 ? 1 : 2;
        most = call->flags == 1 && !small_cells ? 16 : CELLS;
        break;
    case OP_MAP:
    case OP_REPLACE:
        call->flags &= MAP_CAP_2M | MAP_CAP_4K;
        most = (call->flags & MAP_CAP_4K) && !small_cells ? 16 : CELLS;
        break;
    case OP_FRESH:
        call->flags &= small_cells ? MAP_CAP_2M | MAP_CAP_4K : 0;
        most = small_cells ? CELLS : 3;
        break;
    case OP_CURSOR:
        call->flags &= 15;
        most = small_cells ? CELLS : 2;
        break;
    case OP_COPY:
        most = small_cells ? CELLS : 3;
        break;
    case OP_HARVEST:
        call->flags &= HARVEST_CLEAR_A | HARVEST_CLEAR_D;
        break;
    default:
        break;
    }
    if (call->count > most)
        call->count = most;
}

/* Which cells. `again`: the block that was mapped last, or nearly. */
static void choose_place(struct world_call *call, bool again)
{
    struct random *r = &w.random;

    call->first = (unsigned)random_below(r, CELLS);
    switch (again ? 0 : random_below(r, 5)) {
    case 0: /* what a large leaf fits, whole */
        call->first = SIDE_CELLS + (unsigned)random_below(r, 2) * BLOCK_CELLS;
        call->count = BLOCK_CELLS;
        break;
    case 1:
        call->count = 1 + (unsigned)random_below(r, CELLS - call->first);
        break;
    case 2:
        call->count = 1;
        break;
    default:
        call->count = 1 + (unsigned)random_below(r, 24);
        break;
    }
    if (call->first + call->count > CELLS)
        call->count = CELLS - call->first;
    if (again) {
        call->first = w.block;
        call->count = random_below(r, 8) ? BLOCK_CELLS : BLOCK_CELLS - 1;
    }
}

struct world_call world_random_call(void)
{
    static const unsigned caps[] = {MAP_DEFAULT, MAP_DEFAULT, MAP_CAP_2M, MAP_CAP_4K};
    struct random *r = &w.random;
    static const uint8_t ops[] = {OP_MAP,   OP_MAP,   OP_MAP,     OP_REPLACE, OP_REPLACE,
                                  OP_UNMAP, OP_UNMAP, OP_PROTECT, OP_PROTECT, OP_PROTECT,
                                  OP_SPLIT, OP_MERGE, OP_SWEEP,   OP_HARVEST, OP_HARVEST,
                                  OP_CLONE, OP_COPY,  OP_FRESH,   OP_CURSOR,  OP_CURSOR};
    struct world_call call = {.op = (enum world_op)ops[random_below(r, sizeof(ops))]};
    static const uint8_t then[] = {OP_MERGE, OP_MERGE, OP_SWEEP, OP_SPLIT, OP_PROTECT, OP_HARVEST};
    bool again = w.block && random_below(r, 3);

    /* What has just been mapped as a block, often in small pages, is often joined or taken apart.
     */
    if (again)
        call.op = (enum world_op)then[random_below(r, sizeof(then))];
    choose_place(&call, again);
    bool block = call.count == BLOCK_CELLS;
    if (call.op == OP_MAP && call.count > 24 && random_below(r, 4))
        call.op = OP_REPLACE; /* a large range is seldom free */
    /* Often aligned as the input is, so that large leaves and merges come about. */
    call.out = block || random_below(r, 2) ? cell_in(call.first) & BITS(34, 12)
                                           : random_below(r, 2048) * w.unit;
    call.attrs = random_attrs();
    call.flags = caps[random_below(r, 4)];
    if (call.op == OP_SPLIT)
        call.flags = 1 + (unsigned)random_below(r, 2);
    if (call.op == OP_HARVEST)
        call.flags = (unsigned)random_below(r, 4);
    if (call.op == OP_CURSOR)
        call.flags = (unsigned)random_below(r, 16);
    world_tame(&call);
    call.refuse = random_below(r, 4) ? 3 : 12;
    w.block = block && (call.op == OP_MAP || call.op == OP_REPLACE || call.op == OP_PROTECT)
                  ? call.first
                  : 0;
    return call;
}
