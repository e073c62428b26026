/*
 * `bt`: who called whom in a guest, or in the hypervisor on one of the machine's CPUs.
 */
#include "arch/x86_64/cpus.h"
#include "monitor/commands.h"
#include "vm/backtrace.h"
#include "vm/guest.h"
#include "vm/sched.h"
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

static const struct column call_columns[] = {
    {"call", COLUMN_NUMBER, 4}, {"rip", COLUMN_HEX, 18},    {"frame pointer", COLUMN_HEX, 18},
    {"stack", COLUMN_TEXT, 5},  {"symbol", COLUMN_TEXT, 0},
};
static const struct record call_record = RECORD_NARROW("call", call_columns, "frame pointer,stack");

static const struct column place_columns[] = {
    {"cpu", COLUMN_NUMBER, 0},   {"guest", COLUMN_TEXT, 0}, {"in guest", COLUMN_FLAG, 0},
    {"calls", COLUMN_NUMBER, 0}, {"ended", COLUMN_TEXT, 0},
};
static const struct record place_record = RECORD("place", place_columns);

static void show_calls(struct output *out, const struct call_chain *chain)
{
    char text[SYMBOL_TEXT];

    for (unsigned i = 0; i < chain->count; i++) {
        uint64_t offset, frame = chain->call[i].frame;
        const char *symbol = call_chain_symbol(chain, i, &offset);
        unsigned stack = chain->call[i].stack;

        if (symbol)
            format_buffer(text, sizeof(text), "%s+0x%lx", symbol, offset);
        output_row(
            out, &call_record,
            (struct value[]){as_number(i), as_number(chain->call[i].at),
                             frame ? as_number(frame) : as_nothing(),
                             stack < STACK_COUNT ? as_text(cpu_stack_names[stack]) : as_nothing(),
                             symbol ? as_text(text) : as_nothing()});
    }
}

/* The guests' lock is held: nobody gets his turn meanwhile. */
static void show_place(struct output *out, unsigned number, const struct cpu_place *place)
{
    const struct guest_cpu *turn = number != 0 ? guests_turn(number) : NULL;
    char end[CHAIN_END], name[GUEST_CPU_TEXT], guest[GUEST_CPU_TEXT + GUEST_NAME + 1];

    show_calls(out, &place->chain);
    if (turn)
        format_buffer(guest, sizeof(guest), "%s %s", guest_cpu_text(name, turn), turn->guest->name);
    output_facts(out, &place_record,
                 (struct value[]){as_number(number), turn ? as_text(guest) : as_nothing(),
                                  as_number(place->in_guest), as_number(place->chain.count),
                                  as_text(call_chain_end_text(end, &place->chain))});
}

static int bt_cpu(const struct command *command, struct output *out, const char *word)
{
    static struct cpu_place place; /* as `trace` below */
    unsigned number, online = cpus_online();
    struct complaint why;
    int error = parse_cpu(word, &number, &why);

    if (error)
        return command_refuse(command, out, error, "%s", why.text);
    if (number >= online && online == 1)
        return command_refuse(command, out, E_NOENT,
                              "there is no CPU %u: this machine has CPU 0 alone", number);
    if (number >= online)
        return command_refuse(command, out, E_NOENT,
                              "there is no CPU %u: this machine has CPUs 0 to %u", number,
                              online - 1);
    error = cpus_place(number, &place);
    if (error)
        return command_refuse(command, out, error,
                              "CPU %u does not answer: it has taken no NMI within 2^30 ticks of "
                              "the time-stamp counter",
                              number);
    show_place(out, number, &place);
    return E_OK;
}

static bool of_cpu(const struct arguments *args)
{
    return args->count > 1 && is_cpu_word(args->word[1]);
}

static int bt_guest(const struct command *command, struct output *out, const char *word)
{
    static struct backtrace trace; /* large for a stack of 16 KiB; one console, one at a time */
    char symbol[SYMBOL_TEXT], end[BACKTRACE_END];
    struct symbols symbols;
    struct vcpu_state state;
    struct guest *guest;
    int error = command_guest(command, out, word, &guest);

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

static int bt(const struct command *command, struct output *out, const struct arguments *args)
{
    return (of_cpu(args) ? bt_cpu : bt_guest)(command, out, args->word[1]);
}

static const struct command stack_commands[] = {
    {
        .name = "bt",
        .of_cpu = true,
        .usage = "gN|cpuN",
        .summary = "who called whom in a guest, or in the hypervisor on a CPU",
        .details = "Follows RBP through the guest's own tables, in frames as wide as the mode of\n"
                   "its code says (64, 32 or 16 bits), 64 of them at most, and names them by the\n"
                   "guest's symbols. Code that is compiled without frame pointers has no such\n"
                   "chain; then the answer says at what it ended. A function that is just being\n"
                   "entered or left hides its caller. Of an ended guest `report` has the frames\n"
                   "that it was stopped in.\n"
                   "With cpuN: where that CPU of the machine is in the hypervisor, or, where it\n"
                   "is in a guest, what has entered it. It is asked by an NMI, and nobody stands\n"
                   "still for it.\n",
        .example = "bt g3",
        .least = 1,
        .most = 1,
        .beside = of_cpu,
        .run = bt,
    },
};

const struct command_family stack_family = FAMILY("stack", stack_commands);
