/*
 * The mapper against a flat model, for every kind, in a small physical memory of its own.
 *
 * One cell of the model stands for one 4 KiB page, or for one 2 MiB piece so that 1 GiB leaves come
 * into play. After every random operation each cell is looked up twice: through table_translate()
 * and by a walk written here, by the manual's rules (sdm_rules.h), which judge every entry on the
 * way. A small model of a TLB and of paging-structure caches is filled before each operation:
 * afterwards it may hold nothing that the tables no longer say, and no table frame may be freed
 * while it is cached.
 */
#include "mm/paging/table.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "arch/x86_64/mm/ept.h"
#include "mm/frames/buddy.h"
#include "tests/property/sdm_rules.h"

#define ARENA_BYTES (24 * MiB)
#define MAXPHYADDR 40
#define TEST_OWNER 40

/* ---- Random numbers, the same in every run --------------------------------------------------- */

static uint64_t random_state;

static uint64_t random_u64(void)
{
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return random_state * 0x2545f4914f6cdd1d;
}

static uint64_t random_below(uint64_t limit)
{
    return random_u64() % limit;
}

/* ---- The world of one run ----------------------------------------------------------------------
 */

struct cell {
    bool present, accessed, dirty;
    uint64_t out;
    struct attrs attrs;
};

#define CELLS 1536
#define CACHED 96

struct cached {
    bool valid;
    uint64_t in, out; /* a translation of the page at `in` ... */
    struct attrs attrs;
    uint64_t tables[5]; /* ... and the table frames that its walk went through, 0 ended */
};

static struct world {
    const struct table_kind *kind;
    uint64_t base, unit; /* the window: CELLS cells of `unit` bytes from `base` */
    struct table table;
    struct cell cell[CELLS];
    struct cached cache[CACHED];
    uint64_t fail_in; /* this many more frames are given, then none; UINT64_MAX: no end */
    uint64_t out_of;  /* frames taken and not given back */
    uint64_t flushes;
} w;

static uint8_t *arena;

static int take(const struct table_env *env, struct table *table, hpa_t *out)
{
    (void)env;
    if (w.fail_in == 0)
        return E_NOMEM;
    if (w.fail_in != UINT64_MAX)
        w.fail_in--;
    int error = buddy_alloc(0, table->purpose, table->owner, out);
    if (!error) {
        memset(direct(*out), 0xa5, PAGE_SIZE); /* the mapper must not lean on what is there */
        w.out_of++;
    }
    return error;
}

static void give(const struct table_env *env, struct table *table, hpa_t frame)
{
    (void)env;
    for (unsigned i = 0; i < CACHED; i++)
        for (unsigned j = 0; w.cache[i].valid && j < 5; j++)
            if (w.cache[i].tables[j] == frame.v)
                fail_msg("table frame %lx freed while a CPU still walks through it", frame.v);
    memset(direct(frame), 0xff, PAGE_SIZE);
    assert_int_equal(buddy_free(frame, 0, table->owner), E_OK);
    w.out_of--;
}

static void flush(const struct table_env *env, struct table *table, const struct flush_batch *batch)
{
    (void)env;
    (void)table;
    w.flushes++;
    for (unsigned i = 0; i < CACHED; i++) {
        struct cached *cached = &w.cache[i];
        bool hit = batch->whole;
        for (unsigned j = 0; !hit && j < batch->count; j++)
            hit = cached->in >= batch->range[j].first && cached->in <= batch->range[j].last;
        if (hit)
            cached->valid = false;
    }
}

static const struct table_env env = {.take = take,
                                     .give = give,
                                     .flush = flush,
                                     .frame_records = true};

/* ---- The manual, once more
 * ----------------------------------------------------------------------- */

struct found {
    bool present, accessed, dirty;
    uint64_t out; /* of the page at the address asked for */
    struct attrs attrs;
    unsigned level;
    uint64_t *entry;
    uint64_t tables[5];
};

