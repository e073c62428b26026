/* The guests: who they are and how they fared; and starting and stopping them. */
#include "lib/string.h"
#include "mm/frames/buddy.h"
#include "monitor/commands.h"
#include "vm/guest.h"

/* --- guests ---------------------------------------------------------------------------------- */

static const struct column guest_columns[] = {
    {"guest", COLUMN_TEXT, 5},    {"name", COLUMN_TEXT, 10},  {"state", COLUMN_TEXT, 8},
    {"expected", COLUMN_TEXT, 8}, {"memory", COLUMN_SIZE, 6}, {"frames", COLUMN_FRAMES, 7},
    {"exits", COLUMN_NUMBER, 8},  {"image", COLUMN_TEXT, 15}, {"reason", COLUMN_TEXT, 0},
};
static const struct record guest_record =
    RECORD_NARROW("guest", guest_columns, "image,frames,expected,memory");

#define GUEST_TEXT 8
static const char *guest_text(char buffer[GUEST_TEXT], const struct guest *guest)
{
    format_buffer(buffer, GUEST_TEXT, "g%u", guest->number);
    return buffer;
}

uint64_t vm_exit_total(const struct guest *guest)
{
    uint64_t total = 0;

    for (unsigned i = 0; i < VM_EXIT_COUNT; i++)
        total += guest->exits[i];
    return total;
}

static int guests(const struct command *command, struct output *out, const struct arguments *args)
{
    char name[GUEST_TEXT];
    unsigned count = guest_count(), ended = 0, ok = 0;

    (void)command;
    (void)args;
    if (count == 0) {
        output_note(out, "There are no guests%s%s.", guests_why_not() ? ": " : "",
                    guests_why_not() ? guests_why_not() : "");
        return E_OK;
    }
    for (unsigned i = 1; i <= count; i++) {
        const struct guest *guest = guest_by_number(i);

        ended += guest_ended(guest);
        ok += guest_ok(guest);
        output_row(
            out, &guest_record,
            (struct value[]){
                as_text(guest_text(name, guest)), as_text(guest->name),
                as_text(guest_state_name(guest->state)), as_text(guest_state_name(guest->expected)),
                as_number(guest->memory), as_number(buddy_owner_frames(guest_owner(guest))),
                as_number(vm_exit_total(guest)), guest->kind ? as_text(guest->kind) : as_nothing(),
                guest->reason[0] ? as_text(guest->reason) : as_nothing()});
    }
    output_note(out, "%u of %u ended, %u as expected", ended, count, ok);
    for (unsigned i = 1; i <= count; i++)
        if (guest_by_number(i)->options.pinned && guest_by_number(i)->state != GUEST_REFUSED)
            output_note(out, "g%u %s is pinned to CPU %u", i, guest_by_number(i)->name,
                        guest_by_number(i)->options.pin);
    return E_OK;
}

/* --- start, pause, resume, kill -------------------------------------------------------------- */

static void show_change(struct output *out, const struct guest *guest)
{
    output_note(out, "g%u %s: %s", guest->number, guest->name, guest_state_name(guest->state));
}

static int start(const struct command *command, struct output *out, const struct arguments *args)
{
    struct guest *guest;
    bool paused = args->count == 3;
    int error = command_guest(command, out, args->word[1], &guest);

    if (error)
        return error;
    if (paused && strcmp(args->word[2], "paused") != 0)
        return command_refuse(
            command, out, E_INVAL,
            "\"%.20s\" is nothing to start a guest with: only `paused` may follow "
            "its name",
            args->word[2]);
    if (guest->state == GUEST_HALTED)
        return command_refuse(command, out, E_STATE,
                              "g%u %s is halted, and nothing can wake it; `kill g%u; start g%u` "
                              "begins anew",
                              guest->number, guest->name, guest->number, guest->number);
    error = command_not_held(command, out, guest);
    if (error)
        return error;
    error = guest_start(guest);
    if (error == E_STATE)
        return command_refuse(command, out, error, "g%u %s is %s already; `kill g%u` ends it",
                              guest->number, guest->name, guest_state_name(guest->state),
                              guest->number);
    /* No round of the guests lies between the two, so it has not run an instruction. */
    if (!error && paused)
        error = guest_pause(guest);
    if (error)
        return command_refuse(command, out, error, "g%u %s cannot be started: %s", guest->number,
                              guest->name, guest->reason[0] ? guest->reason : error_text(error));
    show_change(out, guest);
    return E_OK;
}

