/*
 * What an EPT says of a guest's accesses: SDM Vol. 3, 29.3.2 and 29.3.3 for what refuses, 28.2.1
 * for what the exit tells, 29.3.5 for accessed and dirty flags, 29.3.7 for memory types.
 */
#include "arch/x86_64/mm/ept.h"
#include "arch/x86_64/mm/explain_rules.h"

/* With A/D for EPT the CPU's read of a table of the guest's counts as a write as well (29.3.3.2,
 * 29.3.5). */
static unsigned walk_access(const struct table *table)
{
    return table->caps.accessed_dirty ? RIGHT_RW : RIGHT_R;
}

/* With mode-based execute control two bits say who may execute (29.3.2). */
static unsigned rights(const struct table *table, unsigned allowed, bool user_address)
{
    bool executes =
        table->caps.mode_based_execute && user_address ? allowed & RIGHT_U : allowed & RIGHT_X;

    return (allowed & RIGHT_RW) | (executes ? RIGHT_X : 0u);
}

static void tell(struct explainer *x, const struct second_access *how, unsigned allowed)
{
    const struct explain_query *query = x->query;
    uint64_t value = how->access | (uint64_t)(allowed & RIGHT_RWX) << QUALIFICATION_ALLOWED_SHIFT;

    if (x->e->outcome != EXPLAIN_VIOLATION)
        return;
    if (query->second->caps.mode_based_execute && (allowed & RIGHT_U))
        value |= QUALIFICATION_USER_EXECUTE;
    if (query->registers)
        value |= QUALIFICATION_LINEAR | (how->during_walk ? 0 : QUALIFICATION_FINAL);
    if (query->registers && !how->during_walk && query->advanced)
        value |= (how->user_address ? QUALIFICATION_USER_ADDRESS : 0) |
                 (how->writable ? QUALIFICATION_WRITABLE : 0) |
                 (how->no_execute ? QUALIFICATION_NO_EXECUTE : 0);
    x->e->has_qualification = true;
    x->e->qualification = value;
}

static unsigned type(const struct mapping *second, unsigned pat)
{
    return second->raw & EPT_IGNORE_PAT ? second->attrs.type
                                        : effective_memory_type(second->attrs.type, pat);
}

const struct second_level second_level_ept = {
    .kind = KIND_EPT,
    .name = "EPT",
    .violation = "EPT violation",
    .misconfig = "EPT misconfiguration",
    .absent = "the EPT entry is not present: bits 2 to 0 are all 0",
    .walk = "the CPU's walk counts as a write while the EPTP enables accessed and dirty flags, and "
            "the guest's table lies where the EPT allows none",
    .section_of_absent = "SDM Vol. 3, 29.3.2",
    .section_of_refusal = "SDM Vol. 3, 29.3.3.2",
    .walk_access = walk_access,
    .rights = rights,
    .tell = tell,
    .type = type,
};
