/*
 * What a family of commands (monitor/cmd_*.c) and the console that calls it share.
 *
 * A command is a constant: its words for people and one function. The function makes a single pass
 * over what was asked for and gives records to `out` (monitor/output.h); it changes nothing but by
 * the public calls of the part that it speaks to.
 */
#ifndef QUIRE_MONITOR_COMMANDS_H
#define QUIRE_MONITOR_COMMANDS_H

#include "mm/frames/frame.h"
#include "monitor/arguments.h"
#include "monitor/output.h"
#include "vm/backend.h"

struct guest;
struct guest_cpu;
struct vcpu_state;

struct command {
    const char *name;
    const char *usage;   /* the arguments as in monitor/complete.h, "" for none */
    const char *words;   /* what EVENT or FILTER in it stands for, by blanks; NULL for nothing */
    const char *summary; /* one line for the list, without a period */
    const char *details; /* sentences for `help NAME`, lines ended by \n */
    const char *example;
    unsigned least, most; /* how many arguments may follow the name; the console checks that */
    bool of_cpu;          /* a guest in them may be one of its CPUs: gN.V, where gN is its first */
    /* These arguments want nobody to stand still (monitor/execute.c); NULL: none do. Guests are not
     * looked at then but for what the guests' lock keeps. */
    bool (*beside)(const struct arguments *args);
    int (*run)(const struct command *command, struct output *out, const struct arguments *args);
};

struct command_family {
    const char *title;
    const struct command *command;
    unsigned commands;
};

#define FAMILY(title, list)                                                                        \
    {                                                                                              \
        title, list, ARRAY_SIZE(list)                                                              \
    }

extern const struct command_family memory_family, tables_family, guests_family, system_family;
extern const struct command_family explain_family, frames_family, bytes_family, map_family;
extern const struct command_family trace_family, print_family, devices_family;
extern const struct command_family layout_family, terminal_family, workbench_family;
extern const struct command_family audit_family, oracle_family, stack_family, digest_family;
extern const struct command_family slots_family, state_family;
extern const struct command_family dirty_family, copies_family, fuzz_family, cpus_family,
    cost_family, save_family;

/* Says "error: NAME: ..." and returns `error`, for a command to end with. The text says what is
 * wrong and what would be right. */
int command_refuse(const struct command *command, struct output *out, int error, const char *text,
                   ...) __attribute__((format(printf, 4, 5)));

/* For what takes long: has the person at the terminal seen enough? Somebody who asked for no more
 * of the answer, or presses a key. Programs, which send their next line before they have the answer
 * to the last one, stop nothing. `ctx` is not used: this is a buddy_poll_fn. */
int command_stopped(void *ctx);

/* The guest that `word` names, or a refusal: E_FORMAT, E_NOENT. Of its CPUs the one that the word
 * names, else the first, is dealt with from then on (vm/guest_cpu.h). */
int command_guest(const struct command *command, struct output *out, const char *word,
                  struct guest **guest);

/* "g2", or "g2.1" of a guest with several CPUs. Returns `buffer`. */
#define GUEST_CPU_TEXT 8 /* "g64.7" */
const char *guest_cpu_text(char buffer[GUEST_CPU_TEXT], const struct guest_cpu *cpu);

/* The registers of a guest that has a vCPU, or a refusal that says why there are none: E_STATE, or
 * what the backend answered. */
int command_state(const struct command *command, struct output *out, struct guest *guest,
                  struct vcpu_state *state);

/* E_OK, or a refusal of a guest that has ended and waits to be sent back to its snapshot: E_STATE.
 */
int command_not_held(const struct command *command, struct output *out, const struct guest *guest);

/* A number, or a refusal; `what` says what it stands for: "address". */
int command_number(const struct command *command, struct output *out, const char *word,
                   const char *what, uint64_t *value);

/* Likewise ticks of the clock for guests to run, 1 to COMMAND_TICKS, so that the clock and they do
 * not wrap: E_RANGE. */
#define COMMAND_TICKS (UINT64_C(1) << 48)
int command_ticks(const struct command *command, struct output *out, const char *word,
                  uint64_t *ticks);

/* Likewise a guest-virtual address: a number, or a symbol of the guest's. */
int command_gva(const struct command *command, struct output *out, const struct guest *guest,
                const char *word, const char *what, uint64_t *value);

/* Whose frames: "host", "g1 hello", "nobody". Returns `buffer` or a constant. */
#define OWNER_TEXT 48
const char *owner_text(char buffer[OWNER_TEXT], owner_t owner);

/* "memory fault", "port" */
const char *vm_exit_text(enum vm_exit_kind kind);

/* How often a guest came back since it was started last; 0: it has not run. */
uint64_t vm_exit_total(const struct guest *guest);

#endif
