/*
 * Tables for people, within monitor/output.c. A table whose declared columns fit the terminal is
 * shown row by row as it comes. One that is wider waits in output->rows, until it is whole or the
 * store is full, and gets columns as wide as what is in them. Where these do not fit either,
 *
 *   1. columns with nothing in them go,
 *   2. columns of text narrow and fold between words,
 *   3. columns that the record lets go (record.narrow) go, one after the other,
 *   4. a row goes on in the next line.
 *
 * A note behind the table says which columns have gone.
 */
#ifndef QUIRE_MONITOR_LAYOUT_H
#define QUIRE_MONITOR_LAYOUT_H

#include "monitor/output.h"

/* Before the first cell of each row; the cells, left to right; behind the last. */
void table_begin(struct output *out, const struct record *record);
void table_cell(struct output *out, const struct record *record, unsigned i, const char *text);
void table_row_end(struct output *out, const struct record *record);

#endif
