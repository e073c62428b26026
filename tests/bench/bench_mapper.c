/*
 * The mapper at the speed of memory: each operation beside a plain loop over the same entries. All
 * contracts are in what is measured; table frames come from the buddy, flushes go to an empty hook.
 */
#define _GNU_SOURCE
#include "mm/table.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "arch/x86_64/mm/ept.h"
#include "arch/x86_64/vmx/vmcs.h"
#include "lib/panic.h"
#include "mm/buddy.h"
#include "tests/bench/bench.h"

#define ARENA (640 * MiB)
#define OWNER 20
#define RANDOM_OPS 100000

int vmcs_read(uint32_t field, uint64_t *out)
{
    (void)field;
    (void)out;
    return E_STATE;
}

int vmcs_write(uint32_t field, uint64_t value)
{
    (void)field;
    (void)value;
    return E_STATE;
}

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

static struct table table;
static uint64_t *plain;     /* as many entries as the largest row stores */
static uint64_t base, size; /* of the row at hand */
static unsigned row_flags, row_shift;
static const struct attrs attrs = {RIGHT_RW, MEM_WB};
static uint64_t seed = 88172645463325252ull;

static inline uint64_t next_random(void)
{
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return seed;
}

static void must(int error, const char *what)
{
    if (error)
        panic("%s: %d", what, error);
}

static void map_all(unsigned flags)
{
    struct flush_batch batch;

    flush_begin(&batch, &table);
    must(table_map(&table, base, hpa(0), size, attrs, flags, &batch), "map");
    flush_commit(&batch);
}

static void unmap_all(void)
{
    struct flush_batch batch;

    flush_begin(&batch, &table);
    must(table_unmap(&table, base, size, &batch), "unmap");
    flush_commit(&batch);
}

static double run_map(void *ctx, uint64_t *units)
{
    (void)ctx;
    *units = size >> row_shift;
    double start = bench_now();
    map_all(row_flags);
    double time = bench_now() - start;
    unmap_all();
    return time;
}

static double store_loop(void *ctx, uint64_t *units)
{
    uint64_t n = size >> row_shift;

    (void)ctx;
    *units = n;
    double start = bench_now();
    uint64_t entry = 0x8000000000000063;
    for (uint64_t i = 0; i < n; i++)
        plain[i] = entry + (i << row_shift);
    bench_keep(plain);
    return bench_now() - start;
}

/* Tables that nobody has touched lately: the arena's far end is walked through first. */
static void make_cold(void)
{
    static volatile uint8_t *other;
    const uint64_t bytes = 256 * MiB;

    if (!other)
        other = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
    for (uint64_t i = 0; i < bytes; i += 64)
        other[i]++;
}

static double run_map_cold(void *ctx, uint64_t *units)
{
    make_cold();
    return run_map(ctx, units);
}

static double store_loop_cold(void *ctx, uint64_t *units)
{
    make_cold();
    return store_loop(ctx, units);
}

static double run_map_pages(void *ctx, uint64_t *units)
{
    uint64_t n = size / PAGE_SIZE;

    (void)ctx;
    *units = n;
    double start = bench_now();
    for (uint64_t i = 0; i < n; i++) {
        struct flush_batch batch;
        flush_begin(&batch, &table);
        must(table_map(&table, base + i * PAGE_SIZE, hpa(i * PAGE_SIZE), PAGE_SIZE, attrs,
                       MAP_CAP_4K, &batch),
             "map a page");
        flush_commit(&batch);
    }
    double time = bench_now() - start;
    unmap_all();
    return time;
}

static double run_unmap(void *ctx, uint64_t *units)
{
    (void)ctx;
    *units = size >> row_shift;
    map_all(row_flags);
    double start = bench_now();
    unmap_all();
    return bench_now() - start;
}

static double run_translate(void *ctx, uint64_t *units)
{
    uint64_t pages = size / PAGE_SIZE, sum = 0;

    (void)ctx;
    *units = RANDOM_OPS;
    double start = bench_now();
    for (unsigned i = 0; i < RANDOM_OPS; i++) {
        struct mapping mapping;
        /* Each address depends on the last answer, as a chase through memory does. */
        uint64_t page = (next_random() + (sum & 1)) % pages;
        must(table_translate(&table, base + page * PAGE_SIZE, &mapping), "translate");
        sum += mapping.out.v >> 50;
    }
    bench_keep(sum);
    return bench_now() - start;
}

