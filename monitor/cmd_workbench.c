/*
 * The allocator and the mapper put to work on the live machine: `stress` looks whether they keep
 * their word, `bench` counts what each operation costs. Both leave everything as it was.
 */
#include "arch/x86_64/cpu.h"
#include "arch/x86_64/mm/kernel.h"
#include "arch/x86_64/mm/layout.h"
#include "lib/string.h"
#include "mm/frames/buddy.h"
#include "mm/paging/table.h"
#include "monitor/commands.h"
#include "vm/guest.h"

/* xorshift64* (Vigna, 2016): repeatable, and good enough to choose sizes. */
static uint64_t next_random(uint64_t *seed)
{
    *seed ^= *seed >> 12;
    *seed ^= *seed << 25;
    *seed ^= *seed >> 27;
    return *seed * UINT64_C(2685821657736338717);
}

/* --- stress ---------------------------------------------------------------------------------- */

#define STRESS_ORDER 10         /* blocks of up to 4 MiB */
#define STRESS_HELD 512         /* blocks at a time */
#define STRESS_SIZE (256 * MiB) /* written, unless told otherwise */
#define STRESS_LIMIT (UINT64_C(64) << 30)
#define STRESS_SEED 1
#define WORDS_A_PAGE (PAGE_SIZE / sizeof(uint64_t))

static const struct column stress_columns[] = {
    {"order", COLUMN_NUMBER, 5},
    {"block", COLUMN_SIZE, 5},
    {"blocks", COLUMN_NUMBER, 8},
    {"size", COLUMN_SIZE, 10},
};
static const struct record stress_record = RECORD("stressed order", stress_columns);

static const struct column stress_total_columns[] = {
    {"seed", COLUMN_NUMBER, 0},
    {"blocks", COLUMN_NUMBER, 0},
    {"written and read back", COLUMN_SIZE, 0},
    {"most held", COLUMN_FRAMES, 0},
    {"refused", COLUMN_NUMBER, 0},
    {"pages that read back otherwise", COLUMN_NUMBER, 0},
    {"ticks", COLUMN_NUMBER, 0},
};
static const struct record stress_total_record = RECORD("stress", stress_total_columns);

struct stress {
    struct {
        hpa_t at;
        unsigned order;
        uint64_t pattern;
    } held[STRESS_HELD];
    unsigned count;
    uint64_t seed, budget; /* frames that may be held at a time */
    uint64_t frames, most, written, refused, wrong;
    uint64_t by_order[STRESS_ORDER + 1];
};

/* Each page of each block gets a value of its own, so that one that is handed out twice shows. */
static uint64_t page_value(uint64_t pattern, uint64_t page)
{
    return pattern ^ (page << 1 | 1) * UINT64_C(0x9e3779b97f4a7c15);
}

static void write_block(hpa_t at, unsigned order, uint64_t pattern)
{
    for (uint64_t page = 0; page < BIT(order); page++) {
        uint64_t *word = direct(hpa(at.v + (page << PAGE_SHIFT)));
        uint64_t value = page_value(pattern, page);
        for (unsigned i = 0; i < WORDS_A_PAGE; i++)
            word[i] = value;
    }
}

/* How many of its pages do not hold what was written. */
static uint64_t check_block(hpa_t at, unsigned order, uint64_t pattern)
{
    uint64_t wrong = 0;

    for (uint64_t page = 0; page < BIT(order); page++) {
        const uint64_t *word = direct(hpa(at.v + (page << PAGE_SHIFT)));
        uint64_t value = page_value(pattern, page), differs = 0;
        for (unsigned i = 0; i < WORDS_A_PAGE; i++)
            differs |= word[i] ^ value;
        wrong += differs != 0;
    }
    return wrong;
}

static void take_block(struct stress *stress)
{
    unsigned order = (unsigned)(next_random(&stress->seed) % (STRESS_ORDER + 1));
    hpa_t at;

    if (stress->frames + BIT(order) > stress->budget ||
        buddy_alloc(order, PURPOSE_TEST, OWNER_HOST, &at) != E_OK) {
        stress->refused++;
        return;
    }
    uint64_t pattern = next_random(&stress->seed);
    write_block(at, order, pattern);
    stress->held[stress->count].at = at;
    stress->held[stress->count].order = order;
    stress->held[stress->count++].pattern = pattern;
    stress->by_order[order]++;
    stress->written += PAGE_SIZE << order;
    stress->frames += BIT(order);
    if (stress->frames > stress->most)
        stress->most = stress->frames;
}

/* Reads block `i` back and frees it. */
static int give_block(struct stress *stress, unsigned i)
{
    stress->wrong +=
        check_block(stress->held[i].at, stress->held[i].order, stress->held[i].pattern);
    stress->frames -= BIT(stress->held[i].order);
    int error = buddy_free(stress->held[i].at, stress->held[i].order, OWNER_HOST);
    stress->held[i] = stress->held[--stress->count];
    return error;
}

