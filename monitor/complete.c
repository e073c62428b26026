/*
 * Completion: the words before the one being typed are followed through each alternative of the
 * command's usage; where one still fits, what it names next is offered.
 */
#include "monitor/complete.h"

#include "lib/string.h"
#include "monitor/arguments.h"

/* The word being typed. */
struct typing {
    const struct completion_source *source;
    struct completions *out;
    const char *word;
    const char *term;  /* within it: behind the last operator or '=' */
    const char *words; /* what EVENT and FILTER stand for, or NULL */
    unsigned guest;    /* whose virtual address is next, or 0 */
};

static void offer(struct completions *out, const char *typed, const char *word)
{
    size_t n = strlen(word), typed_length = strlen(typed);

    if (n >= COMPLETION_TEXT || strncmp(word, typed, typed_length) != 0)
        return;
    for (unsigned i = 0; i < out->count; i++)
        if (strcmp(out->word[i], word) == 0)
            return;
    if (out->count == 0) {
        out->common = n;
        out->typed = typed_length;
    }
    size_t shared = 0;
    while (out->count && shared < out->common && out->word[0][shared] == word[shared])
        shared++;
    if (out->count)
        out->common = shared;
    if (out->count == COMPLETIONS)
        out->more++;
    else
        memcpy(out->word[out->count++], word, n + 1);
}

static void offer_commands(const struct typing *typing)
{
    const char *name;

    for (unsigned i = 0; (name = typing->source->command(i)); i++)
        offer(typing->out, typing->word, name);
}

/* "g1", "g2", ...; "cpu0", "cpu1", ... */
static void offer_numbered(const struct typing *typing,
                           const char *(*name_of)(unsigned index, char name[COMPLETION_TEXT]))
{
    char text[COMPLETION_TEXT];
    const char *name;

    for (unsigned i = 0; (name = name_of(i, text)); i++)
        offer(typing->out, typing->word, name);
}

