/* See mm/audit/audit_selftest.h. */
#include "mm/audit/audit_selftest.h"

#include "lib/panic.h"
#include "lib/string.h"
#include "mm/frames/buddy.h"
#include "mm/paging/entry_count.h"
#include "mm/paging/pte.h"

#define OWNER_KERNEL (OWNER_LIMIT - 4)
#define OWNER_PROGRAM (OWNER_LIMIT - 3)
#define OWNER_OTHER (OWNER_LIMIT - 2)
#define OWNER_GUEST (OWNER_LIMIT - 1)

/* Input addresses; those of the kernel count from the lowest that its kind maps. */
#define KERNEL_TEXT UINT64_C(0x1000)
#define KERNEL_DATA UINT64_C(0x2000)
#define KERNEL_GUARD UINT64_C(0x5000)
#define KERNEL_ALIAS UINT64_C(0x6000)
#define USER_TEXT UINT64_C(0x400000)
#define USER_DATA UINT64_C(0x401000)
#define GUEST_PAGES 3
#define GUEST_FAR GiB /* reached by tables of its own */
#define GUEST_EMPTY UINT64_C(0x7000)
#define SPARE_PD_SLOT 5

#define UNDO_LIMIT 4

enum which { TABLE_KERNEL, TABLE_PROGRAM, TABLE_GUEST, TABLE_OTHER, TABLES };

/* One thing that is broken: what the auditor must say of it, and how it is put right. */
struct damage {
    enum which table;
    bool has_in, has_at;
    uint64_t in;
    hpa_t at;

    struct {
        uint64_t *word, was;
    } poke[UNDO_LIMIT];
    unsigned pokes;
    hpa_t frame; /* taken for it; 0: none */
    owner_t owner;
    bool batch_open;
    bool no_memory;
};

static struct scratch {
    struct table table[TABLES];
    struct audit_root root_in_cpu;
    struct audit_table described[TABLES];
    struct audit_guard guard;
    struct audit audit;
    struct flush_batch batch;

    /* What the auditor said. */
    unsigned findings;
    struct audit_finding first;
    char said[AUDIT_LINE];
} s;

/* ---- Tables that no CPU uses ---------------------------------------------------------------- */

static int take(const struct table_env *env, struct table *table, hpa_t *out)
{
    (void)env;
    return buddy_alloc(0, table->purpose, table->owner, out);
}

static void give(const struct table_env *env, struct table *table, hpa_t frame)
{
    (void)env;
    invariant(buddy_free(frame, 0, table->owner) == E_OK);
}

static void flush(const struct table_env *env, struct table *table, const struct flush_batch *batch)
{
    (void)env;
    (void)table;
    (void)batch;
}

static const struct table_env scratch_env = {.take = take,
                                             .give = give,
                                             .flush = flush,
                                             .frame_records = true};

static int read_root(const struct audit_table *table, struct audit_root *out)
{
    *out = *(const struct audit_root *)table->ctx;
    return E_OK;
}

/* A page of zeroes of the table owner's, mapped at `in`. */
static int show_page(struct table *table, uint64_t in, enum frame_purpose purpose, unsigned rights)
{
    struct flush_batch batch;
    hpa_t frame;
    int error = buddy_alloc(0, purpose, table->owner, &frame);

    if (error != E_OK)
        return error;
    memset(direct(frame), 0, PAGE_SIZE);
    flush_begin(&batch, table);
    error = table_map(table, in, frame, PAGE_SIZE, attrs_of(rights, MEM_WB), MAP_DEFAULT, &batch);
    flush_commit(&batch);
    if (error != E_OK)
        invariant(buddy_free(frame, 0, table->owner) == E_OK);
    return error;
}

static int free_shown(void *ctx, const struct mapping *page)
{
    struct table *table = ctx;

    invariant(buddy_free(page->out, 0, table->owner) == E_OK);
    return 0;
}

static void destroy(void)
{
    for (unsigned i = TABLES; i-- > 0;) {
        struct table *table = &s.table[i];

        if (table->kind == NULL)
            continue;
        table_visit(table, table->kind->input_first, table->kind->input_last, VISIT_PAGES,
                    free_shown, table);
        invariant(table_destroy(table) == E_OK);
        invariant(buddy_owner_frames(table->owner) == 0);
    }
}