static int run_stress(struct output *out, struct stress *stress, uint64_t size)
{
    int error = E_OK;

    while (!error && stress->written < size) {
        uint64_t before = stress->refused;
        bool more = stress->count == 0 || next_random(&stress->seed) % 8 < 5;
        if (more && stress->count < STRESS_HELD)
            take_block(stress);
        /* A refusal with nothing held: there is no memory to work with. */
        if (stress->refused != before && stress->count == 0 && stress->budget <= BIT(STRESS_ORDER))
            break;
        if (stress->count && (!more || stress->count == STRESS_HELD || stress->refused != before))
            error = give_block(stress, (unsigned)(next_random(&stress->seed) % stress->count));
        output_progress(out, "stress", stress->written, size);
    }
    while (stress->count) {
        int failed = give_block(stress, stress->count - 1);
        error = error ? error : failed;
    }
    output_progress_end(out);
    return error;
}

static void show_stress(struct output *out, const struct stress *stress, uint64_t seed,
                        uint64_t ticks)
{
    uint64_t blocks = 0;

    for (unsigned order = 0; order <= STRESS_ORDER; order++) {
        blocks += stress->by_order[order];
        if (stress->by_order[order])
            output_row(out, &stress_record,
                       (struct value[]){as_number(order), as_number(PAGE_SIZE << order),
                                        as_number(stress->by_order[order]),
                                        as_number(stress->by_order[order] * PAGE_SIZE << order)});
    }
    output_facts(out, &stress_total_record,
                 (struct value[]){as_number(seed), as_number(blocks), as_number(stress->written),
                                  as_number(stress->most), as_number(stress->refused),
                                  as_number(stress->wrong), as_number(ticks)});
}

static int stress(const struct command *command, struct output *out, const struct arguments *args)
{
    static struct stress stress;
    char why[160];
    struct buddy_stats stats;
    uint64_t size = STRESS_SIZE, seed = STRESS_SEED;
    int error = E_OK;

    if (args->count > 1)
        error = command_number(command, out, args->word[1], "size", &size);
    if (!error && args->count > 2)
        error = command_number(command, out, args->word[2], "seed", &seed);
    if (error)
        return error;
    if (size < PAGE_SIZE || size > STRESS_LIMIT)
        return command_refuse(command, out, E_RANGE, "%s? give a size from 4K to 64G",
                              args->word[1]);
    buddy_drain();
    buddy_stats(&stats);
    uint64_t before = buddy_fingerprint();
    /* Never all of it: what else the machine does meanwhile shall find some. */
    stress = (struct stress){.seed = seed ^ UINT64_C(0x2545f4914f6cdd1d),
                             .budget = stats.free_frames / 4 * 3};
    if (stress.seed == 0) /* the one state that random numbers do not leave */
        stress.seed = STRESS_SEED;
    uint64_t start = rdtsc();
    error = run_stress(out, &stress, size);
    uint64_t ticks = rdtsc() - start;
    buddy_drain();
    show_stress(out, &stress, seed, ticks);
    if (error)
        return command_refuse(command, out, error, "a block was not taken back: %s",
                              error_text(error));
    if (stress.wrong)
        return command_refuse(command, out, E_STATE, "%lu pages held what was not written there",
                              stress.wrong);
    if (buddy_verify(why, sizeof(why)) != E_OK)
        return command_refuse(command, out, E_STATE, "the allocator is damaged: %s", why);
    if (buddy_fingerprint() != before)
        return command_refuse(command, out, E_STATE,
                              "the allocator is not as it was: other blocks are free, or a record "
                              "has changed");
    if (stress.written < size)
        return command_refuse(command, out, E_NOMEM, "too little memory is free for it");
    output_note(out, "The allocator is as it was before, bit for bit: the same blocks free, each "
                     "record the same.");
    return E_OK;
}

/* --- bench ----------------------------------------------------------------------------------- */

#define BENCH_OPERATIONS 512 /* of each kind in a round: as many as a level-1 table has entries */
#define BENCH_ROUNDS 7
#define BENCH_MOST_ROUNDS 99
#define BENCH_IN UINT64_C(0x40000000)
#define BENCH_TO UINT64_C(0x40000000) /* never touched: only its address is stored */

static const struct column bench_columns[] = {
    {"operation", COLUMN_TEXT, 30},    {"operations", COLUMN_NUMBER, 10},
    {"ticks each", COLUMN_NUMBER, 10}, {"at best", COLUMN_NUMBER, 8},
    {"at worst", COLUMN_NUMBER, 8},
};
static const struct record bench_record = RECORD("bench", bench_columns);

