/* The second level's part of an explanation. See explain_rules.h. */
#include "arch/x86_64/mm/explain_rules.h"

#include "lib/error.h"
#include "mm/paging/typed.h"

const struct second_level *second_level_of(const struct table *table)
{
    switch (table->kind->id) {
    case KIND_EPT:
        return &second_level_ept;
    case KIND_NPT:
        return &second_level_npt;
    default:
        return NULL;
    }
}

void explain_exit(struct explainer *x, const struct second_access *how, gpa_t at,
                  enum explain_outcome outcome, enum explain_rule rule, unsigned step,
                  unsigned allowed)
{
    explain_decide(x->e, outcome, rule, step);
    x->e->during_walk = how->during_walk;
    x->e->exit_gpa = at;
    x->second->tell(x, how, allowed);
    x->ended = true;
}

/* ---- Behind an entry that only refuses ----------------------------------------------------- */

/* Reads the entry by which the walk would go on, as the walker judges entries, but for the bits
 * that must be 1. False when it cannot be read. */
static bool next_step(const struct explain_query *query, uint64_t node, uint64_t in, unsigned level,
                      struct walk_step *step)
{
    const struct table *table = query->second;
    const struct table_kind *kind = table->kind;
    unsigned index = (unsigned)(in >> level_shift(kind, level)) & (level_slots(kind) - 1);
    hpa_t at = hpa(node + (uint64_t)index * kind->entry_bytes);
    uint64_t raw = 0;

    if (!query->load(query->ctx, at, &raw, kind->entry_bytes))
        return false;
    enum rule rule = entry_rule(kind, &table->caps, level, raw | kind->required_bits);
    enum rule own = entry_rule(kind, &table->caps, level, raw);
    bool leaf = entry_leaf(kind, raw, level);
    *step = (struct walk_step){
        .level = (uint8_t)level,
        .index = (uint16_t)index,
        .address = at,
        .raw = raw,
        .class = own == RULE_NOT_PRESENT ? ENTRY_ABSENT
                 : own != RULE_OK        ? ENTRY_BAD
                 : leaf                  ? ENTRY_LEAF
                                         : ENTRY_TABLE,
        .rule = own == RULE_NOT_PRESENT ? RULE_OK
                : rule != RULE_OK       ? rule
                                        : own,
        .attrs = own != RULE_OK ? attrs_of(RIGHT_NONE, MEM_WB)
                 : leaf         ? kind->decode(raw, level, &table->caps)
                                : attrs_of(kind->table_rights(raw, &table->caps), MEM_WB),
        .accessed = (raw & kind->accessed_bit) != 0,
        .dirty = leaf && (raw & kind->dirty_bit) != 0,
    };
    return true;
}

/* The walker stops at an entry without a required bit, which it calls illegal. A CPU to which that
 * bit is a right goes on: what lies behind may be absent or illegal, and then that is told. */
static void walk_on(const struct explain_query *query, uint64_t in, struct walk *walk)
{
    struct walk_step *step = &walk->step[walk->count - 1];

    while (step->rule == RULE_REQUIRED_BITS || step->class == ENTRY_TABLE) {
        if (entry_leaf(query->second->kind, step->raw, step->level) || step->level == 1)
            return;
        if (!next_step(query, step->raw & ENTRY_ADDRESS, in, step->level - 1u, step + 1))
            return;
        step++;
        walk->count++;
    }
    if (step->class == ENTRY_ABSENT)
        walk->error = E_NOENT;
}

/* ---- The translation ----------------------------------------------------------------------- */

static enum explain_rule rule_of_missing(const struct second_access *how, unsigned missing)
{
    if (how->during_walk)
        return how->access & missing & RIGHT_W ? EXPLAIN_SECOND_WALK : EXPLAIN_SECOND_NO_READ;
    if (missing & RIGHT_W)
        return EXPLAIN_SECOND_NO_WRITE;
    return missing & RIGHT_X ? EXPLAIN_SECOND_NO_EXECUTE : EXPLAIN_SECOND_NO_READ;
}

/* The entry that takes the first of the missing rights away. */
static unsigned culprit(const struct explanation *e, unsigned from, unsigned missing)
{
    for (unsigned i = from; i < e->count; i++)
        if (missing & ~(unsigned)e->step[i].entry.attrs.rights)
            return i;
    return e->count - 1;
}

/* The first entry that lacks a required bit. */
static unsigned culprit_by_rule(const struct explanation *e, unsigned from)
{
    while (from + 1 < e->count && e->step[from].entry.rule != RULE_REQUIRED_BITS)
        from++;
    return from;
}

/* The walk's entries become steps. Returns what all of them let through. */
static unsigned add_walk(struct explanation *e, const struct walk *walk)
{
    unsigned rights = RIGHT_RWX | RIGHT_U;

    for (unsigned i = 0; i < walk->count; i++) {
        struct explain_step *step = explain_add_step(e, EXPLAIN_SECOND);
        const struct walk_step *entry = &walk->step[i];
        bool present = entry->class == ENTRY_TABLE || entry->class == ENTRY_LEAF;

        step->entry = *entry;
        step->hpa = entry->address;
        step->type = entry->attrs.type;
        if (present)
            step->to = i + 1 < walk->count ? align_down(walk->step[i + 1].address.v, PAGE_SIZE)
                                           : walk->mapping.out.v;
        rights &= present ? entry->attrs.rights : 0u;
    }
    return rights;
}

/* A walk that came to no leaf, or to one behind an entry that only refuses. */
static void no_way(struct explainer *x, gpa_t at, const struct second_access *how, unsigned from,
                   const struct walk *walk)
{
    struct explanation *e = x->e;
    unsigned last = e->count - 1;

    if (walk->error == E_RANGE) {
        explain_exit(x, how, at, EXPLAIN_VIOLATION, EXPLAIN_SECOND_BEYOND, e->count, 0);
    } else if (walk->error != E_ILLEGAL) {
        explain_exit(x, how, at, EXPLAIN_VIOLATION, EXPLAIN_SECOND_ABSENT, last, 0);
    } else if (x->second->walks_on && (e->step[last].entry.rule == RULE_REQUIRED_BITS ||
                                       e->step[last].entry.rule == RULE_OK)) {
        explain_exit(x, how, at, EXPLAIN_VIOLATION, EXPLAIN_SECOND_SUPERVISOR,
                     culprit_by_rule(e, from), 0);
    } else {
        e->entry_rule = e->step[last].entry.rule;
        explain_exit(x, how, at, EXPLAIN_MISCONFIG, EXPLAIN_ILLEGAL, last, 0);
    }
}

bool explain_second(struct explainer *x, gpa_t at, const struct second_access *how,
                    struct mapping *mapping, unsigned *allowed)
{
    struct explanation *e = x->e;
    unsigned from = e->count;
    struct walk walk;

    gpa_walk(x->query->second, at, &walk);
    if (x->second->walks_on && walk.error == E_ILLEGAL)
        walk_on(x->query, at.v, &walk);
    unsigned rights = add_walk(e, &walk);
    if (walk.error != E_OK) {
        no_way(x, at, how, from, &walk);
        return false;
    }
    *mapping = walk.mapping;
    *allowed = rights;
    unsigned missing =
        how->access & ~x->second->rights(x->query->second, rights, how->user_address);
    if (missing) {
        explain_exit(x, how, at, EXPLAIN_VIOLATION, rule_of_missing(how, missing),
                     culprit(e, from, missing), rights);
        return false;
    }
    return true;
}
