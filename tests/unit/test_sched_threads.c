/*
 * Guests on several CPUs, each of which is a thread: they run, fault, print and end at the same
 * time, some on several CPUs at once, while CPU 0 forks, snapshots, resets, kills and starts them.
 * No vCPU is on two CPUs, none is on any while all stand still, and no CPU touches a vCPU that is
 * active on another. Under ThreadSanitizer as well, to which whatever is not under the guests' lock
 * is a race.
 */
#include "vm/sched.h"

#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "lib/bits.h"
#include "lib/error.h"
#include "mm/frames/buddy.h"
#include "tests/unit/fake_machine.h"
#include "vm/fork.h"
#include "vm/guest.h"
#include "vm/snapshot.h"

#define CPUS 4
#define GUESTS 6
#define STEPS 300
#define DEBUG_PORT 0xe9
#define PAGES 64 /* of lazy memory that a guest touches, from 2M */

static _Thread_local unsigned self_is;
static bool over, kicked[CPUS];

static uint64_t wrong;
#define check(condition)                                                                           \
    ((condition) ? (void)0 : (void)__atomic_fetch_add(&wrong, 1, __ATOMIC_RELAXED))

static unsigned self(void)
{
    return self_is;
}

static void kick(unsigned cpu)
{
    __atomic_store_n(&kicked[cpu], true, __ATOMIC_RELAXED);
}

static void wake(unsigned cpu)
{
    (void)cpu; /* they look all the time */
}

static void relax(void)
{
    sched_yield();
}

static const struct guests_cpus cpus = {.count = CPUS,
                                        .self = self,
                                        .kick = kick,
                                        .wake = wake,
                                        .relax = relax};

/* ---- What guests do, without the lock -------------------------------------------------------- */

static unsigned inside_all;
static bool still; /* nobody may be in a guest */

static void stay_inside(struct fake_vcpu *vcpu)
{
    check(__atomic_fetch_add(&vcpu->inside, 1, __ATOMIC_RELAXED) == 0);
    __atomic_fetch_add(&inside_all, 1, __ATOMIC_RELAXED);
    check(!__atomic_load_n(&still, __ATOMIC_RELAXED) || self_is == 0);
    for (unsigned i = 0; i < 20 && !__atomic_load_n(&kicked[self_is], __ATOMIC_RELAXED); i++)
        sched_yield();
    __atomic_store_n(&kicked[self_is], false, __ATOMIC_RELAXED);
    __atomic_fetch_sub(&inside_all, 1, __ATOMIC_RELAXED);
    __atomic_fetch_sub(&vcpu->inside, 1, __ATOMIC_RELAXED);
}

static void write_msr(struct fake_vcpu *vcpu, struct vm_exit *exit, uint32_t index, uint64_t value)
{
    exit->kind = VM_EXIT_MSR;
    exit->msr.index = index;
    exit->msr.write = true;
    vcpu->vcpu.gpr[RAX] = value & UINT32_MAX;
    vcpu->vcpu.gpr[RDX] = value >> 32;
}

/* The vCPU that boots starts the others, and later resets one or interrupts them; others, and
 * guests without a local APIC, are refused that. */
static bool speak_to_others(struct fake_vcpu *vcpu, struct vm_exit *exit, uint64_t step)
{
    if (step == 5)
        write_msr(vcpu, exit, 0x1b, 0xfee00d00); /* x2APIC mode, BSP */
    else if (step == 6)
        write_msr(vcpu, exit, 0x830, 0xc4510); /* INIT, then a start-up, to the others */
    else if (step == 7)
        write_msr(vcpu, exit, 0x830, 0xc4610);
    else if (step % 64 == 9)
        write_msr(vcpu, exit, 0x830, step % 3 ? 0xc0441 : UINT64_C(1) << 32 | 0x4500);
    else if (step % 64 == 10)
        write_msr(vcpu, exit, 0x830, UINT64_C(1) << 32 | 0x4610);
    else
        return false;
    return true;
}

/* In turn it touches the next page, prints, and computes for a slice; in the end it resets itself
 * and is made anew. */
