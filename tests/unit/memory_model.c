/* See memory_model.h. */
#include "tests/unit/memory_model.h"

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
#include "vm/dirty.h"
#include "vm/exits.h"
#include "vm/fork.h"
#include "vm/guest_audit.h"
#include "vm/shared.h"
#include "vm/snapshot.h"

#define MEMORY (96 * MiB)
#define HOLE_FIRST 0xa0u
#define HOLE_END 0x100u
#define LOG_ENTRIES 512u

struct random chance;
struct model models[GUESTS];
unsigned living;

static uint8_t sector[512];
static uint64_t frames_before;

void start_machine(enum way way)
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
    living = 0;
    memset(models, 0, sizeof(models));
}

void stop_machine(void)
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

struct model *make(const char *cmdline)
{
    const struct guest_image image = {.bytes = sector, .size = sizeof(sector), .cmdline = cmdline};
    struct model *model = &models[living++];

    memset(model, 0, sizeof(*model));
    if (guest_create(&image, &model->guest) != E_OK)
        fail_msg("%s: %s", cmdline, model->guest != NULL ? model->guest->reason : "no guest");
    for (unsigned i = 0; i < PAGES; i++) /* what the loader has left */
        for (unsigned which = 0; which < 2; which++)
            (void)guest_read(model->guest, place_of(i, which), &model->page[i].stamp[which], 8);
    for (unsigned i = 0; i < PAGES; i++)
        model->page[i].rights = i < HOLE_FIRST || i >= HOLE_END ? RIGHT_RWX : RIGHT_NONE;
    return model;
}

