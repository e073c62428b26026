/*
 * Reading: translate, the steps of a walk for people, the visitors. Nothing here changes a table,
 * and nothing takes its lock: each entry is read whole, and a node that dies is freed only when
 * every CPU is out of the reads that it was in. Part of the template (mm/paging/template.h).
 */
#ifndef QUIRE_MM_PAGING_READ_H
#define QUIRE_MM_PAGING_READ_H

#include "mm/paging/build.h"

/* What a leaf in the cursor's slot says. */
static inline struct mapping mapping_of(const struct table_cursor *c, uint64_t entry)
{
    unsigned level = c->level;
    struct attrs attrs = KIND.decode(entry, level, &c->table->caps);

    attrs.rights &= (uint8_t)(c->rights[level] | RIGHT_G);
    return (struct mapping){
        .in = align_down(c->at, size_of(level)),
        .last = slot_last(c),
        .out = hpa(leaf_address(entry, level)),
        .attrs = attrs,
        .level = (uint8_t)level,
        .accessed = (entry & KIND.accessed_bit) != 0,
        .dirty = (entry & KIND.dirty_bit) != 0,
        .raw = entry,
    };
}

/* The same, out of line. */
static SHARED void describe_leaf(const struct table_cursor *c, uint64_t entry, struct mapping *out)
{
    *out = mapping_of(c, entry);
}

/* Is this non-leaf entry one that a writer stored, but for the accessed bit? Then it is legal. */
static inline bool as_written(const struct table *t, uint64_t entry)
{
    uint64_t bits = ~(ENTRY_ADDRESS | KIND.accessed_bit);

    return ((entry ^ KIND.table_bits) & bits) == 0 &&
           !((entry & ENTRY_ADDRESS) >> t->caps.maxphyaddr);
}

/* One level at a time, for each entry is judged before it is followed. */
static int OP(translate)(struct table *t, uint64_t in, struct mapping *out)
{
    struct table_cursor c;

    if (in < KIND.input_first || in > KIND.input_last)
        return E_RANGE;
    cursor_start(&c, t, in, in);
#pragma GCC unroll 5
    for (unsigned n = 0; n < KIND.levels; n++) {
        uint64_t entry = read_entry(&c);

        if (!is_present(entry))
            return E_NOENT;
        bool leaf = is_leaf(entry, c.level);
        if ((leaf || !as_written(t, entry)) && judge(&t->caps, c.level, entry) != RULE_OK)
            return E_ILLEGAL;
        if (leaf) {
            *out = mapping_of(&c, entry);
            return E_OK;
        }
        descend(&c, entry);
    }
    __builtin_unreachable(); /* level 1 has leaves alone */
}

/* Does `next` continue `run`? */
static inline bool continues(const struct mapping *run, const struct mapping *next, unsigned flags)
{
    return run->last != UINT64_MAX && run->last + 1 == next->in &&
           run->out.v + (next->in - run->in) == next->out.v && run->level == next->level &&
           attrs_equal(run->attrs, next->attrs) &&
           (!(flags & VISIT_AD) || (run->accessed == next->accessed && run->dirty == next->dirty));
}

static int OP(visit)(struct table *t, uint64_t first, uint64_t last, unsigned flags, visit_fn fn,
                     void *ctx)
{
    struct table_cursor c;
    struct mapping run, page;
    uint64_t entry;
    bool have = false;

    if (first > last || first < KIND.input_first || last > KIND.input_last)
        return E_RANGE;
    cursor_start(&c, t, first, last);
    for (bool more = true; more && find_leaf(&c, &entry); more = advance(&c, page.last)) {
        describe_leaf(&c, entry, &page);
        if (have && !(flags & VISIT_PAGES) && continues(&run, &page, flags)) {
            run.last = page.last;
            run.accessed |= page.accessed;
            run.dirty |= page.dirty;
            continue;
        }
        int stop = have ? fn(ctx, &run) : 0;
        if (stop)
            return stop;
        run = page;
        have = true;
    }
    return have ? fn(ctx, &run) : 0;
}

/* The node below the cursor's slot, before it is entered. */
static inline struct table_node node_below(const struct table_cursor *c, uint64_t entry)
{
    return (struct table_node){
        .frame = hpa(entry & ENTRY_ADDRESS),
        .level = c->level - 1,
        .first = align_down(c->at, size_of(c->level)),
        .last = slot_last(c),
        .rights = c->rights[c->level] & KIND.table_rights(entry, &c->table->caps),
        .parent = hpa(c->node[c->level]),
        .index = index_of(c->at, c->level),
    };
}

static int OP(visit_nodes)(struct table *t, table_node_fn fn, void *ctx)
{
    struct table_cursor c;
    struct table_node node = {.frame = t->root,
                              .level = KIND.levels,
                              .first = KIND.input_first,
                              .last = KIND.input_last,
                              .rights = ~0u};
    enum node_verdict verdict = fn(ctx, &node);

    if (verdict != NODE_ENTER)
        return verdict == NODE_STOP;
    cursor_start(&c, t, node.first, node.last);
    do {
        for (verdict = NODE_ENTER; verdict == NODE_ENTER && c.level > 1;) {
            uint64_t entry = read_entry(&c);

            if (!is_node(entry, c.level))
                break;
            node = node_below(&c, entry);
            verdict = fn(ctx, &node);
            if (verdict == NODE_ENTER)
                descend(&c, entry);
        }
        if (verdict == NODE_STOP)
            return 1;
    } while (advance(&c, c.level == 1 ? node_last(&c) : slot_last(&c)));
    return 0;
}

#endif
