/* See mm/audit/audit.h: the audit of a table that is about to be given back. */
#include "lib/log.h"
#include "mm/audit/audit.h"

static void log_finding(void *ctx, const struct audit_finding *finding)
{
    char text[AUDIT_LINE];

    (void)ctx;
    log_line("audit: %s", audit_line(text, finding));
}

int audit_one(const struct audit_table *table, bool (*stopped)(void *ctx), void *ctx)
{
    struct audit audit = {
        .rules = AUDIT_ALL & ~AUDIT_RECORDS,
        .table = table,
        .tables = 1,
        .stopped = stopped,
        .stopped_ctx = ctx,
    };
    struct audit_totals totals;
    int error = audit_run(&audit, log_finding, NULL, &totals);

    if (error == E_STOPPED)
        log_line("audit: %s: not judged to the end: its time was over after %lu table frames",
                 table->name, totals.table_frames);
    else if (error != E_OK && error != E_STATE)
        log_line("audit: %s: not judged to the end: %s", table->name, error_text(error));
    return error;
}
