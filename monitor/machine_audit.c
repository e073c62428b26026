/* See monitor/machine_audit.h. */
#include "monitor/machine_audit.h"

#include "arch/x86_64/mm/kernel_space.h"
#include "lib/log.h"
#include "monitor/commands.h"
#include "vm/guest_audit.h"
#include "vm/shared.h"

#define TABLES_LIMIT (1 + GUEST_AUDIT_TABLES * GUEST_LIMIT + SHARED_LIMIT)

/* Too large for a stack; there is one console. */
static struct {
    struct audit_table table[TABLES_LIMIT];
    char name[TABLES_LIMIT][GUEST_AUDIT_NAME];
    struct audit_guard guard[SPACE_GUARDS];
} machine;

static void describe(struct audit *audit)
{
    *audit = (struct audit){
        .rules = AUDIT_ALL,
        .table = machine.table,
        .tables = 1,
        .guard = machine.guard,
        .guards = kernel_space_describe(&machine.table[0], machine.guard),
        .everyone = true,
    };
    for (unsigned i = 1; i <= guest_count(); i++)
        audit->tables += guest_describe(guest_by_number(i), &machine.name[audit->tables],
                                        &machine.table[audit->tables]);
    for (unsigned i = 0; i < SHARED_LIMIT; i++) {
        struct shared_memory *memory = shared_by_index(i);
        unsigned next = audit->tables;

        if (memory != NULL)
            shared_describe(memory, machine.name[next], GUEST_AUDIT_NAME,
                            &machine.table[audit->tables++]);
    }
}

static bool stopped_by_key(void *ctx)
{
    return command_stopped(ctx) != 0;
}

int machine_audit(bool by_key, audit_report_fn report, void *ctx, struct audit_totals *totals,
                  unsigned *tables)
{
    struct audit audit;

    describe(&audit);
    if (by_key)
        audit.stopped = stopped_by_key;
    *tables = audit.tables;
    return audit_run(&audit, report, ctx, totals);
}

static void log_finding(void *ctx, const struct audit_finding *finding)
{
    char text[AUDIT_LINE];

    (void)ctx;
    log_line("audit: %s", audit_line(text, finding));
}

void machine_audit_log(void)
{
    struct audit_totals totals;
    unsigned tables;
    int error = machine_audit(false, log_finding, NULL, &totals, &tables);

    if (error == E_OK)
        log_line("audit: %u tables, %lu frames, all rules hold", tables,
                 (totals.table_frames + totals.memory));
    else if (error == E_STATE)
        log_line("audit: %lu findings", totals.found);
    else
        log_line("audit: not done: %s", error_text(error));
}
