/*
 * What the tests of the auditor share: a machine of 64 MiB with the real buddy, tables on it by the
 * real mapper, and an auditor that is asked.
 */
#ifndef QUIRE_TESTS_UNIT_AUDIT_FIXTURE_H
#define QUIRE_TESTS_UNIT_AUDIT_FIXTURE_H

#include "mm/audit/audit.h"

#define ARENA (64 * MiB)
#define USER_RWX (RIGHT_RWX | RIGHT_U)
#define TABLES 6

extern struct table table[TABLES];
extern struct audit_table described[TABLES];
extern struct audit audit;
extern const struct table_caps caps;
extern uint64_t free_before; /* frames that were free when the test began */

/* What the auditor said last. */
extern struct audit_finding heard[AUDIT_RULES * AUDIT_REPORTED];
extern unsigned heard_count;
extern struct audit_totals totals;

/* For cmocka. Every frame must be free again at the end. */
int set_up(void **state);
int tear_down(void **state);

uint64_t free_frames(void);

/* Judges by these rules; what audit_run() says. */
int ask(uint64_t rules);

/* Fails unless the rules hold, or unless there is a finding by the rule, with these words in it. */
void content(uint64_t rules);
void finds(enum audit_rule rule, const char *fragment);

/* A table more, the next of table[]. */
struct table *start(const struct table_kind *kind, enum frame_purpose purpose, uint64_t shows);
struct table *start_guest(void);
struct table *start_program(void);

int map_to(struct table *t, uint64_t in, hpa_t to, uint64_t size, unsigned rights);

/* A block of the table owner's own, mapped. False where something is mapped already. */
bool show(struct table *t, uint64_t in, unsigned order, unsigned rights);

/* A visitor that gives back what a table shows. */
int free_leaf(void *ctx, const struct mapping *page);

/* Gives back all tables, and what they show. */
void end_tables(void);

uint64_t *slot_of(struct table *t, uint64_t in, unsigned level);

#endif
