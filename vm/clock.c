/* See vm/clock.h. */
#include "vm/clock.h"

#include "vm/cpuid.h"
#include "vm/guest.h"

uint64_t guest_clock_at(const struct guest *guest, uint64_t ticks)
{
    return guest->clock.stopped ? guest->clock.at : ticks + guest->clock.offset;
}

uint64_t guest_now(const struct guest *guest)
{
    return guest_clock_at(guest, guests_backend()->ticks());
}

void guest_clock_reset(struct guest *guest)
{
    guest->clock = (struct guest_clock){.stopped = true};
}

void guest_clock_go(struct guest *guest)
{
    if (guest->clock.stopped) {
        guest->clock.stopped = false;
        guest->clock.offset = guest->clock.at - guests_backend()->ticks();
        for (unsigned i = 0; i < guest->cpus; i++)
            guest->cpu[i].clock_told = false;
    }
    if (!guest_at(guest)->clock_told)
        guests_backend()->set_clock(guest->vcpu, guest->clock.offset);
    guest_at(guest)->clock_told = true;
}

void guest_clock_passed(struct guest *guest)
{
    if (!guest->clock.stopped)
        return;
    uint64_t now = guests_backend()->ticks() + guest->clock.offset;

    if (now > guest->clock.at)
        guest->clock.at = now;
}

void guest_clock_stop(struct guest *guest)
{
    guest->clock.at = guest_now(guest);
    guest->clock.stopped = true;
}

#define TSC_HZ_DEFAULT (UINT64_C(1193182) * 1024)
#define TSC_HZ_MAX (UINT64_C(1) << 40)

uint64_t clock_tsc_hz(void)
{
    uint64_t hz = cpuid_tsc_hz(guests_backend()->cpuid);

    return hz != 0 && hz < TSC_HZ_MAX ? hz : TSC_HZ_DEFAULT;
}

static struct {
    uint64_t seconds, ticks;
} known_date;

void clock_set_date(uint64_t seconds, uint64_t ticks)
{
    known_date.seconds = seconds;
    known_date.ticks = ticks;
}

uint64_t clock_date(uint64_t ticks, uint64_t tsc_hz)
{
    return known_date.seconds + (ticks - known_date.ticks) / tsc_hz;
}
