/* The scratch tables of the auditor's self-test, which no CPU uses (mm/audit/selftest.h). */
#include "mm/audit/selftest.h"

#include "lib/panic.h"
#include "lib/string.h"
#include "mm/frames/buddy.h"

struct scratch scratch;

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

void scratch_destroy(void)
{
    for (unsigned i = TABLES; i-- > 0;) {
        struct table *table = &scratch.table[i];

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
    int error = table_init(&scratch.table[which], kind, caps, &scratch_env, purpose, owner);

    if (error != E_OK)
        scratch.table[which].kind = NULL;
    return error;
}

static int build_host(const struct audit_selftest *setup)
{
    struct table *kernel = &scratch.table[TABLE_KERNEL], *user = &scratch.table[TABLE_PROGRAM];
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
    struct table *guest = &scratch.table[TABLE_GUEST], *other = &scratch.table[TABLE_OTHER];
    struct table_caps caps = setup->host;

    caps.nx = true;
    caps.global = caps.execute_only = caps.accessed_dirty = false;
    int error = start_table(TABLE_GUEST, setup->guest, &caps, setup->guest->purpose, OWNER_GUEST);
    for (unsigned i = 0; i < GUEST_PAGES && error == E_OK; i++)
        error = show_page(guest, i * PAGE_SIZE, PURPOSE_GUEST_RAM, RIGHT_RWX);
    if (error == E_OK)
        error = show_page(guest, GUEST_FAR, PURPOSE_GUEST_RAM, RIGHT_RX);
    if (error == E_OK)
        error = start_table(TABLE_OTHER, setup->guest, &caps, setup->guest->purpose, OWNER_OTHER);
    if (error == E_OK)
        error = show_page(other, 0, PURPOSE_GUEST_RAM, RIGHT_RWX);
    return error;
}

static void describe(const struct audit_selftest *setup)
{
    static const char *const names[TABLES] = {"scratch kernel", "scratch program", "scratch guest",
                                              "other scratch guest"};

    for (unsigned i = 0; i < TABLES; i++)
        scratch.described[i] = (struct audit_table){.table = &scratch.table[i], .name = names[i]};
    scratch.described[TABLE_KERNEL].others = AUDIT_UNKNOWN;
    scratch.described[TABLE_KERNEL].write_xor_execute = true;
    scratch.described[TABLE_PROGRAM].shows = BIT(PURPOSE_USER_RAM);
    scratch.described[TABLE_PROGRAM].write_xor_execute = true;
    scratch.described[TABLE_PROGRAM].upper = &scratch.table[TABLE_KERNEL];
    scratch.described[TABLE_GUEST].shows = scratch.described[TABLE_OTHER].shows =
        BIT(PURPOSE_GUEST_RAM);
    scratch.described[TABLE_GUEST].read_root = read_root;
    scratch.described[TABLE_GUEST].ctx = &scratch.root_in_cpu;
    scratch.root_in_cpu =
        (struct audit_root){scratch.table[TABLE_GUEST].root, setup->guest->levels};
    scratch.guard = (struct audit_guard){
        .table = &scratch.table[TABLE_KERNEL],
        .table_name = names[TABLE_KERNEL],
        .name = "a guard page",
        .first = setup->kernel->input_first + KERNEL_GUARD,
        .count = 1,
    };
    scratch.audit = (struct audit){
        .rules = AUDIT_ALL,
        .table = scratch.described,
        .tables = TABLES,
        .guard = &scratch.guard,
        .guards = 1,
    };
}

int scratch_build(const struct audit_selftest *setup)
{
    int error;

    memset(&scratch, 0, sizeof(scratch));
    error = build_host(setup);
    if (error == E_OK)
        error = build_guests(setup);
    if (error == E_OK)
        describe(setup);
    return error;
}

uint64_t *scratch_slot(enum which which, uint64_t in, unsigned level)
{
    struct walk walk;

    table_walk(&scratch.table[which], in, &walk);
    for (unsigned i = 0; i < walk.count; i++)
        if (walk.step[i].level == level)
            return direct(walk.step[i].address);
    panic("no level %u for %#lx in a table of the self-test", level, in);
}
