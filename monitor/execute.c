/* A line of commands: split, led from other monitors' words to ours, and run. See
 * monitor/monitor.h.
 */
#include "lib/error.h"
#include "lib/string.h"
#include "monitor/alias.h"
#include "monitor/monitor.h"
#include "monitor/registry.h"
#include "vm/sched.h"

#define JSON_FLAG "--json"

static int run_command(struct output *out, const struct arguments *args)
{
    const struct command *command = find_command(args->word[0]);
    unsigned given = args->count - 1;

    if (!command)
        return refuse_unknown(out, args->word[0]);
    if (given < command->least || given > command->most)
        return command_refuse(
            command, out, E_INVAL, "%s; usage: %s%s%s; for example: %s",
            given ? given < command->least ? "an argument is missing" : "too many arguments"
                  : "arguments are missing",
            command->name, *command->usage ? " " : "", command->usage, command->example);
    return command->run(command, out, args);
}

static bool has_json_flag(const char *line)
{
    size_t n = strlen(JSON_FLAG);

    for (; *line; line++)
        if (strncmp(line, JSON_FLAG, n) == 0)
            return true;
    return false;
}

/* Takes the word `--json` out of a command, wherever it stands. Returns whether it was there. */
static bool take_json_flag(struct arguments *args)
{
    unsigned kept = 0;

    for (unsigned i = 0; i < args->count; i++)
        if (strcmp(args->word[i], JSON_FLAG) != 0)
            args->word[kept++] = args->word[i];
    bool found = kept != args->count;
    args->count = kept;
    return found;
}

/* The command's words as it ran, for the end of its answer. */
static void end_command(struct output *out, const struct arguments *args, int error)
{
    char text[ARGUMENTS_TEXT] = "";
    size_t used = 0;

    /* The words and what is between them fit: they came out of a store of this size. */
    for (unsigned i = 0; i < args->count; i++)
        used +=
            format_buffer(text + used, sizeof(text) - used, "%s%s", i ? " " : "", args->word[i]);
    output_end(out, text, error);
}

/* A word that is no command of ours, but somebody else's for one. Takes the arguments that ours has
 * instead; E_NOENT: it has been said what may be meant. */
static int take_alias(struct output *out, struct arguments *args)
{
    char text[ALIAS_TEXT];
    const char *line = text;
    struct complaint why;

    switch (find_command(args->word[0]) ? ALIAS_NONE : alias_of(args, text)) {
    case ALIAS_NAMES:
        output_failure(out, E_NOENT, "\"%.40s\" is no command here: %s", args->word[0], text);
        return E_NOENT;
    case ALIAS_RUNS:
        if (arguments_next(&line, args, &why) == E_OK) {
            if (!out->json)
                output_note(out, "here it is `%s`", text);
            return E_OK;
        }
        output_failure(out, E_FULL, "%s", why.text);
        return E_FULL;
    case ALIAS_NONE:
        break;
    }
    return E_OK;
}

/* No command sees a guest in the middle of anything, wherever it runs; but for those that ask what
 * is in the middle of what. */
static int run_stopped(struct output *out, const struct arguments *args)
{
    const struct command *command = find_command(args->word[0]);

    if (command && command->beside && command->beside(args))
        return run_command(out, args);
    guests_stop_others();
    int error = run_command(out, args);
    guests_go_on();
    return error;
}

int monitor_execute(struct output *out, const char *line)
{
    struct arguments args;
    struct complaint why;
    int result = E_OK;

    for (;;) {
        const char *before = line;
        int error = arguments_next(&line, &args, &why);
        if (error) {
            /* What cannot be split has no words: the flag counts wherever it stands. */
            out->json = has_json_flag(before);
            output_failure(out, error, "%s", why.text);
            output_end(out, "", error);
            return error;
        }
        if (args.count == 0)
            return result;
        out->json = take_json_flag(&args);
        if (args.count == 0) {
            output_failure(out, E_INVAL, "a command goes with " JSON_FLAG ": mem " JSON_FLAG);
            error = E_INVAL;
        } else {
            error = take_alias(out, &args);
            if (!error)
                error = run_stopped(out, &args);
        }
        end_command(out, &args, error);
        if (error)
            result = error;
    }
}
