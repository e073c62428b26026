/* See vm/clock.h. */
#include "vm/clock.h"

#include "vm/cpuid.h"
#include "vm/guest.h"

#define HZ_DEFAULT (PIT_HZ * 1024)
#define HZ_MAX (UINT64_C(1) << 40)

uint64_t clock_hz(void)
{
    uint64_t hz = cpuid_tsc_hz(guests_backend()->cpuid);

    return hz != 0 && hz < HZ_MAX ? hz : HZ_DEFAULT;
}

/* Whole seconds apart from the rest, so that nothing overflows on the way. */
uint64_t clock_counts(uint64_t ticks, uint64_t hz, uint64_t rate)
{
    return ticks / hz * rate + ticks % hz * rate / hz;
}

uint64_t clock_ticks(uint64_t counts, uint64_t hz, uint64_t rate)
{
    return counts / rate * hz + (counts % rate * hz + rate - 1) / rate;
}

static struct {
    uint64_t seconds, ticks;
} known_date;

void clock_set_date(uint64_t seconds, uint64_t ticks)
{
    known_date.seconds = seconds;
    known_date.ticks = ticks;
}

uint64_t clock_date(uint64_t ticks, uint64_t hz)
{
    return known_date.seconds + (ticks - known_date.ticks) / hz;
}