static enum sdm_format format(void)
{
    return w.kind->id == KIND_EPT ? SDM_EPT : w.kind->id == KIND_NPT ? SDM_NPT : SDM_HOST;
}

/* A walk that fails the test at an entry which the manual calls reserved or misconfigured. */
static struct found lookup(uint64_t in)
{
    static const struct sdm_cpu cpu = {.maxphyaddr = MAXPHYADDR,
                                       .page_2m = true,
                                       .page_1g = true,
                                       .nxe = true,
                                       .execute_only = true};
    struct found found = {0};
    uint64_t table = w.table.root.v;

    for (unsigned level = 4; level >= 1; level--) {
        uint64_t *entry = (uint64_t *)(arena + table) + ((in >> (12 + 9 * (level - 1))) & 511);
        struct sdm_entry said = sdm_judge(format(), &cpu, level, *entry);

        found.tables[4 - level] = table;
        assert_int_not_equal(said.class, SDM_BAD);
        if (said.class == SDM_ABSENT)
            return found;
        if (said.class == SDM_PAGE) {
            unsigned rights = (said.read ? RIGHT_R : 0u) | (said.write ? RIGHT_W : 0u) |
                              (said.execute ? RIGHT_X : 0u) | (said.user ? RIGHT_U : 0u) |
                              (said.global ? RIGHT_G : 0u);
            found.present = true;
            found.level = level;
            found.entry = entry;
            found.out = said.address + (in & (sdm_page_bytes(level) - 1) & ~UINT64_C(0xfff));
            found.attrs = attrs_of(rights, (enum mem_type)said.type);
            found.accessed = said.accessed;
            found.dirty = said.dirty;
            return found;
        }
        table = said.address;
    }
    fail();
    return found;
}

/* ---- Checks
 * -------------------------------------------------------------------------------------- */