/* In an address, once a letter of one has been typed: there are hundreds of them. */
static void offer_symbols(const struct typing *typing)
{
    char name[COMPLETION_TEXT];
    const char *symbol;

    if (!*typing->term || (*typing->term >= '0' && *typing->term <= '9'))
        return;
    if (typing->guest && typing->source->guest_symbol) {
        for (uint64_t at = 0; typing->source->guest_symbol(typing->guest, &at, name);)
            offer(typing->out, typing->term, name);
        return;
    }
    for (unsigned i = 0; (symbol = typing->source->symbol(i)); i++)
        offer(typing->out, typing->term, symbol);
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

static bool is_cpu(const char *choice)
{
    return strcmp(choice, "cpuN") == 0;
}

static bool is_address(const char *choice)
{
    return strcmp(choice, "VA") == 0 || strcmp(choice, "X") == 0 || strcmp(choice, "HPA") == 0;
}

static bool is_anything(const char *choice)
{
    return choice[0] >= 'A' && choice[0] <= 'Z';
}

static bool is_repetition(const char *choices)
{
    return strcmp(choices, "...") == 0;
}

/* Of a choice like from=X: what it begins with, '=' included; 0 for others. */
static size_t key_length(const char *choice)
{
    const char *equals = strchr(choice, '=');

    return equals ? (size_t)(equals - choice) + 1 : 0;
}

static bool choices_fit(const char *choices, const char *word)
{
    char choice[COMPLETION_TEXT];
    struct complaint why;
    unsigned number;

    while (next_choice(&choices, choice)) {
        size_t key = key_length(choice);
        if (is_guest(choice)      ? parse_guest(word, &number, &why) == 0
            : is_cpu(choice)      ? parse_cpu(word, &number, &why) == 0
            : is_anything(choice) ? true
            : key                 ? strncmp(choice, word, key) == 0
                                  : strcmp(choice, word) == 0)
            return true;
    }
    return false;
}

static void offer_choice(const struct typing *typing, char choice[COMPLETION_TEXT])
{
    size_t key = key_length(choice);

    if (key && strncmp(choice, typing->word, key) == 0) {
        if (is_address(choice + key))
            offer_symbols(typing);
        return;
    }
    choice[key ? key : strlen(choice)] = 0;
    offer(typing->out, typing->word, choice);
}

/* EVENT, FILTER: one of the command's own words. */
static void offer_words(const struct typing *typing)
{
    const char *at = typing->words;
    char word[COMPLETION_TEXT];

    while (at && *at) {
        size_t n = 0;
        for (; *at && *at != ' '; at++)
            if (n + 1 < COMPLETION_TEXT)
                word[n++] = *at;
        word[n] = 0;
        at += *at == ' ';
        offer_choice(typing, word);
    }
}

static void offer_choices(const struct typing *typing, const char *choices)
{
    char choice[COMPLETION_TEXT];

    while (next_choice(&choices, choice)) {
        if (is_guest(choice))
            offer_numbered(typing, typing->source->guest);
        else if (is_cpu(choice))
            offer_numbered(typing, typing->source->cpu);
        else if (strcmp(choice, "COMMAND") == 0)
            offer_commands(typing);
        else if (strcmp(choice, "EVENT") == 0 || strcmp(choice, "FILTER") == 0)
            offer_words(typing);
        else if (is_address(choice))
            offer_symbols(typing);
        else if (!is_anything(choice))
            offer_choice(typing, choice);
    }
}

/* Moves behind the piece of an alternative that `word` fits; false where none does. `repeated` is
 * the one that "..." stands for. */
static bool follow(struct usage *usage, const char *word, char repeated[COMPLETION_TEXT])
{
    char choices[COMPLETION_TEXT];
    struct usage before = *usage;

    while (next_word(usage, choices)) {
        bool again = is_repetition(choices);
        bool fits = choices_fit(again ? repeated : choices, word);

        if (!again)
            memcpy(repeated, choices, sizeof(choices));
        else if (fits)
            *usage = before;
        if (fits || !usage->optional)
            return fits;
        before = *usage;
    }
    return false;
}

/* What an alternative says of the word behind `words`, which do not include the command's name. */
static void offer_alternative(const struct typing *typing, struct usage usage,
                              const struct arguments *words)
{
    char choices[COMPLETION_TEXT], repeated[COMPLETION_TEXT] = "";

    for (unsigned i = 1; i + 1 < words->count; i++)
        if (!follow(&usage, words->word[i], repeated))
            return;
    while (next_word(&usage, choices)) {
        offer_choices(typing, is_repetition(choices) ? repeated : choices);
        repeated[0] = 0; /* has been offered, if at all */
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

static const char *term_of(const char *word)
{
    const char *term = word;

    for (; *word; word++)
        if (strchr("+-*(=", *word))
            term = word + 1;
    return term;
}

/* Behind `gN gva`, and where an address follows gN itself, but not a filter's (from=X): the guest's
 * number, else 0. */
static unsigned guest_of(const struct arguments *words)
{
    unsigned at = words->count - 2, number, cpu;
    struct complaint why;

    if (strchr(words->word[at + 1], '='))
        return 0;
    if (at > 1 && strcmp(words->word[at], "gva") == 0)
        at--;
    return at > 0 && parse_guest_cpu(words->word[at], &number, &cpu, &why) == 0 ? number : 0;
}

void complete(const struct completion_source *source, const char *line, struct completions *out)
{
    /* A mark at the end makes the word being typed one that is there, even when it is empty. */
    char marked[ARGUMENTS_TEXT + 2];
    struct arguments words = {.count = 0};
    struct complaint why;
    size_t n = strlen(line);

    out->count = out->more = 0;
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
    words.store[last - words.store + (ptrdiff_t)strlen(last) - 1] = 0;
    struct typing typing = {.source = source, .out = out, .word = last, .term = term_of(last)};
    if (words.count == 1) {
        offer_commands(&typing);
        return;
    }
    struct usage usage = {.at = source->usage(words.word[0])};
    if (!usage.at)
        return;
    typing.words = source->words(words.word[0]);
    typing.guest = guest_of(&words);
    while (*usage.at) {
        offer_alternative(&typing, usage, &words);
        skip_alternative(&usage);
    }
}
