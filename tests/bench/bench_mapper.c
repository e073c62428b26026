/*
 * The mapper at the speed of memory: each operation beside a plain loop over the same entries. All
 * contracts are in what is measured; table frames come from the buddy, flushes go to an empty hook.
 *
 * Tables, records and the plain loops' array all lie in 2 MiB pages, as they do in the hypervisor,
 * whose direct map has large pages: between two sorts of page the rows would compare TLBs.
 */
#define _GNU_SOURCE
#include "tests/bench/mapper_work.h"

#include <linux/membarrier.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "arch/x86_64/mm/ept.h"
#include "lib/panic.h"
#include "mm/frames/buddy.h"
#include "tests/bench/bench.h"

#define ARENA (640 * MiB)
#define OWNER 20

static void must(int error, const char *what)
{
    if (error)
        panic("%s: %d", what, error);
}

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

/* ---- Two threads, each with a table of its own ---- */

static struct {
    _Alignas(128) struct table table; /* a line of its own */
} table_of[2];
static double thread_time[2];
static pthread_barrier_t barrier;
static _Thread_local unsigned my_cpu;

static unsigned current_cpu(void)
{
    return my_cpu;
}

static void fence(void)
{
    if (syscall(SYS_membarrier, MEMBARRIER_CMD_PRIVATE_EXPEDITED, 0, 0) != 0)
        panic("membarrier");
}

static void *map_and_unmap(void *ctx)
{
    struct table_cursor *c = malloc(sizeof(*c));

    my_cpu = *(unsigned *)ctx;
    bench_pin(my_cpu);
    pthread_barrier_wait(&barrier);
    double start = bench_now();
    cursor_map_pages(&table_of[my_cpu].table, c);
    cursor_unmap_pages(&table_of[my_cpu].table, c);
    thread_time[my_cpu] = bench_now() - start;
    free(c);
    return NULL;
}

/* The slower of `threads` threads. */
static double run_threads(unsigned threads, uint64_t *units)
{
    static unsigned number[2] = {0, 1};
    pthread_t thread[2];
    double longest = 0;

    *units = work.size / PAGE_SIZE;
    pthread_barrier_init(&barrier, NULL, threads);
    for (unsigned i = 0; i < threads; i++)
        if (pthread_create(&thread[i], NULL, map_and_unmap, &number[i]) != 0)
            panic("no thread");
    for (unsigned i = 0; i < threads; i++) {
        pthread_join(thread[i], NULL);
        longest = thread_time[i] > longest ? thread_time[i] : longest;
    }
    pthread_barrier_destroy(&barrier);
    return longest;
}

static double run_both(void *ctx, uint64_t *units)
{
    (void)ctx;
    return run_threads(2, units);
}

static double run_one(void *ctx, uint64_t *units)
{
    (void)ctx;
    return run_threads(1, units);
}

static void two_tables(const struct table_kind *kind)
{
    char name[64];

    if (sysconf(_SC_NPROCESSORS_ONLN) < 2)
        return;
    syscall(SYS_membarrier, MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED, 0, 0);
    must(buddy_set_cpus(current_cpu, fence), "CPUs");
    for (unsigned i = 0; i < 2; i++)
        table_start(&table_of[i].table, kind, OWNER + 1 + i);
    snprintf(name, sizeof(name), "%s: two threads, a table each, by cursors", kind->name);
    bench_row(name, "one thread", run_both, run_one, NULL, VERDICTS ? 1.1 : 0);
    for (unsigned i = 0; i < 2; i++)
        must(table_destroy(&table_of[i].table), "destroy");
    must(buddy_set_cpus(NULL, NULL), "CPUs");
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
    row("unmap 1 GiB of 4 KiB, one call", "store loop", (struct side){map_it, work_unmap, NULL},
        store, 0.06);
    row("split of 2 MiB by a 4 KiB protect", "zero and fill",
        (struct side){map_it_2m, work_split, unmap_it},
        (struct side){NULL, loop_zero_and_fill, NULL}, 1.4);
    map_it();
    row("protect 1 GiB of 4 KiB, one call", "store loop", (struct side){NULL, work_protect, NULL},
        store, 3);
    row("translate at random in 1 GiB", "four dependent loads", translate, loads, 1.2);
    note_leaf_tables();
    row("protect 1 GiB page by page, by a cursor", "loop of locked exchanges",
        (struct side){NULL, work_cursor_protect, NULL}, (struct side){NULL, loop_exchange, NULL},
        1.5);
    row("harvest 1 GiB of 4 KiB, all set", "loop of locked ANDs",
        (struct side){set_marks, work_harvest, NULL}, (struct side){set_marks, loop_clear, NULL},
        2);
    row("harvest 1 GiB of 4 KiB, nothing set", "loop that reads",
        (struct side){NULL, work_harvest, NULL}, (struct side){NULL, loop_read, NULL}, 1.2);
    row("translate 1 GiB page by page, by a cursor", "store loop",
        (struct side){NULL, work_cursor_translate, NULL}, store, 27);
    unmap_it();
    row("map 1 GiB page by page, by a cursor", "store loop",
        (struct side){NULL, work_cursor_map, unmap_it}, store, 12);
    row("unmap 1 GiB page by page, by a cursor", "store loop",
        (struct side){map_it, work_cursor_unmap, NULL}, store, 12);
    two_tables(kind);
    sizes(64 * GiB, MAP_CAP_4K, 12);
    map_it();
    row("translate at random in 64 GiB", "four dependent loads", translate, loads, 1.2);
    /* Pages in the lower half of each 2 MiB keep their nodes in being. */
    uint64_t all = work.base, end = work.base + work.size;
    for (sizes(MiB, 0, 12), work.base += MiB; work.base < end; work.base += 2 * MiB)
        unmap_it();
    work.base = all;
    work.size = 64 * GiB;
    const struct side lone = {NULL, loop_lone, NULL};
    const char *lone_bound = "walk, exchange, lock";
    row("map a lone page in 64 GiB", lone_bound,
        (struct side){lone_pages_next, work_lone_map, lone_pages_out}, lone, 1.4);
    row("unmap a lone page in 64 GiB", lone_bound,
        (struct side){lone_pages_in, work_lone_unmap, NULL}, lone, 1.4);
    row("protect a lone page in 64 GiB", lone_bound,
        (struct side){lone_pages_in, work_lone_protect, lone_pages_out}, lone, 1.4);
    row("a lone page whose three nodes come and go", "zero three nodes",
        (struct side){NULL, work_lone_nodes, NULL}, (struct side){NULL, loop_zero_three, NULL}, 2);
    work_end();
}

static void run_kind(const struct table_kind *kind)
{
    uint64_t metadata_size = align_up(buddy_metadata_size(ARENA), PAGE_SIZE);

    locks_needed = true; /* as with several CPUs */
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
    static const struct table_kind *const kinds[] = {&kernel_kind, &user_kind, &ept_kind,
                                                     &npt_kind};
    const char *part = bench_start("mapper, " INSTRUCTIONS, argc > 1 ? argv[1] : NULL);

    for (unsigned i = 0; i < ARRAY_SIZE(kinds); i++) {
        if (!part)
            bench_part(kinds[i]->name);
        else if (strcmp(part, kinds[i]->name) == 0)
            run_kind(kinds[i]);
    }
    return part ? 0 : bench_end();
}