static int start_table(enum which which, const struct table_kind *kind,
                       const struct table_caps *caps, enum frame_purpose purpose, owner_t owner)
{
    int error = table_init(&s.table[which], kind, caps, &scratch_env, purpose, owner);

    if (error != E_OK)
        s.table[which].kind = NULL;
    return error;
}

static int build_host(const struct audit_selftest *setup)
{
    struct table *kernel = &s.table[TABLE_KERNEL], *user = &s.table[TABLE_PROGRAM];
    uint64_t base = setup->kernel->input_first;
    int error =
        start_table(TABLE_KERNEL, setup->kernel, &setup->host, PURPOSE_HOST_TABLE, OWNER_KERNEL);

    if (error == E_OK)
        error = table_preallocate(kernel);
    if (error == E_OK)
        error = show_page(kernel, base + KERNEL_TEXT, PURPOSE_HEAP, RIGHT_RX);
    if (error == E_OK)
        error = show_page(kernel, base + KERNEL_DATA, PURPOSE_HEAP, RIGHT_RW);
    if (error == E_OK)
        error = start_table(TABLE_PROGRAM, setup->user, &setup->host, PURPOSE_USER_TABLE,
                            OWNER_PROGRAM);
    if (error == E_OK)
        error = table_share_upper(user, kernel);
    if (error == E_OK)
        error = show_page(user, USER_TEXT, PURPOSE_USER_RAM, RIGHT_RX | RIGHT_U);
    if (error == E_OK)
        error = show_page(user, USER_DATA, PURPOSE_USER_RAM, RIGHT_RW | RIGHT_U);
    return error;
}

static int build_guests(const struct audit_selftest *setup)
{
    struct table *guest = &s.table[TABLE_GUEST], *other = &s.table[TABLE_OTHER];
    struct table_caps caps = setup->host;

    caps.nx = true;
    caps.global = caps.execute_only = caps.accessed_dirty = false;
    int error = start_table(TABLE_GUEST, setup->guest, &caps, PURPOSE_EPT_TABLE, OWNER_GUEST);
    for (unsigned i = 0; i < GUEST_PAGES && error == E_OK; i++)
        error = show_page(guest, i * PAGE_SIZE, PURPOSE_GUEST_RAM, RIGHT_RWX);
    if (error == E_OK)
        error = show_page(guest, GUEST_FAR, PURPOSE_GUEST_RAM, RIGHT_RX);
    if (error == E_OK)
        error = start_table(TABLE_OTHER, setup->guest, &caps, PURPOSE_EPT_TABLE, OWNER_OTHER);
    if (error == E_OK)
        error = show_page(other, 0, PURPOSE_GUEST_RAM, RIGHT_RWX);
    return error;
}

static void describe(const struct audit_selftest *setup)
{
    static const char *const names[TABLES] = {"scratch kernel", "scratch program", "scratch guest",
                                              "other scratch guest"};

    for (unsigned i = 0; i < TABLES; i++)
        s.described[i] = (struct audit_table){.table = &s.table[i], .name = names[i]};
    s.described[TABLE_KERNEL].others = AUDIT_UNKNOWN;
    s.described[TABLE_KERNEL].write_xor_execute = true;
    s.described[TABLE_PROGRAM].shows = BIT(PURPOSE_USER_RAM);
    s.described[TABLE_PROGRAM].write_xor_execute = true;
    s.described[TABLE_PROGRAM].upper = &s.table[TABLE_KERNEL];
    s.described[TABLE_GUEST].shows = s.described[TABLE_OTHER].shows = BIT(PURPOSE_GUEST_RAM);
    s.described[TABLE_GUEST].read_root = read_root;
    s.described[TABLE_GUEST].ctx = &s.root_in_cpu;
    s.root_in_cpu = (struct audit_root){s.table[TABLE_GUEST].root, setup->guest->levels};
    s.guard = (struct audit_guard){
        .table = &s.table[TABLE_KERNEL],
        .table_name = names[TABLE_KERNEL],
        .name = "a guard page",
        .first = setup->kernel->input_first + KERNEL_GUARD,
        .count = 1,
    };
    s.audit = (struct audit){AUDIT_ALL, s.described, TABLES, &s.guard, 1, false};
}

/* ---- Breaking things, and putting them right ------------------------------------------------ */

static void poke(struct damage *d, uint64_t *word, uint64_t value)
{
    invariant(d->pokes < UNDO_LIMIT);
    d->poke[d->pokes].word = word;
    d->poke[d->pokes++].was = *word;
    *word = value;
}

