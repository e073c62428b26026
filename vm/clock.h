/*
 * Time as a guest has it. Its TSC is the machine's clock with an offset: it begins at 0 when the
 * guest first gets the CPU, and stands still while the guest is paused, so that the guest sees no
 * gap. The clocks of its devices each count at a rate of their own against that.
 */
#ifndef QUIRE_VM_CLOCK_H
#define QUIRE_VM_CLOCK_H

#include <stdbool.h>
#include <stdint.h>

struct guest;

/* All zeroes: the machine's own clock. */
struct guest_clock {
    uint64_t offset; /* what is added to the machine's clock, modulo 2^64 */
    bool stopped;
    uint64_t at; /* where it stands, when it is stopped */
};

/* The guest's TSC now; and at some reading of the machine's clock. */
uint64_t guest_now(const struct guest *guest);
uint64_t guest_clock_at(const struct guest *guest, uint64_t ticks);

/* To 0, where it stands still until guest_clock_go(). */
void guest_clock_reset(struct guest *guest);
/* Goes on from where it stands, for the vCPU that is dealt with; stands still. Without effect on
 * one that does already. Only a guest with a vCPU has a clock that goes. */
void guest_clock_go(struct guest *guest);
void guest_clock_stop(struct guest *guest);
/* One of its vCPUs has come out of guest code, where it has seen the clock go on, if that was
 * stopped meanwhile: it does not go back. */
void guest_clock_passed(struct guest *guest);

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
