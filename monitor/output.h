/*
 * How a command answers: with records, not with lines of text.
 *
 * A record type names its columns once, with what each one holds; a command makes a single pass
 * over the data and gives the values of each record in that order. How they look is decided here
 * alone. For people: rows of one type become a table with aligned columns, a record of facts one
 * "name: value" line for each column. No line is longer than the terminal is wide (layout.c). For
 * programs (docs/monitor.schema.json): each record, title, note, quoted line and error becomes one
 * JSON object on a line of its own,
 *
 *     {"kind":"row","record":"run","values":{"first":"0x0","size":655360,"rights":"rwx--",...}}
 *
 * with what is hexadecimal for people as a string and everything else as the number that it is.
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
    uint8_t width; /* in a table: at least this many characters, where the terminal has them */
};

struct record {
    const char *name; /* of the type: "run", "step", "guest" */
    const struct column *column;
    unsigned columns;
    /* Of a table that is too wide, by commas: the columns that may be left out, the first one
     * first, and at the end NAME=SHORT for what stands above one of them. NULL for nothing. */
    const char *narrow;
};

#define RECORD(text, list)                                                                         \
    {                                                                                              \
        .name = text, .column = list, .columns = ARRAY_SIZE(list)                                  \
    }
#define RECORD_NARROW(text, list, choice)                                                          \
    {                                                                                              \
        .name = text, .column = list, .columns = ARRAY_SIZE(list), .narrow = choice                \
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

/* Rows of a table that wait until it is known how wide their columns are. */
#define OUTPUT_CELLS 24 /* of a row, at most */
struct output_rows {
    unsigned rows;
    size_t used; /* bytes of text[]: cell after cell, each with its terminator */
    bool begun;  /* the heading has been shown */
    bool shows[OUTPUT_CELLS];
    bool empty[OUTPUT_CELLS]; /* left out, for there was nothing in it */
    unsigned width[OUTPUT_CELLS];
    char text[16384];
};

/* What each part looks like on a terminal that wants colour (ECMA-48, 8.3.117). */
#define LOOK(parameters) "\033[" parameters "m"
#define LOOK_TITLE "1"
#define LOOK_HEADING "4"
#define LOOK_NOTE "2"
#define LOOK_ERROR "1;31"

struct output {
    struct sink *sink;
    unsigned columns;         /* of the terminal; 0: lines of any length */
    struct output_rows *rows; /* for tables that are too wide otherwise; NULL: they are shown so */
    const struct record *heading; /* the type of the rows before, or NULL */
    bool json;                    /* objects for programs instead of text */
    bool colour;                  /* text with colours; JSON never has any */
    unsigned progress;            /* 1 + the percentage that was shown last, or 0 */
    bool progress_shown;          /* its row is on the screen */
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

/* Why a command could not do what was asked: what was asked, what is wrong, what would be right.
 * output_failure() says in the form for programs which error it was; the other says E_INVAL. */
void output_failure(struct output *out, int error, const char *text, ...)
    __attribute__((format(printf, 3, 4)));
void output_error(struct output *out, const char *text, ...) __attribute__((format(printf, 2, 3)));

/* The end of a command's answer, for programs: what was asked and what came of it. Nothing as text.
 */
void output_end(struct output *out, const char *command, int error);

/* Shows the rows that wait. For a command's end, and before anything else is written. */
void output_flush(struct output *out);

/* How far a command has come that takes its time: a row that is drawn over and over, for people
 * alone. To be called as often as one likes; drawn anew where the percentage has changed.
 * output_progress_end() takes the row away, before anything else is said. */
void output_progress(struct output *out, const char *what, uint64_t done, uint64_t total);
void output_progress_end(struct output *out);

/* A column's name as the key of a JSON object: lower case, what is no letter or digit as '_'.
 * Returns `buffer`, cut to its size. */
#define KEY_TEXT 48
const char *column_key(char buffer[KEY_TEXT], const struct column *column);

/* Text that somebody else wrote (a guest, a report): each line after two blanks, and whatever is
 * neither printable nor a line's end as \xNN, so that it cannot steer the terminal; for programs
 * each line is an object and such a byte \u00NN. The text may come in pieces; output_quote_end()
 * ends its last line. */
#define QUOTE_WORD 160
struct quote {
    bool open;               /* in the middle of a line */
    unsigned column;         /* of it; 0 where no width is known */
    unsigned indent;         /* of its further rows */
    unsigned blanks, length; /* before the word that is being collected, and of it */
    char word[QUOTE_WORD];
};
void output_quote(struct output *out, struct quote *quote, const char *bytes, size_t n);
void output_quote_end(struct output *out, struct quote *quote);

#endif
