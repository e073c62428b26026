/*
 * What the commands that show tables (map, walk) share.
 */
#ifndef QUIRE_MONITOR_TABLES_H
#define QUIRE_MONITOR_TABLES_H

#include "arch/x86_64/mm/guest_walk.h"
#include "monitor/commands.h"

/* A search through all of a guest's own tables. */
struct gva_visit {
    struct gva_context registers;
    uint64_t pat;        /* types in what is found are those of this PAT */
    uint64_t most_walks; /* a guest may have built tables without end */
    uint64_t walks, illegal,
        absent;    /* made; ended at an illegal entry, at a table without memory */
    uint64_t next; /* where the run begins that was found last */
};

/* As table_visit() with VISIT_RUNS, for paging modes that are walked. E_FULL: not to the end, see
 * `next`. */
int table_visit_gva(struct gva_visit *visit, uint64_t first, uint64_t last, visit_fn fn, void *ctx);

/* The kind of the slot that a guest-physical address lies in, or "outside every slot". */
const char *table_guest_area(const struct guest *guest, uint64_t at);

/* Heads what was kept of the table of a guest that has ended. */
void table_title_ended(struct output *out, const struct guest *guest);

/* Says why a guest has no table, not even the memory of one. E_STATE. */
int table_refuse_none(const struct command *command, struct output *out, const struct guest *guest);

#endif
