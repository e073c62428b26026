/*
 * What guests' memory goes through, against a plain model: an array of pages for each guest, what
 * is in them, and which were written since somebody asked. The CPU is played here: it walks the
 * real table, exits where that does not let it through, sets A and D, and keeps a log where it has
 * one. After each step the auditor looks at all tables; at the end every frame is back.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "lib/bits.h"
#include "lib/error.h"
#include "mm/audit/audit.h"
#include "mm/frames/buddy.h"
#include "mm/paging/pte.h"
#include "mm/paging/typed.h"
#include "tests/unit/fake_machine.h"
#include "tests/unit/random.h"
#include "vm/dirty.h"
#include "vm/exits.h"
#include "vm/guest_audit.h"
#include "vm/slots.h"

#define MEMORY (96 * MiB)
#define PAGES 2048u /* of a guest: 8 MiB, of which 640K .. 1M is a hole */
#define HOLE_FIRST 0xa0u
#define HOLE_END 0x100u
#define LOG_ENTRIES 512u

static uint8_t sector[512];
static uint64_t frames_before;
static struct random chance;

/* How dirty pages are found. */
enum way { BY_MARKS, BY_LOG, BY_PROTECTION, WAYS };

static void start_machine(enum way way)
{
    machine_start(MEMORY);
    machine_logs = way == BY_LOG;
    machine_caps.accessed_dirty = way != BY_PROTECTION;
    machine_caps.leaf_top = 2;
    guests_init(&machine_backend, NULL);
    memset(sector, 0, sizeof(sector));
    sector[510] = 0x55;
    sector[511] = 0xaa;
    frames_before = machine_free_frames();
}

static void stop_machine(void)
{
    struct buddy_stats stats;
    char why[160];

    for (unsigned owner = OWNER_SHARED; owner <= OWNER_FIRST_GUEST + guest_count(); owner++)
        assert_int_equal(buddy_owner_frames((owner_t)owner), 0);
    buddy_stats(&stats);
    assert_int_equal(stats.free_frames + stats.by_purpose[PURPOSE_HEAP], frames_before);
    if (buddy_verify(why, sizeof(why)) != E_OK)
        fail_msg("%s", why);
    machine_stop();
}

/* ---- The model ------------------------------------------------------------------------------- */

struct page {
    uint64_t stamp; /* at its first byte; all else is 0 */
    bool dirty;
};

struct model {
    struct guest *guest;
    bool asked;
    struct page page[PAGES];
};

static struct model models[4];
static unsigned living;

static struct model *make(const char *cmdline)
{
    const struct guest_image image = {.bytes = sector, .size = sizeof(sector), .cmdline = cmdline};
    struct model *model = &models[living++];

    memset(model, 0, sizeof(*model));
    if (guest_create(&image, &model->guest) != E_OK)
        fail_msg("%s: %s", cmdline, model->guest != NULL ? model->guest->reason : "no guest");
    for (unsigned i = 0; i < PAGES; i++) /* what the loader has left */
        (void)guest_read(model->guest, gpa(i * PAGE_SIZE), &model->page[i].stamp, 8);
    return model;
}

static bool is_memory(unsigned page)
{
    return page < HOLE_FIRST || page >= HOLE_END;
}

static void audit_all(void)
{
    static struct audit_table tables[2 * ARRAY_SIZE(models)];
    static char names[2 * ARRAY_SIZE(models)][GUEST_AUDIT_NAME];
    struct audit audit = {.rules = AUDIT_ALL, .table = tables, .everyone = true};
    struct audit_totals totals;

    for (unsigned i = 1; i <= guest_count(); i++)
        if (guest_by_number(i)->has_table) {
            guest_describe(guest_by_number(i), names[audit.tables], &tables[audit.tables]);
            audit.tables++;
        }
    machine_forget_log();
    if (audit_run(&audit, NULL, NULL, &totals) != E_OK) {
        for (unsigned i = 0; i < audit.tables; i++)
            audit_one(&tables[i]);
        for (unsigned i = 0; i < AUDIT_RULES; i++)
            if (totals.findings[i] != 0)
                print_message("%s: not\n", audit_rule_text((enum audit_rule)i));
        fail_msg("%lu findings: %s", totals.found, machine_log());
    }
}

static void expect_contents(const struct model *model)
{
    for (unsigned i = 0; i < PAGES; i++) {
        uint64_t word = 0;

        if (!is_memory(i))
            continue;
        if (guest_read(model->guest, gpa(i * PAGE_SIZE), &word, sizeof(word)) == 0)
            word = 0; /* lazy, and never touched */
        if (word != model->page[i].stamp)
            fail_msg("g%u, page 0x%x: 0x%lx, not 0x%lx", model->guest->number, i, word,
                     model->page[i].stamp);
    }
}

/* ---- The CPU --------------------------------------------------------------------------------- */

