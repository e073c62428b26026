/*
 * Tokeniser and value parser of the console.
 */
#include "monitor/arguments.h"

#include <stdbool.h>

#include "lib/format.h"
#include "lib/string.h"

#define complain(why, ...) format_buffer((why)->text, sizeof((why)->text), __VA_ARGS__)

static bool is_blank(char c)
{
    return c == ' ' || c == '\t';
}

static bool is_printable(char c)
{
    return c >= 0x20 && c < 0x7f;
}

static int give_up(const char **line, struct arguments *out, int error)
{
    *line += strlen(*line);
    out->count = 0;
    return error;
}

/* Reads one word, quotes and all, from *at into the store. */
static int take_word(const char **at, struct arguments *out, size_t *used, struct complaint *why)
{
    const char *s = *at;
    char quote = 0;

    if (out->count == ARGUMENTS_MAX) {
        complain(why, "a command of more than %u words: no command takes so many", ARGUMENTS_MAX);
        return E_FULL;
    }
    out->word[out->count] = out->store + *used;
    for (; *s && (quote || (!is_blank(*s) && *s != ';')); s++) {
        if (!is_printable(*s) && *s != '\t') {
            complain(why, "the byte 0x%02x in a command: only printable ASCII is understood",
                     (unsigned char)*s);
            return E_FORMAT;
        }
        if (quote ? *s == quote : (*s == '"' || *s == '\'')) {
            quote = quote ? 0 : *s;
            continue;
        }
        /* One byte stays free for the terminator. */
        if (*used + 1 >= sizeof(out->store)) {
            complain(why, "a command longer than %u characters: split it with ';'",
                     ARGUMENTS_TEXT - 1);
            return E_FULL;
        }
        out->store[(*used)++] = *s;
    }
    if (quote) {
        complain(why, "a quote (%c) without its end: close it with another %c", quote, quote);
        return E_FORMAT;
    }
    out->store[(*used)++] = 0;
    out->count++;
    *at = s;
    return E_OK;
}

int arguments_next(const char **line, struct arguments *out, struct complaint *why)
{
    const char *s = *line;
    size_t used = 0;

    out->count = 0;
    while (is_blank(*s) || *s == ';')
        s++;
    while (*s && *s != ';') {
        /* A word may leave the store exactly full: the next one has no room even for its end. */
        if (used == sizeof(out->store)) {
            complain(why, "a command longer than %u characters: split it with ';'",
                     ARGUMENTS_TEXT - 1);
            return give_up(line, out, E_FULL);
        }
        int error = take_word(&s, out, &used, why);
        if (error)
            return give_up(line, out, error);
        while (is_blank(*s))
            s++;
    }
    *line = s;
    return E_OK;
}

static int digit_of(char c, unsigned base)
{
    int digit = -1;

    if (c >= '0' && c <= '9')
        digit = c - '0';
    else if (c >= 'a' && c <= 'f')
        digit = c - 'a' + 10;
    else if (c >= 'A' && c <= 'F')
        digit = c - 'A' + 10;
    return digit < (int)base ? digit : -1;
}

/* The binary logarithm of what a suffix multiplies by, or -1 for no suffix. */
static int suffix_shift(char c)
{
    switch (c) {
    case 'k':
    case 'K':
        return 10;
    case 'm':
    case 'M':
        return 20;
    case 'g':
    case 'G':
        return 30;
    case 't':
    case 'T':
        return 40;
    default:
        return -1;
    }
}

/* All of it hexadecimal digits, one of them a letter: somebody left out the 0x. */
static bool lacks_prefix(const char *word)
{
    bool letter = false;

    for (const char *s = word; *s; s++) {
        if (*s == '_')
            continue;
        if (digit_of(*s, 16) < 0)
            return false;
        letter |= digit_of(*s, 10) < 0;
    }
    return letter;
}

static int too_large(const char *word, const char *what, struct complaint *why)
{
    complain(why, "\"%.40s\" is no %s: it takes more than 64 bits", word, what);
    return E_RANGE;
}

int parse_number(const char *word, const char *what, uint64_t *out, struct complaint *why)
{
    const char *s = word;
    unsigned base = 10;
    uint64_t value = 0;
    bool digits = false;

    if (s[0] == '0' && (s[1] == 'x' || s[1] == 'X')) {
        base = 16;
        s += 2;
    }
    for (; *s; s++) {
        int digit = digit_of(*s, base);
        if (digit < 0 && *s == '_' && digits && digit_of(s[1], base) >= 0)
            continue;
        if (digit < 0)
            break;
        digits = true;
        if (__builtin_mul_overflow(value, (uint64_t)base, &value) ||
            __builtin_add_overflow(value, (uint64_t)digit, &value))
            return too_large(word, what, why);
    }
    if (digits && *s) {
        int shift = suffix_shift(*s);
        if (shift >= 0 && !s[1]) {
            if (value > UINT64_MAX >> shift)
                return too_large(word, what, why);
            value <<= shift;
            s++;
        }
    }
    if (digits && !*s) {
        *out = value;
        return E_OK;
    }
    if (lacks_prefix(word))
        complain(why, "\"%.40s\" is no %s: a hexadecimal number starts with 0x: 0x%.40s", word,
                 what, word);
    else
        complain(why,
                 "\"%.40s\" is no %s: it is a number, decimal or hexadecimal (0x...), with K, M, G "
                 "or T behind it for a larger unit: 0x101000, 4096, 16M",
                 word, what);
    return E_FORMAT;
}

int parse_guest(const char *word, unsigned *number, struct complaint *why)
{
    const char *s = word + 1;
    unsigned value = 0;

    if (word[0] == 'g' || word[0] == 'G') {
        /* Four digits are more than there can be guests, and cannot overflow. */
        while (s - word <= 4 && digit_of(*s, 10) >= 0)
            value = value * 10 + (unsigned)digit_of(*s++, 10);
        if (s > word + 1 && !*s) {
            *number = value;
            return E_OK;
        }
    }
    complain(why,
             "\"%.40s\" is no guest: a guest is g and its number, such as g1; `guests` lists them",
             word);
    return E_FORMAT;
}
