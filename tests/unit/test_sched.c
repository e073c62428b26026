/*
 * Guests on several CPUs, which are played one at a time: whose queue a guest is in, who takes it
 * from whom, what is put before it moves, and how all come to stand still. With real threads:
 * test_sched_threads.c.
 */
#include "vm/sched.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "lib/bits.h"
#include "lib/error.h"
#include "tests/unit/fake_cpus.h"
#include "vm/fork.h"
#include "vm/guest.h"
#include "vm/guests_lock.h"
#include "vm/interrupts.h"

static int set_up(void **state)
{
    (void)state;
    return set_up_on(&cpus);
}

static unsigned queue_of(const struct guest *guest)
{
    return sched_queue_of(&guest->cpu[0]);
}

static uint64_t entries(const struct guest *guest)
{
    return guest->vcpu->entries;
}

/* ---- Queues ---- */

static void guests_are_spread(void **state)
{
    struct guest *fork;

    (void)state;
    for (unsigned i = 0; i < 2 * CPUS; i++)
        assert_int_equal(queue_of(make("g mem=1M")), i % CPUS);
    /* Where the fewest have not ended. */
    guest_kill(guest_by_number(3));
    assert_int_equal(queue_of(make("g mem=1M")), 2);
    guest_kill(guest_by_number(5));
    assert_int_equal(guest_fork(guest_by_number(1), &fork), E_OK);
    assert_int_equal(queue_of(fork), 1);
}

static void a_pinned_guest_is_where_it_is_to_be(void **state)
{
    struct guest *guest = make("g mem=1M pin=2"), *refused = make("g mem=1M pin=3");

    (void)state;
    assert_int_equal(queue_of(guest), 2);
    assert_int_equal(refused->state, GUEST_REFUSED);
    assert_string_equal(refused->reason, "pin=3: the CPUs are 0 to 2 here");
    guests_go_on();
    assert_false(on_cpu(1)); /* it takes none that is pinned */
    assert_true(on_cpu(2));
    assert_int_equal(entries(guest), 1);
}

static void a_cpu_runs_its_queue(void **state)
{
    struct guest *guest[2 * CPUS];

    (void)state;
    for (unsigned i = 0; i < 2 * CPUS; i++)
        guest[i] = make("g mem=1M");
    guests_go_on();
    for (unsigned cpu = 1; cpu < CPUS; cpu++)
        assert_true(on_cpu(cpu));
    assert_int_equal(guests_round(), 2 * CPUS); /* relax() has the others take a turn again */
    for (unsigned i = 0; i < 2 * CPUS; i++) {
        assert_int_equal(queue_of(guest[i]), i % CPUS);
        assert_int_equal(entries(guest[i]), i % CPUS == 0 ? 1 : 2);
    }
    assert_ptr_equal(guests_turn(1), &guest[CPUS + 1]->cpu[0]);
}

static void an_idle_cpu_takes_from_the_longest_queue(void **state)
{
    struct guest *pinned, *second, *third;

    (void)state;
    pinned = make("g mem=1M pin=1");
    second = make("g mem=1M pin=1");
    third = make("g mem=1M");
    guests_go_on();
    pinned->cpu[0].queue = 1; /* where it would be, were it not pinned */
    third->cpu[0].queue = 1;
    second->options.pinned = false;
    second->cpu[0].queue = 1;
    assert_true(on_cpu(1));
    assert_int_equal(fake_of(third)->active, 2); /* the last that ran */
    assert_int_equal(entries(third), 1);
    assert_true(on_cpu(2));
    assert_int_equal(queue_of(second), 2);
    assert_int_equal(second->cpu[0].moves, 1);
    assert_int_equal(entries(second), 2);
    assert_int_equal(queue_of(third), 1); /* it may be active there */
    assert_int_equal(queue_of(pinned), 1);
}

static void an_active_guest_stays(void **state)
{
    struct guest *active = make("g mem=1M"), *other = make("g mem=1M paused");

    (void)state;
    active->cpu[0].queue = other->cpu[0].queue = 1;
    guests_go_on();
    assert_true(on_cpu(1));
    assert_int_equal(guest_start(other), E_OK);
    assert_true(on_cpu(2));
    assert_int_equal(queue_of(active), 1);
    assert_int_equal(queue_of(other), 2);
}

static void whoever_has_one_guest_keeps_it(void **state)
{
    struct guest *guest = make("g mem=1M pin=1");

    (void)state;
    guest->options.pinned = false;
    guest->cpu[0].queue = 1;
    guests_go_on();
    assert_true(on_cpu(1));
    assert_false(on_cpu(2));
    assert_int_equal(queue_of(guest), 1);
    /* One more, and the CPU that halts is told. */
    guests_stop_others();
    make("g mem=1M")->cpu[0].queue = 1;
    guests_go_on();
    wakes[2] = 0;
    assert_true(on_cpu(1));
    assert_int_equal(wakes[2], 1);
}

