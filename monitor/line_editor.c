/*
 * The line editor. The screen is changed in two ways only: a character typed at the end of a line
 * that fits is echoed, and everything else draws the whole row again, which is short.
 */
#include "monitor/line_editor.h"

#include "lib/list.h"
#include "lib/panic.h"
#include "lib/string.h"
#include "monitor/fold.h"

#define CONTROL(letter) ((letter)&0x1f)
#define BELL "\a"
#define CANCEL_MARK "^C"
#define ESC 0x1b
#define DEL 0x7f
#define CONTINUATION "  " /* before the further rows of a folded line */
#define SEQUENCE_LIMIT 48 /* no terminal sends more; what does is noise */
#define PARAMETER_LIMIT 10000
#define VT220 62 /* the first terminal whose attributes are a list */
#define ATTRIBUTE_COLOUR 22

static void put(struct line_editor *editor, const char *bytes, size_t n)
{
    editor->terminal->write(editor->terminal, bytes, n);
}

static void put_text(struct line_editor *editor, const char *text)
{
    put(editor, text, strlen(text));
}

/* --- The row on the screen ------------------------------------------------------------------ */

/* How much of the text the row has room for, with the mark of a dropped line behind it; the last
 * column stays empty, so that no terminal wraps. */
static unsigned window_size(const struct line_editor *editor)
{
    unsigned columns = editor->terminal_is.columns;

    if (columns == 0)
        columns = LINE_COLUMNS;
    if (columns < LINE_LEAST_COLUMNS)
        columns = LINE_LEAST_COLUMNS;
    return columns - 1 - (unsigned)strlen(CANCEL_MARK) - (unsigned)strlen(editor->prompt);
}

/* Scrolls so that the cursor, which may stand behind the text's end, is in the window. */
static void scroll_to_cursor(struct line_editor *editor)
{
    unsigned window = window_size(editor);

    if (editor->cursor < editor->scroll)
        editor->scroll = editor->cursor;
    if (editor->cursor >= editor->scroll + window)
        editor->scroll = editor->cursor - window + 1;
    if (editor->length < window)
        editor->scroll = 0;
}

static void erase_row(struct line_editor *editor)
{
    put_text(editor, "\r\033[K");
    editor->shown = false;
}

static void draw_row(struct line_editor *editor)
{
    unsigned end;

    scroll_to_cursor(editor);
    end = editor->scroll + window_size(editor);
    if (end > editor->length)
        end = editor->length;
    put_text(editor, editor->prompt);
    put(editor, editor->text + editor->scroll, end - editor->scroll);
    if (end > editor->cursor)
        format(editor->terminal, "\033[%uD", end - editor->cursor);
    editor->shown = true;
}

static void redraw_row(struct line_editor *editor)
{
    erase_row(editor);
    draw_row(editor);
}

/* A log line, folded where the terminal's width is known. Returns how many rows it takes; 0: not
 * known. */
static unsigned put_line(struct line_editor *editor, const char *text, size_t n)
{
    unsigned columns = editor->terminal_is.columns, rows = 0;
    size_t indent = 0;

    if (columns < LINE_LEAST_COLUMNS) {
        put(editor, text, n);
        put_text(editor, "\n");
        return n < LINE_COLUMNS;
    }
    do {
        size_t next, end = fold_row(text, n, columns - indent, &next);

        format(editor->terminal, "%*s%.*s\n", (int)indent, "", (int)end, text);
        text += next;
        n -= next;
        indent = strlen(CONTINUATION);
        rows++;
    } while (n);
    return rows;
}

/* Takes the unfinished line away if this one goes on from it. */
static void replace_unfinished(struct line_editor *editor, const char *bytes, size_t n)
{
    size_t before = strlen(editor->unfinished);

    if (before && n > before && memcmp(bytes, editor->unfinished, before) == 0)
        format(editor->terminal, "\033[%uA\r\033[J", editor->unfinished_rows);
    editor->unfinished[0] = 0;
}

