/*
 * The nodes of a table: whose frame each lies in, and what its entries hold. The descent is the
 * mapper's (table_visit_nodes()); here each node is judged before it is read, and none is entered
 * twice. See mm/audit/audit.h.
 */
#include "mm/audit/auditor.h"

#include "mm/frames/buddy.h"
#include "mm/paging/pte.h"

/* ---- Entries -------------------------------------------------------------------------------- */

/* Address bits that a legal leaf of this level may have: what is legal does not depend on them. */
static uint64_t free_address_bits(const struct table_kind *k, const struct table_caps *caps,
                                  unsigned level)
{
    unsigned width = caps->maxphyaddr < 52 ? caps->maxphyaddr : 52;

    return BITS(width - 1, level_shift(k, level)) & ENTRY_ADDRESS;
}

/* entry_rule(). Leaves of one table are mostly alike: the last legal one's flags are remembered. */
static enum rule judge_entry(struct auditor *a, unsigned level, uint64_t entry)
{
    const struct table *t = a->now->table;
    uint64_t flags;

    if (level > 3 || level > t->caps.leaf_top)
        return entry_rule(t->kind, &t->caps, level, entry);
    flags = entry & ~free_address_bits(t->kind, &t->caps, level);
    if (a->have_legal[level] && a->legal[level] == flags)
        return RULE_OK;
    enum rule rule = entry_rule(t->kind, &t->caps, level, entry);
    if (rule == RULE_OK && entry_leaf(t->kind, entry, level)) {
        a->legal[level] = flags;
        a->have_legal[level] = true;
    }
    return rule;
}

static void mark_unsafe(struct auditor *a)
{
    unsigned index = (unsigned)(a->now - a->audit->table);

    a->unsafe[index / 64] |= BIT(index % 64);
    a->moot = true;
}

/* Leaves of a node that show one piece of memory. */
struct shown {
    uint64_t in, base, size;
};

/* Judges what was collected. False: no scratch memory. */
static bool end_shown(struct auditor *a, const struct shown *run)
{
    return run->size == 0 || judge_shown(a, run->in, hpa(run->base), run->size);
}

/* One leaf more. False: no scratch memory. */
static bool add_shown(struct auditor *a, struct shown *run, uint64_t in, uint64_t base,
                      uint64_t size)
{
    if (run->size != 0 && run->base + run->size == base && run->in + run->size == in) {
        run->size += size;
        return true;
    }
    bool judged = end_shown(a, run);
    *run = (struct shown){in, base, size};
    return judged;
}

/* The present entries of a node, as its frame's record counts them. */
static void judge_entry_count(struct auditor *a, const struct table_node *node, uint64_t present)
{
    uint64_t recorded = frame_payload(node->frame);

    a->totals->entries += present;
    if (judging(a, AUDIT_ENTRY_COUNT) && recorded != present)
        found(a, AUDIT_ENTRY_COUNT, a->now->name, at_both(node->first, node->frame),
              "the %s has %lu present entries, its frame's record says %lu",
              level_name(node->level), present, recorded);
}

/* An entry that is not present and leads somewhere all the same may be followed ahead of time, on a
 * CPU with the L1 terminal fault. */
static void judge_absent(struct auditor *a, const struct table_node *node, const uint64_t *slot,
                         uint64_t entry)
{
    if (judging(a, AUDIT_ENTRY_ABSENT))
        found(a, AUDIT_ENTRY_ABSENT, a->now->name, at_both(node->first, direct_hpa(slot)),
              "an entry of the %s is not present, and holds 0x%lx", level_name(node->level), entry);
}

/* The first present entry from `i` on; `end`: none. */
static unsigned next_present(struct auditor *a, const struct table_node *node,
                             const uint64_t *slots, unsigned i, unsigned end)
{
    uint64_t mask = a->now->table->kind->present_mask, entry;

    for (; i < end && !((entry = pte_peek(&slots[i])) & mask); i++)
        if (entry != 0)
            judge_absent(a, node, &slots[i], entry);
    return i;
}

/* Judges every entry of a node, but for where non-leaf ones lead to; *children: how many of these
 * may be followed. False: no scratch memory. */
