/*
 * The auditor on the real mapper and the real buddy: its own self-test; that it is content with
 * what the mapper builds; what it does without memory, with a flood of findings, and with tables
 * that were damaged at random; and the tally that it keeps its notes in, against plain counters.
 */
#include "mm/audit/audit.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include <cmocka.h>

#include "mm/audit/audit_selftest.h"
#include "mm/frames/buddy.h"
#include "mm/paging/pte.h"
#include "mm/audit/tally.h"
#include "tests/unit/random.h"
#include "tests/unit/buddy_env.h"

#define ARENA (64 * MiB)
#define USER_RWX (RIGHT_RWX | RIGHT_U)

static uint8_t *arena;
static void *metadata;
static uint64_t free_before;

#define TABLES 6

static struct table table[TABLES];
static struct audit_table described[TABLES];
static struct audit audit;

static const struct table_caps caps = {
    .maxphyaddr = 40,
    .leaf_top = 3,
    .nx = true,
    .accessed_dirty = true,
    .execute_only = true,
    .global = true,
    .mem_types = 1u << MEM_UC | 1u << MEM_WC | 1u << MEM_WT | 1u << MEM_WP | 1u << MEM_WB,
};

/* ---- The machine --------------------------------------------------------------------------------
 */

static uint64_t free_frames(void)
{
    struct buddy_stats stats;

    buddy_stats(&stats);
    return stats.free_frames;
}

