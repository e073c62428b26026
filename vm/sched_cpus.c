/*
 * See vm/sched.h: queues, who takes guests from whose, and how CPUs are stopped.
 *
 * A CPU other than 0 is `out`, when it halts or is about to; or it goes through its rounds, and has
 * at most one guest active, the one in `active`. Everything here is under the guests' lock.
 */
#include "vm/sched.h"

#include <stddef.h>

#include "lib/lock.h"
#include "lib/panic.h"
#include "vm/guest.h"
#include "vm/guests_lock.h"

/* Ticks after which a CPU that has not stopped is kicked again: the first kick may have come right
 * before it entered the guest. */
#define KICK_AGAIN (SLICE_TICKS / 8)

/* A CPU whose guests all wait lets so many ticks pass between two looks at them; the console's, if
 * it has no guest, between two looks at the keys and at what the others' guests have printed. */
#define LOOK_TICKS (SLICE_TICKS / 16)
#define CONSOLE_TICKS (SLICE_TICKS / 2)

struct wide_lock guests_lock = WIDE_LOCK_INIT_AT(LOCK_GUESTS);

static struct queue {
    struct guest *active; /* whose vCPU may be active here; NULL: nobody's */
    struct guest *turn;   /* who had the last turn */
    bool out;
} queues[GUEST_CPUS];

static const struct guests_cpus *cpus; /* NULL: one CPU */
static unsigned stops; /* guests_stop_others() without guests_go_on(); changed under the lock */

void guests_set_cpus(const struct guests_cpus *all)
{
    cpus = all != NULL && all->count > 1 ? all : NULL;
    stops = 0;
    for (unsigned i = 0; i < GUEST_CPUS; i++)
        queues[i] = (struct queue){.out = true};
    if (cpus == NULL)
        return;
    invariant(cpus->count <= GUEST_CPUS);
    stops = 1;
    wide_lock_take(&guests_lock);
}

unsigned guests_cpus(void)
{
    return cpus != NULL ? cpus->count : 1;
}

unsigned sched_self(void)
{
    return cpus != NULL ? cpus->self() : 0;
}

bool sched_stopping(void)
{
    return stops != 0 && sched_self() != 0;
}

struct guest *guests_turn(unsigned cpu)
{
    struct guest *guest = cpu < guests_cpus() && cpus != NULL ? queues[cpu].turn : NULL;

    return guest != NULL && guest_wants_turn(guest) ? guest : NULL;
}

struct wide_lock *sched_lock(void)
{
    return cpus != NULL ? &guests_lock : NULL;
}

/* ---- Queues --------------------------------------------------------------------------------- */

unsigned guest_cpu(const struct guest *guest)
{
    return guest->options.pinned ? guest->options.pin : guest->cpu;
}

bool guest_is_busy(const struct guest *guest)
{
    return guest_wants_turn(guest) && !guest->halted;
}

static unsigned length_of(unsigned cpu, bool (*counts)(const struct guest *guest))
{
    unsigned length = 0;

    for (unsigned number = 1; number <= guest_count(); number++)
        length += guest_cpu(guest_by_number(number)) == cpu && counts(guest_by_number(number));
    return length;
}

static bool has_not_ended(const struct guest *guest)
{
    return !guest_ended(guest);
}

void guest_choose_cpu(struct guest *guest)
{
    unsigned best = 0, least = GUEST_LIMIT + 1;

    for (unsigned cpu = 0; cpu < guests_cpus(); cpu++) {
        unsigned length = length_of(cpu, has_not_ended);

        if (length < least) {
            least = length;
            best = cpu;
        }
    }
    guest->cpu = best;
}

/* A guest that another CPU could run now instead. */
static struct guest *to_spare(unsigned cpu)
{
    for (unsigned number = 1; number <= guest_count(); number++) {
        struct guest *guest = guest_by_number(number);

        if (guest_cpu(guest) == cpu && guest_is_busy(guest) && !guest->options.pinned &&
            guest != queues[cpu].active)
            return guest;
    }
    return NULL;
}

/* From the longest queue, if there is more than one guest in it that would run. */
static bool take_from_others(unsigned self)
{
    unsigned most = 1;
    struct guest *taken = NULL;

    for (unsigned cpu = 0; cpu < guests_cpus(); cpu++) {
        unsigned length = cpu != self ? length_of(cpu, guest_is_busy) : 0;
        struct guest *guest = length > most ? to_spare(cpu) : NULL;

        if (guest != NULL) {
            most = length;
            taken = guest;
        }
    }
    if (taken == NULL)
        return false;
    taken->cpu = self;
    taken->moves++;
    return true;
}

