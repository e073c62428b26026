/*
 * Who runs when: every runnable guest in turn, for one slice each.
 *
 * A slice is a budget of clock ticks that exits use up as well, so that a guest that does
 * nothing but exit gets no more of the CPU than one that computes. One CPU runs them all for
 * now; what a second would need to share is the list in vm/guest.c.
 */
#include "lib/error.h"
#include "mm/trace.h"
#include "vm/exits.h"
#include "vm/interrupts.h"
#include "vm/report.h"
#include "vm/reset.h"

#define SLICE_TICKS UINT64_C(1000000)

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

/* Runs until the slice is used up, given up, or the guest no longer runs. */
static void run_slice(struct guest *guest)
{
    const struct vm_backend *backend = guests_backend();
    uint64_t start, now;
    bool goes_on = true;

    guest_clock_go(guest);
    start = now = backend->ticks();
    if (first_entry == 0)
        first_entry = start;
    while (goes_on && now - start < SLICE_TICKS) {
        struct vm_exit exit = {.kind = VM_EXIT_COUNT};
        uint64_t left = SLICE_TICKS - (now - start), next = interrupts_offer(guest, now);

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
    guest->ticks += now - start;
}

unsigned guests_round(void)
{
    unsigned runnable = 0;

    for (unsigned number = 1; number <= guest_count(); number++) {
        struct guest *guest = guest_by_number(number);

        if (guest->state != GUEST_RUNNING)
            continue;
        run_slice(guest);
        if (guest_ended(guest)) {
            guest_finish(guest);
            guest_restart(guest);
        }
        runnable += guest->state == GUEST_RUNNING;
    }
    return runnable;
}
