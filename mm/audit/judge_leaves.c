/*
 * The memory that leaves show to a guest or a program: RAM, in use, for this purpose, this owner's;
 * or shared. See mm/audit/audit.h.
 */
#include "mm/audit/auditor.h"

#include "mm/frames/buddy.h"

/* Counts frames as reached; those reached before are to be shared. False: no scratch memory. */
static bool reach_memory(struct auditor *a, uint64_t in, hpa_t base, uint64_t frames,
                         const struct frame_info *info)
{
    uint64_t again, first;

    a->error = tally_add(&a->reached, pfn_of(base), frames, &again, &first);
    if (a->error != E_OK)
        return false;
    a->totals->memory += frames - again;
    if (info->owner == a->now->table->owner)
        a->memory += frames - again;
    if (again != 0 && info->state != FRAME_SHARED)
        found(a, AUDIT_LEAF_SHARED, a->now->name,
              at_both(in + ((first - pfn_of(base)) << PAGE_SHIFT), hpa_of_pfn(first)),
              "%lu frames from here are shown elsewhere as well, and not shared", again);
    return true;
}

/* What is wrong with this block's being shown by the table; AUDIT_RULES: nothing. */
static enum audit_rule shown_rule(const struct audit_table *t, const struct frame_info *info)
{
    switch (info->state) {
    case FRAME_FREE:
    case FRAME_CACHED:
    case FRAME_DYING:
        return AUDIT_LEAF_FREE;
    case FRAME_RESERVED:
        return AUDIT_LEAF_PURPOSE;
    case FRAME_USED:
    case FRAME_TAIL:
    case FRAME_SHARED:
        break;
    }
    if ((t->shows >> info->purpose & 1) == 0)
        return AUDIT_LEAF_PURPOSE;
    return info->owner != t->table->owner && info->owner != OWNER_SHARED &&
                   info->state != FRAME_SHARED
               ? AUDIT_LEAF_OWNER
               : AUDIT_RULES;
}

/* Judges [base, base + size), shown from `in` on, block by block, up to the first that is wrong. */
bool judge_shown(struct auditor *a, uint64_t in, hpa_t base, uint64_t size)
{
    const struct audit_table *t = a->now;

    for (uint64_t done = 0, part; done < size; done += part) {
        hpa_t at = hpa_add(base, done), head;
        uint64_t record;

        if (!buddy_block(at, &head, &record)) {
            a->moot = true;
            found(a, AUDIT_LEAF_RAM, t->name, at_both(in + done, at), "it shows what is not RAM");
            return true;
        }
        struct frame_info info = frame_record_decode(record);
        enum audit_rule rule = shown_rule(t, &info);

        if (rule != AUDIT_RULES) {
            a->moot = true;
            found(a, rule, t->name, at_both(in + done, at),
                  "it shows a frame that is %s: %s of owner %u", frame_state_name(info.state),
                  purpose_name(info.purpose), info.owner);
            return true;
        }
        part = head.v + (PAGE_SIZE << info.order) - at.v;
        if (part > size - done)
            part = size - done;
        if (!reach_memory(a, in + done, at, part >> PAGE_SHIFT, &info))
            return false;
    }
    return true;
}