static double four_loads(void *ctx, uint64_t *units)
{
    uint64_t pages = size / PAGE_SIZE, sum = 0;

    (void)ctx;
    *units = RANDOM_OPS;
    double start = bench_now();
    for (unsigned i = 0; i < RANDOM_OPS; i++) {
        uint64_t in = base + ((next_random() + (sum & 1)) % pages) * PAGE_SIZE;
        uint64_t *t = direct(table.root);
        for (unsigned shift = 39; shift > 12; shift -= 9)
            t = direct(hpa(t[in >> shift & 511] & BITS(51, 12)));
        sum += (t[in >> 12 & 511] & BITS(51, 12)) >> 50;
    }
    bench_keep(sum);
    return bench_now() - start;
}

#define SPLITS 512

static double run_split(void *ctx, uint64_t *units)
{
    (void)ctx;
    *units = SPLITS;
    map_all(MAP_CAP_2M);
    double start = bench_now();
    for (unsigned i = 0; i < SPLITS; i++) {
        struct flush_batch batch;
        flush_begin(&batch, &table);
        must(table_protect(&table, base + i * 2 * MiB + 17 * PAGE_SIZE, PAGE_SIZE,
                           attrs_of(RIGHT_R, MEM_WB), &batch),
             "protect");
        flush_commit(&batch);
    }
    double time = bench_now() - start;
    unmap_all();
    return time;
}

static double zero_and_fill(void *ctx, uint64_t *units)
{
    (void)ctx;
    *units = SPLITS;
    double start = bench_now();
    for (unsigned i = 0; i < SPLITS; i++) {
        uint64_t *t = plain + i * 512;
        memset(t, 0, PAGE_SIZE);
        bench_keep(t);
        for (unsigned j = 0; j < 512; j++)
            t[j] = 0x63 + ((uint64_t)i << 21) + ((uint64_t)j << 12);
        bench_keep(t);
    }
    return bench_now() - start;
}

static double run_protect(void *ctx, uint64_t *units)
{
    struct flush_batch batch;
    static bool writable = true;

    (void)ctx;
    *units = size >> row_shift;
    writable = !writable;
    double start = bench_now();
    flush_begin(&batch, &table);
    must(table_protect(&table, base, size, attrs_of(writable ? RIGHT_RW : RIGHT_R, MEM_WB), &batch),
         "protect");
    flush_commit(&batch);
    return bench_now() - start;
}

/* Pages of the upper part of each 2 MiB; a page of the lower part keeps its table in being. */
static double run_lone(void *ctx, uint64_t *units)
{
    uint64_t tables = size / (2 * MiB);

    (void)ctx;
    *units = RANDOM_OPS;
    double start = bench_now();
    for (unsigned i = 0; i < RANDOM_OPS; i++) {
        struct flush_batch batch;
        uint64_t r = next_random();
        uint64_t at = base + (r % tables) * 2 * MiB + (256 + (r >> 40) % 256) * PAGE_SIZE;

        flush_begin(&batch, &table);
        must(table_map(&table, at, hpa(at - base), PAGE_SIZE, attrs, MAP_DEFAULT, &batch), "map");
        flush_commit(&batch);
        flush_begin(&batch, &table);
        must(table_unmap(&table, at, PAGE_SIZE, &batch), "unmap");
        flush_commit(&batch);
    }
    return bench_now() - start;
}

static uint64_t **leaf_tables;

static double random_store(void *ctx, uint64_t *units)
{
    uint64_t tables = size / (2 * MiB);

    (void)ctx;
    *units = RANDOM_OPS;
    double start = bench_now();
    for (unsigned i = 0; i < RANDOM_OPS; i++) {
        uint64_t r = next_random();
        uint64_t *slot = &leaf_tables[r % tables][256 + (r >> 40) % 256];
        *(volatile uint64_t *)slot = 0;
    }
    return bench_now() - start;
}

