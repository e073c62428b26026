/* See mm/audit/audit_selftest.h, and mm/audit/selftest.h for the parts. */
#include "mm/audit/selftest.h"

#include "lib/string.h"

/* What the auditor said. */
static struct {
    unsigned findings;
    struct audit_finding first;
    char said[AUDIT_LINE];
} heard;

static void note(void *ctx, const struct audit_finding *finding)
{
    (void)ctx;
    if (heard.findings++ == 0) {
        heard.first = *finding;
        audit_line(heard.said, finding);
    }
}

static int ask(void)
{
    struct audit_totals totals;

    heard.findings = 0;
    heard.said[0] = '\0';
    return audit_run(&scratch.audit, note, NULL, &totals);
}

/* The rule, the table and the address, and no second finding. */
static bool is_named(const struct trial *trial, const struct damage *d)
{
    const struct audit_finding *f = &heard.first;

    if (trial->rule == AUDIT_RULES)
        return heard.findings == 0;
    return heard.findings == 1 && f->rule == trial->rule && f->table != NULL &&
           strcmp(f->table, scratch.described[d->table].name) == 0 && f->has_in == d->has_in &&
           f->has_at == d->has_at && (!d->has_in || f->in == d->in) &&
           (!d->has_at || f->at.v == d->at.v);
}

/* E_OK, E_STATE when the auditor did not name it, E_NOMEM. */
static int try_one(const struct trial *trial, audit_trial_fn fn, void *ctx)
{
    char said[AUDIT_LINE];
    struct damage d = {0};
    int error = E_NOMEM;
    bool named = false;

    trial->inflict(&d, trial->argument);
    if (!d.no_memory)
        error = ask();
    if (error == E_OK || error == E_STATE)
        named = is_named(trial, &d);
    memcpy(said, heard.said, sizeof(said));
    damage_undo(&d);
    if (error == E_NOMEM || ask() == E_NOMEM)
        return E_NOMEM;
    named = named && heard.findings == 0; /* content again */
    fn(ctx, &(struct audit_trial){trial->rule, trial->corruption, named, said});
    return named ? E_OK : E_STATE;
}

/* E_OK when all were tried, named or not. */
static int try_family(const struct trials *family, audit_trial_fn fn, void *ctx, unsigned *tried,
                      unsigned *failed)
{
    for (unsigned i = 0; i < family->count; i++) {
        int error = try_one(&family->trial[i], fn, ctx);

        if (error == E_NOMEM)
            return error;
        (*tried)++;
        *failed += error != E_OK;
    }
    return E_OK;
}

int audit_selftest(const struct audit_selftest *setup, audit_trial_fn fn, void *ctx,
                   unsigned *tried, unsigned *failed)
{
    const struct trials *const families[] = {
        &node_trials,
        setup->guest->id == KIND_NPT ? &npt_trials : &ept_trials,
        &leaf_trials,
        &whole_trials,
    };
    int error = scratch_build(setup);

    *tried = *failed = 0;
    for (unsigned i = 0; i < ARRAY_SIZE(families) && error == E_OK; i++)
        error = try_family(families[i], fn, ctx, tried, failed);
    scratch_destroy();
    if (error != E_OK)
        return error;
    return *failed != 0 ? E_STATE : E_OK;
}
