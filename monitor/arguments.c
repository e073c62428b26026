/*
 * Tokeniser and value parser of the console.
 */
#include "monitor/arguments.h"

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

/* A number without any operator. */
static int parse_plain(const char *word, const char *what, uint64_t *out, struct complaint *why)
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

/* --- Expressions ----------------------------------------------------------------------------- */

#define EXPRESSION_DEPTH 16 /* operators and open parentheses that wait at a time */
#define TERM_TEXT 64        /* bytes of a number or a symbol, its terminator included */

static bool (*symbol_lookup)(const char *name, uint64_t *value);

void arguments_set_symbols(bool (*lookup)(const char *name, uint64_t *value))
{
    symbol_lookup = lookup;
}

static bool host_lookup(const void *ctx, const char *name, uint64_t *value)
{
    (void)ctx;
    return symbol_lookup(name, value);
}

/* Operators and parentheses wait on one stack, values on another (the shunting yard): no recursion
 * on what somebody typed. */
struct expression {
    const struct symbol_book *book;
    const char *word, *what;
    struct complaint *why;
    char pending[EXPRESSION_DEPTH];
    uint64_t value[EXPRESSION_DEPTH + 1];
    unsigned operators, values;
};

static bool is_letter(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';
}

static bool is_operator(char c)
{
    return c == '+' || c == '-' || c == '*';
}

static bool is_term_byte(char c)
{
    return is_letter(c) || digit_of(c, 10) >= 0 || c == '.';
}

static int malformed(struct expression *e, const char *problem)
{
    complain(e->why,
             "\"%.40s\" is no %s: %s; it takes numbers (0x101000, 16M) and symbols with + - * and "
             "parentheses",
             e->word, e->what, problem);
    return E_FORMAT;
}

/* Takes the topmost operator and its two values, which are there: a value follows each operator. */
static int reduce(struct expression *e)
{
    char operation = e->pending[--e->operators];
    uint64_t right = e->value[--e->values], *left = &e->value[e->values - 1];
    bool outside = operation == '+'   ? __builtin_add_overflow(*left, right, left)
                   : operation == '-' ? __builtin_sub_overflow(*left, right, left)
                                      : __builtin_mul_overflow(*left, right, left);

    if (!outside)
        return E_OK;
    complain(e->why, "\"%.40s\" is no %s: at a '%c' it %s", e->word, e->what, operation,
             operation == '-' ? "falls below 0" : "takes more than 64 bits");
    return E_RANGE;
}

/* Reduces what binds at least as strongly as `next`, down to an open parenthesis. */
static int reduce_for(struct expression *e, char next)
{
    while (e->operators && e->pending[e->operators - 1] != '(' &&
           (next != '*' || e->pending[e->operators - 1] == '*')) {
        int error = reduce(e);
        if (error)
            return error;
    }
    return E_OK;
}

static int push_operator(struct expression *e, char operation)
{
    if (e->operators == EXPRESSION_DEPTH) {
        malformed(e, "too many parentheses and operators wait for each other");
        return E_FULL;
    }
    e->pending[e->operators++] = operation;
    return E_OK;
}

/* A number or a symbol at *at; moves behind it. */
static int take_term(struct expression *e, const char **at)
{
    char term[TERM_TEXT];
    size_t n = 0;

    while (is_term_byte(**at)) {
        if (n + 1 == sizeof(term))
            return malformed(e, "a name or number in it is too long");
        term[n++] = *(*at)++;
    }
    term[n] = 0;
    if (n == 0)
        return malformed(e, "a value is missing");
    if (!is_letter(term[0]))
        return parse_plain(term, e->what, &e->value[e->values++], e->why);
    if (e->book && e->book->lookup(e->book->ctx, term, &e->value[e->values])) {
        e->values++;
        return E_OK;
    }
    complain(e->why, "\"%.40s\" is no symbol of %.40s, and a number starts with a digit", term,
             e->book ? e->book->whose : "the hypervisor");
    return E_NOENT;
}

/* What ends a value: an operator, a closing parenthesis, or the word's end. */
static int take_after_value(struct expression *e, const char **at, bool *value_next)
{
    char c = *(*at)++;
    int error;

    if (c != ')' && !is_operator(c))
        return malformed(e, "an operator is missing");
    error = reduce_for(e, c);
    if (error)
        return error;
    *value_next = is_operator(c);
    if (*value_next)
        return push_operator(e, c);
    if (e->operators == 0)
        return malformed(e, "a ')' has no '('");
    e->operators--; /* the '(' */
    return E_OK;
}