/* Sets A and D on the way of an access that goes through, and logs. */
static void mark(struct guest *guest, gpa_t at, bool write)
{
    struct fake_vcpu *vcpu = fake_of(guest);
    const struct table_kind *kind = guest->table.kind;
    struct walk walk;

    if (!guest->table.caps.accessed_dirty)
        return;
    table_walk(&guest->table, at.v, &walk);
    struct walk_step *leaf = &walk.step[walk.count - 1];
    if (write && !leaf->dirty && vcpu->logs) {
        if (vcpu->logged == LOG_ENTRIES) {
            struct vm_exit full = {.kind = VM_EXIT_LOG_FULL};
            assert_true(exit_dispatch(guest, &full));
            assert_int_equal(vcpu->logged, 0);
        }
        vcpu->log[vcpu->logged++] = gpa(align_down(at.v, PAGE_SIZE));
    }
    pte_set_bits(direct(leaf->address), kind->accessed_bit | (write ? kind->dirty_bit : 0));
}

/* The byte's place, after as many exits as it takes; NULL: the guest is held. */
static uint64_t *reach(struct guest *guest, gpa_t at, unsigned access)
{
    for (unsigned tries = 0; tries < 4; tries++) {
        struct mapping mapping = {.attrs = {.rights = 0}};
        int error = gpa_translate(&guest->table, at, &mapping);

        if (error == E_OK && !(access & ~mapping.attrs.rights)) {
            mark(guest, at, access == RIGHT_W);
            return direct(hpa_add(mapping.out, at.v - mapping.in));
        }
        struct vm_exit exit = {
            .kind = VM_EXIT_MEMORY,
            .rip = 0x7c00,
            .memory = {.gpa = at, .access = access, .allowed = mapping.attrs.rights},
        };
        if (!exit_dispatch(guest, &exit))
            return NULL;
    }
    fail_msg("g%u keeps exiting at 0x%lx", guest->number, at.v);
    return NULL;
}

static bool cpu_write(struct model *model, unsigned page, uint64_t stamp)
{
    uint64_t *word = reach(model->guest, gpa(page * PAGE_SIZE), RIGHT_W);

    if (word == NULL)
        return false;
    *word = stamp;
    model->page[page].stamp = stamp;
    model->page[page].dirty = true;
    return true;
}

static void cpu_read(struct model *model, unsigned page)
{
    const uint64_t *word = reach(model->guest, gpa(page * PAGE_SIZE), RIGHT_R);

    assert_non_null(word);
    assert_int_equal(*word, model->page[page].stamp);
}

static void host_write(struct model *model, unsigned page, uint64_t stamp)
{
    assert_int_equal(guest_write(model->guest, gpa(page * PAGE_SIZE), &stamp, sizeof(stamp)),
                     sizeof(stamp));
    model->page[page].stamp = stamp;
    model->page[page].dirty = true;
}

/* ---- Dirty pages ----------------------------------------------------------------------------- */

static void ask(struct model *model)
{
    struct page_set *set = &model->guest->dirty.set[DIRTY_CONSOLE];

    if (!model->asked) {
        assert_int_equal(dirty_start(model->guest, DIRTY_CONSOLE), E_OK);
        model->asked = true;
    } else {
        dirty_collect(model->guest);
        for (unsigned i = 0; i < PAGES; i++)
            if (page_set_has(set, i * PAGE_SIZE) != model->page[i].dirty)
                fail_msg("g%u, page 0x%x: %s", model->guest->number, i,
                         model->page[i].dirty ? "was written" : "was not written");
        page_set_clear(set);
    }
    for (unsigned i = 0; i < PAGES; i++)
        model->page[i].dirty = false;
}

static void ask_no_more(struct model *model)
{
    dirty_stop(model->guest, DIRTY_CONSOLE);
    model->asked = false;
}

static unsigned some_page(void)
{
    unsigned page;

    do {
        page = (unsigned)random_below(&chance, PAGES);
        if (random_below(&chance, 2) != 0)
            page = 512 + page % 64; /* often the same ones */
    } while (!is_memory(page));
    return page;
}

static void step(struct model *model)
{
    switch (random_below(&chance, 12)) {
    case 0:
        ask(model);
        break;
    case 1:
        if (random_below(&chance, 4) == 0)
            ask_no_more(model);
        break;
    case 2:
    case 3:
        host_write(model, some_page(), random_next(&chance));
        break;
    case 4:
    case 5:
        cpu_read(model, some_page());
        break;
    default:
        for (unsigned n = 0; n < 10; n++)
            assert_true(cpu_write(model, some_page(), random_next(&chance)));
    }
}

static void run_dirty(enum way way, const char *options, uint64_t seed)
{
    start_machine(way);
    chance.state = seed;
    living = 0;
    struct model *model = make(options);
    for (unsigned n = 0; n < 300; n++) {
        step(model);
        audit_all();
    }
    expect_contents(model);
    assert_int_equal(guest_kill(model->guest), E_OK);
    stop_machine();
}

