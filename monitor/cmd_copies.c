/* Copies of guests: snapshots and the way back to them, forks; and how much a guest may hold. */
#include "lib/string.h"
#include "mm/frames/buddy.h"
#include "monitor/commands.h"
#include "vm/fork.h"
#include "vm/merge.h"
#include "vm/quota.h"
#include "vm/snapshot.h"

int command_not_held(const struct command *command, struct output *out, const struct guest *guest)
{
    if (guest->held_end == GUEST_READY)
        return E_OK;
    return command_refuse(command, out, E_STATE,
                          "g%u %s has %s and is held at its end; `reset g%u` goes back to its "
                          "snapshot, `kill g%u` ends it",
                          guest->number, guest->name, guest_state_name(guest->held_end),
                          guest->number, guest->number);
}

/* The guest, alive. */
static int living(const struct command *command, struct output *out, const char *word,
                  struct guest **guest)
{
    int error = command_guest(command, out, word, guest);

    if (!error && (*guest)->vcpu == NULL)
        return command_refuse(
            command, out, E_STATE, "g%u %s has no memory (%s); `start g%u paused` makes it anew",
            (*guest)->number, (*guest)->name, guest_state_name((*guest)->state), (*guest)->number);
    return error;
}

static int snapshot(const struct command *command, struct output *out, const struct arguments *args)
{
    struct guest *guest;
    int error = living(command, out, args->word[1], &guest);

    if (!error)
        error = command_not_held(command, out, guest);
    if (error)
        return error;
    error = guest_snapshot(guest);
    if (error)
        return command_refuse(command, out, error,
                              "g%u %s has no snapshot now: %s (its quota covers the tables of one)",
                              guest->number, guest->name, error_text(error));
    output_note(out, "g%u %s: `reset g%u` comes back to here; it holds %lu table frames for it",
                guest->number, guest->name, guest->number, guest->snapshot->table.table_frames);
    return E_OK;
}

static int reset(const struct command *command, struct output *out, const struct arguments *args)
{
    struct guest *guest;
    int error = living(command, out, args->word[1], &guest);

    if (error)
        return error;
    bool slots_too = guest->slots_changed;
    error = guest_back(guest);
    if (error == E_NOENT)
        return command_refuse(command, out, error,
                              "g%u %s has no snapshot to go back to; `snapshot g%u` takes one",
                              guest->number, guest->name, guest->number);
    if (error)
        return command_refuse(
            command, out, error,
            "g%u %s is on the way back and cannot go on, for there is no room for "
            "copies of pages that others have: %s; `reset g%u` again once there "
            "is room",
            guest->number, guest->name, error_text(error), guest->number);
    output_note(out, "g%u %s: back, %lu page%s put back%s; %s", guest->number, guest->name,
                guest->snapshot->put_back, guest->snapshot->put_back == 1 ? "" : "s",
                slots_too ? ", its slots as they were" : "", guest_state_name(guest->state));
    return E_OK;
}

static int make_fork(const struct command *command, struct output *out,
                     const struct arguments *args)
{
    struct guest *guest, *made;
    int error = living(command, out, args->word[1], &guest);

    if (!error)
        error = command_not_held(command, out, guest);
    if (error)
        return error;
    error = guest_fork(guest, &made);
    if (error == E_FULL)
        return command_refuse(command, out, error, "there are %u guests, and there can be no more",
                              guest_count());
    if (error)
        return command_refuse(command, out, error, "g%u %s: %s", guest->number, guest->name,
                              error_text(error));
    output_note(out, "g%u %s: a fork of g%u, %s", made->number, made->name, guest->number,
                guest_state_name(made->state));
    return E_OK;
}