static void poke_record(struct damage *d, hpa_t frame, uint64_t mask, uint64_t value)
{
    uint64_t *record = &frame_records[pfn_of(frame)];

    poke(d, record, (*record & ~mask) | value);
}

static void poke_state(struct damage *d, hpa_t frame, enum frame_state state)
{
    poke_record(d, frame, FRAME_STATE_MASK, state);
}

/* Changes the count of the table that `slot` lies in. */
static void poke_count(struct damage *d, const uint64_t *slot, uint64_t entries)
{
    hpa_t table = hpa(align_down(direct_hpa(slot).v, PAGE_SIZE));

    poke_record(d, table, FRAME_PAYLOAD_MASK,
                (frame_payload(table) + entries) << FRAME_PAYLOAD_SHIFT);
}

static void undo(struct damage *d)
{
    while (d->pokes-- > 0)
        *d->poke[d->pokes].word = d->poke[d->pokes].was;
    if (d->batch_open)
        flush_commit(&s.batch);
    if (d->frame.v != 0)
        invariant(buddy_free(d->frame, 0, d->owner) == E_OK);
}

/* A frame to break something with; the trial is called off when there is none. */
static hpa_t spare_frame(struct damage *d, enum frame_purpose purpose, owner_t owner)
{
    d->owner = owner;
    if (buddy_alloc(0, purpose, owner, &d->frame) != E_OK)
        d->no_memory = true;
    return d->frame;
}

/* The slot of a table that covers `in`, at `level`. */
static uint64_t *slot_of(enum which which, uint64_t in, unsigned level)
{
    struct walk walk;

    table_walk(&s.table[which], in, &walk);
    for (unsigned i = 0; i < walk.count; i++)
        if (walk.step[i].level == level)
            return direct(walk.step[i].address);
    panic("no level %u for %#lx in a table of the self-test", level, in);
}

static hpa_t leads_to(const uint64_t *slot)
{
    return hpa(*slot & BITS(51, 12));
}

static uint64_t leading_to(uint64_t entry, hpa_t frame)
{
    return (entry & ~BITS(51, 12)) | frame.v;
}

/* The last frame that the CPU can address, and no machine has. */
static hpa_t no_ram(void)
{
    return hpa(BIT(s.table[TABLE_GUEST].caps.maxphyaddr) - PAGE_SIZE);
}

static void expect(struct damage *d, enum which table, uint64_t in, hpa_t at)
{
    d->table = table;
    d->has_in = d->has_at = true;
    d->in = in;
    d->at = at;
}

static void expect_frame(struct damage *d, enum which table, hpa_t at)
{
    d->table = table;
    d->has_at = true;
    d->at = at;
}

/* ---- The ways to break the rules ------------------------------------------------------------ */

static void table_outside_ram(struct damage *d, uint64_t unused)
{
    uint64_t *slot = slot_of(TABLE_GUEST, GUEST_FAR, 2);

    (void)unused;
    poke(d, slot, leading_to(*slot, no_ram()));
    expect(d, TABLE_GUEST, GUEST_FAR, no_ram());
}

static void table_in_state(struct damage *d, uint64_t state)
{
    uint64_t *slot = slot_of(TABLE_GUEST, GUEST_FAR, 2);
    hpa_t frame = spare_frame(d, PURPOSE_EPT_TABLE, OWNER_HOST);

    if (d->no_memory)
        return;
    poke_state(d, frame, (enum frame_state)state);
    poke(d, slot, leading_to(*slot, frame));
    expect(d, TABLE_GUEST, GUEST_FAR, frame);
}

static void table_recorded_as(struct damage *d, uint64_t purpose)
{
    hpa_t frame = leads_to(slot_of(TABLE_GUEST, 0, 2));

    poke_record(d, frame, FRAME_PURPOSE_MASK, purpose << FRAME_PURPOSE_SHIFT);
    expect(d, TABLE_GUEST, 0, frame);
}

static void root_recorded_as(struct damage *d, uint64_t purpose)
{
    hpa_t root = s.table[TABLE_OTHER].root;

    poke_record(d, root, FRAME_PURPOSE_MASK, purpose << FRAME_PURPOSE_SHIFT);
    expect(d, TABLE_OTHER, 0, root);
}

