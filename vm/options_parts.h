/*
 * What the parts of the parser of guests' options share. Within vm/ (vm/options.h).
 */
#ifndef QUIRE_VM_OPTIONS_PARTS_H
#define QUIRE_VM_OPTIONS_PARTS_H

#include "lib/error.h"
#include "lib/format.h"
#include "lib/string.h"
#include "vm/options.h"

/* One word of the line: not terminated. */
struct word {
    const char *text;
    size_t length;
};

struct parser {
    struct guest_options *out;
    char *why;
    size_t why_size;
};

/* Every refusal goes through here; the sentence is the caller's. */
#define REFUSE(parser, ...) (format_buffer((parser)->why, (parser)->why_size, __VA_ARGS__), E_INVAL)

/* A word as %.*s arguments, cut so that the sentence around it still fits. */
#define WORD_SHOWN 48
#define SHOW(word) (int)((word).length < WORD_SHOWN ? (word).length : WORD_SHOWN), (word).text

static inline bool word_is(struct word word, const char *text)
{
    return word.length == strlen(text) && memcmp(word.text, text, word.length) == 0;
}

/* Splits the word at its first `at`, as NAME=VALUE; false when the word has no such form. */
static inline bool word_split(struct word word, char at, struct word *left, struct word *right)
{
    const char *mark = memchr(word.text, at, word.length);

    if (mark == NULL)
        return false;
    *left = (struct word){word.text, (size_t)(mark - word.text)};
    *right = (struct word){mark + 1, word.length - left->length - 1};
    return true;
}

/* A piece of the guest's addresses: `rom=ADDRESS+SIZE` and its like; memory that it shares with
 * others. `word` is all of the option, `value` what follows its first '='. */
int options_area(struct parser *parser, struct word word, struct word value, enum area_kind kind);
int options_share(struct parser *parser, struct word word, struct word value);

#endif