static const struct column bench_facts_columns[] = {
    {"rounds", COLUMN_NUMBER, 0},
    {"a tick is an instruction", COLUMN_FLAG, 0},
};
static const struct record bench_facts_record = RECORD("bench conditions", bench_facts_columns);

struct bench {
    struct table table;
    struct attrs attrs;
    hpa_t frame[BENCH_OPERATIONS];
    unsigned taken; /* of those */
    uint64_t round[BENCH_MOST_ROUNDS];
    unsigned rounds;
    uint64_t done, total; /* rounds of all operations */
    int error;            /* the first of any operation */
};

/* An operation, done BENCH_OPERATIONS times by `run`. What it needs beforehand and what it leaves
 * behind is the affair of the other two, which are not timed. */
struct operation {
    const char *name;
    void (*prepare)(struct bench *bench);
    void (*run)(struct bench *bench);
    void (*finish)(struct bench *bench);
};

static void keep(struct bench *bench, int error)
{
    if (bench->error == E_OK)
        bench->error = error;
}

static void alloc_all(struct bench *bench)
{
    for (unsigned i = 0; i < BENCH_OPERATIONS && !bench->error; i++) {
        keep(bench, buddy_alloc(0, PURPOSE_TEST, OWNER_HOST, &bench->frame[i]));
        bench->taken += bench->error == E_OK;
    }
}

static void free_all(struct bench *bench)
{
    while (bench->taken)
        keep(bench, buddy_free(bench->frame[--bench->taken], 0, OWNER_HOST));
}

static void alloc_and_free_large(struct bench *bench)
{
    hpa_t at;

    for (unsigned i = 0; i < BENCH_OPERATIONS && !bench->error; i++) {
        keep(bench, buddy_alloc(9, PURPOSE_TEST, OWNER_HOST, &at));
        if (!bench->error)
            keep(bench, buddy_free(at, 9, OWNER_HOST));
    }
}

static void map_one(struct bench *bench, uint64_t offset, uint64_t size, unsigned flags)
{
    struct flush_batch batch;

    flush_begin(&batch, &bench->table);
    keep(bench, table_map(&bench->table, BENCH_IN + offset, hpa(BENCH_TO + offset), size,
                          bench->attrs, flags, &batch));
    flush_commit(&batch);
}

static void unmap_one(struct bench *bench, uint64_t offset, uint64_t size)
{
    struct flush_batch batch;

    flush_begin(&batch, &bench->table);
    keep(bench, table_unmap(&bench->table, BENCH_IN + offset, size, &batch));
    flush_commit(&batch);
}

static void unmap_before(struct bench *bench)
{
    unmap_one(bench, 0, 2 * MiB);
}

static void map_before(struct bench *bench)
{
    unmap_before(bench);
    map_one(bench, 0, 2 * MiB, MAP_CAP_4K);
}

static void map_pages(struct bench *bench)
{
    for (unsigned i = 0; i < BENCH_OPERATIONS; i++)
        map_one(bench, (uint64_t)i << PAGE_SHIFT, PAGE_SIZE, MAP_DEFAULT);
}

static void map_range(struct bench *bench)
{
    map_one(bench, 0, 2 * MiB, MAP_CAP_4K);
}

static void translate_pages(struct bench *bench)
{
    struct mapping mapping;

    for (unsigned i = 0; i < BENCH_OPERATIONS; i++)
        keep(bench,
             table_translate(&bench->table, BENCH_IN + ((uint64_t)i << PAGE_SHIFT), &mapping));
}

static void unmap_pages(struct bench *bench)
{
    for (unsigned i = 0; i < BENCH_OPERATIONS; i++)
        unmap_one(bench, (uint64_t)i << PAGE_SHIFT, PAGE_SIZE);
}

static void unmap_range(struct bench *bench)
{
    unmap_one(bench, 0, 2 * MiB);
}

static const struct operation buddy_operations[] = {
    {"allocate 4K", NULL, alloc_all, free_all},
    {"free 4K", alloc_all, free_all, NULL},
    {"allocate and free 2M", NULL, alloc_and_free_large, NULL},
};

static const struct operation table_operations[] = {
    {"map 4K, page by page", unmap_before, map_pages, NULL},
    {"translate", map_before, translate_pages, NULL},
    {"unmap 4K, page by page", map_before, unmap_pages, NULL},
    {"map 4K, 512 at once", unmap_before, map_range, NULL},
    {"unmap 4K, 512 at once", map_before, unmap_range, NULL},
};

/* Puts values in order, so that the middle one is the median. */
static void sort(uint64_t *value, unsigned n)
{
    for (unsigned i = 1; i < n; i++)
        for (unsigned j = i; j && value[j - 1] > value[j]; j--) {
            uint64_t swapped = value[j];
            value[j] = value[j - 1];
            value[j - 1] = swapped;
        }
}