static bool judge_entries(struct auditor *a, const struct table_node *node, unsigned *children)
{
    const struct table_kind *k = a->now->table->kind;
    unsigned begin = slots_first(k, node->level), end = slots_end(k, node->level);
    const uint64_t *slots = direct(node->frame);
    uint64_t step = level_size(k, node->level), present = 0;
    uint64_t base = align_down(node->first, step); /* a kind may begin within a slot */
    struct shown run = {0};

    *children = 0;
    for (unsigned i = begin; (i = next_present(a, node, slots, i, end)) < end; i++) {
        uint64_t entry = pte_peek(&slots[i]), in = base + (i - begin) * step;
        enum rule rule = judge_entry(a, node->level, entry);

        present++;
        if (rule != RULE_OK) {
            mark_unsafe(a); /* other walks have no doubt of it */
            found(a, AUDIT_ENTRY_LEGAL, a->now->name, at_both(in, direct_hpa(&slots[i])),
                  "%s entry %u holds 0x%lx: %s", level_name(node->level), i, entry,
                  rule_text(rule));
        } else if (!entry_leaf(k, entry, node->level)) {
            (*children)++;
        } else if (a->now->shows != 0 &&
                   !add_shown(a, &run, in, entry_leaf_address(k, entry, node->level), step)) {
            return false;
        }
    }
    if (!end_shown(a, &run))
        return false;
    judge_entry_count(a, node, present);
    return true;
}

/* ---- Frames --------------------------------------------------------------------------------- */

/* Is it recorded as a frame of a table like this? */
static bool judge_record(struct auditor *a, const struct table_node *node,
                         const struct frame_info *info)
{
    const struct audit_table *t = a->now;
    struct place place = at_both(node->first, node->frame);
    const char *name = level_name(node->level);

    if (info->state != FRAME_USED || info->order != 0)
        found(a, AUDIT_TABLE_MEMORY, t->name, place, "its %s is in no table frame: %s, of order %u",
              name, frame_state_name(info->state), info->order);
    else if (info->purpose != t->table->purpose)
        found(a, AUDIT_TABLE_TAG, t->name, place, "the frame of its %s is recorded as %s", name,
              purpose_name(info->purpose));
    else
        return true;
    return false;
}

/* Is this frame a node of ours, to be read now? Counts it as reached. */
static bool judge_frame(struct auditor *a, const struct table_node *node)
{
    const struct audit_table *t = a->now;
    struct place place = at_both(node->first, node->frame);
    const char *name = level_name(node->level);
    struct frame_info info;
    uint64_t again = 0, first;

    if (frame_query(node->frame, &info, NULL) != E_OK) {
        mark_unsafe(a);
        found(a, AUDIT_TABLE_MEMORY, t->name, place, "its %s lies outside all RAM", name);
        return false;
    }
    if (!judge_record(a, node, &info)) {
        mark_unsafe(a);
        return false;
    }
    a->error = tally_add(&a->reached, pfn_of(node->frame), 1, &again, &first);
    if (a->error != E_OK)
        return false;
    if (again != 0) {
        mark_unsafe(a); /* there may be a circle */
        found(a, AUDIT_TABLE_ONCE, t->name, place, "its %s has been reached on another way already",
              name);
        return false;
    }
    if (info.owner != t->table->owner) {
        a->moot = true;
        found(a, AUDIT_TABLE_OWNER, t->name, place,
              "the frame of its %s is recorded as owner %u's, not %u's", name, info.owner,
              t->table->owner);
    }
    a->tables++;
    return true;
}

/* ---- The descent ---------------------------------------------------------------------------- */

/* May the entry be followed that led here? If not, that was said when its node was judged. */
static bool led_by_legal_entry(const struct auditor *a, const struct table_node *node)
{
    const struct table *t = a->now->table;
    const uint64_t *parent = direct(node->parent);

    return node->level == t->kind->levels || entry_rule(t->kind, &t->caps, node->level + 1,
                                                        pte_peek(&parent[node->index])) == RULE_OK;
}

static enum node_verdict judge_node(void *ctx, const struct table_node *node)
{
    struct auditor *a = ctx;
    unsigned children = 0;

    if (audit_stopped(a))
        return NODE_STOP;
    if (!led_by_legal_entry(a, node))
        return NODE_SKIP;
    if (judge_frame(a, node))
        judge_entries(a, node, &children);
    if (a->error != E_OK)
        return NODE_STOP;
    return children != 0 ? NODE_ENTER : NODE_SKIP;
}

void judge_nodes(struct auditor *a)
{
    table_visit_nodes(a->now->table, judge_node, a);
    a->totals->table_frames += a->tables;
}
