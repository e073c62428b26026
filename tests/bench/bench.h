/*
 * Measuring: many runs, each beside a bound that is measured in the same run, in turn, so that a
 * machine whose speed drifts changes both alike; of the runs, those count that were disturbed least
 * by what else the machine does (as far as it shares this core: who takes up the memory's bandwidth
 * is not seen). Figures are medians: ratios first, nanoseconds second.
 */
#ifndef QUIRE_TESTS_BENCH_BENCH_H
#define QUIRE_TESTS_BENCH_BENCH_H

#include <stdint.h>

/* One timed run: does its work `*units` times and returns nanoseconds for all of it. What it sets
 * up or tears down is outside the time. */
typedef double (*bench_fn)(void *ctx, uint64_t *units);

/* Nanoseconds since some start, from the monotonic clock. */
double bench_now(void);

/* Runs both in turn and prints a row: the median cost of a unit of each, the median of their
 * ratios, the limit and the verdict. With limit 0 there is none: a row to compare others with. */
void bench_row(const char *name, const char *bound_name, bench_fn subject, bench_fn bound,
               void *ctx, double limit);

/* Pins this process to the CPU that is disturbed least and prints what machine this is. `filter`
 * (may be NULL): only rows whose name contains it are run. Returns the part that this process is,
 * NULL where a user started it. */
const char *bench_start(const char *title, const char *filter);

/* Has the calling thread run on this CPU, or ends the program. */
void bench_pin(unsigned cpu);

/* Runs the rows of a part in a program of its own, this one started anew on the same CPU: its
 * memory, addresses and predictors are those that no other part has used. */
void bench_part(const char *part);

/* Returns the process's exit status: 0 also when a row missed its limit (a measurement is no test).
 */
int bench_end(void);

/* Keeps the compiler from dropping a value or reordering around it. */
#define bench_keep(value) __asm__ volatile("" : : "r"(value) : "memory")

#endif
