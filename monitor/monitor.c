/* The console's loop: keys, guests and scripts in turn. */
#include "monitor/monitor.h"

#include "arch/x86_64/cpu.h"
#include "arch/x86_64/cpus.h"
#include "arch/x86_64/idle.h"
#include "arch/x86_64/symbols.h"
#include "arch/x86_64/uart.h"
#include "lib/log.h"
#include "lib/string.h"
#include "monitor/commands.h"
#include "monitor/complete.h"
#include "monitor/registry.h"
#include "monitor/terminal.h"
#include "monitor/machine_audit.h"
#include "vm/guest.h"
#include "vm/sched.h"
#include "vm/symbols.h"

/* Keys taken between two rounds of the guests: enough for a long line at once, and a bound for a
 * sender that never falls silent. */
#define KEYS_A_ROUND 1024

/* Polls without a key after which the sender counts as silent: a few milliseconds, many times what
 * a byte takes at 115200 baud. The guests wait so long after a key, for the port itself would not
 * hold the rest of a line that comes all at once (a paste, a program that types) while they run. */
#define SILENT_POLLS 2000

#define SCRIPTS 8

static struct {
    struct terminal terminal;
    struct output_rows rows;
    bool counted;        /* the guests' verdicts have been summed up */
    uint64_t unfinished; /* so many ticks text without a newline waits for the rest of its line */

    struct {
        const char *name, *text;
        uint64_t size;
    } script[SCRIPTS];
    unsigned scripts;
} monitor;

struct terminal *monitor_terminal(void)
{
    return &monitor.terminal;
}

/* --- The loop -------------------------------------------------------------------------------- */

static const char *guest_name(unsigned index, char name[COMPLETION_TEXT])
{
    format_buffer(name, COMPLETION_TEXT, "g%u", index + 1);
    return index < guest_count() ? name : NULL;
}

static const char *cpu_name(unsigned index, char name[COMPLETION_TEXT])
{
    format_buffer(name, COMPLETION_TEXT, "cpu%u", index);
    return index < cpus_online() ? name : NULL;
}

static bool guest_symbol(unsigned number, uint64_t *at, char name[COMPLETION_TEXT])
{
    const struct guest *guest = guest_by_number(number);
    struct symbols symbols;
    struct symbol symbol;

    if (!guest || !symbols_of_guest(&symbols, guest) || !symbols_next(&symbols, at, &symbol))
        return false;
    format_buffer(name, COMPLETION_TEXT, "%.*s", (int)symbol.length, symbol.name);
    return true;
}

static const struct completion_source completion_source = {
    .command = command_name,
    .usage = command_usage,
    .words = command_words,
    .guest = guest_name,
    .cpu = cpu_name,
    .symbol = symbol_name,
    .guest_symbol = guest_symbol,
};

/* In columns that fit the terminal. In pieces: the line being typed comes back behind the last. */
static void show_candidates(const struct completions *found, struct sink *to)
{
    unsigned width = 0, columns = monitor.terminal.columns;

    for (unsigned i = 0; i < found->count; i++)
        if (strlen(found->word[i]) + 2 > width)
            width = (unsigned)strlen(found->word[i]) + 2;
    columns = columns > width ? columns / width : 1;
    for (unsigned i = 0; i < found->count; i++) {
        bool last = i + 1 == found->count || (i + 1) % columns == 0;
        if (last)
            format(to, "%s\n", found->word[i]);
        else
            format(to, "%-*s", (int)width, found->word[i]);
    }
    if (found->more)
        format(to, "... and %u more\n", found->more);
}

/* Types what all candidates for the word at the cursor share; shows them where that is nothing new.
 */
static void complete_line(struct line_editor *editor)
{
    static struct completions found;
    char line[LINE_SIZE], rest[COMPLETION_TEXT + 1];

    memcpy(line, editor->text, editor->cursor);
    line[editor->cursor] = 0;
    complete(&completion_source, line, &found);
    if (found.count == 0)
        return;
    size_t n = found.common - found.typed;
    memcpy(rest, found.word[0] + found.typed, n);
    if (found.count == 1 && found.word[0][found.common - 1] != '=')
        rest[n++] = ' ';
    rest[n] = 0;
    line_insert(editor, rest);
    if (n == 0)
        show_candidates(&found, &editor->around);
}

