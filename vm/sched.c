/*
 * Who runs when: every runnable guest in turn, for one slice each (vm/share.h).
 *
 * All that is done for a guest counts for its slice: its exits, what it prints, what it gives back
 * at its end. So a guest that does nothing but exit gets no more of the CPU than one that computes.
 * Each CPU goes by its own queue (vm/sched_cpus.c).
 */
#include "lib/error.h"
#include "mm/trace.h"
#include "vm/exits.h"
#include "vm/interrupts.h"
#include "vm/report.h"
#include "vm/reset.h"
#include "vm/sched.h"
#include "vm/snapshot.h"
#include "vm/startup.h"
#include "vm/touch.h"

static uint64_t first_entry;

uint64_t guests_first_entry(void)
{
    return first_entry;
}

static void run_failed(struct guest *guest, int error)
{
    struct vm_exit exit = {.kind = VM_EXIT_UNKNOWN, .name = "no entry"};

    guest_stop(guest, &exit, "it could not be run: %s", error_text(error));
}

/* Runs until the clock says `end`, the turn is given up, the guest no longer runs, or this CPU is
 * to stand still. */
static void run_until(struct guest_cpu *cpu, uint64_t now, uint64_t end)
{
    const struct vm_backend *backend = guests_backend();
    struct guest *guest = cpu->guest;
    bool goes_on = true;

    cpu->vcpu->deadline = end;
    cpu->vcpu->lock = sched_lock();
    cpu->vcpu->nudged = sched_nudged();
    /* The breakpoint of `until` is for one entry. */
    cpu->vcpu->touch = cpu->vcpu->until.on ? NULL : guest_touch;
    while (goes_on && now < end && !sched_stopping()) {
        struct vm_exit exit = {.kind = VM_EXIT_COUNT};
        uint64_t left = end - now, next;

        sched_heed();
        if (!startup_take(guest))
            break;
        next = interrupts_offer(guest, now);
        if (cpu->is.halted)
            break; /* nothing has come for it yet */
        int error = backend->run(cpu->vcpu, next < left ? next : left, &exit);

        guest_deal_with(guest, cpu->index); /* the lock was dropped: others have had their turns */
        trace(TRACE_EXIT, guest_owner(guest), exit.rip,
              exit.kind == VM_EXIT_MEMORY || exit.kind == VM_EXIT_MISCONFIG ? exit.memory.gpa.v : 0,
              exit.kind, error);
        if (guest_ended(guest))
            break; /* by another of its vCPUs: what this one came for is of no matter any more */
        guest_clock_passed(guest);
        if (error != E_OK && exit.kind != VM_EXIT_BAD_STATE)
            run_failed(guest, error);
        else
            goes_on = exit_dispatch(guest, &exit);
        goes_on = goes_on && guest->state == GUEST_RUNNING;
        now = backend->ticks();
    }
    guest_note_frames(guest);
}

/* What a vCPU waits for the guests' lock is not its own doing, and moves the start of its time. */
static uint64_t waited(const struct guest_cpu *cpu)
{
    return cpu->vcpu != NULL ? cpu->vcpu->waited : 0;
}

/* A guest that ends gives back what it held by and by, in turns of its own. */
static void finish_some(struct guest *guest, uint64_t deadline)
{
    if (guest->snapshot != NULL) {
        guest_hold_ended(guest);
    } else if (guest_finish_by(guest, deadline)) {
        guest_restart(guest);
        sched_put(); /* its new vCPUs are for any CPU */
    }
}

static void take_turn(struct guest_cpu *cpu)
{
    struct guest *guest = cpu->guest;
    uint64_t start, turn = share_turn(&cpu->share), used, before = waited(cpu);
    bool runs = turn != 0 && guest->state == GUEST_RUNNING;

    sched_begin_turn(cpu);
    guest_deal_with(guest, cpu->index);
    if (runs)
        guest_clock_go(guest);
    start = guests_backend()->ticks();
    if (first_entry == 0)
        first_entry = start;
    if (runs)
        run_until(cpu, start, start + turn);
    start += waited(cpu) - before;
    used = guests_backend()->ticks() - start;
    guest->ticks += used;
    cpu->ticks += used;
    if (guest->state != GUEST_RUNNING && sched_alone(guest) && guest_ended(guest) &&
        (turn != 0 || guest->snapshot != NULL))
        finish_some(guest, start + turn);
    sched_let_go();
    used = guests_backend()->ticks() - start;
    if (used > turn)
        share_owe(&cpu->share, used - turn);
}

