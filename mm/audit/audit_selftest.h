/*
 * The auditor's own test, wherever it runs. It builds tables of scratch memory and breaks one thing
 * after another in them. The auditor must name the rule, the table and the address, and nothing
 * else; once the thing is put right, it must be content.
 *
 * No CPU uses these tables. Their owners are the last numbers there are.
 */
#ifndef QUIRE_MM_AUDIT_SELFTEST_H
#define QUIRE_MM_AUDIT_SELFTEST_H

#include "mm/audit/audit.h"

struct audit_selftest {
    const struct table_kind *kernel, *user, *guest; /* of 4 levels or more */
    struct table_caps host;                         /* the CPU's, for the first two */
};

struct audit_trial {
    enum audit_rule rule;   /* that was broken */
    const char *corruption; /* what was done, as a phrase */
    bool named;             /* and it was found, and nothing else */
    const char *said;       /* what the auditor said; "" when it found nothing */
};

typedef void (*audit_trial_fn)(void *ctx, const struct audit_trial *trial);

/* E_OK when every trial was named, else E_STATE; E_NOMEM when there is no memory for the tables.
 * *trials and *failed receive how many there were and how many of them were not named. */
int audit_selftest(const struct audit_selftest *setup, audit_trial_fn fn, void *ctx,
                   unsigned *trials, unsigned *failed);

#endif
