/*
 * What is judged of a table as a whole: its count of frames and its owner's, its root register, the
 * kernel's half of its root, its flush batches; and guard pages. See mm/audit/audit.h.
 */
#include "mm/audit/auditor.h"

#include "mm/frames/buddy.h"
#include "mm/paging/pte.h"

void judge_counts(struct auditor *a)
{
    const struct audit_table *t = a->now;
    owner_t owner = t->table->owner;
    uint64_t reached = a->tables + a->memory + t->others;

    if (a->moot) {
        a->totals->moot = true;
        return;
    }
    if (judging(a, AUDIT_TABLE_COUNT) && t->table->table_frames != a->tables)
        found(a, AUDIT_TABLE_COUNT, t->name, at_frame(t->table->root),
              "it counts %lu table frames, and %lu were reached", t->table->table_frames,
              a->tables);
    if (t->others == AUDIT_UNKNOWN || !judging(a, AUDIT_OWNER_COUNT))
        return;
    uint64_t charged = buddy_owner_frames(owner);
    if (charged != reached)
        found(a, AUDIT_OWNER_COUNT, t->name, at_frame(t->table->root),
              "owner %u holds %lu frames; %lu tables, %lu of memory and %lu others are known",
              owner, charged, a->tables, a->memory, t->others);
}

static uint64_t canonical(const struct table_kind *k, uint64_t in)
{
    uint64_t top = level_size(k, k->levels + 1u) >> 1;

    return k->sign_extended && (in & top) ? in | ~(2 * top - 1) : in;
}

void judge_upper_half(struct auditor *a)
{
    const struct audit_table *t = a->now;
    const struct table_kind *k = t->table->kind;

    if (t->upper == NULL || !judging(a, AUDIT_UPPER_HALF))
        return;
    const uint64_t *theirs = direct(t->upper->root), *ours = direct(t->table->root);
    unsigned slots = 1u << k->index_bits;
    for (unsigned i = slots / 2; i < slots; i++) {
        uint64_t their = pte_peek(&theirs[i]), our = pte_peek(&ours[i]);

        /* A and D of a root entry are the CPU's to set, in either root. */
        if ((their ^ our) & ~(k->accessed_bit | k->dirty_bit))
            found(a, AUDIT_UPPER_HALF, t->name,
                  at_both(canonical(k, i * level_size(k, k->levels)), direct_hpa(&ours[i])),
                  "root entry %u holds 0x%lx, the kernel's 0x%lx", i, our, their);
    }
}

void judge_root(struct auditor *a)
{
    const struct audit_table *t = a->now;
    struct audit_root root;

    if (t->read_root == NULL || !judging(a, AUDIT_ROOT))
        return;
    int error = t->read_root(t, &root);
    if (error != E_OK)
        found(a, AUDIT_ROOT, t->name, at_frame(t->table->root),
              "its root register cannot be read back: %s", error_text(error));
    else if (root.frame.v != t->table->root.v)
        found(a, AUDIT_ROOT, t->name, at_frame(t->table->root), "its root register leads to 0x%lx",
              root.frame.v);
    else if (root.levels != t->table->kind->levels)
        found(a, AUDIT_ROOT, t->name, at_frame(t->table->root),
              "its root register is for %u levels, it has %u", root.levels, t->table->kind->levels);
}

void judge_batches(struct auditor *a)
{
    const struct audit_table *t = a->now;

    if (judging(a, AUDIT_BATCHES) && t->table->open_batches != 0)
        found(a, AUDIT_BATCHES, t->name, at_frame(t->table->root),
              "%lu batches begun and not committed", t->table->open_batches);
}

static bool is_unsafe(const struct auditor *a, const struct table *table)
{
    for (unsigned i = 0; i < a->audit->tables; i++)
        if (a->audit->table[i].table == table && !can_visit(a, i))
            return true;
    return false;
}

void judge_guards(struct auditor *a)
{
    for (unsigned i = 0; i < a->audit->guards; i++) {
        const struct audit_guard *guard = &a->audit->guard[i];

        if (is_unsafe(a, guard->table) || !judging(a, AUDIT_GUARD))
            continue;
        for (unsigned n = 0; n < guard->count; n++) {
            uint64_t at = guard->first + n * guard->stride;
            struct mapping mapping;

            if (table_translate(guard->table, at, &mapping) != E_NOENT)
                found(a, AUDIT_GUARD, guard->table_name, at_input(at), "%s is mapped", guard->name);
        }
    }
}
