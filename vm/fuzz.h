/*
 * Fuzzing from a snapshot: each round sends the guest back to it, puts an input into its memory,
 * and lets it run until it says that it has dealt with that (QUIRE_HC_DONE), until it is about to
 * execute an instruction that was named, until it crashes, or until its time is over. Where it
 * stands at that instruction in the snapshot, it executes it first. Inputs are made from what was
 * there when the snapshot was taken, by a seed and the number of the round alone: each can be had
 * again.
 */
#ifndef QUIRE_VM_FUZZ_H
#define QUIRE_VM_FUZZ_H

#include "vm/guest.h"
#include "vm/snapshot.h"

struct fuzz {
    gpa_t at;
    unsigned size; /* of an input: 1 .. FUZZ_INPUT */
    uint64_t rounds, seed;
    uint64_t ticks; /* of the clock that a round may take */
    struct vm_until until;
};

struct fuzz_result {
    uint64_t rounds; /* done */
    uint64_t done, halted, hung;
    uint64_t pages;                    /* put back by all resets */
    uint64_t reset_ticks, round_ticks; /* of all resets; of all rounds with theirs */
    bool crashed;                      /* guest->snapshot->crash has it */
    bool stopped;                      /* `poll` said so; a round that it cut short is none */
};

/*
 * Until the rounds are done, or the first crash: the guest ended otherwise than with a pass. Takes
 * a snapshot if there is none; leaves the guest there, paused. `poll` (may be NULL) is asked
 * between rounds, and after each slice of one, whether to go on. E_STATE: it has ended. E_INVAL:
 * sizes. E_RANGE: no memory there. E_NOMEM, E_QUOTA: as guest_snapshot() and guest_back(), or in a
 * round.
 */
int fuzz_run(struct guest *guest, const struct fuzz *fuzz, int (*poll)(void *ctx), void *ctx,
             struct fuzz_result *result);

/* Runs the crash that was kept once more. E_NOENT: there is none. *same: it ended at the same
 * instruction, for the same reason. The guest stays there, held at its end. */
int fuzz_replay(struct guest *guest, const struct fuzz *fuzz, bool *same);

#endif
