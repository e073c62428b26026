/* See monitor/alias.h. */
#include "monitor/alias.h"

#include "lib/bits.h"
#include "lib/error.h"
#include "lib/format.h"
#include "lib/string.h"

/* Runs `host` with the words that follow, or `guest` where the first of them is a guest, which
 * takes the place of the N. NULL: there is no such thing. */
static const struct {
    const char *words, *host, *guest;
} same[] = {
    {"?", "help", NULL},
    {"h", "help", NULL},
    {"man", "help", NULL},
    {"commands", "help", NULL},
    {"info mem", "map host", "map N gva"},
    {"info tlb", "map host", "map N gva"},
    {"info tab", "map host", "map N gva"},
    {"vmmap", "map host", "map N gva"},
    {"info registers", NULL, "regs N"},
    {"info r", NULL, "regs N"},
    {"i r", NULL, "regs N"},
    {"r", NULL, "regs N"},
    {"registers", NULL, "regs N"},
    {"k", NULL, "bt N"},
    {"kb", NULL, "bt N"},
    {"where", NULL, "bt N"},
    {"backtrace", NULL, "bt N"},
    {"stack", NULL, "bt N"},
    {"info stack", NULL, "bt N"},
    {"info cpus", "cpu", NULL},
    {"cpuid", "cpu", NULL},
    {"info status", "guests", NULL},
    {"ps", "guests", NULL},
    {"vms", "guests", NULL},
    {"info version", "version", NULL},
    {"ver", "version", NULL},
    {"uname", "version", NULL},
    {"dmesg", "log", NULL},
    {"info mtree", "mem", NULL},
    {"free", "mem", NULL},
    {"meminfo", "mem", NULL},
    {"e820", "mem", NULL},
    {"buddyinfo", "frames", NULL},
    {"p", "print", NULL},
    {"calc", "print", NULL},
    {"sym", "print", NULL},
    {"symbol", "print", NULL},
    {"info symbol", "print", NULL},
    {"info address", "print", NULL},
    {"ln", "print", NULL},
    {"page", "walk host", "walk N gva"},
    {"vtop", "walk host", "walk N gva"},
    {"pte", "walk host", "walk N gva"},
    {"!pte", "walk host", "walk N gva"},
    {"gva2gpa", NULL, "walk N gva"},
    {"gpa2hpa", NULL, "walk N gpa"},
    {"gpa2hva", NULL, "walk N gpa"},
    {"rmap", "who", NULL},
    {"hexdump", "dump hva", "dump N gva"},
    {"db", "dump hva", "dump N gva"},
    {"dd", "dump hva", "dump N gva"},
    {"dq", "dump hva", "dump N gva"},
    {"!db", "dump hpa", "dump N gpa"},
    {"!dd", "dump hpa", "dump N gpa"},
    {"!dq", "dump hpa", "dump N gpa"},
    {"search", "find hva", "find N gva"},
    {"console", NULL, "attach N"},
    {"color", "colour", NULL},
    {"width", "columns", NULL},
    {"set width", "columns", NULL},
    {"set height", "paging", NULL},
    {"set pagination off", "paging off", NULL},
};

#define STEPS "there are no single steps: `pause gN` holds a guest, `regs gN` shows where it is"
#define BREAKS "there are no breakpoints: `trace on exit` records why guests come back"
#define STACK "`bt gN` follows the frame pointers of a guest, `bt cpuN` the hypervisor's"
#define BYTES "there is no disassembler: `dump` shows the bytes, `print X` the symbol at an address"
#define FORMS "`dump` shows bytes in hexadecimal and as characters, and in no other form"
#define NO_BYTES "a count of 0 shows nothing: `dump` shows from 1 byte on"
#define GOES_ON "`resume gN` lets a paused guest run on, `start gN` a new or an ended one"
#define SWITCHES_OFF "`quit` switches the machine off"
#define BEGINS_ANEW "`kill gN; start gN` begins a guest anew, `quit` switches the machine off"
#define WRITES "`poke` writes to memory"
#define REGISTERS "`regs gN` shows the registers of a guest, `cpu` those of the hypervisor"

