/*
 * What others call it: commands of gdb, pwndbg, WinDbg, and the monitors of QEMU and Bochs, and
 * what they are here. Where ours means the same it is run, otherwise it is named.
 */
#ifndef QUIRE_MONITOR_ALIAS_H
#define QUIRE_MONITOR_ALIAS_H

#include "monitor/arguments.h"

enum alias {
    ALIAS_NONE,  /* nobody's word that we know */
    ALIAS_RUNS,  /* the text is a command of ours, with its arguments */
    ALIAS_NAMES, /* the text is a sentence that names what may be meant */
};

#define ALIAS_TEXT (ARGUMENTS_TEXT + 32)

/* `args` is not empty. */
enum alias alias_of(const struct arguments *args, char text[ALIAS_TEXT]);

#endif
