/*
 * A guest as somebody who sits in front of it: its screen, its keyboard; and its devices' states.
 */
#include "lib/string.h"
#include "monitor/commands.h"
#include "vm/device.h"
#include "vm/guest.h"
#include "vm/keyboard.h"
#include "vm/screen.h"

/* --- devices --------------------------------------------------------------------------------- */

static const struct column device_columns[] = {
    {"device", COLUMN_TEXT, 10},
    {"state", COLUMN_TEXT, 0},
};
static const struct record device_record = RECORD("device", device_columns);

/* What a device shows of itself: more lines than this holds end here. */
struct shown {
    struct sink sink;
    size_t length;
    char text[2048];
};

static void keep(struct sink *sink, const char *bytes, size_t n)
{
    struct shown *shown = (struct shown *)sink;
    size_t room = sizeof(shown->text) - 1 - shown->length;

    if (n > room)
        n = room;
    memcpy(shown->text + shown->length, bytes, n);
    shown->length += n;
}

static void show_device(struct output *out, const struct device *device, const struct guest *guest)
{
    static struct shown shown;
    char *line = shown.text, *end;

    shown = (struct shown){.sink = {keep}};
    device->show(guest, &shown.sink);
    for (; *line; line = end + 1) {
        end = strchr(line, '\n');
        if (!end)
            return;
        *end = 0;
        output_row(out, &device_record, (struct value[]){as_text(device->name), as_text(line)});
    }
}

/* All guests have the ports; a window in memory is a PC's, or was added as a slot. */
static bool has_device(const struct guest *guest, const struct device *device)
{
    if (device->port_count || guest->options.pc)
        return true;
    for (unsigned i = 0; i < device->window_count; i++) {
        const struct slot *slot = guest_slot_at(guest, gpa(device->windows[i].base));

        if (slot && slot->kind == SLOT_DEVICE)
            return true;
    }
    return false;
}

static int devices(const struct command *command, struct output *out, const struct arguments *args)
{
    const struct device *device;
    struct guest *guest;
    int error = command_guest(command, out, args->word[1], &guest);

    if (error)
        return error;
    if (!guest->vcpu)
        return command_refuse(command, out, E_STATE,
                              "g%u %s %s, and its devices are gone with it; `screen` and "
                              "`report` have what is left",
                              guest->number, guest->name, guest_state_verb(guest->state));
    for (unsigned i = 0; (device = device_by_index(i)); i++)
        if (device->show && has_device(guest, device))
            show_device(out, device, guest);
    return E_OK;
}

/* --- screen ---------------------------------------------------------------------------------- */

static const struct column screen_columns[] = {
    {"columns", COLUMN_NUMBER, 0},    {"rows", COLUMN_NUMBER, 0},
    {"cursor row", COLUMN_NUMBER, 0}, {"cursor column", COLUMN_NUMBER, 0},
    {"cursor shown", COLUMN_FLAG, 0},
};
static const struct record screen_record = RECORD("screen", screen_columns);

static const struct column line_columns[] = {
    {"row", COLUMN_NUMBER, 3},
    {"text", COLUMN_TEXT, 0},
};
static const struct record line_record = RECORD("screen row", line_columns);

/* The nearest of ASCII to a character of code page 437. */
static char ascii_of(uint8_t c)
{
    static const char controls[] = " oo****.ooooodd*><|!PS-|^v><L-^v";
    static const char upper[] = "CueaaaaceeeiiiAAEaAooouuyOUcLYPf"
                                "aiounNao?--24!<>###|++++++|+++++"
                                "++++-++++++++=+++++++++++++#_||^"
                                "aBGpSsutPTOdofen=+><()/~o..vn2# ";

    _Static_assert(sizeof(controls) == 0x20 + 1 && sizeof(upper) == 0x80 + 1, "all of them");
    if (c < 0x20)
        return controls[c];
    if (c < 0x7f)
        return (char)c;
    return c == 0x7f ? '^' : upper[c - 0x80];
}

/* A row as text; what is blank at its end is left out. */
static void row_text(const struct screen *screen, unsigned row, char text[SCREEN_COLUMNS + 1])
{
    unsigned length = 0;

    for (unsigned column = 0; column < screen->columns; column++) {
        text[column] = ascii_of(screen->cell[row][column][0]);
        if (text[column] != ' ')
            length = column + 1;
    }
    text[length] = 0;
}

static void show_plain(struct output *out, const struct screen *screen, unsigned row)
{
    char text[SCREEN_COLUMNS + 1];

    row_text(screen, row, text);
    format(out->sink, "%s\n", text);
}

/* The colours of an attribute by SGR (ECMA-48, 8.3.117). A VGA has blue for 1 and red for 4. */
static void set_colours(struct output *out, uint8_t attribute)
{
    static const uint8_t order[8] = {0, 4, 2, 6, 1, 5, 3, 7};

    format(out->sink, "\033[%u;%um", (attribute & 8 ? 90u : 30u) + order[attribute & 7],
           40u + order[attribute >> 4 & 7]);
}

static void show_coloured(struct output *out, const struct screen *screen, unsigned row)
{
    unsigned last = 256; /* no attribute */

    for (unsigned column = 0; column < screen->columns; column++) {
        const uint8_t *cell = screen->cell[row][column];

        if (cell[1] != last)
            set_colours(out, cell[1]);
        last = cell[1];
        format(out->sink, "%c", ascii_of(cell[0]));
    }
    format(out->sink, LOOK("0") "\n");
}

