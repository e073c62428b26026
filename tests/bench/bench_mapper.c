/*
 * The mapper at the speed of memory: each operation beside a plain loop over the same entries. All
 * contracts are in what is measured; table frames come from the buddy, flushes go to an empty hook.
 *
 * Tables, records and the plain loops' array all lie in 2 MiB pages, as they do in the hypervisor,
 * whose direct map has large pages: between two sorts of page the rows would compare TLBs.
 */
#define _GNU_SOURCE
#include "tests/bench/mapper_work.h"

#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

#include "arch/x86_64/mm/ept.h"
#include "lib/panic.h"
#include "mm/frames/buddy.h"
#include "tests/bench/bench.h"

#define ARENA (640 * MiB)
#define OWNER 20

/* Memory in 2 MiB pages, present. */
static void *large_pages(uint64_t bytes)
{
    uint64_t size = align_up(bytes, 2 * MiB);
    char *at =
        mmap(NULL, size + 2 * MiB, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    if (at == MAP_FAILED)
        panic("no memory for %lu bytes", size);
    at = (char *)align_up((uint64_t)(uintptr_t)at, 2 * MiB);
    madvise(at, size, MADV_HUGEPAGE);
    memset(at, 0, size);
    return at;
}

/* One side of a row. */
struct side {
    void (*before)(void);
    uint64_t (*work)(void);
    void (*after)(void);
};

static double run(const struct side *side, uint64_t *units)
{
    if (side->before)
        side->before();
    double start = bench_now();
    *units = side->work();
    double time = bench_now() - start;
    if (side->after)
        side->after();
    return time;
}

struct row {
    struct side subject, bound;
};

static double run_subject(void *ctx, uint64_t *units)
{
    return run(&((const struct row *)ctx)->subject, units);
}

static double run_bound(void *ctx, uint64_t *units)
{
    return run(&((const struct row *)ctx)->bound, units);
}

static void row(const char *what, const char *bound_name, struct side subject, struct side bound,
                double limit)
{
    struct row row = {subject, bound};
    char name[64];

    snprintf(name, sizeof(name), "%s: %s", work.table.kind->name, what);
    bench_row(name, bound_name, run_subject, run_bound, &row, VERDICTS ? limit : 0);
}

static void sizes(uint64_t size, unsigned flags, unsigned shift)
{
    work.size = size;
    work.flags = flags;
    work.shift = shift;
}

static void run_rows(const struct table_kind *kind)
{
    const struct side map = {NULL, work_map, unmap_it}, store = {NULL, loop_store, NULL};
    const struct side map_cold = {make_cold, work_map, unmap_it};
    const struct side store_cold = {make_cold, loop_store, NULL};
    const struct side translate = {NULL, work_translate, NULL},
                      loads = {NULL, loop_four_loads, NULL};

    work_start(kind, OWNER);
    sizes(GiB, MAP_CAP_4K, 12);
    row("map 1 GiB of 4 KiB, one call, warm", "store loop", map, store, 1.3);
    sizes(64 * GiB, MAP_CAP_4K, 12);
    row("map 64 GiB of 4 KiB, one call, cold", "store loop, cold", map_cold, store_cold, 1.15);
    sizes(64 * GiB, MAP_CAP_2M, 21);
    row("map 64 GiB of 2 MiB", "store loop", map, store, 1.4);
    sizes(512 * GiB, MAP_DEFAULT, 30);
    row("map 512 GiB of 1 GiB", "store loop", map, store, 1.4);
    sizes(GiB, MAP_CAP_4K, 12);
    row("map 1 GiB of 4 KiB page by page", "store loop",
        (struct side){NULL, work_map_pages, unmap_it}, store, 20);
    row("unmap 1 GiB of 4 KiB, one call", "store loop", (struct side){map_it, work_unmap, NULL},
        store, 0.05);
    row("split of 2 MiB by a 4 KiB protect", "zero and fill",
        (struct side){map_it_2m, work_split, unmap_it},
        (struct side){NULL, loop_zero_and_fill, NULL}, 1.4);
    map_it();
    row("protect 1 GiB of 4 KiB, one call", "store loop", (struct side){NULL, work_protect, NULL},
        store, 3);
    row("translate at random in 1 GiB", "four dependent loads", translate, loads, 1.2);
    unmap_it();
    sizes(64 * GiB, MAP_CAP_4K, 12);
    map_it();
    row("translate at random in 64 GiB", "four dependent loads", translate, loads, 1.2);
    note_leaf_tables();
    uint64_t all = work.base, end = work.base + work.size;
    for (sizes(MiB, 0, 12), work.base += MiB; work.base < end; work.base += 2 * MiB)
        unmap_it();
    work.base = all;
    work.size = 64 * GiB;
    row("map and unmap a lone page in 64 GiB", "random store", (struct side){NULL, work_lone, NULL},
        (struct side){NULL, loop_random_store, NULL}, 12);
    /* With a page in each quarter of a table, it must be looked at. */
    for (sizes(PAGE_SIZE, 0, 12), work.base += MiB; work.base < end; work.base += 512 * KiB)
        if (work.base % (2 * MiB) >= MiB)
            map_it();
    work.base = all;
    work.size = 64 * GiB;
    row("map and unmap a page beside others", "random store",
        (struct side){NULL, work_beside, NULL}, (struct side){NULL, loop_random_store, NULL}, 0);
    work_end();
}

static void must(int error, const char *what)
{
    if (error)
        panic("%s: %d", what, error);
}

static void run_kind(const struct table_kind *kind)
{
    uint64_t metadata_size = align_up(buddy_metadata_size(ARENA), PAGE_SIZE);

    direct_base = (uint64_t)(uintptr_t)large_pages(ARENA);
    work.plain = large_pages(64 * GiB / PAGE_SIZE * sizeof(work.plain[0]));
    work.leaf_tables = large_pages(64 * GiB / (2 * MiB) * sizeof(work.leaf_tables[0]));
    work.other = large_pages(OTHER_BYTES);
    must(buddy_init(large_pages(metadata_size), metadata_size, ARENA), "buddy");
    must(buddy_add(hpa(PAGE_SIZE), ARENA - PAGE_SIZE), "arena");
    run_rows(kind);
}

/* A part for each kind: code that maps into a table is mostly written for one kind, so that its
 * calls have one target each. */
int main(int argc, char **argv)
{
    static const struct table_kind *const kinds[] = {&kernel_kind, &user_kind, &ept_kind};
    const char *part = bench_start("mapper, " INSTRUCTIONS, argc > 1 ? argv[1] : NULL);

    for (unsigned i = 0; i < ARRAY_SIZE(kinds); i++) {
        if (!part)
            bench_part(kinds[i]->name);
        else if (strcmp(part, kinds[i]->name) == 0)
            run_kind(kinds[i]);
    }
    return part ? 0 : bench_end();
}
