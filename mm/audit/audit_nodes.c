/* See mm/audit/audit_nodes.h. */
#include "mm/audit/audit_nodes.h"

#include "mm/paging/walker.h"

/* The child that an entry of `node` leads to. */
static struct table_node child_node(const struct table *t, const struct table_node *node,
                                    unsigned index, uint64_t entry)
{
    const struct table_kind *k = t->kind;
    unsigned before = node->level == k->levels ? root_first(k) : 0;
    uint64_t size = level_size(k, node->level);
    uint64_t first = align_down(node->first, size) + (index - before) * size;

    return (struct table_node){
        .frame = hpa(entry & ENTRY_ADDRESS),
        .level = node->level - 1,
        .first = first,
        .last = first + (size - 1),
        .rights = node->rights & k->table_rights(entry, &t->caps),
        .parent = node->frame,
        .index = index,
    };
}

int table_visit_nodes(struct table *table, table_node_fn fn, void *ctx)
{
    const struct table_kind *k = table->kind;
    unsigned level = k->levels;
    struct {
        struct table_node node;
        unsigned next, end;
    } at[MAX_LEVELS + 1];

    at[level].node = (struct table_node){
        .frame = table->root,
        .level = level,
        .first = k->input_first,
        .last = k->input_last,
        .rights = ~0u,
    };
    at[level].next = root_first(k);
    at[level].end = root_end(k);
    enum node_verdict verdict = fn(ctx, &at[level].node);
    if (verdict != NODE_ENTER)
        return verdict == NODE_STOP;
    while (level <= k->levels) {
        if (level == 1 || at[level].next == at[level].end) {
            level++;
            continue;
        }
        unsigned index = at[level].next++;
        const uint64_t *slots = direct(at[level].node.frame);
        uint64_t entry = pte_read(&slots[index]);
        if (!is_table(k, entry, level))
            continue;
        struct table_node child = child_node(table, &at[level].node, index, entry);
        verdict = fn(ctx, &child);
        if (verdict == NODE_STOP)
            return 1;
        if (verdict == NODE_SKIP)
            continue;
        level--;
        at[level].node = child;
        at[level].next = 0;
        at[level].end = slots_of(k);
    }
    return 0;
}
