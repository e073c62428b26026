/*
 * The inside of the auditor: what its files share. Each judges one thing and says so by found().
 *
 *   audit.c          the whole, in order
 *   audit_report.c   rules as sentences, findings as lines
 *   judge_nodes.c    table frames and their entries
 *   judge_leaves.c   the memory that leaves show, and whose it is
 *   judge_records.c  frame records that no table answers for
 *   judge_alias.c    writable or executable
 *   judge_roots.c    counts of frames, root registers, upper halves, batches, guard pages
 */
#ifndef QUIRE_MM_AUDITOR_H
#define QUIRE_MM_AUDITOR_H

#include "lib/error.h"
#include "mm/audit/audit.h"
#include "mm/audit/tally.h"

#define AUDIT_TABLES 128 /* at most, in one audit */

struct auditor {
    const struct audit *audit;
    audit_report_fn report;
    void *ctx;
    struct audit_totals *totals;
    struct tally reached;
    int error; /* E_NOMEM: no scratch memory, E_STOPPED; nothing more is judged */
    uint64_t unsafe[AUDIT_TABLES / 64]; /* bit n: table n leads where nobody should read */

    /* Of the table that is being judged. */
    const struct audit_table *now;
    uint64_t tables, memory; /* frames reached; of memory, the owner's own */
    bool moot;               /* these counts are of no use */
    uint64_t legal[4];       /* by level: the flags of the leaf found legal last ... */
    bool have_legal[4];      /* ... if any */
};

/* ---- Findings ------------------------------------------------------------------------------- */

/* Where something is wrong. */
struct place {
    bool has_in, has_at;
    uint64_t in;
    hpa_t at;
};

static inline struct place at_input(uint64_t in)
{
    return (struct place){.has_in = true, .in = in};
}

static inline struct place at_frame(hpa_t at)
{
    return (struct place){.has_at = true, .at = at};
}

static inline struct place at_both(uint64_t in, hpa_t at)
{
    return (struct place){.has_in = true, .has_at = true, .in = in, .at = at};
}

/* Is the rule asked for? Notes that it was judged. */
bool judging(struct auditor *a, enum audit_rule rule);

/* A finding, unless its rule is not asked for. `table` may be NULL. */
__attribute__((format(printf, 5, 6))) void found(struct auditor *a, enum audit_rule rule,
                                                 const char *table, struct place place,
                                                 const char *detail, ...);

/* Has whoever asked for the audit had it stopped? Then a->error says so. */
static inline bool audit_stopped(struct auditor *a)
{
    if (a->error == E_OK && a->audit->stopped != NULL && a->audit->stopped(a->audit->stopped_ctx))
        a->error = E_STOPPED;
    return a->error == E_STOPPED;
}

/* `count` findings more than are reported. */
void found_more(struct auditor *a, enum audit_rule rule, uint64_t count);

/* ---- What judges ---------------------------------------------------------------------------- */

/* Each leaves a->error when scratch memory runs out. */

/* All nodes of a->now, parents before children, the lowest input address first. */
void judge_nodes(struct auditor *a);

/* Memory that leaves of a->now show: [base, base + size), from `in` on. False: a->error. */
bool judge_shown(struct auditor *a, uint64_t in, hpa_t base, uint64_t size);

/* a->now's count of frames, and its owner's; after judge_nodes(). */
void judge_counts(struct auditor *a);

/* Every record of the machine; after all tables. */
void judge_records(struct auditor *a);

/* AUDIT_WRITE_EXECUTE, for all tables that are fit to be read. */
void judge_write_xor_execute(struct auditor *a);

/* a->now's root register, its batches, and its upper half. */
void judge_root(struct auditor *a);
void judge_batches(struct auditor *a);
void judge_upper_half(struct auditor *a);

void judge_guards(struct auditor *a);

/* May table number `index` be read by a walk that has no doubts? */
static inline bool can_visit(const struct auditor *a, unsigned index)
{
    return (a->unsafe[index / 64] >> index % 64 & 1) == 0;
}

#endif
