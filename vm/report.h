/*
 * How a guest ends: its state, its reason, and the report that a stopped guest leaves.
 */
#ifndef QUIRE_VM_REPORT_H
#define QUIRE_VM_REPORT_H

#include "vm/guest.h"

/*
 * Ends a guest: sets its state and its reason (one line, no newline). The resources follow when
 * the guest is off the CPU. guest_stop() does the same as GUEST_STOPPED and writes the full
 * report first: the exit, the registers, the backend's raw state.
 */
void guest_end(struct guest *guest, enum guest_state state, const char *reason, ...)
    __attribute__((format(printf, 3, 4)));
void guest_stop(struct guest *guest, const struct vm_exit *exit, const char *reason, ...)
    __attribute__((format(printf, 3, 4)));

/* Pauses a guest that cannot go on just now; the reason says what would let it. */
void guest_hold(struct guest *guest, const char *reason, ...) __attribute__((format(printf, 2, 3)));

/* The report that is being written: guest->report as a sink. report_begin() empties it;
 * report_log() sends it to the log line by line: its first so many lines, all of them unless
 * report_set_logged() was called. The whole of it stays with the guest. */
struct report {
    struct sink sink;
    struct guest *guest;
    size_t length;
};
void report_begin(struct report *report, struct guest *guest);
void report_state(struct report *report, const struct vm_exit *exit); /* registers and raw state */
void report_log(const struct report *report);
void report_set_logged(uint64_t lines);

#endif
