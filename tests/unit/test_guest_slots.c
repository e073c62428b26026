/*
 * Slots that are added, removed and given other rights while the guest is there, among everything
 * else that its memory goes through, against a plain model (memory_model.h).
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "lib/bits.h"
#include "lib/error.h"
#include "mm/frames/buddy.h"
#include "mm/paging/typed.h"
#include "tests/unit/memory_model.h"
#include "tests/unit/model_slots.h"
#include "vm/dirty.h"
#include "vm/exits.h"
#include "vm/fork.h"
#include "vm/merge.h"
#include "vm/slot_change.h"
#include "vm/slots.h"
#include "vm/snapshot.h"

static void slots_come_and_go(void **state)
{
    (void)state;
    for (enum way way = 0; way < WAYS; way++)
        for (uint64_t seed = 0; seed < 2; seed++) {
            run_changes(way, "eager mem=8M", 100 + 10 * seed + way, 200, any_change, judge_all);
            run_changes(way, "lazy lazy mem=8M merge", 200 + 10 * seed + way, 200, any_change,
                        judge_all);
            run_changes(way, "large lazy pages=2M mem=8M merge", 300 + 10 * seed + way, 200,
                        any_change, judge_all);
            run_changes(way, "equal mem=8M merge", 400 + 10 * seed + way, 200, any_change,
                        judge_all);
        }
}

/* ---- Equal pages ----------------------------------------------------------------------------- */

static struct merge sweep_all(void)
{
    struct merge merge;

    assert_int_equal(merge_begin(&merge), E_OK);
    while (!merge_step(&merge, 100))
        continue;
    merge_end(&merge);
    return merge;
}

/* Zeroes become one page; what was written alike becomes one; what is written again comes apart. */
static void equal_pages_are_kept_once(void **state)
{
    (void)state;
    for (enum way way = 0; way < WAYS; way++) {
        start_machine(way);
        struct model *a = make("a mem=8M merge"), *b = make("b mem=8M merge pages=4K");
        struct model *c = make("c mem=8M");

        for (unsigned i = 0; i < 20; i++) {
            cpu_write(a, 600 + i, 2 * i + 2);
            cpu_write(b, 700 + i, 2 * i + 2);
            cpu_write(c, 700 + i, 2 * i + 2);
        }
        ask(a);
        ask(b);
        uint64_t of_c = buddy_owner_frames(guest_owner(c->guest));
        struct merge merge = sweep_all();
        audit_all();
        assert_in_range(merge.shared, 2 * (PAGES - 96) - 50, 2 * (PAGES - 96));
        assert_int_equal(merge.freed, merge.shared);
        assert_in_range(buddy_owner_frames(OWNER_SHARED), 21, 40);
        assert_int_equal(buddy_owner_frames(guest_owner(c->guest)), of_c);
        assert_true(merge_frames_shown() > 3 * (PAGES - 96) - 10);
        expect_contents(a);
        expect_contents(b);
        ask(a); /* nothing of it was written */
        ask(b);
        assert_int_equal(sweep_all().shared, 0);
        cpu_write(b, 705, 9);
        cpu_write(a, 1500, 10);
        expect_contents(a);
        expect_contents(b);
        ask(a);
        ask(b);
        audit_all();
        assert_int_equal(guest_kill(a->guest), E_OK);
        audit_all();
        expect_contents(b);
        assert_int_equal(guest_kill(b->guest), E_OK);
        assert_int_equal(guest_kill(c->guest), E_OK);
        stop_machine();
    }
}

/* What was written before the pages were shared is still found to have been. */
static void what_was_written_is_not_forgotten(void **state)
{
    (void)state;
    for (enum way way = 0; way < WAYS; way++) {
        start_machine(way);
        struct model *a = make("a mem=8M merge pages=4K"), *b = make("b mem=8M merge pages=4K");

        ask(a);
        ask(b);
        cpu_write(a, 600, 2);
        cpu_write(b, 601, 2);
        assert_true(sweep_all().shared > 3000);
        ask(a);
        ask(b);
        assert_int_equal(guest_kill(a->guest), E_OK);
        assert_int_equal(guest_kill(b->guest), E_OK);
        stop_machine();
    }
}

/* ---- One thing at a time --------------------------------------------------------------------- */

