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

#include "guests/abi.h"
#include "lib/bits.h"
#include "lib/error.h"
#include "mm/audit/audit.h"
#include "mm/frames/buddy.h"
#include "mm/paging/pte.h"
#include "mm/paging/typed.h"
#include "tests/unit/fake_machine.h"
#include "tests/unit/random.h"
#include "vm/dirty.h"
#include "vm/cow.h"
#include "vm/exits.h"
#include "vm/fork.h"
#include "vm/fuzz.h"
#include "vm/guest_audit.h"
#include "vm/quota.h"
#include "vm/slots.h"
#include "vm/snapshot.h"

#define MEMORY (96 * MiB)
#define PAGES 2048u /* of a guest: 8 MiB, of which 640K .. 1M is a hole */
#define HOLE_FIRST 0xa0u
#define HOLE_END 0x100u
#define LOG_ENTRIES 512u
#define GUESTS 8u

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
    uint64_t stamp[2]; /* its first and its last word; the others stay as they are */
    uint64_t kept[2];  /* what they were when the snapshot was taken */
    bool dirty;
};

/* Where a page's words are. */
static gpa_t place_of(unsigned page, unsigned which)
{
    return gpa(page * PAGE_SIZE + which * (PAGE_SIZE - sizeof(uint64_t)));
}

struct model {
    struct guest *guest;
    bool asked, has_snapshot;
    struct page page[PAGES];
};

static struct model models[GUESTS];
static unsigned living; /* models in use, of guests that may have ended */

static struct model *make(const char *cmdline)
{
    const struct guest_image image = {.bytes = sector, .size = sizeof(sector), .cmdline = cmdline};
    struct model *model = &models[living++];

    memset(model, 0, sizeof(*model));
    if (guest_create(&image, &model->guest) != E_OK)
        fail_msg("%s: %s", cmdline, model->guest != NULL ? model->guest->reason : "no guest");
    for (unsigned i = 0; i < PAGES; i++) /* what the loader has left */
        for (unsigned which = 0; which < 2; which++)
            (void)guest_read(model->guest, place_of(i, which), &model->page[i].stamp[which], 8);
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
            if (guest_by_number(i)->snapshot == NULL)
                continue;
            guest_describe_snapshot(guest_by_number(i), names[audit.tables], &tables[audit.tables]);
            audit.tables++;
        }
    machine_forget_log();
    if (audit_run(&audit, NULL, NULL, &totals) != E_OK) {
        for (unsigned i = 0; i < audit.tables; i++)
            audit_one(&tables[i], NULL, NULL);
        for (unsigned i = 0; i < AUDIT_RULES; i++)
            if (totals.findings[i] != 0)
                print_message("%s: not\n", audit_rule_text((enum audit_rule)i));
        fail_msg("%lu findings: %s", totals.found, machine_log());
    }
}

