/*
 * Line editing and history for a terminal on a byte stream.
 *
 * Bytes go in one at a time, what the terminal has to show comes out through a sink. Nothing else
 * is assumed: no timing, no window size but LINE_COLUMNS, and no trust in the bytes. A line longer
 * than the window scrolls sideways, so that it is always on one row and can be erased and drawn
 * again, which is what other output does that arrives while a line is being typed:
 *
 *     log line ---> line_editor.around.write: erase the row, pass the text on, draw the row again
 *
 * A log line that ends in '\r' may still go on: the line that begins like it and comes next takes
 * its place. A terminal that said how wide it is gets log lines folded between words.
 *
 * Keys: printable ASCII inserts; left, right, home, end, ^B ^F ^A ^E move; backspace, delete, ^D ^K
 * ^U ^W erase; up, down, ^P ^N walk through the history; ^L clears the screen; ^C drops the line;
 * return ends it. Tab is for the caller to complete. A terminal that says by its own accord how
 * large it is (CSI 8 ; rows ; columns t) or what it can do (CSI ? ... c, attribute 22: colour) is
 * believed. Every other byte or sequence is ignored whole.
 */
#ifndef QUIRE_MONITOR_LINE_EDITOR_H
#define QUIRE_MONITOR_LINE_EDITOR_H

#include <stdbool.h>
#include <stddef.h>

#include "lib/format.h"

#define LINE_SIZE 256 /* bytes of a line, its terminator included */
#define LINE_HISTORY 32
#define LINE_UNFINISHED 256 /* bytes of a log line that may go on */
#define LINE_COLUMNS 80     /* of a terminal that has not said how wide it is */
#define LINE_LEAST_COLUMNS 40

enum line_event {
    LINE_PENDING,   /* still being typed */
    LINE_READY,     /* text[] holds a whole line */
    LINE_TOO_LONG,  /* ended, but more was typed than a line holds: not to be run */
    LINE_CANCELLED, /* ^C */
    LINE_CLOSED,    /* ^D on an empty line */
    LINE_TAB,       /* to be completed; the line stays open, see line_insert() */
    LINE_TERMINAL,  /* the terminal said what it is: `terminal_is`; the line stays open */
};

#define LINE_PARAMETERS 12 /* of a sequence; later ones are ignored */

struct line_editor {
    struct sink *terminal;
    struct sink around; /* what other output is written to; see above */
    struct sink plain;  /* what answers are written to: as it is */
    const char *prompt;

    char text[LINE_SIZE]; /* always terminated */
    unsigned length, cursor;
    bool shown;      /* the row is on the screen */
    bool open;       /* between line_begin() and the line's end */
    bool overrun;    /* something did not fit and was not taken */
    bool after_cr;   /* a newline now belongs to the return before it */
    unsigned scroll; /* first byte of text[] in the window */

    enum { KEYS_PLAIN, KEYS_ESCAPE, KEYS_CSI, KEYS_SS3 } keys;
    unsigned parameter[LINE_PARAMETERS]; /* of a CSI sequence */
    unsigned parameters;                 /* the number of the one being read */
    unsigned sequence;                   /* bytes of it so far */
    bool private;                        /* it began with '?' */

    struct {
        unsigned rows, columns; /* 0: not said */
        bool colour;
    } terminal_is;

    char unfinished[LINE_UNFINISHED]; /* the line right above the row may still go on, or "" */
    unsigned unfinished_rows;

    char history[LINE_HISTORY][LINE_SIZE];
    unsigned history_next; /* where the next line goes */
    unsigned history_count;
    unsigned history_back; /* how far back the line shown is; 0: the one being typed ... */
    char draft[LINE_SIZE]; /* ... which waits here meanwhile */
};

/* `prompt` stays the caller's and must live as long as the editor; printable, shorter than half of
 * LINE_LEAST_COLUMNS. */
void line_init(struct line_editor *editor, struct sink *terminal, const char *prompt);

/* Shows the prompt with an empty line. */
void line_begin(struct line_editor *editor);

/* Types `text` at the cursor, as if by keys; printable ASCII. */
void line_insert(struct line_editor *editor, const char *text);

/* Takes one byte. After an event that ends the line it has left the screen with a newline, text[]
 * stays as it is until line_begin(), and bytes are ignored until then. */
enum line_event line_byte(struct line_editor *editor, unsigned char byte);

#endif
