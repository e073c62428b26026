/*
 * `audit`: every page table against the records of the frames, and every record against the tables.
 */
#include "arch/x86_64/cpu.h"
#include "arch/x86_64/mm/kernel.h"
#include "lib/error.h"
#include "lib/string.h"
#include "mm/audit/audit_selftest.h"
#include "monitor/commands.h"
#include "monitor/machine_audit.h"
#include "monitor/monitor.h"
#include "vm/sched.h"

static const struct column finding_columns[] = {
    {"table", COLUMN_TEXT, 16},
    {"address", COLUMN_HEX, 18},
    {"frame or entry", COLUMN_HEX, 14},
    {"what is wrong", COLUMN_TEXT, 0},
};
static const struct record finding_record = RECORD("finding", finding_columns);

static const struct column rule_columns[] = {
    {"rule", COLUMN_TEXT, 48},
    {"holds", COLUMN_FLAG, 5},
    {"findings", COLUMN_NUMBER, 8},
};
static const struct record rule_record = RECORD("rule", rule_columns);

static const struct column audit_columns[] = {
    {"tables", COLUMN_NUMBER, 0},          {"table frames", COLUMN_FRAMES, 0},
    {"present entries", COLUMN_NUMBER, 0}, {"memory shown to guests", COLUMN_FRAMES, 0},
    {"scratch frames", COLUMN_FRAMES, 0},  {"ticks", COLUMN_NUMBER, 0},
};
static const struct record audit_record = RECORD("audit", audit_columns);

static const struct column trial_columns[] = {
    {"rule", COLUMN_TEXT, 48},
    {"what was broken", COLUMN_TEXT, 50},
    {"named", COLUMN_FLAG, 5},
};
static const struct record trial_record = RECORD("trial", trial_columns);

static void show_finding(void *ctx, const struct audit_finding *finding)
{
    struct output *out = ctx;

    output_row(out, &finding_record,
               (struct value[]){finding->table ? as_text(finding->table) : as_nothing(),
                                finding->has_in ? as_number(finding->in) : as_nothing(),
                                finding->has_at ? as_number(finding->at.v) : as_nothing(),
                                as_text(finding->detail)});
}

static void show_rules(struct output *out, const struct audit_totals *totals)
{
    for (unsigned i = 0; i < AUDIT_RULES; i++) {
        bool judged = totals->rules >> i & 1;

        output_row(out, &rule_record,
                   (struct value[]){as_text(audit_rule_text((enum audit_rule)i)),
                                    judged ? as_number(totals->findings[i] == 0) : as_nothing(),
                                    judged ? as_number(totals->findings[i]) : as_nothing()});
    }
}

static unsigned count_rules(uint64_t rules)
{
    unsigned count = 0;

    for (; rules != 0; rules &= rules - 1)
        count++;
    return count;
}

static unsigned count_holding(const struct audit_totals *totals)
{
    unsigned count = 0;

    for (unsigned i = 0; i < AUDIT_RULES; i++)
        count += (totals->rules >> i & 1) && totals->findings[i] == 0;
    return count;
}

static int audit_all(const struct command *command, struct output *out)
{
    struct audit_totals totals;
    unsigned tables;
    uint64_t start = rdtsc();
    int error = machine_audit(true, show_finding, out, &totals, &tables);
    uint64_t ticks = rdtsc() - start;

    if (error == E_STOPPED)
        return command_refuse(command, out, E_STATE,
                              "stopped by a key after %lu table frames; %lu findings so far",
                              totals.table_frames, totals.found);
    show_rules(out, &totals);
    output_facts(out, &audit_record,
                 (struct value[]){as_number(tables), as_number(totals.table_frames),
                                  as_number(totals.entries), as_number(totals.memory),
                                  as_number(totals.scratch), as_number(ticks)});
    if (guests_cpus() > 1)
        output_note(out, "The other %u CPUs stood still meanwhile: nobody wrote.",
                    guests_cpus() - 1);
    if (totals.moot)
        output_note(out, "What could not be read, or not believed, was left out of the counts.");
    if (error == E_STATE)
        return command_refuse(command, out, error, "%lu findings; %u of %u rules hold",
                              totals.found, count_holding(&totals), count_rules(totals.rules));
    if (error != E_OK)
        return command_refuse(command, out, error, "not judged to the end: %s",
                              error == E_NOMEM ? "no scratch memory to note frames in"
                                               : error_text(error));
    output_note(out, "All %u rules hold.", count_rules(totals.rules));
    return E_OK;
}

static void show_trial(void *ctx, const struct audit_trial *trial)
{
    struct output *out = ctx;

    output_row(out, &trial_record,
               (struct value[]){trial->rule < AUDIT_RULES ? as_text(audit_rule_text(trial->rule))
                                                          : as_nothing(),
                                as_text(trial->corruption), as_number(trial->named)});
    if (!trial->named)
        output_note(out, "said instead: %s", trial->said[0] ? trial->said : "nothing");
}

static int audit_itself(const struct command *command, struct output *out)
{
    struct audit_selftest setup = {
        .kernel = &kernel_kind,
        .user = &user_kind,
        .guest = boot_facts.second_level,
        .host = kernel_table.caps,
    };
    unsigned trials, failed;
    int error = audit_selftest(&setup, show_trial, out, &trials, &failed);

    if (error == E_STATE)
        return command_refuse(command, out, error, "%u of %u broken things were not named", failed,
                              trials);
    if (error != E_OK)
        return command_refuse(command, out, error,
                              "the scratch tables that it breaks cannot be had: %s",
                              error_text(error));
    output_note(out, "All %u were named: rule, table and address, and nothing else.", trials);
    return E_OK;
}

static int audit(const struct command *command, struct output *out, const struct arguments *args)
{
    if (args->count == 1)
        return audit_all(command, out);
    if (strcmp(args->word[1], "selftest") != 0)
        return command_refuse(command, out, E_FORMAT,
                              "\"%.40s\"? it takes `selftest`, or nothing for the whole machine",
                              args->word[1]);
    return audit_itself(command, out);
}

static const struct command audit_commands[] = {
    {
        .name = "audit",
        .usage = "[selftest]",
        .summary = "judge every page table and frame record of the machine",
        .details = "Each table frame is in use, of its table's kind and owner, and reached once;\n"
                   "each entry is legal; guests are shown memory of their own alone; what is\n"
                   "recorded as a table or as memory is reached; nothing is writable and\n"
                   "executable; guard pages are absent; the CPU has each table's root; no flush\n"
                   "is owed. With `selftest` it breaks each of these rules on scratch tables and\n"
                   "must find exactly that.\n",
        .example = "audit",
        .most = 1,
        .run = audit,
    },
};

const struct command_family audit_family = FAMILY("audit", audit_commands);