static void keep_unfinished(struct line_editor *editor, const char *text, size_t n, unsigned rows)
{
    if (rows == 0 || n >= LINE_UNFINISHED)
        return;
    memcpy(editor->unfinished, text, n);
    editor->unfinished[n] = 0;
    editor->unfinished_rows = rows;
}

static void write_around(struct sink *sink, const char *bytes, size_t n)
{
    struct line_editor *editor = container_of(sink, struct line_editor, around);
    char end = n ? bytes[n - 1] : 0;

    if (n == 0)
        return;
    if (editor->shown)
        erase_row(editor);
    replace_unfinished(editor, bytes, n);
    if (end != '\n' && end != '\r') {
        /* A writer that gives its line in pieces keeps the row away until the last of them. */
        put(editor, bytes, n);
        return;
    }
    unsigned rows = put_line(editor, bytes, n - 1);
    if (end == '\r')
        keep_unfinished(editor, bytes, n - 1, rows);
    if (editor->open)
        draw_row(editor);
}

static void write_plain(struct sink *sink, const char *bytes, size_t n)
{
    struct line_editor *editor = container_of(sink, struct line_editor, plain);

    editor->unfinished[0] = 0;
    put(editor, bytes, n);
}

/* --- Changing the text ----------------------------------------------------------------------- */

static void insert_byte(struct line_editor *editor, char byte)
{
    if (editor->length + 1 >= LINE_SIZE) {
        editor->overrun = true;
        put_text(editor, BELL);
        return;
    }
    memmove(editor->text + editor->cursor + 1, editor->text + editor->cursor,
            editor->length - editor->cursor + 1);
    editor->text[editor->cursor++] = byte;
    editor->length++;
    if (editor->cursor == editor->length && editor->shown &&
        editor->length - editor->scroll < window_size(editor))
        put(editor, &byte, 1);
    else
        redraw_row(editor);
}

/* Removes [from, to) and leaves the cursor at `from`. */
static void remove_span(struct line_editor *editor, unsigned from, unsigned to)
{
    if (from == to)
        return;
    memmove(editor->text + from, editor->text + to, editor->length - to + 1);
    editor->length -= to - from;
    editor->cursor = from;
    /* Whoever takes something out has seen that the line was full. */
    editor->overrun = false;
    redraw_row(editor);
}

static void move_cursor(struct line_editor *editor, unsigned to)
{
    if (to > editor->length || to == editor->cursor)
        return;
    editor->cursor = to;
    redraw_row(editor);
}

static void move_left(struct line_editor *editor)
{
    if (editor->cursor)
        move_cursor(editor, editor->cursor - 1);
}

static unsigned word_start(const struct line_editor *editor)
{
    unsigned at = editor->cursor;

    while (at && editor->text[at - 1] == ' ')
        at--;
    while (at && editor->text[at - 1] != ' ')
        at--;
    return at;
}

static void remove_next(struct line_editor *editor)
{
    if (editor->cursor < editor->length)
        remove_span(editor, editor->cursor, editor->cursor + 1);
}

/* --- History --------------------------------------------------------------------------------- */

/* The line `back` steps ago: 1 is the newest. */
static char *history_line(struct line_editor *editor, unsigned back)
{
    return editor->history[(editor->history_next + LINE_HISTORY - back) % LINE_HISTORY];
}

/* Keeps the line, unless it says nothing or repeats the newest. */
static void history_keep(struct line_editor *editor)
{
    bool blank = true;

    for (unsigned i = 0; i < editor->length; i++)
        blank &= editor->text[i] == ' ';
    if (blank || (editor->history_count && strcmp(history_line(editor, 1), editor->text) == 0))
        return;
    memcpy(editor->history[editor->history_next], editor->text, editor->length + 1);
    editor->history_next = (editor->history_next + 1) % LINE_HISTORY;
    if (editor->history_count < LINE_HISTORY)
        editor->history_count++;
}

