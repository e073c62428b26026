/* Trials of the auditor's self-test: the memory that leaves show. */
#include "mm/audit/selftest.h"

static void show_instead(struct damage *d, hpa_t frame)
{
    uint64_t *slot = scratch_slot(TABLE_GUEST, PAGE_SIZE, 1);

    damage_word(d, slot, leading_to(*slot, frame));
    expect(d, TABLE_GUEST, PAGE_SIZE, frame);
}

static void shows_no_ram(struct damage *d, uint64_t unused)
{
    (void)unused;
    show_instead(d, no_ram());
}

static void shows_state(struct damage *d, uint64_t state)
{
    hpa_t frame = damage_frame(d, PURPOSE_GUEST_RAM, OWNER_HOST);

    if (d->no_memory)
        return;
    damage_state(d, frame, (enum frame_state)state);
    show_instead(d, frame);
}

static void shows_purpose(struct damage *d, uint64_t purpose)
{
    hpa_t frame = damage_frame(d, (enum frame_purpose)purpose, OWNER_HOST);

    if (!d->no_memory)
        show_instead(d, frame);
}

static void shows_own_table(struct damage *d, uint64_t level)
{
    show_instead(d, leads_to(scratch_slot(TABLE_GUEST, GUEST_FAR, (unsigned)level)));
}

static void shows_others_memory(struct damage *d, uint64_t unused)
{
    (void)unused;
    show_instead(d, leads_to(scratch_slot(TABLE_OTHER, 0, 1)));
}

/* Shows the guest's first page a second time. */
static hpa_t show_again(struct damage *d)
{
    uint64_t *slot = scratch_slot(TABLE_GUEST, 0, 1);

    damage_slot(d, slot + GUEST_EMPTY / PAGE_SIZE, *slot);
    return leads_to(slot);
}

static void shown_twice(struct damage *d, uint64_t unused)
{
    hpa_t frame = show_again(d);

    (void)unused;
    expect(d, TABLE_GUEST, GUEST_EMPTY, frame);
}

static void shared_by(struct damage *d, uint64_t holders)
{
    hpa_t frame = show_again(d);

    damage_record(d, frame, FRAME_STATE_MASK | FRAME_PAYLOAD_MASK,
                  FRAME_SHARED | holders << FRAME_PAYLOAD_SHIFT);
    expect_frame(d, TABLE_GUEST, frame);
}

static void stray_memory(struct damage *d, uint64_t which)
{
    damage_stray(d, (enum which)which,
                 which == TABLE_PROGRAM ? PURPOSE_USER_RAM : PURPOSE_GUEST_RAM);
}

static const struct trial trials[] = {
    {AUDIT_LEAF_RAM, "a leaf shows what is not RAM", shows_no_ram, 0},
    {AUDIT_LEAF_FREE, "a leaf shows a free frame", shows_state, FRAME_FREE},
    {AUDIT_LEAF_FREE, "a leaf shows a cached frame", shows_state, FRAME_CACHED},
    {AUDIT_LEAF_FREE, "a leaf shows a dying frame", shows_state, FRAME_DYING},
    {AUDIT_LEAF_PURPOSE, "a leaf shows a reserved frame", shows_state, FRAME_RESERVED},
    {AUDIT_LEAF_PURPOSE, "a leaf shows firmware", shows_purpose, PURPOSE_FIRMWARE},
    {AUDIT_LEAF_PURPOSE, "a leaf shows the hypervisor's image", shows_purpose, PURPOSE_IMAGE},
    {AUDIT_LEAF_PURPOSE, "a leaf shows boot modules", shows_purpose, PURPOSE_BOOT},
    {AUDIT_LEAF_PURPOSE, "a leaf shows the frame database", shows_purpose, PURPOSE_FRAME_DB},
    {AUDIT_LEAF_PURPOSE, "a leaf shows a host table", shows_purpose, PURPOSE_HOST_TABLE},
    {AUDIT_LEAF_PURPOSE, "a leaf shows a program's table", shows_purpose, PURPOSE_USER_TABLE},
    {AUDIT_LEAF_PURPOSE, "a leaf shows a PT of its own", shows_own_table, 2},
    {AUDIT_LEAF_PURPOSE, "a leaf shows a PD of its own", shows_own_table, 3},
    {AUDIT_LEAF_PURPOSE, "a leaf shows a stack", shows_purpose, PURPOSE_STACK},
    {AUDIT_LEAF_PURPOSE, "a leaf shows per-CPU data", shows_purpose, PURPOSE_PERCPU},
    {AUDIT_LEAF_PURPOSE, "a leaf shows a VMCS", shows_purpose, PURPOSE_VCPU},
    {AUDIT_LEAF_PURPOSE, "a leaf shows a program's memory", shows_purpose, PURPOSE_USER_RAM},
    {AUDIT_LEAF_PURPOSE, "a leaf shows the heap", shows_purpose, PURPOSE_HEAP},
    {AUDIT_LEAF_OWNER, "a leaf shows another guest's memory", shows_others_memory, 0},
    {AUDIT_LEAF_SHARED, "a frame is shown twice, and not shared", shown_twice, 0},
    {AUDIT_LEAF_SHARED, "a frame is shown twice, and shared by three", shared_by, 3},
    {AUDIT_RULES, "a frame is shown twice, and shared by two", shared_by, 2},
    {AUDIT_LEAF_STRAY, "a guest's memory is shown nowhere", stray_memory, TABLE_GUEST},
    {AUDIT_LEAF_STRAY, "a program's memory is shown nowhere", stray_memory, TABLE_PROGRAM},
};

const struct trials leaf_trials = {trials, ARRAY_SIZE(trials)};
