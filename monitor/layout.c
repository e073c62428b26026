/* See monitor/layout.h. */
#include "monitor/layout.h"

#include "lib/panic.h"
#include "lib/string.h"
#include "monitor/row.h"

#define HEX_MOST 18     /* characters of an address or a raw value */
#define FOLDED_LEAST 24 /* ... to which text narrows before other columns have to go */
#define LAST_LEAST 12   /* ... that the last column has in a table that is shown as it comes */

static unsigned declared(const struct column *column)
{
    return most((unsigned)strlen(column->name), column->width);
}

static bool declared_fit(const struct output *out, const struct record *record)
{
    unsigned total = 0;

    for (unsigned i = 0; i < record->columns; i++) {
        const struct column *column = &record->column[i];
        unsigned open_end = column->kind == COLUMN_HEX ? HEX_MOST : LAST_LEAST;
        total += GAP + most(declared(column), column->width ? 0 : open_end);
    }
    return total <= out->columns;
}

/* --- Tables that wait ------------------------------------------------------------------------ */

/* What the cells of a column need. */
struct need {
    unsigned whole, word;
    bool empty; /* nothing in any of them */
};

static void measure(const struct output_rows *rows, const struct record *record, struct need *need)
{
    const char *text = rows->text;

    for (unsigned i = 0; i < record->columns; i++)
        need[i] = (struct need){rows->width[i], 0, true};
    for (unsigned row = 0; row < rows->rows; row++) {
        for (unsigned i = 0; i < record->columns; i++) {
            need[i].whole = most(need[i].whole, (unsigned)strlen(text));
            need[i].word = most(need[i].word, longest_word(text));
            need[i].empty &= strcmp(text, "-") == 0;
            text += strlen(text) + 1;
        }
    }
}

/* The entry of record->narrow for a column, from its name on; NULL for none. */
static const char *narrow_entry(const struct record *record, unsigned i)
{
    const char *name = record->column[i].name, *at = record->narrow;
    size_t n = strlen(name);

    while (at != NULL) {
        at += *at == '!';
        if (strncmp(at, name, n) == 0 && (at[n] == ',' || at[n] == '=' || at[n] == 0))
            return at;
        at = strchr(at, ',');
        at = at ? at + 1 : NULL;
    }
    return NULL;
}

static bool may_leave(const struct record *record, unsigned i)
{
    const char *entry = narrow_entry(record, i);

    return entry != NULL && entry[strlen(record->column[i].name)] != '=';
}

static bool leaves_at_once(const struct record *record, unsigned i)
{
    const char *entry = narrow_entry(record, i);

    return entry != NULL && entry != record->narrow && entry[-1] == '!';
}

static const char *heading_of(const struct record *record, unsigned i)
{
    const char *name = record->column[i].name, *entry = narrow_entry(record, i);

    return entry != NULL && entry[strlen(name)] == '=' ? entry + strlen(name) + 1 : name;
}

static unsigned total_width(const struct output_rows *rows, const struct record *record)
{
    unsigned total = 0;

    for (unsigned i = 0; i < record->columns; i++)
        total += rows->shows[i] ? GAP + rows->width[i] : 0;
    return total;
}

/* Narrows the widest columns of text, to `floor` characters and whole words. Whether that does. */
static bool narrow(struct output *out, const struct record *record, const struct need *need,
                   unsigned floor)
{
    struct output_rows *rows = out->rows;

    for (unsigned i = 0; i < record->columns; i++)
        rows->width[i] = most(need[i].whole, (unsigned)strlen(heading_of(record, i)));
    for (unsigned total = total_width(rows, record); total > out->columns; total--) {
        unsigned widest = record->columns;

        for (unsigned i = 0; i < record->columns; i++) {
            unsigned down_to = most(most(need[i].word, least(floor, need[i].whole)),
                                    longest_word(heading_of(record, i)));
            if (rows->shows[i] && record->column[i].kind == COLUMN_TEXT &&
                rows->width[i] > down_to &&
                (widest == record->columns || rows->width[i] > rows->width[widest]))
                widest = i;
        }
        if (widest == record->columns)
            return false;
        rows->width[widest]--;
    }
    return true;
}

/* Lets the next column go, by its turn. False: none is left that may. */
static bool leave_one(struct output_rows *rows, const struct record *record)
{
    unsigned next = record->columns;

    for (unsigned i = 0; i < record->columns; i++)
        if (rows->shows[i] && may_leave(record, i) &&
            (next == record->columns || narrow_entry(record, i) < narrow_entry(record, next)))
            next = i;
    if (next == record->columns)
        return false;
    rows->shows[next] = false;
    return true;
}

static void choose_columns(struct output *out, const struct record *record)
{
    struct output_rows *rows = out->rows;
    struct need need[OUTPUT_CELLS];

    measure(rows, record, need);
    for (unsigned i = 0; i < record->columns; i++)
        rows->shows[i] = true;
    if (narrow(out, record, need, UINT8_MAX))
        return;
    for (unsigned i = 1; i < record->columns; i++) {
        rows->empty[i] = need[i].empty;
        rows->shows[i] = !need[i].empty && !leaves_at_once(record, i);
    }
    while (!narrow(out, record, need, FOLDED_LEAST))
        if (!leave_one(rows, record))
            break;
    narrow(out, record, need, need[0].word);
}