static void table_of_owner(struct damage *d, uint64_t owner)
{
    hpa_t frame = leads_to(slot_of(TABLE_GUEST, 0, 2));

    poke_record(d, frame, FRAME_OWNER_MASK, owner << FRAME_OWNER_SHIFT);
    expect(d, TABLE_GUEST, 0, frame);
}

/* Puts an entry into a slot that is absent, with the count that goes with it. */
static void put_in(struct damage *d, uint64_t *slot, uint64_t entry)
{
    unsigned index = direct_hpa(slot).v % PAGE_SIZE / sizeof(*slot);

    invariant(*slot == 0);
    poke(d, slot, entry);
    poke_count(d, slot,
               entry_at(&ept_kind, index)); /* tables of the other kinds have as many slots */
}

static void table_twice(struct damage *d, uint64_t by)
{
    uint64_t *taken = slot_of(TABLE_GUEST, 0, 2), *slot = slot_of((enum which)by, 0, 2);

    put_in(d, slot + SPARE_PD_SLOT, *taken);
    expect(d, (enum which)by, SPARE_PD_SLOT * 2 * MiB, leads_to(taken));
}

static void table_circle(struct damage *d, uint64_t unused)
{
    uint64_t *above = slot_of(TABLE_GUEST, 0, 3), *slot = slot_of(TABLE_GUEST, 0, 2);

    (void)unused;
    put_in(d, slot + SPARE_PD_SLOT, *above);
    expect(d, TABLE_GUEST, SPARE_PD_SLOT * 2 * MiB, leads_to(above));
}

static void table_miscounted(struct damage *d, uint64_t change)
{
    struct table *table = &s.table[TABLE_PROGRAM];

    poke(d, &table->table_frames, table->table_frames + change);
    expect_frame(d, TABLE_PROGRAM, table->root);
}

/* A frame of an owner's that no table of its own reaches. */
static void stray(struct damage *d, enum which which, enum frame_purpose purpose)
{
    hpa_t frame = spare_frame(d, purpose, s.table[which].owner);

    if (d->no_memory)
        return;
    if (s.described[which].others != AUDIT_UNKNOWN)
        poke(d, &s.described[which].others, s.described[which].others + 1);
    expect_frame(d, which, frame);
}

static void stray_table(struct damage *d, uint64_t which)
{
    stray(d, (enum which)which, s.table[which].purpose);
}

static void stray_memory(struct damage *d, uint64_t which)
{
    stray(d, (enum which)which, which == TABLE_PROGRAM ? PURPOSE_USER_RAM : PURPOSE_GUEST_RAM);
}

static void dying(struct damage *d, uint64_t which)
{
    stray_memory(d, which);
    if (!d->no_memory)
        poke_state(d, d->frame, FRAME_DYING);
}

/* Bits that an entry must not have, or must not lack. Bits of the second level are those of EPT,
 * which is the kind that a guest's table has (SDM Vol. 3, 29.3.2). */
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
};

static void bad_entry(struct damage *d, uint64_t index)
{
    const struct bad_bits *bad = &bad_bits[index];
    struct table *table = &s.table[bad->table];
    uint64_t *slot = slot_of(bad->table, bad->in, bad->level);

    poke(d, slot, (*slot & ~bad->clear) | bad->set);
    expect(d, bad->table, align_down(bad->in, level_size(table->kind, bad->level)),
           direct_hpa(slot));
}

static void beyond_maxphyaddr(struct damage *d, uint64_t which)
{
    uint64_t in = which == TABLE_GUEST ? PAGE_SIZE : USER_DATA;
    uint64_t *slot = slot_of((enum which)which, in, 1);

    poke(d, slot, *slot | BIT(s.table[which].caps.maxphyaddr));
    expect(d, (enum which)which, in, direct_hpa(slot));
}

static void entries_miscounted(struct damage *d, uint64_t entries)
{
    uint64_t *slot = slot_of(TABLE_GUEST, GUEST_FAR, 1);

    poke_count(d, slot, entries);
    expect(d, TABLE_GUEST, GUEST_FAR, direct_hpa(slot));
}

/* ---- Leaves ---- */

static void show_instead(struct damage *d, hpa_t frame)
{
    uint64_t *slot = slot_of(TABLE_GUEST, PAGE_SIZE, 1);

    poke(d, slot, leading_to(*slot, frame));
    expect(d, TABLE_GUEST, PAGE_SIZE, frame);
}

