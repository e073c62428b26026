/* See speculation.h: the decisions. SDM Vol. 4, "IA32_ARCH_CAPABILITIES"; Intel's and AMD's papers
 * on each issue, by the names that they gave them. */
#include "arch/x86_64/speculation.h"

#include "lib/bits.h"

#define RDCL_NO BIT(0)
#define SKIP_L1D_FLUSH BIT(3) /* whoever is below flushes */
#define MDS_NO BIT(5)
#define PAGE_SIZE_CHANGE_NO BIT(6)
#define TAA_NO BIT(8)

/* Models of family 6 whose instruction TLB can hold two translations of one address: the Core
 * line from Nehalem up to where bit 6 of the capabilities came. */
static bool can_hit_twice(unsigned model)
{
    static const uint8_t models[] = {
        0x1a, 0x1e, 0x1f, 0x2e, 0x25, 0x2c, 0x2f,             /* Nehalem, Westmere */
        0x2a, 0x2d, 0x3a, 0x3e, 0x3c, 0x3f, 0x45, 0x46,       /* Sandy Bridge to Haswell */
        0x3d, 0x47, 0x4f, 0x56, 0x4e, 0x5e, 0x55, 0x8e, 0x9e, /* Broadwell to Coffee Lake */
        0xa5, 0xa6,                                           /* Comet Lake */
    };

    for (unsigned i = 0; i < ARRAY_SIZE(models); i++)
        if (model == models[i])
            return true;
    return false;
}

static enum speculation_state defended_if(bool can)
{
    return can ? SPECULATION_DEFENDED : SPECULATION_OPEN;
}

/* Intel's alone. What a CPU says that it has not, it has not; one that says nothing has it. */
static void decide_intel(const struct speculation_facts *f, struct speculation_plan *plan)
{
    uint64_t has_not = f->capabilities;

    if (!(has_not & (RDCL_NO | SKIP_L1D_FLUSH))) {
        plan->state[ISSUE_L1TF] = defended_if(f->flush_l1d);
        plan->flush_l1d_at_entry = f->flush_l1d;
    }
    if ((has_not & (MDS_NO | TAA_NO)) != (MDS_NO | TAA_NO)) {
        plan->state[ISSUE_MDS] = defended_if(f->md_clear);
        plan->verw_at_entry = f->md_clear;
    }
    if (!f->virtual && f->family == 6 && can_hit_twice(f->model) &&
        !(has_not & PAGE_SIZE_CHANGE_NO)) {
        plan->state[ISSUE_MULTIHIT] = SPECULATION_DEFENDED;
        plan->small_leaves = true;
    }
}

struct speculation_plan speculation_decide(const struct speculation_facts *facts)
{
    struct speculation_plan plan = {.small_leaves = false};

    if (facts->emulated)
        return plan;
    if (facts->vendor == SPECULATION_INTEL)
        decide_intel(facts, &plan);
    plan.state[ISSUE_BRANCHES] = defended_if(facts->ibpb);
    plan.ibpb_between_guests = facts->ibpb;
    plan.state[ISSUE_RETURNS] = SPECULATION_DEFENDED;
    plan.stuff_returns = true;
    return plan;
}

const char *speculation_issue_name(enum speculation_issue issue)
{
    static const char *const names[ISSUE_COUNT] = {
        [ISSUE_L1TF] = "L1 terminal fault",     [ISSUE_MDS] = "buffers (MDS, TAA)",
        [ISSUE_BRANCHES] = "branch targets",    [ISSUE_RETURNS] = "return stack",
        [ISSUE_MULTIHIT] = "page size changes",
    };

    return names[issue];
}

const char *speculation_defence(enum speculation_issue issue)
{
    static const char *const defences[ISSUE_COUNT] = {
        [ISSUE_L1TF] = "the L1 data cache is flushed at each entry",
        [ISSUE_MDS] = "VERW clears them at each entry",
        [ISSUE_BRANCHES] = "a barrier (IBPB) when another guest gets the CPU",
        [ISSUE_RETURNS] = "it is filled anew after each exit",
        [ISSUE_MULTIHIT] = "guests' tables have pages of 4K alone",
    };

    return defences[issue];
}

const char *speculation_state_name(enum speculation_state state)
{
    static const char *const names[] = {
        [SPECULATION_UNAFFECTED] = "not affected",
        [SPECULATION_DEFENDED] = "defended",
        [SPECULATION_OPEN] = "open",
    };

    return names[state];
}
