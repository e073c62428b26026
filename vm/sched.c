/*
 * Who runs when: every runnable guest in turn, for one slice each (vm/share.h).
 *
 * All that is done for a guest counts for its slice: its exits, what it prints, what it gives back
 * at its end. So a guest that does nothing but exit gets no more of the CPU than one that computes.
 * One CPU runs them all for now; what a second would need to share is the list in vm/guest.c.
 */
#include "lib/error.h"
#include "mm/trace.h"
#include "vm/exits.h"
#include "vm/interrupts.h"
#include "vm/report.h"
#include "vm/reset.h"
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

/* Runs until the clock says `end`, the turn is given up, or the guest no longer runs. */
static void run_until(struct guest *guest, uint64_t now, uint64_t end)
{
    const struct vm_backend *backend = guests_backend();
    bool goes_on = true;

    guest->vcpu->deadline = end;
    while (goes_on && now < end) {
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
}

/* A guest that ends gives back what it held by and by, in turns of its own. */
static void take_turn(struct guest *guest)
{
    uint64_t start, turn = share_turn(&guest->share), used;
    bool runs = turn != 0 && guest->state == GUEST_RUNNING;

    if (runs)
        guest_clock_go(guest);
    start = guests_backend()->ticks();
    if (first_entry == 0)
        first_entry = start;
    if (runs)
        run_until(guest, start, start + turn);
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

static bool wants_turn(const struct guest *guest)
{
    return guest->state == GUEST_RUNNING || guest_holds(guest);
}

static bool (*between)(void);
static unsigned last; /* whose turn it was */

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

unsigned guests_round(void)
{
    unsigned count = guest_count(), runnable = 0;

    for (unsigned i = 0; i < count; i++) {
        struct guest *guest = guest_by_number(last % count + 1);

        last = guest->number;
        if (!wants_turn(guest))
            continue;
        take_turn(guest);
        guests_show_output();
        if (between != NULL && between())
            break;
    }
    for (unsigned number = 1; number <= count; number++)
        runnable += wants_turn(guest_by_number(number));
    return runnable;
}
