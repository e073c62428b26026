/*
 * Completion of a word that is being typed: names of commands, guests, and the words that a command's
 * usage names. Whatever can be typed is said in the usage alone, so that a command has nothing more to
 * do for it:
 *
 *     host VA | gN gpa X [r|w|x] [user]      lower case: as it stands; gN: a guest; [ ]: may be left out;
 *                                            upper case: anything, except COMMAND, the name of one
 */
#ifndef QUIRE_MONITOR_COMPLETE_H
#define QUIRE_MONITOR_COMPLETE_H

#include <stdbool.h>
#include <stddef.h>

#define COMPLETIONS 96     /* candidates at a time; more are not offered */
#define COMPLETION_TEXT 24 /* bytes of one, its terminator included; longer ones are not offered */

struct completions {
    char word[COMPLETIONS][COMPLETION_TEXT];
    unsigned count;
    size_t typed;  /* how many characters of each are there already */
    size_t common; /* how many they share, those included */
};

struct completion_source {
    const char *(*command)(unsigned index);                           /* the names, then NULL */
    const char *(*usage)(const char *command);                        /* NULL for no such command */
    const char *(*guest)(unsigned index, char name[COMPLETION_TEXT]); /* "g1" ..., then NULL */
};

/* The words that may stand where `line` ends, each beginning with what of it is typed already. */
void complete(const struct completion_source *source, const char *line, struct completions *out);

#endif
