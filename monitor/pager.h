/*
 * Long output a screenful at a time, for a person at a terminal of known size:
 *
 *     -- more: space, return, or q --        space: a page more, return: a line, q or ^C: no more
 *
 * A sink that passes everything on and waits for a key when the screen is full. Programs have no
 * use for it, and get none: it is switched on by a terminal that says how large it is, or by hand.
 */
#ifndef QUIRE_MONITOR_PAGER_H
#define QUIRE_MONITOR_PAGER_H

#include <stdbool.h>

#include "lib/format.h"

#define PAGER_LEAST_ROWS 4

struct pager {
    struct sink sink; /* what is written to */
    struct sink *terminal;
    int (*key)(void); /* a byte typed, or negative for none yet */
    unsigned rows;    /* of the terminal; 0: everything passes */
    unsigned columns; /* 0: lines never wrap */

    unsigned left;   /* rows until the screen is full */
    unsigned column; /* of the line being written */
    bool escape;     /* within a control sequence, which takes no room */
    bool stopped;    /* enough was seen: the rest is dropped */
};

void pager_init(struct pager *pager, struct sink *terminal, int (*key)(void));

/* Before each answer: a screen with nothing on it. */
void pager_begin(struct pager *pager);

#endif
