/* Trials of the auditor's self-test: what is judged of tables as a whole, and of the machine. */
#include "mm/audit/selftest.h"

static void frame_unaccounted(struct damage *d, uint64_t which)
{
    damage_frame(d, PURPOSE_VCPU, scratch.table[which].owner);
    expect_frame(d, (enum which)which, scratch.table[which].root);
}

static void write_and_execute(struct damage *d, uint64_t unused)
{
    uint64_t *slot = scratch_slot(TABLE_PROGRAM, USER_TEXT, 1);

    (void)unused;
    damage_word(d, slot, *slot | BIT(1));
    expect(d, TABLE_PROGRAM, USER_TEXT, leads_to(slot));
}

/* The kernel's slot `offset` shows the frame of `of` with the rights of `like`. */
static void alias(struct damage *d, uint64_t offset, uint64_t of, uint64_t like)
{
    uint64_t *text = scratch_slot(TABLE_KERNEL, kernel_address(of), 1);
    uint64_t *data = scratch_slot(TABLE_KERNEL, kernel_address(like), 1);

    damage_slot(d, data + (offset - like) / PAGE_SIZE, leading_to(*data, leads_to(text)));
}

static void writable_alias(struct damage *d, uint64_t unused)
{
    hpa_t text = leads_to(scratch_slot(TABLE_KERNEL, kernel_address(KERNEL_TEXT), 1));

    (void)unused;
    alias(d, KERNEL_ALIAS, KERNEL_TEXT, KERNEL_DATA);
    expect(d, TABLE_KERNEL, kernel_address(KERNEL_ALIAS), text);
}

static void executable_alias(struct damage *d, uint64_t unused)
{
    hpa_t data = leads_to(scratch_slot(TABLE_KERNEL, kernel_address(KERNEL_DATA), 1));

    (void)unused;
    alias(d, KERNEL_ALIAS, KERNEL_DATA, KERNEL_TEXT);
    expect(d, TABLE_KERNEL, kernel_address(KERNEL_DATA), data);
}

static void guard_mapped(struct damage *d, uint64_t unused)
{
    (void)unused;
    alias(d, KERNEL_GUARD, KERNEL_DATA, KERNEL_DATA);
    d->table = TABLE_KERNEL;
    d->has_in = true;
    d->in = kernel_address(KERNEL_GUARD);
}

static void upper_half_differs(struct damage *d, uint64_t index)
{
    struct table *table = &scratch.table[TABLE_PROGRAM];
    uint64_t *slot = (uint64_t *)direct(table->root) + index;
    unsigned shift = level_shift(table->kind, table->kind->levels);

    damage_word(d, slot, *slot ^ BIT(1));
    expect(d, TABLE_PROGRAM, kernel_address((index - 256) << shift), direct_hpa(slot));
}

static void root_differs(struct damage *d, uint64_t unused)
{
    (void)unused;
    damage_word(d, &scratch.root_in_cpu.frame.v, scratch.table[TABLE_OTHER].root.v);
    expect_frame(d, TABLE_GUEST, scratch.table[TABLE_GUEST].root);
}

static void batch_open(struct damage *d, uint64_t unused)
{
    (void)unused;
    flush_begin(&scratch.batch, &scratch.table[TABLE_GUEST]);
    flush_whole(&scratch.batch);
    d->batch_open = true;
    expect_frame(d, TABLE_GUEST, scratch.table[TABLE_GUEST].root);
}

static void dying(struct damage *d, uint64_t which)
{
    damage_stray(d, (enum which)which, PURPOSE_GUEST_RAM);
    if (!d->no_memory)
        damage_state(d, d->frame, FRAME_DYING);
}

static const struct trial trials[] = {
    {AUDIT_OWNER_COUNT, "a guest is charged with an unknown frame", frame_unaccounted, TABLE_GUEST},
    {AUDIT_WRITE_EXECUTE, "a leaf is writable and executable", write_and_execute, 0},
    {AUDIT_WRITE_EXECUTE, "text has a writable alias", writable_alias, 0},
    {AUDIT_WRITE_EXECUTE, "data has an executable alias", executable_alias, 0},
    {AUDIT_GUARD, "a guard page is mapped", guard_mapped, 0},
    {AUDIT_UPPER_HALF, "a root has its own idea of the first kernel entry", upper_half_differs,
     256},
    {AUDIT_UPPER_HALF, "a root has its own idea of the last kernel entry", upper_half_differs, 511},
    {AUDIT_ROOT, "the root register holds another root", root_differs, 0},
    {AUDIT_BATCHES, "a flush batch is not committed", batch_open, 0},
    {AUDIT_DYING, "a frame waits for a flush that is over", dying, TABLE_GUEST},
};

const struct trials whole_trials = {trials, ARRAY_SIZE(trials)};