static void show_screen(struct output *out, const struct guest *guest, const struct screen *screen,
                        bool coloured)
{
    char cursor[48] = "no cursor";

    if (screen->cursor_shown)
        format_buffer(cursor, sizeof(cursor), "cursor at row %u, column %u", screen->cursor_row,
                      screen->cursor_column);
    output_title(out, "g%u %s: %u by %u, %s%s", guest->number, guest->name, screen->columns,
                 screen->rows, cursor, guest_ended(guest) ? ", when it ended" : "");
    for (unsigned row = 0; row < screen->rows; row++) {
        if (coloured)
            show_coloured(out, screen, row);
        else
            show_plain(out, screen, row);
    }
}

static void answer_screen(struct output *out, const struct screen *screen)
{
    char text[SCREEN_COLUMNS + 1];

    output_facts(out, &screen_record,
                 (struct value[]){as_number(screen->columns), as_number(screen->rows),
                                  as_number(screen->cursor_row), as_number(screen->cursor_column),
                                  as_number(screen->cursor_shown)});
    for (unsigned row = 0; row < screen->rows; row++) {
        row_text(screen, row, text);
        output_row(out, &line_record, (struct value[]){as_number(row), as_text(text)});
    }
}

static int screen(const struct command *command, struct output *out, const struct arguments *args)
{
    static struct screen shown;
    struct guest *guest;
    int error = command_guest(command, out, args->word[1], &guest);

    if (error)
        return error;
    if (args->count == 3 && strcmp(args->word[2], "colour") != 0)
        return command_refuse(command, out, E_INVAL, "\"%.20s\"? only `colour` may follow",
                              args->word[2]);
    error = screen_read(guest, &shown);
    if (error == E_UNSUPPORTED)
        return command_refuse(command, out, error,
                              "g%u %s is in a graphics mode: there is no text to show",
                              guest->number, guest->name);
    if (error)
        return command_refuse(command, out, error,
                              "g%u %s has no screen: guests with the option `pc` have one",
                              guest->number, guest->name);
    if (out->json)
        answer_screen(out, &shown);
    else
        show_screen(out, guest, &shown, args->count == 3);
    return E_OK;
}

/* --- type ------------------------------------------------------------------------------------ */

/* Takes the character that an escape stands for, of which `at` is behind the backslash; moves to
 * its last letter. 0: it is none. */
static char escaped(const char **at)
{
    static const char letters[] = "netb\\";
    static const char meant[] = "\n\033\t\b\\";
    const char *letter;

    if (**at == 'c' && ((*at)[1] | 0x20) >= 'a' && ((*at)[1] | 0x20) <= 'z')
        return (char)(*++*at & 0x1f);
    letter = **at ? strchr(letters, **at) : NULL;
    return letter ? meant[letter - letters] : 0;
}

/* The text that the words stand for. */
static int read_text(const struct command *command, struct output *out,
                     const struct arguments *args, char text[ARGUMENTS_TEXT], size_t *length)
{
    *length = 0;
    for (unsigned i = 2; i < args->count; i++) {
        if (i > 2)
            text[(*length)++] = ' ';
        for (const char *at = args->word[i]; *at; at++) {
            char c = *at;

            if (c == '\\') {
                at++;
                c = escaped(&at);
            }
            if (!c || !keyboard_has_key(c))
                return command_refuse(command, out, E_FORMAT,
                                      "\"%.40s\": behind a backslash there may be n, e, t, b, "
                                      "another backslash, or c and a letter",
                                      args->word[i]);
            text[(*length)++] = c;
        }
    }
    return E_OK;
}

static int type(const struct command *command, struct output *out, const struct arguments *args)
{
    char text[ARGUMENTS_TEXT];
    struct guest *guest;
    size_t length, room;
    int error = command_guest(command, out, args->word[1], &guest);

    if (!error)
        error = read_text(command, out, args, text, &length);
    if (error)
        return error;
    if (guest_ended(guest))
        return command_refuse(command, out, E_STATE, "g%u %s %s: nobody is at its keyboard",
                              guest->number, guest->name, guest_state_verb(guest->state));
    room = KEYBOARD_TEXT - guest->devices.keyboard.keyboard.text_count;
    if (length > room)
        return command_refuse(command, out, E_FULL,
                              "%lu characters: there is room for %lu until g%u %s has read what "
                              "was typed before",
                              length, room, guest->number, guest->name);
    keyboard_type(guest, text, length);
    output_note(out, "typed %lu character%s on the keyboard of g%u %s", length,
                length == 1 ? "" : "s", guest->number, guest->name);
    return E_OK;
}

static const struct command devices_commands[] = {
    {
        .name = "devices",
        .of_cpu = true,
        .usage = "gN",
        .summary = "the devices of a guest, and how each stands",
        .details = "What the guest has programmed them to, and what they have to say.\n",
        .example = "devices g1",
        .least = 1,
        .most = 1,
        .run = devices,
    },
    {
        .name = "screen",
        .usage = "gN [colour]",
        .summary = "the text on a guest's screen",
        .details = "Its VGA in text mode, of a guest with the option `pc`; of an ended one, as\n"
                   "it was at its end. Characters that ASCII has not appear as what they\n"
                   "resemble.\n",
        .example = "screen g1",
        .least = 1,
        .most = 2,
        .run = screen,
    },
    {
        .name = "type",
        .usage = "gN TEXT ...",
        .summary = "type on a guest's keyboard",
        .details =
            "Keys of a US layout, with shift where it takes that. \\n is Enter, \\e Esc, \\t\n"
            "Tab, \\b Backspace, \\cX Ctrl and the letter X, \\\\ a backslash. Quotes keep\n"
            "blanks. Its serial port is another: `attach`.\n",
        .example = "type g1 root\\n",
        .least = 2,
        .most = 12,
        .run = type,
    },
};

const struct command_family devices_family = FAMILY("devices", devices_commands);