bool guest_wants_turn(const struct guest *guest)
{
    return guest->state == GUEST_RUNNING || guest_holds(guest);
}

bool cpu_wants_turn(const struct guest_cpu *cpu)
{
    const struct guest *guest = cpu->guest;

    if (guest->state == GUEST_RUNNING)
        return cpu->index < guest->cpus && !startup_waits(cpu);
    return cpu->index == 0 && guest_holds(guest);
}

static bool (*between)(void);
static unsigned last[GUEST_CPUS]; /* whose turn it was, ... */
static uint8_t next_cpu[GUEST_CPUS]
                       [GUEST_LIMIT + 1]; /* ... and of each guest, which vCPU's is next */

void guests_set_between(bool (*wanted)(void))
{
    between = wanted;
}

bool guest_run_round(struct guest *guest, uint64_t most, int (*poll)(void *ctx), void *ctx)
{
    uint64_t now = guests_backend()->ticks();
    uint64_t end = most < UINT64_MAX - now ? now + most : UINT64_MAX;
    bool goes_on = true;

    guest->in_round = true;
    guest->round_over = false;
    guest_deal_with(guest, 0);
    while (goes_on && now < end) {
        guest_clock_go(guest);
        if (!startup_waits(guest_at(guest)))
            run_until(guest_at(guest), now, end - now > SLICE_TICKS ? now + SLICE_TICKS : end);
        if (guest->state != GUEST_RUNNING || guest->round_over)
            break;
        guest_deal_with(guest, (guest->now + 1) % guest->cpus);
        goes_on = poll == NULL || poll(ctx) == 0;
        now = guests_backend()->ticks();
    }
    guest->in_round = false;
    return goes_on;
}

static struct {
    uint64_t at;   /* clock, when its keys were taken last */
    uint64_t wait; /* ticks that they waited at most */
} console;

uint64_t guests_console_wait(void)
{
    uint64_t most = console.wait;

    console.wait = 0;
    return most;
}

static void note_wait(uint64_t now)
{
    if (now - console.at > console.wait)
        console.wait = now - console.at;
    console.at = now;
}

/* Does what is done after each slice, on the console's CPU: others have time for guests alone. */
static bool attend_console(void)
{
    if (guest_count() != 0)
        note_wait(guests_backend()->ticks());
    guests_show_output();
    return between != NULL && between();
}

/* One slice for the guest's vCPUs in this queue, all together: for the one behind that which had
 * the last, or, where that waits, the next. So a guest has no more of a CPU for having several.
 * True: somebody used it. */
static bool give_turn(unsigned queue, struct guest *guest, bool *taken)
{
    uint8_t *whose = &next_cpu[queue][guest->number];

    for (unsigned i = 0, first = *whose; i < GUEST_VCPUS && !sched_stopping(); i++) {
        struct guest_cpu *cpu = &guest->cpu[(first + i) % GUEST_VCPUS];
        bool halted = cpu->is.halted;

        if (!cpu_wants_turn(cpu) || sched_queue_of(cpu) != queue)
            continue;
        take_turn(cpu);
        *taken = true;
        if (!halted || !cpu->is.halted) {
            *whose = (uint8_t)((cpu->index + 1) % GUEST_VCPUS);
            return true;
        }
    }
    return false;
}

unsigned sched_round(unsigned cpu)
{
    unsigned count = guest_count(), used = 0;

    sched_let_go();
    for (unsigned i = 0; i < count && !sched_stopping(); i++) {
        struct guest *guest = guest_by_number(last[cpu] % count + 1);
        bool taken = false;

        last[cpu] = guest->number;
        used += give_turn(cpu, guest, &taken);
        if (cpu == 0 && taken && attend_console())
            break;
    }
    return used;
}

unsigned guests_round(void)
{
    unsigned runnable = 0, used;

    if (guest_count() != 0)
        console.at = guests_backend()->ticks();
    used = sched_round(0);
    if (used == 0 && guests_cpus() > 1)
        (void)attend_console(); /* what guests have printed elsewhere */
    guests_breathe(used == 0);
    for (unsigned number = 1; number <= guest_count(); number++)
        runnable += guest_wants_turn(guest_by_number(number));
    return runnable;
}
