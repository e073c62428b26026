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
static void run_until(struct guest *guest, uint64_t now, uint64_t end)
{
    const struct vm_backend *backend = guests_backend();
    bool goes_on = true;

    guest->vcpu->deadline = end;
    guest->vcpu->lock = sched_lock();
    while (goes_on && now < end && !sched_stopping()) {
        struct vm_exit exit = {.kind = VM_EXIT_COUNT};
        uint64_t left = end - now, next = interrupts_offer(guest, now);

        if (guest->halted)
            break; /* nothing has come for it yet */
        int error = backend->run(guest->vcpu, next < left ? next : left, &exit);

        trace(TRACE_EXIT, guest_owner(guest), exit.rip,
              exit.kind == VM_EXIT_MEMORY || exit.kind == VM_EXIT_MISCONFIG ? exit.memory.gpa.v : 0,
              exit.kind, error);
        if (error != E_OK && exit.kind != VM_EXIT_BAD_STATE)
            run_failed(guest, error);
        else
            goes_on = exit_dispatch(guest, &exit);
        goes_on = goes_on && guest->state == GUEST_RUNNING;
        now = backend->ticks();
    }
    guest_note_frames(guest);
}

/* What a guest waits for the guests' lock is not its own doing, and moves the start of its time. */
static uint64_t waited(const struct guest *guest)
{
    return guest->vcpu != NULL ? guest->vcpu->waited : 0;
}

/* A guest that ends gives back what it held by and by, in turns of its own. */
static void take_turn(struct guest *guest)
{
    uint64_t start, turn = share_turn(&guest->share), used, before = waited(guest);
    bool runs = turn != 0 && guest->state == GUEST_RUNNING;

    sched_begin_turn(guest);
    if (runs)
        guest_clock_go(guest);
    start = guests_backend()->ticks();
    if (first_entry == 0)
        first_entry = start;
    if (runs)
        run_until(guest, start, start + turn);
    start += waited(guest) - before;
    used = guests_backend()->ticks() - start;
    guest->ticks += used;
    if (guest_ended(guest) && guest->snapshot != NULL)
        guest_hold_ended(guest);
    else if (guest_ended(guest) && turn != 0 && guest_finish_by(guest, start + turn))
        guest_restart(guest);
    used = guests_backend()->ticks() - start;
    if (used > turn)
        share_owe(&guest->share, used - turn);
}

bool guest_wants_turn(const struct guest *guest)
{
    return guest->state == GUEST_RUNNING || guest_holds(guest);
}

static bool (*between)(void);
static unsigned last[GUEST_CPUS]; /* whose turn it was */

void guests_set_between(bool (*wanted)(void))
{
    between = wanted;
}

void guest_run_round(struct guest *guest, uint64_t most)
{
    uint64_t start = guests_backend()->ticks();

    guest->in_round = true;
    guest->round_over = false;
    guest_clock_go(guest);
    for (uint64_t now = start;
         now - start < most && guest->state == GUEST_RUNNING && !guest->round_over;
         now = guests_backend()->ticks())
        run_until(guest, now, start + most);
    guest->in_round = false;
}

/* Does what is done after each slice, on the console's CPU: others have time for guests alone. */
static bool attend_console(void)
{
    guests_show_output();
    return between != NULL && between();
}

unsigned sched_round(unsigned cpu)
{
    unsigned count = guest_count(), used = 0;

    for (unsigned i = 0; i < count && !sched_stopping(); i++) {
        struct guest *guest = guest_by_number(last[cpu] % count + 1);
        bool halted = guest->halted;

        last[cpu] = guest->number;
        if (guest_cpu(guest) != cpu || !guest_wants_turn(guest))
            continue;
        take_turn(guest);
        used += !halted || !guest->halted;
        if (cpu == 0 && attend_console())
            break;
    }
    return used;
}

unsigned guests_round(void)
{
    unsigned runnable = 0, used = sched_round(0);

    if (used == 0 && guests_cpus() > 1)
        (void)attend_console(); /* what guests have printed elsewhere */
    guests_breathe(used == 0);
    for (unsigned number = 1; number <= guest_count(); number++)
        runnable += guest_wants_turn(guest_by_number(number));
    return runnable;
}
