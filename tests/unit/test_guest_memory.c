/*
 * What guests' memory goes through, against a plain model (memory_model.h). After each step the
 * auditor looks at all tables; at the end every frame is back.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "guests/abi.h"
#include "lib/bits.h"
#include "lib/error.h"
#include "mm/frames/buddy.h"
#include "mm/paging/typed.h"
#include "tests/unit/memory_model.h"
#include "vm/cow.h"
#include "vm/dirty.h"
#include "vm/exits.h"
#include "vm/fork.h"
#include "vm/fuzz.h"
#include "vm/heat.h"
#include "vm/quota.h"
#include "vm/slot_change.h"
#include "vm/snapshot.h"

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
        host_write(model, some_page(model, RIGHT_W), random_next(&chance));
        break;
    case 4:
    case 5:
        cpu_read(model, some_page(model, RIGHT_R));
        break;
    default:
        for (unsigned n = 0; n < 10; n++)
            assert_true(cpu_write(model, some_page(model, RIGHT_W), random_next(&chance)));
    }
}

static void run_dirty(enum way way, const char *options, uint64_t seed)
{
    start_machine(way);
    chance.state = seed;
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
        run_dirty(way, "large lazy pages=2M mem=8M", 21 + way);
        run_dirty(way, "around lazy around=64K mem=8M", 31 + way);
    }
}

/* Each asks in his own time. */
static void two_may_ask(void **state)
{
    (void)state;
    for (enum way way = 0; way < WAYS; way++) {
        start_machine(way);
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

static struct mapping leaf_of(struct guest *guest, unsigned page)
{
    struct mapping leaf;

    assert_int_equal(gpa_translate(&guest->table, place_of(page, 0), &leaf), E_OK);
    return leaf;
}

static void expect_leaf(struct guest *guest, unsigned page, unsigned level, unsigned rights)
{
    struct mapping leaf = leaf_of(guest, page);

    assert_int_equal(leaf.level, level);
    assert_int_equal(leaf.attrs.rights, rights);
}

/* With `nx-huge` large pages are split where they are executed, and only others joined. */
static void what_is_executed_is_small(void **state)
{
    (void)state;
    for (enum way way = 0; way < WAYS; way++) {
        start_machine(way);
        struct model *model = make("large mem=8M nx-huge");
        struct guest *guest = model->guest;
        uint64_t tables = guest->table.table_frames;

        expect_leaf(guest, 1024, 2, RIGHT_RW);
        expect_leaf(guest, 300, 1, RIGHT_RWX); /* never part of a large one */
        assert_non_null(reach(guest, place_of(1030, 0), RIGHT_X));
        assert_int_equal(guest->table.table_frames, tables + 1);
        expect_leaf(guest, 1024, 1, RIGHT_RWX);
        expect_leaf(guest, 1535, 1, RIGHT_RWX);
        expect_leaf(guest, 1536, 2, RIGHT_RW);
        expect_leaf(guest, 1023, 2, RIGHT_RW);
        ask(model);
        cpu_write(model, 1030, 6);
        cpu_write(model, 1600, 7);
        expect_leaf(guest, 1600, 1, RIGHT_RW);
        ask(model);
        ask_no_more(model);
        expect_leaf(guest, 1600, 2, RIGHT_RW);
        expect_leaf(guest, 1030, 1, RIGHT_RWX);
        assert_int_equal(guest->table.table_frames, tables + 1);
        audit_all();
        expect_contents(model);
        /* The slot has the last word. */
        assert_int_equal(slot_protect(guest, gpa(2 * MiB), 2 * MiB, RIGHT_RX), E_OK);
        expect_leaf(guest, 512, 2, RIGHT_R);
        assert_non_null(reach(guest, place_of(512, 0), RIGHT_X));
        expect_leaf(guest, 513, 1, RIGHT_RX);
        assert_int_equal(slot_protect(guest, gpa(6 * MiB), 64 * KiB, RIGHT_RW), E_OK);
        assert_null(reach(guest, gpa(6 * MiB), RIGHT_X));
        assert_int_equal(guest->state, GUEST_STOPPED);
        guest_finish(guest);
        stop_machine();
    }
}

/* A CPU that must not execute from large pages has them for what is not executed. */
static void large_pages_where_code_has_none(void **state)
{
    (void)state;
    start_machine(BY_MARKS);
    machine_caps.leaf_top = 1;
    machine_caps.noexec_top = 2;
    struct guest *plain = make("plain mem=8M")->guest, *guest = make("nx mem=8M nx-huge")->guest;
    expect_leaf(plain, 1024, 1, RIGHT_RWX);
    expect_leaf(guest, 1024, 2, RIGHT_RW);
    assert_non_null(reach(guest, place_of(1024, 0), RIGHT_X));
    expect_leaf(guest, 1024, 1, RIGHT_RWX);
    audit_all();
    assert_int_equal(guest_kill(plain), E_OK);
    assert_int_equal(guest_kill(guest), E_OK);
    stop_machine();
}

static void what_is_executed_needs_a_frame(void **state)
{
    (void)state;
    start_machine(BY_MARKS);
    struct guest *guest = make("poor mem=8M nx-huge")->guest;
    struct vm_exit fetch = {.kind = VM_EXIT_MEMORY, .rip = 4 * MiB};

    fetch.memory.gpa = gpa(4 * MiB);
    fetch.memory.access = RIGHT_X;
    buddy_set_quota(guest_owner(guest), buddy_owner_frames(guest_owner(guest)));
    exit_memory(guest, &fetch);
    assert_int_equal(guest->state, GUEST_PAUSED);
    expect_leaf(guest, 1024, 2, RIGHT_RW);
    buddy_set_quota(guest_owner(guest), UINT64_MAX);
    assert_int_equal(guest_start(guest), E_OK);
    exit_memory(guest, &fetch);
    assert_int_equal(guest->state, GUEST_RUNNING);
    expect_leaf(guest, 1024, 1, RIGHT_RWX);
    assert_int_equal(guest_kill(guest), E_OK);
    stop_machine();
}

/* Without frames for nodes the page stays large, and counts as written whole. */
static void without_frames_it_is_too_much_and_never_too_little(void **state)
{
    (void)state;
    for (enum way way = 0; way < WAYS; way++) {
        start_machine(way);
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
        if (random_below(&chance, 3) == 0)
            drop_snapshot(model);
        break;
    case 7:
        if (random_below(&chance, 3) == 0)
            ask_no_more(model);
        break;
    case 8:
    case 9:
        host_write(model, some_page(model, RIGHT_W), random_next(&chance));
        break;
    case 10:
        cpu_read(model, some_page(model, RIGHT_R));
        break;
    default:
        for (unsigned n = 0; n < 8; n++)
            assert_true(cpu_write(model, some_page(model, RIGHT_W), random_next(&chance)));
    }
}

static void copies_are_what_they_are_copies_of(void **state)
{
    (void)state;
    for (enum way way = 0; way < WAYS; way++)
        for (uint64_t seed = 0; seed < 3; seed++) {
            run_changes(way, "eager mem=8M", 100 + 10 * seed + way, 300, change, expect_contents);
            run_changes(way, "lazy lazy mem=8M", 200 + 10 * seed + way, 300, change,
                        expect_contents);
            run_changes(way, "large lazy pages=2M around=32K mem=8M", 300 + 10 * seed + way, 300,
                        change, expect_contents);
        }
}

/* CPU, devices and what is pending. */
static void copies_have_the_cpu_and_the_devices(void **state)
{
    struct guest *fork;

    (void)state;
    start_machine(BY_MARKS);
    struct guest *guest = make("cpu mem=1M")->guest;
    guest->vcpu->gpr[RBX] = 77;
    fake_of(guest)->state.rip = 0x1234;
    guest->devices.cmos.started = 99;
    guest->cpu[0].is.expect_fault.size = 5;
    guest->clock.at = 4444;
    assert_int_equal(guest_snapshot(guest), E_OK);
    assert_int_equal(guest_fork(guest, &fork), E_OK);
    guest->vcpu->gpr[RBX] = 1;
    fake_of(guest)->state.rip = 2;
    guest->devices.cmos.started = 3;
    guest->cpu[0].is.expect_fault.size = 0;
    guest->clock.at = 5;
    assert_int_equal(guest_back(guest), E_OK);
    for (unsigned i = 0; i < 2; i++, guest = fork) {
        assert_int_equal(guest->vcpu->gpr[RBX], 77);
        assert_int_equal(fake_of(guest)->state.rip, 0x1234);
        assert_int_equal(guest->devices.cmos.started, 99);
        assert_int_equal(guest->cpu[0].is.expect_fault.size, 5);
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

/* ---- The working set ------------------------------------------------------------------------- */

/* Reaches a page always, one every other time, one once. */
static void warm_cpu(struct fake_vcpu *vcpu, struct vm_exit *exit)
{
    struct guest *guest = vcpu->vcpu.guest;
    unsigned round = (unsigned)vcpu->state.rip++;

    (void)reach(guest, gpa(0x300000), RIGHT_R);
    (void)reach(guest, gpa(0x301000), RIGHT_W);
    if (round % 2 == 1)
        (void)reach(guest, gpa(0x302000), RIGHT_R);
    if (round == 2)
        (void)reach(guest, gpa(0x500000), RIGHT_W);
    exit->kind = VM_EXIT_SLICE;
}

static int no_more_than_two(void *ctx)
{
    return ++*(unsigned *)ctx > 2;
}

static void what_is_reached_and_how_often(void **state)
{
    static const struct {
        uint64_t first, last;
        unsigned times;
    } runs[] = {{0x300000, 0x301fff, 4}, {0x302000, 0x302fff, 2}, {0x500000, 0x500fff, 1}};
    uint64_t first, last, from = 0;
    struct heat heat;
    unsigned times, asked = 0;

    (void)state;
    start_machine(BY_MARKS);
    struct model *model = make("warm mem=8M pages=4K");
    struct guest *guest = model->guest;

    ask(model);
    fake_of(guest)->state.rip = 0;
    machine_cpu = warm_cpu;
    assert_int_equal(heat_take(guest, 4, 1000000, NULL, NULL, &heat), E_OK);
    assert_int_equal(heat.taken, 4);
    for (unsigned i = 0; i < ARRAY_SIZE(runs); i++, from = last + 1) {
        assert_true(heat_run(&heat, from, &first, &last, &times));
        assert_int_equal(first, runs[i].first);
        assert_int_equal(last, runs[i].last);
        assert_int_equal(times, runs[i].times);
    }
    assert_false(heat_run(&heat, from, &first, &last, &times));
    heat_end(&heat);
    /* What is written is found as ever. */
    model->page[0x301].dirty = model->page[0x500].dirty = true;
    ask(model);
    assert_int_equal(heat_take(guest, 4, 1000000, no_more_than_two, &asked, &heat), E_OK);
    assert_int_equal(heat.taken, 1); /* asked before a sample, and after each slice of it */
    heat_end(&heat);
    assert_int_equal(heat_take(guest, 17, 1, NULL, NULL, &heat), E_RANGE);
    assert_int_equal(heat_take(guest, 0, 1, NULL, NULL, &heat), E_RANGE);
    machine_cpu = shut_down;
    assert_int_equal(heat_take(guest, 4, 1000000, NULL, NULL, &heat), E_OK);
    assert_int_equal(heat.taken, 1);
    heat_end(&heat);
    guest_finish(guest);
    assert_int_equal(heat_take(guest, 4, 1, NULL, NULL, &heat), E_STATE);
    stop_machine();
    start_machine(BY_PROTECTION);
    guest = make("none mem=8M")->guest;
    assert_int_equal(heat_take(guest, 4, 1, NULL, NULL, &heat), E_UNSUPPORTED);
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
    struct fuzz fuzz = {gpa(INPUT_AT), INPUT_SIZE, 5000, 7, 3000000, {false, 0}};
    struct fuzz_result result, again;
    unsigned asked = 0;
    bool same;

    (void)state;
    for (enum way way = 0; way < WAYS; way++) {
        start_machine(way);
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

/* The one that crashes, not the one whose turn comes next. */
static void the_crash_is_that_of_its_cpu(void **state)
{
    struct fuzz fuzz = {gpa(INPUT_AT), INPUT_SIZE, 5000, 7, 3000000, {false, 0}};
    struct fuzz_result result;
    bool same;

    (void)state;
    start_machine(BY_MARKS);
    struct guest *guest = make("two mem=8M pc cpus=2")->guest;
    machine_cpu = fuzzed_cpu;
    assert_int_equal(fuzz_run(guest, &fuzz, NULL, NULL, &result), E_OK);
    assert_true(result.crashed);
    const struct fuzz_crash *crash = &guest->snapshot->crash;
    assert_int_equal(crash->rip, 0x1000 + crash->input[3]);
    assert_int_equal(fuzz_replay(guest, &fuzz, &same), E_OK);
    assert_true(same);
    assert_int_equal(guest->now, 0);
    machine_cpu = NULL;
    assert_int_equal(guest_kill(guest), E_OK);
    stop_machine();
}

#define UNTIL_AT 0x1234u

/* A program that never says that it is done, but comes by UNTIL_AT; it crashes before that when a
 * byte of its input is 0xff, and there is no debug register for an input with 0xfe. */
static void foreign_cpu(struct fake_vcpu *vcpu, struct vm_exit *exit)
{
    uint8_t input[INPUT_SIZE] = {0};

    (void)guest_read(vcpu->vcpu.guest, gpa(INPUT_AT), input, sizeof(input));
    if (memchr(input, 0xff, sizeof(input)) != NULL) {
        vcpu->state.rip = 0x1000 + input[3];
        exit->kind = VM_EXIT_SHUTDOWN;
    } else if (memchr(input, 0xfe, sizeof(input)) != NULL) {
        exit->kind = VM_EXIT_NO_BREAKPOINT;
    } else if (vcpu->vcpu.until.on && vcpu->vcpu.until.at == UNTIL_AT) {
        vcpu->state.rip = UNTIL_AT;
        exit->kind = VM_EXIT_UNTIL;
    } else {
        exit->kind = VM_EXIT_SLICE;
    }
}

static int run_foreign(struct guest *guest, uint64_t seed, bool until, struct fuzz_result *result)
{
    struct fuzz fuzz = {gpa(INPUT_AT), INPUT_SIZE, 5000, seed, 3000000, {until, UNTIL_AT}};
    int error = fuzz_run(guest, &fuzz, NULL, NULL, result);

    assert_false(guest->vcpu->until.on);
    assert_int_equal(guest->state, GUEST_PAUSED);
    return error;
}

static void a_round_ends_at_an_instruction(void **state)
{
    struct fuzz_result result;
    struct vcpu_state at;
    unsigned crashes = 0, crowded = 0;

    (void)state;
    start_machine(BY_MARKS);
    struct model *model = make("foreign mem=8M");
    struct guest *guest = model->guest;
    machine_cpu = foreign_cpu;
    for (uint64_t seed = 1; seed < 40 && (crashes == 0 || crowded == 0); seed++) {
        bool same;
        int error = run_foreign(guest, seed, true, &result);

        assert_int_equal(result.hung, 0);
        assert_int_equal(result.done + result.crashed + (error != E_OK), result.rounds);
        if (error != E_OK) {
            crowded++;
            assert_int_equal(error, E_QUOTA);
            assert_non_null(strstr(guest->reason, "all four debug registers itself"));
            continue;
        }
        assert_true(result.crashed);
        crashes++;
        assert_int_equal(fuzz_replay(guest, &(struct fuzz){.ticks = 3000000}, &same), E_OK);
        assert_true(same);
        assert_true(guest->snapshot->crash.until.on);
    }
    assert_true(crashes != 0 && crowded != 0);
    /* Without it nothing ends a round but its time, and whoever is asked meanwhile. */
    (void)run_foreign(guest, 1, false, &result);
    assert_int_equal(result.done, 0);
    struct fuzz endless = {gpa(INPUT_AT), INPUT_SIZE, 5000, 1, UINT64_MAX, {false, 0}};
    unsigned asked = 0;
    assert_int_equal(fuzz_run(guest, &endless, no_more_than_ten, &asked, &result), E_OK);
    assert_true(result.stopped);
    assert_int_equal(result.rounds, 0);
    assert_int_equal(guest->state, GUEST_PAUSED);

    /* Where the snapshot stands at it, it is executed first, once a round. */
    assert_int_equal(guest_back(guest), E_OK);
    unsigned before = fake_of(guest)->retries;
    (void)run_foreign(guest, 1, true, &result);
    assert_int_equal(fake_of(guest)->retries, before);
    assert_int_equal(machine_backend.get_state(guest->vcpu, &at), E_OK);
    at.segment[SEG_CS].base = 0x200;
    at.rip = UNTIL_AT - 0x200;
    assert_int_equal(machine_backend.set_state(guest->vcpu, &at), E_OK);
    assert_int_equal(guest_snapshot(guest), E_OK);
    (void)run_foreign(guest, 1, true, &result);
    assert_int_equal(fake_of(guest)->retries, before + result.rounds);
    machine_cpu = NULL;
    assert_int_equal(guest_kill(guest), E_OK);
    stop_machine();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(dirty_pages_are_those_written),
        cmocka_unit_test(two_may_ask),
        cmocka_unit_test(large_pages_are_split_and_joined),
        cmocka_unit_test(what_is_executed_is_small),
        cmocka_unit_test(large_pages_where_code_has_none),
        cmocka_unit_test(what_is_executed_needs_a_frame),
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
        cmocka_unit_test(what_is_reached_and_how_often),
        cmocka_unit_test(fuzzing_finds_and_finds_again),
        cmocka_unit_test(the_crash_is_that_of_its_cpu),
        cmocka_unit_test(a_round_ends_at_an_instruction),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
