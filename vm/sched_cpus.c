/*
 * See vm/sched.h: queues, who takes guests from whose, and how CPUs are stopped.
 *
 * A CPU other than 0 is `out`, when it halts or is about to; or it goes through its rounds, and has
 * at most one vCPU active, the one in `active`. Everything here is under the guests' lock.
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
    struct guest_cpu *active; /* the vCPU that may be active here; NULL: none */
    struct guest_cpu *turn;   /* which had the last turn */
    bool out;
    bool nudged; /* something has come for the one in `turn` */
} queues[GUEST_CPUS];

static struct lock_sharer sharers[GUEST_CPUS];

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
    guests_lock.sharer = sharers;
    guests_lock.sharers = cpus->count;
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

struct guest_cpu *guests_turn(unsigned cpu)
{
    struct guest_cpu *turn = cpu < guests_cpus() && cpus != NULL ? queues[cpu].turn : NULL;

    return turn != NULL && cpu_wants_turn(turn) ? turn : NULL;
}

struct wide_lock *sched_lock(void)
{
    return cpus != NULL ? &guests_lock : NULL;
}

/* Who is not to go on waits for nothing. */
static bool may_go_on(unsigned self)
{
    return !__atomic_load_n(&queues[self].nudged, __ATOMIC_RELAXED) &&
           __atomic_load_n(&stops, __ATOMIC_RELAXED) == 0;
}

bool sched_share(struct vcpu *vcpu)
{
    unsigned self = sched_self();
    uint64_t before;
    bool shared;

    if (cpus == NULL)
        return true;
    if (!may_go_on(self))
        return false;
    before = guests_backend()->ticks();
    shared = wide_lock_share(&guests_lock, &sharers[self]);
    vcpu->waited += guests_backend()->ticks() - before;
    if (!shared || may_go_on(self))
        return shared;
    wide_lock_unshare(&guests_lock, &sharers[self]);
    return false;
}

void sched_unshare(void)
{
    if (cpus != NULL)
        wide_lock_unshare(&guests_lock, &sharers[sched_self()]);
}

void sched_heed(void)
{
    if (cpus != NULL)
        queues[sched_self()].nudged = false;
}

const bool *sched_nudged(void)
{
    return cpus != NULL ? &queues[sched_self()].nudged : NULL;
}

/* ---- Queues --------------------------------------------------------------------------------- */

unsigned sched_queue_of(const struct guest_cpu *cpu)
{
    const struct guest_options *options = &cpu->guest->options;

    return options->pinned ? options->pin : cpu->queue;
}

bool cpu_is_busy(const struct guest_cpu *cpu)
{
    return cpu_wants_turn(cpu) && !cpu->is.halted;
}

static unsigned length_of(unsigned queue, bool (*counts)(const struct guest_cpu *cpu))
{
    unsigned length = 0;

    for (unsigned number = 1; number <= guest_count(); number++) {
        const struct guest *guest = guest_by_number(number);

        for (unsigned i = 0; i < guest->cpus; i++)
            length += sched_queue_of(&guest->cpu[i]) == queue && counts(&guest->cpu[i]);
    }
    return length;
}

static bool has_not_ended(const struct guest_cpu *cpu)
{
    return !guest_ended(cpu->guest);
}

void sched_choose_queue(struct guest_cpu *cpu)
{
    unsigned best = 0, least = GUEST_LIMIT * GUEST_VCPUS + 1;

    for (unsigned queue = 0; queue < guests_cpus(); queue++) {
        unsigned length = length_of(queue, has_not_ended);

        if (length < least) {
            least = length;
            best = queue;
        }
    }
    cpu->queue = best;
}

/* A vCPU that another CPU could run now instead. */
static struct guest_cpu *to_spare(unsigned queue)
{
    for (unsigned number = 1; number <= guest_count(); number++) {
        struct guest *guest = guest_by_number(number);

        for (unsigned i = 0; i < guest->cpus && !guest->options.pinned; i++) {
            struct guest_cpu *cpu = &guest->cpu[i];

            if (cpu->queue == queue && cpu_is_busy(cpu) && cpu != queues[queue].active)
                return cpu;
        }
    }
    return NULL;
}

/* From the longest queue, if there is more than one vCPU in it that would run. */
static bool take_from_others(unsigned self)
{
    unsigned most = 1;
    struct guest_cpu *taken = NULL;

    for (unsigned queue = 0; queue < guests_cpus(); queue++) {
        unsigned length = queue != self ? length_of(queue, cpu_is_busy) : 0;
        struct guest_cpu *cpu = length > most ? to_spare(queue) : NULL;

        if (cpu != NULL) {
            most = length;
            taken = cpu;
        }
    }
    if (taken == NULL)
        return false;
    taken->queue = self;
    taken->moves++;
    return true;
}

/* vCPUs of this CPU that another one could have: that one halts, and does not see them. */
static void offer_work(unsigned self)
{
    if (stops != 0 || length_of(self, cpu_is_busy) < 2 || to_spare(self) == NULL)
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

void sched_begin_turn(struct guest_cpu *cpu)
{
    struct queue *queue = &queues[sched_self()];

    if (cpus != NULL && queue->active != cpu && guests_backend()->put_all != NULL)
        put_all(sched_self());
    queue->active = queue->turn = cpu;
}

void sched_put(void)
{
    if (cpus != NULL)
        put_all(sched_self());
}

void sched_let_go(void)
{
    const struct guest_cpu *active = cpus != NULL ? queues[sched_self()].active : NULL;

    if (active != NULL && guest_ended(active->guest))
        sched_put();
}

bool sched_alone(const struct guest *guest)
{
    bool alone = true;

    for (unsigned cpu = 0; cpu < guests_cpus(); cpu++) {
        const struct guest_cpu *active = queues[cpu].active;

        if (cpus == NULL || cpu == sched_self() || active == NULL || active->guest != guest)
            continue;
        cpus->kick(cpu);
        alone = false;
    }
    return alone;
}

void guest_nudge(const struct guest_cpu *cpu)
{
    unsigned queue = sched_queue_of(cpu);

    if (cpus == NULL || queue == sched_self())
        return;
    if (queues[queue].turn == cpu) {
        __atomic_store_n(&queues[queue].nudged, true, __ATOMIC_RELEASE);
        cpus->kick(queue);
    }
    if (queue != 0 && queues[queue].out)
        cpus->wake(queue); /* it halts, for it had nobody who would run */
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
    if (idle && length_of(0, cpu_is_busy) == 0 && !take_from_others(0))
        ticks = length_of(0, cpu_wants_turn) == 0 ? CONSOLE_TICKS : LOOK_TICKS;
    wait_outside(ticks);
}

/* A turn of this CPU at its queue. */
static bool run_round(unsigned self)
{
    if (stops != 0 || guests_backend() == NULL)
        return false;
    if (length_of(self, cpu_is_busy) == 0 && !take_from_others(self) &&
        length_of(self, cpu_wants_turn) == 0)
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
