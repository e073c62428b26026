/*
 * Completion: the words before the one being typed are followed through each alternative of the
 * command's usage; where one still fits, what it names next is offered.
 */
#include "monitor/complete.h"

#include "lib/string.h"
#include "monitor/arguments.h"

static bool has_prefix(const char *text, const char *prefix, size_t n)
{
    return strncmp(text, prefix, n) == 0;
}

static void offer(struct completions *out, const char *prefix, const char *word)
{
    size_t n = strlen(word);

    if (n >= COMPLETION_TEXT || out->count == COMPLETIONS || !has_prefix(word, prefix, out->typed))
        return;
    for (unsigned i = 0; i < out->count; i++)
        if (strcmp(out->word[i], word) == 0)
            return;
    if (out->count == 0)
        out->common = n;
    for (size_t i = 0; out->count && i < out->common; i++)
        if (out->word[0][i] != word[i])
            out->common = i;
    memcpy(out->word[out->count++], word, n + 1);
}

static void offer_commands(const struct completion_source *source, struct completions *out,
                           const char *prefix)
{
    const char *name;

    for (unsigned i = 0; (name = source->command(i)); i++)
        offer(out, prefix, name);
}

/* --- A usage, piece by piece ----------------------------------------------------------------- */

struct usage {
    const char *at;
    bool optional; /* within brackets */
};

/* The next word of this alternative, with '|' in it where there is a choice. False at its end. */
static bool next_word(struct usage *usage, char word[COMPLETION_TEXT])
{
    size_t n = 0;

    for (;; usage->at++) {
        if (*usage->at == '[')
            usage->optional = true;
        else if (*usage->at == ']')
            usage->optional = false;
        else if (*usage->at == '|' && !usage->optional)
            return false;
        else if (*usage->at != ' ' && *usage->at != '|')
            break;
    }
    for (; *usage->at && *usage->at != ' ' && *usage->at != ']' && *usage->at != '['; usage->at++)
        if (n + 1 < COMPLETION_TEXT)
            word[n++] = *usage->at;
    word[n] = 0;
    return n != 0;
}

/* One of the choices in a word of a usage; moves behind it. */
static bool next_choice(const char **choices, char choice[COMPLETION_TEXT])
{
    size_t n = 0;

    while (**choices == '|')
        (*choices)++;
    while (**choices && **choices != '|')
        choice[n++] = *(*choices)++;
    choice[n] = 0;
    return n != 0;
}

static bool is_guest(const char *choice)
{
    return strcmp(choice, "gN") == 0;
}

static bool is_anything(const char *choice)
{
    return (choice[0] >= 'A' && choice[0] <= 'Z') || choice[0] == '.';
}

static bool choices_fit(const char *choices, const char *word)
{
    char choice[COMPLETION_TEXT];
    struct complaint why;
    unsigned number;

    while (next_choice(&choices, choice)) {
        if (is_guest(choice) ? parse_guest(word, &number, &why) == 0
                             : is_anything(choice) || strcmp(choice, word) == 0)
            return true;
    }
    return false;
}

static void offer_choices(const struct completion_source *source, struct completions *out,
                          const char *prefix, const char *choices)
{
    char choice[COMPLETION_TEXT], name[COMPLETION_TEXT];
    const char *guest;

    while (next_choice(&choices, choice)) {
        if (is_guest(choice)) {
            for (unsigned i = 0; (guest = source->guest(i, name)); i++)
                offer(out, prefix, guest);
        } else if (strcmp(choice, "COMMAND") == 0) {
            offer_commands(source, out, prefix);
        } else if (!is_anything(choice)) {
            offer(out, prefix, choice);
        }
    }
}

/* What an alternative says of the word behind `words`, which do not include the command's name. */
static void offer_alternative(const struct completion_source *source, struct completions *out,
                              struct usage usage, const struct arguments *words)
{
    char choices[COMPLETION_TEXT];

    for (unsigned i = 1; i + 1 < words->count; i++) {
        bool fits = false;
        while (!fits && next_word(&usage, choices)) {
            fits = choices_fit(choices, words->word[i]);
            if (!fits && !usage.optional)
                return;
        }
        if (!fits)
            return;
    }
    while (next_word(&usage, choices)) {
        offer_choices(source, out, words->word[words->count - 1], choices);
        if (!usage.optional)
            return;
    }
}

static void skip_alternative(struct usage *usage)
{
    unsigned depth = 0;

    for (; *usage->at; usage->at++) {
        depth += *usage->at == '[';
        depth -= *usage->at == ']' && depth;
        if (*usage->at == '|' && !depth && usage->at[1] == ' ')
            break;
    }
    if (*usage->at)
        usage->at++;
}

void complete(const struct completion_source *source, const char *line, struct completions *out)
{
    /* A mark at the end makes the word being typed one that is there, even when it is empty. */
    char marked[ARGUMENTS_TEXT + 2];
    struct arguments words = {.count = 0};
    struct complaint why;
    size_t n = strlen(line);

    out->count = 0;
    out->typed = out->common = 0;
    if (n + 2 > sizeof(marked))
        return;
    memcpy(marked, line, n);
    marked[n] = '.';
    marked[n + 1] = 0;
    const char *rest = marked;
    do {
        if (arguments_next(&rest, &words, &why))
            return;
    } while (*rest);
    if (words.count == 0)
        return;
    const char *last = words.word[words.count - 1];
    out->typed = strlen(last) - 1;
    words.store[last - words.store + (ptrdiff_t)out->typed] = 0;
    if (words.count == 1) {
        offer_commands(source, out, last);
        return;
    }
    struct usage usage = {.at = source->usage(words.word[0])};
    if (!usage.at)
        return;
    while (*usage.at) {
        offer_alternative(source, out, usage, &words);
        skip_alternative(&usage);
    }
}