static void what_is_refused(void **state)
{
    (void)state;
    start_machine(BY_MARKS);
    struct guest *guest = make("g pc mem=8M")->guest;
    uint64_t end = guest_addresses_end(), held = buddy_owner_frames(guest_owner(guest));
    unsigned slots = guest->slots;

    assert_int_equal(slot_insert(guest, SLOT_RAM, gpa(8 * MiB - PAGE_SIZE), 8192), E_EXIST);
    assert_int_equal(slot_insert(guest, SLOT_RAM, gpa(0xfee00000), PAGE_SIZE), E_EXIST);
    assert_int_equal(slot_insert(guest, SLOT_RAM, gpa(8 * MiB + 1), PAGE_SIZE), E_ALIGN);
    assert_int_equal(slot_insert(guest, SLOT_RAM, gpa(8 * MiB), 100), E_ALIGN);
    assert_int_equal(slot_insert(guest, SLOT_RAM, gpa(8 * MiB), 0), E_RANGE);
    assert_int_equal(slot_insert(guest, SLOT_RAM_LAZY, gpa(end - PAGE_SIZE), 8192), E_RANGE);
    assert_int_equal(slot_insert(guest, SLOT_RAM_LAZY, gpa(end), PAGE_SIZE), E_RANGE);
    assert_int_equal(slot_insert(guest, SLOT_RAM_LAZY, gpa(8 * MiB), UINT64_MAX - 0xfff), E_RANGE);
    assert_int_equal(slot_insert(guest, SLOT_RAM, gpa(GiB), GiB), E_NOMEM);
    assert_int_equal(slot_insert(guest, SLOT_DEVICE, gpa(0xfee01000), PAGE_SIZE), E_NOENT);
    assert_int_equal(slot_insert(guest, SLOT_DEVICE, gpa(0xfee00000), 8192), E_NOENT);
    assert_int_equal(slot_insert(guest, SLOT_DEVICE, gpa(0xfee00000), PAGE_SIZE), E_EXIST);
    assert_int_equal(slot_protect(guest, gpa(0xfee00000), PAGE_SIZE, RIGHT_R), E_PERM);
    assert_int_equal(slot_hole(guest, gpa(4 * MiB), 0), E_RANGE);
    assert_int_equal(slot_hole(guest, gpa(end - PAGE_SIZE), 8192), E_RANGE);
    assert_int_equal(slot_hole(guest, gpa(4 * MiB), UINT64_MAX - 0xfff), E_RANGE);
    assert_int_equal(slot_hole(guest, gpa(4 * MiB), 100), E_ALIGN);
    assert_int_equal(slot_remove(guest, gpa(8 * MiB), PAGE_SIZE), E_NOENT);
    assert_int_equal(slot_remove(guest, gpa(8 * MiB - PAGE_SIZE), 8192), E_NOENT);
    assert_int_equal(slot_remove(guest, gpa(4 * MiB), 0), E_NOENT);
    assert_int_equal(slot_remove(guest, gpa(4 * MiB), UINT64_MAX - 0xfff), E_NOENT);
    assert_int_equal(slot_remove(guest, gpa(4 * MiB), 100), E_ALIGN);
    assert_int_equal(slot_protect(guest, gpa(4 * MiB), 4096, RIGHT_W), E_UNSUPPORTED);
    assert_int_equal(slot_protect(guest, gpa(4 * MiB), 4096, RIGHT_NONE), E_UNSUPPORTED);
    assert_int_equal(guest->slots, slots);
    assert_int_equal(buddy_owner_frames(guest_owner(guest)), held);
    assert_int_equal(slot_protect(guest, gpa(4 * MiB), 4096, RIGHT_X), E_OK);
    guest->table.caps.execute_only = false; /* as on another CPU */
    assert_int_equal(slot_protect(guest, gpa(5 * MiB), 4096, RIGHT_X), E_UNSUPPORTED);
    assert_int_equal(slot_insert(guest, SLOT_EXEC_ONLY, gpa(8 * MiB), 4096), E_UNSUPPORTED);
    guest->table.caps.execute_only = true;
    for (uint64_t at = 9 * MiB; guest->slots < GUEST_SLOTS; at += 2 * PAGE_SIZE)
        assert_int_equal(slot_insert(guest, SLOT_RAM_LAZY, gpa(at), PAGE_SIZE), E_OK);
    assert_int_equal(slot_insert(guest, SLOT_RAM_LAZY, gpa(GiB), PAGE_SIZE), E_FULL);
    assert_int_equal(slot_remove(guest, gpa(6 * MiB), PAGE_SIZE), E_FULL);
    assert_int_equal(slot_hole(guest, gpa(6 * MiB), PAGE_SIZE), E_FULL);
    assert_int_equal(slot_protect(guest, gpa(7 * MiB), MiB, RIGHT_R), E_FULL);
    assert_int_equal(slot_remove(guest, gpa(7 * MiB), MiB), E_OK); /* its end: no more slots */
    assert_int_equal(slot_remove(guest, gpa(9 * MiB), PAGE_SIZE), E_OK);
    assert_int_equal(slot_protect(guest, gpa(6 * MiB), MiB, RIGHT_R), E_OK);
    audit_all();
    assert_int_equal(guest_kill(guest), E_OK);
    assert_int_equal(slot_insert(guest, SLOT_RAM, gpa(GiB), PAGE_SIZE), E_STATE);
    assert_int_equal(slot_remove(guest, gpa(0), PAGE_SIZE), E_STATE);
    assert_int_equal(slot_hole(guest, gpa(0), PAGE_SIZE), E_STATE);
    assert_int_equal(slot_protect(guest, gpa(0), PAGE_SIZE, RIGHT_R), E_STATE);
    stop_machine();
}

