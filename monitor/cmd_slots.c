/* The slots of a guest: what its physical addresses are, and changes to that while it is there. */
#include "lib/string.h"
#include "monitor/commands.h"
#include "vm/shared.h"
#include "vm/slot_change.h"
#include "vm/slots.h"

static const struct column slot_columns[] = {
    {"first", COLUMN_HEX, 12}, {"last", COLUMN_HEX, 12},   {"size", COLUMN_SIZE, 6},
    {"slot", COLUMN_TEXT, 14}, {"rights", COLUMN_TEXT, 6}, {"backed", COLUMN_SIZE, 6},
    {"name", COLUMN_TEXT, 0},
};
static const struct record slot_record = RECORD("slot", slot_columns);

static void show_slot(struct output *out, const struct slot *slot)
{
    char rights[RIGHTS_TEXT];

    output_row(out, &slot_record,
               (struct value[]){as_number(slot->base.v), as_number(slot_last(slot)),
                                as_number(slot->size), as_text(slot_kind_name(slot->kind)),
                                as_text(rights_text(rights, slot->rights)), as_number(slot->backed),
                                slot->shared ? as_text(slot->shared->name) : as_nothing()});
}

static int list(struct output *out, const struct guest *guest)
{
    for (unsigned i = 0; i < guest->slots; i++)
        show_slot(out, &guest->slot[i]);
    output_note(out, "g%u %s: %u of %u slots; elsewhere is nothing", guest->number, guest->name,
                guest->slots, GUEST_SLOTS);
    return E_OK;
}

struct request {
    const struct command *command;
    struct output *out;
    struct guest *guest;
    uint64_t base, size;
};

/* The first slot that has a part of the range, which does not wrap; NULL. */
static const struct slot *slot_within(const struct request *asked)
{
    const struct guest *guest = asked->guest;

    for (unsigned i = 0; i < guest->slots; i++)
        if (slot_last(&guest->slot[i]) >= asked->base &&
            guest->slot[i].base.v <= asked->base + (asked->size - 1))
            return &guest->slot[i];
    return NULL;
}

/* What is true of all three. */
static int refuse(const struct request *asked, int error)
{
    const struct guest *guest = asked->guest;

    if (error == E_ALIGN)
        return command_refuse(asked->command, asked->out, error,
                              "0x%lx+0x%lx: address and size are multiples of 4K", asked->base,
                              asked->size);
    if (error == E_FULL)
        return command_refuse(asked->command, asked->out, error,
                              "g%u %s has %u slots, and can have no more than %u", guest->number,
                              guest->name, guest->slots, GUEST_SLOTS);
    if (error == E_QUOTA || error == E_NOMEM)
        return command_refuse(asked->command, asked->out, error,
                              "g%u %s: no frames for it: %s; all is as it was", guest->number,
                              guest->name, error_text(error));
    return command_refuse(asked->command, asked->out, error, "%s", error_text(error));
}

static int refuse_add(const struct request *asked, int error)
{
    const struct slot *other = slot_within(asked);

    if (error == E_RANGE && asked->size == 0)
        return command_refuse(asked->command, asked->out, error,
                              "a slot of 0 bytes at 0x%lx? its size is 4K or a multiple of it",
                              asked->base);
    if (error == E_RANGE)
        return command_refuse(asked->command, asked->out, error,
                              "0x%lx+0x%lx: the addresses of a guest on this CPU end at 0x%lx",
                              asked->base, asked->size, guest_addresses_end());
    if (error == E_EXIST && other != NULL)
        return command_refuse(asked->command, asked->out, error,
                              "0x%lx+0x%lx overlaps %s at 0x%lx+0x%lx; `slot g%u remove` takes it "
                              "away",
                              asked->base, asked->size, slot_kind_name(other->kind), other->base.v,
                              other->size, asked->guest->number);
    if (error == E_UNSUPPORTED)
        return command_refuse(asked->command, asked->out, error,
                              "this CPU's tables have no pages that can only be executed");
    if (error == E_NOENT)
        return command_refuse(asked->command, asked->out, error,
                              "no device has its window at 0x%lx+0x%lx; `slot` of a guest with "
                              "`pc` lists them",
                              asked->base, asked->size);
    return refuse(asked, error);
}

static int refuse_share(const struct request *asked, int error, const char *name)
{
    char has[SIZE_TEXT], size[SIZE_TEXT];

    if (error == E_INVAL)
        return command_refuse(asked->command, asked->out, error,
                              "share=%s: it has %s, not %s: who named it first has said so", name,
                              size_text(has, shared_size(name)), size_text(size, asked->size));
    if (error == E_FULL && asked->guest->slots < GUEST_SLOTS)
        return command_refuse(asked->command, asked->out, error,
                              "share=%s: there are %d memories with names already", name,
                              SHARED_LIMIT);
    return refuse_add(asked, error);
}

