/* See mapper_work.h. */
#include "tests/bench/mapper_work.h"

#include "lib/panic.h"
#include "lib/string.h"
#include "mm/frames/buddy.h"
#include "tests/bench/bench.h"

#define RANDOM_OPS 100000
#define SPLITS 512

struct work work;

/* ---- Table frames come from the buddy, as in the hypervisor; flushes go nowhere ---- */

static int take(const struct table_env *env, struct table *table, hpa_t *out)
{
    (void)env;
    return buddy_alloc(0, table->purpose, table->owner, out);
}

static void give(const struct table_env *env, struct table *table, hpa_t frame)
{
    (void)env;
    if (buddy_free(frame, 0, table->owner) != E_OK)
        panic("the buddy refused a table frame");
}

static void give_many(const struct table_env *env, struct table *table, const hpa_t *frames,
                      unsigned count)
{
    (void)env;
    if (buddy_free_frames(frames, count, table->owner) != E_OK)
        panic("the buddy refused a table frame");
}

static void flush(const struct table_env *env, struct table *table, const struct flush_batch *batch)
{
    (void)env;
    (void)table;
    (void)batch;
}

static const struct table_env env = {.take = take,
                                     .give = give,
                                     .flush = flush,
                                     .frame_records = true,
                                     .give_many = give_many};

static const struct attrs attrs = {RIGHT_RW, MEM_WB};

static void must(int error, const char *what)
{
    if (error)
        panic("%s: %d", what, error);
}

void work_start(const struct table_kind *kind, owner_t owner)
{
    struct table_caps caps = {.maxphyaddr = 46,
                              .leaf_top = 3,
                              .nx = true,
                              .accessed_dirty = true,
                              .execute_only = true,
                              .global = true,
                              .mem_types = 1 << MEM_UC | 1 << MEM_WB};
    must(table_init(&work.table, kind, &caps, &env, PURPOSE_TEST, owner), "init");
    work.base = kind->id == KIND_KERNEL ? kind->input_first : 512 * GiB;
}

void work_end(void)
{
    must(table_destroy(&work.table), "destroy");
}

static int note_leaf_table(void *ctx, hpa_t frame, unsigned level, uint64_t entries)
{
    (void)ctx;
    (void)entries;
    if (level == 1)
        work.leaf_tables[work.leaf_count++] = direct(frame);
    return 0;
}

void note_leaf_tables(void)
{
    work.leaf_count = 0;
    table_visit_frames(&work.table, note_leaf_table, NULL);
}

/* The same on both sides of a row. */
static uint64_t seed = 88172645463325252ull;

static inline uint64_t next_random(void)
{
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return seed;
}

void make_cold(void)
{
    for (uint64_t i = 0; i < OTHER_BYTES; i += 64)
        ((volatile uint8_t *)work.other)[i]++;
}

/* ---- The mapper's work ---- */

static void map_with(unsigned flags)
{
    struct flush_batch batch;

    flush_begin(&batch, &work.table);
    must(table_map(&work.table, work.base, hpa(0), work.size, attrs, flags, &batch), "map");
    flush_commit(&batch);
}

void map_it(void)
{
    map_with(work.flags);
}

void map_it_2m(void)
{
    map_with(MAP_CAP_2M);
}

void unmap_it(void)
{
    struct flush_batch batch;

    flush_begin(&batch, &work.table);
    must(table_unmap(&work.table, work.base, work.size, &batch), "unmap");
    flush_commit(&batch);
}

uint64_t work_map(void)
{
    map_it();
    return work.size >> work.shift;
}

uint64_t work_map_pages(void)
{
    struct table *table = &work.table;
    uint64_t base = work.base, size = work.size;

    for (uint64_t at = 0; at < size; at += PAGE_SIZE) {
        struct flush_batch batch;
        flush_begin(&batch, table);
        must(table_map(table, base + at, hpa(at), PAGE_SIZE, attrs, MAP_CAP_4K, &batch),
             "map a page");
        flush_commit(&batch);
    }
    return size / PAGE_SIZE;
}

uint64_t work_unmap(void)
{
    unmap_it();
    return work.size >> work.shift;
}

uint64_t work_split(void)
{
    for (uint64_t i = 0; i < SPLITS; i++) {
        struct flush_batch batch;
        flush_begin(&batch, &work.table);
        must(table_protect(&work.table, work.base + i * 2 * MiB + 17 * PAGE_SIZE, PAGE_SIZE,
                           attrs_of(RIGHT_R, MEM_WB), &batch),
             "protect");
        flush_commit(&batch);
    }
    return SPLITS;
}

