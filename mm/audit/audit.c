/* See mm/audit/audit.h, and mm/audit/auditor.h for who judges what. */
#include "mm/audit/auditor.h"

/* The rules for which all nodes have to be gone through. */
#define STRUCTURE                                                                                  \
    (AUDIT_ALL &                                                                                   \
     ~(AUDIT_ADDRESS_SPACE | BIT(AUDIT_UPPER_HALF) | BIT(AUDIT_ROOT) | BIT(AUDIT_BATCHES)))

static void judge_structure(struct auditor *a)
{
    for (enum audit_rule rule = AUDIT_TABLE_MEMORY; rule <= AUDIT_TABLE_ONCE; rule++)
        judging(a, rule);
    judging(a, AUDIT_ENTRY_LEGAL);
    judging(a, AUDIT_ENTRY_ABSENT);
    if (a->now->shows != 0)
        for (enum audit_rule rule = AUDIT_LEAF_RAM; rule <= AUDIT_LEAF_SHARED; rule++)
            judging(a, rule);
    judge_nodes(a);
    if (a->error == E_OK)
        judge_counts(a);
}

static void judge_table(struct auditor *a, const struct audit_table *t)
{
    a->now = t;
    a->tables = a->memory = 0;
    a->moot = false;
    for (unsigned level = 0; level < ARRAY_SIZE(a->have_legal); level++)
        a->have_legal[level] = false;

    judge_root(a);
    judge_batches(a);
    judge_upper_half(a);
    if (a->audit->rules & STRUCTURE)
        judge_structure(a);
}

/* All tables, then all records, by what was reached. */
static void judge_reachable(struct auditor *a)
{
    const struct audit *audit = a->audit;

    tally_begin(&a->reached);
    for (unsigned i = 0; i < audit->tables && a->error == E_OK; i++)
        judge_table(a, &audit->table[i]);
    if (a->error == E_OK && (audit->rules & AUDIT_RECORDS))
        judge_records(a);
    a->totals->scratch = a->reached.frames;
    tally_end(&a->reached);
}

static int check_description(const struct audit *audit)
{
    if (audit->tables > AUDIT_TABLES)
        return E_INVAL;
    for (unsigned i = 0; i < audit->tables; i++)
        if ((audit->rules & STRUCTURE) && !audit->table[i].table->env->frame_records)
            return E_INVAL;
    return E_OK;
}

int audit_run(const struct audit *audit, audit_report_fn report, void *ctx,
              struct audit_totals *totals)
{
    struct auditor a = {.audit = audit, .report = report, .ctx = ctx, .totals = totals};
    int error = check_description(audit);

    *totals = (struct audit_totals){0};
    if (error != E_OK)
        return error;
    judge_reachable(&a);
    if (a.error == E_OK)
        judge_write_xor_execute(&a);
    if (a.error == E_OK)
        judge_guards(&a);
    if (a.error != E_OK)
        return a.error;
    return totals->found != 0 ? E_STATE : E_OK;
}