static void history_show(struct line_editor *editor, unsigned back)
{
    if (back == editor->history_back || back > editor->history_count)
        return;
    if (editor->history_back == 0)
        memcpy(editor->draft, editor->text, editor->length + 1);
    memcpy(editor->text, back ? history_line(editor, back) : editor->draft, LINE_SIZE);
    editor->history_back = back;
    editor->length = editor->cursor = (unsigned)strlen(editor->text);
    editor->overrun = false;
    redraw_row(editor);
}

static void history_older(struct line_editor *editor)
{
    history_show(editor, editor->history_back + 1);
}

static void history_newer(struct line_editor *editor)
{
    if (editor->history_back)
        history_show(editor, editor->history_back - 1);
}

/* --- Bytes to keys --------------------------------------------------------------------------- */

/* The last byte of ESC [ ... or ESC O ...: xterm, VT220 and the Linux console agree on these. */
static void take_key(struct line_editor *editor, unsigned char final, unsigned parameter)
{
    switch (final) {
    case 'A':
        history_older(editor);
        break;
    case 'B':
        history_newer(editor);
        break;
    case 'C':
        move_cursor(editor, editor->cursor + 1);
        break;
    case 'D':
        move_left(editor);
        break;
    case 'H':
        move_cursor(editor, 0);
        break;
    case 'F':
        move_cursor(editor, editor->length);
        break;
    case '~':
        if (parameter == 1 || parameter == 7)
            move_cursor(editor, 0);
        else if (parameter == 4 || parameter == 8)
            move_cursor(editor, editor->length);
        else if (parameter == 3)
            remove_next(editor);
        break;
    default:
        break;
    }
}

/* What a terminal says of itself: its size (xterm's answer to CSI 18 t), or its attributes
 * (ECMA-48's device attributes, as the VT220 and its heirs give them). */
static enum line_event take_report(struct line_editor *editor, unsigned char final)
{
    unsigned given = editor->parameters + 1;

    if (final == 't' && !editor->private && given == 3 && editor->parameter[0] == 8) {
        editor->terminal_is.rows = editor->parameter[1];
        editor->terminal_is.columns = editor->parameter[2];
        redraw_row(editor);
        return LINE_TERMINAL;
    }
    if (final == 'c' && editor->private && editor->parameter[0] >= VT220) {
        editor->terminal_is.colour = false;
        for (unsigned i = 1; i < given && i < LINE_PARAMETERS; i++)
            editor->terminal_is.colour |= editor->parameter[i] == ATTRIBUTE_COLOUR;
        return LINE_TERMINAL;
    }
    return LINE_PENDING;
}

static void take_parameter_byte(struct line_editor *editor, unsigned char byte)
{
    if (byte == '?' && editor->sequence == 1) {
        editor->private = true;
    } else if (byte == ';') {
        editor->parameters++;
    } else if (byte >= '0' && byte <= '9' && editor->parameters < LINE_PARAMETERS) {
        unsigned *parameter = &editor->parameter[editor->parameters];
        if (*parameter < PARAMETER_LIMIT)
            *parameter = *parameter * 10 + (byte - '0');
    }
}

/* A byte in the middle of an escape sequence. False when it is none of the sequence's: a control
 * byte breaks it off and counts for itself. */
static bool take_sequence(struct line_editor *editor, unsigned char byte, enum line_event *event)
{
    if (byte < 0x20 || byte >= DEL) {
        editor->keys = KEYS_PLAIN;
        return false;
    }
    switch (editor->keys) {
    case KEYS_ESCAPE:
        editor->keys = byte == '[' ? KEYS_CSI : byte == 'O' ? KEYS_SS3 : KEYS_PLAIN;
        memset(editor->parameter, 0, sizeof(editor->parameter));
        editor->parameters = editor->sequence = 0;
        editor->private = false;
        return true;
    case KEYS_SS3:
        editor->keys = KEYS_PLAIN;
        take_key(editor, byte, 0);
        return true;
    case KEYS_CSI:
        /* Parameters and intermediates are 0x20..0x3f, the final byte 0x40..0x7e (ECMA-48, 5.4). */
        if (byte >= 0x40) {
            editor->keys = KEYS_PLAIN;
            if (byte == 't' || byte == 'c')
                *event = take_report(editor, byte);
            else if (!editor->private)
                take_key(editor, byte, editor->parameter[0]);
        } else if (++editor->sequence == SEQUENCE_LIMIT) {
            editor->keys = KEYS_PLAIN;
        } else {
            take_parameter_byte(editor, byte);
        }
        return true;
    default:
        return false;
    }
}