static int quota(const struct command *command, struct output *out, const struct arguments *args)
{
    struct guest *guest;
    char held[SIZE_TEXT], size[SIZE_TEXT];
    uint64_t bytes;
    int error = living(command, out, args->word[1], &guest);

    if (error)
        return error;
    bool none = strcmp(args->word[2], "none") == 0;
    if (!none) {
        error = command_number(command, out, args->word[2], "size", &bytes);
        if (error)
            return error;
        if (bytes < quota_beside(guest) * PAGE_SIZE)
            return command_refuse(command, out, E_RANGE,
                                  "%s is less than the %s that g%u %s holds for its structure and "
                                  "its vCPU, whatever its memory is",
                                  args->word[2], size_text(size, quota_beside(guest) * PAGE_SIZE),
                                  guest->number, guest->name);
    }
    error = buddy_set_quota(guest_owner(guest), none ? UINT64_MAX : quota_frames(guest, bytes));
    if (error)
        return command_refuse(command, out, error, "%s", error_text(error));
    output_note(out, "g%u %s: may hold %s, holds %s", guest->number, guest->name,
                none ? "what the host leaves" : size_text(size, quota_bytes(guest)),
                size_text(held, quota_held(guest)));
    return E_OK;
}

/* --- merge ----------------------------------------------------------------------------------- */

#define STEP 256 /* pages between two looks at the keyboard */

static const struct column merge_columns[] = {
    {"pages looked at", COLUMN_NUMBER, 0},
    {"shared with an equal one", COLUMN_FRAMES, 0},
    {"frames that came free", COLUMN_FRAMES, 0},
};
static const struct record merge_record = RECORD("merge", merge_columns);

static int merge(const struct command *command, struct output *out, const struct arguments *args)
{
    struct merge sweep;
    int error = merge_begin(&sweep);
    bool done = false;

    (void)args;
    if (error)
        return command_refuse(command, out, error, "no room to note which pages were seen: %s",
                              error_text(error));
    while (!done && !command_stopped(NULL))
        done = merge_step(&sweep, STEP);
    merge_end(&sweep);
    output_facts(
        out, &merge_record,
        (struct value[]){as_number(sweep.looked), as_number(sweep.shared), as_number(sweep.freed)});
    return done ? E_OK : command_refuse(command, out, E_STATE, "stopped by a key");
}

static const struct command copies_commands[] = {
    {
        .name = "merge",
        .usage = "",
        .summary = "share equal pages among the guests that allow it",
        .details = "Guests with the option `merge`; their RAM, in pages of 4K, zeroes first.\n"
                   "Large pages are split where many of their pages are zeroes. Who writes to a\n"
                   "shared page gets one of his own again. `mem` says what is saved by all that\n"
                   "guests share. A key stops it.\n",
        .example = "merge",
        .run = merge,
    },
    {
        .name = "snapshot",
        .usage = "gN",
        .summary = "keep how a guest is now, for `reset` to come back to",
        .details = "Memory, CPU and devices. The memory is shared with the guest until it\n"
                   "writes, so it costs what the guest's table costs. There is one a guest: a\n"
                   "new one replaces it. A guest with a snapshot that would end is held, so that\n"
                   "it can go back.\n",
        .example = "snapshot g4",
        .least = 1,
        .most = 1,
        .run = snapshot,
    },
    {
        .name = "reset",
        .usage = "gN",
        .summary = "send a guest back to its snapshot",
        .details = "Only pages that were written since are put back, unless its slots were\n"
                   "changed. The guest's clock goes back, too. A paused guest stays paused,\n"
                   "unless it was held at its end.\n",
        .example = "reset g4",
        .least = 1,
        .most = 1,
        .run = reset,
    },
    {
        .name = "fork",
        .usage = "gN",
        .summary = "make a second guest that goes on from where a guest is",
        .details = "Its memory is shared with the first until either of them writes, CPU and\n"
                   "devices are copied. It runs if the first runs. Shared memory is charged to\n"
                   "neither; what is copied, to who wrote.\n",
        .example = "fork g4",
        .least = 1,
        .most = 1,
        .run = make_fork,
    },
    {
        .name = "quota",
        .usage = "gN SIZE|none",
        .summary = "how much memory a guest may hold, from now on",
        .details = "All that it costs is included, its tables and vCPU too. One that needs more\n"
                   "is paused and says so; `resume` lets it go on once there is room. What it\n"
                   "has it keeps.\n",
        .example = "quota g4 none",
        .least = 2,
        .most = 2,
        .run = quota,
    },
};

const struct command_family copies_family = FAMILY("copies of guests", copies_commands);