uint64_t work_protect(void)
{
    static bool writable = true;
    struct flush_batch batch;

    writable = !writable;
    flush_begin(&batch, &work.table);
    must(table_protect(&work.table, work.base, work.size,
                       attrs_of(writable ? RIGHT_RW : RIGHT_R, MEM_WB), &batch),
         "protect");
    flush_commit(&batch);
    return work.size >> work.shift;
}

uint64_t work_translate(void)
{
    uint64_t pages = work.size / PAGE_SIZE, sum = 0;

    for (unsigned i = 0; i < RANDOM_OPS; i++) {
        struct mapping mapping;
        /* Each address depends on the last answer, as a chase through memory does. */
        uint64_t page = (next_random() + (sum & 1)) % pages;
        must(table_translate(&work.table, work.base + page * PAGE_SIZE, &mapping), "translate");
        sum += mapping.out.v >> 50;
    }
    bench_keep(sum);
    return RANDOM_OPS;
}

/* Pages of the upper half of each 2 MiB, odd ones or any; those of the lower half keep their table
 * in being. */
static inline __attribute__((always_inline)) uint64_t map_and_unmap(uint64_t odd)
{
    struct table *table = &work.table;
    uint64_t base = work.base, tables = work.size / (2 * MiB);

    for (unsigned i = 0; i < RANDOM_OPS; i++) {
        struct flush_batch batch;
        uint64_t r = next_random();
        uint64_t at = (r % tables) * 2 * MiB + (256 + ((r >> 40) % 256 | odd)) * PAGE_SIZE;

        flush_begin(&batch, table);
        must(table_map(table, base + at, hpa(at), PAGE_SIZE, attrs, MAP_DEFAULT, &batch), "map");
        flush_commit(&batch);
        flush_begin(&batch, table);
        must(table_unmap(table, base + at, PAGE_SIZE, &batch), "unmap");
        flush_commit(&batch);
    }
    return RANDOM_OPS;
}

uint64_t work_lone(void)
{
    return map_and_unmap(0);
}

uint64_t work_beside(void)
{
    return map_and_unmap(1);
}

/* ---- Plain loops. Unrolled, and with a constant step, so that nothing but the stores bounds them.
 * ---- */

static inline __attribute__((always_inline)) void store_entries(uint64_t *to, uint64_t count,
                                                                uint64_t entry, unsigned shift)
{
#pragma GCC unroll 8
    for (uint64_t i = 0; i < count; i++)
        to[i] = entry + (i << shift);
    bench_keep(to);
}

uint64_t loop_store(void)
{
    const uint64_t entry = 0x8000000000000063;
    uint64_t count = work.size >> work.shift;

    if (work.shift == 12)
        store_entries(work.plain, count, entry, 12);
    else if (work.shift == 21)
        store_entries(work.plain, count, entry, 21);
    else
        store_entries(work.plain, count, entry, 30);
    return count;
}

uint64_t loop_zero_and_fill(void)
{
    for (uint64_t i = 0; i < SPLITS; i++) {
        uint64_t *table = work.plain + i * 512;
        memset(table, 0, PAGE_SIZE);
        bench_keep(table);
        store_entries(table, 512, 0x63 + (i << 21), 12);
    }
    return SPLITS;
}

uint64_t loop_four_loads(void)
{
    uint64_t pages = work.size / PAGE_SIZE, sum = 0;

    for (unsigned i = 0; i < RANDOM_OPS; i++) {
        uint64_t in = work.base + ((next_random() + (sum & 1)) % pages) * PAGE_SIZE;
        uint64_t *t = direct(work.table.root);
        for (unsigned shift = 39; shift > 12; shift -= 9)
            t = direct(hpa(t[in >> shift & 511] & BITS(51, 12)));
        sum += (t[in >> 12 & 511] & BITS(51, 12)) >> 50;
    }
    bench_keep(sum);
    return RANDOM_OPS;
}

uint64_t loop_random_store(void)
{
    for (unsigned i = 0; i < RANDOM_OPS; i++) {
        uint64_t r = next_random();
        uint64_t *slot = &work.leaf_tables[r % work.leaf_count][256 + (r >> 40) % 256];
        *(volatile uint64_t *)slot = 0;
    }
    return RANDOM_OPS;
}
