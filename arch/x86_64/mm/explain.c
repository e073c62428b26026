/* See explain.h. The order of events is the CPU's: each entry of the first level is translated by
 * the second before it is read; rights of the first level are judged when its leaf is known; the
 * second level's at the final address come last. */
#include "arch/x86_64/mm/explain_rules.h"

#include "arch/x86_64/mm/host_entry.h"
#include "lib/panic.h"

/* ---- Memory types -------------------------------------------------------------------------- */

unsigned effective_memory_type(unsigned mtrr, unsigned pat)
{
    if (pat == MEM_UC || mtrr == MEM_UC)
        return pat == MEM_WC ? MEM_WC : MEM_UC;
    switch (mtrr) {
    case MEM_WC:
        return pat == MEM_WT || pat == MEM_WP ? MEM_UC : MEM_WC;
    case MEM_WP:
        if (pat == TYPE_UC_MINUS)
            return MEM_WC;
        return pat == MEM_WB ? MEM_WP : pat;
    case MEM_WT:
        if (pat == TYPE_UC_MINUS)
            return MEM_UC;
        return pat == MEM_WB ? MEM_WT : pat;
    }
    return pat == TYPE_UC_MINUS ? MEM_UC : pat;
}

const char *pat_type_name(unsigned type)
{
    return type == TYPE_UC_MINUS ? "UC-" : mem_type_name((enum mem_type)type);
}

unsigned pat_of_leaf(uint64_t pat, uint64_t leaf, unsigned level)
{
    unsigned index = (leaf & PTE_PWT ? 1u : 0) | (leaf & PTE_PCD ? 2u : 0) |
                     (leaf & (level == 1 ? PTE_PAT_4K : PTE_PAT_LARGE) ? 4u : 0);
    return (unsigned)(pat >> (8 * index)) & 7;
}

/* ---- Steps and verdicts ---------------------------------------------------------------------- */

struct explain_step *explain_add_step(struct explanation *e, enum explain_table table)
{
    invariant(e->count < EXPLAIN_STEPS);
    struct explain_step *step = &e->step[e->count++];

    *step = (struct explain_step){.table = table};
    if (table != EXPLAIN_REGISTER)
        step->reference = (uint8_t)++e->references;
    return step;
}

void explain_decide(struct explanation *e, enum explain_outcome outcome, enum explain_rule rule,
                    unsigned at)
{
    e->outcome = outcome;
    e->rule = rule;
    e->decided = at;
}

/* ---- The whole ------------------------------------------------------------------------------- */

void explain(const struct explain_query *query, struct explanation *e)
{
    const struct second_level *level = query->second ? second_level_of(query->second) : NULL;
    struct explainer x = {.query = query, .second = level, .e = e};
    struct gva_walk first = {.gpa = gpa(query->at)};
    const struct mapping *page = &first.walk.mapping;
    struct mapping second;
    unsigned pat = MEM_WB, allowed;

    *e = (struct explanation){.linear = query->registers != NULL,
                              .two_levels = query->second != NULL,
                              .second = level,
                              .at = query->at,
                              .access = query->access,
                              .user = query->user};
    if (query->registers && !explain_first(&x, &first))
        return;
    bool paging = query->registers && e->mode != PAGING_NONE;
    if (paging) {
        pat = pat_of_leaf(query->pat, page->raw, page->level);
        e->page = page->last - page->in + 1;
    }
    e->rights = explain_first_rights(&x, page->attrs.rights);
    e->type = effective_memory_type(MEM_WB, pat);
    e->gpa = first.gpa;
    e->has_gpa = true;
    if (!query->second) {
        e->hpa = hpa(first.gpa.v);
        e->has_hpa = true;
        explain_decide(e, EXPLAIN_ALLOWED, EXPLAIN_RULE_NONE, e->count);
        return;
    }

    /* While CR0.PG is 0 every linear address is a writable and executable user-mode one (28.2.1).
     */
    struct second_access how = {
        .access = query->access,
        .user_address = !paging || (page->attrs.rights & RIGHT_U),
        .writable = !paging || (page->attrs.rights & RIGHT_W),
        .no_execute = paging && !(page->attrs.rights & RIGHT_X),
    };
    if (!explain_second(&x, first.gpa, &how, &second, &allowed))
        return;
    e->hpa = hpa_add(second.out, first.gpa.v - second.in);
    e->has_hpa = true;
    uint64_t size = second.last - second.in + 1;
    if (!e->page || size < e->page)
        e->page = size;
    e->rights &= level->rights(query->second, allowed, how.user_address);
    e->type = level->type(&second, pat);
    explain_decide(e, EXPLAIN_ALLOWED, EXPLAIN_RULE_NONE, e->count);
}
