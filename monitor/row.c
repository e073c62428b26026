/* See monitor/row.h. */
#include "monitor/row.h"

#include "lib/string.h"
#include "monitor/fold.h"

#define GOES_ON 4 /* blanks before the cells of a row's further lines */

unsigned longest_word(const char *text)
{
    unsigned longest = 0, n = 0;

    for (; *text; text++) {
        n = *text == ' ' ? 0 : n + 1;
        longest = most(longest, n);
    }
    return longest;
}

/* A cell within its row. */
struct cell {
    const char *rest; /* what of it has not been shown */
    size_t length;
    unsigned at, width, line; /* the row's lines that it is on begin with the `line`th */
    bool left;
};

/* Gives each cell its place. Those that the line has no room for begin another one. */
static unsigned place(const struct output *out, struct cell *cell, unsigned cells)
{
    unsigned at = 0, line = 0;

    for (unsigned i = 0; i < cells; i++) {
        unsigned needed = cell[i].left ? longest_word(cell[i].rest) : (unsigned)cell[i].length;
        unsigned width = most(cell[i].width, needed);
        bool last = i + 1 == cells;

        if (last && cell[i].left)
            width = most(needed, out->columns > at + GAP ? out->columns - at - GAP : 0);
        if (i > 0 && at + GAP + width > out->columns) {
            line++;
            at = GOES_ON - GAP;
            if (last && cell[i].left)
                width = most(needed, out->columns - GOES_ON);
        }
        cell[i].at = at + GAP;
        cell[i].line = line;
        cell[i].width = least(width, out->columns - cell[i].at);
        at += GAP + width;
    }
    return line + 1;
}

/* The next piece of each cell on this line. Returns whether something is left to show. */
static bool write_pieces(struct output *out, struct cell *cell, unsigned cells, unsigned line)
{
    unsigned at = 0;
    bool more = false;

    for (unsigned i = 0; i < cells; i++) {
        size_t next, n;
        unsigned blanks;

        if (cell[i].line != line || cell[i].length == 0)
            continue;
        n = fold_row(cell[i].rest, cell[i].length, cell[i].width, &next);
        blanks = cell[i].at - at + (cell[i].left ? 0 : cell[i].width - (unsigned)n);
        format(out->sink, "%*s%.*s", (int)blanks, "", (int)n, cell[i].rest);
        at += blanks + (unsigned)n;
        cell[i].rest += next;
        cell[i].length -= next;
        more |= cell[i].length != 0;
    }
    return more;
}

void write_row(struct output *out, const struct record *record, const char *const *text,
               const char *before, const char *after)
{
    struct cell cell[OUTPUT_CELLS];
    unsigned cells = 0, lines;

    for (unsigned i = 0; i < record->columns; i++)
        if (out->rows->shows[i])
            cell[cells++] = (struct cell){.rest = text[i],
                                          .length = strlen(text[i]),
                                          .width = out->rows->width[i],
                                          .left = is_left(&record->column[i])};
    lines = place(out, cell, cells);
    for (unsigned line = 0; line < lines; line++) {
        bool more = true;
        while (more) {
            format(out->sink, "%s", before);
            more = write_pieces(out, cell, cells, line);
            format(out->sink, "%s\n", after);
        }
    }
}
