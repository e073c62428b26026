/*
 * Who called whom in a guest, by its frame pointers. Code that keeps them has in RBP the address of
 *
 *     [RBP]          the caller's RBP
 *     [RBP + width]  where the caller goes on
 *
 * with a width of 8, 4 or 2 bytes, as its mode is. Where a guest keeps none, RBP holds anything,
 * and the chain ends at once; how it ended is said.
 */
#ifndef QUIRE_VM_BACKTRACE_H
#define QUIRE_VM_BACKTRACE_H

#include "vm/backend.h"

#define BACKTRACE_FRAMES 64

enum backtrace_end {
    BACKTRACE_OUTERMOST,  /* RBP or the return address is 0, as it begins */
    BACKTRACE_UNREADABLE, /* no memory at the frame pointer */
    BACKTRACE_DESCENDS,   /* the next frame lies not above: a loop, or no frame pointer */
    BACKTRACE_NO_CODE,    /* no memory at the return address */
    BACKTRACE_FULL,       /* BACKTRACE_FRAMES are there */
};

struct backtrace {
    struct {
        uint64_t at;    /* linear: the instruction that it is at, or goes on with */
        uint64_t frame; /* linear: its frame, where `framed` */
        bool framed;
    } frame[BACKTRACE_FRAMES];
    unsigned count; /* 1 at least: where it is */
    enum backtrace_end end;
    uint64_t end_at; /* the address that ended it */
};

/* The address of the next instruction by which tables and symbols know it. */
uint64_t linear_rip(const struct vcpu_state *state);

/* As the guest's memory is now; changes nothing. */
void backtrace_take(struct vcpu *vcpu, const struct vcpu_state *state, struct backtrace *out);

#define BACKTRACE_END 128
const char *backtrace_end_text(char buffer[BACKTRACE_END], const struct backtrace *trace);

#endif
