/*
 * Attaching to a guest's serial port.
 */
#include "monitor/terminal.h"

#include "arch/x86_64/uart.h"
#include "lib/list.h"
#include "lib/log.h"
#include "lib/string.h"
#include "vm/guest.h"

static void put(struct terminal *terminal, const char *bytes, size_t n)
{
    terminal->editor.terminal->write(terminal->editor.terminal, bytes, n);
}

/* One byte of a guest's, which must not steer the terminal: what is no text and does not just move
 * the cursor back appears as \xNN. */
static void put_guest_byte(struct terminal *terminal, char byte)
{
    unsigned char c = (unsigned char)byte;

    if (c == '\n' || c == '\r' || c == '\b' || c == '\t' || (c >= 0x20 && c < 0x7f))
        put(terminal, &byte, 1);
    else if (c != 0 && c != '\a')
        format(terminal->editor.terminal, "\\x%02x", c);
    terminal->mid_line = c != '\n';
}

static void fresh_row(struct terminal *terminal)
{
    if (terminal->mid_line)
        put(terminal, "\n", 1);
    terminal->mid_line = false;
}

/* The log, but for the lines that only repeat what the guest has printed. */
static void write_log(struct sink *sink, const char *bytes, size_t n)
{
    struct terminal *terminal = container_of(sink, struct terminal, log);
    char tag[GUEST_NAME + 16];
    size_t length = format_buffer(tag, sizeof(tag), "[g%u %s] ", terminal->attached->number,
                                  terminal->attached->name);

    if (n >= length && memcmp(bytes, tag, length) == 0)
        return;
    fresh_row(terminal);
    put(terminal, bytes, n - 1);
    put(terminal, "\n", 1);
}

/* Where the line that the guest is in began, as far as its ring still holds it. */
static uint64_t line_start(const struct guest *guest)
{
    uint64_t at = guest->output_total;
    uint64_t first = at > GUEST_OUTPUT ? at - GUEST_OUTPUT : 0;

    while (at > first && guest->output[(at - 1) % GUEST_OUTPUT] != '\n')
        at--;
    return at;
}

void terminal_attach(struct terminal *terminal, struct guest *guest)
{
    terminal->attached = guest;
    terminal->shown = line_start(guest);
    guest_output_read(guest, terminal->shown);
    terminal->mid_line = false;
    terminal->log.write = write_log;
    log_attach(&terminal->log);
}

static void let_go(struct terminal *terminal, const char *why)
{
    fresh_row(terminal);
    format(terminal->editor.terminal, "g%u %s: %s\n", terminal->attached->number,
           terminal->attached->name, why);
    guest_output_read(terminal->attached, UINT64_MAX);
    terminal->attached = NULL;
    log_attach(&terminal->editor.around);
    line_begin(&terminal->editor);
}

void terminal_key(struct terminal *terminal, unsigned char key)
{
    char byte = (char)key;

    if (key == TERMINAL_LEAVE)
        let_go(terminal, "detached");
    else if (guest_input(terminal->attached, &byte, 1) == 0)
        put(terminal, "\a", 1); /* it does not read, and its port is full */
}

/* What a guest prints by other ways than its serial port cannot wait for the line. */
static void skip_lost(struct terminal *terminal, uint64_t lost)
{
    if (terminal->mid_line)
        put(terminal, "\n", 1);
    format(terminal->editor.terminal, "... %lu bytes of g%u's output were dropped ...\n", lost,
           terminal->attached->number);
    terminal->mid_line = false;
    terminal->shown += lost;
}

void terminal_show(struct terminal *terminal)
{
    struct guest *guest = terminal->attached;

    if (!guest)
        return;
    uint64_t total = guest->output_total;
    if (total - terminal->shown > GUEST_OUTPUT)
        skip_lost(terminal, total - terminal->shown - GUEST_OUTPUT);
    while (terminal->shown < total && (guest_ended(guest) || uart_has_room()))
        put_guest_byte(terminal, guest->output[terminal->shown++ % GUEST_OUTPUT]);
    guest_output_read(guest, terminal->shown);
    if (guest_ended(guest))
        let_go(terminal, "it has ended, and so detached");
}