static const struct {
    const char *words, *advice;
} others[] = {
    {"exit", SWITCHES_OFF},
    {"q", SWITCHES_OFF},
    {"bye", SWITCHES_OFF},
    {"logout", SWITCHES_OFF},
    {"shutdown", SWITCHES_OFF},
    {"poweroff", SWITCHES_OFF},
    {"halt", SWITCHES_OFF},
    {"system_powerdown", SWITCHES_OFF},
    {"reset", BEGINS_ANEW},
    {"reboot", BEGINS_ANEW},
    {"system_reset", BEGINS_ANEW},
    {"c", GOES_ON},
    {"cont", GOES_ON},
    {"continue", GOES_ON},
    {"g", GOES_ON},
    {"run", GOES_ON},
    {"boot", GOES_ON},
    {"stop", "`pause gN` holds a guest, `kill gN` ends it"},
    {"suspend", "`pause gN` holds a guest, `kill gN` ends it"},
    {"destroy", "`kill gN` ends a guest"},
    {"s", STEPS},
    {"si", STEPS},
    {"step", STEPS},
    {"stepi", STEPS},
    {"n", STEPS},
    {"ni", STEPS},
    {"next", STEPS},
    {"t", STEPS},
    {"finish", STEPS},
    {"b", BREAKS},
    {"break", BREAKS},
    {"bp", BREAKS},
    {"ba", BREAKS},
    {"bl", BREAKS},
    {"lb", BREAKS},
    {"vb", BREAKS},
    {"pb", BREAKS},
    {"watch", BREAKS},
    {"info b", BREAKS},
    {"info breakpoints", BREAKS},
    {"k", STACK},
    {"kb", STACK},
    {"where", STACK},
    {"backtrace", STACK},
    {"stack", STACK},
    {"info frame", STACK},
    {"info stack", STACK},
    {"u", BYTES},
    {"uf", BYTES},
    {"disas", BYTES},
    {"disassemble", BYTES},
    {"set", WRITES},
    {"eb", WRITES},
    {"ed", WRITES},
    {"eq", WRITES},
    {"setpmem", WRITES},
    {"info registers", REGISTERS},
    {"info r", REGISTERS},
    {"i r", REGISTERS},
    {"r", REGISTERS},
    {"registers", REGISTERS},
    {"creg", REGISTERS},
    {"sreg", REGISTERS},
    {"rdmsr", "MSRs cannot be asked for: `cpu` shows control registers and what guests are run by"},
    {"gva2gpa", "`walk gN gva X` goes from a guest's virtual address to the frame"},
    {"gpa2hpa", "`walk gN gpa X` goes from a guest's physical address to the frame"},
    {"gpa2hva", "`walk gN gpa X` goes from a guest's physical address to the frame"},
    {"sendkey", "`type gN TEXT` types on a guest's keyboard"},
    {"info pic", "`devices gN` shows the devices of a guest"},
    {"info irq", "`devices gN` shows the devices of a guest"},
    {"info qtree", "`devices gN` shows the devices of a guest"},
    {"screendump", "`screen gN` shows the text on a guest's screen"},
    {"console", "`attach gN` talks to a guest's serial port"},
    {"savevm", "guests have no snapshots: `map gN save` keeps a map"},
    {"history", "the up arrow walks through the lines before"},
    {"info history", "the up arrow walks through the lines before"},
    {"clear", "^L clears the screen"},
    {"cls", "^L clears the screen"},
    {"info", "`help` lists what can be asked"},
    {"i", "`help` lists what can be asked"},
};

/* How many of the words that are given `words` takes, all of its own; 0 where they differ. */
static unsigned words_taken(const struct arguments *args, const char *words)
{
    for (unsigned i = 0; i < args->count; i++) {
        size_t n = strlen(args->word[i]);

        if (strncmp(words, args->word[i], n) != 0 || (words[n] != ' ' && words[n] != 0))
            return 0;
        if (words[n] == 0)
            return i + 1;
        words += n + 1;
    }
    return 0;
}

static bool is_guest(const struct arguments *args, unsigned i)
{
    struct complaint why;
    unsigned number;

    return i < args->count && parse_guest(args->word[i], &number, &why) == E_OK;
}

/* The words from `from` on, behind what is there; those with blanks in quotes. */
static void add_words(char text[ALIAS_TEXT], size_t used, const struct arguments *args,
                      unsigned from)
{
    for (unsigned i = from; i < args->count && used < ALIAS_TEXT; i++) {
        const char *quote = strchr(args->word[i], ' ') || !*args->word[i] ? "\"" : "";
        used +=
            format_buffer(text + used, ALIAS_TEXT - used, " %s%s%s", quote, args->word[i], quote);
    }
}

