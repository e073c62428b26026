/*
 * `oracle`: what the hypervisor says of an access, against what the CPU does.
 */
#include "arch/x86_64/oracle/oracle.h"
#include "lib/error.h"
#include "monitor/commands.h"
#include "vm/guest.h"

#define DEFAULT_PAIRS 10000
#define DEFAULT_SEED 1
#define PAIRS_LIMIT UINT64_C(10000000)
#define SHOWN_LIMIT 20

static const struct column space_columns[] = {
    {"tables of", COLUMN_TEXT, 9}, {"made", COLUMN_NUMBER, 5},
    {"pairs", COLUMN_NUMBER, 7},   {"through", COLUMN_NUMBER, 7},
    {"absent", COLUMN_NUMBER, 7},  {"refused", COLUMN_NUMBER, 7},
    {"illegal", COLUMN_NUMBER, 7}, {"disagreements", COLUMN_NUMBER, 0},
};
static const struct record space_record = RECORD("space", space_columns);

static const struct column disagreement_columns[] = {
    {"tables of", COLUMN_TEXT, 9},  {"address", COLUMN_HEX, 18},       {"access", COLUMN_TEXT, 7},
    {"from", COLUMN_TEXT, 24},      {"entry", COLUMN_HEX, 18},         {"level", COLUMN_NUMBER, 5},
    {"predicted", COLUMN_TEXT, 30}, {"what happened", COLUMN_TEXT, 0},
};
static const struct record disagreement_record =
    RECORD_NARROW("disagreement", disagreement_columns, "level,from");

struct oracle_output {
    struct output *out;
    uint64_t total; /* pairs, in all spaces */
    unsigned shown;
};

static const char *access_name(unsigned access)
{
    return access == RIGHT_R ? "read" : access == RIGHT_W ? "write" : "execute";
}

static void show_disagreement(const struct oracle_listener *self,
                              const struct oracle_disagreement *d)
{
    struct oracle_output *to = self->ctx;

    if (to->shown++ >= SHOWN_LIMIT)
        return;
    output_progress_end(to->out);
    output_row(to->out, &disagreement_record,
               (struct value[]){as_text(oracle_space_name(d->space)), as_number(d->address),
                                as_text(access_name(d->access)), as_text(d->conditions),
                                as_number(d->entry), as_number(d->level), as_text(d->predicted),
                                as_text(d->happened)});
}

static void show_progress(const struct oracle_listener *self, uint64_t tried)
{
    const struct oracle_output *to = self->ctx;

    output_progress(to->out, "oracle", tried, to->total);
}

static void show_counts(struct output *out, const struct oracle_counts counts[ORACLE_SPACES])
{
    for (unsigned i = 0; i < ORACLE_SPACES; i++)
        output_row(out, &space_record,
                   (struct value[]){as_text(oracle_space_name((enum oracle_space)i)),
                                    as_number(counts[i].tables), as_number(counts[i].pairs),
                                    as_number(counts[i].through), as_number(counts[i].absent),
                                    as_number(counts[i].refused), as_number(counts[i].illegal),
                                    as_number(counts[i].disagreements)});
}

/* Neither a guest nor anybody else may have the CPU meanwhile; they come back to it afterwards. */
static int oracle(const struct command *command, struct output *out, const struct arguments *args)
{
    struct oracle_counts counts[ORACLE_SPACES];
    struct oracle_output to = {.out = out};
    const struct oracle_listener listener = {show_disagreement, show_progress, &to};
    uint64_t pairs = DEFAULT_PAIRS, seed = DEFAULT_SEED, tried = 0, wrong = 0;
    int error = E_OK;

    if (args->count > 1)
        error = command_number(command, out, args->word[1], "number of pairs", &pairs);
    if (error == E_OK && args->count > 2)
        error = command_number(command, out, args->word[2], "seed", &seed);
    if (error != E_OK)
        return error;
    if (pairs == 0 || pairs > PAIRS_LIMIT)
        return command_refuse(command, out, E_RANGE, "%s pairs? 1 to %lu, or none for %u",
                              args->word[1], PAIRS_LIMIT, DEFAULT_PAIRS);

    to.total = pairs * (guests_backend() ? ORACLE_SPACES : ORACLE_SPACES - 1);
    error = oracle_run(guests_backend(), seed, pairs, &listener, counts);
    output_progress_end(out);
    show_counts(out, counts);
    for (unsigned i = 0; i < ORACLE_SPACES; i++) {
        tried += counts[i].pairs;
        wrong += counts[i].disagreements;
    }
    if (guests_backend() == NULL)
        output_note(out, "No guests can run here, so no table of theirs was tried.");
    if (error == E_HARDWARE && wrong != 0)
        return command_refuse(command, out, error,
                              "the CPU disagrees with %lu of %lu predictions (seed %lu)", wrong,
                              tried, seed);
    if (error != E_OK)
        return command_refuse(command, out, error, "ended after %lu pairs: %s", tried,
                              error_text(error));
    output_note(out, "The CPU agrees with all %lu predictions (seed %lu).", tried, seed);
    return E_OK;
}

static const struct command oracle_commands[] = {
    {
        .name = "oracle",
        .usage = "[PAIRS [SEED]]",
        .summary = "try what is predicted of accesses on the CPU itself",
        .details = "Makes tables of random pages, rights and holes, some entries of which no CPU\n"
                   "accepts, and tries random accesses through them: from ring 0 and ring 3 in\n"
                   "the host's, from a guest through its second level. Each must come to the\n"
                   "byte, or the fault, that the walk of the address predicts. 10000 pairs of\n"
                   "each kind unless told otherwise.\n",
        .example = "oracle 1000",
        .most = 2,
        .run = oracle,
    },
};

const struct command_family oracle_family = FAMILY("oracle", oracle_commands);