static void shows_no_ram(struct damage *d, uint64_t unused)
{
    (void)unused;
    show_instead(d, no_ram());
}

static void shows_state(struct damage *d, uint64_t state)
{
    hpa_t frame = spare_frame(d, PURPOSE_GUEST_RAM, OWNER_HOST);

    if (d->no_memory)
        return;
    poke_state(d, frame, (enum frame_state)state);
    show_instead(d, frame);
}

static void shows_purpose(struct damage *d, uint64_t purpose)
{
    hpa_t frame = spare_frame(d, (enum frame_purpose)purpose, OWNER_HOST);

    if (!d->no_memory)
        show_instead(d, frame);
}

static void shows_own_table(struct damage *d, uint64_t level)
{
    show_instead(d, leads_to(slot_of(TABLE_GUEST, GUEST_FAR, (unsigned)level)));
}

static void shows_others_memory(struct damage *d, uint64_t unused)
{
    (void)unused;
    show_instead(d, leads_to(slot_of(TABLE_OTHER, 0, 1)));
}

/* Shows the guest's first page a second time. */
static hpa_t show_again(struct damage *d)
{
    uint64_t *slot = slot_of(TABLE_GUEST, 0, 1);

    put_in(d, slot + GUEST_EMPTY / PAGE_SIZE, *slot);
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

    poke_record(d, frame, FRAME_STATE_MASK | FRAME_PAYLOAD_MASK,
                FRAME_SHARED | holders << FRAME_PAYLOAD_SHIFT);
    expect_frame(d, TABLE_GUEST, frame);
}

/* ---- The whole ---- */

static void frame_unaccounted(struct damage *d, uint64_t which)
{
    spare_frame(d, PURPOSE_VCPU, s.table[which].owner);
    expect_frame(d, (enum which)which, s.table[which].root);
}

static void write_and_execute(struct damage *d, uint64_t unused)
{
    uint64_t *slot = slot_of(TABLE_PROGRAM, USER_TEXT, 1);

    (void)unused;
    poke(d, slot, *slot | BIT(1));
    expect(d, TABLE_PROGRAM, USER_TEXT, leads_to(slot));
}

static uint64_t kernel_address(uint64_t offset)
{
    return s.table[TABLE_KERNEL].kind->input_first + offset;
}

/* The kernel's slot `offset` shows the frame of `of` with the rights of `like`. */
static void alias(struct damage *d, uint64_t offset, uint64_t of, uint64_t like)
{
    uint64_t *text = slot_of(TABLE_KERNEL, kernel_address(of), 1);
    uint64_t *data = slot_of(TABLE_KERNEL, kernel_address(like), 1);

    put_in(d, data + (offset - like) / PAGE_SIZE, leading_to(*data, leads_to(text)));
}

static void writable_alias(struct damage *d, uint64_t unused)
{
    hpa_t text = leads_to(slot_of(TABLE_KERNEL, kernel_address(KERNEL_TEXT), 1));

    (void)unused;
    alias(d, KERNEL_ALIAS, KERNEL_TEXT, KERNEL_DATA);
    expect(d, TABLE_KERNEL, kernel_address(KERNEL_ALIAS), text);
}

static void executable_alias(struct damage *d, uint64_t unused)
{
    hpa_t data = leads_to(slot_of(TABLE_KERNEL, kernel_address(KERNEL_DATA), 1));

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
    struct table *table = &s.table[TABLE_PROGRAM];
    uint64_t *slot = (uint64_t *)direct(table->root) + index;
    unsigned shift = level_shift(table->kind, table->kind->levels);

    poke(d, slot, *slot ^ BIT(1));
    expect(d, TABLE_PROGRAM, kernel_address((index - 256) << shift), direct_hpa(slot));
}

static void root_differs(struct damage *d, uint64_t unused)
{
    (void)unused;
    poke(d, &s.root_in_cpu.frame.v, s.table[TABLE_OTHER].root.v);
    expect_frame(d, TABLE_GUEST, s.table[TABLE_GUEST].root);
}

static void batch_open(struct damage *d, uint64_t unused)
{
    (void)unused;
    flush_begin(&s.batch, &s.table[TABLE_GUEST]);
    flush_whole(&s.batch);
    d->batch_open = true;
    expect_frame(d, TABLE_GUEST, s.table[TABLE_GUEST].root);
}

