/*
 * The buddy beside a pair of empty functions, for what a call costs when everything is in cache,
 * and beside the buddy of the textbooks (textbook_buddy.h), for everything else. Owner records,
 * accounting and the checks against misuse are in what is measured; there is no path without them.
 * Locks are in use (locks_needed) on both sides.
 */
#define _GNU_SOURCE
#include "mm/frames/buddy.h"

#include <linux/membarrier.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "lib/lock.h"
#include "lib/panic.h"
#include "tests/bench/bench.h"
#include "tests/bench/textbook_buddy.h"

#define PAIRS 200000u
#define MIXED_FRAMES (UINT64_C(1) << 20) /* 4 GiB */
#define MIXED_ORDERS 10
#define MIXED_OPS 50000u
#define OWNER 20

/* What is driven: the buddy, the textbook one, or nothing at all. */
struct allocator {
    int (*alloc)(unsigned order, enum frame_purpose purpose, owner_t owner, hpa_t *out);
    int (*free)(hpa_t head, unsigned order, owner_t owner);
};

static __attribute__((noipa)) int empty_alloc(unsigned order, enum frame_purpose purpose,
                                              owner_t owner, hpa_t *out)
{
    (void)order;
    (void)purpose;
    (void)owner;
    *out = hpa(0);
    return E_OK;
}

static __attribute__((noipa)) int empty_free(hpa_t head, unsigned order, owner_t owner)
{
    (void)head;
    (void)order;
    (void)owner;
    return E_OK;
}

static struct textbook_buddy textbook_state;

static inline int textbook_take(unsigned order, enum frame_purpose purpose, owner_t owner,
                                hpa_t *out)
{
    (void)purpose;
    (void)owner;
    uint32_t block = textbook_alloc(&textbook_state, order);
    *out = hpa_of_pfn(block);
    return block == TEXTBOOK_NONE ? E_NOMEM : E_OK;
}

static inline int textbook_give(hpa_t head, unsigned order, owner_t owner)
{
    (void)owner;
    textbook_free(&textbook_state, (uint32_t)pfn_of(head), order);
    return E_OK;
}

static const struct allocator real = {buddy_alloc, buddy_free}, empty = {empty_alloc, empty_free};
static const struct allocator textbook = {textbook_take, textbook_give};

/* So that each row has its allocator's calls in its loop, direct ones. */
#define in_line static inline __attribute__((always_inline))

static uint64_t seed;
static hpa_t *blocks; /* what a row holds */
static struct textbook_frame *textbook_frames;
static uint64_t frames; /* of the row at hand */
static unsigned row_order, row_percent;

static inline uint64_t next_random(void)
{
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return seed;
}

static inline void must(int error, const char *what)
{
    if (error)
        panic("%s: %d", what, error);
}

static void *reserve(uint64_t size)
{
    void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED)
        panic("no memory for the measurement");
    return memory;
}

static void start(uint64_t ram)
{
    static void *metadata;
    static uint64_t size;

    if (metadata != NULL)
        munmap(metadata, size);
    size = buddy_metadata_size(ram);
    metadata = reserve(size);
    must(buddy_init(metadata, size, ram), "init");
    must(buddy_add(hpa(0), ram), "add");
    frames = ram / PAGE_SIZE;
    textbook_start(&textbook_state, textbook_frames, (uint32_t)frames);
}

/* ---- Pairs ---- */

in_line double pairs(const struct allocator *allocator)
{
    double begin = bench_now();
    for (unsigned i = 0; i < PAIRS; i++) {
        hpa_t block;
        must(allocator->alloc(row_order, PURPOSE_TEST, OWNER, &block), "alloc");
        must(allocator->free(block, row_order, OWNER), "free");
    }
    return bench_now() - begin;
}

static double real_pairs(void *ctx, uint64_t *units)
{
    (void)ctx;
    *units = PAIRS;
    return pairs(&real);
}

static double empty_pairs(void *ctx, uint64_t *units)
{
    (void)ctx;
    *units = PAIRS;
    return pairs(&empty);
}

/* ---- Bulk ---- */

static void shuffle(void)
{
    for (uint64_t i = frames - 1; i > 0; i--) {
        uint64_t j = next_random() % (i + 1);
        hpa_t block = blocks[i];
        blocks[i] = blocks[j];
        blocks[j] = block;
    }
}

