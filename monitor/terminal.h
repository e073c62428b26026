/*
 * The terminal that the console speaks to: what it can do, and to whom its keys go. One at a time
 * has it, the line editor or a guest that somebody is attached to.
 */
#ifndef QUIRE_MONITOR_TERMINAL_H
#define QUIRE_MONITOR_TERMINAL_H

#include <stdbool.h>

#include "monitor/line_editor.h"
#include "monitor/pager.h"

struct guest;

struct terminal {
    struct line_editor editor;
    struct pager pager;
    bool colour;
    unsigned columns; /* that answers fit into */

    struct guest *attached; /* whose serial port the keys go to, or NULL */
    uint64_t shown;         /* how many bytes of its output have been shown */
    bool mid_line;          /* the cursor does not stand at a row's start */
    struct sink log;        /* what the log is written to meanwhile */
};

/* The console's own. */
struct terminal *monitor_terminal(void);

#define TERMINAL_LEAVE 0x1d /* Ctrl-]: takes the keys away from a guest */

/* From here on keys go to the guest's serial port and its output to the terminal as it comes, the
 * unfinished line that it stands in first. The guest must not have ended. */
void terminal_attach(struct terminal *terminal, struct guest *guest);

/* A key while a guest is attached. */
void terminal_key(struct terminal *terminal, unsigned char key);

/* Shows what the attached guest has printed, and lets go of one that has ended. To be called after
 * each round of the guests. */
void terminal_show(struct terminal *terminal);

#endif
