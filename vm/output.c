/*
 * What a guest prints: kept byte by byte in its ring, and shown line by line in the log with the
 * guest's name in front. The ring has every byte; the log gets only what cannot disturb a terminal.
 */
#include "lib/log.h"
#include "vm/guest.h"

void guest_flush_line(struct guest *guest)
{
    if (guest->line_length == 0)
        return;
    log_plain("[g%u %s] %.*s", guest->number, guest->name, (int)guest->line_length, guest->line);
    guest->line_length = guest->line_shown = 0;
}

void guests_show_unfinished(uint64_t ticks)
{
    for (unsigned number = 1; number <= guest_count(); number++) {
        struct guest *guest = guest_by_number(number);

        if (guest->line_length == guest->line_shown ||
            guests_backend()->ticks() - guest->line_waited < ticks)
            continue;
        log_unfinished("[g%u %s] %.*s", number, guest->name, (int)guest->line_length, guest->line);
        guest->line_shown = guest->line_length;
    }
}

void guest_putc(struct guest *guest, char c)
{
    guest->output[guest->output_total++ % GUEST_OUTPUT] = c;
    if (c == '\n') {
        if (guest->line_length == 0)
            log_plain("[g%u %s]", guest->number, guest->name);
        guest_flush_line(guest);
        return;
    }
    if (c == '\r')
        return;
    if (guest->line_length == sizeof(guest->line))
        guest_flush_line(guest);
    if (c == '\t')
        c = ' ';
    else if (c < ' ' || c > '~')
        c = '.';
    if (guest->line_length == guest->line_shown)
        guest->line_waited = guests_backend()->ticks();
    guest->line[guest->line_length++] = c;
}
