/*
 * Records as text: aligned tables, and facts one to a line.
 */
#include "monitor/output.h"

#include "lib/panic.h"
#include "lib/string.h"

void output_init(struct output *out, struct sink *sink)
{
    *out = (struct output){.sink = sink};
}

static bool column_is_left(const struct column *column)
{
    return column->kind == COLUMN_TEXT || column->kind == COLUMN_FLAG;
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
        format_buffer(buffer, VALUE_BUFFER, "%llu", (unsigned long long)value.number);
        break;
    case COLUMN_HEX:
        format_buffer(buffer, VALUE_BUFFER, "0x%llx", (unsigned long long)value.number);
        break;
    case COLUMN_SIZE:
        size_text(size, value.number);
        format_buffer(buffer, VALUE_BUFFER, "%s", size);
        break;
    case COLUMN_FRAMES:
        if (in_table)
            format_buffer(buffer, VALUE_BUFFER, "%llu", (unsigned long long)value.number);
        else
            format_buffer(buffer, VALUE_BUFFER, "%llu (%s)", (unsigned long long)value.number,
                          size_text(size, value.number << PAGE_SHIFT));
        break;
    case COLUMN_FLAG:
        return value.number ? "yes" : "no";
    }
    return buffer;
}

/* One cell with the two blanks before it. The last of a row is not padded on its right. */
static void write_cell(struct output *out, const struct record *record, unsigned i,
                       const char *content)
{
    const struct column *column = &record->column[i];

    /* A heading that is wider than its column widens it, for rows and heading alike. */
    int width = (int)strlen(column->name);
    if (width < column->width)
        width = column->width;
    if (!column_is_left(column))
        format(out->sink, "  %*s", width, content);
    else if (i + 1 < record->columns)
        format(out->sink, "  %-*s", width, content);
    else
        format(out->sink, "  %s", content);
}

void output_row(struct output *out, const struct record *record, const struct value *values)
{
    char buffer[VALUE_BUFFER];

    if (out->heading != record) {
        out->heading = record;
        for (unsigned i = 0; i < record->columns; i++)
            write_cell(out, record, i, record->column[i].name);
        format(out->sink, "\n");
    }
    for (unsigned i = 0; i < record->columns; i++)
        write_cell(out, record, i, value_text(buffer, &record->column[i], values[i], true));
    format(out->sink, "\n");
}

void output_facts(struct output *out, const struct record *record, const struct value *values)
{
    char buffer[VALUE_BUFFER];

    out->heading = NULL;
    for (unsigned i = 0; i < record->columns; i++) {
        const struct column *column = &record->column[i];
        if (values[i].kind != VALUE_NOTHING)
            format(out->sink, "%s: %s\n", column->name,
                   value_text(buffer, column, values[i], false));
    }
}

static void write_line(struct output *out, const char *before, const char *text, va_list args)
{
    out->heading = NULL;
    format(out->sink, "%s", before);
    vformat(out->sink, text, args);
    format(out->sink, "\n");
}

void output_title(struct output *out, const char *text, ...)
{
    va_list args;
    va_start(args, text);
    write_line(out, "", text, args);
    va_end(args);
}

void output_note(struct output *out, const char *text, ...)
{
    va_list args;
    va_start(args, text);
    write_line(out, "", text, args);
    va_end(args);
}

void output_error(struct output *out, const char *text, ...)
{
    va_list args;
    va_start(args, text);
    write_line(out, "error: ", text, args);
    va_end(args);
}

void output_quote(struct output *out, struct quote *quote, const char *bytes, size_t n)
{
    out->heading = NULL;
    for (size_t i = 0; i < n; i++) {
        unsigned char c = (unsigned char)bytes[i];
        if (c == '\r')
            continue;
        if (!quote->open)
            format(out->sink, "  ");
        quote->open = c != '\n';
        if (c == '\n' || (c >= 0x20 && c < 0x7f))
            format(out->sink, "%c", c);
        else if (c == '\t')
            format(out->sink, "    ");
        else
            format(out->sink, "\\x%02x", c);
    }
}

void output_quote_end(struct output *out, struct quote *quote)
{
    if (quote->open)
        format(out->sink, "\n");
    quote->open = false;
}
