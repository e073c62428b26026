/* The whole explanation as lines of text. See explain.h. */
#include "arch/x86_64/mm/explain.h"

static void print_step(struct sink *to, const struct explanation *e,
                       const struct explain_step *step)
{
    const struct walk_step *entry = &step->entry;
    char rights[RIGHTS_TEXT];

    if (step->table == EXPLAIN_REGISTER)
        format(to, "   - guest PDPTE[%u] register: ", entry->index);
    else
        format(to, "  %2u %-5s %-4s[%3u] at ", step->reference, explain_table_name(e, step),
               level_name(entry->level), entry->index);
    if (step->table == EXPLAIN_FIRST && e->two_levels)
        format(to, "GPA 0x%lx, ", entry->address.v);
    if (step->table != EXPLAIN_REGISTER)
        format(to, "0x%lx: ", step->hpa.v);
    format(to, "0x%lx ", entry->raw);
    switch (entry->class) {
    case ENTRY_ABSENT:
        format(to, "not present\n");
        return;
    case ENTRY_BAD:
        format(to, "illegal: %s\n",
               rule_text(entry->rule != RULE_OK ? entry->rule : RULE_RESERVED_BITS));
        return;
    case ENTRY_TABLE:
        format(to, "table %s%s\n", rights_text(rights, entry->attrs.rights),
               entry->accessed ? " A" : "");
        return;
    case ENTRY_LEAF:
        format(to, "leaf  %s %s%s%s -> 0x%lx\n", rights_text(rights, entry->attrs.rights),
               pat_type_name(step->type), entry->accessed ? " A" : "", entry->dirty ? " D" : "",
               step->to);
        return;
    }
}

void explain_print(struct sink *to, const struct explanation *e)
{
    char text[EXPLAIN_TEXT], more[EXPLAIN_TEXT], rights[RIGHTS_TEXT];

    for (unsigned i = 0; i < e->count; i++)
        print_step(to, e, &e->step[i]);
    format(to, "%s: %s", explain_access_text(text, e), explain_outcome_name(e));
    if (e->has_code)
        format(to, ", error code 0x%lx (%s)", e->code, explain_code_text(more, e->code));
    if (e->has_qualification)
        format(to, ", qualification 0x%lx (%s)", e->qualification,
               explain_qualification_text(more, e->qualification));
    if (e->outcome == EXPLAIN_ALLOWED) {
        format(to, ", HPA 0x%lx %s %s\n", e->hpa.v, rights_text(rights, e->rights),
               pat_type_name(e->type));
        return;
    }
    format(to, "\n  because: %s", explain_rule_text(text, e));
    if (*explain_decided_text(text, e))
        format(to, " (%s)", text);
    if (*explain_section(e))
        format(to, "; %s", explain_section(e));
    format(to, "\n");
}
