/* See vm/options.h. */
#include "vm/options.h"

#include "lib/bits.h"
#include "lib/error.h"
#include "lib/string.h"
#include "vm/options_parts.h"
#include "vm/sched.h"

const char *guest_entry_name(enum guest_entry entry)
{
    static const char *const names[] = {
        [ENTRY_LINUX16] = "linux16",
        [ENTRY_ELF32] = "elf32",
        [ENTRY_ELF64] = "elf64",
    };
    return (unsigned)entry < ARRAY_SIZE(names) && names[entry] != NULL ? names[entry] : "?";
}

static bool is_space(char c)
{
    return c == ' ' || c == '\t' || c == '\r' || c == '\n';
}

static bool next_word(const char **at, struct word *out)
{
    while (is_space(**at))
        (*at)++;
    out->text = *at;
    while (**at != '\0' && !is_space(**at))
        (*at)++;
    out->length = (size_t)(*at - out->text);
    return out->length != 0;
}

static int digit_of(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    if (c >= 'A' && c <= 'F')
        return c - 'A' + 10;
    return 99;
}

static unsigned unit_shift(char c)
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
        return 0;
    }
}

int parse_size(const char *text, size_t n, uint64_t *out)
{
    uint64_t value = 0;
    unsigned base = 10, shift;
    size_t i = 0;

    if (n > 2 && text[0] == '0' && (text[1] == 'x' || text[1] == 'X')) {
        base = 16;
        i = 2;
    }
    if (i == n || digit_of(text[i]) >= (int)base)
        return E_FORMAT;
    for (; i < n && digit_of(text[i]) < (int)base; i++) {
        if (__builtin_mul_overflow(value, base, &value) ||
            __builtin_add_overflow(value, (uint64_t)digit_of(text[i]), &value))
            return E_RANGE;
    }
    if (i == n) {
        *out = value;
        return E_OK;
    }
    shift = unit_shift(text[i]);
    if (shift == 0 || i + 1 != n)
        return E_FORMAT;
    if (value > UINT64_MAX >> shift)
        return E_RANGE;
    *out = value << shift;
    return E_OK;
}

static int parse_name(struct parser *parser, struct word word)
{
    struct word left, right;

    if (word_split(word, '=', &left, &right) || word_is(word, "--"))
        return REFUSE(parser, "'%.*s' stands where the guest's name belongs; write 'NAME %.*s'",
                      SHOW(word), SHOW(word));
    if (word.length >= GUEST_NAME)
        return REFUSE(parser, "the name '%.*s' is too long; at most %d characters", SHOW(word),
                      GUEST_NAME - 1);
    for (size_t i = 0; i < word.length; i++) {
        if (word.text[i] <= ' ' || word.text[i] > '~')
            return REFUSE(parser, "the guest's name has an unprintable character");
    }
    memcpy(parser->out->name, word.text, word.length);
    parser->out->name[word.length] = '\0';
    return E_OK;
}

static int parse_bytes(struct parser *parser, struct word word, struct word value, uint64_t *out)
{
    int error = parse_size(value.text, value.length, out);

    if (error == E_RANGE)
        return REFUSE(parser, "'%.*s': the number does not fit into 64 bits", SHOW(word));
    if (error != E_OK)
        return REFUSE(parser, "'%.*s': a size is a number with K, M or G behind it, such as 16M",
                      SHOW(word));
    if (!is_aligned(*out, PAGE_SIZE))
        return REFUSE(parser, "'%.*s': a size is a multiple of 4K", SHOW(word));
    return E_OK;
}

static int parse_memory(struct parser *parser, struct word word, struct word value)
{
    int error = parse_bytes(parser, word, value, &parser->out->memory);

    if (error != E_OK)
        return error;
    if (parser->out->memory < OPTION_MIN_MEMORY || parser->out->memory > OPTION_MAX_MEMORY)
        return REFUSE(parser, "'%.*s': a guest has at least 1M and at most 64T", SHOW(word));
    return E_OK;
}

static int parse_quota(struct parser *parser, struct word word, struct word value)
{
    int error = parse_bytes(parser, word, value, &parser->out->quota);

    if (error == E_OK && parser->out->quota == 0)
        return REFUSE(parser, "'%.*s': a quota of 0 lets a guest hold nothing", SHOW(word));
    return error;
}

