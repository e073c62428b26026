/*
 * The console on the serial line: what a person, or a program, can ask of Quire and tell it to do.
 */
#ifndef QUIRE_MONITOR_MONITOR_H
#define QUIRE_MONITOR_MONITOR_H

#include <stdint.h>

#include "monitor/output.h"

#define MONITOR_PROMPT "quire> "

/* Takes over the serial line: from here on the log goes around whatever is being typed.
 * `boot_cmdline` is the kernel's own command line; it must stay where it is. */
void monitor_init(const char *boot_cmdline);

/*
 * Runs the guests until none can run any more or a key is pressed, says how many ended as expected,
 * and then serves the console, the guests running on between two keys. Ends by `quit` alone, which
 * switches the machine off.
 */
_Noreturn void monitor_run(void);

/* Commands to run at the start of monitor_run(), line by line, before the guests run on: the text
 * of a boot module, `size` bytes that stay where they are. Blank lines and those that start with
 * '#' are nothing. `name` is for the log. E_FULL: there are too many scripts already. */
int monitor_script(const char *name, const char *text, uint64_t size);

/* Runs the commands of one line, one after the other, each whatever became of the one before. E_OK,
 * or the last error of any of them; what there is to say about it has been said to `out`. */
int monitor_execute(struct output *out, const char *line);

/* The kernel's command line as given to monitor_init(). */
const char *monitor_cmdline(void);

#endif