static const struct trial {
    enum audit_rule rule; /* AUDIT_RULES: nothing is wrong, and nothing must be said */
    const char *corruption;
    void (*inflict)(struct damage *, uint64_t argument);
    uint64_t argument;
} trials[] = {
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
    {AUDIT_ENTRY_LEGAL, "a leaf is writable but not readable", bad_entry, 0},
    {AUDIT_ENTRY_LEGAL, "a leaf is executable alone", bad_entry, 1},
    {AUDIT_ENTRY_LEGAL, "a leaf has a reserved memory type", bad_entry, 2},
    {AUDIT_ENTRY_LEGAL, "a non-leaf entry has a reserved bit", bad_entry, 3},
    {AUDIT_ENTRY_LEGAL, "a large leaf of a guest is misaligned", bad_entry, 4},
    {AUDIT_ENTRY_LEGAL, "a guest's root holds a leaf", bad_entry, 5},
    {AUDIT_ENTRY_LEGAL, "a program's root holds a leaf", bad_entry, 6},
    {AUDIT_ENTRY_LEGAL, "a large leaf of a program is misaligned", bad_entry, 7},
    {AUDIT_ENTRY_LEGAL, "a guest's leaf is beyond MAXPHYADDR", beyond_maxphyaddr, TABLE_GUEST},
    {AUDIT_ENTRY_LEGAL, "a program's leaf is beyond MAXPHYADDR", beyond_maxphyaddr, TABLE_PROGRAM},
    {AUDIT_ENTRY_COUNT, "a record counts an entry too many", entries_miscounted, 1},
    {AUDIT_ENTRY_COUNT, "a record counts an entry in the wrong quarter", entries_miscounted,
     (UINT64_C(1) << ENTRY_COUNT_BITS) - 1},
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

/* ---- Judging the judge ---------------------------------------------------------------------- */

static void note(void *ctx, const struct audit_finding *finding)
{
    (void)ctx;
    if (s.findings++ == 0) {
        s.first = *finding;
        audit_line(s.said, finding);
    }
}

static int ask(void)
{
    struct audit_totals totals;

    s.findings = 0;
    s.said[0] = '\0';
    return audit_run(&s.audit, note, NULL, &totals);
}

/* The rule, the table and the address, and no second finding. */
static bool is_named(const struct trial *trial, const struct damage *d)
{
    const struct audit_finding *f = &s.first;

    if (trial->rule == AUDIT_RULES)
        return s.findings == 0;
    return s.findings == 1 && f->rule == trial->rule && f->table != NULL &&
           strcmp(f->table, s.described[d->table].name) == 0 && f->has_in == d->has_in &&
           f->has_at == d->has_at && (!d->has_in || f->in == d->in) &&
           (!d->has_at || f->at.v == d->at.v);
}

/* E_OK, E_STATE when the auditor did not name it, E_NOMEM. */
static int try_one(const struct trial *trial, audit_trial_fn fn, void *ctx)
{
    char said[AUDIT_LINE];
    struct damage d = {0};
    int error = E_NOMEM;
    bool named = false;

    trial->inflict(&d, trial->argument);
    if (!d.no_memory)
        error = ask();
    if (error == E_OK || error == E_STATE)
        named = is_named(trial, &d);
    memcpy(said, s.said, sizeof(said));
    undo(&d);
    if (error == E_NOMEM || ask() == E_NOMEM)
        return E_NOMEM;
    named = named && s.findings == 0; /* content again */
    fn(ctx, &(struct audit_trial){trial->rule, trial->corruption, named, said});
    return named ? E_OK : E_STATE;
}

int audit_selftest(const struct audit_selftest *setup, audit_trial_fn fn, void *ctx,
                   unsigned *tried, unsigned *failed)
{
    int error;

    *tried = *failed = 0;
    memset(&s, 0, sizeof(s));
    error = build_host(setup);
    if (error == E_OK)
        error = build_guests(setup);
    if (error == E_OK)
        describe(setup);
    for (unsigned i = 0; i < ARRAY_SIZE(trials) && error == E_OK; i++) {
        error = try_one(&trials[i], fn, ctx);
        *tried += error != E_NOMEM;
        *failed += error == E_STATE;
        if (error == E_STATE)
            error = E_OK;
    }
    destroy();
    if (error != E_OK)
        return error;
    return *failed != 0 ? E_STATE : E_OK;
}