static int parse_expect(struct parser *parser, struct word word, struct word value)
{
    static const struct {
        const char *text;
        enum guest_expect expect;
    } fates[] = {
        {"passed", EXPECT_PASS},
        {"stopped", EXPECT_STOPPED},
        {"failed", EXPECT_FAILED},
        {"refused", EXPECT_REFUSED},
    };

    for (size_t i = 0; i < ARRAY_SIZE(fates); i++) {
        if (word_is(value, fates[i].text)) {
            parser->out->expect = fates[i].expect;
            return E_OK;
        }
    }
    return REFUSE(parser, "'%.*s': one can expect passed, failed, stopped or refused", SHOW(word));
}

static int parse_reset(struct parser *parser, struct word word, struct word value)
{
    if (!word_is(value, "stop") && !word_is(value, "restart"))
        return REFUSE(parser, "'%.*s': a guest that resets itself can stop or restart", SHOW(word));
    parser->out->reset = word_is(value, "restart") ? RESET_RESTART : RESET_STOP;
    return E_OK;
}

static int parse_stray(struct parser *parser, struct word word, struct word value)
{
    if (!word_is(value, "stop") && !word_is(value, "lost"))
        return REFUSE(parser,
                      "'%.*s': an access where nothing is, or a write to ROM, can stop the guest "
                      "(stop), or be lost, as on a PC (lost)",
                      SHOW(word));
    parser->out->stray = word_is(value, "lost") ? STRAY_LOST : STRAY_STOP;
    return E_OK;
}

static int parse_mods(struct parser *parser, struct word word, struct word value)
{
    uint64_t count;

    if (parse_size(value.text, value.length, &count) != E_OK || count > OPTION_MODS)
        return REFUSE(parser, "'%.*s': the number of modules is 0 to %d", SHOW(word), OPTION_MODS);
    parser->out->mods = (unsigned)count;
    return E_OK;
}

static int parse_pin(struct parser *parser, struct word word, struct word value)
{
    uint64_t cpu;

    if (parse_size(value.text, value.length, &cpu) != E_OK || cpu >= GUEST_CPUS)
        return REFUSE(parser, "'%.*s': a guest is pinned to a CPU by its number, 0 to %d",
                      SHOW(word), GUEST_CPUS - 1);
    parser->out->pinned = true;
    parser->out->pin = (unsigned)cpu;
    return E_OK;
}

static int parse_cpus(struct parser *parser, struct word word, struct word value)
{
    uint64_t count;

    if (parse_size(value.text, value.length, &count) != E_OK || count == 0 || count > GUEST_VCPUS)
        return REFUSE(parser, "'%.*s': a guest has 1 to %d virtual CPUs", SHOW(word), GUEST_VCPUS);
    parser->out->cpus = (unsigned)count;
    return E_OK;
}

static int parse_pages(struct parser *parser, struct word word, struct word value)
{
    static const char *const sizes[] = {"4K", "2M", "1G"};

    for (unsigned i = 0; i < ARRAY_SIZE(sizes); i++) {
        if (word_is(value, sizes[i])) {
            parser->out->pages = i + 1;
            return E_OK;
        }
    }
    return REFUSE(parser, "'%.*s': a guest's pages are of 4K, 2M or 1G at most", SHOW(word));
}

static int parse_around(struct parser *parser, struct word word, struct word value)
{
    uint64_t size = 0;

    if (parse_size(value.text, value.length, &size) != E_OK || size < PAGE_SIZE ||
        size > OPTION_AROUND * PAGE_SIZE || (size & (size - 1)) != 0)
        return REFUSE(parser, "'%.*s': what comes at a first touch is 4K, 8K, 16K ... 2M of memory",
                      SHOW(word));
    parser->out->around = (unsigned)(size / PAGE_SIZE);
    return E_OK;
}

static int parse_entry(struct parser *parser, struct word word, struct word value)
{
    for (enum guest_entry entry = ENTRY_LINUX16; entry <= ENTRY_ELF64; entry++) {
        if (word_is(value, guest_entry_name(entry))) {
            parser->out->entry = entry;
            return E_OK;
        }
    }
    return REFUSE(parser,
                  "'%.*s': an ELF file is entered as elf32 or elf64, and an image of Linux's boot "
                  "protocol as linux16",
                  SHOW(word));
}