static void expect_contents(const struct model *model)
{
    for (unsigned i = 0; i < 2 * PAGES; i++) {
        unsigned page = i / 2, which = i % 2;
        uint64_t word = 0;

        if (!is_memory(page))
            continue;
        if (guest_read(model->guest, place_of(page, which), &word, sizeof(word)) == 0)
            word = 0; /* lazy, and never touched */
        if (word != model->page[page].stamp[which])
            fail_msg("g%u, page 0x%x: 0x%lx, not 0x%lx", model->guest->number, page, word,
                     model->page[page].stamp[which]);
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
    unsigned which = stamp % 2;
    uint64_t *word = reach(model->guest, place_of(page, which), RIGHT_W);

    if (word == NULL)
        return false;
    *word = stamp;
    model->page[page].stamp[which] = stamp;
    model->page[page].dirty = true;
    return true;
}

static void cpu_read(struct model *model, unsigned page)
{
    const uint64_t *word = reach(model->guest, place_of(page, 0), RIGHT_R);

    assert_non_null(word);
    assert_int_equal(*word, model->page[page].stamp[0]);
}

static void host_write(struct model *model, unsigned page, uint64_t stamp)
{
    unsigned which = stamp % 2;

    assert_int_equal(guest_write(model->guest, place_of(page, which), &stamp, sizeof(stamp)),
                     sizeof(stamp));
    model->page[page].stamp[which] = stamp;
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

/* ---- Snapshots and forks --------------------------------------------------------------------- */

static void take_snapshot(struct model *model)
{
    assert_int_equal(guest_snapshot(model->guest), E_OK);
    model->has_snapshot = true;
    for (unsigned i = 0; i < PAGES; i++)
        memcpy(model->page[i].kept, model->page[i].stamp, sizeof(model->page[i].kept));
}

static void go_back(struct model *model)
{
    int error = guest_back(model->guest);

    assert_int_equal(error, model->has_snapshot ? E_OK : E_NOENT);
    for (unsigned i = 0; model->has_snapshot && i < PAGES; i++) {
        struct page *page = &model->page[i];

        page->dirty |= memcmp(page->stamp, page->kept, sizeof(page->kept)) != 0;
        memcpy(page->stamp, page->kept, sizeof(page->kept));
    }
    if (model->has_snapshot)
        assert_int_equal(model->guest->dirty.set[DIRTY_SNAPSHOT].pages, 0);
}

static void make_fork(struct model *from)
{
    struct model *model = &models[living];

    if (living == GUESTS)
        return;
    *model = *from;
    assert_int_equal(guest_fork(from->guest, &model->guest), E_OK);
    living++;
    model->asked = model->has_snapshot = false;
}

static void end_one(struct model *model)
{
    assert_int_equal(guest_kill(model->guest), E_OK);
    model->guest = NULL;
}

static struct model *some_model(void)
{
    struct model *model;

    do
        model = &models[random_below(&chance, living)];
    while (model->guest == NULL);
    return model;
}

static unsigned guests_alive(void)
{
    unsigned alive = 0;

    for (unsigned i = 0; i < living; i++)
        alive += models[i].guest != NULL;
    return alive;
}

/* What was put back counts as written, though it may be the same as before: so no page that was
 * written may be missing, and none that was neither written nor put back may be there. */
static void ask_again(struct model *model)
{
    struct page_set *set = &model->guest->dirty.set[DIRTY_CONSOLE];

    if (!model->asked) {
        ask(model);
        return;
    }
    dirty_collect(model->guest);
    for (unsigned i = 0; i < PAGES; i++)
        if (model->page[i].dirty && !page_set_has(set, i * PAGE_SIZE))
            fail_msg("g%u, page 0x%x: was written", model->guest->number, i);
    page_set_clear(set);
    for (unsigned i = 0; i < PAGES; i++)
        model->page[i].dirty = false;
}

static void change(struct model *model)
{
    switch (random_below(&chance, 16)) {
    case 0:
        take_snapshot(model);
        break;
    case 1:
    case 2:
        go_back(model);
        break;
    case 3:
        make_fork(model);
        break;
    case 4:
        if (guests_alive() > 1)
            end_one(model);
        break;
    case 5:
        ask_again(model);
        break;
    case 6:
        if (random_below(&chance, 3) == 0) {
            guest_snapshot_drop(model->guest);
            model->has_snapshot = false;
        }
        break;
    case 7:
        if (random_below(&chance, 3) == 0)
            ask_no_more(model);
        break;
    case 8:
    case 9:
        host_write(model, some_page(), random_next(&chance));
        break;
    case 10:
        cpu_read(model, some_page());
        break;
    default:
        for (unsigned n = 0; n < 8; n++)
            assert_true(cpu_write(model, some_page(), random_next(&chance)));
    }
}

static void run_copies(enum way way, const char *options, uint64_t seed)
{
    start_machine(way);
    chance.state = seed;
    living = 0;
    make(options);
    for (unsigned n = 0; n < 300; n++) {
        change(some_model());
        audit_all();
        if (n % 8 == 0)
            expect_contents(some_model());
    }
    for (unsigned i = 0; i < living; i++)
        if (models[i].guest != NULL) {
            expect_contents(&models[i]);
            end_one(&models[i]);
            audit_all();
        }
    stop_machine();
}

static void copies_are_what_they_are_copies_of(void **state)
{
    (void)state;
    for (enum way way = 0; way < WAYS; way++)
        for (uint64_t seed = 0; seed < 3; seed++) {
            run_copies(way, "eager mem=8M", 100 + 10 * seed + way);
            run_copies(way, "lazy lazy mem=8M", 200 + 10 * seed + way);
        }
}

/* CPU, devices and what is pending. */
static void copies_have_the_cpu_and_the_devices(void **state)
{
    struct guest *fork;

    (void)state;
    start_machine(BY_MARKS);
    living = 0;
    struct guest *guest = make("cpu mem=1M")->guest;
    guest->vcpu->gpr[RBX] = 77;
    fake_of(guest)->state.rip = 0x1234;
    guest->devices.cmos.started = 99;
    guest->expect_fault.size = 5;
    guest->clock.at = 4444;
    assert_int_equal(guest_snapshot(guest), E_OK);
    assert_int_equal(guest_fork(guest, &fork), E_OK);
    guest->vcpu->gpr[RBX] = 1;
    fake_of(guest)->state.rip = 2;
    guest->devices.cmos.started = 3;
    guest->expect_fault.size = 0;
    guest->clock.at = 5;
    assert_int_equal(guest_back(guest), E_OK);
    for (unsigned i = 0; i < 2; i++, guest = fork) {
        assert_int_equal(guest->vcpu->gpr[RBX], 77);
        assert_int_equal(fake_of(guest)->state.rip, 0x1234);
        assert_int_equal(guest->devices.cmos.started, 99);
        assert_int_equal(guest->expect_fault.size, 5);
        assert_int_equal(guest_now(guest), 4444);
        assert_int_equal(guest->state, GUEST_RUNNING);
    }
    assert_int_equal(guest_kill(guest_by_number(1)), E_OK);
    assert_int_equal(guest_kill(fork), E_OK);
    assert_int_equal(guest_snapshot(fork), E_STATE);
    assert_int_equal(guest_fork(fork, &guest), E_STATE);
    stop_machine();
}

/* A guest that ends with a snapshot is held, and goes back. */
static void shut_down(struct fake_vcpu *vcpu, struct vm_exit *exit)
{
    (void)vcpu;
    exit->kind = VM_EXIT_SHUTDOWN;
}

static void a_guest_with_a_snapshot_does_not_end(void **state)
{
    (void)state;
    start_machine(BY_MARKS);
    living = 0;
    struct guest *guest = make("ends mem=1M")->guest;
    assert_int_equal(guest_snapshot(guest), E_OK);
    machine_cpu = shut_down;
    guests_round();
    assert_int_equal(guest->state, GUEST_PAUSED);
    assert_int_equal(guest->held_end, GUEST_STOPPED);
    assert_non_null(strstr(machine_log(), "`reset g1` goes back to it"));
    assert_int_equal(guest_start(guest), E_STATE);
    assert_int_equal(guest_snapshot(guest), E_STATE);
    assert_int_equal(guest_back(guest), E_OK);
    assert_int_equal(guest->state, GUEST_RUNNING);
    assert_int_equal(guest_pause(guest), E_OK);
    assert_int_equal(guest_back(guest), E_OK);
    assert_int_equal(guest->state, GUEST_PAUSED);
    assert_int_equal(guest_kill(guest), E_OK);
    assert_int_equal(guest_start(guest), E_OK);
    assert_int_equal(guest_kill(guest), E_OK);
    stop_machine();
}

/* With any number of frames a snapshot or a fork is made, or nothing has changed. */
static void every_shortage_of_copies(void **state)
{
    (void)state;
    for (enum way way = 0; way < WAYS; way++) {
        struct guest *fork = NULL;
        int error = E_QUOTA;

        start_machine(way);
        living = 0;
        struct model *model = make("short mem=8M quota=12M");
        owner_t owner = guest_owner(model->guest);
        cpu_write(model, 600, 1);
        for (unsigned k = 0; error != E_OK; k++) {
            uint64_t held = buddy_owner_frames(owner);

            buddy_set_quota(owner, held + k);
            error = guest_snapshot(model->guest);
            assert_true(error == E_OK || error == E_QUOTA);
            assert_true((error == E_OK) == (model->guest->snapshot != NULL));
            assert_true(error == E_OK || buddy_owner_frames(owner) == held);
            audit_all();
        }
        error = E_QUOTA;
        for (unsigned k = 0; error != E_OK && living + k < GUEST_LIMIT; k++) {
            buddy_set_quota(owner, k + 1);
            error = guest_fork(model->guest, &fork);
            assert_true(error == E_OK || error == E_QUOTA);
            assert_true(error == E_OK || buddy_owner_frames(guest_owner(fork)) == 0);
            audit_all();
        }
        assert_int_equal(error, E_OK);
        expect_contents(model);
        /* The first has no quota left: its write waits, and goes through later. */
        buddy_set_quota(owner, buddy_owner_frames(owner));
        assert_false(cpu_write(model, 700, 5));
        assert_int_equal(model->guest->state, GUEST_PAUSED);
        assert_non_null(strstr(model->guest->reason, "its quota is"));
        audit_all();
        buddy_set_quota(owner, UINT64_MAX);
        assert_int_equal(guest_start(model->guest), E_OK);
        assert_true(cpu_write(model, 700, 5));
        expect_contents(model);
        assert_int_equal(guest_kill(model->guest), E_OK);
        assert_int_equal(guest_kill(fork), E_OK);
        stop_machine();
    }
}

/* The way back asks for frames where a fork has pages of the guest's. */
static void back_without_frames_can_be_tried_again(void **state)
{
    struct guest *fork;

    (void)state;
    start_machine(BY_MARKS);
    living = 0;
    struct model *model = make("back mem=8M");
    owner_t owner = guest_owner(model->guest);
    take_snapshot(model);
    for (unsigned i = 0; i < 20; i++)
        cpu_write(model, 600 + i, 5);
    assert_int_equal(guest_fork(model->guest, &fork), E_OK);
    buddy_set_quota(owner, buddy_owner_frames(owner) + 7);
    assert_int_equal(guest_back(model->guest), E_QUOTA);
    assert_int_equal(model->guest->state, GUEST_PAUSED);
    audit_all();
    buddy_set_quota(owner, UINT64_MAX);
    go_back(model);
    expect_contents(model);
    assert_int_equal(guest_kill(model->guest), E_OK);
    assert_int_equal(guest_kill(fork), E_OK);
    stop_machine();
}

/* Large pages are shared whole: a fork costs its nodes, and no more. */
static void large_pages_are_shared_whole(void **state)
{
    struct guest *fork;
    uint64_t word = 7;

    (void)state;
    start_machine(BY_MARKS);
    living = 0;
    struct model *model = make("large mem=8M");
    uint64_t tables = model->guest->table.table_frames;
    assert_int_equal(guest_fork(model->guest, &fork), E_OK);
    assert_int_equal(fork->table.table_frames, tables);
    assert_int_equal(buddy_owner_frames(guest_owner(fork)), tables);
    assert_int_equal(guest_write(fork, gpa(4 * MiB), &word, sizeof(word)), sizeof(word));
    assert_int_equal(fork->table.table_frames, tables + 1);
    assert_int_equal(model->guest->table.table_frames, tables);
    assert_int_equal(buddy_owner_frames(guest_owner(fork)), tables + 2);
    expect_contents(model);
    /* Alone with what it shared, the first takes it over: whole where it is whole. */
    assert_int_equal(guest_kill(fork), E_OK);
    uint64_t copied = model->guest->pages_copied;
    for (unsigned page = 1024; page < PAGES; page++)
        cpu_write(model, page, page);
    assert_int_equal(model->guest->pages_copied, copied);
    audit_all();
    expect_contents(model);
    assert_int_equal(guest_kill(model->guest), E_OK);
    stop_machine();
}

/* A large block that several hold is let go of leaf by leaf, where its leaves are smaller: what is
 * left so when a split to the bottom had no frames left on the way. */
static void blocks_larger_than_their_leaves_are_divided(void **state)
{
    struct guest *forks[2];
    struct flush_batch batch;

    (void)state;
    start_machine(BY_MARKS);
    living = 0;
    struct model *model = make("large mem=8M");
    cpu_write(model, 1024, 6);
    for (unsigned i = 0; i < ARRAY_SIZE(forks); i++)
        assert_int_equal(guest_fork(model->guest, &forks[i]), E_OK);
    flush_begin(&batch, &forks[0]->table);
    assert_int_equal(table_split(&forks[0]->table, 4 * MiB, 2 * MiB, 1, &batch), E_OK);
    flush_commit(&batch);
    assert_int_equal(guest_kill(forks[0]), E_OK);
    audit_all();
    expect_contents(model);
    assert_int_equal(guest_kill(forks[1]), E_OK);
    audit_all();
    expect_contents(model);
    assert_int_equal(guest_kill(model->guest), E_OK);
    stop_machine();
}

/* What the first may hold, its fork may: from the options, from the console, by default. */
static void a_fork_has_a_quota(void **state)
{
    struct guest *fork, *second;

    (void)state;
    start_machine(BY_MARKS);
    living = 0;
    struct guest *guest = make("first mem=8M quota=12M")->guest;
    assert_int_equal(guest_fork(guest, &fork), E_OK);
    assert_int_equal(quota_bytes(fork), 12 * MiB);
    buddy_set_quota(guest_owner(fork), 300);
    assert_int_equal(guest_fork(fork, &second), E_OK);
    assert_int_equal(buddy_quota(guest_owner(second)), 300);
    assert_int_equal(guest_kill(second), E_OK);
    assert_int_equal(buddy_quota(guest_owner(second)), UINT64_MAX);
    assert_int_equal(guest_kill(fork), E_OK);
    assert_int_equal(guest_kill(guest), E_OK);
    guest = make("large mem=50M")->guest; /* more than three fourths of what it leaves */
    assert_int_equal(buddy_quota(guest_owner(guest)), UINT64_MAX);
    uint64_t most = machine_free_frames() / 4 * 3;
    assert_int_equal(guest_fork(guest, &fork), E_OK);
    assert_in_range(buddy_quota(guest_owner(fork)), most - 16, most);
    assert_int_equal(guest_kill(fork), E_OK);
    assert_int_equal(guest_kill(guest), E_OK);
    guest = make("small mem=8M")->guest;
    assert_int_equal(guest_fork(guest, &fork), E_OK);
    assert_int_equal(buddy_quota(guest_owner(fork)), UINT64_MAX);
    assert_int_equal(guest_kill(fork), E_OK);
    assert_int_equal(guest_kill(guest), E_OK);
    stop_machine();
}

/* ---- Fuzzing --------------------------------------------------------------------------------- */

#define INPUT_AT 0x300000u
#define INPUT_SIZE 16u

/* A program that counts its rounds in memory, crashes when a byte of its input is 0xff, halts when
 * one is 0xfe, and never ends when one is 0x80. */
static void fuzzed_cpu(struct fake_vcpu *vcpu, struct vm_exit *exit)
{
    struct guest *guest = vcpu->vcpu.guest;
    uint8_t input[INPUT_SIZE] = {0};
    uint64_t *count = reach(guest, gpa(0x5000), RIGHT_W);

    assert_non_null(count);
    *count += 1;
    assert_true(*count == 1 || *count < 100000);
    (void)guest_read(guest, gpa(INPUT_AT), input, sizeof(input));
    exit->length = 3;
    if (memchr(input, 0x80, sizeof(input)) != NULL) {
        exit->kind = VM_EXIT_SLICE;
        return;
    }
    assert_int_equal(*count, 1); /* it has been sent back before */
    vcpu->state.rip = 0x1000 + input[3];
    if (memchr(input, 0xff, sizeof(input)) != NULL) {
        exit->kind = VM_EXIT_SHUTDOWN;
    } else if (memchr(input, 0xfe, sizeof(input)) != NULL) {
        exit->kind = VM_EXIT_HALT;
    } else {
        exit->kind = VM_EXIT_HYPERCALL;
        vcpu->vcpu.gpr[RAX] = QUIRE_HC_DONE;
    }
}

static int no_more_than_ten(void *ctx)
{
    return ++*(unsigned *)ctx > 10;
}

static void fuzzing_finds_and_finds_again(void **state)
{
    struct fuzz fuzz = {gpa(INPUT_AT), INPUT_SIZE, 5000, 7, 3000000};
    struct fuzz_result result, again;
    unsigned asked = 0;
    bool same;

    (void)state;
    for (enum way way = 0; way < WAYS; way++) {
        start_machine(way);
        living = 0;
        struct model *model = make("fuzzed mem=8M");
        struct guest *guest = model->guest;

        assert_int_equal(fuzz_replay(guest, &fuzz, &same), E_NOENT);
        machine_cpu = fuzzed_cpu;
        assert_int_equal(fuzz_run(guest, &fuzz, NULL, NULL, &result), E_OK);
        assert_true(result.crashed);
        assert_true(result.rounds > 1);
        assert_int_equal(result.rounds, guest->snapshot->crash.round);
        assert_int_equal(result.done + result.halted + result.hung + 1, result.rounds);
        assert_non_null(memchr(guest->snapshot->crash.input, 0xff, INPUT_SIZE));
        assert_int_equal(guest->state, GUEST_PAUSED);
        audit_all();
        expect_contents(model); /* as if nothing had been */
        assert_int_equal(fuzz_run(guest, &fuzz, NULL, NULL, &again), E_OK);
        assert_int_equal(again.rounds, result.rounds);
        assert_int_equal(fuzz_replay(guest, &fuzz, &same), E_OK);
        assert_true(same);
        assert_int_equal(guest->held_end, GUEST_STOPPED);
        assert_int_equal(fake_of(guest)->state.rip, guest->snapshot->crash.rip);
        fuzz.seed = 8;
        assert_int_equal(fuzz_run(guest, &fuzz, no_more_than_ten, &asked, &again), E_OK);
        assert_true(again.stopped || again.crashed);
        fuzz.seed = 7;
        fuzz.at = gpa(0xa0000);
        assert_int_equal(fuzz_run(guest, &fuzz, NULL, NULL, &again), E_RANGE);
        fuzz.at = gpa(INPUT_AT);
        machine_cpu = NULL;
        expect_contents(model);
        assert_int_equal(guest_kill(guest), E_OK);
        assert_int_equal(fuzz_run(guest, &fuzz, NULL, NULL, &again), E_STATE);
        stop_machine();
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(dirty_pages_are_those_written),
        cmocka_unit_test(two_may_ask),
        cmocka_unit_test(large_pages_are_split_and_joined),
        cmocka_unit_test(without_frames_it_is_too_much_and_never_too_little),
        cmocka_unit_test(every_shortage_at_the_start),
        cmocka_unit_test(copies_are_what_they_are_copies_of),
        cmocka_unit_test(copies_have_the_cpu_and_the_devices),
        cmocka_unit_test(a_guest_with_a_snapshot_does_not_end),
        cmocka_unit_test(every_shortage_of_copies),
        cmocka_unit_test(back_without_frames_can_be_tried_again),
        cmocka_unit_test(large_pages_are_shared_whole),
        cmocka_unit_test(blocks_larger_than_their_leaves_are_divided),
        cmocka_unit_test(a_fork_has_a_quota),
        cmocka_unit_test(fuzzing_finds_and_finds_again),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
