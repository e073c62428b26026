/* See vm/reset.h. */
#include "vm/reset.h"

#include "lib/error.h"
#include "lib/log.h"
#include "vm/report.h"

void guest_reset(struct guest *guest, const char *way)
{
    if (guest_ended(guest))
        return;
    guest_end(guest, GUEST_STOPPED, "the guest asked for a reset of its machine (%s)", way);
    guest->was_reset = true;
}

void guest_power_off(struct guest *guest, const char *way)
{
    if (guest_ended(guest))
        return;
    guest_end(guest, GUEST_PASSED, "powered off by %s", way);
    log_guest("g%u %s: powered off by %s", guest->number, guest->name, way);
}

void guest_restart(struct guest *guest)
{
    unsigned restarts = guest->restarts;
    int error;

    if (!guest->was_reset || guest->options.reset != RESET_RESTART)
        return;
    if (restarts == RESET_RESTARTS) {
        log_guest("g%u %s: restarted %u times; it stays stopped until `start g%u`", guest->number,
                  guest->name, restarts, guest->number);
        return;
    }
    log_guest("g%u %s: restarts (%u of %u)", guest->number, guest->name, restarts + 1,
              RESET_RESTARTS);
    error = guest_start(guest);
    guest->restarts = restarts + 1;
    if (error != E_OK)
        log_guest("g%u %s: cannot be made anew: %s", guest->number, guest->name,
                  guest->reason[0] != '\0' ? guest->reason : error_text(error));
}
