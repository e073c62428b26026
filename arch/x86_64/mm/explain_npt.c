/*
 * What AMD's nested table says of a guest's accesses: APM Vol. 2, 15.25.5 "Nested Table Walk" for
 * what refuses, 15.25.6 "Nested versus Guest Page Faults, Fault Ordering" for what the exit tells,
 * 15.25.8 "Combining Memory Types, MTRRs" for memory types.
 */
#include "arch/x86_64/mm/explain_rules.h"
#include "arch/x86_64/mm/npt.h"
#include "x86/control.h"

/* 15.25.5: walks of the guest's tables are always user writes to the nested table. */
static unsigned walk_access(const struct table *table)
{
    (void)table;
    return RIGHT_W;
}

/* Every access is a user access, whatever the guest's own tables say of the address. */
static unsigned rights(const struct table *table, unsigned allowed, bool user_address)
{
    (void)table;
    (void)user_address;
    return allowed & RIGHT_RWX;
}

/* EXITINFO1: an error code as of a page fault, and at which of both the walk was. */
static void tell(struct explainer *x, const struct second_access *how, unsigned allowed)
{
    struct explanation *e = x->e;
    bool absent = e->rule == EXPLAIN_SECOND_ABSENT || e->rule == EXPLAIN_SECOND_BEYOND;
    bool fetch = (how->access & RIGHT_X) && x->query->second->caps.nx;

    (void)allowed;
    e->has_code = true;
    e->code = PF_USER | (absent ? 0 : PF_PRESENT) | (how->access & RIGHT_W ? PF_WRITE : 0) |
              (e->outcome == EXPLAIN_MISCONFIG ? PF_RESERVED : 0) | (fetch ? PF_FETCH : 0) |
              (how->during_walk ? NPT_FAULT_WALK : NPT_FAULT_FINAL);
}

/* 15.25.8, with the MTRRs taken as write-back: the types of both levels combine, UC- as UC unless
 * the other is write-combining. */
static unsigned type(const struct mapping *second, unsigned pat)
{
    unsigned host = second->attrs.type;

    if (pat == MEM_WC)
        return MEM_WC;
    if (host == MEM_UC || pat == MEM_UC)
        return MEM_UC;
    if (host == MEM_WC)
        return MEM_WC;
    if (pat == TYPE_UC_MINUS)
        return MEM_UC;
    if (host == MEM_WB || host == pat)
        return pat;
    return pat == MEM_WB ? host : MEM_UC;
}

const struct second_level second_level_npt = {
    .kind = KIND_NPT,
    .name = "NPT",
    .violation = "nested page fault",
    .misconfig = "nested page fault",
    .absent = "the NPT entry is not present: P is 0",
    .walk =
        "the CPU's walk counts as a write, and the guest's table lies where the NPT allows none",
    .section_of_absent = "APM Vol. 2, 15.25.6",
    .section_of_refusal = "APM Vol. 2, 15.25.5",
    .pdpte_in_memory = true,
    .walks_on = true,
    .walk_access = walk_access,
    .rights = rights,
    .tell = tell,
    .type = type,
};
