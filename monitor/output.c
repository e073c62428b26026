/*
 * Records as text (aligned tables, facts one to a line) and as JSON.
 */
#include "monitor/output.h"

#include "lib/error.h"
#include "lib/list.h"
#include "lib/panic.h"
#include "lib/string.h"
#include "monitor/fold.h"
#include "monitor/layout.h"

void output_init(struct output *out, struct sink *sink)
{
    *out = (struct output){.sink = sink};
}

/* --- JSON ------------------------------------------------------------------------------------ */

/* A byte within a JSON string (RFC 8259, 7). Bytes above ASCII count as Latin-1, so that every text
 * is valid whatever it holds. */
static void write_json_byte(struct sink *sink, unsigned char c)
{
    if (c == '"' || c == '\\')
        format(sink, "\\%c", c);
    else if (c >= 0x20 && c < 0x7f)
        format(sink, "%c", c);
    else
        format(sink, "\\u%04x", c);
}

static void write_json_text(struct sink *sink, const char *text)
{
    format(sink, "\"");
    for (; *text; text++)
        write_json_byte(sink, (unsigned char)*text);
    format(sink, "\"");
}

const char *column_key(char buffer[KEY_TEXT], const struct column *column)
{
    size_t i;

    for (i = 0; column->name[i] && i + 1 < KEY_TEXT; i++) {
        char c = column->name[i];
        bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
        if (!letter && !(c >= '0' && c <= '9'))
            c = '_';
        buffer[i] = c >= 'A' && c <= 'Z' ? (char)(c - 'A' + 'a') : c;
    }
    buffer[i] = 0;
    return buffer;
}

static void write_json_value(struct sink *sink, enum column_kind kind, struct value value)
{
    if (value.kind == VALUE_NOTHING)
        format(sink, "null");
    else if (value.kind == VALUE_TEXT)
        write_json_text(sink, value.text);
    else if (kind == COLUMN_HEX)
        format(sink, "\"0x%lx\"", value.number);
    else if (kind == COLUMN_FLAG)
        format(sink, value.number ? "true" : "false");
    else
        format(sink, "%lu", value.number);
}

static void write_json_record(struct output *out, const char *kind, const struct record *record,
                              const struct value *values)
{
    char key[KEY_TEXT];

    format(out->sink, "{\"kind\":\"%s\",\"record\":", kind);
    write_json_text(out->sink, record->name);
    format(out->sink, ",\"values\":{");
    for (unsigned i = 0; i < record->columns; i++) {
        const struct column *column = &record->column[i];

        invariant(values[i].kind == VALUE_NOTHING ||
                  (column->kind == COLUMN_TEXT) == (values[i].kind == VALUE_TEXT));
        format(out->sink, "%s\"%s\":", i ? "," : "", column_key(key, column));
        write_json_value(out->sink, column->kind, values[i]);
    }
    format(out->sink, "}}\n");
}

/* Text that is formatted on its way into a JSON string. */
struct json_sink {
    struct sink sink;
    struct sink *to;
};

static void write_json_escaped(struct sink *sink, const char *bytes, size_t n)
{
    struct json_sink *json = container_of(sink, struct json_sink, sink);

    for (size_t i = 0; i < n; i++)
        write_json_byte(json->to, (unsigned char)bytes[i]);
}

static void write_json_line(struct output *out, const char *kind, const char *code,
                            const char *text, va_list args)
{
    struct json_sink json = {{write_json_escaped}, out->sink};

    format(out->sink, "{\"kind\":\"%s\"", kind);
    if (code)
        format(out->sink, ",\"code\":\"%s\"", code);
    format(out->sink, ",\"text\":\"");
    vformat(&json.sink, text, args);
    format(out->sink, "\"}\n");
}

/* --- Text ------------------------------------------------------------------------------------ */

#define INDENT 4         /* of the further rows of a line */
#define QUOTE_INDENT 4   /* ... of somebody else's text, beyond where its line begins ... */
#define QUOTE_DEEPEST 16 /* ... unless that is further in */
#define LINE_TEXT 512    /* bytes of a title, a note or an error; longer ones are cut */

static void look(struct output *out, const char *parameters)
{
    if (out->colour)
        format(out->sink, "\033[%sm", parameters);
}

