/*
 * The records of all frames, against what the tables have reached: strays, frames that wait for a
 * flush, shared blocks. See mm/audit/audit.h.
 */
#include "mm/audit/auditor.h"

#include "mm/frames/buddy.h"

#define SHOWN_PURPOSES (BIT(PURPOSE_USER_RAM) | BIT(PURPOSE_GUEST_RAM))

/* The rule that wants frames of this owner and purpose reached; AUDIT_RULES: none. *name receives
 * the name of the owner's table, where there is one. */
static enum audit_rule stray_rule(const struct auditor *a, const struct frame_info *info,
                                  const char **name)
{
    const struct audit *audit = a->audit;
    uint64_t purpose = BIT(info->purpose);
    enum audit_rule rule = AUDIT_RULES;

    *name = NULL;
    if (audit->everyone)
        rule = purpose & TABLE_PURPOSES   ? AUDIT_TABLE_STRAY
               : purpose & SHOWN_PURPOSES ? AUDIT_LEAF_STRAY
                                          : AUDIT_RULES;
    for (unsigned i = 0; i < audit->tables && *name == NULL; i++) {
        const struct audit_table *t = &audit->table[i];

        if (t->table->owner != info->owner)
            continue;
        if (info->purpose == t->table->purpose || (purpose & t->shows)) {
            *name = t->name;
            rule = purpose & t->shows ? AUDIT_LEAF_STRAY : AUDIT_TABLE_STRAY;
        }
    }
    return rule;
}

static bool known_owner(const struct auditor *a, owner_t owner)
{
    for (unsigned i = 0; i < a->audit->tables; i++)
        if (a->audit->table[i].table->owner == owner)
            return true;
    return a->audit->everyone;
}

static void judge_reached(struct auditor *a, enum audit_rule rule, const char *name,
                          const struct frame_info *info, uint64_t pfn, uint64_t end)
{
    while ((pfn = tally_uncounted(&a->reached, pfn, end)) < end) {
        uint64_t first = pfn;

        while (pfn < end && tally_count(&a->reached, pfn) == 0)
            pfn++;
        found(a, rule, name, at_frame(hpa_of_pfn(first)),
              "%lu frames from here are recorded as %s of owner %u, and nothing reaches them",
              pfn - first, purpose_name(info->purpose), info->owner);
    }
}

/* Each frame of shared blocks that is shown more than once must be shown by all that share it. */
static void judge_shares(struct auditor *a, const char *name, uint64_t pfn, uint64_t end)
{
    while (pfn < end) {
        hpa_t head;
        uint64_t record;

        if (!buddy_block(hpa_of_pfn(pfn), &head, &record))
            return;
        struct frame_info info = frame_record_decode(record);
        uint64_t next = pfn_of(head) + (UINT64_C(1) << info.order);
        uint64_t holders = info.payload < TALLY_MOST ? info.payload : TALLY_MOST;

        for (; pfn < next && pfn < end; pfn++) {
            unsigned shown = tally_count(&a->reached, pfn);

            if (shown != holders && (shown > 1 || (shown == 1 && a->audit->everyone))) {
                found(a, AUDIT_LEAF_SHARED, name, at_frame(hpa_of_pfn(pfn)),
                      "it is shown %u times, and its record says it is shared by %lu", shown,
                      info.payload);
                break;
            }
        }
        pfn = next;
    }
}

static int judge_record(void *ctx, hpa_t base, uint64_t size, const struct frame_info *info)
{
    struct auditor *a = ctx;
    uint64_t pfn = pfn_of(base), end = pfn + (size >> PAGE_SHIFT);
    const char *name;
    enum audit_rule rule = stray_rule(a, info, &name);

    if (info->state == FRAME_DYING && known_owner(a, info->owner))
        found(a, AUDIT_DYING, name, at_frame(base),
              "%lu frames from here, %s of owner %u, were never freed after their flush", end - pfn,
              purpose_name(info->purpose), info->owner);
    if ((info->state != FRAME_USED && info->state != FRAME_SHARED) || rule == AUDIT_RULES)
        return 0;
    if (!a->totals->moot && judging(a, rule))
        judge_reached(a, rule, name, info, pfn, end);
    if (!a->totals->moot && info->state == FRAME_SHARED && judging(a, AUDIT_LEAF_SHARED))
        judge_shares(a, name, pfn, end);
    return 0;
}

static int poll_stopped(void *ctx)
{
    return audit_stopped(ctx);
}

void judge_records(struct auditor *a)
{
    if (buddy_visit_until(judge_record, a, poll_stopped, a) != 0)
        return;
    a->totals->rules |= a->audit->rules & (a->totals->moot ? BIT(AUDIT_DYING) : AUDIT_RECORDS);
}
