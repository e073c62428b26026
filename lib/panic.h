/*
 * What code does when an invariant of the hypervisor itself is broken: stop, loudly.
 * The embedding program supplies panic(); the hypervisor's prints registers and a backtrace,
 * a hosted test's fails the test.
 */
#ifndef QUIRE_LIB_PANIC_H
#define QUIRE_LIB_PANIC_H

_Noreturn void panic(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* A broken invariant of ours, never a user's mistake (those get an error value). */
#define invariant(condition)                                                                       \
    ((condition) ? (void)0 : panic("%s:%d: broken invariant: %s", __FILE__, __LINE__, #condition))

#endif