static void use_declared(struct output *out, const struct record *record)
{
    for (unsigned i = 0; i < record->columns; i++) {
        out->rows->shows[i] = true;
        out->rows->width[i] = declared(&record->column[i]);
    }
}

static void write_heading(struct output *out, const struct record *record, bool brief)
{
    const char *text[OUTPUT_CELLS];

    for (unsigned i = 0; i < record->columns; i++)
        text[i] = brief ? heading_of(record, i) : record->column[i].name;
    write_row(out, record, text, out->colour ? LOOK(LOOK_HEADING) : "",
              out->colour ? LOOK("") : "");
}

static void write_rows(struct output *out, const struct record *record)
{
    struct output_rows *rows = out->rows;
    const char *at = rows->text;

    for (unsigned row = 0; row < rows->rows; row++) {
        const char *text[OUTPUT_CELLS];
        for (unsigned i = 0; i < record->columns; i++) {
            text[i] = at;
            at += strlen(at) + 1;
        }
        write_row(out, record, text, "", "");
    }
    rows->rows = 0;
    rows->used = 0;
}

/* Shows what waits, in columns that suit it. */
static void show_batch(struct output *out)
{
    const struct record *record = out->heading;
    struct output_rows *rows = out->rows;
    bool shown[OUTPUT_CELLS];

    memcpy(shown, rows->shows, sizeof(shown));
    choose_columns(out, record);
    if (!rows->begun || memcmp(shown, rows->shows, record->columns * sizeof(shown[0])) != 0)
        write_heading(out, record, true);
    rows->begun = true;
    write_rows(out, record);
}

/* Which columns were left out, though there is something in them. */
static void tell_left_out(struct output *out, const struct record *record)
{
    bool any = false;

    for (unsigned i = 0; i < record->columns; i++) {
        if (out->rows->shows[i] || out->rows->empty[i])
            continue;
        format(out->sink, "%s%s",
               any           ? ", "
               : out->colour ? LOOK(LOOK_NOTE) "left out: "
                             : "left out: ",
               record->column[i].name);
        any = true;
    }
    if (any)
        format(out->sink, "%s\n", out->colour ? LOOK("") : "");
}

void output_flush(struct output *out)
{
    if (out->heading == NULL || out->rows == NULL || out->rows->rows == 0)
        return;
    output_progress_end(out);
    show_batch(out);
    tell_left_out(out, out->heading);
}

/* --- Cell by cell ---------------------------------------------------------------------------- */

static bool laid_out(const struct output *out)
{
    return out->rows != NULL && out->columns != 0;
}

/* For terminals of unknown width: as declared, whatever becomes of it. */
static void write_cell(struct output *out, const struct record *record, unsigned i,
                       const char *content)
{
    int width = (int)declared(&record->column[i]);

    if (!is_left(&record->column[i]))
        format(out->sink, "  %*s", width, content);
    else if (i + 1 < record->columns)
        format(out->sink, "  %-*s", width, content);
    else
        format(out->sink, "  %s", content);
}

static void begin_table(struct output *out, const struct record *record)
{
    output_flush(out);
    out->heading = record;
    if (laid_out(out)) {
        invariant(record->columns <= OUTPUT_CELLS);
        out->rows->begun = false;
        memset(out->rows->width, 0, sizeof(out->rows->width));
        if (declared_fit(out, record)) {
            use_declared(out, record);
            write_heading(out, record, false);
        }
        return;
    }
    format(out->sink, "%s", out->colour ? LOOK(LOOK_HEADING) : "");
    for (unsigned i = 0; i < record->columns; i++)
        write_cell(out, record, i, record->column[i].name);
    format(out->sink, "%s\n", out->colour ? LOOK("") : "");
}

void table_begin(struct output *out, const struct record *record)
{
    if (out->heading != record)
        begin_table(out, record);
    /* A cell is at most half of the store: see table_cell(). */
    if (laid_out(out) && out->rows->used > sizeof(out->rows->text) / 2)
        show_batch(out);
}

void table_cell(struct output *out, const struct record *record, unsigned i, const char *text)
{
    struct output_rows *rows = out->rows;
    size_t room, n = strlen(text);

    if (!laid_out(out)) {
        write_cell(out, record, i, text);
        return;
    }
    /* The cells behind it have a share of the room as well. */
    room = (sizeof(rows->text) - rows->used) / (record->columns - i);
    if (n >= room)
        n = room - 1;
    memcpy(rows->text + rows->used, text, n);
    rows->text[rows->used + n] = 0;
    rows->used += n + 1;
}

void table_row_end(struct output *out, const struct record *record)
{
    if (!laid_out(out)) {
        format(out->sink, "\n");
        return;
    }
    out->rows->rows++;
    if (declared_fit(out, record))
        write_rows(out, record);
}
