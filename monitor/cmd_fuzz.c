/* Fuzzing: a guest fed with inputs, from its snapshot, until it crashes. */
#include "arch/x86_64/mm/operand.h"
#include "lib/string.h"
#include "monitor/commands.h"
#include "vm/clock.h"
#include "vm/fuzz.h"

#define ROUND_TICKS UINT64_C(200000000)
#define ROUNDS 10000u
#define NUMBER_TEXT 40

static const struct column result_columns[] = {
    {"rounds", COLUMN_NUMBER, 0},
    {"done", COLUMN_NUMBER, 0},
    {"halted", COLUMN_NUMBER, 0},
    {"out of time", COLUMN_NUMBER, 0},
    {"crashed", COLUMN_FLAG, 0},
    {"rounds a second", COLUMN_NUMBER, 0},
    {"pages put back a reset", COLUMN_NUMBER, 0},
    {"ticks a reset", COLUMN_NUMBER, 0},
    {"ticks a round", COLUMN_NUMBER, 0},
};
static const struct record result_record = RECORD("fuzzing", result_columns);

static const struct column crash_columns[] = {
    {"round", COLUMN_NUMBER, 0},
    {"at", COLUMN_HEX, 0},
    {"reason", COLUMN_TEXT, 0},
    {"input", COLUMN_TEXT, 0},
};
static const struct record crash_record = RECORD("crash", crash_columns);

static void show_result(struct output *out, const struct fuzz_result *result)
{
    uint64_t hz = clock_tsc_hz(), rounds = result->rounds ? result->rounds : 1;
    uint64_t ticks = result->round_ticks / rounds;

    output_facts(out, &result_record,
                 (struct value[]){as_number(result->rounds), as_number(result->done),
                                  as_number(result->halted), as_number(result->hung),
                                  as_number(result->crashed), as_number(ticks ? hz / ticks : 0),
                                  as_number(result->pages / rounds),
                                  as_number(result->reset_ticks / rounds), as_number(ticks)});
}

/* The first bytes of it; all of it lies in memory after `replay`. */
#define SHOWN 48u
static void show_crash(struct output *out, const struct fuzz_crash *crash)
{
    char text[2 * SHOWN + 8];
    unsigned shown = crash->size < SHOWN ? crash->size : SHOWN;

    for (unsigned i = 0; i < shown; i++)
        format_buffer(text + 2 * i, sizeof(text) - 2 * i, "%02x", crash->input[i]);
    if (shown < crash->size)
        format_buffer(text + 2 * shown, sizeof(text) - 2 * shown, "...");
    output_facts(out, &crash_record,
                 (struct value[]){as_number(crash->round), as_number(crash->rip),
                                  as_text(crash->reason), as_text(text)});
}

/* "input=GPA:SIZE" behind its '='. */
static int read_input(const struct command *command, struct output *out, const char *word,
                      struct fuzz *fuzz)
{
    const char *colon = strchr(word, ':');
    char address[NUMBER_TEXT];
    uint64_t at, size;

    if (colon == NULL || (size_t)(colon - word) >= sizeof(address))
        return command_refuse(command, out, E_FORMAT,
                              "input=%.30s: an address and a size are wanted: "
                              "input=0x300000:64",
                              word);
    memcpy(address, word, (size_t)(colon - word));
    address[colon - word] = '\0';
    int error = command_number(command, out, address, "address", &at);
    if (!error)
        error = command_number(command, out, colon + 1, "size", &size);
    if (error)
        return error;
    if (size == 0 || size > FUZZ_INPUT)
        return command_refuse(command, out, E_RANGE, "an input has 1 to %u bytes, not %lu",
                              FUZZ_INPUT, size);
    fuzz->at = gpa(at);
    fuzz->size = (unsigned)size;
    return E_OK;
}

static int read_until(const struct command *command, struct output *out, const struct guest *guest,
                      const char *word, struct fuzz *fuzz)
{
    uint64_t *at = &fuzz->until.at;
    int error = command_gva(command, out, guest, word, "address", at);

    if (error)
        return error;
    fuzz->until.on = true;
    if (!linear_is_canonical(*at))
        return command_refuse(command, out, E_RANGE,
                              "until=0x%lx: no instruction is there, for bits 63 to 47 of an "
                              "address are alike",
                              *at);
    return E_OK;
}

static int read_rounds(const struct command *command, struct output *out, const char *word,
                       struct fuzz *fuzz)
{
    int error = command_number(command, out, word, "number of rounds", &fuzz->rounds);

    if (!error && fuzz->rounds == 0)
        return command_refuse(command, out, E_RANGE,
                              "rounds=0: give a number from 1, or none for %u", ROUNDS);
    return error;
}

