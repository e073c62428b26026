/*
 * A line of the console as commands, words and values.
 *
 *     walk g1 gpa 0x101000; mem        two commands
 *     find "page fault"                quotes keep blanks and semicolons in a word
 *
 * Whatever cannot be understood comes back with a complaint: a sentence that says what was asked,
 * what is wrong with it and what would be right.
 */
#ifndef QUIRE_MONITOR_ARGUMENTS_H
#define QUIRE_MONITOR_ARGUMENTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/error.h"

#define ARGUMENTS_MAX 16   /* words of one command, its name included */
#define ARGUMENTS_TEXT 256 /* bytes of one command's words, a terminator after each */

struct complaint {
    char text[200];
};

struct arguments {
    unsigned count;
    const char *word[ARGUMENTS_MAX]; /* word[0] is the command's name; they point into `store` */
    char store[ARGUMENTS_TEXT];
};

/*
 * Takes the next command off `*line` (a terminated string) and moves `*line` behind it: past its
 * semicolon, or to the end. Empty commands are passed over; a count of 0 means that nothing is
 * left. E_FULL: too many words, or too long. E_FORMAT: an unfinished quote, or a byte that is not
 * printable ASCII. After an error the whole line is used up, since where the next command starts is
 * unsure.
 */
int arguments_next(const char **line, struct arguments *out, struct complaint *why);

/*
 * A number: decimal, or hexadecimal behind 0x; '_' may stand between digits; one of K, M, G, T
 * behind it multiplies by 1024, 1024^2, ... Or an expression: numbers and symbols with + - * and
 * parentheses, without blanks unless the word was quoted. E_FORMAT; E_NOENT for a symbol that is
 * none; E_RANGE when it, or anything on the way to it, is below 0 or needs more than 64 bits.
 * `what` names it in the complaint: "address", "size".
 */
int parse_number(const char *word, const char *what, uint64_t *out, struct complaint *why);

/* Who knows the symbols of expressions; NULL, as at first, for nobody. */
void arguments_set_symbols(bool (*lookup)(const char *name, uint64_t *value));

/* As parse_number(), with the symbols of somebody else in place of the hypervisor's; `whose` is for
 * complaints: "g1 hello". */
struct symbol_book {
    bool (*lookup)(const void *ctx, const char *name, uint64_t *value);
    const void *ctx;
    const char *whose;
};
int parse_number_by(const struct symbol_book *book, const char *word, const char *what,
                    uint64_t *out, struct complaint *why);

/* What stands behind `key` ("from=") at the beginning of a word; NULL: it does not begin so. */
const char *word_behind(const char *word, const char *key);

/* A guest's name, gN. E_FORMAT; whether there is such a guest is for others to say. */
int parse_guest(const char *word, unsigned *number, struct complaint *why);
/* That, or one of its CPUs: gN.V; where none is named *cpu is ANY_CPU. */
#define ANY_CPU UINT32_MAX
int parse_guest_cpu(const char *word, unsigned *number, unsigned *cpu, struct complaint *why);

/* One of the machine's CPUs, cpuN. E_FORMAT; whether it is there is for others to say. */
bool is_cpu_word(const char *word); /* that it begins so */
int parse_cpu(const char *word, unsigned *number, struct complaint *why);

#endif
