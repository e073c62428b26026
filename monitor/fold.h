/*
 * Rows of a terminal: where a text that is longer than one is broken.
 */
#ifndef QUIRE_MONITOR_FOLD_H
#define QUIRE_MONITOR_FOLD_H

#include <stddef.h>

/* How many of the `n` bytes of `text` go on a row of `columns` (at least 1): all, or those before a
 * blank; a word that alone is longer than a row is cut. *next is where the next row begins, behind
 * the blanks. */
size_t fold_row(const char *text, size_t n, size_t columns, size_t *next);

#endif
