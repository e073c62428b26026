/* How the auditor's self-test breaks a thing, and puts it right (mm/audit/selftest.h). */
#include "mm/audit/selftest.h"

#include "lib/panic.h"
#include "mm/frames/buddy.h"

void damage_word(struct damage *d, uint64_t *word, uint64_t value)
{
    invariant(d->pokes < UNDO_LIMIT);
    d->poke[d->pokes].word = word;
    d->poke[d->pokes++].was = *word;
    *word = value;
}

void damage_record(struct damage *d, hpa_t frame, uint64_t mask, uint64_t value)
{
    uint64_t *record = &frame_records[pfn_of(frame)];

    damage_word(d, record, (*record & ~mask) | value);
}

void damage_state(struct damage *d, hpa_t frame, enum frame_state state)
{
    damage_record(d, frame, FRAME_STATE_MASK, state);
}

void damage_count(struct damage *d, const uint64_t *slot, uint64_t entries)
{
    hpa_t table = hpa(align_down(direct_hpa(slot).v, PAGE_SIZE));

    damage_record(d, table, FRAME_PAYLOAD_MASK,
                  (frame_payload(table) + entries) << FRAME_PAYLOAD_SHIFT);
}

void damage_slot(struct damage *d, uint64_t *slot, uint64_t entry)
{
    invariant(*slot == 0);
    damage_word(d, slot, entry);
    damage_count(d, slot, 1);
}

hpa_t damage_frame(struct damage *d, enum frame_purpose purpose, owner_t owner)
{
    d->owner = owner;
    if (buddy_alloc(0, purpose, owner, &d->frame) != E_OK)
        d->no_memory = true;
    return d->frame;
}

void damage_stray(struct damage *d, enum which which, enum frame_purpose purpose)
{
    hpa_t frame = damage_frame(d, purpose, scratch.table[which].owner);

    if (d->no_memory)
        return;
    if (scratch.described[which].others != AUDIT_UNKNOWN)
        damage_word(d, &scratch.described[which].others, scratch.described[which].others + 1);
    expect_frame(d, which, frame);
}

void damage_undo(struct damage *d)
{
    while (d->pokes-- > 0)
        *d->poke[d->pokes].word = d->poke[d->pokes].was;
    if (d->batch_open)
        flush_commit(&scratch.batch);
    if (d->frame.v != 0)
        invariant(buddy_free(d->frame, 0, d->owner) == E_OK);
}