/* Guests of this CPU that another one could have: that one halts, and does not see them. */
static void offer_work(unsigned self)
{
    if (stops != 0 || length_of(self, guest_is_busy) < 2 || to_spare(self) == NULL)
        return;
    for (unsigned cpu = 1; cpu < guests_cpus(); cpu++) {
        if (cpu != self && queues[cpu].out) {
            cpus->wake(cpu);
            return;
        }
    }
}

/* ---- Turns ---------------------------------------------------------------------------------- */

static void put_all(unsigned cpu)
{
    guests_backend()->put_all();
    queues[cpu].active = NULL;
}

void sched_begin_turn(struct guest *guest)
{
    struct queue *queue = &queues[sched_self()];

    if (cpus != NULL && queue->active != guest && guests_backend()->put_all != NULL)
        put_all(sched_self());
    queue->active = queue->turn = guest;
}

void guest_nudge(const struct guest *guest)
{
    unsigned cpu = guest_cpu(guest);

    if (cpus != NULL && cpu != sched_self() && queues[cpu].turn == guest)
        cpus->kick(cpu);
}

/* ---- A CPU for guests ------------------------------------------------------------------------ */

void guests_leave(void)
{
    if (cpus != NULL)
        wide_lock_drop(&guests_lock);
}

void guests_enter(void)
{
    if (cpus != NULL)
        wide_lock_take(&guests_lock);
}

/* So that whoever waits for the lock has it. */
static void wait_outside(uint64_t ticks)
{
    uint64_t start = guests_backend()->ticks();

    guests_leave();
    do
        cpus->relax();
    while (guests_backend()->ticks() - start < ticks);
    guests_enter();
}

void guests_breathe(bool idle)
{
    uint64_t ticks = 0;

    if (cpus == NULL || guests_backend() == NULL)
        return;
    offer_work(0);
    if (idle && length_of(0, guest_is_busy) == 0 && !take_from_others(0))
        ticks = length_of(0, guest_wants_turn) == 0 ? CONSOLE_TICKS : LOOK_TICKS;
    wait_outside(ticks);
}

/* A turn of this CPU at its queue. */
static bool run_round(unsigned self)
{
    if (stops != 0 || guests_backend() == NULL)
        return false;
    if (length_of(self, guest_is_busy) == 0 && !take_from_others(self) &&
        length_of(self, guest_wants_turn) == 0)
        return false;
    queues[self].out = false;
    if (sched_round(self) == 0 && stops == 0)
        wait_outside(LOOK_TICKS);
    offer_work(self);
    return true;
}

/* A CPU that is out must not wait for the lock while all are to stand still: whoever holds it then
 * may wait for what this CPU is to do besides. */
static bool enter_from_outside(void)
{
    while (__atomic_load_n(&stops, __ATOMIC_RELAXED) == 0) {
        if (wide_lock_try(&guests_lock))
            return true;
        cpus->relax();
    }
    return false;
}

bool guests_run_here(void)
{
    unsigned self;
    bool goes_on;

    if (cpus == NULL)
        return false;
    self = cpus->self();
    if (!queues[self].out)
        guests_enter();
    else if (!enter_from_outside())
        return false;
    goes_on = run_round(self);
    if (!goes_on && !queues[self].out) {
        put_all(self);
        if (stops == 0)
            queues[self].turn = NULL;
        queues[self].out = true;
    }
    guests_leave();
    return goes_on;
}

/* ---- Standing still -------------------------------------------------------------------------- */

static void wait_until_out(unsigned cpu)
{
    uint64_t kicked = guests_backend()->ticks();

    if (!queues[cpu].out)
        cpus->kick(cpu);
    while (!queues[cpu].out) {
        guests_leave();
        cpus->relax();
        guests_enter();
        if (guests_backend()->ticks() - kicked < KICK_AGAIN)
            continue;
        kicked = guests_backend()->ticks();
        cpus->kick(cpu);
    }
}

void guests_stop_others(void)
{
    if (cpus == NULL || guests_backend() == NULL)
        return;
    __atomic_store_n(&stops, stops + 1, __ATOMIC_RELAXED);
    for (unsigned cpu = 1; cpu < cpus->count; cpu++)
        wait_until_out(cpu);
}

void guests_go_on(void)
{
    if (cpus == NULL || guests_backend() == NULL)
        return;
    put_all(0);
    __atomic_store_n(&stops, stops - 1, __ATOMIC_RELAXED);
    if (stops != 0)
        return;
    for (unsigned cpu = 1; cpu < cpus->count; cpu++)
        cpus->wake(cpu);
}
