/*
 * What the files of explain.h share: one explanation in the making, its steps and its verdict; and
 * what a kind of second level says about accesses of a guest beyond what its entries decode to.
 *
 *     explain.c          the order of events, memory types
 *     explain_first.c    the guest's own walk, or the host's
 *     explain_second.c   from a guest-physical address on
 *     explain_ept.c, explain_npt.c   the rules of each kind of second level
 *     explain_words.c, explain_print.c   for people
 */
#ifndef QUIRE_ARCH_X86_64_MM_EXPLAIN_RULES_H
#define QUIRE_ARCH_X86_64_MM_EXPLAIN_RULES_H

#include "arch/x86_64/mm/explain.h"

#define TYPE_UC_MINUS 7 /* only a PAT entry has it */

/* One explanation in the making. */
struct explainer {
    const struct explain_query *query;
    const struct second_level *second; /* the rules of query->second; NULL without one */
    struct explanation *e;
    unsigned first[MAX_LEVELS]; /* the steps that are entries of the first level, in order */
    unsigned firsts;
    bool ended; /* the verdict has been found while an entry was being read */
};

/* How an access to a guest-physical address came about. */
struct second_access {
    unsigned access;
    bool during_walk;  /* at an entry of the guest's tables */
    bool user_address; /* of the linear address: U/S is 1 at every level */
    bool writable, no_execute;
};

struct second_level {
    enum kind_id kind;
    const char *name; /* of its entries: "EPT" */
    const char *violation, *misconfig;
    const char *absent;             /* EXPLAIN_SECOND_ABSENT in words, ... */
    const char *walk;               /* ... and EXPLAIN_SECOND_WALK */
    const char *section_of_absent;  /* the manual's section of these two and BEYOND ... */
    const char *section_of_refusal; /* ... and of what rights refuse */

    bool pdpte_in_memory; /* a PAE guest's PDPTEs are read at each walk */
    bool walks_on;        /* an entry without a required bit refuses; the walk goes on behind it */
    /* What the CPU asks for where it reads a table of the guest's. */
    unsigned (*walk_access)(const struct table *table);
    /* What an access may do of what all entries let through. */
    unsigned (*rights)(const struct table *table, unsigned allowed, bool user_address);
    /* Writes down what the CPU tells with the exit. */
    void (*tell)(struct explainer *x, const struct second_access *how, unsigned allowed);
    /* The memory type by the leaf of this level and the type of the guest's own leaf. */
    unsigned (*type)(const struct mapping *second, unsigned pat);
};

/* The rules of the table's kind; NULL: it is no second level. */
const struct second_level *second_level_of(const struct table *table);
extern const struct second_level second_level_ept, second_level_npt;

struct explain_step *explain_add_step(struct explanation *e, enum explain_table table);
void explain_decide(struct explanation *e, enum explain_outcome outcome, enum explain_rule rule,
                    unsigned at);

/* From a linear address to the next one. False when the verdict is found. explain_first.c. */
bool explain_first(struct explainer *x, struct gva_walk *walk);
/* What the first level lets an access of this kind do, by the rights of its walk. */
unsigned explain_first_rights(const struct explainer *x, unsigned rights);

/* Translates a guest-physical address. True with *mapping and *allowed; false when the CPU exits.
 * explain_second.c. */
bool explain_second(struct explainer *x, gpa_t at, const struct second_access *how,
                    struct mapping *mapping, unsigned *allowed);
/* The CPU exits at the step, of which the second level lets `allowed` through. */
void explain_exit(struct explainer *x, const struct second_access *how, gpa_t at,
                  enum explain_outcome outcome, enum explain_rule rule, unsigned step,
                  unsigned allowed);

#endif
