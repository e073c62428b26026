/*
 * The steps of one walk, for people. Part of the template (mm/paging/template.h); also all that a
 * kind needs whose tables are read and never written.
 */
#ifndef QUIRE_MM_PAGING_STEPS_H
#define QUIRE_MM_PAGING_STEPS_H

#include "mm/paging/read.h"

/* What the entry in the cursor's slot is, by itself. */
static inline struct walk_step step_of(const struct table_cursor *c, uint64_t entry)
{
    const struct table_caps *caps = &c->table->caps;
    enum rule rule = judge(caps, c->level, entry);
    bool leaf = is_leaf(entry, c->level);
    unsigned index = index_of(c->at, c->level);
    struct walk_step step = {
        .level = (uint8_t)c->level,
        .index = (uint16_t)index,
        .address = hpa(c->node[c->level] + (uint64_t)index * KIND.entry_bytes),
        .raw = entry,
        .class = leaf ? ENTRY_LEAF : ENTRY_TABLE,
        .accessed = (entry & KIND.accessed_bit) != 0,
        .dirty = leaf && (entry & KIND.dirty_bit) != 0,
    };

    if (rule == RULE_NOT_PRESENT) {
        step.class = ENTRY_ABSENT;
    } else if (rule != RULE_OK) {
        step.class = ENTRY_BAD;
        step.rule = rule;
    } else if (leaf) {
        step.attrs = KIND.decode(entry, c->level, caps);
    } else {
        step.attrs = attrs_of(KIND.table_rights(entry, caps), MEM_WB);
    }
    return step;
}

static void OP(walk)(struct table *t, uint64_t in, struct walk *walk)
{
    struct table_cursor c;

    walk->count = 0;
    walk->error = E_RANGE;
    if (in < KIND.input_first || in > KIND.input_last)
        return;
    cursor_start(&c, t, in, in);
    for (;;) {
        uint64_t entry = read_entry(&c);
        struct walk_step step = step_of(&c, entry);

        walk->step[walk->count++] = step;
        if (step.class == ENTRY_TABLE) {
            descend(&c, entry);
            continue;
        }
        walk->error = step.class == ENTRY_LEAF     ? E_OK
                      : step.class == ENTRY_ABSENT ? E_NOENT
                                                   : E_ILLEGAL;
        if (step.class == ENTRY_LEAF)
            describe_leaf(&c, entry, &walk->mapping);
        return;
    }
}

/* What a kind can be asked that is never written. */
#define OPS_OF_READING                                                                             \
    .translate = OP(translate), .walk = OP(walk), .visit = OP(visit), .visit_nodes = OP(visit_nodes)

#endif