static void believe_terminal(struct terminal *terminal)
{
    unsigned rows = terminal->editor.terminal_is.rows;

    terminal->colour = terminal->editor.terminal_is.colour;
    terminal->pager.rows = rows >= PAGER_LEAST_ROWS ? rows : 0;
    terminal->pager.columns = terminal->editor.terminal_is.columns;
    terminal->columns = terminal->pager.columns ? terminal->pager.columns : LINE_COLUMNS;
    if (terminal->columns < LINE_LEAST_COLUMNS)
        terminal->columns = LINE_LEAST_COLUMNS;
}

static void begin_answer(struct output *out)
{
    pager_begin(&monitor.terminal.pager);
    output_init(out, &monitor.terminal.pager.sink);
    out->colour = monitor.terminal.colour;
    out->columns = monitor.terminal.columns;
    out->rows = &monitor.rows;
}

static void take_key(unsigned char key)
{
    struct terminal *terminal = &monitor.terminal;
    struct line_editor *editor = &terminal->editor;
    struct output out;

    if (terminal->attached) {
        terminal_key(terminal, key);
        return;
    }
    begin_answer(&out);
    switch (line_byte(editor, key)) {
    case LINE_PENDING:
        return;
    case LINE_TAB:
        complete_line(editor);
        return;
    case LINE_TERMINAL:
        believe_terminal(terminal);
        return;
    case LINE_READY:
        monitor_execute(&out, editor->text);
        break;
    case LINE_TOO_LONG:
        output_error(&out, "a line longer than %u characters: nothing was run; split it in two",
                     LINE_SIZE - 1);
        break;
    case LINE_CANCELLED:
        break;
    case LINE_CLOSED:
        output_note(&out, "There is nowhere to log out to: `quit` switches the machine off.");
        break;
    }
    if (!terminal->attached)
        line_begin(editor);
}

int command_stopped(void *ctx)
{
    const struct pager *pager = &monitor.terminal.pager;

    (void)ctx;
    return pager->stopped || (pager->rows != 0 && uart_getc() >= 0);
}

/* Takes what is being sent until the sender falls silent. Costs a single poll when nothing comes.
 */
static void take_keys(void)
{
    unsigned taken = 0;

    for (unsigned silent = 0; taken < KEYS_A_ROUND && silent < SILENT_POLLS; silent++) {
        int key = uart_getc();
        if (key >= 0) {
            take_key((unsigned char)key);
            taken++;
            silent = 0;
        } else if (taken == 0) {
            return;
        } else if (uart_is_queued()) {
            uart_attend();
        }
    }
}

/* What became of a guest, and what lets one go on that has not ended. */
static void log_result(const struct guest *guest)
{
    const char *state = guest_state_name(guest->state);
    unsigned n = guest->number;

    if (guest->state == GUEST_HALTED)
        log_line("g%u %s: %s; `kill g%u; start g%u` begins anew", n, guest->name, state, n, n);
    else if (!guest_ended(guest))
        log_line("g%u %s: %s; `start g%u` lets it run", n, guest->name, state, n);
    else
        log_line("g%u %s: %s, expected: %s%s%s", n, guest->name, state,
                 guest_state_name(guest->expected), guest->reason[0] ? "; " : "", guest->reason);
}

/* Says once, when no guest can run any more, what became of them. */
static void sum_up(void)
{
    unsigned count = guest_count(), ok = 0;

    monitor.counted = true;
    log_pass_on(true);
    guests_stop_others();
    machine_audit_log();
    guests_go_on();
    if (count == 0) {
        log_line("guests: none%s%s", guests_why_not() ? ": " : "",
                 guests_why_not() ? guests_why_not() : "");
        return;
    }
    for (unsigned i = 1; i <= count; i++) {
        const struct guest *guest = guest_by_number(i);
        ok += guest_ok(guest);
        if (!guest_ok(guest))
            log_result(guest);
    }
    log_line("guests: %u of %u as expected", ok, count);
}

/* Somebody at the console holds a guest: its verdict is still to come. */
static bool any_paused(void)
{
    for (unsigned i = 1; i <= guest_count(); i++)
        if (guest_by_number(i)->state == GUEST_PAUSED)
            return true;
    return false;
}

/* Text without a newline waits so long for the rest of its line: 0.2 s or less on a CPU of 1 GHz
 * and more, about as long in an emulator that does 20 million instructions a second. */
#define UNFINISHED_TICKS 200000000
#define UNFINISHED_INSTRUCTIONS 4000000

struct boot_facts boot_facts = {.cmdline = "", .loader = ""};

