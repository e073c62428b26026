/* Trials of the auditor's self-test: table frames, their records, and their entries. */
#include "mm/audit/selftest.h"

/* ---- Frames --------------------------------------------------------------------------------- */

static void table_outside_ram(struct damage *d, uint64_t unused)
{
    uint64_t *slot = scratch_slot(TABLE_GUEST, GUEST_FAR, 2);

    (void)unused;
    damage_word(d, slot, leading_to(*slot, no_ram()));
    expect(d, TABLE_GUEST, GUEST_FAR, no_ram());
}

static void table_in_state(struct damage *d, uint64_t state)
{
    uint64_t *slot = scratch_slot(TABLE_GUEST, GUEST_FAR, 2);
    hpa_t frame = damage_frame(d, scratch.table[TABLE_GUEST].kind->purpose, OWNER_HOST);

    if (d->no_memory)
        return;
    damage_state(d, frame, (enum frame_state)state);
    damage_word(d, slot, leading_to(*slot, frame));
    expect(d, TABLE_GUEST, GUEST_FAR, frame);
}

static void table_recorded_as(struct damage *d, uint64_t purpose)
{
    hpa_t frame = leads_to(scratch_slot(TABLE_GUEST, 0, 2));

    damage_record(d, frame, FRAME_PURPOSE_MASK, purpose << FRAME_PURPOSE_SHIFT);
    expect(d, TABLE_GUEST, 0, frame);
}

static void root_recorded_as(struct damage *d, uint64_t purpose)
{
    hpa_t root = scratch.table[TABLE_OTHER].root;

    damage_record(d, root, FRAME_PURPOSE_MASK, purpose << FRAME_PURPOSE_SHIFT);
    expect(d, TABLE_OTHER, 0, root);
}

static void table_of_owner(struct damage *d, uint64_t owner)
{
    hpa_t frame = leads_to(scratch_slot(TABLE_GUEST, 0, 2));

    damage_record(d, frame, FRAME_OWNER_MASK, owner << FRAME_OWNER_SHIFT);
    expect(d, TABLE_GUEST, 0, frame);
}

static void table_twice(struct damage *d, uint64_t by)
{
    uint64_t *taken = scratch_slot(TABLE_GUEST, 0, 2), *slot = scratch_slot((enum which)by, 0, 2);

    damage_slot(d, slot + SPARE_PD_SLOT, *taken);
    expect(d, (enum which)by, SPARE_PD_SLOT * 2 * MiB, leads_to(taken));
}

static void table_circle(struct damage *d, uint64_t unused)
{
    uint64_t *above = scratch_slot(TABLE_GUEST, 0, 3), *slot = scratch_slot(TABLE_GUEST, 0, 2);

    (void)unused;
    damage_slot(d, slot + SPARE_PD_SLOT, *above);
    expect(d, TABLE_GUEST, SPARE_PD_SLOT * 2 * MiB, leads_to(above));
}

static void table_miscounted(struct damage *d, uint64_t change)
{
    struct table *table = &scratch.table[TABLE_PROGRAM];

    damage_word(d, &table->table_frames, table->table_frames + change);
    expect_frame(d, TABLE_PROGRAM, table->root);
}

static void stray_table(struct damage *d, uint64_t which)
{
    damage_stray(d, (enum which)which, scratch.table[which].purpose);
}

/* ---- Entries -------------------------------------------------------------------------------- */

/* Bits that an entry must not have, or must not lack. Of the second level some are EPT's (SDM Vol.
 * 3, 29.3.2), some those of AMD's nested tables (APM Vol. 2, 15.25.5, 5.3.3). */
static const struct bad_bits {
    enum which table;
    unsigned level;
    uint64_t in, set, clear;
} bad_bits[] = {
    {TABLE_GUEST, 1, PAGE_SIZE, 0, BIT(0)},             /* writable, not readable */
    {TABLE_GUEST, 1, GUEST_FAR, 0, BIT(0)},             /* executable alone, not offered */
    {TABLE_GUEST, 1, PAGE_SIZE, BITS(4, 3), BIT(5)},    /* memory type 3 */
    {TABLE_GUEST, 2, GUEST_FAR, BIT(3), 0},             /* reserved in a non-leaf entry */
    {TABLE_GUEST, 2, 0, BIT(7) | BIT(13), 0},           /* 2 MiB at no multiple of it */
    {TABLE_GUEST, 4, 0, BIT(7), 0},                     /* a leaf at the root */
    {TABLE_PROGRAM, 4, USER_TEXT, BIT(7), 0},           /* likewise */
    {TABLE_PROGRAM, 2, USER_TEXT, BIT(7) | BIT(13), 0}, /* 2 MiB at no multiple of it */
    {TABLE_GUEST, 1, PAGE_SIZE, 0, BIT(2)},             /* a supervisor's, of a nested table */
    {TABLE_GUEST, 2, GUEST_FAR, 0, BIT(2)},             /* likewise */
    {TABLE_GUEST, 3, 0, BIT(8), 0},                     /* reserved where there is no page */
    {TABLE_GUEST, 4, 0, BIT(8), 0},                     /* likewise */
};

static void bad_entry(struct damage *d, uint64_t index)
{
    const struct bad_bits *bad = &bad_bits[index];
    struct table *table = &scratch.table[bad->table];
    uint64_t *slot = scratch_slot(bad->table, bad->in, bad->level);

    damage_word(d, slot, (*slot & ~bad->clear) | bad->set);
    expect(d, bad->table, align_down(bad->in, level_size(table->kind, bad->level)),
           direct_hpa(slot));
}

