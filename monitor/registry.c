/* See monitor/registry.h; and `help`. */
#include "monitor/registry.h"

#include "lib/error.h"
#include "lib/string.h"

static int help(const struct command *command, struct output *out, const struct arguments *args);

static const struct command help_commands[] = {
    {
        .name = "help",
        .usage = "[COMMAND]",
        .summary = "this list, or all about one command",
        .details = "Addresses and sizes are decimal or hexadecimal (0x...), with K, M, G or T for\n"
                   "larger units. A semicolon separates commands on one line. With --json behind\n"
                   "it, a command answers in JSON, one object a line.\n",
        .example = "help walk",
        .most = 1,
        .run = help,
    },
};

static const struct command_family help_family = FAMILY("help", help_commands);

static const struct command_family *const families[] = {
    &memory_family,   &layout_family, &tables_family, &map_family,    &explain_family,
    &frames_family,   &bytes_family,  &print_family,  &guests_family, &state_family,
    &devices_family,  &digest_family, &stack_family,  &slots_family,  &dirty_family,
    &copies_family,   &save_family,   &fuzz_family,   &cost_family,   &trace_family,
    &audit_family,    &oracle_family, &cpus_family,   &system_family, &workbench_family,
    &terminal_family, &help_family,
};

/* Steps through all commands, family by family: family 0, command 0 is the first. */
struct command_cursor {
    unsigned family, command;
};

static const struct command *next_command(struct command_cursor *at)
{
    while (at->family < ARRAY_SIZE(families)) {
        const struct command_family *family = families[at->family];
        if (at->command < family->commands)
            return &family->command[at->command++];
        at->family++;
        at->command = 0;
    }
    return NULL;
}

const struct command *find_command(const char *name)
{
    struct command_cursor at = {0, 0};
    const struct command *command;

    while ((command = next_command(&at)) && strcmp(command->name, name) != 0)
        ;
    return command;
}

#define NAME_LIMIT 16 /* longer words resemble no command */

/*
 * How many letters must be put in, left out, changed or swapped with their neighbour to get from
 * one word to the other (optimal string alignment), by rows of the usual matrix. Words of at most
 * NAME_LIMIT letters.
 */
static unsigned word_distance(const char *a, const char *b)
{
    unsigned row[3][NAME_LIMIT + 1];
    unsigned n = (unsigned)strlen(a), m = (unsigned)strlen(b);

    for (unsigned j = 0; j <= m; j++)
        row[0][j] = j;
    for (unsigned i = 1; i <= n; i++) {
        unsigned *now = row[i % 3], *above = row[(i + 2) % 3], *two_above = row[(i + 1) % 3];

        now[0] = i;
        for (unsigned j = 1; j <= m; j++) {
            unsigned best = above[j - 1] + (a[i - 1] != b[j - 1]);
            if (above[j] + 1 < best)
                best = above[j] + 1;
            if (now[j - 1] + 1 < best)
                best = now[j - 1] + 1;
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] &&
                two_above[j - 2] + 1 < best)
                best = two_above[j - 2] + 1;
            now[j] = best;
        }
    }
    return row[n % 3][m];
}

/* The command that was probably meant: one that starts with the word, else one at most two letters
 * away (one, for words of three letters or less). NULL for neither. */
static const struct command *nearest_command(const char *word)
{
    struct command_cursor at = {0, 0};
    const struct command *command, *best = NULL;
    size_t n = strlen(word);
    unsigned least = n <= 3 ? 2 : 3;
    char small[NAME_LIMIT + 1];

    if (n > NAME_LIMIT)
        return NULL;
    /* Capitals are no mistake of their own. */
    for (size_t i = 0; i <= n; i++)
        small[i] = (char)(word[i] >= 'A' && word[i] <= 'Z' ? word[i] | 0x20 : word[i]);
    while ((command = next_command(&at))) {
        unsigned distance = word_distance(small, command->name);
        if (strncmp(small, command->name, n) == 0)
            return command;
        if (distance < least) {
            least = distance;
            best = command;
        }
    }
    return best;
}

int refuse_unknown(struct output *out, const char *word)
{
    const struct command *meant = nearest_command(word);

    if (meant)
        output_failure(out, E_NOENT,
                       "\"%.40s\" is no command; did you mean `%s`? `help` lists them all", word,
                       meant->name);
    else
        output_failure(out, E_NOENT, "\"%.40s\" is no command; `help` lists them all", word);
    return E_NOENT;
}

static const struct column command_columns[] = {
    {"command", COLUMN_TEXT, 8},
    {"what it does", COLUMN_TEXT, 65},
    {"arguments", COLUMN_TEXT, 0},
};
static const struct record command_record = RECORD_NARROW("command", command_columns, "!arguments");

static void show_command(struct output *out, const struct command *command)
{
    struct quote quote = {false};

    output_title(out, "%s%s%s: %s", command->name, *command->usage ? " " : "", command->usage,
                 command->summary);
    output_quote(out, &quote, command->details, strlen(command->details));
    output_quote_end(out, &quote);
    output_note(out, "example: %s", command->example);
}

static int help(const struct command *self, struct output *out, const struct arguments *args)
{
    struct command_cursor at = {0, 0};
    const struct command *command;

    (void)self;
    if (args->count == 2) {
        command = find_command(args->word[1]);
        if (!command)
            return refuse_unknown(out, args->word[1]);
        show_command(out, command);
        return E_OK;
    }
    while ((command = next_command(&at)))
        output_row(out, &command_record,
                   (struct value[]){as_text(command->name), as_text(command->summary),
                                    *command->usage ? as_text(command->usage) : as_nothing()});
    output_note(out, "`help COMMAND` says more about one of them, with an example.");
    return E_OK;
}

const char *command_name(unsigned index)
{
    struct command_cursor at = {0, 0};
    const struct command *command;

    while ((command = next_command(&at)) && index--)
        ;
    return command ? command->name : NULL;
}

const char *command_usage(const char *name)
{
    const struct command *command = find_command(name);

    return command ? command->usage : NULL;
}

const char *command_words(const char *name)
{
    const struct command *command = find_command(name);

    return command ? command->words : NULL;
}