void monitor_init(void)
{
    struct terminal *terminal = &monitor.terminal;
    struct sink *line = &uart_queue_sink;

    monitor.unfinished = UNFINISHED_TICKS;
    if (tsc_counts_instructions()) {
        monitor.unfinished = UNFINISHED_INSTRUCTIONS;
        line = &uart_sink; /* a slice lasts hundreds of bytes there, and the port takes one */
    }
    monitor.counted = false;
    monitor.scripts = 0;
    terminal->attached = NULL;
    terminal->colour = false;
    terminal->columns = LINE_COLUMNS;
    line_init(&terminal->editor, line, MONITOR_PROMPT);
    pager_init(&terminal->pager, &terminal->editor.plain, uart_getc);
    arguments_set_symbols(symbol_address);
    log_attach(&terminal->editor.around);
    log_set_room(uart_has_room);
    guests_set_between(uart_attend);
}

int monitor_script(const char *name, const char *text, uint64_t size)
{
    if (monitor.scripts == SCRIPTS)
        return E_FULL;
    monitor.script[monitor.scripts].name = name;
    monitor.script[monitor.scripts].text = text;
    monitor.script[monitor.scripts++].size = size;
    return E_OK;
}

/* One line of a script, as if it had been typed. */
static void run_script_line(const char *text, size_t n)
{
    char line[LINE_SIZE];
    struct output out;

    while (n && (text[n - 1] == '\r' || text[n - 1] == ' '))
        n--;
    while (n && *text == ' ') {
        text++;
        n--;
    }
    if (n == 0 || *text == '#')
        return;
    begin_answer(&out);
    if (n >= sizeof(line)) {
        output_error(&out, "a line longer than %u characters in a script: it was not run",
                     LINE_SIZE - 1);
        return;
    }
    memcpy(line, text, n);
    line[n] = 0;
    for (size_t i = 0; i < n; i++)
        if (line[i] < 0x20 || line[i] == 0x7f)
            line[i] = '?';
    format(&monitor.terminal.editor.plain, MONITOR_PROMPT "%s\n", line);
    monitor_execute(&out, line);
}

static void run_scripts(void)
{
    for (unsigned i = 0; i < monitor.scripts; i++) {
        const char *text = monitor.script[i].text, *end = text + monitor.script[i].size;

        log_line("script %s", monitor.script[i].name);
        while (text < end) {
            const char *line = text;
            while (text < end && *text != '\n' && *text)
                text++;
            run_script_line(line, (size_t)(text - line));
            text++;
        }
    }
}

struct silence {
    uint64_t printed, since; /* bytes by all guests, unchanged since that tick */
    bool told;
    unsigned hints;
};

unsigned monitor_round(void)
{
    unsigned left = guests_round();

    log_pass_on(false);
    /* When nobody runs, nothing follows. */
    guests_show_unfinished(left ? monitor.unfinished : 0);
    return left;
}

/* So much longer than that without a byte from any guest: they have come to where they stay. */
#define SILENCES 50

#define HINTS 3

/* The prompt comes when every guest has ended, or with the first key. Guests that have printed and
 * fall silent may wait for somebody, and so says this, a few times. */
static void hint_when_silent(struct silence *silence)
{
    uint64_t printed = 0, now = rdtsc();

    for (unsigned number = 1; number <= guest_count(); number++)
        printed += guest_by_number(number)->output_total;
    if (printed != silence->printed || silence->since == 0) {
        silence->printed = printed;
        silence->since = now;
        silence->told = printed == 0;
    } else if (!silence->told && silence->hints < HINTS &&
               now - silence->since > SILENCES * monitor.unfinished) {
        log_line("guests run on; Enter brings the prompt, and there `attach g1` a guest's console");
        silence->told = true;
        silence->hints++;
    }
}

_Noreturn void monitor_run(void)
{
    struct silence silence = {0};
    int key;

    run_scripts();
    for (;;) {
        key = uart_getc();
        if (key >= 0 || monitor_round() == 0)
            break;
        hint_when_silent(&silence);
    }
    if (key < 0)
        sum_up();
    if (!monitor.terminal.attached)
        line_begin(&monitor.terminal.editor);
    if (key >= 0)
        take_key((unsigned char)key);
    for (;;) {
        take_keys();
        unsigned left = monitor_round();
        terminal_show(&monitor.terminal);
        if (left > 0 || uart_is_queued())
            continue;
        if (!monitor.counted && !any_paused())
            sum_up();
        guests_leave();
        cpu_idle();
        guests_enter();
    }
}
