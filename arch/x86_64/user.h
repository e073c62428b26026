/*
 * Ring-3 programs (guests/user_abi.h): each runs on its own table until it exits, faults, or has
 * used up its time, and then gives everything back.
 *
 * System calls come through an interrupt gate, not by SYSCALL: the CPU itself changes the stack, so
 * there is no moment at which ring 0 runs on a stack of the program's choosing, and no MSR that a
 * guest could share with the host takes part.
 */
#ifndef QUIRE_ARCH_USER_H
#define QUIRE_ARCH_USER_H

#include <stdbool.h>
#include <stdint.h>

#define USER_NAME 24
#define USER_REASON 160

/* TSC ticks that a program may take from its first instruction to its end, system calls included.
 * Checked whenever the local APIC's timer interrupts it. */
#define USER_BUDGET (UINT64_C(1) << 28)

struct user_result {
    bool exited; /* by its own system call, with `code`; else `reason` says why not */
    int64_t code;
    char reason[USER_REASON]; /* "refused: ..." or "stopped: ..." without that word */
    uint64_t calls;           /* system calls made */
    uint64_t ticks;           /* TSC ticks from entry to end */
    uint64_t frames;          /* it held at most, tables included */
    uint64_t frames_kept;     /* still under its owner number after its end: 0 */
};

/*
 * Loads `image` (a static ELF64 of `size` bytes) and runs it to its end on this CPU. What it prints
 * appears in the log as "[user NAME] line"; a program that is stopped gets a full report there; the
 * last lines say how it ended and that its frames came back.
 * E_OK when it ran, however it ended; else the error that refused it, with `reason`. E_STATE when
 * this CPU runs one already, E_FULL when this CPU's number is beyond the owners there are for
 * programs.
 */
int user_run(const uint8_t *image, uint64_t size, const char *name, struct user_result *result);

/* The same for a boot module "user:NAME ...": takes the name from its command line. */
void user_run_module(const uint8_t *image, uint64_t size, const char *cmdline);

#endif
