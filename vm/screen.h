/*
 * What a guest's VGA shows in text mode: the cells of its memory that the CRTC's registers select.
 */
#ifndef QUIRE_VM_SCREEN_H
#define QUIRE_VM_SCREEN_H

#include <stdbool.h>
#include <stdint.h>

struct guest;
struct dev_vga;

#define SCREEN_COLUMNS 132 /* at most; what is further right or down is not shown */
#define SCREEN_ROWS 60

struct screen_layout {
    bool is_text;
    uint64_t base;          /* of the 32 KiB in the guest's memory */
    unsigned columns, rows; /* shown */
    unsigned pitch;         /* cells from one row to the next */
    unsigned start, cursor; /* cells from the base */
    bool cursor_shown;
};

void screen_layout(const struct dev_vga *vga, struct screen_layout *out);

struct screen {
    unsigned columns, rows; /* 0: nothing is known */
    bool cursor_shown;      /* it is, at ... */
    unsigned cursor_row, cursor_column;
    uint8_t cell[SCREEN_ROWS][SCREEN_COLUMNS][2]; /* a character of code page 437, its attribute */
};

/* The screen as it is, or, of a guest that has ended, as it was at its end. E_UNSUPPORTED: it is in
 * a graphics mode, or was; E_NOENT: the guest has no video memory (option `pc`). */
int screen_read(struct guest *guest, struct screen *out);

/* Within vm/: remembers the screen of a guest that is about to give back its memory. */
void screen_keep(struct guest *guest);

#endif