/* As the option of a module: one word, read by the parser of those. */
static int add_shared(struct request *asked, const char *word)
{
    static struct guest_options options;
    char line[ARGUMENTS_TEXT + 8], why[160];

    format_buffer(line, sizeof(line), "slot %s", word);
    int error = options_parse(line, &options, why, sizeof(why));
    if (error)
        return command_refuse(asked->command, asked->out, error, "%s", why);
    const struct guest_area *area = &options.area[0];
    asked->base = area->base;
    asked->size = area->size;
    error = slot_insert_shared(asked->guest, area->name, gpa(area->base), area->size,
                               area->writable ? RIGHT_RW : RIGHT_R);
    if (error)
        return refuse_share(asked, error, area->name);
    show_slot(asked->out, guest_slot_at(asked->guest, gpa(asked->base)));
    return E_OK;
}

static int refuse_change(const struct request *asked, int error)
{
    if (error == E_NOENT)
        return command_refuse(asked->command, asked->out, error,
                              "0x%lx+0x%lx does not lie in one slot of g%u %s; `slot g%u` lists "
                              "them",
                              asked->base, asked->size, asked->guest->number, asked->guest->name,
                              asked->guest->number);
    if (error == E_PERM)
        return command_refuse(asked->command, asked->out, error,
                              "0x%lx+0x%lx: the window of a device is added and removed as a "
                              "whole, and has no rights",
                              asked->base, asked->size);
    if (error == E_UNSUPPORTED)
        return command_refuse(asked->command, asked->out, error,
                              "this CPU's tables cannot express these rights: r, rw, rx and rwx go "
                              "everywhere, x where pages can only be executed");
    return refuse(asked, error);
}

static int say_gone(const struct request *asked)
{
    char size[SIZE_TEXT];

    output_note(asked->out, "g%u %s: nothing is at 0x%lx+%s any more", asked->guest->number,
                asked->guest->name, asked->base, size_text(size, asked->size));
    return E_OK;
}

static int make_hole(const struct request *asked)
{
    int error = slot_hole(asked->guest, gpa(asked->base), asked->size);

    if (error == E_RANGE)
        return refuse_add(asked, error);
    return error ? refuse_change(asked, error) : say_gone(asked);
}

static int add(struct request *asked, const struct arguments *args)
{
    static const struct {
        const char *word;
        enum slot_kind kind;
    } kinds[] = {{"ram", SLOT_RAM},    {"lazy", SLOT_RAM_LAZY}, {"rom", SLOT_ROM},
                 {"nox", SLOT_NOEXEC}, {"xo", SLOT_EXEC_ONLY},  {"device", SLOT_DEVICE}};
    int error;

    if (args->count == 4 && word_behind(args->word[3], "share="))
        return add_shared(asked, args->word[3]);
    if (args->count != 6)
        return command_refuse(asked->command, asked->out, E_INVAL,
                              "a kind, an address and a size are wanted: `slot g%u add ram "
                              "0x40000000 4M`",
                              asked->guest->number);
    error = command_number(asked->command, asked->out, args->word[4], "address", &asked->base);
    if (!error)
        error = command_number(asked->command, asked->out, args->word[5], "size", &asked->size);
    if (error)
        return error;
    if (strcmp(args->word[3], "hole") == 0)
        return make_hole(asked);
    for (unsigned i = 0; i < ARRAY_SIZE(kinds); i++) {
        if (strcmp(args->word[3], kinds[i].word) != 0)
            continue;
        error = slot_insert(asked->guest, kinds[i].kind, gpa(asked->base), asked->size);
        if (error)
            return refuse_add(asked, error);
        show_slot(asked->out, guest_slot_at(asked->guest, gpa(asked->base)));
        return E_OK;
    }
    return command_refuse(asked->command, asked->out, E_INVAL,
                          "\"%.20s\" is no kind of slot: ram, lazy, rom, nox, xo, hole, device and "
                          "share=NAME:SIZE@GPA are",
                          args->word[3]);
}

