/* See mapper_work.h. */
#include "tests/bench/mapper_work.h"

#include "lib/panic.h"
#include "lib/string.h"
#include "mm/frames/buddy.h"
#include "tests/bench/bench.h"

#define RANDOM_OPS 100000
#define SPLITS 512
#define NODE_OPS 10000

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

void table_start(struct table *table, const struct table_kind *kind, owner_t owner)
{
    struct table_caps caps = {.maxphyaddr = 46,
                              .leaf_top = 3,
                              .nx = true,
                              .accessed_dirty = true,
                              .execute_only = true,
                              .global = true,
                              .mem_types = 1 << MEM_UC | 1 << MEM_WB};
    must(table_init(table, kind, &caps, &env, PURPOSE_TEST, owner), "init");
}

void work_start(const struct table_kind *kind, owner_t owner)
{
    table_start(&work.table, kind, owner);
    work.base = kind->id == KIND_KERNEL ? kind->input_first : 512 * GiB;
}

void work_end(void)
{
    must(table_destroy(&work.table), "destroy");
}

static enum node_verdict note_leaf_table(void *ctx, const struct table_node *node)
{
    (void)ctx;
    if (node->level == 1)
        work.leaf_tables[work.leaf_count++] = direct(node->frame);
    return NODE_ENTER;
}

