/* What trial.c, trial_guest.c and trial_writers.c share. */
#ifndef QUIRE_ARCH_ORACLE_TRIAL_INTERNAL_H
#define QUIRE_ARCH_ORACLE_TRIAL_INTERNAL_H

#include "arch/x86_64/cpus.h"
#include "arch/x86_64/oracle/trial.h"
#include "lib/bits.h"
#include "mm/paging/table.h"

/* A stretch of the kernel's table that no window has: as the oracle's own. */
#define TRIAL_KERNEL_AT (DIRECT_BASE + DIRECT_SIZE + GiB)

/* Frames that the page leads to in turn: one that it has left stays overwritten for so many
 * changes. What is written there; what is right has its upper bits clear. */
#define TRIAL_FRAMES 8u
#define TRIAL_ORDER 3
#define TRIAL_GONE 0xbeefu
#define TRIAL_VALUE(change) ((change)&0x7fff)

/* One CPU that uses the page. */
struct trial_user {
    struct trial *trial;
    unsigned cpu;
    bool begun; /* it has read once */
    uint64_t reads, loads, stale;
    int error;
};

struct trial {
    const struct vm_backend *backend;
    struct table *table;
    uint64_t at;  /* the page's input address */
    hpa_t frames; /* 8 of them */
    struct attrs attrs;
    uint64_t changes;
    bool over; /* the users are to end */
    struct trial_user user[CPUS_MOST];
    unsigned users;
};

static inline bool trial_over(const struct trial *trial)
{
    return __atomic_load_n(&trial->over, __ATOMIC_ACQUIRE);
}

static inline void trial_begun(struct trial_user *user)
{
    __atomic_store_n(&user->begun, true, __ATOMIC_RELEASE);
}

static inline volatile uint16_t *trial_frame(const struct trial *trial, uint64_t change)
{
    return direct(hpa_add(trial->frames, change % TRIAL_FRAMES * PAGE_SIZE));
}

/* Starts `work` on CPUs 1 to `users`, changes the page, ends them, and counts. */
int trial_change(struct trial *trial, unsigned users, void (*work)(void *user),
                 struct trial_counts *counts);

/* `reader` on CPU 1, in a guest. */
int trial_guest(struct trial *trial, struct trial_counts *counts);

int trial_writers(uint64_t rounds, struct trial_counts *counts);

#endif
