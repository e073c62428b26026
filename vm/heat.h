/*
 * The working set of a guest: which pages it reaches, in how many of several samples. The CPU sets
 * A in the leaf that it goes by; between two samples the guest runs for a while, and then A is
 * collected and cleared. A large page counts whole. What the CPU reads of the guest's own page
 * tables counts, too. Tracking of writes (vm/dirty.h) stands on D, and is not disturbed.
 */
#ifndef QUIRE_VM_HEAT_H
#define QUIRE_VM_HEAT_H

#include "vm/guest.h"

#define HEAT_SAMPLES 16

struct heat {
    unsigned taken;                    /* samples */
    struct page_set set[HEAT_SAMPLES]; /* what was reached in each of them; frames are the host's */
};

/* Has the guest run alone for `ticks` of the clock at a time, `samples` times, and notes what it
 * reaches in each. Fewer when it ends or `poll` (NULL: nobody) says so. To be ended by heat_end().
 * E_STATE: it does not run; E_RANGE: samples; E_UNSUPPORTED: this CPU's table keeps no A; E_NOMEM,
 * E_QUOTA: then there is nothing to end. */
int heat_take(struct guest *guest, unsigned samples, uint64_t ticks, int (*poll)(void *ctx),
              void *ctx, struct heat *out);
void heat_end(struct heat *heat);

/* The lowest run of neighbours, at or above `from`, that were reached in equally many samples:
 * *times. *last is the last byte. */
bool heat_run(const struct heat *heat, uint64_t from, uint64_t *first, uint64_t *last,
              unsigned *times);

#endif