static enum line_event end_line(struct line_editor *editor, enum line_event event, const char *mark)
{
    /* Other output may have the row: a line ends on a row of its own. */
    if (!editor->shown)
        redraw_row(editor);
    put_text(editor, mark);
    put_text(editor, "\n");
    editor->unfinished[0] = 0;
    editor->shown = editor->open = false;
    return event;
}

static enum line_event take_control(struct line_editor *editor, unsigned char byte)
{
    switch (byte) {
    case '\r':
    case '\n':
        if (editor->overrun)
            return end_line(editor, LINE_TOO_LONG, "");
        history_keep(editor);
        return end_line(editor, LINE_READY, "");
    case CONTROL('C'):
        return end_line(editor, LINE_CANCELLED, CANCEL_MARK);
    case CONTROL('D'):
        if (editor->length == 0)
            return end_line(editor, LINE_CLOSED, "");
        remove_next(editor);
        break;
    case ESC:
        editor->keys = KEYS_ESCAPE;
        break;
    case '\t':
        return LINE_TAB;
    case '\b':
    case DEL:
        if (editor->cursor)
            remove_span(editor, editor->cursor - 1, editor->cursor);
        break;
    case CONTROL('A'):
        move_cursor(editor, 0);
        break;
    case CONTROL('B'):
        move_left(editor);
        break;
    case CONTROL('E'):
        move_cursor(editor, editor->length);
        break;
    case CONTROL('F'):
        move_cursor(editor, editor->cursor + 1);
        break;
    case CONTROL('K'):
        remove_span(editor, editor->cursor, editor->length);
        break;
    case CONTROL('L'):
        put_text(editor, "\033[H\033[2J");
        editor->unfinished[0] = 0;
        draw_row(editor);
        break;
    case CONTROL('N'):
        history_newer(editor);
        break;
    case CONTROL('P'):
        history_older(editor);
        break;
    case CONTROL('U'):
        remove_span(editor, 0, editor->cursor);
        break;
    case CONTROL('W'):
        remove_span(editor, word_start(editor), editor->cursor);
        break;
    default:
        break;
    }
    return LINE_PENDING;
}

/* --- The interface --------------------------------------------------------------------------- */

void line_init(struct line_editor *editor, struct sink *terminal, const char *prompt)
{
    invariant(strlen(prompt) < LINE_LEAST_COLUMNS / 2);
    memset(editor, 0, sizeof(*editor));
    editor->terminal = terminal;
    editor->around.write = write_around;
    editor->plain.write = write_plain;
    editor->prompt = prompt;
}

void line_begin(struct line_editor *editor)
{
    editor->text[0] = 0;
    editor->length = editor->cursor = editor->scroll = editor->history_back = 0;
    editor->overrun = false;
    editor->keys = KEYS_PLAIN;
    editor->open = true;
    draw_row(editor);
}

void line_insert(struct line_editor *editor, const char *text)
{
    for (; *text && editor->open; text++)
        insert_byte(editor, *text);
}

enum line_event line_byte(struct line_editor *editor, unsigned char byte)
{
    enum line_event event = LINE_PENDING;
    bool after_cr = editor->after_cr;

    editor->after_cr = byte == '\r';
    if (!editor->open || (byte == '\n' && after_cr))
        return LINE_PENDING;
    if (editor->keys != KEYS_PLAIN && take_sequence(editor, byte, &event))
        return event;
    if (byte < 0x20 || byte == DEL)
        return take_control(editor, byte);
    if (byte < DEL)
        insert_byte(editor, (char)byte);
    return LINE_PENDING;
}