in_line double take_all(const struct allocator *allocator)
{
    double begin = bench_now();
    for (uint64_t i = 0; i < frames; i++)
        must(allocator->alloc(0, PURPOSE_TEST, OWNER, &blocks[i]), "alloc");
    double time = bench_now() - begin;
    for (uint64_t i = 0; i < frames; i++)
        must(allocator->free(blocks[i], 0, OWNER), "free");
    return time;
}

in_line double free_shuffled(const struct allocator *allocator)
{
    for (uint64_t i = 0; i < frames; i++)
        must(allocator->alloc(0, PURPOSE_TEST, OWNER, &blocks[i]), "alloc");
    shuffle();
    double begin = bench_now();
    for (uint64_t i = 0; i < frames; i++)
        must(allocator->free(blocks[i], 0, OWNER), "free");
    return bench_now() - begin;
}

static double real_take_all(void *ctx, uint64_t *units)
{
    (void)ctx;
    *units = frames;
    return take_all(&real);
}

static double textbook_take_all(void *ctx, uint64_t *units)
{
    (void)ctx;
    *units = frames;
    return take_all(&textbook);
}

static double real_free_shuffled(void *ctx, uint64_t *units)
{
    (void)ctx;
    *units = frames;
    return free_shuffled(&real);
}

static double textbook_free_shuffled(void *ctx, uint64_t *units)
{
    (void)ctx;
    *units = frames;
    return free_shuffled(&textbook);
}

/* The same by lists, as who empties a guest or a table does. */
#define LIST 512u

static double free_lists_shuffled(void *ctx, uint64_t *units)
{
    (void)ctx;
    *units = frames;
    for (uint64_t i = 0; i < frames; i++)
        must(buddy_alloc(0, PURPOSE_TEST, OWNER, &blocks[i]), "alloc");
    shuffle();
    double begin = bench_now();
    for (uint64_t i = 0; i < frames; i += LIST)
        must(buddy_free_frames(&blocks[i], LIST, OWNER), "free");
    return bench_now() - begin;
}

/* ---- Mixed orders ---- */

struct live {
    hpa_t block;
    uint64_t order;
};
static struct live *live;

/* Fills to a share of memory with blocks of orders 0 to 9, then replaces blocks at random. */
in_line double mixed(const struct allocator *allocator)
{
    uint64_t target = frames * row_percent / 100, used = 0, n = 0, ops = 0;
    double begin = 0;

    seed = 88172645463325252ull;
    for (;;) {
        while (used < target) {
            unsigned order = (unsigned)(next_random() >> 20) % MIXED_ORDERS;
            must(allocator->alloc(order, PURPOSE_TEST, OWNER, &live[n].block), "alloc");
            live[n++].order = order;
            used += UINT64_C(1) << order;
        }
        if (ops == 0)
            begin = bench_now();
        if (ops++ == MIXED_OPS)
            break;
        uint64_t i = (next_random() >> 20) % n;
        must(allocator->free(live[i].block, (unsigned)live[i].order, OWNER), "free");
        used -= UINT64_C(1) << live[i].order;
        live[i] = live[--n];
    }
    double time = bench_now() - begin;
    while (n-- > 0)
        must(allocator->free(live[n].block, (unsigned)live[n].order, OWNER), "free");
    return time;
}

static double real_mixed(void *ctx, uint64_t *units)
{
    (void)ctx;
    *units = MIXED_OPS;
    return mixed(&real);
}

static double textbook_mixed(void *ctx, uint64_t *units)
{
    (void)ctx;
    *units = MIXED_OPS;
    return mixed(&textbook);
}

/* ---- Two threads ---- */

static _Thread_local unsigned my_cpu;
static double thread_time[2];
static pthread_barrier_t barrier;

static unsigned current_cpu(void)
{
    return my_cpu;
}

static void fence(void)
{
    if (syscall(SYS_membarrier, MEMBARRIER_CMD_PRIVATE_EXPEDITED, 0, 0) != 0)
        panic("membarrier");
}

static void *pairs_of_thread(void *ctx)
{
    my_cpu = *(unsigned *)ctx;
    bench_pin(my_cpu);
    pthread_barrier_wait(&barrier);
    thread_time[my_cpu] = pairs(&real);
    return NULL;
}