/* `ours` with the guest in the place of its N. */
static size_t put_guest(char text[ALIAS_TEXT], const char *ours, const char *guest)
{
    const char *n = strchr(ours, 'N');

    return format_buffer(text, ALIAS_TEXT, "%.*s%s%s", (int)(n - ours), ours, guest, n + 1);
}

/* gdb's and QEMU's x/NFU: how many bytes are N units, 4 where nothing is said, 0 where N is. False:
 * it is no such format. *form is its letter. */
static bool take_format(const char *format_text, uint64_t *bytes, char *form)
{
    uint64_t count = 0, unit = 4;
    bool counted;

    *form = 'x';
    if (*format_text++ != '/')
        return false;
    counted = *format_text >= '0' && *format_text <= '9';
    for (; *format_text >= '0' && *format_text <= '9' && count < 10000; format_text++)
        count = count * 10 + (unsigned)(*format_text - '0');
    for (; *format_text; format_text++) {
        switch (*format_text) {
        case 'b':
        case 'c':
            unit = 1;
            break;
        case 'h':
            unit = 2;
            break;
        case 'w':
            unit = 4;
            break;
        case 'g':
            unit = 8;
            break;
        default:
            if (!strchr("xduoisat", *format_text))
                return false;
            *form = *format_text;
        }
    }
    *bytes = (counted ? count : 1) * unit;
    return true;
}

/* x/8gx X, xp/8gx X, x /8gx X, p/x X. */
static enum alias examine(const struct arguments *args, char text[ALIAS_TEXT])
{
    const char *slash = strchr(args->word[0], '/');
    size_t n = slash ? (size_t)(slash - args->word[0]) : strlen(args->word[0]), used;
    bool physical = n == 2 && strncmp(args->word[0], "xp", 2) == 0;
    bool is_print = n == 1 && args->word[0][0] == 'p';
    unsigned next = 1;
    uint64_t bytes = 4;
    char form = 'x';

    if (!is_print && !physical && !(n == 1 && args->word[0][0] == 'x'))
        return ALIAS_NONE;
    if (!slash && args->count > 1 && args->word[1][0] == '/')
        slash = args->word[next++];
    if (slash && !take_format(slash, &bytes, &form))
        return ALIAS_NONE;
    if (is_print) {
        used = format_buffer(text, ALIAS_TEXT, "print");
        add_words(text, used, args, next);
        return ALIAS_RUNS;
    }
    if (form == 'i') {
        format_buffer(text, ALIAS_TEXT, "%s", BYTES);
        return ALIAS_NAMES;
    }
    if (strchr("duost", form) || bytes == 0) {
        format_buffer(text, ALIAS_TEXT, "%s", bytes == 0 ? NO_BYTES : FORMS);
        return ALIAS_NAMES;
    }
    if (is_guest(args, next))
        used = put_guest(text, physical ? "dump N gpa" : "dump N gva", args->word[next++]);
    else
        used = format_buffer(text, ALIAS_TEXT, "dump %s", physical ? "hpa" : "hva");
    /* Without its address `dump` says what is missing. */
    if (next == args->count)
        return ALIAS_RUNS;
    struct arguments address = *args;
    address.count = next + 1;
    add_words(text, used, &address, next);
    used = strlen(text);
    format_buffer(text + used, ALIAS_TEXT - used, " %lu", bytes);
    return ALIAS_RUNS;
}

enum alias alias_of(const struct arguments *args, char text[ALIAS_TEXT])
{
    const char *ours = NULL, *advice = NULL;
    unsigned taken = 0, advised = 0;
    bool of_guest = false;

    for (unsigned i = 0; i < ARRAY_SIZE(same); i++) {
        unsigned n = words_taken(args, same[i].words);
        bool guest = same[i].guest && is_guest(args, n);

        if (n <= taken || (!guest && !same[i].host))
            continue;
        taken = n;
        of_guest = guest;
        ours = guest ? same[i].guest : same[i].host;
    }
    for (unsigned i = 0; i < ARRAY_SIZE(others); i++) {
        unsigned n = words_taken(args, others[i].words);
        if (n <= advised)
            continue;
        advised = n;
        advice = others[i].advice;
    }
    if (ours && taken >= advised) {
        if (of_guest)
            add_words(text, put_guest(text, ours, args->word[taken]), args, taken + 1);
        else
            add_words(text, format_buffer(text, ALIAS_TEXT, "%s", ours), args, taken);
        return ALIAS_RUNS;
    }
    if (advice) {
        format_buffer(text, ALIAS_TEXT, "%s", advice);
        return ALIAS_NAMES;
    }
    return examine(args, text);
}
