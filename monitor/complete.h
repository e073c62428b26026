/*
 * Completion of a word that is being typed: names of commands, guests, the words that a command's
 * usage names, and symbols in addresses: the hypervisor's, and a guest's in
 * guest-virtual ones. Whatever can be typed is said in the
 * usage alone, so that a command has nothing more to do for it:
 *
 *     gN gpa|gva X [r|w|x] [user]  lower case: as it stands; gN: a guest; cpuN: a CPU; [ ]: may be
 *                                  left out; ...: again;
 *     [FILTER ...] [cpu=N]         upper case: anything, of which VA, X and HPA are addresses,
 *                                  COMMAND is a command's name, and for EVENT and FILTER the
 *                                  command has words; a word with '=' in it goes on behind it
 */
#ifndef QUIRE_MONITOR_COMPLETE_H
#define QUIRE_MONITOR_COMPLETE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define COMPLETIONS 64 /* candidates that are shown; more are counted */
#define COMPLETION_TEXT                                                                            \
    64 /* bytes of one, its terminator included; longer ones are not offered                       \
        */

struct completions {
    char word[COMPLETIONS][COMPLETION_TEXT];
    unsigned count;
    unsigned more; /* candidates for which there was no room */
    size_t typed;  /* how many characters of each are there already */
    size_t common; /* how many all of them share, those included */
};

struct completion_source {
    const char *(*command)(unsigned index);    /* the names, then NULL */
    const char *(*usage)(const char *command); /* NULL for no such command */
    const char *(*words)(const char *command); /* for EVENT and FILTER, by blanks; or NULL */
    const char *(*guest)(unsigned index, char name[COMPLETION_TEXT]); /* "g1" ..., then NULL */
    const char *(*cpu)(unsigned index, char name[COMPLETION_TEXT]);   /* "cpu0" ..., likewise */
    const char *(*symbol)(unsigned index);                            /* then NULL */
    /* One symbol of a guest after the other; *at is 0 before the first. NULL: there are none. */
    bool (*guest_symbol)(unsigned guest, uint64_t *at, char name[COMPLETION_TEXT]);
};

/* The words that may stand where `line` ends, each beginning with what of it is typed already. */
void complete(const struct completion_source *source, const char *line, struct completions *out);

#endif