void audit_all(void)
{
    static struct audit_table tables[GUEST_AUDIT_TABLES * GUEST_LIMIT + SHARED_LIMIT];
    static char names[GUEST_AUDIT_TABLES * GUEST_LIMIT + SHARED_LIMIT][GUEST_AUDIT_NAME];
    struct audit audit = {.rules = AUDIT_ALL, .table = tables, .everyone = true};
    struct audit_totals totals;

    for (unsigned i = 1; i <= guest_count(); i++)
        audit.tables +=
            guest_describe(guest_by_number(i), &names[audit.tables], &tables[audit.tables]);
    for (unsigned i = 0; i < SHARED_LIMIT; i++)
        if (shared_by_index(i) != NULL) {
            shared_describe(shared_by_index(i), names[audit.tables], GUEST_AUDIT_NAME,
                            &tables[audit.tables]);
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

void expect_contents(const struct model *model)
{
    for (unsigned i = 0; i < 2 * PAGES; i++) {
        unsigned page = i / 2, which = i % 2;
        uint64_t word = 0;

        if (!(model->page[page].rights & RIGHT_R))
            continue;
        if (guest_read(model->guest, place_of(page, which), &word, sizeof(word)) == 0)
            word = 0; /* lazy, and never touched */
        if (word != model->page[page].stamp[which])
            fail_msg("g%u, page 0x%x: 0x%lx, not 0x%lx", model->guest->number, page, word,
                     model->page[page].stamp[which]);
    }
}

unsigned some_page(const struct model *model, unsigned rights)
{
    unsigned page, tries = 0;

    do {
        page = (unsigned)random_below(&chance, PAGES);
        if (random_below(&chance, 2) != 0 && tries++ < 1000)
            page = 512 + page % 64; /* often the same ones */
    } while ((rights & ~model->page[page].rights) != 0);
    return page;
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
uint64_t *reach(struct guest *guest, gpa_t at, unsigned access)
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

bool cpu_write(struct model *model, unsigned page, uint64_t stamp)
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

void cpu_read(struct model *model, unsigned page)
{
    const uint64_t *word = reach(model->guest, place_of(page, 0), RIGHT_R);

    assert_non_null(word);
    assert_int_equal(*word, model->page[page].stamp[0]);
}

void host_write(struct model *model, unsigned page, uint64_t stamp)
{
    unsigned which = stamp % 2;

    assert_int_equal(guest_write(model->guest, place_of(page, which), &stamp, sizeof(stamp)),
                     sizeof(stamp));
    model->page[page].stamp[which] = stamp;
    model->page[page].dirty = true;
}

/* ---- Dirty pages ----------------------------------------------------------------------------- */

void ask(struct model *model)
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

void ask_no_more(struct model *model)
{
    dirty_stop(model->guest, DIRTY_CONSOLE);
    model->asked = false;
}

/* ---- Snapshots and forks --------------------------------------------------------------------- */

void take_snapshot(struct model *model)
{
    assert_int_equal(guest_snapshot(model->guest), E_OK);
    model->has_snapshot = true;
    for (unsigned i = 0; i < PAGES; i++) {
        memcpy(model->page[i].kept, model->page[i].stamp, sizeof(model->page[i].kept));
        model->page[i].kept_rights = model->page[i].rights;
    }
}

void go_back(struct model *model)
{
    int error = guest_back(model->guest);

    assert_int_equal(error, model->has_snapshot ? E_OK : E_NOENT);
    for (unsigned i = 0; model->has_snapshot && i < PAGES; i++) {
        struct page *page = &model->page[i];

        page->dirty |= memcmp(page->stamp, page->kept, sizeof(page->kept)) != 0;
        memcpy(page->stamp, page->kept, sizeof(page->kept));
        page->rights = page->kept_rights;
    }
    if (model->has_snapshot)
        assert_int_equal(model->guest->dirty.set[DIRTY_SNAPSHOT].pages, 0);
}

void drop_snapshot(struct model *model)
{
    guest_snapshot_drop(model->guest);
    model->has_snapshot = false;
}

void make_fork(struct model *from)
{
    struct model *model = &models[living];

    if (living == GUESTS)
        return;
    *model = *from;
    assert_int_equal(guest_fork(from->guest, &model->guest), E_OK);
    living++;
    model->asked = model->has_snapshot = false;
}

void end_one(struct model *model)
{
    assert_int_equal(guest_kill(model->guest), E_OK);
    model->guest = NULL;
}

struct model *some_model(void)
{
    struct model *model;

    do
        model = &models[random_below(&chance, living)];
    while (model->guest == NULL);
    return model;
}

unsigned guests_alive(void)
{
    unsigned alive = 0;

    for (unsigned i = 0; i < living; i++)
        alive += models[i].guest != NULL;
    return alive;
}

/* What was put back counts as written, though it may be the same as before: so no page that was
 * written may be missing, and none that was neither written nor put back may be there. */
void ask_again(struct model *model)
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

void usual_change(struct model *model, unsigned which)
{
    switch (which) {
    case 0:
        take_snapshot(model);
        break;
    case 1:
        go_back(model);
        break;
    case 2:
        make_fork(model);
        break;
    case 3:
        if (guests_alive() > 1 && random_below(&chance, 2) == 0)
            end_one(model);
        break;
    case 4:
        ask_again(model);
        break;
    case 5:
        if (random_below(&chance, 4) == 0)
            ask_no_more(model);
        break;
    case 6:
        host_write(model, some_page(model, RIGHT_R), random_next(&chance));
        break;
    case 7:
        cpu_read(model, some_page(model, RIGHT_R));
        break;
    default:
        for (unsigned n = 0; n < 8; n++)
            assert_true(cpu_write(model, some_page(model, RIGHT_RW), random_next(&chance)));
    }
}

void run_changes(enum way way, const char *options, uint64_t seed, unsigned changes,
                 void (*change)(struct model *), void (*judge)(const struct model *))
{
    start_machine(way);
    chance.state = seed;
    make(options);
    for (unsigned n = 0; n < changes; n++) {
        change(some_model());
        audit_all();
        if (n % 8 == 0)
            judge(some_model());
    }
    for (unsigned i = 0; i < living; i++)
        if (models[i].guest != NULL) {
            judge(&models[i]);
            end_one(&models[i]);
            audit_all();
        }
    stop_machine();
}