static int collect(void *ctx, hpa_t frame, unsigned level, unsigned slots)
{
    uint64_t *n = ctx;

    (void)slots;
    if (level == 1)
        leaf_tables[(*n)++] = direct(frame);
    return 0;
}

static void start_table(const struct table_kind *kind)
{
    struct table_caps caps = {.maxphyaddr = 46,
                              .leaf_top = 3,
                              .nx = true,
                              .accessed_dirty = true,
                              .execute_only = true,
                              .global = true,
                              .mem_types = 1 << MEM_UC | 1 << MEM_WB};
    must(table_init(&table, kind, &caps, &env, PURPOSE_TEST, OWNER), "init");
    base = kind->id == KIND_KERNEL ? kind->input_first : 512 * GiB;
}

static void row(const char *kind, const char *what, const char *bound_name, bench_fn subject,
                bench_fn bound, double limit)
{
    char name[64];

    snprintf(name, sizeof(name), "%s: %s", kind, what);
    bench_row(name, bound_name, subject, bound, NULL, limit);
}

static void run_kind(const struct table_kind *kind)
{
    const char *k = kind->name;
    uint64_t n = 0;

    start_table(kind);
    size = GiB, row_flags = MAP_CAP_4K, row_shift = 12;
    row(k, "map 1 GiB of 4 KiB, one call, warm", "store loop", run_map, store_loop, 1.3);
    size = 64 * GiB;
    row(k, "map 64 GiB of 4 KiB, one call, cold", "store loop, cold", run_map_cold, store_loop_cold,
        1.15);
    row_flags = MAP_CAP_2M, row_shift = 21;
    row(k, "map 64 GiB of 2 MiB", "store loop", run_map, store_loop, 1.4);
    size = 512 * GiB, row_flags = MAP_DEFAULT, row_shift = 30;
    row(k, "map 512 GiB of 1 GiB", "store loop", run_map, store_loop, 1.4);
    size = GiB, row_flags = MAP_CAP_4K, row_shift = 12;
    row(k, "map 1 GiB of 4 KiB page by page", "store loop", run_map_pages, store_loop, 20);
    row(k, "unmap 1 GiB of 4 KiB, one call", "store loop", run_unmap, store_loop, 0.05);
    row(k, "split of 2 MiB by a 4 KiB protect", "zero and fill", run_split, zero_and_fill, 1.4);
    map_all(MAP_CAP_4K);
    row(k, "protect 1 GiB of 4 KiB, one call", "store loop", run_protect, store_loop, 3);
    row(k, "translate at random in 1 GiB", "four dependent loads", run_translate, four_loads, 1.2);
    unmap_all();
    size = 64 * GiB;
    map_all(MAP_CAP_4K);
    row(k, "translate at random in 64 GiB", "four dependent loads", run_translate, four_loads, 1.2);
    leaf_tables = malloc(size / (2 * MiB) * sizeof(leaf_tables[0]));
    table_visit_frames(&table, collect, &n);
    for (uint64_t at = base; at < base + size; at += 2 * MiB) {
        struct flush_batch batch;
        flush_begin(&batch, &table);
        must(table_unmap(&table, at + MiB, MiB, &batch), "unmap");
        flush_commit(&batch);
    }
    row(k, "map and unmap a lone page in 64 GiB", "random store", run_lone, random_store, 12);
    free(leaf_tables);
    must(table_destroy(&table), "destroy");
}

int main(int argc, char **argv)
{
    uint64_t metadata_size = align_up(buddy_metadata_size(ARENA), PAGE_SIZE);
    void *arena = mmap(NULL, ARENA, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);

    madvise(arena, ARENA, MADV_HUGEPAGE);
    plain = mmap(NULL, 64 * GiB / PAGE_SIZE * 8, PROT_READ | PROT_WRITE,
                 MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
    bench_start("mapper", argc > 1 ? argv[1] : NULL);
    direct_base = (uint64_t)(uintptr_t)arena;
    must(buddy_init(aligned_alloc(PAGE_SIZE, metadata_size), metadata_size, ARENA), "buddy");
    must(buddy_add(hpa(PAGE_SIZE), ARENA - PAGE_SIZE), "arena");
    run_kind(&kernel_kind);
    run_kind(&user_kind);
    run_kind(&ept_kind);
    return bench_end();
}