/* ---- Who has a vCPU ---- */

static void a_cpu_puts_a_guest_before_the_next(void **state)
{
    struct guest *first = make("g mem=1M pin=1"), *second = make("g mem=1M pin=1");

    (void)state;
    guests_go_on();
    assert_int_equal(fake_of(first)->active, 0); /* it was made on CPU 0 */
    assert_true(on_cpu(1));
    assert_int_equal(fake_of(first)->active + fake_of(second)->active, 2);
    /* With nobody to run it puts that, too. */
    guest_pause(first);
    guest_pause(second);
    assert_false(on_cpu(1));
    assert_int_equal(fake_of(first)->active + fake_of(second)->active, 0);
}

static void all_stand_still_for_a_command(void **state)
{
    struct vcpu_state registers;
    struct guest *guest[CPUS];

    (void)state;
    for (unsigned i = 0; i < CPUS; i++)
        guest[i] = make("g mem=1M");
    guests_go_on();
    for (unsigned cpu = 1; cpu < CPUS; cpu++)
        assert_true(on_cpu(cpu));
    guests_stop_others();
    assert_int_equal(kicks[1], 1);
    for (unsigned cpu = 1; cpu < CPUS; cpu++) {
        assert_int_equal(fake_of(guest[cpu])->active, 0);
        assert_ptr_equal(guests_turn(cpu), &guest[cpu]->cpu[0]); /* whom `cpus` shows */
        assert_int_equal(machine_backend.get_state(guest[cpu]->vcpu, &registers), E_OK);
        /* The lock is CPU 0's; the others come and find that they are to stand still. */
        self_is = cpu;
        assert_false(guests_run_here());
        self_is = 0;
    }
    guests_stop_others(); /* these nest */
    guests_go_on();
    assert_false(on_cpu(1));
    memset(wakes, 0, sizeof(wakes));
    guests_go_on();
    for (unsigned cpu = 1; cpu < CPUS; cpu++) {
        assert_int_equal(wakes[cpu], 1);
        assert_int_equal(fake_of(guest[cpu])->active, 0);
        assert_true(on_cpu(cpu));
    }
}

/* ---- Time, and what comes from elsewhere ---- */

static void wait_for_the_lock(struct fake_vcpu *vcpu, struct vm_exit *exit)
{
    exit->kind = VM_EXIT_SLICE;
    vcpu->vcpu.waited += 100 * SLICE_TICKS;
    machine_pass(100 * SLICE_TICKS);
}

static void waiting_for_the_lock_is_not_charged(void **state)
{
    struct guest *guest = make("g mem=1M pin=1");

    (void)state;
    guests_go_on();
    machine_cpu = wait_for_the_lock;
    assert_true(on_cpu(1));
    assert_true(guest->ticks < 3 * SLICE_TICKS);
    assert_true(guest->cpu[0].share.overran < 3 * SLICE_TICKS);
}

static void a_guest_elsewhere_is_nudged(void **state)
{
    struct guest *guest = make("g mem=1M pin=1"), *here = make("g mem=1M pin=0");

    (void)state;
    guests_go_on();
    assert_true(on_cpu(1));
    (void)guests_round();
    memset(kicks, 0, sizeof(kicks));
    interrupts_stir(guest); /* an access of its own: whoever makes it looks anyway */
    assert_int_equal(kicks[1], 0);
    interrupts_come(guest);
    assert_int_equal(kicks[1], 1);
    interrupts_come(here);
    assert_int_equal(kicks[0], 0);
}

/* ---- One CPU ---- */

static void with_one_cpu_nothing_is_taken(void **state)
{
    struct guest *guest;

    (void)state;
    guests_leave();
    guests_set_cpus(NULL);
    guest = make("g mem=1M");
    guests_stop_others();
    guests_go_on();
    assert_int_equal(guests_round(), 1);
    assert_int_equal(guests_round(), 1);
    assert_false(guests_lock.held);
    assert_null(guest->vcpu->lock);
    assert_int_equal(fake_of(guest)->active, 1); /* it has never been put */
    assert_null(guests_turn(0));
    guests_enter(); /* nothing, too */
    assert_false(guests_lock.held);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(guests_are_spread),
        TEST(a_pinned_guest_is_where_it_is_to_be),
        TEST(a_cpu_runs_its_queue),
        TEST(an_idle_cpu_takes_from_the_longest_queue),
        TEST(an_active_guest_stays),
        TEST(whoever_has_one_guest_keeps_it),
        TEST(a_cpu_puts_a_guest_before_the_next),
        TEST(all_stand_still_for_a_command),
        TEST(waiting_for_the_lock_is_not_charged),
        TEST(a_guest_elsewhere_is_nudged),
        TEST(with_one_cpu_nothing_is_taken),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