static int set_up(void **state)
{
    uint64_t size = buddy_metadata_size(ARENA);

    (void)state;
    arena = mmap(NULL, ARENA, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_true(arena != MAP_FAILED);
    metadata = aligned_alloc(PAGE_SIZE, size);
    memset(metadata, 0xcc, size);
    direct_base = (uint64_t)(uintptr_t)arena;
    assert_int_equal(buddy_init(metadata, size, ARENA), E_OK);
    assert_int_equal(buddy_add(hpa(0), ARENA), E_OK);
    free_before = free_frames();
    audit = (struct audit){.table = described};
    return 0;
}

static int tear_down(void **state)
{
    char why[160] = "";

    (void)state;
    assert_int_equal(free_frames(), free_before);
    if (buddy_verify(why, sizeof(why)) != E_OK)
        fail_msg("%s", why);
    munmap(arena, ARENA);
    free(metadata);
    return 0;
}

/* ---- Tables
 * -------------------------------------------------------------------------------------- */

static struct audit_finding heard[AUDIT_RULES * AUDIT_REPORTED];
static unsigned heard_count;
static struct audit_totals totals;

static void hear(void *ctx, const struct audit_finding *finding)
{
    (void)ctx;
    assert_true(heard_count < ARRAY_SIZE(heard));
    heard[heard_count++] = *finding;
}

static int ask(uint64_t rules)
{
    heard_count = 0;
    audit.rules = rules;
    return audit_run(&audit, hear, NULL, &totals);
}

static void content(uint64_t rules)
{
    char text[AUDIT_LINE];

    if (ask(rules) != E_OK)
        fail_msg("%s", heard_count ? audit_line(text, &heard[0]) : "no finding");
    assert_int_equal(totals.found, 0);
}

static void finds(enum audit_rule rule, const char *fragment)
{
    char text[AUDIT_LINE];

    assert_int_equal(ask(AUDIT_ALL), E_STATE);
    for (unsigned i = 0; i < heard_count; i++)
        if (heard[i].rule == rule && strstr(audit_line(text, &heard[i]), fragment))
            return;
    fail_msg("not found: %s", fragment);
}

static struct table *start(const struct table_kind *kind, enum frame_purpose purpose,
                           uint64_t shows)
{
    static const char *const names[TABLES] = {"t0", "t1", "t2", "t3", "t4", "t5"};
    unsigned i = audit.tables++;
    struct table *t = &table[i];

    assert_int_equal(
        table_init(t, kind, &caps, &buddy_env, purpose, (owner_t)(OWNER_FIRST_GUEST + i)), E_OK);
    described[i] = (struct audit_table){
        .table = t, .name = names[i], .shows = shows, .write_xor_execute = kind != &ept_kind};
    return t;
}

static struct table *start_guest(void)
{
    return start(&ept_kind, PURPOSE_EPT_TABLE, BIT(PURPOSE_GUEST_RAM));
}

static struct table *start_program(void)
{
    return start(&user_kind, PURPOSE_USER_TABLE, BIT(PURPOSE_USER_RAM));
}

static int map_to(struct table *t, uint64_t in, hpa_t to, uint64_t size, unsigned rights)
{
    struct flush_batch batch;

    flush_begin(&batch, t);
    int error = table_map(t, in, to, size, attrs_of(rights, MEM_WB), MAP_DEFAULT, &batch);
    flush_commit(&batch);
    return error;
}

/* A block of the table owner's own, mapped. False where something is mapped already. */
static bool show(struct table *t, uint64_t in, unsigned order, unsigned rights)
{
    enum frame_purpose purpose = t->kind == &ept_kind ? PURPOSE_GUEST_RAM : PURPOSE_USER_RAM;
    hpa_t block;

    assert_int_equal(buddy_alloc(order, purpose, t->owner, &block), E_OK);
    if (map_to(t, in, block, PAGE_SIZE << order, rights) == E_OK)
        return true;
    assert_int_equal(buddy_free(block, order, t->owner), E_OK);
    return false;
}

static int free_leaf(void *ctx, const struct mapping *page)
{
    struct frame_info info;
    hpa_t head;

    (void)ctx;
    assert_int_equal(frame_query(page->out, &info, &head), E_OK);
    if (info.state == FRAME_SHARED || head.v == page->out.v)
        assert_int_equal(buddy_release(head, info.order, info.owner, NULL), E_OK);
    return 0;
}

static void end(void)
{
    while (audit.tables > 0) {
        struct table *t = &table[--audit.tables];

        if (described[audit.tables].shows != 0)
            table_visit(t, t->kind->input_first, t->kind->input_last, VISIT_PAGES, free_leaf, NULL);
        assert_int_equal(table_destroy(t), E_OK);
        assert_int_equal(buddy_owner_frames(t->owner), 0);
    }
    audit.guards = 0;
    audit.everyone = false;
}

static uint64_t *slot_of(struct table *t, uint64_t in, unsigned level)
{
    struct walk walk;

    table_walk(t, in, &walk);
    assert_true(walk.count > t->kind->levels - level);
    return direct(walk.step[t->kind->levels - level].address);
}

/* ---- The self-test
 * ------------------------------------------------------------------------------- */

static uint64_t rules_tried;

static void one_trial(void *ctx, const struct audit_trial *trial)
{
    (void)ctx;
    if (!trial->named)
        fail_msg("%s: not named; the auditor says \"%s\"", trial->corruption, trial->said);
    rules_tried |= BIT(trial->rule);
}

static void test_each_rule_is_named(void **state)
{
    const struct audit_selftest setup = {&kernel_kind, &user_kind, &ept_kind, caps};
    unsigned trials, failed;

    (void)state;
    rules_tried = 0;
    assert_int_equal(audit_selftest(&setup, one_trial, NULL, &trials, &failed), E_OK);
    assert_int_equal(rules_tried & AUDIT_ALL, AUDIT_ALL);
    assert_true(trials > 50);
    assert_int_equal(failed, 0);
}

static void test_each_rule_has_its_own_sentence(void **state)
{
    (void)state;
    for (unsigned i = 0; i < AUDIT_RULES; i++)
        for (unsigned j = 0; j < i; j++)
            assert_string_not_equal(audit_rule_text((enum audit_rule)i),
                                    audit_rule_text((enum audit_rule)j));
    assert_string_equal(audit_rule_text(AUDIT_RULES), "unknown rule");
}

/* The self-test without memory for its tables, and for the scratch of each of its audits. */
static void test_selftest_gives_back_what_it_could_take(void **state)
{
    const struct audit_selftest setup = {&kernel_kind, &user_kind, &ept_kind, caps};
    unsigned trials, failed, short_of = 0;
    struct buddy_stats stats;
    hpa_t held[64];

    (void)state;
    buddy_stats(&stats);
    /* All but n frames are the host's reserve: the self-test's owners get no more than those. */
    for (uint64_t n = 0; n < 300; n += 7) {
        buddy_set_reserve(stats.free_frames - n);
        int error = audit_selftest(&setup, one_trial, NULL, &trials, &failed);
        if (error == E_OK)
            break;
        assert_true(error == E_QUOTA || error == E_NOMEM);
        assert_int_equal(free_frames(), free_before);
        short_of++;
    }
    buddy_set_reserve(0);
    assert_true(short_of > 10);

    /* Nothing at all is left, for whomever. */
    unsigned blocks = 0;
    for (unsigned order = BUDDY_ORDERS; order-- > 0;)
        while (buddy_alloc(order, PURPOSE_TEST, OWNER_HOST, &held[blocks]) == E_OK)
            blocks++;
    assert_int_equal(audit_selftest(&setup, one_trial, NULL, &trials, &failed), E_NOMEM);
    for (unsigned i = 0; i < blocks; i++) {
        struct frame_info info;
        assert_int_equal(frame_query(held[i], &info, NULL), E_OK);
        assert_int_equal(buddy_free(held[i], info.order, OWNER_HOST), E_OK);
    }
}

/* ---- What the mapper builds
 * ---------------------------------------------------------------------- */

static void test_content_with_what_the_mapper_builds(void **state)
{
    struct random random = {1};
    struct table *kernel = start(&kernel_kind, PURPOSE_HOST_TABLE, 0);
    uint64_t shown = 0;

    (void)state;
    assert_int_equal(table_preallocate(kernel), E_OK);
    described[0].others = AUDIT_UNKNOWN;
    assert_int_equal(map_to(kernel, 0xffff800000000000, hpa(0), ARENA, RIGHT_RW), E_OK);
    struct table *program = start_program();
    assert_int_equal(table_share_upper(program, kernel), E_OK);
    described[1].upper = kernel;
    for (unsigned i = 0; i < 3; i++)
        start_guest();
    audit.everyone = true;
    content(AUDIT_ALL);
    for (unsigned round = 0; round < 300; round++) {
        unsigned which = 1 + (unsigned)random_below(&random, 4);
        unsigned order = (unsigned)random_below(&random, 10);
        uint64_t in =
            random_below(&random, BIT(which == 1 ? 46 : 47)) & ~((PAGE_SIZE << order) - 1);
        unsigned rights =
            which > 1 ? RIGHT_RWX : (random_next(&random) & 1 ? RIGHT_RW : RIGHT_RX) | RIGHT_U;

        if (in != 0 && free_frames() > 2048 && show(&table[which], in, order, rights))
            shown += UINT64_C(1) << order;
        if (round % 30 == 29)
            content(AUDIT_ALL);
    }
    content(AUDIT_ALL);
    assert_int_equal(totals.memory, shown);
    assert_int_equal(totals.rules, AUDIT_ALL & ~(BIT(AUDIT_ROOT) | BIT(AUDIT_GUARD)));
    uint64_t tables = 0;
    for (unsigned i = 0; i < audit.tables; i++)
        tables += table[i].table_frames;
    assert_int_equal(totals.table_frames, tables);
    assert_true(totals.scratch > 0 && totals.scratch < 12);

    /* Large leaves split, with holes: still every frame is shown by someone. */
    struct table *guest = start_guest();
    assert_true(show(guest, GiB, 9, RIGHT_RWX));
    struct flush_batch batch;
    flush_begin(&batch, guest);
    assert_int_equal(
        table_protect(guest, GiB + 0x5000, PAGE_SIZE, attrs_of(RIGHT_R, MEM_WB), &batch), E_OK);
    flush_commit(&batch);
    content(AUDIT_ALL);
    hpa_t first;
    struct mapping page;
    assert_int_equal(table_translate(guest, GiB, &page), E_OK);
    first = page.out;
    flush_begin(&batch, guest);
    assert_int_equal(table_unmap(guest, GiB + 0x7000, 2 * PAGE_SIZE, &batch), E_OK);
    flush_commit(&batch);
    finds(AUDIT_LEAF_STRAY, "2 frames from here are recorded as guest memory");
    assert_int_equal(heard[heard_count - 1].at.v, first.v + 0x7000);
    assert_int_equal(map_to(guest, GiB + 0x7000, hpa(first.v + 0x7000), 2 * PAGE_SIZE, RIGHT_R),
                     E_OK);
    content(AUDIT_ALL);
    end();
}

static void test_an_owner_without_a_table_is_seen_where_all_tables_are_known(void **state)
{
    hpa_t leaked, block;

    (void)state;
    start_guest();
    assert_int_equal(buddy_alloc(0, PURPOSE_EPT_TABLE, OWNER_FIRST_GUEST + 40, &leaked), E_OK);
    assert_int_equal(buddy_alloc(2, PURPOSE_USER_RAM, OWNER_FIRST_USER, &block), E_OK);
    content(AUDIT_ALL);
    audit.everyone = true;
    finds(AUDIT_TABLE_STRAY, "recorded as EPT tables of owner 56");
    finds(AUDIT_LEAF_STRAY, "4 frames from here are recorded as user memory of owner 2");
    assert_int_equal(totals.found, 2);
    assert_int_equal(buddy_free(leaked, 0, OWNER_FIRST_GUEST + 40), E_OK);
    assert_int_equal(buddy_free(block, 2, OWNER_FIRST_USER), E_OK);
    end();
}

/* ---- Sharing
 * ------------------------------------------------------------------------------------- */

static void test_sharing(void **state)
{
    struct mapping page;

    (void)state;
    for (unsigned i = 0; i < 4; i++)
        start_guest();
    assert_true(show(&table[0], 2 * MiB, 9, RIGHT_R));
    assert_int_equal(table_translate(&table[0], 2 * MiB, &page), E_OK);
    for (unsigned i = 1; i < 4; i++) {
        assert_int_equal(buddy_share(page.out, table[0].owner), E_OK);
        assert_int_equal(map_to(&table[i], 4 * MiB, page.out, 2 * MiB, RIGHT_R), E_OK);
        content(AUDIT_ALL);
        assert_int_equal(totals.memory, 512);
    }
    /* One holder maps all but a page of it; then the page twice. */
    struct flush_batch batch;
    flush_begin(&batch, &table[3]);
    assert_int_equal(table_unmap(&table[3], 4 * MiB + 0x3000, PAGE_SIZE, &batch), E_OK);
    flush_commit(&batch);
    finds(AUDIT_LEAF_SHARED, "it is shown 3 times, and its record says it is shared by 4");
    assert_int_equal(heard[0].at.v, page.out.v + 0x3000);
    assert_int_equal(
        map_to(&table[3], 4 * MiB + 0x3000, hpa(page.out.v + 0x3000), PAGE_SIZE, RIGHT_R), E_OK);
    content(AUDIT_ALL);
    assert_int_equal(map_to(&table[3], 0, hpa(page.out.v + 0x5000), PAGE_SIZE, RIGHT_R), E_OK);
    finds(AUDIT_LEAF_SHARED, "it is shown 5 times, and its record says it is shared by 4");
    flush_begin(&batch, &table[3]);
    assert_int_equal(table_unmap(&table[3], 0, PAGE_SIZE, &batch), E_OK);
    flush_commit(&batch);

    /* A frame that its owner alone holds may not be shown by another, nor twice by itself. */
    assert_true(show(&table[0], 0, 0, RIGHT_R));
    assert_int_equal(table_translate(&table[0], 0, &page), E_OK);
    assert_int_equal(map_to(&table[1], 0, page.out, PAGE_SIZE, RIGHT_R), E_OK);
    finds(AUDIT_LEAF_OWNER, "t1: 0x0: at ");
    flush_begin(&batch, &table[1]);
    assert_int_equal(table_unmap(&table[1], 0, PAGE_SIZE, &batch), E_OK);
    flush_commit(&batch);
    content(AUDIT_ALL);
    while (audit.tables > 1) {
        struct table *t = &table[--audit.tables];
        table_visit(t, 0, t->kind->input_last, VISIT_RUNS, free_leaf, NULL);
        assert_int_equal(table_destroy(t), E_OK);
    }
    content(AUDIT_ALL);
    end();
}

/* ---- Writable or executable
 * ---------------------------------------------------------------------- */

static void test_aliases_across_tables_and_many_runs(void **state)
{
    struct mapping page;

    (void)state;
    struct table *one = start_program(), *two = start_program();
    /* Every other page executable: many times as many runs as are held at a time. */
    for (unsigned i = 0; i < 300; i++)
        assert_true(
            show(one, 0x400000 + i * PAGE_SIZE, 0, (i % 2 ? RIGHT_RX : RIGHT_RW) | RIGHT_U));
    assert_true(show(one, one->kind->input_last + 1 - PAGE_SIZE, 0, RIGHT_RX | RIGHT_U));
    content(AUDIT_ALL);

    /* The last page of the space, writable through the other program's table. */
    assert_int_equal(table_translate(one, one->kind->input_last, &page), E_OK);
    assert_int_equal(buddy_share(page.out, one->owner), E_OK);
    assert_int_equal(map_to(two, 0x1000, page.out, PAGE_SIZE, RIGHT_RW | RIGHT_U), E_OK);
    finds(AUDIT_WRITE_EXECUTE, "t1: 0x1000: at ");
    assert_int_equal(totals.found, 1);
    assert_non_null(strstr(heard[0].detail, "0x7fffffffe000 of t0"));

    /* Somewhere in the middle, both ways around. */
    struct flush_batch batch;
    flush_begin(&batch, two);
    assert_int_equal(
        table_protect(two, 0x1000, PAGE_SIZE, attrs_of(RIGHT_R | RIGHT_U, MEM_WB), &batch), E_OK);
    flush_commit(&batch);
    content(AUDIT_ALL);
    flush_begin(&batch, one);
    assert_int_equal(table_protect(one, 0x400000 + 201 * PAGE_SIZE, PAGE_SIZE,
                                   attrs_of(USER_RWX, MEM_WB), &batch),
                     E_OK);
    flush_commit(&batch);
    finds(AUDIT_WRITE_EXECUTE, "writable and executable");
    assert_int_equal(totals.found, 1);
    end();
}

/* What kernel and program can do to one frame is not held against each other: the kernel's direct
 * map shows every program's text writable, to the kernel alone. */
static void test_kinds_are_apart(void **state)
{
    struct mapping page;

    (void)state;
    struct table *kernel = start(&kernel_kind, PURPOSE_HOST_TABLE, 0), *program = start_program();
    assert_true(show(program, 0x400000, 0, RIGHT_RX | RIGHT_U));
    assert_int_equal(table_translate(program, 0x400000, &page), E_OK);
    assert_int_equal(map_to(kernel, 0xffff800000000000, page.out, PAGE_SIZE, RIGHT_RW), E_OK);
    content(AUDIT_ALL);
    struct flush_batch batch;
    flush_begin(&batch, kernel);
    assert_int_equal(table_unmap(kernel, 0xffff800000000000, PAGE_SIZE, &batch), E_OK);
    flush_commit(&batch);
    end();
}

static void test_guards(void **state)
{
    struct table *kernel = start(&kernel_kind, PURPOSE_HOST_TABLE, 0);
    struct audit_guard guard = {
        .table = kernel,
        .table_name = "t0",
        .name = "the guard page of a stack",
        .first = 0xffffe00000000000,
        .stride = 5 * PAGE_SIZE,
        .count = 1000,
    };

    (void)state;
    audit.guard = &guard;
    audit.guards = 1;
    hpa_t frame;
    assert_int_equal(buddy_alloc(0, PURPOSE_HEAP, OWNER_HOST, &frame), E_OK);
    assert_int_equal(map_to(kernel, guard.first + 4 * PAGE_SIZE, frame, PAGE_SIZE, RIGHT_RW), E_OK);
    content(AUDIT_ALL);
    assert_int_equal(map_to(kernel, guard.first + 999 * guard.stride, frame, PAGE_SIZE, RIGHT_R),
                     E_OK);
    finds(AUDIT_GUARD, "t0: 0xffffe00001383000: the guard page of a stack is mapped");
    assert_int_equal(totals.found, 1);
    /* Also one that the CPU would refuse is there. */
    *slot_of(kernel, guard.first + 999 * guard.stride, 1) |= BIT(51);
    assert_int_equal(ask(AUDIT_ADDRESS_SPACE), E_STATE);
    assert_int_equal(buddy_free(frame, 0, OWNER_HOST), E_OK);
    end();
}

/* ---- At the limits
 * ------------------------------------------------------------------------------- */

static void test_no_scratch_memory(void **state)
{
    static hpa_t held[ARENA / PAGE_SIZE];
    uint64_t taken = 0;

    (void)state;
    struct table *guest = start_guest();
    assert_true(show(guest, 0, 9, RIGHT_RWX));
    assert_true(show(guest, 512 * GiB - PAGE_SIZE, 0, RIGHT_RWX));
    content(AUDIT_ALL);
    uint64_t scratch = totals.scratch;
    while (buddy_alloc(0, PURPOSE_TEST, OWNER_HOST, &held[taken]) == E_OK)
        taken++;
    for (uint64_t n = 0; n <= scratch; n++) {
        int error = ask(AUDIT_ALL);
        assert_int_equal(error, n < scratch ? E_NOMEM : E_OK);
        assert_int_equal(free_frames(), n);
        assert_int_equal(totals.found, 0);
        assert_int_equal(buddy_free(held[--taken], 0, OWNER_HOST), E_OK);
    }
    while (taken > 0)
        assert_int_equal(buddy_free(held[--taken], 0, OWNER_HOST), E_OK);
    end();
}

static void test_a_flood_is_counted_not_reported(void **state)
{
    (void)state;
    struct table *guest = start_guest();
    for (unsigned i = 0; i < 700; i++)
        assert_true(show(guest, i * PAGE_SIZE, 0, RIGHT_RWX));
    for (unsigned i = 0; i < 700; i++)
        *slot_of(guest, i * PAGE_SIZE, 1) |= BITS(5, 3); /* memory type 7 */
    assert_int_equal(ask(AUDIT_ALL), E_STATE);
    assert_int_equal(totals.findings[AUDIT_ENTRY_LEGAL], 700);
    assert_int_equal(totals.found, 700);
    assert_int_equal(heard_count, AUDIT_REPORTED);
    assert_true(totals.moot);
    assert_int_equal(audit_run(&audit, NULL, NULL, &totals), E_STATE);
    assert_int_equal(totals.found, 700);
    for (unsigned i = 0; i < 700; i++)
        *slot_of(guest, i * PAGE_SIZE, 1) &= ~(BITS(5, 3) & ~BITS(5, 4));
    content(AUDIT_ALL);
    end();
}

static void test_what_is_not_asked_for_is_not_judged(void **state)
{
    (void)state;
    struct table *guest = start_guest();
    assert_true(show(guest, 0, 0, RIGHT_RWX));
    *slot_of(guest, 0, 1) |= BITS(5, 3);
    guest->open_batches++;
    for (unsigned rule = 0; rule < AUDIT_RULES; rule++) {
        bool broken = rule == AUDIT_ENTRY_LEGAL || rule == AUDIT_BATCHES;
        assert_int_equal(ask(BIT(rule)), broken ? E_STATE : E_OK);
        assert_int_equal(totals.rules & ~BIT(rule), 0);
    }
    guest->open_batches--;
    *slot_of(guest, 0, 1) &= ~BIT(3);
    content(AUDIT_ALL);
    end();
}

static void test_tables_without_records_are_refused(void **state)
{
    static const struct table_env early = {.take = buddy_env_take,
                                           .give = buddy_env_give,
                                           .flush = buddy_env_flush,
                                           .frame_records = false};

    (void)state;
    struct table *guest = start_guest();
    guest->env = &early;
    assert_int_equal(ask(AUDIT_ALL), E_INVAL);
    assert_int_equal(ask(AUDIT_ADDRESS_SPACE), E_OK);
    guest->env = &buddy_env;
    audit.tables = 1000;
    assert_int_equal(ask(AUDIT_ALL), E_INVAL);
    audit.tables = 1;
    end();
}

static int no_root(const struct audit_table *of, struct audit_root *out)
{
    (void)of;
    (void)out;
    return E_STATE;
}

static int five_levels(const struct audit_table *of, struct audit_root *out)
{
    *out = (struct audit_root){of->table->root, 5};
    return E_OK;
}

static void test_root_registers(void **state)
{
    (void)state;
    start_guest();
    described[0].read_root = no_root;
    finds(AUDIT_ROOT, "cannot be read back");
    described[0].read_root = five_levels;
    finds(AUDIT_ROOT, "for 5 levels");
    end();
}

/* ---- Damage at random
 * ---------------------------------------------------------------------------- */

static hpa_t frames[4096];
static unsigned frame_count;

static int list_frame(void *ctx, hpa_t frame, unsigned level, uint64_t entries)
{
    (void)ctx;
    (void)level;
    (void)entries;
    frames[frame_count++] = frame;
    return 0;
}

/* An entry that leads anywhere at all: outside memory, back into the tables, into somebody's data.
 */
static uint64_t damaged(struct random *random, uint64_t entry)
{
    switch (random_below(random, 6)) {
    case 0:
        return entry ^ BIT(random_below(random, 64));
    case 1:
        return entry ^ BIT(random_below(random, 12));
    case 2:
        return random_next(random);
    case 3:
        return (entry & ~BITS(51, 12)) | frames[random_below(random, frame_count)].v | 7;
    case 4:
        return (entry & ~BITS(51, 12)) | random_below(random, ARENA / PAGE_SIZE) << 12;
    }
    return 0;
}

static void test_damaged_tables_do_no_harm(void **state)
{
    struct random random = {7};
    unsigned rounds_with_findings = 0;
    uint64_t rules_seen = 0;

    (void)state;
    struct table *kernel = start(&kernel_kind, PURPOSE_HOST_TABLE, 0);
    described[0].others = AUDIT_UNKNOWN;
    assert_int_equal(map_to(kernel, 0xffff800000000000, hpa(0), ARENA, RIGHT_RW), E_OK);
    struct table *program = start_program(), *guest = start_guest(), *other = start_guest();
    for (unsigned i = 0; i < 40; i++) {
        show(program, 0x400000 + i * 0x5000, 0, (i % 2 ? RIGHT_RX : RIGHT_RW) | RIGHT_U);
        show(guest, i * 0x7000, 0, RIGHT_RWX);
        show(other, i * 0x7000, 0, RIGHT_RWX);
    }
    show(guest, 64 * MiB, 9, RIGHT_RWX);
    show(guest, 512 * GiB, 3, RIGHT_RWX);
    audit.everyone = true;
    content(AUDIT_ALL);
    frame_count = 0;
    for (unsigned i = 0; i < audit.tables; i++)
        table_visit_frames(&table[i], list_frame, NULL);

    for (unsigned round = 0; round < 4000; round++) {
        struct {
            uint64_t *word, was;
        } hit[4];
        unsigned hits = 1 + (unsigned)random_below(&random, ARRAY_SIZE(hit));

        for (unsigned i = 0; i < hits; i++) {
            uint64_t *in = direct(frames[random_below(&random, frame_count)]);
            /* The first slots of a table are mostly those in use. */
            unsigned slot = (unsigned)random_below(&random, random_next(&random) & 1 ? 8 : 512);

            hit[i].word =
                random_below(&random, 8) == 0 ? &frame_records[pfn_of(direct_hpa(in))] : &in[slot];
            hit[i].was = *hit[i].word;
            *hit[i].word = damaged(&random, *hit[i].word);
        }
        /* Nothing outside the arena is touched (the sanitizer sees to that), and there is an end.
         */
        rounds_with_findings += ask(AUDIT_ALL) == E_STATE;
        for (unsigned i = 0; i < heard_count; i++)
            rules_seen |= BIT(heard[i].rule);
        while (hits-- > 0)
            *hit[hits].word = hit[hits].was;
    }
    content(AUDIT_ALL);
    assert_true(rounds_with_findings > 2500);
    for (enum audit_rule rule = AUDIT_TABLE_MEMORY; rule <= AUDIT_WRITE_EXECUTE; rule++)
        if (rule != AUDIT_TABLE_COUNT && !(rules_seen & BIT(rule)))
            fail_msg("no damage of 4000 rounds broke the rule: %s", audit_rule_text(rule));
    end();
}

/* ---- The tally
 * ----------------------------------------------------------------------------------- */

#define FRAMES 70000

static void test_tally_against_plain_counters(void **state)
{
    static unsigned model[FRAMES];
    /* The second lies across the end of what one directory reaches. */
    static const uint64_t bases[] = {0, (UINT64_C(1) << 33) - 35000, (UINT64_C(1) << 40) - FRAMES};
    struct random random = {3};

    (void)state;
    for (unsigned b = 0; b < ARRAY_SIZE(bases); b++) {
        uint64_t base = bases[b];
        struct tally tally;

        memset(model, 0, sizeof(model));
        tally_begin(&tally);
        assert_int_equal(tally_uncounted(&tally, base, base + FRAMES), base);
        for (unsigned round = 0; round < 600; round++) {
            uint64_t first = random_below(&random, FRAMES - 3000), again = 0, first_again = 0;
            uint64_t count = 1 + random_below(&random, round % 3 ? 3000 : 130);
            uint64_t expected = 0, expected_first = 0;

            if (round % 5 == 0)
                first = 40000; /* some frames are counted to the limit and beyond */
            for (uint64_t i = first; i < first + count; i++) {
                if (model[i] != 0 && expected++ == 0)
                    expected_first = base + i;
                model[i] += model[i] < TALLY_MOST;
            }
            for (unsigned more = round == 50 ? 300 : 0; more > 0; more--) {
                assert_int_equal(tally_add(&tally, base + 77, 1, &again, &first_again), E_OK);
                model[77] += model[77] < TALLY_MOST;
            }
            assert_int_equal(tally_add(&tally, base + first, count, &again, &first_again), E_OK);
            if (first > 77 || first + count <= 77) {
                assert_int_equal(again, expected);
                if (expected != 0)
                    assert_int_equal(first_again, expected_first);
            }
        }
        assert_int_equal(model[77], TALLY_MOST);
        uint64_t uncounted = 0;
        for (uint64_t i = FRAMES; i-- > 0;) {
            assert_int_equal(tally_count(&tally, base + i), model[i]);
            uncounted = model[i] == 0 ? i : i == FRAMES - 1 ? FRAMES : uncounted;
            if (i % 97 == 0)
                assert_int_equal(tally_uncounted(&tally, base + i, base + FRAMES),
                                 base + uncounted);
        }
        assert_true(tally.frames > 8 && tally.frames < 80);
        tally_end(&tally);
        assert_int_equal(free_frames(), free_before);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_each_rule_is_named, set_up, tear_down),
        cmocka_unit_test(test_each_rule_has_its_own_sentence),
        cmocka_unit_test_setup_teardown(test_selftest_gives_back_what_it_could_take, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(test_content_with_what_the_mapper_builds, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(
            test_an_owner_without_a_table_is_seen_where_all_tables_are_known, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_sharing, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_aliases_across_tables_and_many_runs, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(test_kinds_are_apart, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_guards, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_no_scratch_memory, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_a_flood_is_counted_not_reported, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_what_is_not_asked_for_is_not_judged, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(test_tables_without_records_are_refused, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_root_registers, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_damaged_tables_do_no_harm, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_tally_against_plain_counters, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