/* The address, and the size if it is given: else all of the slot that begins there. */
static int read_range(struct request *asked, const struct arguments *args, unsigned size_at)
{
    int error = command_number(asked->command, asked->out, args->word[3], "address", &asked->base);
    const struct slot *slot = error ? NULL : guest_slot_at(asked->guest, gpa(asked->base));

    if (!error && args->count > size_at)
        return command_number(asked->command, asked->out, args->word[size_at], "size",
                              &asked->size);
    if (!error && slot == NULL)
        return command_refuse(asked->command, asked->out, E_NOENT,
                              "no slot of g%u %s has 0x%lx; `slot g%u` lists them",
                              asked->guest->number, asked->guest->name, asked->base,
                              asked->guest->number);
    if (!error && slot->base.v != asked->base)
        return command_refuse(asked->command, asked->out, E_NOENT,
                              "0x%lx lies in the slot at 0x%lx+0x%lx, %s, of g%u %s: of a part "
                              "the size is wanted, too",
                              asked->base, slot->base.v, slot->size, slot_kind_name(slot->kind),
                              asked->guest->number, asked->guest->name);
    asked->size = slot != NULL ? slot->size : 0;
    return error;
}

static int take_away(struct request *asked, const struct arguments *args)
{
    int error;

    if (args->count < 4 || args->count > 5)
        return command_refuse(asked->command, asked->out, E_INVAL,
                              "an address is wanted, and of a part its size: `slot g%u remove "
                              "0x40000000`",
                              asked->guest->number);
    error = read_range(asked, args, 4);
    if (error)
        return error;
    error = slot_remove(asked->guest, gpa(asked->base), asked->size);
    if (error)
        return refuse_change(asked, error);
    return say_gone(asked);
}

static bool read_rights(const char *word, unsigned *rights)
{
    static const char letters[] = {'r', 'w', 'x'};
    static const uint8_t bits[] = {RIGHT_R, RIGHT_W, RIGHT_X};

    *rights = RIGHT_NONE;
    for (unsigned i = 0; i < ARRAY_SIZE(letters); i++)
        if (*word == letters[i]) {
            *rights |= bits[i];
            word++;
        }
    return *word == '\0';
}

static int protect(struct request *asked, const struct arguments *args)
{
    unsigned rights;
    int error;

    if (args->count < 5 || args->count > 6 || !read_rights(args->word[4], &rights))
        return command_refuse(asked->command, asked->out, E_INVAL,
                              "an address and rights are wanted, r, rw, rx, rwx or x, and of a "
                              "part its size: `slot g%u protect 0x200000 rx`",
                              asked->guest->number);
    error = read_range(asked, args, 5);
    if (error)
        return error;
    error = slot_protect(asked->guest, gpa(asked->base), asked->size, rights);
    if (error)
        return refuse_change(asked, error);
    show_slot(asked->out, guest_slot_at(asked->guest, gpa(asked->base)));
    return E_OK;
}

static int slot(const struct command *command, struct output *out, const struct arguments *args)
{
    struct request asked = {.command = command, .out = out};
    int error = command_guest(command, out, args->word[1], &asked.guest);

    if (!error && asked.guest->vcpu == NULL)
        return command_refuse(command, out, E_STATE,
                              "g%u %s has no memory (%s); `start g%u paused` makes it anew",
                              asked.guest->number, asked.guest->name,
                              guest_state_name(asked.guest->state), asked.guest->number);
    if (error)
        return error;
    if (args->count == 2)
        return list(out, asked.guest);
    if (strcmp(args->word[2], "add") == 0)
        return add(&asked, args);
    if (strcmp(args->word[2], "remove") == 0)
        return take_away(&asked, args);
    if (strcmp(args->word[2], "protect") == 0)
        return protect(&asked, args);
    return command_refuse(command, out, E_INVAL,
                          "\"%.20s\" is nothing to do with a slot: add, remove and protect are",
                          args->word[2]);
}

static const struct command slots_commands[] = {
    {
        .name = "slot",
        .usage = "gN | gN add ram|lazy|rom|nox|xo|hole|device GPA SIZE | "
                 "gN add share=NAME:SIZE[:r|rw]@GPA | gN remove GPA [SIZE] | "
                 "gN protect GPA r|rw|rx|rwx|x [SIZE]",
        .summary = "what a guest's addresses are, and changes to that while it runs",
        .details = "The kinds are those of a module's options; a hole may reach over several\n"
                   "slots; a device's window is one that `pc` has. A range without a size is the\n"
                   "slot that begins there. What is removed counts as written, and is given back\n"
                   "once no CPU can reach it. `reset` brings back the slots of the snapshot and\n"
                   "what was in them, `start` those of the options; a fork has those of its\n"
                   "moment. The guest is told nothing.\n",
        .example = "slot g4 add lazy 0x40000000 4M",
        .least = 1,
        .most = 5,
        .run = slot,
    },
};

const struct command_family slots_family = FAMILY("slots of guests", slots_commands);
