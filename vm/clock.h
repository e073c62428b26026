/*
 * The clocks of a guest's devices: each counts at a rate of its own against the clock that the
 * guest reads as its TSC.
 */
#ifndef QUIRE_VM_CLOCK_H
#define QUIRE_VM_CLOCK_H

#include <stdint.h>

/* What CPUID tells of the TSC's rate; where it tells none, 1024 ticks for each count of the 8254,
 * so that a guest that measures finds 1.2218 GHz. */
uint64_t clock_tsc_hz(void);

/* How many counts at `rate` Hz so many ticks are, rounded down; how many ticks so many counts take,
 * rounded up. For rates below 2^24 and a TSC below 2^40 Hz. */
static inline uint64_t clock_counts(uint64_t ticks, uint64_t tsc_hz, uint64_t rate)
{
    uint64_t seconds = ticks / tsc_hz;

    return seconds * rate + ticks % tsc_hz * rate / tsc_hz;
}

static inline uint64_t clock_ticks(uint64_t counts, uint64_t tsc_hz, uint64_t rate)
{
    uint64_t seconds = counts / rate;

    return seconds * tsc_hz + (counts % rate * tsc_hz + rate - 1) / rate;
}

/* What date it was at some tick, in seconds since midnight of 1 January 2000; to be told before
 * there are guests, else it is taken to have been that midnight at tick 0. */
void clock_set_date(uint64_t seconds, uint64_t ticks);
uint64_t clock_date(uint64_t ticks, uint64_t tsc_hz);

#endif
