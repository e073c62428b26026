/*
 * The person at the terminal: `attach`, `colour`, `paging`, `wait`.
 */
#include "arch/x86_64/uart.h"
#include "lib/string.h"
#include "monitor/commands.h"
#include "monitor/monitor.h"
#include "monitor/terminal.h"
#include "vm/guest.h"
#include "vm/sched.h"

static int attach(const struct command *command, struct output *out, const struct arguments *args)
{
    struct guest *guest;
    int error = command_guest(command, out, args->word[1], &guest);

    if (error)
        return error;
    if (out->json)
        return command_refuse(command, out, E_UNSUPPORTED,
                              "a program is not attached: it reads `output` and the log");
    if (guest_ended(guest) || !guest->vcpu)
        return command_refuse(command, out, E_STATE, "g%u %s %s: nobody is at its serial port",
                              guest->number, guest->name, guest_state_verb(guest->state));
    output_note(out, "attached to g%u %s (%s); Ctrl-] comes back", guest->number, guest->name,
                guest_state_name(guest->state));
    terminal_attach(monitor_terminal(), guest);
    return E_OK;
}

static int colour(const struct command *command, struct output *out, const struct arguments *args)
{
    struct terminal *terminal = monitor_terminal();

    if (args->count == 2 && strcmp(args->word[1], "on") == 0)
        terminal->colour = true;
    else if (args->count == 2 && strcmp(args->word[1], "off") == 0)
        terminal->colour = false;
    else if (args->count == 2)
        return command_refuse(command, out, E_INVAL, "\"%.20s\"? it is on or off", args->word[1]);
    out->colour = terminal->colour;
    output_note(out, "colour is %s", terminal->colour ? "on" : "off");
    return E_OK;
}

static int paging(const struct command *command, struct output *out, const struct arguments *args)
{
    struct pager *pager = &monitor_terminal()->pager;
    uint64_t rows = 0;

    if (args->count == 2 && strcmp(args->word[1], "off") != 0) {
        int error = command_number(command, out, args->word[1], "number of rows", &rows);
        if (error)
            return error;
        if (rows < PAGER_LEAST_ROWS || rows > 1000)
            return command_refuse(command, out, E_RANGE, "%s rows? a screen has %u to 1000",
                                  args->word[1], PAGER_LEAST_ROWS);
    }
    if (args->count == 2) {
        pager->rows = (unsigned)rows;
        pager_begin(pager);
    }
    if (pager->rows)
        output_note(out, "long answers stop after %u rows", pager->rows);
    else
        output_note(out, "long answers do not stop");
    return E_OK;
}

#define ASK_SIZE "\033[18t" /* the answer is CSI 8 ; rows ; columns t */

static int columns(const struct command *command, struct output *out, const struct arguments *args)
{
    struct terminal *terminal = monitor_terminal();
    uint64_t number;

    if (args->count == 2 && strcmp(args->word[1], "ask") == 0) {
        if (out->json)
            return command_refuse(command, out, E_UNSUPPORTED, "a program knows how wide it is");
        format(out->sink, ASK_SIZE);
        output_note(out, "asked; a terminal that knows its size says it now");
        return E_OK;
    }
    if (args->count == 2) {
        int error = command_number(command, out, args->word[1], "number of columns", &number);
        if (error)
            return error;
        if (number < LINE_LEAST_COLUMNS || number > 1000)
            return command_refuse(command, out, E_RANGE, "%s columns? from %u to 1000",
                                  args->word[1], LINE_LEAST_COLUMNS);
        out->columns = terminal->columns = (unsigned)number;
    }
    output_note(out, "answers are at most %u columns wide", terminal->columns);
    return E_OK;
}

static int wait(const struct command *command, struct output *out, const struct arguments *args)
{
    unsigned left;
    int key;

    (void)command;
    (void)args;
    guests_go_on();
    do {
        left = monitor_round();
        key = uart_getc();
    } while (key < 0 && left > 0);
    guests_stop_others();
    output_note(out, left ? "a key ended the wait" : "no guest can run");
    return E_OK;
}

static const struct command terminal_commands[] = {
    {
        .name = "attach",
        .usage = "gN",
        .summary = "talk to a guest's serial port; Ctrl-] comes back",
        .details = "Keys go to its COM1, and what it prints appears as it comes, without its\n"
                   "name. What is neither text nor moves the cursor back appears as \\xNN.\n",
        .example = "attach g1",
        .least = 1,
        .most = 1,
        .run = attach,
    },
    {
        .name = "colour",
        .usage = "[on|off]",
        .summary = "whether titles, headings and errors have colours",
        .details = "Off, until a terminal says that it has colours, or this does.\n",
        .example = "colour on",
        .most = 1,
        .run = colour,
    },
    {
        .name = "columns",
        .usage = "[COLUMNS|ask]",
        .summary = "how wide answers may be",
        .details = "80, until a terminal says how wide it is, or this does. `ask` asks the\n"
                   "terminal. Tables leave columns out, and lines are folded between words,\n"
                   "until they fit.\n",
        .example = "columns 120",
        .most = 1,
        .run = columns,
    },
    {
        .name = "paging",
        .usage = "[ROWS|off]",
        .summary = "whether a long answer stops when the screen is full",
        .details = "Off, until a terminal says how large it is, or this does. At the stop: space\n"
                   "for a page, return for a line, q for the prompt. Guests stand still\n"
                   "meanwhile.\n",
        .example = "paging off",
        .most = 1,
        .run = paging,
    },
    {
        .name = "wait",
        .usage = "",
        .summary = "let the guests run until none can, or a key is pressed",
        .details = "What a script of commands does between `start` and its questions.\n",
        .example = "wait",
        .run = wait,
    },
};

const struct command_family terminal_family = FAMILY("terminal", terminal_commands);
