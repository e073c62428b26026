/* What it costs to copy a guest's memory and to watch it, tried on the guest itself. */
#include "arch/x86_64/cpu.h"
#include "lib/error.h"
#include "lib/panic.h"
#include "monitor/commands.h"
#include "vm/cow.h"
#include "vm/dirty.h"
#include "vm/slots.h"

#define ROUNDS 3
#define RUN_TICKS UINT64_C(20000000)
#define ENTRIES 512 /* of a page table: 2 MiB by pages of 4 KiB */

static const struct column cost_columns[] = {
    {"what", COLUMN_TEXT, 34},
    {"pages", COLUMN_NUMBER, 8},
    {"ticks each", COLUMN_NUMBER, 10},
    {"the first time", COLUMN_NUMBER, 14},
};
static const struct record cost_record = RECORD("cost", cost_columns);

struct cost {
    uint64_t first, last; /* ticks of the first round and of the last */
};

static void note(struct cost *cost, unsigned round, uint64_t ticks)
{
    cost->last = ticks;
    if (round == 0)
        cost->first = ticks;
}

static void show(struct output *out, const char *what, uint64_t pages, const struct cost *cost)
{
    uint64_t each = pages != 0 ? pages : 1;

    output_row(out, &cost_record,
               (struct value[]){as_text(what), as_number(pages), as_number(cost->last / each),
                                as_number(cost->first / each)});
}

static int count_leaf(void *ctx, const struct mapping *leaf)
{
    (void)leaf;
    ++*(uint64_t *)ctx;
    return 0;
}

static uint64_t leaves_of(struct table *table)
{
    uint64_t leaves = 0;

    table_visit(table, table->kind->input_first, table->kind->input_last, VISIT_PAGES, count_leaf,
                &leaves);
    return leaves;
}

/* What nobody could do with less: each entry read and written without the right to write, written
 * once more, and a count raised. */
static void plain_loop(uint64_t leaves)
{
    static uint64_t from[ENTRIES], to[ENTRIES], holders[ENTRIES];

    for (uint64_t done = 0; done < leaves; done++) {
        unsigned i = done % ENTRIES;
        uint64_t entry = __atomic_load_n(&from[i], __ATOMIC_RELAXED) & ~UINT64_C(2);

        __atomic_store_n(&from[i], entry, __ATOMIC_RELAXED);
        __atomic_store_n(&to[i], entry, __ATOMIC_RELAXED);
        __atomic_store_n(&holders[i], holders[i] + 1, __ATOMIC_RELAXED);
    }
}

/* A fork's memory, and its end: as after one, a page gets its right to write back when it is
 * written. */
static int copy_once(struct guest *guest, unsigned round, struct cost *shared,
                     struct cost *given_back)
{
    struct table other;
    int error = guest_table_init(guest, &other);

    if (error)
        return error;
    uint64_t start = rdtsc();
    error = pages_clone(&other, &guest->table);
    note(shared, round, rdtsc() - start);
    start = rdtsc();
    pages_release_all(&other, other.kind->input_first, other.kind->input_last);
    note(given_back, round, rdtsc() - start);
    invariant(table_destroy(&other) == E_OK);
    return error;
}

static int cost_of_copies(struct output *out, struct guest *guest)
{
    struct cost shared = {0}, given_back = {0}, loop = {0};
    uint64_t leaves = leaves_of(&guest->table);
    int error = E_OK;

    for (unsigned round = 0; !error && round < ROUNDS; round++) {
        error = copy_once(guest, round, &shared, &given_back);
        uint64_t start = rdtsc();
        plain_loop(leaves);
        note(&loop, round, rdtsc() - start);
    }
    if (error)
        return error;
    show(out, "shared with another table", leaves, &shared);
    show(out, "a loop over entries and counts", leaves, &loop);
    show(out, "given back by that table", leaves, &given_back);
    return E_OK;
}

/* As `dirty` finds and lists them, but for what it prints. Who asks already misses nothing. */
static int cost_of_dirty(struct output *out, struct guest *guest)
{
    bool asked = dirty_asked(guest, DIRTY_CONSOLE);
    struct page_set *set = &guest->dirty.set[DIRTY_CONSOLE];
    uint64_t first, last, pages = 0;
    struct cost found = {0};
    int error = asked ? E_OK : dirty_start(guest, DIRTY_CONSOLE);

    for (unsigned round = 0; !error && round < ROUNDS; round++) {
        (void)guest_run_round(guest, RUN_TICKS, NULL, NULL);
        uint64_t start = rdtsc();
        dirty_collect(guest);
        for (uint64_t from = 0; page_set_run(set, from, &first, &last); from = last + 1)
            continue;
        note(&found, round, rdtsc() - start);
        pages = set->pages;
        if (!asked)
            page_set_clear(set);
    }
    if (!asked && !error)
        dirty_stop(guest, DIRTY_CONSOLE);
    if (error)
        return error;
    show(out, "written, found and listed", pages, &found);
    return E_OK;
}

static int cost(const struct command *command, struct output *out, const struct arguments *args)
{
    struct guest *guest;
    int error = command_guest(command, out, args->word[1], &guest);

    if (error)
        return error;
    if (guest->vcpu == NULL || !guest->has_table)
        return command_refuse(
            command, out, E_STATE, "g%u %s has no memory (%s); `start g%u paused` makes it anew",
            guest->number, guest->name, guest_state_name(guest->state), guest->number);
    error = cost_of_copies(out, guest);
    if (!error && guest->state == GUEST_RUNNING)
        error = cost_of_dirty(out, guest);
    if (error)
        return command_refuse(command, out, error, "g%u %s: %s", guest->number, guest->name,
                              error_text(error));
    output_note(out,
                "g%u %s: ticks of the time-stamp counter%s; the last of %u rounds, and the first",
                guest->number, guest->name,
                tsc_counts_instructions() ? ", which counts instructions here" : "", ROUNDS);
    return E_OK;
}

static const struct command cost_commands[] = {
    {
        .name = "cost",
        .usage = "gN",
        .summary = "what it costs to copy a guest's memory, and to find what it writes",
        .details = "Its memory is shared with a table made for it, as `fork` does, and given\n"
                   "back, next to a plain loop over as many entries and counts. A guest that\n"
                   "runs is then let run for 20,000,000 ticks, and what it wrote is found, as\n"
                   "`dirty` does. Three times each.\n",
        .example = "cost g4",
        .least = 1,
        .most = 1,
        .run = cost,
    },
};

const struct command_family cost_family = FAMILY("what copies and watching cost", cost_commands);
