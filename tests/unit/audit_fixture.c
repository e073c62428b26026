/* See audit_fixture.h. */
#include "tests/unit/audit_fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include <cmocka.h>

#include "tests/unit/buddy_env.h"

static uint8_t *arena;
static void *metadata;

uint64_t free_before;
struct table table[TABLES];
struct audit_table described[TABLES];
struct audit audit;

const struct table_caps caps = {
    .maxphyaddr = 40,
    .leaf_top = 3,
    .nx = true,
    .accessed_dirty = true,
    .execute_only = true,
    .global = true,
    .mem_types = 1u << MEM_UC | 1u << MEM_WC | 1u << MEM_WT | 1u << MEM_WP | 1u << MEM_WB,
};

/* ---- The machine ----------------------------------------------------------------------------- */

uint64_t free_frames(void)
{
    struct buddy_stats stats;

    buddy_stats(&stats);
    return stats.free_frames;
}

int set_up(void **state)
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

int tear_down(void **state)
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

/* ---- Tables ---------------------------------------------------------------------------------- */

struct audit_finding heard[AUDIT_RULES * AUDIT_REPORTED];
unsigned heard_count;
struct audit_totals totals;

static void hear(void *ctx, const struct audit_finding *finding)
{
    (void)ctx;
    assert_true(heard_count < ARRAY_SIZE(heard));
    heard[heard_count++] = *finding;
}

int ask(uint64_t rules)
{
    heard_count = 0;
    audit.rules = rules;
    return audit_run(&audit, hear, NULL, &totals);
}

void content(uint64_t rules)
{
    char text[AUDIT_LINE];

    if (ask(rules) != E_OK)
        fail_msg("%s", heard_count ? audit_line(text, &heard[0]) : "no finding");
    assert_int_equal(totals.found, 0);
}

void finds(enum audit_rule rule, const char *fragment)
{
    char text[AUDIT_LINE];

    assert_int_equal(ask(AUDIT_ALL), E_STATE);
    for (unsigned i = 0; i < heard_count; i++)
        if (heard[i].rule == rule && strstr(audit_line(text, &heard[i]), fragment))
            return;
    fail_msg("not found: %s", fragment);
}

struct table *start(const struct table_kind *kind, enum frame_purpose purpose, uint64_t shows)
{
    static const char *const names[TABLES] = {"t0", "t1", "t2", "t3", "t4", "t5"};
    unsigned i = audit.tables++;
    struct table *t = &table[i];

    assert_int_equal(
        table_init(t, kind, &caps, &buddy_env, purpose, (owner_t)(OWNER_FIRST_GUEST + 1 + i)),
        E_OK);
    described[i] = (struct audit_table){
        .table = t, .name = names[i], .shows = shows, .write_xor_execute = kind != &ept_kind};
    return t;
}

struct table *start_guest(void)
{
    return start(&ept_kind, PURPOSE_EPT_TABLE, BIT(PURPOSE_GUEST_RAM));
}

struct table *start_program(void)
{
    return start(&user_kind, PURPOSE_USER_TABLE, BIT(PURPOSE_USER_RAM));
}

int map_to(struct table *t, uint64_t in, hpa_t to, uint64_t size, unsigned rights)
{
    struct flush_batch batch;

    flush_begin(&batch, t);
    int error = table_map(t, in, to, size, attrs_of(rights, MEM_WB), MAP_DEFAULT, &batch);
    flush_commit(&batch);
    return error;
}

bool show(struct table *t, uint64_t in, unsigned order, unsigned rights)
{
    enum frame_purpose purpose = t->kind == &ept_kind ? PURPOSE_GUEST_RAM : PURPOSE_USER_RAM;
    hpa_t block;

    assert_int_equal(buddy_alloc(order, purpose, t->owner, &block), E_OK);
    if (map_to(t, in, block, PAGE_SIZE << order, rights) == E_OK)
        return true;
    assert_int_equal(buddy_free(block, order, t->owner), E_OK);
    return false;
}

int free_leaf(void *ctx, const struct mapping *page)
{
    struct frame_info info;
    hpa_t head;

    (void)ctx;
    assert_int_equal(frame_query(page->out, &info, &head), E_OK);
    if (info.state == FRAME_SHARED || head.v == page->out.v)
        assert_int_equal(buddy_release(head, info.order, info.owner, NULL), E_OK);
    return 0;
}

void end_tables(void)
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

uint64_t *slot_of(struct table *t, uint64_t in, unsigned level)
{
    struct walk walk;

    table_walk(t, in, &walk);
    assert_true(walk.count > t->kind->levels - level);
    return direct(walk.step[t->kind->levels - level].address);
}