static int evaluate(struct expression *e, uint64_t *out)
{
    const char *at = e->word;
    bool value_next = true;
    int error = E_OK;

    while (!error) {
        while (is_blank(*at))
            at++;
        if (!*at)
            break;
        if (!value_next) {
            error = take_after_value(e, &at, &value_next);
        } else if (*at == '(') {
            at++;
            error = push_operator(e, '(');
        } else {
            error = take_term(e, &at);
            value_next = false;
        }
    }
    if (!error && value_next)
        error = malformed(e, "a value is missing");
    if (!error)
        error = reduce_for(e, 0);
    if (!error && e->operators)
        error = malformed(e, "a '(' has no ')'");
    if (!error)
        *out = e->value[0];
    return error;
}

int parse_number_by(const struct symbol_book *book, const char *word, const char *what,
                    uint64_t *out, struct complaint *why)
{
    struct expression expression = {.book = book, .word = word, .what = what, .why = why};
    bool operators = false;

    /* A sign in front makes no number, and is nothing to compute. */
    for (const char *s = word; *s; s++)
        operators |= *s == '(' || *s == ')' || (s > word && is_operator(*s));
    if (operators)
        return evaluate(&expression, out);
    if (book && is_letter(word[0]) && book->lookup(book->ctx, word, out))
        return E_OK;
    if (book && is_letter(word[0]) && !lacks_prefix(word)) {
        complain(why,
                 "\"%.40s\" is no %s: no symbol of %.40s has this name (tab completes "
                 "them), and a number starts with a digit",
                 word, what, book->whose);
        return E_FORMAT;
    }
    return parse_plain(word, what, out, why);
}

int parse_number(const char *word, const char *what, uint64_t *out, struct complaint *why)
{
    static const struct symbol_book host = {.lookup = host_lookup, .whose = "the hypervisor"};

    return parse_number_by(symbol_lookup ? &host : NULL, word, what, out, why);
}

const char *word_behind(const char *word, const char *key)
{
    size_t n = strlen(key);

    return strncmp(word, key, n) == 0 ? word + n : NULL;
}

/* A number of up to four digits, which cannot overflow; NULL: there is none, or it is longer. */
static const char *short_number(const char *s, unsigned *value)
{
    const char *first = s;

    *value = 0;
    while (s - first < 4 && digit_of(*s, 10) >= 0)
        *value = *value * 10 + (unsigned)digit_of(*s++, 10);
    return s > first ? s : NULL;
}

int parse_guest_cpu(const char *word, unsigned *number, unsigned *cpu, struct complaint *why)
{
    const char *s = word[0] == 'g' || word[0] == 'G' ? short_number(word + 1, number) : NULL;

    *cpu = ANY_CPU;
    if (s != NULL && *s == '.')
        s = short_number(s + 1, cpu);
    if (s != NULL && *s == '\0')
        return E_OK;
    complain(why,
             "\"%.40s\" is no guest: a guest is g and its number, such as g1; `guests` lists them",
             word);
    return E_FORMAT;
}

int parse_guest(const char *word, unsigned *number, struct complaint *why)
{
    unsigned cpu;
    int error = parse_guest_cpu(word, number, &cpu, why);

    if (error == E_OK && cpu != ANY_CPU) {
        complain(why, "\"%.40s\" is one CPU of a guest, and all of it is meant: g%u", word,
                 *number);
        return E_FORMAT;
    }
    return error;
}

#define CPU_KEY "cpu"

bool is_cpu_word(const char *word)
{
    return word_behind(word, CPU_KEY) != NULL;
}

int parse_cpu(const char *word, unsigned *number, struct complaint *why)
{
    const char *s = word_behind(word, CPU_KEY);

    s = s ? short_number(s, number) : NULL;
    if (s && *s == '\0')
        return E_OK;
    complain(why,
             "\"%.40s\" is no CPU: one of the machine's is cpu and its number, such as cpu0; "
             "`cpus` lists them",
             word);
    return E_FORMAT;
}
