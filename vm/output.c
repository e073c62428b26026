/*
 * What a guest prints: kept byte by byte in its ring, which costs the same whatever the bytes are,
 * and shown line by line in the log with the guest's name in front, between slices, as fast as the
 * log's line takes it. The ring has every byte; the log gets only what cannot disturb a terminal.
 *
 *     guest_putc() --> ring --> guests_show_output() --> log --> serial line
 *
 * A guest that is faster loses what its ring lost, and the log says how much that was.
 */
#include "lib/log.h"
#include "vm/guest.h"

/* The part of a slice that the log's lines may take after each slice. */
#define SHOW_TICKS (SLICE_TICKS / 8)

/* Bytes that are looked at for one line, most of which may be such as make none. */
#define SHOW_BYTES 512

/* Lines between two that say how much was dropped. */
#define TELL_LINES 16

/* The transmitter of a guest's serial port waits while so much is on its way. */
#define OUTPUT_AHEAD (GUEST_OUTPUT / 2)

void guest_putc(struct guest *guest, char c)
{
    guest->output[guest->output_total++ % GUEST_OUTPUT] = c;
}

bool guest_output_room(const struct guest *guest)
{
    uint64_t logged = guest->output_logged, read = guest->output_read;

    return guest->output_total - (read < logged ? read : logged) < OUTPUT_AHEAD;
}

void guest_output_read(struct guest *guest, uint64_t position)
{
    bool was_full = !guest_output_room(guest);

    guest->output_read = position;
    if (was_full && guest_output_room(guest))
        serial_room(guest);
}

/* ---- Lines ---------------------------------------------------------------------------------- */

static void log_printed(struct guest *guest)
{
    if (guest->tell_after != 0)
        guest->tell_after--;
    if (guest->line_length == 0)
        log_plain("[g%u %s]", guest->number, guest->name);
    else
        log_plain("[g%u %s] %.*s", guest->number, guest->name, (int)guest->line_length,
                  guest->line);
    guest->line_length = guest->line_shown = 0;
}

/* True: a line was logged. */
static bool add_to_line(struct guest *guest, char c)
{
    bool logged = false;

    if (c == '\n') {
        log_printed(guest);
        return true;
    }
    if (c == '\r')
        return false;
    if (guest->line_length == sizeof(guest->line)) {
        log_printed(guest);
        logged = true;
    }
    if (c == '\t')
        c = ' ';
    else if (c < ' ' || c > '~')
        c = '.';
    if (guest->line_length == guest->line_shown)
        guest->line_waited = guests_backend()->ticks();
    guest->line[guest->line_length++] = c;
    return logged;
}

static void tell_dropped(struct guest *guest)
{
    if (guest->line_length != 0)
        log_printed(guest);
    log_guest("g%u %s: %lu bytes of its output were dropped here, it prints too fast; `output g%u` "
              "has the newest",
              guest->number, guest->name, guest->output_untold, guest->number);
    guest->output_untold = 0;
    guest->tell_after = TELL_LINES;
}

/* Goes on behind what the ring has lost. */
static void skip_lost(struct guest *guest)
{
    uint64_t behind = guest->output_total - guest->output_logged;

    if (behind <= GUEST_OUTPUT)
        return;
    guest->output_logged += behind - GUEST_OUTPUT;
    guest->output_dropped += behind - GUEST_OUTPUT;
    guest->output_untold += behind - GUEST_OUTPUT;
}

/* One line, if there is one, or a part of it. False: there was nothing. */
static bool show_line(struct guest *guest)
{
    uint64_t before = guest->output_logged;
    bool was_full = !guest_output_room(guest), logged = false;

    skip_lost(guest);
    if (guest->output_untold != 0 && guest->tell_after == 0)
        tell_dropped(guest);
    for (unsigned i = 0; i < SHOW_BYTES && !logged && guest->output_logged < guest->output_total;
         i++)
        logged = add_to_line(guest, guest->output[guest->output_logged++ % GUEST_OUTPUT]);
    if (guest->output_untold != 0 && guest->output_logged == guest->output_total)
        tell_dropped(guest);
    if (was_full && guest_output_room(guest))
        serial_room(guest);
    return guest->output_logged != before;
}

/* ---- All guests ----------------------------------------------------------------------------- */

void guests_show_output(void)
{
    static unsigned last; /* whose line it was */
    unsigned count = guest_count(), idle = 0;

    if (!guests_backend())
        return; /* none of them has ever run */
    uint64_t start = guests_backend()->ticks(), before = start;

    while (idle < count && before - start < SHOW_TICKS && log_has_room()) {
        struct guest *guest = guest_by_number(last % count + 1);

        last = guest->number;
        if (!show_line(guest)) {
            idle++;
            continue;
        }
        idle = 0;
        uint64_t now = guests_backend()->ticks();
        guest->ticks += now - before;
        share_owe(&guest->cpu[0].share, now - before);
        before = now;
    }
}

void guest_flush_output(struct guest *guest)
{
    while (show_line(guest))
        ;
    if (guest->output_untold != 0)
        tell_dropped(guest);
    if (guest->line_length != 0)
        log_printed(guest);
}

void guests_show_unfinished(uint64_t ticks)
{
    guests_show_output();
    for (unsigned number = 1; number <= guest_count(); number++) {
        struct guest *guest = guest_by_number(number);

        if (guest->line_length == guest->line_shown ||
            guests_backend()->ticks() - guest->line_waited < ticks)
            continue;
        log_unfinished("[g%u %s] %.*s", number, guest->name, (int)guest->line_length, guest->line);
        guest->line_shown = guest->line_length;
    }
}
