/*
 * Time for a guest's devices: a PC's oscillators against the clock that the guest reads as its TSC,
 * whose rate is what CPUID tells. Where CPUID tells none, 1024 ticks are one count of the PIT, so
 * that a guest that measures finds 1.2218 GHz.
 */
#ifndef QUIRE_VM_CLOCK_H
#define QUIRE_VM_CLOCK_H

#include <stdint.h>

#define PIT_HZ UINT64_C(1193182)

/* The rate of the guests' clock in ticks a second, below 2^40. */
uint64_t clock_hz(void);

/* How many whole counts of an oscillator of `rate` Hz (below 2^23) lie in so many ticks of a clock
 * of `hz`. */
uint64_t clock_counts(uint64_t ticks, uint64_t hz, uint64_t rate);

/* Ticks until so many counts are over, rounded up. */
uint64_t clock_ticks(uint64_t counts, uint64_t hz, uint64_t rate);

/* What date it was at some tick, in seconds since midnight of 1 January 2000; to be told before
 * there are guests, else it is taken to have been that midnight at tick 0. */
void clock_set_date(uint64_t seconds, uint64_t ticks);
uint64_t clock_date(uint64_t ticks, uint64_t hz);

#endif
