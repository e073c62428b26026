/*
 * Writable or executable: no frame is both, at one address or at two, over all tables of a kind.
 *
 *   1. each executable run of pages is counted in a tally, frame by frame;
 *   2. each writable run is looked up there: is a frame of it executable somewhere else?
 *   3. for those that will be reported, the executable runs are gone through once more: where?
 *
 * So each table is read three times at most, however its pages lie. The tally takes one frame for
 * each 128 MiB in which anything is executable. See mm/audit/audit.h.
 */
#include "mm/audit/auditor.h"

/* A writable run of which some frame is executable at another address. */
struct alias {
    unsigned table;
    struct mapping run;
    bool named; /* what follows is known */
    unsigned other_table;
    uint64_t other_in, in; /* one frame's executable address, and its writable one */
    hpa_t frame;
};

struct alias_pass {
    struct auditor *auditor;
    const struct table_kind *kind;
    unsigned table; /* whose runs are being visited */
    struct tally executable;
    struct alias alias[AUDIT_REPORTED];
    unsigned aliases;
    uint64_t more; /* aliases that nobody will be told of */
};

static uint64_t run_size(const struct mapping *run)
{
    return run->last - run->in + 1;
}

static int count_executable(void *ctx, const struct mapping *run)
{
    struct alias_pass *pass = ctx;
    struct auditor *a = pass->auditor;
    uint64_t again, first_again;

    if (!(run->attrs.rights & RIGHT_X))
        return 0;
    if (run->attrs.rights & RIGHT_W)
        found(a, AUDIT_WRITE_EXECUTE, a->audit->table[pass->table].name, at_both(run->in, run->out),
              "writable and executable, up to 0x%lx", run->last);
    a->error = tally_add(&pass->executable, pfn_of(run->out), run_size(run) >> PAGE_SHIFT, &again,
                         &first_again);
    return a->error != E_OK;
}

static int look_up_writable(void *ctx, const struct mapping *run)
{
    struct alias_pass *pass = ctx;
    uint64_t pfn = pfn_of(run->out), end = pfn + (run_size(run) >> PAGE_SHIFT);
    /* A run that is executable itself was counted itself, once. */
    unsigned times = run->attrs.rights & RIGHT_X ? 2 : 1;

    if (!(run->attrs.rights & RIGHT_W) || tally_counted(&pass->executable, pfn, end, times) == end)
        return 0;
    if (pass->aliases < ARRAY_SIZE(pass->alias))
        pass->alias[pass->aliases++] = (struct alias){.table = pass->table, .run = *run};
    else
        pass->more++;
    return 0;
}

/* Is the executable run one that an alias waits for? */
static int name_executable(void *ctx, const struct mapping *run)
{
    struct alias_pass *pass = ctx;

    if (!(run->attrs.rights & RIGHT_X))
        return 0;
    for (unsigned i = 0; i < pass->aliases; i++) {
        struct alias *alias = &pass->alias[i];
        const struct mapping *writable = &alias->run;
        uint64_t first = run->out.v > writable->out.v ? run->out.v : writable->out.v;

        if (alias->named || first >= run->out.v + run_size(run) ||
            first >= writable->out.v + run_size(writable) ||
            (alias->table == pass->table && writable->in == run->in))
            continue;
        alias->named = true;
        alias->other_table = pass->table;
        alias->other_in = run->in + (first - run->out.v);
        alias->in = writable->in + (first - writable->out.v);
        alias->frame = hpa(first);
    }
    return 0;
}

/* Is the rule for this table, as one of this kind, and is it fit to be read? */
static bool in_group(const struct auditor *a, unsigned index, const struct table_kind *kind)
{
    const struct audit_table *t = &a->audit->table[index];

    return t->write_xor_execute && t->table->kind == kind && can_visit(a, index);
}

/* Has `fn` see each run of the group. */
static void visit_group(struct alias_pass *pass, visit_fn fn)
{
    struct auditor *a = pass->auditor;

    for (unsigned i = 0; i < a->audit->tables && a->error == E_OK; i++) {
        if (!in_group(a, i, pass->kind))
            continue;
        pass->table = i;
        table_visit(a->audit->table[i].table, pass->kind->input_first, pass->kind->input_last,
                    VISIT_RUNS, fn, pass);
    }
}

static void report_aliases(struct alias_pass *pass)
{
    struct auditor *a = pass->auditor;

    for (unsigned i = 0; i < pass->aliases; i++) {
        const struct alias *alias = &pass->alias[i];

        found(a, AUDIT_WRITE_EXECUTE, a->audit->table[alias->table].name,
              at_both(alias->in, alias->frame),
              "writable here, executable at another address, 0x%lx of %s", alias->other_in,
              a->audit->table[alias->other_table].name);
    }
    found_more(a, AUDIT_WRITE_EXECUTE, pass->more);
}

static void judge_kind(struct auditor *a, const struct table_kind *kind)
{
    struct alias_pass pass = {.auditor = a, .kind = kind};

    tally_begin(&pass.executable);
    visit_group(&pass, count_executable);
    if (a->error == E_OK) {
        judging(a, AUDIT_WRITE_EXECUTE);
        visit_group(&pass, look_up_writable);
        if (pass.aliases != 0)
            visit_group(&pass, name_executable);
        report_aliases(&pass);
    }
    if (a->totals->scratch < pass.executable.frames)
        a->totals->scratch = pass.executable.frames;
    tally_end(&pass.executable);
}

/* Is there no table of the same kind before this one that the rule is for? */
static bool first_of_kind(const struct audit *audit, unsigned index)
{
    for (unsigned i = 0; i < index; i++)
        if (audit->table[i].write_xor_execute &&
            audit->table[i].table->kind == audit->table[index].table->kind)
            return false;
    return true;
}

void judge_write_xor_execute(struct auditor *a)
{
    const struct audit *audit = a->audit;

    if (!(audit->rules & BIT(AUDIT_WRITE_EXECUTE)))
        return;
    for (unsigned i = 0; i < audit->tables && a->error == E_OK; i++)
        if (audit->table[i].write_xor_execute && first_of_kind(audit, i))
            judge_kind(a, audit->table[i].table->kind);
}