static void beyond_maxphyaddr(struct damage *d, uint64_t which)
{
    uint64_t in = which == TABLE_GUEST ? PAGE_SIZE : USER_DATA;
    uint64_t *slot = scratch_slot((enum which)which, in, 1);

    damage_word(d, slot, *slot | BIT(scratch.table[which].caps.maxphyaddr));
    expect(d, (enum which)which, in, direct_hpa(slot));
}

static void address_in_absent(struct damage *d, uint64_t which)
{
    uint64_t *slot = scratch_slot((enum which)which, which == TABLE_GUEST ? 0 : USER_TEXT, 4) + 3;
    struct table *table = &scratch.table[which];

    damage_word(d, slot, table->root.v); /* it is of no kind's present bits */
    expect(d, (enum which)which, table->kind->input_first, direct_hpa(slot));
}

static void entries_miscounted(struct damage *d, uint64_t entries)
{
    uint64_t *slot = scratch_slot(TABLE_GUEST, GUEST_FAR, 1);

    damage_count(d, slot, entries);
    expect(d, TABLE_GUEST, GUEST_FAR, direct_hpa(slot));
}

static const struct trial trials[] = {
    {AUDIT_TABLE_MEMORY, "an entry leads outside all RAM", table_outside_ram, 0},
    {AUDIT_TABLE_MEMORY, "an entry leads to a free frame", table_in_state, FRAME_FREE},
    {AUDIT_TABLE_MEMORY, "an entry leads to a cached frame", table_in_state, FRAME_CACHED},
    {AUDIT_TABLE_MEMORY, "an entry leads to a dying frame", table_in_state, FRAME_DYING},
    {AUDIT_TABLE_MEMORY, "an entry leads to a reserved frame", table_in_state, FRAME_RESERVED},
    {AUDIT_TABLE_TAG, "a PT is recorded as a heap", table_recorded_as, PURPOSE_HEAP},
    {AUDIT_TABLE_TAG, "a PT is recorded as guest memory", table_recorded_as, PURPOSE_GUEST_RAM},
    {AUDIT_TABLE_TAG, "a root is recorded as another kind's", root_recorded_as, PURPOSE_HOST_TABLE},
    {AUDIT_TABLE_OWNER, "a PT is recorded as another guest's", table_of_owner, OWNER_OTHER},
    {AUDIT_TABLE_ONCE, "a PT hangs in two slots", table_twice, TABLE_GUEST},
    {AUDIT_TABLE_ONCE, "a PT hangs in two tables", table_twice, TABLE_OTHER},
    {AUDIT_TABLE_ONCE, "a PD hangs in itself", table_circle, 0},
    {AUDIT_TABLE_COUNT, "a table counts a frame more than it has", table_miscounted, 1},
    {AUDIT_TABLE_STRAY, "a table frame of a guest hangs nowhere", stray_table, TABLE_GUEST},
    {AUDIT_TABLE_STRAY, "a table frame of the kernel hangs nowhere", stray_table, TABLE_KERNEL},
    {AUDIT_ENTRY_LEGAL, "a large leaf of a guest is misaligned", bad_entry, 4},
    {AUDIT_ENTRY_LEGAL, "a guest's root holds a leaf", bad_entry, 5},
    {AUDIT_ENTRY_LEGAL, "a program's root holds a leaf", bad_entry, 6},
    {AUDIT_ENTRY_LEGAL, "a large leaf of a program is misaligned", bad_entry, 7},
    {AUDIT_ENTRY_LEGAL, "a guest's leaf is beyond MAXPHYADDR", beyond_maxphyaddr, TABLE_GUEST},
    {AUDIT_ENTRY_LEGAL, "a program's leaf is beyond MAXPHYADDR", beyond_maxphyaddr, TABLE_PROGRAM},
    {AUDIT_ENTRY_ABSENT, "an absent entry of a guest's leads somewhere", address_in_absent,
     TABLE_GUEST},
    {AUDIT_ENTRY_ABSENT, "an absent entry of a program's leads somewhere", address_in_absent,
     TABLE_PROGRAM},
    {AUDIT_ENTRY_COUNT, "a record counts an entry too many", entries_miscounted, 1},
};

static const struct trial trials_of_ept[] = {
    {AUDIT_ENTRY_LEGAL, "a leaf is writable but not readable", bad_entry, 0},
    {AUDIT_ENTRY_LEGAL, "a leaf is executable alone", bad_entry, 1},
    {AUDIT_ENTRY_LEGAL, "a leaf has a reserved memory type", bad_entry, 2},
    {AUDIT_ENTRY_LEGAL, "a non-leaf entry has a reserved bit", bad_entry, 3},
};

static const struct trial trials_of_npt[] = {
    {AUDIT_ENTRY_LEGAL, "a leaf is closed to the user", bad_entry, 8},
    {AUDIT_ENTRY_LEGAL, "a non-leaf entry is closed to the user", bad_entry, 9},
    {AUDIT_ENTRY_LEGAL, "a non-leaf entry has a reserved bit", bad_entry, 10},
    {AUDIT_ENTRY_LEGAL, "a root's entry has a reserved bit", bad_entry, 11},
};

const struct trials node_trials = {trials, ARRAY_SIZE(trials)};
const struct trials ept_trials = {trials_of_ept, ARRAY_SIZE(trials_of_ept)};
const struct trials npt_trials = {trials_of_npt, ARRAY_SIZE(trials_of_npt)};
