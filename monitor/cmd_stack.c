/*
 * `bt`: who called whom in a guest.
 */
#include "monitor/commands.h"
#include "vm/backtrace.h"
#include "vm/guest.h"
#include "vm/symbols.h"

static const struct column stack_columns[] = {
    {"frame", COLUMN_NUMBER, 5},
    {"rip", COLUMN_HEX, 18},
    {"frame pointer", COLUMN_HEX, 18},
    {"symbol", COLUMN_TEXT, 0},
};
static const struct record stack_record =
    RECORD_NARROW("stack frame", stack_columns, "frame pointer,frame=#");

static const struct column end_columns[] = {
    {"frames", COLUMN_NUMBER, 0},
    {"ended", COLUMN_TEXT, 0},
};
static const struct record end_record = RECORD("backtrace", end_columns);

static int bt(const struct command *command, struct output *out, const struct arguments *args)
{
    static struct backtrace trace; /* large for a stack of 16 KiB; one console, one at a time */
    char symbol[SYMBOL_TEXT], end[BACKTRACE_END];
    struct symbols symbols;
    struct vcpu_state state;
    struct guest *guest;
    int error = command_guest(command, out, args->word[1], &guest);

    if (!error)
        error = command_state(command, out, guest, &state);
    if (error)
        return error;
    backtrace_take(guest->vcpu, &state, &trace);
    for (unsigned i = 0; i < trace.count; i++) {
        (i ? symbol_text_of_return : symbol_text)(symbol, guest, trace.frame[i].at);
        output_row(
            out, &stack_record,
            (struct value[]){as_number(i), as_number(trace.frame[i].at),
                             trace.frame[i].framed ? as_number(trace.frame[i].frame) : as_nothing(),
                             symbol[0] ? as_text(symbol) : as_nothing()});
    }
    output_facts(
        out, &end_record,
        (struct value[]){as_number(trace.count), as_text(backtrace_end_text(end, &trace))});
    if (!symbols_of_guest(&symbols, guest))
        output_note(out,
                    "g%u %s has no symbols: no symbol table in its image, and no System.map among "
                    "its modules.",
                    guest->number, guest->name);
    return E_OK;
}

static const struct command stack_commands[] = {
    {
        .name = "bt",
        .of_cpu = true,
        .usage = "gN",
        .summary = "who called whom in a guest, by its frame pointers",
        .details =
            "Follows RBP through the guest's own tables, in frames as wide as the mode of its "
            "code\n"
            "says (64, 32 or 16 bits), 64 of them at most, and names them by the guest's symbols.\n"
            "Code that is compiled without frame pointers has no such chain; then the answer says\n"
            "at what it ended. A function that is just being entered or left hides its caller. Of\n"
            "an ended guest `report` has the frames that it was stopped in.\n",
        .example = "bt g3",
        .least = 1,
        .most = 1,
        .run = bt,
    },
};

const struct command_family stack_family = FAMILY("stack", stack_commands);