static int pause(const struct command *command, struct output *out, const struct arguments *args)
{
    struct guest *guest;
    int error = command_guest(command, out, args->word[1], &guest);

    if (error)
        return error;
    error = guest_pause(guest);
    if (error)
        return command_refuse(command, out, error,
                              "g%u %s %s: only a guest that runs can be paused", guest->number,
                              guest->name, guest_state_verb(guest->state));
    show_change(out, guest);
    return E_OK;
}

static int resume(const struct command *command, struct output *out, const struct arguments *args)
{
    struct guest *guest;
    int error = command_guest(command, out, args->word[1], &guest);

    if (error)
        return error;
    if (guest->state != GUEST_PAUSED)
        return command_refuse(command, out, E_STATE,
                              "g%u %s %s: only a paused guest can be resumed%s", guest->number,
                              guest->name, guest_state_verb(guest->state),
                              guest_ended(guest) ? "; `start` runs an ended one again" : "");
    error = command_not_held(command, out, guest);
    if (error)
        return error;
    error = guest_start(guest);
    if (error)
        return command_refuse(command, out, error, "g%u %s cannot be resumed: %s", guest->number,
                              guest->name, error_text(error));
    show_change(out, guest);
    return E_OK;
}

static int kill(const struct command *command, struct output *out, const struct arguments *args)
{
    struct guest *guest;
    int error = command_guest(command, out, args->word[1], &guest);

    if (error)
        return error;
    error = guest_kill(guest);
    if (error)
        return command_refuse(command, out, error, "g%u %s has ended already (%s)", guest->number,
                              guest->name, guest_state_name(guest->state));
    show_change(out, guest);
    return E_OK;
}

static const struct command guests_commands[] = {
    {
        .name = "guests",
        .usage = "",
        .summary = "all guests: state, memory, exits, and why they ended",
        .details = "`expected` is what its module's options said it would come to (expect=...).\n"
                   "`frames` is what it holds now, page tables included: 0 once it has ended.\n"
                   "On which CPU each runs says `top`; those with `pin=N` are named here.\n",
        .example = "guests",
        .run = guests,
    },
    {
        .name = "start",
        .usage = "gN [paused]",
        .summary = "let a new or paused guest run, or make an ended one anew",
        .details = "An ended guest is made anew from its module: memory, table, registers. With\n"
                   "`paused` it stands before its first instruction, to be looked at.\n",
        .example = "start g1 paused",
        .least = 1,
        .most = 2,
        .run = start,
    },
    {
        .name = "pause",
        .usage = "gN",
        .summary = "hold a guest that runs, until `resume`",
        .details = "It keeps its memory, table and registers.\n",
        .example = "pause g4",
        .least = 1,
        .most = 1,
        .run = pause,
    },
    {
        .name = "resume",
        .usage = "gN",
        .summary = "let a paused guest run on",
        .details = "It goes on at the instruction that it was held before.\n",
        .example = "resume g4",
        .least = 1,
        .most = 1,
        .run = resume,
    },
    {
        .name = "kill",
        .usage = "gN",
        .summary = "end a guest and take back all it holds",
        .details = "Its output and its counters stay; `start` makes it anew.\n",
        .example = "kill g4",
        .least = 1,
        .most = 1,
        .run = kill,
    },
};

const struct command_family guests_family = FAMILY("guests", guests_commands);