static void dirty_pages_are_those_written(void **state)
{
    (void)state;
    for (enum way way = 0; way < WAYS; way++) {
        run_dirty(way, "eager mem=8M", 1 + way);
        run_dirty(way, "lazy lazy mem=8M", 11 + way);
    }
}

/* Each asks in his own time. */
static void two_may_ask(void **state)
{
    (void)state;
    for (enum way way = 0; way < WAYS; way++) {
        start_machine(way);
        living = 0;
        struct model *model = make("two mem=8M");
        struct page_set *set = model->guest->dirty.set;

        assert_int_equal(dirty_start(model->guest, DIRTY_CONSOLE), E_OK);
        assert_int_equal(dirty_start(model->guest, DIRTY_CONSOLE), E_STATE);
        cpu_write(model, 600, 1);
        assert_int_equal(dirty_start(model->guest, DIRTY_SNAPSHOT), E_OK);
        cpu_write(model, 601, 1);
        dirty_collect(model->guest);
        assert_int_equal(set[DIRTY_CONSOLE].pages, 2);
        assert_int_equal(set[DIRTY_SNAPSHOT].pages, 1);
        page_set_clear(&set[DIRTY_CONSOLE]);
        cpu_write(model, 600, 2);
        dirty_collect(model->guest);
        assert_int_equal(set[DIRTY_CONSOLE].pages, 1);
        assert_int_equal(set[DIRTY_SNAPSHOT].pages, 2);
        dirty_stop(model->guest, DIRTY_SNAPSHOT);
        cpu_write(model, 600, 3);
        dirty_collect(model->guest);
        assert_int_equal(set[DIRTY_CONSOLE].pages, 1);
        assert_int_equal(guest_kill(model->guest), E_OK);
        stop_machine();
    }
}

/* Large pages are split where they are written, and joined again. */
static void large_pages_are_split_and_joined(void **state)
{
    (void)state;
    for (enum way way = 0; way < WAYS; way++) {
        start_machine(way);
        living = 0;
        struct model *model = make("large mem=8M");
        uint64_t tables = model->guest->table.table_frames;

        ask(model);
        assert_int_equal(model->guest->table.table_frames, tables);
        cpu_read(model, 1024);
        assert_int_equal(model->guest->table.table_frames, tables);
        cpu_write(model, 1024, 5);
        cpu_write(model, 1030, 6);
        assert_int_equal(model->guest->table.table_frames, tables + 1);
        ask(model);
        for (unsigned page = 600; page < 1600; page++) /* more than a log holds */
            cpu_write(model, page, page);
        ask(model);
        ask_no_more(model);
        assert_int_equal(model->guest->table.table_frames, tables);
        uint64_t opened = model->guest->faults_opened;
        cpu_write(model, 1024, 7);
        cpu_write(model, 1600, 7);
        assert_int_equal(model->guest->faults_opened, opened); /* all is writable again */
        assert_int_equal(guest_kill(model->guest), E_OK);
        stop_machine();
    }
}

/* Without frames for nodes the page stays large, and counts as written whole. */
static void without_frames_it_is_too_much_and_never_too_little(void **state)
{
    (void)state;
    for (enum way way = 0; way < WAYS; way++) {
        start_machine(way);
        living = 0;
        struct model *model = make("poor mem=8M");

        ask(model);
        buddy_set_quota(guest_owner(model->guest), buddy_owner_frames(guest_owner(model->guest)));
        for (unsigned round = 0; round < 2; round++) {
            assert_true(cpu_write(model, 1030, 1 + round));
            dirty_collect(model->guest);
            assert_int_equal(model->guest->dirty.set[DIRTY_CONSOLE].pages, 512);
            page_set_clear(&model->guest->dirty.set[DIRTY_CONSOLE]);
            audit_all();
        }
        assert_int_equal(guest_kill(model->guest), E_OK);
        stop_machine();
    }
}

/* Tracking itself: with any number of frames it begins, or nothing has changed. */
static void every_shortage_at_the_start(void **state)
{
    (void)state;
    start_machine(BY_PROTECTION);
    living = 0;
    struct model *model = make("short mem=8M");
    owner_t owner = guest_owner(model->guest);
    uint64_t held = buddy_owner_frames(owner);
    int error = E_QUOTA;

    for (unsigned k = 0; error != E_OK; k++) {
        buddy_set_quota(owner, held + k);
        error = dirty_start(model->guest, DIRTY_CONSOLE);
        assert_true(error == E_OK || error == E_QUOTA);
        assert_int_equal(model->guest->dirty.way, error == E_OK ? DIRTY_BY_PROTECTION : DIRTY_OFF);
        assert_true(error == E_OK || buddy_owner_frames(owner) == held);
        audit_all();
    }
    assert_int_equal(guest_kill(model->guest), E_OK);
    stop_machine();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(dirty_pages_are_those_written),
        cmocka_unit_test(two_may_ask),
        cmocka_unit_test(large_pages_are_split_and_joined),
        cmocka_unit_test(without_frames_it_is_too_much_and_never_too_little),
        cmocka_unit_test(every_shortage_at_the_start),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
