/*
 * What happens at an exit: one function for each kind, and the words that guests end with.
 *
 * A handler either leaves the guest ready to be resumed (the instruction skipped, where it was
 * emulated) or ends it by guest_end(); vm/sched.c looks at guest->state afterwards.
 */
#ifndef QUIRE_VM_EXITS_H
#define QUIRE_VM_EXITS_H

#include "vm/guest.h"

/* Deals with one exit. Returns false when the guest gave up the rest of its slice. */
bool exit_dispatch(struct guest *guest, const struct vm_exit *exit);

void exit_memory(struct guest *guest, const struct vm_exit *exit);    /* vm/faults.c */
void exit_misconfig(struct guest *guest, const struct vm_exit *exit); /* vm/faults.c */
void exit_cpuid(struct guest *guest, const struct vm_exit *exit);     /* vm/cpuid.c */
void exit_msr(struct guest *guest, const struct vm_exit *exit);       /* vm/msr.c */
bool exit_hypercall(struct guest *guest, const struct vm_exit *exit); /* vm/hypercall.c; as above */

/*
 * Ends a guest: sets its state and its reason (one line, no newline). The resources follow when
 * the guest is off the CPU. guest_stop() does the same as GUEST_STOPPED and writes the full
 * report first: the exit, the registers, the backend's raw state.
 */
void guest_end(struct guest *guest, enum guest_state state, const char *reason, ...)
    __attribute__((format(printf, 3, 4)));
void guest_stop(struct guest *guest, const struct vm_exit *exit, const char *reason, ...)
    __attribute__((format(printf, 3, 4)));

/* The report that is being written: guest->report as a sink. report_begin() empties it;
 * report_log() sends it to the log line by line. */
struct report {
    struct sink sink;
    struct guest *guest;
    size_t length;
};
void report_begin(struct report *report, struct guest *guest);
void report_state(struct report *report, const struct vm_exit *exit); /* registers and raw state */
void report_log(const struct report *report);
void print_registers(struct sink *to, const struct vcpu_state *state);

/* Raises #GP(0) or #UD in the guest at the instruction that exited. */
void inject_gp(struct guest *guest);
void inject_ud(struct guest *guest);

/* Moves past the instruction that exited. */
void skip_instruction(struct guest *guest, const struct vm_exit *exit);

#endif
