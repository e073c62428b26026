/*
 * A machine with several CPUs for tests of vm/, which are played one at a time: `self_is` is the
 * one that goes on. Each test program that includes this has its own.
 */
#ifndef QUIRE_TESTS_FAKE_CPUS_H
#define QUIRE_TESTS_FAKE_CPUS_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "lib/bits.h"
#include "mm/frames/buddy.h"
#include "tests/unit/fake_machine.h"
#include "vm/guest.h"
#include "vm/sched.h"

#define CPUS 3

static uint8_t sector[512];
static unsigned self_is, kicks[CPUS], wakes[CPUS];

static unsigned self(void)
{
    return self_is;
}

static void kick(unsigned cpu)
{
    kicks[cpu]++;
}

static void wake(unsigned cpu)
{
    wakes[cpu]++;
}

/* While CPU 0 waits with the lock dropped the others go on. */
static void relax(void)
{
    if (self_is != 0)
        return;
    for (self_is = 1; self_is < CPUS; self_is++)
        (void)guests_run_here();
    self_is = 0;
}

static const struct guests_cpus cpus = {.count = CPUS,
                                        .self = self,
                                        .kick = kick,
                                        .wake = wake,
                                        .relax = relax};

/* NULL: a machine with one CPU. */
static inline int set_up_on(const struct guests_cpus *machine)
{
    machine_start(64 * MiB);
    guests_init(&machine_backend, NULL);
    guests_set_between(NULL);
    sector[510] = 0x55;
    sector[511] = 0xaa;
    self_is = 0;
    memset(kicks, 0, sizeof(kicks));
    memset(wakes, 0, sizeof(wakes));
    machine_self = self;
    guests_set_cpus(machine);
    return 0;
}

static inline int tear_down(void **state)
{
    (void)state;
    machine_cpu = NULL;
    guests_stop_others();
    for (unsigned i = 1; i <= guest_count(); i++) {
        struct guest *guest = guest_by_number(i);

        if (!guest_ended(guest))
            guest_kill(guest);
        else if (guest_holds(guest))
            guest_finish(guest);
        assert_int_equal(buddy_owner_frames(guest_owner(guest)), 0);
    }
    assert_int_equal(machine_stolen, 0);
    guests_go_on();
    if (guests_cpus() > 1)
        guests_leave();
    guests_set_cpus(NULL);
    machine_self = NULL;
    machine_stop();
    return 0;
}

static inline struct guest *make(const char *cmdline)
{
    const struct guest_image image = {.bytes = sector, .size = sizeof(sector), .cmdline = cmdline};
    struct guest *guest;

    (void)guest_create(&image, &guest);
    assert_non_null(guest);
    return guest;
}

/* One call of what that CPU does when it has no other work. */
static inline bool on_cpu(unsigned cpu)
{
    bool goes_on;

    guests_leave();
    self_is = cpu;
    goes_on = guests_run_here();
    self_is = 0;
    guests_enter();
    return goes_on;
}

#endif
