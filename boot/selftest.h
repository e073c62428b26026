/*
 * Faults on purpose, so that a test of the whole machine can see what the hypervisor makes of them.
 */
#ifndef QUIRE_BOOT_SELFTEST_H
#define QUIRE_BOOT_SELFTEST_H

#include <stdbool.h>

/*
 * Commits the fault that the kernel command line's `selftest=NAME` asks for and does not come back;
 * returns, with a line in the log, when there is none of that name.
 *   pf     a write to an address where nothing is mapped
 *   wp     a write to the hypervisor's own code
 *   nx     a jump into data
 *   ud     an undefined instruction
 *   df     a page fault whose stack cannot be written to
 *   stack  calls without end, into the guard page
 *   nest   a fault in the middle of a report
 *   panic  a broken invariant
 * Those of selftest_of_cpus(), selftest_of_guests() and selftest_has_lost_cpu() are passed over.
 */
void selftest(const char *name);

/*
 * Likewise, once all CPUs run:
 *   deaf   no CPU answers when a flush wants it to
 *   second a broken invariant, on CPU 1
 */
void selftest_of_cpus(const char *name);

/*
 * Likewise, while guests run on all CPUs: what these are to do between two rounds, `usual` if there
 * is nothing of that name.
 *   midst  a broken invariant, on CPU 1
 *   mute   CPU 1 takes no notice of an NMI
 */
typedef bool (*idle_work_fn)(void);
idle_work_fn selftest_of_guests(const char *name, idle_work_fn usual);

/* `lost`: whether one CPU more is to be started than there are. */
bool selftest_has_lost_cpu(const char *name);

#endif
