/*
 * The filters of `map`: which part of a table is shown.
 */
#ifndef QUIRE_MONITOR_MAP_FILTER_H
#define QUIRE_MONITOR_MAP_FILTER_H

#include "monitor/commands.h"

struct map_filter {
    uint64_t first, last; /* of input addresses */
    unsigned rights;      /* all of them must be there */
    bool by_page;
    uint64_t page;       /* where by_page, its size: which there are is the table's to say */
    const char *what;    /* how the area or slot is called, likewise; NULL: any */
    const char *purpose; /* of the frames; NULL: any */
    bool any;            /* a filter was given */
};

/* Reads the filters, the command's words from number `from` on. A word that is none is refused with
 * a sentence: E_INVAL, or E_RANGE where the range has no address. */
int map_take_filters(const struct command *command, struct output *out,
                     const struct arguments *args, unsigned from, struct map_filter *filter);

#endif
