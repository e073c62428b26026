/* The auditor's words: rules as sentences, findings as lines (mm/audit/audit.h). */
#include "mm/audit/auditor.h"

#include "lib/format.h"

const char *audit_rule_text(enum audit_rule rule)
{
    static const char *const text[AUDIT_RULES] = {
        [AUDIT_TABLE_MEMORY] = "tables lie in RAM that is in use",
        [AUDIT_TABLE_TAG] = "tables' frames are recorded as their kind's",
        [AUDIT_TABLE_OWNER] = "tables' frames are recorded as their owner's",
        [AUDIT_TABLE_ONCE] = "each table is reached once",
        [AUDIT_TABLE_COUNT] = "table frames are as many as counted",
        [AUDIT_TABLE_STRAY] = "each frame recorded as a table is reached",
        [AUDIT_ENTRY_ABSENT] = "what is not present is zero",
        [AUDIT_ENTRY_LEGAL] = "each entry is one that the CPU accepts",
        [AUDIT_ENTRY_COUNT] = "present entries are as many as recorded",
        [AUDIT_LEAF_RAM] = "no guest or program sees other than RAM",
        [AUDIT_LEAF_FREE] = "no guest or program sees a free frame",
        [AUDIT_LEAF_PURPOSE] = "no guest or program sees the hypervisor's memory",
        [AUDIT_LEAF_OWNER] = "no guest or program sees another's memory",
        [AUDIT_LEAF_SHARED] = "memory seen twice is shared, as recorded",
        [AUDIT_LEAF_STRAY] = "each frame of guest and user memory is seen",
        [AUDIT_OWNER_COUNT] = "owners hold what their tables reach",
        [AUDIT_WRITE_EXECUTE] = "nothing is writable and executable",
        [AUDIT_GUARD] = "guard pages are absent",
        [AUDIT_UPPER_HALF] = "each root has the kernel's half",
        [AUDIT_ROOT] = "root registers hold the tables' roots",
        [AUDIT_BATCHES] = "each flush batch was committed",
        [AUDIT_DYING] = "no frame waits for a flush",
    };
    return (unsigned)rule < AUDIT_RULES ? text[rule] : "unknown rule";
}

const char *audit_line(char text[AUDIT_LINE], const struct audit_finding *finding)
{
    char in[32] = "", at[32] = "";

    if (finding->has_in)
        format_buffer(in, sizeof(in), "0x%lx: ", finding->in);
    if (finding->has_at)
        format_buffer(at, sizeof(at), "%s0x%lx: ", finding->has_in ? "at " : "frame ",
                      finding->at.v);
    format_buffer(text, AUDIT_LINE, "%s%s%s%s%s (rule: %s)", finding->table ? finding->table : "",
                  finding->table ? ": " : "", in, at, finding->detail,
                  audit_rule_text(finding->rule));
    return text;
}

bool judging(struct auditor *a, enum audit_rule rule)
{
    if ((a->audit->rules >> rule & 1) == 0)
        return false;
    a->totals->rules |= BIT(rule);
    return true;
}

void found(struct auditor *a, enum audit_rule rule, const char *table, struct place place,
           const char *detail, ...)
{
    struct audit_finding finding = {
        .rule = rule,
        .table = table,
        .has_in = place.has_in,
        .has_at = place.has_at,
        .in = place.in,
        .at = place.at,
    };
    va_list args;

    if (!judging(a, rule))
        return;
    a->totals->found++;
    if (++a->totals->findings[rule] > AUDIT_REPORTED || a->report == NULL)
        return;
    va_start(args, detail);
    vformat_buffer(finding.detail, sizeof(finding.detail), detail, args);
    va_end(args);
    a->report(a->ctx, &finding);
}

void found_more(struct auditor *a, enum audit_rule rule, uint64_t count)
{
    a->totals->findings[rule] += count;
    a->totals->found += count;
}