/* The value as text, in `buffer` or wherever it is already. */
#define VALUE_BUFFER 48
static const char *value_text(char buffer[VALUE_BUFFER], const struct column *column,
                              struct value value, bool in_table)
{
    char size[SIZE_TEXT];

    if (value.kind == VALUE_NOTHING)
        return "-";
    invariant((column->kind == COLUMN_TEXT) == (value.kind == VALUE_TEXT));
    switch (column->kind) {
    case COLUMN_TEXT:
        return value.text;
    case COLUMN_NUMBER:
        format_buffer(buffer, VALUE_BUFFER, "%lu", value.number);
        break;
    case COLUMN_HEX:
        format_buffer(buffer, VALUE_BUFFER, "0x%lx", value.number);
        break;
    case COLUMN_SIZE:
        size_text(size, value.number);
        format_buffer(buffer, VALUE_BUFFER, "%s", size);
        break;
    case COLUMN_FRAMES:
        if (in_table)
            format_buffer(buffer, VALUE_BUFFER, "%lu", value.number);
        else
            format_buffer(buffer, VALUE_BUFFER, "%lu (%s)", value.number,
                          size_text(size, value.number << PAGE_SHIFT));
        break;
    case COLUMN_FLAG:
        return value.number ? "yes" : "no";
    }
    return buffer;
}

void output_row(struct output *out, const struct record *record, const struct value *values)
{
    char buffer[VALUE_BUFFER];

    if (out->json) {
        write_json_record(out, "row", record, values);
        return;
    }
    table_begin(out, record);
    for (unsigned i = 0; i < record->columns; i++)
        table_cell(out, record, i, value_text(buffer, &record->column[i], values[i], true));
    table_row_end(out, record);
}

/* Ends the table before whatever comes next. */
static void end_table(struct output *out)
{
    output_flush(out);
    out->heading = NULL;
}

/* `after` stands behind the last word. */
static void write_folded(struct output *out, const char *text, unsigned column, const char *after)
{
    size_t n = strlen(text);

    while (out->columns && n + column > out->columns) {
        size_t next, end = fold_row(text, n, out->columns - column, &next);

        format(out->sink, "%.*s", (int)end, text);
        text += next;
        n -= next;
        column = INDENT;
        if (n)
            format(out->sink, "\n%*s", INDENT, "");
    }
    format(out->sink, "%s%s\n", text, after);
}

void output_facts(struct output *out, const struct record *record, const struct value *values)
{
    char buffer[VALUE_BUFFER];

    end_table(out);
    if (out->json) {
        write_json_record(out, "facts", record, values);
        return;
    }
    for (unsigned i = 0; i < record->columns; i++) {
        const struct column *column = &record->column[i];
        if (values[i].kind == VALUE_NOTHING)
            continue;
        format(out->sink, "%s: ", column->name);
        write_folded(out, value_text(buffer, column, values[i], false),
                     (unsigned)strlen(column->name) + 2, "");
    }
}

/* A line of its own: as text in a look and behind `before`, for programs an object. */
static void write_line(struct output *out, const char *kind, const char *looks, const char *before,
                       const char *text, va_list args)
{
    char line[LINE_TEXT];
    size_t n;

    end_table(out);
    if (out->json) {
        write_json_line(out, kind, NULL, text, args);
        return;
    }
    n = format_buffer(line, sizeof(line), "%s", before);
    vformat_buffer(line + n, sizeof(line) - n, text, args);
    look(out, looks);
    write_folded(out, line, 0, out->colour ? LOOK("") : "");
}

void output_title(struct output *out, const char *text, ...)
{
    va_list args;
    va_start(args, text);
    write_line(out, "title", LOOK_TITLE, "", text, args);
    va_end(args);
}

void output_note(struct output *out, const char *text, ...)
{
    va_list args;
    va_start(args, text);
    write_line(out, "note", LOOK_NOTE, "", text, args);
    va_end(args);
}

static void write_error(struct output *out, int error, const char *text, va_list args)
{
    if (out->json) {
        end_table(out);
        write_json_line(out, "error", error_name(error), text, args);
    } else {
        write_line(out, "error", LOOK_ERROR, "error: ", text, args);
    }
}

