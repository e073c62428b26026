/* What a guest writes: the pages that it has dirtied since somebody asked last; and what it reaches
 * at all: its working set. */
#include "lib/string.h"
#include "monitor/commands.h"
#include "vm/dirty.h"
#include "vm/heat.h"

static const struct column dirty_columns[] = {
    {"from", COLUMN_HEX, 12},
    {"to", COLUMN_HEX, 12},
    {"pages", COLUMN_NUMBER, 8},
    {"size", COLUMN_SIZE, 6},
};
static const struct record dirty_record = RECORD("dirty", dirty_columns);

static int show_dirty(struct output *out, struct guest *guest)
{
    struct page_set *set = &guest->dirty.set[DIRTY_CONSOLE];
    uint64_t first, last, pages;

    dirty_collect(guest);
    pages = set->pages;
    for (uint64_t from = 0; page_set_run(set, from, &first, &last); from = last + 1)
        output_row(out, &dirty_record,
                   (struct value[]){as_number(first), as_number(last),
                                    as_number((last - first + 1) / PAGE_SIZE),
                                    as_number(last - first + 1)});
    page_set_clear(set);
    output_note(out, "g%u %s: %lu page%s of 4K written since the last question, by %s",
                guest->number, guest->name, pages, pages == 1 ? "" : "s",
                dirty_way_name(guest->dirty.way));
    return E_OK;
}

static int start_dirty(const struct command *command, struct output *out, struct guest *guest)
{
    int error;

    if (guest->vcpu == NULL)
        return command_refuse(
            command, out, E_STATE, "g%u %s has no memory (%s); `start g%u paused` makes it anew",
            guest->number, guest->name, guest_state_name(guest->state), guest->number);
    error = dirty_start(guest, DIRTY_CONSOLE);
    if (error)
        return command_refuse(command, out, error,
                              "g%u %s: a bit for each page of the guest has no room: %s",
                              guest->number, guest->name, error_text(error));
    output_note(out, "g%u %s: tracked from now on, by %s; ask again for what it has written since",
                guest->number, guest->name, dirty_way_name(guest->dirty.way));
    return E_OK;
}

static int dirty(const struct command *command, struct output *out, const struct arguments *args)
{
    struct guest *guest;
    int error = command_guest(command, out, args->word[1], &guest);

    if (error)
        return error;
    bool asked = dirty_asked(guest, DIRTY_CONSOLE);
    if (args->count == 2)
        return asked ? show_dirty(out, guest) : start_dirty(command, out, guest);
    if (strcmp(args->word[2], "off") != 0)
        return command_refuse(command, out, E_INVAL,
                              "\"%.20s\" is nothing to ask for: only `off` may follow the guest",
                              args->word[2]);
    if (!asked)
        return command_refuse(command, out, E_STATE, "g%u %s is not tracked; `dirty g%u` begins",
                              guest->number, guest->name, guest->number);
    dirty_stop(guest, DIRTY_CONSOLE);
    output_note(out, "g%u %s: tracked no more", guest->number, guest->name);
    return E_OK;
}

/* --- heat ------------------------------------------------------------------------------------ */

#define SAMPLES 8
#define SAMPLE_TICKS UINT64_C(20000000)

static const struct column heat_columns[] = {
    {"from", COLUMN_HEX, 12}, {"to", COLUMN_HEX, 12},        {"pages", COLUMN_NUMBER, 8},
    {"size", COLUMN_SIZE, 6}, {"samples", COLUMN_NUMBER, 7},
};
static const struct record heat_record = RECORD("heat", heat_columns);

static const struct column working_columns[] = {
    {"samples", COLUMN_NUMBER, 0},
    {"in every sample", COLUMN_FRAMES, 0},
    {"in any sample", COLUMN_FRAMES, 0},
};
static const struct record working_record = RECORD("working set", working_columns);

static void show_heat(struct output *out, const struct heat *heat)
{
    uint64_t first, last, any = 0, every = 0;
    unsigned times;

    for (uint64_t from = 0; heat_run(heat, from, &first, &last, &times); from = last + 1) {
        uint64_t pages = (last - first + 1) / PAGE_SIZE;

        any += pages;
        every += times == heat->taken ? pages : 0;
        output_row(out, &heat_record,
                   (struct value[]){as_number(first), as_number(last), as_number(pages),
                                    as_number(last - first + 1), as_number(times)});
    }
    output_facts(out, &working_record,
                 (struct value[]){as_number(heat->taken), as_number(every), as_number(any)});
}

static int take_samples(const struct command *command, struct output *out, const char *word,
                        uint64_t *samples)
{
    int error = command_number(command, out, word, "number of samples", samples);

    if (!error && (*samples == 0 || *samples > HEAT_SAMPLES))
        return command_refuse(command, out, E_RANGE, "samples=%s: there can be 1 to %u", word,
                              HEAT_SAMPLES);
    return error;
}

static int heat(const struct command *command, struct output *out, const struct arguments *args)
{
    static struct heat taken; /* there is one console */
    uint64_t samples = SAMPLES, ticks = SAMPLE_TICKS;
    struct guest *guest;
    int error = command_guest(command, out, args->word[1], &guest);

    for (unsigned i = 2; !error && i < args->count; i++) {
        const char *word = args->word[i], *value;

        if ((value = word_behind(word, "samples=")))
            error = take_samples(command, out, value, &samples);
        else if ((value = word_behind(word, "ticks=")))
            error = command_ticks(command, out, value, &ticks);
        else
            error = command_refuse(command, out, E_INVAL,
                                   "\"%.20s\" is nothing to sample with: samples=N, ticks=N", word);
    }
    if (error)
        return error;
    error = heat_take(guest, (unsigned)samples, ticks, command_stopped, NULL, &taken);
    if (error == E_STATE)
        return command_refuse(command, out, error,
                              "g%u %s %s: only a guest that runs reaches anything", guest->number,
                              guest->name, guest_state_verb(guest->state));
    if (error == E_UNSUPPORTED)
        return command_refuse(command, out, error,
                              "this CPU does not note in a guest's table what was accessed");
    if (error)
        return command_refuse(command, out, error, "no room for a bit for each page: %s",
                              error_text(error));
    show_heat(out, &taken);
    heat_end(&taken);
    return E_OK;
}

static const struct command dirty_commands[] = {
    {
        .name = "heat",
        .usage = "gN [samples=N] [ticks=N]",
        .summary = "what a guest reaches while it runs, and how often: its working set",
        .details = "The guest runs alone for so many ticks (20,000,000), then what it has\n"
                   "reached is collected, and so on, 8 times unless told otherwise, 16 at most.\n"
                   "`samples` says in how many of them a page was reached. A large page counts\n"
                   "whole. A key stops it.\n",
        .example = "heat g4",
        .least = 1,
        .most = 3,
        .run = heat,
    },
    {
        .name = "dirty",
        .usage = "gN [off]",
        .summary = "the pages that a guest has written since you asked last",
        .details = "The first call begins to track. Each page counts for 4K; large pages are\n"
                   "split where they are written, and joined again by `off`. What is written for\n"
                   "the guest, by devices, calls and emulated instructions, counts as well. It\n"
                   "is found by the CPU's log of dirty pages, or the table's dirty bits, or\n"
                   "write protection: the best that the CPU has. By the first two, the pages\n"
                   "that hold the guest's own page tables count as written when the CPU walks\n"
                   "them.\n",
        .example = "dirty g4",
        .least = 1,
        .most = 2,
        .run = dirty,
    },
};

const struct command_family dirty_family = FAMILY("what guests write and reach", dirty_commands);
