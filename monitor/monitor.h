/*
 * The console on the serial line: what a person, or a program, can ask of Quire and tell it to do.
 */
#ifndef QUIRE_MONITOR_MONITOR_H
#define QUIRE_MONITOR_MONITOR_H

#include <stdint.h>

#include "mm/frames/memblock.h"
#include "monitor/output.h"

#define MONITOR_PROMPT "quire> "

/* What the boot has found out, for the console to show. The boot fills it in before monitor_init();
 * what it points at must stay where it is. */
struct boot_facts {
    const char *cmdline;           /* the kernel's own */
    const char *loader;            /* the boot loader's name; "" when it gave none */
    const struct memblock *memory; /* all RAM, and what was occupied when the buddy took over */
    uint64_t entry_tsc;            /* the time-stamp counter at the hypervisor's entry point */
    /* What the CPU has to run guests with, in its vendor's words; NULL when it has nothing. */
    void (*show_virtualization)(struct sink *to);
    const struct table_kind *second_level; /* of guests' tables, whether or not guests can run */
};
extern struct boot_facts boot_facts;

/* Takes over the serial line: from here on the log goes around whatever is being typed. */
void monitor_init(void);

/*
 * Runs the guests until none can run any more or a key is pressed, says how many ended as expected,
 * and then serves the console, the guests running on between two keys. Ends by `quit` alone, which
 * switches the machine off.
 */
_Noreturn void monitor_run(void);

/* A round of the guests, and what they have left without a newline. Returns how many still can run.
 */
unsigned monitor_round(void);

/* Commands to run at the start of monitor_run(), line by line, before the guests run on: the text
 * of a boot module, `size` bytes that stay where they are. Blank lines and those that start with
 * '#' are nothing. `name` is for the log. E_FULL: there are too many scripts already. */
int monitor_script(const char *name, const char *text, uint64_t size);

/* Runs the commands of one line, one after the other, each whatever became of the one before. E_OK,
 * or the last error of any of them; what there is to say about it has been said to `out`. */
int monitor_execute(struct output *out, const char *line);

#endif