/* A round's ticks for each operation in it, to the nearest. */
static uint64_t each(uint64_t ticks)
{
    return (ticks + BENCH_OPERATIONS / 2) / BENCH_OPERATIONS;
}

/* Measures one operation in every round, and shows what it cost in the middle one. */
static void run_operation(struct output *out, struct bench *bench,
                          const struct operation *operation, const char *of)
{
    char name[64];

    for (unsigned round = 0; round < bench->rounds; round++) {
        output_progress(out, "bench", bench->done++, bench->total);
        if (operation->prepare)
            operation->prepare(bench);
        uint64_t start = rdtsc();
        operation->run(bench);
        bench->round[round] = rdtsc() - start;
        if (operation->finish)
            operation->finish(bench);
    }
    output_progress_end(out);
    sort(bench->round, bench->rounds);
    format_buffer(name, sizeof(name), "%s: %s", of, operation->name);
    output_row(out, &bench_record,
               (struct value[]){as_text(name), as_number(BENCH_OPERATIONS),
                                as_number(each(bench->round[bench->rounds / 2])),
                                as_number(each(bench->round[0])),
                                as_number(each(bench->round[bench->rounds - 1]))});
}

static int bench_table(struct output *out, struct bench *bench, const struct table_kind *kind,
                       const struct table_caps *caps, const struct table_env *env, unsigned rights)
{
    int error = table_init(&bench->table, kind, caps, env, PURPOSE_TEST, OWNER_HOST);

    if (error)
        return error;
    bench->attrs = attrs_of(rights, MEM_WB);
    for (unsigned i = 0; i < ARRAY_SIZE(table_operations); i++)
        run_operation(out, bench, &table_operations[i], kind->name);
    unmap_before(bench);
    error = table_destroy(&bench->table);
    return bench->error ? bench->error : error;
}

static int bench(const struct command *command, struct output *out, const struct arguments *args)
{
    static struct bench bench;
    const struct vm_backend *backend = guests_backend();
    uint64_t rounds = BENCH_ROUNDS;

    if (args->count == 2) {
        int error = command_number(command, out, args->word[1], "number of rounds", &rounds);
        if (error)
            return error;
        if (rounds == 0 || rounds > BENCH_MOST_ROUNDS)
            return command_refuse(command, out, E_RANGE, "%s rounds? from 1 to %u", args->word[1],
                                  BENCH_MOST_ROUNDS);
    }
    bench.rounds = (unsigned)rounds;
    bench.error = E_OK;
    bench.done = 0;
    bench.total =
        rounds * (ARRAY_SIZE(buddy_operations) + (backend ? 2 : 1) * ARRAY_SIZE(table_operations));
    for (unsigned i = 0; i < ARRAY_SIZE(buddy_operations); i++)
        run_operation(out, &bench, &buddy_operations[i], "buddy");
    int error = bench.error;
    if (!error)
        error = bench_table(out, &bench, &user_kind, &kernel_table.caps, kernel_table.env,
                            RIGHT_RW | RIGHT_U);
    if (!error && backend)
        error = bench_table(out, &bench, backend->kind, backend->table_caps(), backend->table_env(),
                            RIGHT_RWX);
    if (error)
        return command_refuse(command, out, error, "an operation failed: %s", error_text(error));
    bool instructions = tsc_counts_instructions();
    output_facts(out, &bench_facts_record,
                 (struct value[]){as_number(rounds), as_number(instructions)});
    output_note(out,
                instructions
                    ? "The time-stamp counter of this machine counts instructions: so do these "
                      "figures, and say nothing of caches or of what an instruction costs."
                    : "A tick is one of the time-stamp counter's, which runs at a rate of its own "
                      "whatever the CPU's clock does; whoever shares the CPU is counted as well.");
    output_note(out,
                "Each figure is for one operation in the middle round, its loop and the reading "
                "of the counter included; invalidations are done as always.");
    return E_OK;
}

static const struct command workbench_commands[] = {
    {
        .name = "stress",
        .usage = "[SIZE [SEED]]",
        .summary = "blocks of memory taken, written, read back and freed in any order",
        .details = "Takes blocks of 4K to 4M from the buddy until SIZE (256M) has been written,\n"
                   "never holding more than three quarters of what is free. Each page gets a\n"
                   "value of its own and is read back. At the end the allocator must be as it\n"
                   "was before. The same SEED does the same again.\n",
        .example = "stress 16M 7",
        .most = 2,
        .run = stress,
    },
    {
        .name = "bench",
        .usage = "[ROUNDS]",
        .summary = "what map, unmap, translate, allocate and free cost here",
        .details = "In ticks of the time-stamp counter for each operation: the median round, the\n"
                   "best and the worst. Tables of their own are built for it, and given back.\n",
        .example = "bench 3",
        .most = 1,
        .run = bench,
    },
};

const struct command_family workbench_family = FAMILY("workbench", workbench_commands);