void output_failure(struct output *out, int error, const char *text, ...)
{
    va_list args;
    va_start(args, text);
    write_error(out, error, text, args);
    va_end(args);
}

void output_error(struct output *out, const char *text, ...)
{
    va_list args;
    va_start(args, text);
    write_error(out, E_INVAL, text, args);
    va_end(args);
}

void output_progress(struct output *out, const char *what, uint64_t done, uint64_t total)
{
    unsigned percent = done >= total ? 100 : (unsigned)(done / (total / 100 + 1));

    if (out->json || out->progress == 1 + percent)
        return;
    out->progress = 1 + percent;
    out->progress_shown = true;
    format(out->sink, "\r%s: %u%%", what, percent);
}

void output_progress_end(struct output *out)
{
    if (out->progress_shown)
        format(out->sink, "\r\033[K");
    out->progress_shown = false;
}

void output_end(struct output *out, const char *command, int error)
{
    end_table(out);
    out->progress = 0;
    if (!out->json)
        return;
    format(out->sink, "{\"kind\":\"end\",\"command\":");
    write_json_text(out->sink, command);
    format(out->sink, ",\"code\":\"%s\"}\n", error_name(error));
}

static void quote_json(struct output *out, struct quote *quote, const char *bytes, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        unsigned char c = (unsigned char)bytes[i];
        if (c == '\r')
            continue;
        if (!quote->open)
            format(out->sink, "{\"kind\":\"quote\",\"text\":\"");
        quote->open = c != '\n';
        if (c == '\n')
            format(out->sink, "\"}\n");
        else
            write_json_byte(out->sink, c);
    }
}

/* The word that was collected, on the next row where this one has no room for it. */
static void end_word(struct output *out, struct quote *quote)
{
    if (quote->length == 0)
        return;
    if (quote->indent == 0)
        quote->indent = quote->blanks < QUOTE_DEEPEST ? quote->blanks + QUOTE_INDENT : QUOTE_INDENT;
    else if (quote->column + quote->blanks + quote->length > out->columns) {
        format(out->sink, "\n%*s", (int)quote->indent, "");
        quote->column = quote->indent;
        quote->blanks = 0;
    }
    format(out->sink, "%*s%.*s", (int)quote->blanks, "", (int)quote->length, quote->word);
    quote->column += quote->blanks + quote->length;
    quote->blanks = quote->length = 0;
}

static void put_quoted(struct output *out, struct quote *quote, const char *text)
{
    if (out->columns == 0) {
        format(out->sink, "%s", text);
        return;
    }
    for (; *text; text++) {
        if (*text == ' ') {
            end_word(out, quote);
            quote->blanks++;
            continue;
        }
        if (quote->length == QUOTE_WORD ||
            quote->length + QUOTE_DEEPEST + QUOTE_INDENT == out->columns)
            end_word(out, quote);
        quote->word[quote->length++] = *text;
    }
}

static void end_quoted_line(struct output *out, struct quote *quote)
{
    end_word(out, quote);
    format(out->sink, "\n");
    quote->open = false;
    quote->blanks = quote->column = quote->indent = 0;
}

void output_quote(struct output *out, struct quote *quote, const char *bytes, size_t n)
{
    char code[8];

    end_table(out);
    if (out->json) {
        quote_json(out, quote, bytes, n);
        return;
    }
    for (size_t i = 0; i < n; i++) {
        unsigned char c = (unsigned char)bytes[i];
        if (c == '\r')
            continue;
        if (!quote->open) {
            format(out->sink, "  ");
            quote->column = 2;
        }
        quote->open = true;
        if (c == '\n') {
            end_quoted_line(out, quote);
            continue;
        }
        if (c >= 0x20 && c < 0x7f)
            format_buffer(code, sizeof(code), "%c", c);
        else if (c == '\t')
            format_buffer(code, sizeof(code), "    ");
        else
            format_buffer(code, sizeof(code), "\\x%02x", c);
        put_quoted(out, quote, code);
    }
}

void output_quote_end(struct output *out, struct quote *quote)
{
    if (quote->open && out->json)
        format(out->sink, "\"}\n");
    else if (quote->open)
        end_quoted_line(out, quote);
    quote->open = false;
}
