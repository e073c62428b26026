/*
 * How a command answers: with records, not with lines of text.
 *
 * A record type names its columns once, with what each one holds; a command makes a single pass
 * over the data and gives the values of each record in that order. How they look is decided here
 * alone: rows of one type become a table with aligned columns, a record of facts becomes one
 * "name: value" line for each column. Another form of the same answers has everything it needs in
 * the record type, and no command has to change for it.
 */
#ifndef QUIRE_MONITOR_OUTPUT_H
#define QUIRE_MONITOR_OUTPUT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/bits.h"
#include "lib/format.h"

enum column_kind {
    COLUMN_TEXT,
    COLUMN_NUMBER, /* decimal */
    COLUMN_HEX,    /* addresses and raw values: 0x... without leading zeros */
    COLUMN_SIZE,   /* bytes, shown in words: 16M */
    COLUMN_FRAMES, /* 4 KiB frames, shown as a number and, among facts, in words: 4096 (16M) */
    COLUMN_FLAG,   /* yes or no */
};

struct column {
    const char *name;
    enum column_kind kind;
    uint8_t width; /* in a table: at least this many characters */
};

struct record {
    const char *name; /* of the type: "run", "step", "guest" */
    const struct column *column;
    unsigned columns;
};

#define RECORD(name, columns)                                                                      \
    {                                                                                              \
        name, columns, ARRAY_SIZE(columns)                                                         \
    }

/* A value fits its column: text for COLUMN_TEXT, a number for every other kind. Nothing fits all:
 * it stands for what does not apply or is not known. */
struct value {
    enum { VALUE_NOTHING, VALUE_TEXT, VALUE_NUMBER } kind;
    union {
        const char *text;
        uint64_t number;
    };
};

static inline struct value as_nothing(void)
{
    return (struct value){.kind = VALUE_NOTHING};
}
static inline struct value as_text(const char *s)
{
    return (struct value){.kind = VALUE_TEXT, .text = s};
}
static inline struct value as_number(uint64_t n)
{
    return (struct value){.kind = VALUE_NUMBER, .number = n};
}

struct output {
    struct sink *sink;
    const struct record *heading; /* the type whose heading stands above the next row, or NULL */
};

void output_init(struct output *out, struct sink *sink);

/* One record as a row of a table; `values` holds record->columns of them. The first row of a type
 * puts the heading above itself; so an empty table prints nothing, and its command says so. */
void output_row(struct output *out, const struct record *record, const struct value *values);

/* One record as lines "name: value"; what is nothing gets no line. */
void output_facts(struct output *out, const struct record *record, const struct value *values);

/* A heading of a part of the answer, and a sentence for people beside the data. Either ends the
 * table before it. */
void output_title(struct output *out, const char *text, ...) __attribute__((format(printf, 2, 3)));
void output_note(struct output *out, const char *text, ...) __attribute__((format(printf, 2, 3)));

/* Why a command could not do what was asked: what was asked, what is wrong, what would be right. */
void output_error(struct output *out, const char *text, ...) __attribute__((format(printf, 2, 3)));

/* Text that somebody else wrote (a guest, a report): each line after two blanks, and whatever is
 * neither printable nor a line's end as \xNN, so that it cannot steer the terminal. The text may come
 * in pieces; output_quote_end() ends its last line. */
struct quote {
    bool open; /* in the middle of a line */
};
void output_quote(struct output *out, struct quote *quote, const char *bytes, size_t n);
void output_quote_end(struct output *out, struct quote *quote);

#endif