static int read_word(const struct command *command, struct output *out, const struct guest *guest,
                     const char *word, struct fuzz *fuzz)
{
    const char *value = word_behind(word, "input=");

    if (value)
        return read_input(command, out, value, fuzz);
    if ((value = word_behind(word, "until=")))
        return read_until(command, out, guest, value, fuzz);
    if ((value = word_behind(word, "ticks=")))
        return command_ticks(command, out, value, &fuzz->ticks);
    if ((value = word_behind(word, "rounds=")))
        return read_rounds(command, out, value, fuzz);
    if ((value = word_behind(word, "seed=")))
        return command_number(command, out, value, "seed", &fuzz->seed);
    return command_refuse(command, out, E_INVAL,
                          "\"%.20s\" is nothing to fuzz with: input=GPA:SIZE, until=GVA, rounds=N, "
                          "seed=N, ticks=N",
                          word);
}

static int refuse(const struct command *command, struct output *out, const struct guest *guest,
                  int error)
{
    if (error == E_STATE)
        return command_refuse(
            command, out, error, "g%u %s has no memory (%s); `start g%u paused` makes it anew",
            guest->number, guest->name, guest_state_name(guest->state), guest->number);
    if (error == E_RANGE)
        return command_refuse(command, out, error, "g%u %s has no memory for the input there",
                              guest->number, guest->name);
    return command_refuse(command, out, error, "g%u %s: %s", guest->number, guest->name,
                          guest->reason[0] ? guest->reason : error_text(error));
}

static int replay(const struct command *command, struct output *out, struct guest *guest)
{
    struct fuzz fuzz = {.ticks = ROUND_TICKS};
    bool same;
    int error = fuzz_replay(guest, &fuzz, &same);

    if (error == E_NOENT)
        return command_refuse(command, out, error,
                              "g%u %s has no crash to run again; `fuzz g%u input=GPA:SIZE` looks "
                              "for one",
                              guest->number, guest->name, guest->number);
    if (error)
        return refuse(command, out, guest, error);
    show_crash(out, &guest->snapshot->crash);
    output_note(out,
                same ? "g%u %s: the same again, at the same instruction; it stands there"
                     : "g%u %s: this time it came to something else",
                guest->number, guest->name);
    return E_OK;
}

static int fuzz(const struct command *command, struct output *out, const struct arguments *args)
{
    struct fuzz wanted = {.rounds = ROUNDS, .seed = 1, .ticks = ROUND_TICKS};
    struct fuzz_result result;
    struct guest *guest;
    int error = command_guest(command, out, args->word[1], &guest);

    if (!error && args->count == 3 && strcmp(args->word[2], "replay") == 0)
        return replay(command, out, guest);
    for (unsigned i = 2; !error && i < args->count; i++)
        error = read_word(command, out, guest, args->word[i], &wanted);
    if (error)
        return error;
    if (wanted.size == 0)
        return command_refuse(command, out, E_INVAL,
                              "where the input goes has to be said: input=0x300000:64");
    error = fuzz_run(guest, &wanted, command_stopped, NULL, &result);
    if (error)
        return refuse(command, out, guest, error);
    show_result(out, &result);
    if (result.crashed)
        show_crash(out, &guest->snapshot->crash);
    output_note(out, "g%u %s: %s", guest->number, guest->name,
                result.crashed   ? "it crashes; `fuzz` with `replay` goes there again"
                : result.stopped ? "stopped by a key; it is at its snapshot, paused"
                                 : "no crash; it is at its snapshot, paused");
    return E_OK;
}

static const struct command fuzz_commands[] = {
    {
        .name = "fuzz",
        .usage = "gN [replay] [input=GPA:SIZE] [until=GVA] [rounds=N] [seed=N] [ticks=N]",
        .summary = "feed a guest with inputs, from its snapshot, until it crashes",
        .details = "Each round goes back to the snapshot (which is taken, if there is none),\n"
                   "puts an input at a guest-physical address, and lets the guest run until its\n"
                   "hypercall says that it is done, it is about to execute the instruction at\n"
                   "`until`, it halts, it crashes, or so many ticks have passed. Inputs are made\n"
                   "from what is there, by the seed. The first crash is kept; `replay` runs it\n"
                   "again.\n"
                   "The other guests wait meanwhile; a key stops it.\n",
        .example = "fuzz g4 input=0x300000:32 rounds=3",
        .least = 2,
        .most = 7,
        .run = fuzz,
    },
};

const struct command_family fuzz_family = FAMILY("fuzzing", fuzz_commands);
