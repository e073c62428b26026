/*
 * One row of a table on a terminal of known width: its cells side by side, those of text folded
 * between words, and those that have no room on lines of their own.
 */
#ifndef QUIRE_MONITOR_ROW_H
#define QUIRE_MONITOR_ROW_H

#include "monitor/output.h"

#define GAP 2 /* blanks before a cell */

static inline bool is_left(const struct column *column)
{
    return column->kind == COLUMN_TEXT || column->kind == COLUMN_FLAG;
}

static inline unsigned least(unsigned a, unsigned b)
{
    return a < b ? a : b;
}

static inline unsigned most(unsigned a, unsigned b)
{
    return a > b ? a : b;
}

unsigned longest_word(const char *text);

/* The cells that out->rows shows, in columns of its widths. `before` and `after` stand around each
 * line. */
void write_row(struct output *out, const struct record *record, const char *const *text,
               const char *before, const char *after);

#endif
