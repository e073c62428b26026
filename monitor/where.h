/*
 * Memory by any of the four kinds of address: where a command is told to look, page by page.
 */
#ifndef QUIRE_MONITOR_WHERE_H
#define QUIRE_MONITOR_WHERE_H

#include "arch/x86_64/mm/explain.h"
#include "monitor/tables.h"

enum space { SPACE_HVA, SPACE_HPA, SPACE_GPA, SPACE_GVA };

/* What the command's first words name, and what it takes to get there. */
struct place {
    enum space space;
    struct guest *guest;
    uint64_t at;
    bool force;
    unsigned next; /* the first argument behind it */
    struct gva_context registers;
    uint64_t rflags, pat;
};

/* Bytes that lie together: input addresses from `at` on are physical ones from `to` on. Those of a
 * guest that are to be written are guest-physical ones from `gpa` on. */
struct stretch {
    uint64_t at, size;
    hpa_t to;
    gpa_t gpa;
    char why[EXPLAIN_TEXT + 80]; /* of an error */
};

/* `hva X`, `hpa X`, `gN gpa X` or `gN gva X`; with `behind` more arguments needed after it. A
 * `force` at the end is taken off. */
int place_take(const struct command *command, struct output *out, struct arguments *args,
               unsigned behind, struct place *place);

/* Where at most `size` bytes at `at` are, and how many of them lie together, within one page. A
 * guest's page that is to be written is its own from then on, as if it had written there.
 * E_PERM: a table on the way does not allow the access, and `force` was not said; else an error of
 * the walk, or E_NOENT where there is no RAM. `why` says it. */
int place_locate(struct place *place, uint64_t at, uint64_t size, unsigned access,
                 struct stretch *stretch);

/* Refuses the command with the stretch's reason. */
int place_refuse(const struct command *command, struct output *out, int error,
                 const struct stretch *stretch);

/* Copies `size` bytes from `at` on, all or none. */
int place_read(const struct command *command, struct output *out, struct place *place, uint64_t at,
               void *to, uint64_t size);

#endif