/* A device's window goes as a whole, and comes back; a snapshot has it as it was. */
static void windows_come_and_go(void **state)
{
    const gpa_t at = gpa(0xfed00000);
    struct guest *fork;

    (void)state;
    start_machine(BY_MARKS);
    struct guest *guest = make("g pc mem=8M")->guest, *bare = make("g bare mem=8M")->guest;
    unsigned slots = guest->slots;

    assert_int_equal(guest_snapshot(guest), E_OK);
    assert_int_equal(slot_hole(guest, gpa(0xfec00000), 0x300000), E_OK); /* all three */
    assert_int_equal(guest->slots, slots - 3);
    assert_null(guest_slot_at(guest, at));
    assert_int_equal(slot_insert(guest, SLOT_DEVICE, at, PAGE_SIZE), E_OK);
    assert_int_equal(guest_slot_at(guest, at)->kind, SLOT_DEVICE);
    slot_at(guest, at)->size = 2 * PAGE_SIZE; /* as if it were larger */
    assert_int_equal(slot_remove(guest, at, PAGE_SIZE), E_PERM);
    assert_int_equal(slot_hole(guest, at, PAGE_SIZE), E_PERM);
    slot_at(guest, at)->size = PAGE_SIZE;
    assert_int_equal(guest_fork(guest, &fork), E_OK);
    assert_int_equal(fork->slots, slots - 2);
    assert_int_equal(slot_remove(guest, at, PAGE_SIZE), E_OK);
    audit_all();
    assert_int_equal(guest_back(guest), E_OK);
    assert_int_equal(guest->slots, slots);
    assert_int_equal(slot_insert(bare, SLOT_DEVICE, at, PAGE_SIZE), E_OK);
    audit_all();
    assert_int_equal(guest_kill(guest), E_OK);
    assert_int_equal(guest_kill(bare), E_OK);
    assert_int_equal(guest_kill(fork), E_OK);
    stop_machine();
}

/* A slot of its own again where all of it has the same rights; frames as before. */
static void rights_come_back(void **state)
{
    (void)state;
    start_machine(BY_MARKS);
    struct model *model = make("g mem=8M");
    struct guest *guest = model->guest;
    uint64_t held = buddy_owner_frames(guest_owner(guest)), opened;

    assert_int_equal(slot_protect(guest, gpa(4 * MiB), 2 * MiB, RIGHT_R), E_OK);
    assert_int_equal(guest->slots, 4);
    assert_int_equal(buddy_owner_frames(guest_owner(guest)), held); /* no page was split */
    assert_int_equal(slot_protect(guest, gpa(4 * MiB), 2 * MiB, RIGHT_RWX), E_OK);
    assert_int_equal(guest->slots, 2);
    opened = guest->faults_opened;
    cpu_write(model, 1030, 5);
    assert_int_equal(guest->faults_opened, opened); /* it can be written at once */
    assert_int_equal(guest_kill(guest), E_OK);
    stop_machine();
}

/* Memory that is shared and memory that may not be written look alike: they are not joined. */
static void a_slot_keeps_its_end(void **state)
{
    struct guest *fork;
    struct mapping leaf;

    (void)state;
    start_machine(BY_MARKS);
    struct guest *guest = make("g mem=8M")->guest;
    assert_int_equal(slot_protect(guest, gpa(5 * MiB), MiB, RIGHT_RX), E_OK);
    assert_int_equal(guest_fork(guest, &fork), E_OK);
    assert_int_equal(dirty_start(guest, DIRTY_CONSOLE), E_OK);
    dirty_stop(guest, DIRTY_CONSOLE);
    assert_int_equal(gpa_translate(&guest->table, gpa(5 * MiB), &leaf), E_OK);
    assert_int_equal(leaf.level, 1);
    assert_int_equal(gpa_translate(&guest->table, gpa(6 * MiB), &leaf), E_OK);
    assert_int_equal(leaf.level, 2);
    audit_all();
    assert_int_equal(guest_kill(guest), E_OK);
    assert_int_equal(guest_kill(fork), E_OK);
    stop_machine();
}

