/*
 * The CPU as oracle: what the mapper, translate and the legality rules say of an access is held
 * against what the CPU does when that access is made.
 *
 *   kernel  a stretch of the live kernel's table that nothing else uses; from ring 0 and ring 3
 *   user    tables of its own; from ring 0 and ring 3, with every combination of CR0.WP, CR4.SMEP,
 *           CR4.SMAP and RFLAGS.AC that the CPU has
 *   guest   EPTs; from a guest of a few instructions, through page tables of that guest's own
 *
 * The tables are filled through the mapper's public calls, in random places and page sizes. Then
 * either entries are damaged by writing straight into them (not the live kernel's), or the table
 * goes on changing through the mapper between the accesses, flushes and all. Every access that goes
 * through must come to the very byte that translate says. Leaves show memory of the oracle's own
 * alone, and no pair is tried that is predicted to end elsewhere.
 *
 * It runs on one CPU while no guest does, and leaves everything as it was. A CPU (or an emulator)
 * that differs is reported, not corrected.
 */
#ifndef QUIRE_ARCH_ORACLE_H
#define QUIRE_ARCH_ORACLE_H

#include <stdint.h>

#include "vm/backend.h"

enum oracle_space { ORACLE_KERNEL, ORACLE_USER, ORACLE_GUEST, ORACLE_SPACES };

const char *oracle_space_name(enum oracle_space space);

struct oracle_counts {
    uint64_t tables; /* made; for the kernel's, times that it was filled anew */
    uint64_t pairs;  /* tried; of these predicted to ... */
    uint64_t through, absent, refused, illegal;
    uint64_t disagreements;
};

#define ORACLE_TEXT 72

struct oracle_disagreement {
    enum oracle_space space;
    uint64_t address;
    unsigned access;              /* RIGHT_R, RIGHT_W or RIGHT_X */
    uint64_t entry;               /* the last one of the walk */
    unsigned level;               /* that it stands at */
    char conditions[ORACLE_TEXT]; /* "ring 0 WP SMEP" */
    char predicted[ORACLE_TEXT];
    char happened[ORACLE_TEXT];
};

/* Who is told: of each disagreement, and after each pair how many have been tried. */
struct oracle_listener {
    void (*report)(const struct oracle_listener *self, const struct oracle_disagreement *what);
    void (*progress)(const struct oracle_listener *self, uint64_t tried);
    void *ctx;
};

/*
 * Tries `pairs` (address, access) pairs in each space, drawn from `seed`. Without `backend` (NULL)
 * there are no guests to ask, and counts[ORACLE_GUEST] stays 0. E_OK when all agree, E_HARDWARE
 * when one did not; E_NOMEM, or what the backend answers, when it could not go on.
 */
int oracle_run(const struct vm_backend *backend, uint64_t seed, uint64_t pairs,
               const struct oracle_listener *listener, struct oracle_counts counts[ORACLE_SPACES]);

#endif