static double two_threads(void *ctx, uint64_t *units)
{
    static unsigned number[2] = {0, 1};
    pthread_t thread[2];

    (void)ctx;
    *units = PAIRS;
    pthread_barrier_init(&barrier, NULL, 2);
    for (unsigned i = 0; i < 2; i++)
        must(pthread_create(&thread[i], NULL, pairs_of_thread, &number[i]), "thread");
    for (unsigned i = 0; i < 2; i++)
        pthread_join(thread[i], NULL);
    pthread_barrier_destroy(&barrier);
    return thread_time[0] > thread_time[1] ? thread_time[0] : thread_time[1];
}

/* ---- Starting ---- */

static double init(uint64_t ram, uint64_t *units)
{
    uint64_t size = buddy_metadata_size(ram);
    void *metadata = reserve(size);

    *units = 1;
    double begin = bench_now();
    must(buddy_init(metadata, size, ram), "init");
    must(buddy_add(hpa(0), 0x9f000), "add");
    must(buddy_add(hpa(MiB), 3 * GiB - MiB), "add");
    must(buddy_add(hpa(4 * GiB), ram - 4 * GiB), "add");
    double time = bench_now() - begin;
    munmap(metadata, size);
    return time;
}

static double init_large(void *ctx, uint64_t *units)
{
    (void)ctx;
    return init(TiB, units);
}

static double init_small(void *ctx, uint64_t *units)
{
    (void)ctx;
    return init(16 * GiB, units);
}

/* One frame a call, all of memory; and by lists, which the textbook does not have. */
static void bulk_rows(const char *size)
{
    char name[64];
    snprintf(name, sizeof(name), "%s in 4 KiB frames", size);
    bench_row(name, "textbook", real_take_all, textbook_take_all, NULL, 1);
    snprintf(name, sizeof(name), "%s freed at random", size);
    bench_row(name, "textbook", real_free_shuffled, textbook_free_shuffled, NULL, 1);
    snprintf(name, sizeof(name), "%s freed at random, lists of %u", size, LIST);
    bench_row(name, "textbook", free_lists_shuffled, textbook_free_shuffled, NULL, 1);
}

int main(int argc, char **argv)
{
    const uint64_t most = 16 * GiB / PAGE_SIZE;

    seed = 88172645463325252ull;
    blocks = reserve(most * sizeof(*blocks));
    textbook_frames = reserve(most * sizeof(*textbook_frames));
    live = reserve(MIXED_FRAMES * sizeof(*live));
    memset(blocks, 0, most * sizeof(*blocks));
    memset(live, 0, MIXED_FRAMES * sizeof(*live));
    bench_start("buddy", argc > 1 ? argv[1] : NULL);

    locks_needed = true;
    start(GiB);
    bench_row("4 KiB pair, hot", "empty functions", real_pairs, empty_pairs, NULL, 2.2);
    bulk_rows("1 GiB");
    /* Of each 2 MiB of one half every second frame; of the other nothing. */
    start(GiB);
    for (uint64_t i = 0; i < frames / 2; i += 2)
        must(buddy_alloc_at(hpa_of_pfn(i), 0, PURPOSE_TEST, OWNER), "fragment");
    row_order = 9;
    bench_row("2 MiB pair, fragmented", "empty functions", real_pairs, empty_pairs, NULL, 4);
    row_order = 0;
    start(MIXED_FRAMES * PAGE_SIZE);
    row_percent = 50;
    bench_row("orders 0 to 9, half full", "textbook", real_mixed, textbook_mixed, NULL, 1.2);
    row_percent = 90;
    bench_row("orders 0 to 9, 90 % full", "textbook", real_mixed, textbook_mixed, NULL, 1.2);
    start(16 * GiB);
    bulk_rows("16 GiB");

    if (sysconf(_SC_NPROCESSORS_ONLN) > 1 &&
        syscall(SYS_membarrier, MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED, 0, 0) == 0) {
        must(buddy_set_cpus(current_cpu, fence), "CPUs");
        start(GiB);
        bench_row("4 KiB pair, hot, several CPUs", "empty functions", real_pairs, empty_pairs, NULL,
                  0);
        bench_row("4 KiB pair, each of two threads", "one thread", two_threads, real_pairs, NULL,
                  1.5);
        must(buddy_set_cpus(NULL, NULL), "CPUs");
    }
    bench_row("start with 1 TiB", "start with 16 GiB", init_large, init_small, NULL, 64);
    return bench_end();
}