static void run_guest(struct fake_vcpu *vcpu, struct vm_exit *exit)
{
    uint64_t *steps = &vcpu->vcpu.gpr[RBX];

    stay_inside(vcpu);
    if (speak_to_others(vcpu, exit, ++*steps))
        return;
    switch (*steps % 4) {
    case 0:
        exit->kind = VM_EXIT_MEMORY;
        exit->memory.gpa = gpa(2 * MiB + *steps / 4 % PAGES * PAGE_SIZE);
        exit->memory.access = RIGHT_W;
        break;
    case 1:
        exit->kind = VM_EXIT_PORT;
        exit->port.port = DEBUG_PORT;
        exit->port.width = 1;
        vcpu->vcpu.gpr[RAX] = *steps % 32 == 1 ? '\n' : 'x';
        exit->length = 1;
        break;
    case 2:
        exit->kind = *steps > 4000 ? VM_EXIT_SHUTDOWN : VM_EXIT_HANDLED;
        break;
    default:
        exit->kind = VM_EXIT_SLICE;
    }
}

static void *cpu_main(void *number)
{
    self_is = (unsigned)(uintptr_t)number;
    while (!__atomic_load_n(&over, __ATOMIC_RELAXED))
        if (!guests_run_here())
            sched_yield();
    return NULL;
}

/* ---- What the console does --------------------------------------------------------------------
 */

static uint8_t sector[512];

static void make(const char *cmdline)
{
    const struct guest_image image = {.bytes = sector, .size = sizeof(sector), .cmdline = cmdline};
    struct guest *guest;

    assert_int_equal(guest_create(&image, &guest), E_OK);
}

static void change(unsigned step)
{
    struct guest *guest = guest_by_number(step % GUESTS + 1), *fork;
    struct vcpu_state state;

    if (guest->vcpu != NULL)
        check(machine_backend.get_state(guest->vcpu, &state) == E_OK);
    switch (step / GUESTS % 6) {
    case 0:
        (void)guest_snapshot(guest);
        break;
    case 1:
    case 2:
        (void)guest_back(guest);
        break;
    case 3:
        if (guest_count() < GUESTS + 20 && guest_fork(guest, &fork) == E_OK)
            (void)guest_start(fork);
        break;
    case 4:
        (void)guest_kill(guest_by_number(step % guest_count() + 1));
        break;
    default:
        (void)guest_start(guest);
    }
}

static void command(unsigned step)
{
    guests_stop_others();
    __atomic_store_n(&still, true, __ATOMIC_RELAXED);
    check(__atomic_load_n(&inside_all, __ATOMIC_RELAXED) == 0);
    change(step);
    __atomic_store_n(&still, false, __ATOMIC_RELAXED);
    guests_go_on();
}

static void many_at_once(void **state)
{
    pthread_t threads[CPUS];
    uint64_t free;

    (void)state;
    machine_start(64 * MiB);
    guests_init(&machine_backend, NULL);
    guests_set_between(NULL);
    sector[510] = 0x55;
    sector[511] = 0xaa;
    machine_self = self;
    machine_cpu = run_guest;
    guests_set_cpus(&cpus);
    for (unsigned i = 0; i < GUESTS; i++)
        make(i == 5  ? "pinned mem=4M lazy reset=restart pin=3"
             : i % 2 ? "g mem=4M pc cpus=3 lazy reset=restart"
                     : "g mem=4M lazy reset=restart");
    for (uintptr_t i = 1; i < CPUS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, cpu_main, (void *)i), 0);
    guests_go_on();
    for (unsigned step = 0; step < STEPS; step++) {
        (void)guests_round();
        command(step);
    }
    guests_stop_others();
    for (unsigned i = 1; i <= guest_count(); i++) {
        (void)guest_kill(guest_by_number(i));
        if (guest_holds(guest_by_number(i)))
            guest_finish(guest_by_number(i));
    }
    guests_go_on();
    guests_leave();
    __atomic_store_n(&over, true, __ATOMIC_RELAXED);
    for (unsigned i = 1; i < CPUS; i++)
        assert_int_equal(pthread_join(threads[i], NULL), 0);
    assert_int_equal(wrong, 0);
    assert_int_equal(machine_stolen, 0);
    assert_true(machine_touches > 0); /* first touches beside what others did */
    free = machine_free_frames();
    for (unsigned i = 1; i <= guest_count(); i++)
        assert_int_equal(buddy_owner_frames(guest_owner(guest_by_number(i))), 0);
    assert_true(free > 0);
    guests_set_cpus(NULL);
    machine_stop();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(many_at_once),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
