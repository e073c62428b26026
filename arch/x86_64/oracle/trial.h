/*
 * Flushes on several CPUs, tried: one CPU changes where a page leads, over and over, while others
 * read it; a frame that the page has left is overwritten as soon as the flush is over. Who reads
 * what stands there then has used a translation that should have been gone.
 *
 *   kernel   a page of the kernel's table: every CPU may hold it
 *   user     a page of a table that the readers load and leave
 *   guest    a page of a guest that runs on another CPU, and is not told that anything happens
 *   writers  all CPUs map, write, read and unmap pages of the kernel's table at the same time
 *
 * In the second and third half of the CPUs have nothing to do with the table, and must not be
 * disturbed. Everything is as it was afterwards. For the console: no guest runs meanwhile.
 */
#ifndef QUIRE_ARCH_ORACLE_TRIAL_H
#define QUIRE_ARCH_ORACLE_TRIAL_H

#include <stdint.h>

#include "vm/backend.h"

enum trial_space { TRIAL_KERNEL, TRIAL_USER, TRIAL_GUEST, TRIAL_WRITERS, TRIAL_SPACES };

const char *trial_space_name(enum trial_space space);

struct trial_counts {
    unsigned users;     /* CPUs that used the page, beside the one that changed it */
    uint64_t changes;   /* each with a flush */
    uint64_t reads;     /* by the users; of a guest: its exits */
    uint64_t loads;     /* how often they began to use the table */
    uint64_t asked;     /* CPUs that took part in a flush, all in all */
    uint64_t disturbed; /* of these, some that had not loaded the table */
    uint64_t stale;     /* reads that came to where the page no longer led */
    uint64_t ticks;     /* of the TSC, for one change with its flush */
};

/*
 * `changes` of each space; the guest's only with a backend. E_STATE with one CPU alone; E_HARDWARE
 * when a CPU used what was flushed, or was disturbed; E_NOMEM, or what the backend answers.
 */
int trial_run(const struct vm_backend *backend, uint64_t changes,
              struct trial_counts counts[TRIAL_SPACES]);

#endif