/* A write where there is none any more stops the guest, and says what is there. */
static void what_a_guest_finds(void **state)
{
    struct vm_exit exit = {
        .kind = VM_EXIT_MEMORY,
        .memory = {.gpa = gpa(5 * MiB), .access = RIGHT_W, .allowed = RIGHT_R},
    };

    (void)state;
    start_machine(BY_MARKS);
    struct guest *guest = make("g mem=8M")->guest;
    assert_int_equal(slot_protect(guest, gpa(5 * MiB), MiB, RIGHT_R), E_OK);
    assert_false(exit_dispatch(guest, &exit));
    assert_int_equal(guest->state, GUEST_STOPPED);
    assert_non_null(strstr(guest->reason, "RAM at 0x500000+1M, now r--"));
    guest_finish(guest);
    guest = make("g mem=8M")->guest;
    assert_int_equal(slot_remove(guest, gpa(5 * MiB), MiB), E_OK);
    assert_false(exit_dispatch(guest, &exit));
    assert_non_null(strstr(guest->reason, "no memory (hole 0x500000..0x5fffff)"));
    guest_finish(guest);
    stop_machine();
}

/* With any number of frames: all, or nothing. */
/* Memory that came after the question counts like the rest, far from all that was there, too. */
static void new_memory_is_watched(void **state)
{
    (void)state;
    for (enum way way = 0; way < WAYS; way++) {
        start_machine(way);
        struct guest *guest = make("g mem=8M")->guest;

        assert_int_equal(dirty_start(guest, DIRTY_CONSOLE), E_OK);
        assert_int_equal(slot_insert(guest, SLOT_RAM, gpa(GiB), 2 * MiB), E_OK);
        assert_non_null(reach(guest, gpa(GiB + 3 * PAGE_SIZE), RIGHT_W));
        dirty_collect(guest);
        assert_true(page_set_has(&guest->dirty.set[DIRTY_CONSOLE], GiB + 3 * PAGE_SIZE));
        assert_false(page_set_has(&guest->dirty.set[DIRTY_CONSOLE], GiB + 4 * PAGE_SIZE));
        assert_int_equal(guest_kill(guest), E_OK);
        stop_machine();
    }
}

static void every_shortage(void **state)
{
    int error;

    (void)state;
    start_machine(BY_PROTECTION);
    struct model *model = make("g mem=8M");
    struct guest *guest = model->guest;
    owner_t owner = guest_owner(guest);

    assert_int_equal(dirty_start(guest, DIRTY_CONSOLE), E_OK);
    for (unsigned op = 0; op < 3; op++) {
        error = E_QUOTA;
        for (unsigned k = 0; error != E_OK; k++) {
            uint64_t held = buddy_owner_frames(owner);
            unsigned slots = guest->slots;

            buddy_set_quota(owner, held + k);
            if (op == 0)
                error = slot_insert(guest, SLOT_RAM, gpa(GiB), 5 * PAGE_SIZE);
            else if (op == 1)
                error = slot_protect(guest, gpa(3 * MiB), 4 * MiB, RIGHT_R);
            else
                error = slot_remove(guest, gpa(GiB + PAGE_SIZE), PAGE_SIZE);
            assert_true(error == E_OK || error == E_QUOTA);
            assert_true(error == E_OK || guest->slots == slots);
            buddy_set_quota(owner, UINT64_MAX);
            audit_all();
            expect_contents(model);
        }
    }
    assert_int_equal(guest_kill(guest), E_OK);
    stop_machine();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(slots_come_and_go),
        cmocka_unit_test(equal_pages_are_kept_once),
        cmocka_unit_test(what_was_written_is_not_forgotten),
        cmocka_unit_test(what_is_refused),
        cmocka_unit_test(windows_come_and_go),
        cmocka_unit_test(rights_come_back),
        cmocka_unit_test(a_slot_keeps_its_end),
        cmocka_unit_test(what_a_guest_finds),
        cmocka_unit_test(new_memory_is_watched),
        cmocka_unit_test(every_shortage),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