void note_leaf_tables(void)
{
    work.leaf_count = 0;
    table_visit_nodes(&work.table, note_leaf_table, NULL);
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

/* ---- Page by page, by a cursor ---- */

static struct table_cursor cursor;

static void begin_cursor(struct table *table)
{
    must(table_cursor_begin(&cursor, table, work.base, work.base + work.size - 1), "cursor");
}

uint64_t work_cursor_map(void)
{
    return cursor_map_pages(&work.table, &cursor);
}

/* Also for a thread with a table and a cursor of its own. */
uint64_t cursor_map_pages(struct table *table, struct table_cursor *c)
{
    must(table_cursor_begin(c, table, work.base, work.base + work.size - 1), "cursor");
    for (uint64_t at = 0; at < work.size; at += PAGE_SIZE)
        must(table_cursor_map(c, hpa(at), attrs), "map a page");
    table_cursor_end(c);
    return work.size / PAGE_SIZE;
}

uint64_t cursor_unmap_pages(struct table *table, struct table_cursor *c)
{
    must(table_cursor_begin(c, table, work.base, work.base + work.size - 1), "cursor");
    for (uint64_t at = 0; at < work.size; at += PAGE_SIZE)
        must(table_cursor_unmap(c), "unmap a page");
    table_cursor_end(c);
    return work.size / PAGE_SIZE;
}

uint64_t work_cursor_unmap(void)
{
    return cursor_unmap_pages(&work.table, &cursor);
}

uint64_t work_cursor_protect(void)
{
    static bool writable = true;

    writable = !writable;
    begin_cursor(&work.table);
    for (uint64_t at = 0; at < work.size; at += PAGE_SIZE)
        must(table_cursor_protect(&cursor, attrs_of(writable ? RIGHT_RW : RIGHT_R, MEM_WB)),
             "protect a page");
    table_cursor_end(&cursor);
    return work.size / PAGE_SIZE;
}

uint64_t work_cursor_translate(void)
{
    struct mapping mapping;
    uint64_t sum = 0;

    begin_cursor(&work.table);
    while (table_cursor_next(&cursor, &mapping) == E_OK) {
        sum += mapping.out.v ^ mapping.last;
        bench_keep(&mapping); /* all of it is made */
    }
    table_cursor_end(&cursor);
    bench_keep(sum);
    return work.size / PAGE_SIZE;
}

/* ---- Lone pages at random, in tables that are there ---- */

#define LONE_PAGES (UINT64_C(1) << 23) /* of 64 GiB: the upper half of each 2 MiB */

static uint64_t lone_seed, lone_next;

/* Each page once in LONE_PAGES calls: a full cycle, without a stride that a CPU could foresee. It
 * is known only with the last answer (which is 0), on both sides of a row: a lone page's caller has
 * no other page that the CPU could begin with meanwhile. */
static inline uint64_t next_lone(uint64_t answer)
{
    lone_next = ((lone_next + answer) * 6364136223846793005u + 1442695040888963407u) % LONE_PAGES;
    uint64_t page = lone_next ^ lone_next >> 11;
    return (page / 256 * 2 * MiB) + (256 + page % 256) * PAGE_SIZE;
}

static void each_lone(int (*op)(struct table *table, uint64_t at, struct flush_batch *batch))
{
    struct table *table = &work.table;
    int answer = 0;

    lone_next = lone_seed;
    for (unsigned i = 0; i < RANDOM_OPS; i++) {
        struct flush_batch batch;

        flush_begin(&batch, table);
        answer |= op(table, next_lone((uint64_t)answer), &batch);
        flush_commit(&batch);
    }
    must(answer, "a lone page");
}

static int lone_map(struct table *table, uint64_t at, struct flush_batch *batch)
{
    return table_map(table, work.base + at, hpa(at), PAGE_SIZE, attrs, MAP_DEFAULT, batch);
}

static int lone_unmap(struct table *table, uint64_t at, struct flush_batch *batch)
{
    return table_unmap(table, work.base + at, PAGE_SIZE, batch);
}

static int lone_protect(struct table *table, uint64_t at, struct flush_batch *batch)
{
    return table_protect(table, work.base + at, PAGE_SIZE, attrs_of(RIGHT_R, MEM_WB), batch);
}

uint64_t work_lone_map(void)
{
    each_lone(lone_map);
    return RANDOM_OPS;
}

uint64_t work_lone_unmap(void)
{
    each_lone(lone_unmap);
    return RANDOM_OPS;
}

uint64_t work_lone_protect(void)
{
    each_lone(lone_protect);
    return RANDOM_OPS;
}

void lone_pages_in(void)
{
    lone_seed = next_random() % LONE_PAGES; /* other ones than last time */
    each_lone(lone_map);
}

void lone_pages_next(void)
{
    lone_seed = next_random() % LONE_PAGES;
}

void lone_pages_out(void)
{
    each_lone(lone_unmap);
}

/* A page whose three nodes come and go with it. */
uint64_t work_lone_nodes(void)
{
    uint64_t in = work.base + 512 * GiB;

    for (unsigned i = 0; i < NODE_OPS; i++) {
        struct flush_batch batch;

        flush_begin(&batch, &work.table);
        must(table_map(&work.table, in, hpa(0), PAGE_SIZE, attrs, MAP_DEFAULT, &batch), "map");
        flush_commit(&batch);
        flush_begin(&batch, &work.table);
        must(table_unmap(&work.table, in, PAGE_SIZE, &batch), "unmap");
        flush_commit(&batch);
    }
    return NODE_OPS;
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

/* What a lone page cannot do without: the walk, one exchange, and a lock that nobody else wants. */
uint64_t loop_lone(void)
{
    static struct lock lock = LOCK_INIT;
    uint64_t answer = 0;

    lone_next = lone_seed;
    for (unsigned i = 0; i < RANDOM_OPS; i++) {
        uint64_t in = work.base + next_lone(answer);
        uint64_t *t = direct(work.table.root);

        lock_take(&lock);
        for (unsigned shift = 39; shift > 12; shift -= 9)
            t = direct(hpa(t[in >> shift & 511] & BITS(51, 12)));
        uint64_t *slot = &t[in >> 12 & 511], entry = *slot;
        __atomic_compare_exchange_n(slot, &entry, entry, false, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE);
        lock_drop(&lock);
        answer |= entry >> 55 & 1; /* a bit that no entry has */
    }
    return RANDOM_OPS;
}

uint64_t loop_zero_three(void)
{
    for (unsigned i = 0; i < NODE_OPS; i++)
        for (unsigned n = 0; n < 3; n++) {
            memset(work.plain + n * 512, 0, PAGE_SIZE);
            bench_keep(work.plain);
        }
    return NODE_OPS;
}

/* A locked exchange of each leaf of the range, with itself. */
uint64_t loop_exchange(void)
{
    uint64_t pages = work.size / PAGE_SIZE;

    for (uint64_t i = 0; i < pages; i++) {
        uint64_t *slot = &work.leaf_tables[i / 512][i % 512], entry = *slot;

        __atomic_compare_exchange_n(slot, &entry, entry, false, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE);
    }
    return pages;
}