static int parse_value(struct parser *parser, struct word word, struct word name, struct word value)
{
    if (word_is(name, "mem"))
        return parse_memory(parser, word, value);
    if (word_is(name, "quota"))
        return parse_quota(parser, word, value);
    if (word_is(name, "expect"))
        return parse_expect(parser, word, value);
    if (word_is(name, "reset"))
        return parse_reset(parser, word, value);
    if (word_is(name, "stray"))
        return parse_stray(parser, word, value);
    if (word_is(name, "mods"))
        return parse_mods(parser, word, value);
    if (word_is(name, "entry"))
        return parse_entry(parser, word, value);
    if (word_is(name, "cpus"))
        return parse_cpus(parser, word, value);
    if (word_is(name, "pin"))
        return parse_pin(parser, word, value);
    if (word_is(name, "pages"))
        return parse_pages(parser, word, value);
    if (word_is(name, "around"))
        return parse_around(parser, word, value);
    for (enum area_kind kind = AREA_HOLE; kind <= AREA_RAM; kind++) {
        if (word_is(name, area_kind_name(kind)))
            return options_area(parser, word, value, kind);
    }
    if (word_is(name, "share"))
        return options_share(parser, word, value);
    return REFUSE(
        parser,
        "'%.*s': there is no option '%.*s='; there are mem= quota= pages= around= expect= reset= "
        "stray= mods= entry= cpus= pin= rom= nox= xo= ram= hole= share=",
        SHOW(word), SHOW(name));
}

static int parse_word(struct parser *parser, struct word word)
{
    struct word name, value;

    if (word_split(word, '=', &name, &value))
        return parse_value(parser, word, name, value);
    if (word_is(word, "lazy"))
        parser->out->lazy = true;
    else if (word_is(word, "merge"))
        parser->out->merge = true;
    else if (word_is(word, "nx-huge"))
        parser->out->nx_huge = true;
    else if (word_is(word, "flat"))
        parser->out->flat = true;
    else if (word_is(word, "pc"))
        parser->out->pc = true;
    else if (word_is(word, "debug-exit"))
        parser->out->debug_exit = true;
    else if (word_is(word, "bare"))
        parser->out->bare = true;
    else if (word_is(word, "paused"))
        parser->out->paused = true;
    else
        return REFUSE(
            parser,
            "'%.*s' is no option (lazy, merge, nx-huge, flat, paused, pc, bare, debug-exit, "
            "mem=16M, ...); the guest's own words go behind ' -- '",
            SHOW(word));
    return E_OK;
}

/* Words of which each says something else, or says nothing without the other. */
static int check_pairs(struct parser *parser)
{
    if (parser->out->around != 0 && !parser->out->lazy)
        return REFUSE(parser,
                      "'around=' is for memory that arrives at its first touch: add 'lazy'");
    if (parser->out->nx_huge && parser->out->pages == 1)
        return REFUSE(parser, "'nx-huge' is for pages larger than 4K, of which 'pages=4K' has "
                              "none: leave one of them out");
    if (parser->out->pc && parser->out->bare)
        return REFUSE(parser, "'pc' and 'bare' are opposites: leave one of them out");
    if (parser->out->bare && parser->out->cpus > 1)
        return REFUSE(parser,
                      "'cpus=%u' needs a PC's local APIC, and 'bare' has none: leave one of "
                      "them out",
                      parser->out->cpus);
    if (parser->out->flat && parser->out->entry != ENTRY_BY_IMAGE)
        return REFUSE(parser,
                      "'flat' and 'entry=%s' are two ways to start an image: leave one of "
                      "them out",
                      guest_entry_name(parser->out->entry));
    if (parser->out->bare && parser->out->entry == ENTRY_LINUX16)
        return REFUSE(parser, "'entry=linux16' calls a PC's BIOS, and 'bare' has none: leave one "
                              "of them out");
    return E_OK;
}

static int keep_cmdline(struct parser *parser, const char *text)
{
    size_t length = strnlen(text, GUEST_CMDLINE);

    if (length == GUEST_CMDLINE)
        return REFUSE(parser, "the guest's own command line is longer than %d characters",
                      GUEST_CMDLINE - 1);
    memcpy(parser->out->cmdline, text, length);
    parser->out->cmdline[length] = '\0';
    return E_OK;
}

int options_parse(const char *line, struct guest_options *out, char *why, size_t why_size)
{
    struct parser parser = {out, why, why_size};
    const char *at = line, *own = line;
    struct word word;
    int error;

    *out = (struct guest_options){.name = "unnamed", .memory = OPTION_DEFAULT_MEMORY, .cpus = 1};
    if (!next_word(&at, &word))
        return REFUSE(&parser,
                      "the module has no command line; its first word is the guest's name");
    error = parse_name(&parser, word);
    while (error == E_OK && next_word(&at, &word)) {
        if (word_is(word, "--")) {
            while (is_space(*at))
                at++;
            own = at;
            break;
        }
        error = parse_word(&parser, word);
    }
    if (error == E_OK)
        error = check_pairs(&parser);
    return error == E_OK ? keep_cmdline(&parser, own) : error;
}
