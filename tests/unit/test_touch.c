/*
 * First touches beside the guests' lock: what is dealt with so, what is left for an exit, and who
 * is waited for. With real threads: test_sched_threads.c.
 */
#include "vm/touch.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "lib/bits.h"
#include "lib/error.h"
#include "mm/frames/buddy.h"
#include "mm/paging/typed.h"
#include "mm/trace.h"
#include "tests/unit/fake_cpus.h"
#include "vm/dirty.h"
#include "vm/guest.h"
#include "vm/guests_lock.h"

#define AT (2 * MiB)
#define ROM (3 * MiB)

static struct guest *guest;

static int set_up(void **state)
{
    (void)state;
    set_up_on(&cpus);
    guest = make("g mem=4M lazy pin=1 rom=3M+4K");
    guests_go_on();
    assert_true(on_cpu(1)); /* so that it has had a turn */
    return 0;
}

/* By CPU 1, on which the guest has just run. */
static bool touch(uint64_t at, unsigned access)
{
    bool done;

    guests_leave();
    self_is = 1;
    done = guest_touch(guest->vcpu, gpa(at), access);
    self_is = 0;
    guests_enter();
    return done;
}

static bool is_there(uint64_t at)
{
    struct mapping leaf;

    return gpa_translate(&guest->table, gpa(at), &leaf) == E_OK;
}

static void a_frame_is_given(void **state)
{
    uint64_t exits = guest->exits[VM_EXIT_MEMORY];

    (void)state;
    assert_true(touch(AT + 8, RIGHT_W));
    assert_true(is_there(AT));
    assert_false(is_there(AT + PAGE_SIZE));
    assert_true(touch(AT + PAGE_SIZE, RIGHT_R | RIGHT_W));
    assert_int_equal(guest->faults_filled, 2);
    assert_int_equal(guest->frames_filled, 2);
    assert_int_equal(guest->exits[VM_EXIT_MEMORY], exits + 2);
    assert_false(guests_lock.sharer[1].inside);
}

static void what_it_is_not_for(void **state)
{
    uint64_t exits = guest->exits[VM_EXIT_MEMORY], frames;

    (void)state;
    assert_true(touch(AT, RIGHT_R));
    frames = buddy_owner_frames(guest_owner(guest));
    assert_false(touch(AT, RIGHT_W)); /* it is there */
    assert_false(touch(ROM, RIGHT_W));
    assert_false(touch(64 * MiB, RIGHT_R));
    assert_int_equal(guest_pause(guest), E_OK);
    assert_false(touch(AT + PAGE_SIZE, RIGHT_W));
    assert_int_equal(guest_start(guest), E_OK);
    assert_int_equal(buddy_set_quota(guest_owner(guest), frames), E_OK);
    assert_false(touch(AT + PAGE_SIZE, RIGHT_W));
    assert_int_equal(buddy_set_quota(guest_owner(guest), UINT64_MAX), E_OK);
    assert_int_equal(buddy_owner_frames(guest_owner(guest)), frames);
    assert_int_equal(guest->faults_filled, 1);
    assert_int_equal(guest->exits[VM_EXIT_MEMORY], exits + 1);
    assert_int_equal(dirty_start(guest, DIRTY_CONSOLE), E_OK);
    assert_false(touch(AT + PAGE_SIZE, RIGHT_W)); /* somebody is to be told */
}

static void tell(const struct trace_point *point)
{
    (void)point;
}

/* While another CPU has the lock: what it has waited for that. */
static uint64_t touch_locked(void)
{
    uint64_t before = guest->vcpu->waited;

    self_is = 1;
    assert_false(guest_touch(guest->vcpu, gpa(AT), RIGHT_W));
    self_is = 0;
    return guest->vcpu->waited - before;
}

static void who_is_waited_for(void **state)
{
    (void)state;
    /* Whoever has the lock; that is not the guest's own doing. */
    assert_int_not_equal(touch_locked(), 0);
    /* All are to stand still. */
    guests_stop_others();
    assert_int_equal(touch_locked(), 0);
    assert_false(touch(AT, RIGHT_W));
    guests_go_on();
    /* Something has come for it, until it is looked at. */
    assert_true(on_cpu(1));
    kicks[1] = 0;
    guest_nudge(&guest->cpu[0]);
    assert_int_equal(kicks[1], 1);
    assert_true(vcpu_is_nudged(guest->vcpu));
    assert_int_equal(touch_locked(), 0);
    assert_false(touch(AT, RIGHT_W));
    assert_true(on_cpu(1));
    assert_false(vcpu_is_nudged(guest->vcpu));
    /* Who wants to see every exit. */
    trace_hook = tell;
    trace_events = 1u << TRACE_EXIT;
    assert_false(touch(AT, RIGHT_W));
    trace_events = 0;
    assert_false(is_there(AT));
    assert_true(touch(AT, RIGHT_W));
}

static unsigned runs;

/* Touches three pages one after the other, and computes. */
static void three_pages(struct fake_vcpu *vcpu, struct vm_exit *exit)
{
    (void)vcpu;
    *exit = (struct vm_exit){.kind = VM_EXIT_SLICE};
    if (runs++ < 3)
        *exit = (struct vm_exit){.kind = VM_EXIT_MEMORY,
                                 .memory = {.gpa = gpa(AT + runs * PAGE_SIZE), .access = RIGHT_W}};
}

/* The backend asks before it takes the lock. */
static void in_one_run(void **state)
{
    uint64_t entries = guest->vcpu->entries;

    (void)state;
    machine_cpu = three_pages;
    runs = 0;
    assert_true(on_cpu(1));
    assert_int_equal(runs, 4);
    assert_int_equal(guest->vcpu->entries, entries + 1);
    assert_int_equal(guest->faults_filled, 3);
    assert_true(is_there(AT + 3 * PAGE_SIZE));
}

/* There is no lock. */
static void with_one_cpu(void **state)
{
    (void)state;
    set_up_on(NULL);
    guest = make("g mem=4M lazy");
    machine_cpu = three_pages;
    runs = 0;
    assert_int_equal(guests_round(), 1);
    assert_null(guest->vcpu->lock);
    assert_int_equal(runs, 4);
    assert_int_equal(guest->vcpu->entries, 1);
    assert_int_equal(guest->faults_filled, 3);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(a_frame_is_given),
        TEST(what_it_is_not_for),
        TEST(who_is_waited_for),
        TEST(in_one_run),
        cmocka_unit_test_teardown(with_one_cpu, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