static void check_cell(unsigned i)
{
    const struct cell *cell = &w.cell[i];
    uint64_t first = w.base + i * w.unit;

    for (unsigned part = 0; part < 2; part++) {
        uint64_t offset = part ? w.unit - PAGE_SIZE : 0;
        struct found found = lookup(first + offset);
        struct mapping mapping;
        int error = table_translate(&w.table, first + offset + 0x123, &mapping);

        assert_int_equal(found.present, cell->present);
        assert_int_equal(error, cell->present ? E_OK : E_NOENT);
        if (!cell->present)
            continue;
        assert_int_equal(found.out, cell->out + offset);
        assert_int_equal(mapping.out.v + (first + offset - mapping.in), cell->out + offset);
        assert_true(attrs_equal(found.attrs, cell->attrs));
        assert_true(attrs_equal(mapping.attrs, cell->attrs));
        /* A large leaf keeps A and D for all of its cells. */
        assert_true(found.accessed >= cell->accessed);
        assert_true(found.dirty >= cell->dirty);
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

    assert_true(run->in <= run->last);
    if (check->any) {
        assert_true(run->in > check->last.last);
        bool joins = check->last.last + 1 == run->in && check->last.level == run->level &&
                     check->last.out.v + (run->in - check->last.in) == run->out.v &&
                     attrs_equal(check->last.attrs, run->attrs);
        assert_false(joins); /* it should have been one run */
    }
    check->last = *run;
    check->any = true;
    for (; check->next < CELLS && w.base + check->next * w.unit < first; check->next++)
        assert_false(w.cell[check->next].present);
    for (; check->next < CELLS && w.base + check->next * w.unit <= run->last; check->next++) {
        uint64_t at = w.base + check->next * w.unit;
        assert_true(w.cell[check->next].present);
        if (run->in <= at)
            assert_int_equal(w.cell[check->next].out, run->out.v + (at - run->in));
    }
    return 0;
}

static enum node_verdict count_node(void *ctx, const struct table_node *node)
{
    const struct table_kind *kind = w.table.kind;
    const uint64_t *slots = direct(node->frame);
    struct frame_info info;
    uint64_t entries = 0;

    for (unsigned i = slots_first(kind, node->level); i < slots_end(kind, node->level); i++)
        entries += (slots[i] & kind->present_mask) != 0;
    assert_int_equal(frame_query(node->frame, &info, NULL), E_OK);
    assert_int_equal(info.state, FRAME_USED);
    assert_int_equal(info.purpose, PURPOSE_TEST);
    assert_int_equal(info.owner, TEST_OWNER);
    assert_int_equal(info.payload, entries);
    if (node->level < 4 && entries == 0)
        assert_true(w.table.root_pinned && node->level == 3); /* no empty table is kept otherwise */
    ++*(uint64_t *)ctx;
    return NODE_ENTER;
}

static void check_all(void)
{
    struct run_check check = {0};
    uint64_t frames = 0;

    for (unsigned i = 0; i < CELLS; i++)
        check_cell(i);
    assert_int_equal(
        table_visit(&w.table, w.base, w.base + CELLS * w.unit - 1, VISIT_RUNS, check_run, &check),
        0);
    for (; check.next < CELLS; check.next++)
        assert_false(w.cell[check.next].present);
    /* Nothing beside the window was ever mapped. */
    assert_false(lookup(w.base - PAGE_SIZE).present);
    assert_false(lookup(w.base + CELLS * w.unit).present);

    assert_int_equal(table_visit_nodes(&w.table, count_node, &frames), 0);
    assert_int_equal(frames, w.table.table_frames);
    assert_int_equal(frames, w.out_of);
    assert_int_equal(frames, buddy_owner_frames(TEST_OWNER));
    assert_int_equal(w.table.open_batches, 0);
}

static void check_caches(void)
{
    for (unsigned i = 0; i < CACHED; i++) {
        struct cached *cached = &w.cache[i];
        if (!cached->valid)
            continue;
        struct found now = lookup(cached->in);
        if (!now.present || now.out != cached->out || now.attrs.type != cached->attrs.type ||
            (cached->attrs.rights & ~now.attrs.rights))
            fail_msg("a stale translation of %lx outlived the flush", cached->in);
    }
}

static void fill_caches(void)
{
    for (unsigned i = 0; i < CACHED; i++) {
        uint64_t in =
            w.base + random_below(CELLS) * w.unit + random_below(w.unit / PAGE_SIZE) * PAGE_SIZE;
        struct found found = lookup(in);

        w.cache[i].valid = found.present;
        w.cache[i].in = in;
        w.cache[i].out = found.out;
        w.cache[i].attrs = found.attrs;
        memcpy(w.cache[i].tables, found.tables, sizeof(found.tables));
    }
}

/* ---- Operations
 * ----------------------------------------------------------------------------------- */

static struct attrs random_attrs(void)
{
    static const uint8_t types[] = {MEM_WB, MEM_WB, MEM_WB, MEM_UC, MEM_WC, MEM_WT, MEM_WP};
    static const uint8_t rights[] = {RIGHT_R, RIGHT_RW, RIGHT_RX, RIGHT_RWX};
    unsigned r = rights[random_below(4)];

    if (w.kind->id == KIND_USER && random_below(2))
        r |= RIGHT_U;
    if (w.kind->id == KIND_KERNEL && random_below(2))
        r |= RIGHT_G;
    if (w.kind->id == KIND_EPT && random_below(5) == 0)
        r = RIGHT_X;
    return attrs_of(r, (enum mem_type)types[random_below(sizeof(types))]);
}

/* What hardware does: sets A, or A and D, in the leaf of a cell, and the model's cells with it. */
static void touch(unsigned i)
{
    struct found found = lookup(w.base + i * w.unit);
    bool dirty = random_below(2);

    if (!found.present)
        return;
    *found.entry |= sdm_accessed(format()) | (dirty ? sdm_dirty(format()) : 0);
    uint64_t size = sdm_page_bytes(found.level);
    w.cell[i].accessed = true;
    w.cell[i].dirty |= dirty && size <= w.unit;
}

struct snapshot {
    uint64_t sum, frames;
};

static enum node_verdict add_to_sum(void *ctx, const struct table_node *node)
{
    struct snapshot *snapshot = ctx;
    const uint64_t *table = direct(node->frame);

    for (unsigned i = 0; i < 512; i++)
        snapshot->sum = (snapshot->sum ^ table[i]) * 0x100000001b3 + node->level;
    snapshot->sum ^= node->frame.v;
    snapshot->frames++;
    return NODE_ENTER;
}

static struct snapshot snapshot_now(void)
{
    struct snapshot snapshot = {0};
    table_visit_nodes(&w.table, add_to_sum, &snapshot);
    return snapshot;
}

enum operation {
    OP_MAP,
    OP_REPLACE,
    OP_UNMAP,
    OP_PROTECT,
    OP_SPLIT,
    OP_MERGE,
    OP_HARVEST,
    OP_COUNT
};

static int apply(enum operation op, uint64_t in, uint64_t out, uint64_t size, struct attrs attrs,
                 unsigned extra, struct flush_batch *batch)
{
    switch (op) {
    case OP_MAP:
        return table_map(&w.table, in, hpa(out), size, attrs, extra, batch);
    case OP_REPLACE:
        return table_map(&w.table, in, hpa(out), size, attrs, extra | MAP_REPLACE, batch);
    case OP_UNMAP:
        return table_unmap(&w.table, in, size, batch);
    case OP_PROTECT:
        return table_protect(&w.table, in, size, attrs, batch);
    case OP_SPLIT:
        return table_split(&w.table, in, size, w.unit == PAGE_SIZE ? 1 : 2, batch);
    case OP_MERGE:
        return table_merge(&w.table, in, size, batch);
    default:
        return table_harvest(&w.table, in, size, HARVEST_READ, NULL, NULL, batch);
    }
}

static void one_operation(void)
{
    static const unsigned caps[] = {MAP_DEFAULT, MAP_DEFAULT, MAP_CAP_2M, MAP_CAP_4K};
    enum operation op = (enum operation)random_below(OP_COUNT);
    unsigned first = (unsigned)random_below(CELLS);
    unsigned count = 1 + (unsigned)random_below(random_below(4) ? 24 : CELLS - first);
    if (random_below(3) == 0)
        count = 1;
    /* Often a range that a large leaf fits: whole, aligned, and aligned alike on both sides. */
    if (random_below(3) == 0) {
        first &= ~511u;
        count = 512;
    }
    if (first + count > CELLS)
        count = CELLS - first;
    uint64_t in = w.base + first * w.unit, size = count * w.unit;
    uint64_t out = random_below(2)
                       ? (in & BITS(36, 0))
                       : random_below(1024) * w.unit + (random_below(2) ? 0 : w.unit * 512);
    struct attrs attrs = random_attrs();
    /* With cells of 2 MiB a cap at 4 KiB would take the arena's every frame for one large range. */
    unsigned extra = caps[random_below(w.unit == PAGE_SIZE ? 4 : 3)];
    bool mapped_any = false;
    for (unsigned i = first; i < first + count; i++)
        mapped_any |= w.cell[i].present;

    /* With the k-th frame refused, for every k that matters: an error, and nothing has changed. */
    struct snapshot before = snapshot_now();
    struct flush_batch batch;
    int error = E_NOMEM;
    for (uint64_t k = 0; error == E_NOMEM; k = k < 3 ? k + 1 : k * 2) {
        w.fail_in = k;
        flush_begin(&batch, &w.table);
        error = apply(op, in, out, size, attrs, extra, &batch);
        if (error) {
            assert_true(flush_empty(&batch));
            struct snapshot after = snapshot_now();
            assert_int_equal(before.sum, after.sum);
            assert_int_equal(before.frames, after.frames);
            assert_int_equal(w.out_of, before.frames);
        }
        flush_commit(&batch);
    }
    w.fail_in = UINT64_MAX;
    assert_int_equal(error, op == OP_MAP && mapped_any ? E_EXIST : E_OK);
    if (error)
        return;
    for (unsigned i = first; i < first + count; i++) {
        struct cell *cell = &w.cell[i];
        if (op == OP_MAP || op == OP_REPLACE)
            *cell =
                (struct cell){.present = true, .out = out + (i - first) * w.unit, .attrs = attrs};
        else if (op == OP_UNMAP)
            *cell = (struct cell){0};
        else if (op == OP_PROTECT && cell->present)
            cell->attrs = attrs;
    }
}

static void start_world(const struct table_kind *kind, uint64_t base, uint64_t unit, uint64_t seed)
{
    static uint8_t *metadata;
    struct table_caps caps = {.maxphyaddr = MAXPHYADDR,
                              .leaf_top = 3,
                              .nx = true,
                              .accessed_dirty = true,
                              .execute_only = true,
                              .global = kind->id != KIND_EPT && kind->id != KIND_NPT,
                              .mem_types = 1 << MEM_UC | 1 << MEM_WC | 1 << MEM_WT | 1 << MEM_WP |
                                           1 << MEM_WB};
    uint64_t metadata_size = buddy_metadata_size(ARENA_BYTES);

    free(arena);
    free(metadata);
    arena = aligned_alloc(PAGE_SIZE, ARENA_BYTES);
    metadata = aligned_alloc(PAGE_SIZE, align_up(metadata_size, PAGE_SIZE));
    memset(metadata, 0xa5, metadata_size);
    direct_base = (uint64_t)(uintptr_t)arena;
    assert_int_equal(buddy_init(metadata, metadata_size, ARENA_BYTES), E_OK);
    assert_int_equal(buddy_add(hpa(PAGE_SIZE), ARENA_BYTES - PAGE_SIZE), E_OK);
    memset(&w, 0, sizeof(w));
    w.kind = kind;
    w.base = base;
    w.unit = unit;
    w.fail_in = UINT64_MAX;
    random_state = seed;
    assert_int_equal(table_init(&w.table, kind, &caps, &env, PURPOSE_TEST, TEST_OWNER), E_OK);
}

static void end_world(void)
{
    char why[160];

    memset(w.cache, 0, sizeof(w.cache));
    assert_int_equal(table_destroy(&w.table), E_OK);
    assert_int_equal(w.out_of, 0);
    assert_int_equal(buddy_owner_frames(TEST_OWNER), 0);
    assert_int_equal(buddy_verify(why, sizeof(why)), E_OK);
}

static void run_world(const struct table_kind *kind, uint64_t base, uint64_t unit, unsigned rounds)
{
    for (uint64_t seed = 1; seed <= 4; seed++) {
        locks_needed = seed > 2; /* alone, the small cases have ways of their own */
        start_world(kind, base, unit, seed * 0x9e3779b97f4a7c15);
        if (kind->id == KIND_KERNEL && seed & 1)
            assert_int_equal(table_preallocate(&w.table), E_OK);
        for (unsigned round = 0; round < rounds; round++) {
            for (unsigned i = 0; i < 8; i++)
                touch((unsigned)random_below(CELLS));
            fill_caches();
            one_operation();
            check_caches();
            check_all();
        }
        end_world();
    }
}

/* Each window straddles a boundary of two levels above its cells. */
#define WINDOW_4K(top) ((top) + GiB - 512 * PAGE_SIZE)
#define WINDOW_2M(top) ((top) + 512 * GiB - GiB)

static void test_kernel_4k(void **state)
{
    (void)state;
    run_world(&kernel_kind, WINDOW_4K(UINT64_C(0xffff800000000000)), PAGE_SIZE, 400);
}

static void test_kernel_2m(void **state)
{
    (void)state;
    run_world(&kernel_kind, WINDOW_2M(UINT64_C(0xffff900000000000)), 2 * MiB, 400);
}

static void test_user_4k(void **state)
{
    (void)state;
    run_world(&user_kind, WINDOW_4K(UINT64_C(0x7f0000000000)), PAGE_SIZE, 400);
}

static void test_user_2m(void **state)
{
    (void)state;
    run_world(&user_kind, WINDOW_2M(UINT64_C(0x10000000000)), 2 * MiB, 400);
}

static void test_ept_4k(void **state)
{
    (void)state;
    run_world(&ept_kind, WINDOW_4K(UINT64_C(0)), PAGE_SIZE, 400);
}

static void test_ept_2m(void **state)
{
    (void)state;
    run_world(&ept_kind, WINDOW_2M(UINT64_C(0)), 2 * MiB, 400);
}

static void test_npt_4k(void **state)
{
    (void)state;
    run_world(&npt_kind, WINDOW_4K(UINT64_C(0)), PAGE_SIZE, 400);
}

static void test_npt_2m(void **state)
{
    (void)state;
    run_world(&npt_kind, WINDOW_2M(UINT64_C(0)), 2 * MiB, 400);
}

/* ---- Cases that random ranges do not reach
 * ------------------------------------------------------------ */

static int map_error(uint64_t in, uint64_t out, uint64_t size, struct attrs attrs)
{
    struct flush_batch batch;
    flush_begin(&batch, &w.table);
    int error = table_map(&w.table, in, hpa(out), size, attrs, MAP_DEFAULT, &batch);
    flush_commit(&batch);
    return error;
}

static void test_edges(void **state)
{
    struct attrs rw = attrs_of(RIGHT_RW, MEM_WB);
    struct mapping mapping;

    (void)state;
    start_world(&kernel_kind, 0xffff800000000000, PAGE_SIZE, 1);
    assert_int_equal(map_error(0xffff800000000000, 0, 0, rw), E_INVAL);
    assert_int_equal(map_error(0xffff800000000001, 0, PAGE_SIZE, rw), E_ALIGN);
    assert_int_equal(map_error(0xffff800000000000, 0x800, PAGE_SIZE, rw), E_ALIGN);
    assert_int_equal(map_error(0xffff800000000000, 0, PAGE_SIZE + 1, rw), E_ALIGN);
    assert_int_equal(map_error(0xfffffffffffff000, 0, 2 * PAGE_SIZE, rw), E_RANGE);
    assert_int_equal(map_error(0x0000800000000000, 0, PAGE_SIZE, rw), E_RANGE);
    assert_int_equal(map_error(0xffff7ffffffff000, 0, 2 * PAGE_SIZE, rw), E_RANGE);
    assert_int_equal(map_error(0xffff800000000000, UINT64_C(1) << MAXPHYADDR, PAGE_SIZE, rw),
                     E_RANGE);
    assert_int_equal(
        map_error(0xffff800000000000, (UINT64_C(1) << MAXPHYADDR) - PAGE_SIZE, 2 * PAGE_SIZE, rw),
        E_RANGE);
    assert_int_equal(map_error(0xffff800000000000, 0, PAGE_SIZE, attrs_of(RIGHT_W, MEM_WB)),
                     E_ILLEGAL);
    assert_int_equal(
        map_error(0xffff800000000000, 0, PAGE_SIZE, attrs_of(RIGHT_R, (enum mem_type)2)),
        E_ILLEGAL);
    assert_int_equal(w.out_of, 1); /* not one of them took a frame */

    /* The last page of the space, and the last frame that there can be. */
    assert_int_equal(
        map_error(0xfffffffffffff000, (UINT64_C(1) << MAXPHYADDR) - PAGE_SIZE, PAGE_SIZE, rw),
        E_OK);
    assert_int_equal(table_translate(&w.table, UINT64_MAX, &mapping), E_OK);
    assert_int_equal(mapping.last, UINT64_MAX);
    assert_int_equal(mapping.out.v, (UINT64_C(1) << MAXPHYADDR) - PAGE_SIZE);
    assert_int_equal(table_translate(&w.table, 0x1000, &mapping), E_RANGE);

    struct flush_batch batch;
    flush_begin(&batch, &w.table);
    assert_int_equal(table_unmap(&w.table, 0xffff800000000000, UINT64_C(1) << 47, &batch), E_OK);
    flush_commit(&batch);
    assert_int_equal(w.out_of, 1);
    end_world();
}

static void test_ept_attributes(void **state)
{
    struct table_caps old_cpu = {
        .maxphyaddr = 36, .leaf_top = 1, .nx = true, .mem_types = 1 << MEM_UC | 1 << MEM_WB};
    struct mapping mapping;
    struct flush_batch batch;

    (void)state;
    start_world(&ept_kind, 0, PAGE_SIZE, 1);
    assert_int_equal(map_error(0, 0, PAGE_SIZE, attrs_of(RIGHT_W, MEM_WB)), E_ILLEGAL);
    assert_int_equal(map_error(0, 0, PAGE_SIZE, attrs_of(RIGHT_W | RIGHT_X, MEM_WB)), E_ILLEGAL);
    assert_int_equal(map_error(0, 0, PAGE_SIZE, attrs_of(RIGHT_NONE, MEM_WB)), E_ILLEGAL);
    assert_int_equal(map_error(0, 0, PAGE_SIZE, attrs_of(RIGHT_RW | RIGHT_G, MEM_WB)), E_ILLEGAL);
    assert_int_equal(map_error(UINT64_C(1) << 48, 0, PAGE_SIZE, attrs_of(RIGHT_R, MEM_WB)),
                     E_RANGE);
    assert_int_equal(map_error(0, 0, PAGE_SIZE, attrs_of(RIGHT_X, MEM_WB)), E_OK);

    /* A CPU without large EPT pages, without execute-only, without A and D. */
    assert_int_equal(table_destroy(&w.table), E_OK);
    assert_int_equal(table_init(&w.table, &ept_kind, &old_cpu, &env, PURPOSE_TEST, TEST_OWNER),
                     E_OK);
    assert_int_equal(map_error(GiB, 0, PAGE_SIZE, attrs_of(RIGHT_X, MEM_WB)), E_ILLEGAL);
    assert_int_equal(map_error(GiB, 0, PAGE_SIZE, attrs_of(RIGHT_R, MEM_WC)), E_ILLEGAL);
    assert_int_equal(map_error(2 * GiB, 0, 4 * MiB, attrs_of(RIGHT_R, MEM_WB)), E_OK);
    assert_int_equal(table_translate(&w.table, 2 * GiB + 2 * MiB, &mapping), E_OK);
    assert_int_equal(mapping.level, 1);
    flush_begin(&batch, &w.table);
    assert_int_equal(table_harvest(&w.table, 0, PAGE_SIZE, HARVEST_CLEAR_D, NULL, NULL, &batch),
                     E_UNSUPPORTED);
    flush_commit(&batch);
    end_world();
}

struct harvested {
    unsigned pages;
    uint64_t last_in;
};

static int harvest_one(void *ctx, const struct mapping *mapping)
{
    struct harvested *harvested = ctx;
    harvested->pages++;
    harvested->last_in = mapping->in;
    assert_true(mapping->dirty);
    return 0;
}

static void test_harvest_clears_and_flushes(void **state)
{
    struct harvested harvested = {0};
    struct flush_batch batch;

    (void)state;
    start_world(&ept_kind, 0, PAGE_SIZE, 1);
    assert_int_equal(map_error(0, 0, 4 * MiB, attrs_of(RIGHT_RW, MEM_WB)), E_OK);
    *lookup(2 * MiB).entry |= EPT_A | EPT_D;
    uint64_t flushes = w.flushes;
    flush_begin(&batch, &w.table);
    assert_int_equal(table_harvest(&w.table, 0, 4 * MiB, HARVEST_CLEAR_A | HARVEST_CLEAR_D,
                                   harvest_one, &harvested, &batch),
                     0);
    flush_commit(&batch);
    assert_int_equal(harvested.pages, 1);
    assert_int_equal(harvested.last_in, 2 * MiB);
    assert_int_equal(w.flushes, flushes + 1);
    assert_int_equal(*lookup(2 * MiB).entry & (EPT_A | EPT_D), 0);
    /* Clean now: nothing to report, nothing to flush. */
    flush_begin(&batch, &w.table);
    assert_int_equal(table_harvest(&w.table, 0, 4 * MiB, HARVEST_CLEAR_A | HARVEST_CLEAR_D,
                                   harvest_one, &harvested, &batch),
                     0);
    assert_true(flush_empty(&batch));
    flush_commit(&batch);
    assert_int_equal(harvested.pages, 1);
    end_world();
}

static void test_absent_to_present_needs_no_flush(void **state)
{
    (void)state;
    start_world(&ept_kind, 0, PAGE_SIZE, 1);
    for (unsigned i = 0; i < 600; i++)
        assert_int_equal(
            map_error(i * PAGE_SIZE, i * PAGE_SIZE, PAGE_SIZE, attrs_of(RIGHT_RWX, MEM_WB)), E_OK);
    assert_int_equal(w.flushes, 0);
    assert_int_equal(w.table.flushes.spared, 600);
    end_world();
}

static void test_upper_half_is_shared(void **state)
{
    static struct table kernel;
    struct mapping mapping;

    (void)state;
    start_world(&kernel_kind, 0xffff800000000000, PAGE_SIZE, 1);
    assert_int_equal(table_preallocate(&w.table), E_OK);
    assert_int_equal(w.table.table_frames, 257);
    kernel = w.table;
    const struct table_caps caps = kernel.caps;
    assert_int_equal(table_init(&w.table, &user_kind, &caps, &env, PURPOSE_TEST, TEST_OWNER), E_OK);
    assert_int_equal(table_share_upper(&w.table, &kernel), E_OK);

    /* What the kernel maps later shows under the user's root, at once and without a copy. */
    struct flush_batch batch;
    flush_begin(&batch, &kernel);
    assert_int_equal(table_map(&kernel, 0xffffc00000000000, hpa(0), PAGE_SIZE,
                               attrs_of(RIGHT_RW, MEM_WB), MAP_DEFAULT, &batch),
                     E_OK);
    flush_commit(&batch);
    assert_true(lookup(0xffffc00000000000).present);
    /* But the user's table neither translates nor frees it. */
    assert_int_equal(table_translate(&w.table, 0xffffc00000000000, &mapping), E_RANGE);
    assert_int_equal(table_destroy(&w.table), E_OK);
    assert_int_equal(table_translate(&kernel, 0xffffc00000000000, &mapping), E_OK);
    w.table = kernel;
    end_world();
}

static void test_eptp(void **state)
{
    struct eptp eptp;

    (void)state;
    uint64_t raw = eptp_compose(hpa(0x12345000), MEM_WB, 4, true);
    assert_int_equal(raw, 0x1234505e);
    assert_int_equal(eptp_decode(raw, &eptp), E_OK);
    assert_int_equal(eptp.root.v, 0x12345000);
    assert_int_equal(eptp.type, MEM_WB);
    assert_int_equal(eptp.levels, 4);
    assert_true(eptp.accessed_dirty);
    assert_int_equal(eptp_decode(raw | 0x100, &eptp), E_ILLEGAL);
    assert_int_equal(eptp_decode((raw & ~UINT64_C(7)) | 1, &eptp), E_ILLEGAL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_edges),
        cmocka_unit_test(test_ept_attributes),
        cmocka_unit_test(test_harvest_clears_and_flushes),
        cmocka_unit_test(test_absent_to_present_needs_no_flush),
        cmocka_unit_test(test_upper_half_is_shared),
        cmocka_unit_test(test_eptp),
        cmocka_unit_test(test_kernel_4k),
        cmocka_unit_test(test_kernel_2m),
        cmocka_unit_test(test_user_4k),
        cmocka_unit_test(test_user_2m),
        cmocka_unit_test(test_ept_4k),
        cmocka_unit_test(test_ept_2m),
        cmocka_unit_test(test_npt_4k),
        cmocka_unit_test(test_npt_2m),
    };
    return cmocka_run_group_tests_name("mapper model", tests, NULL, NULL);
}
