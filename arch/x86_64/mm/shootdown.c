/* See shootdown.h. */
#include "arch/x86_64/mm/shootdown.h"

#include <stddef.h>

#include "lib/bits.h"
#include "lib/lock.h"
#include "lib/panic.h"

/* `asked` is the sender's; the rest only its own CPU writes. Answers are numbers that only grow, so
 * that to give one twice, or late, does no harm: an NMI may come between any two instructions. */
struct cpu {
    uint64_t asked __attribute__((aligned(64))); /* the flush that it is to take part in */
    struct table *context[CONTEXT_COUNT] __attribute__((aligned(64)));
    uint64_t answered; /* the last flush that it has taken part in */
    uint64_t owes; /* one whose answer waits for the end of a read; old if not above `answered` */
    unsigned reading; /* depth of reads */
    struct shootdown_counters counters;
};

static struct {
    struct lock lock;
    const struct shootdown_ops *ops; /* NULL: one CPU, as at boot */
    uint64_t members;                /* CPUs that take part */
    /* The flush that is under way. */
    uint64_t number;
    struct table *table; /* NULL: a barrier is all that is asked for */
    const struct flush_batch *batch;
    struct cpu cpu[SHOOTDOWN_CPUS];
} shootdown;

void shootdown_init(const struct shootdown_ops *ops)
{
    shootdown.lock = LOCK_INIT;
    shootdown.ops = ops;
    shootdown.members = 0;
    shootdown.number = 0;
    for (unsigned i = 0; i < SHOOTDOWN_CPUS; i++)
        shootdown.cpu[i] = (struct cpu){0};
    shootdown_join();
}

void shootdown_join(void)
{
    __atomic_fetch_or(&shootdown.members, BIT(shootdown.ops->self()), __ATOMIC_SEQ_CST);
}

void shootdown_leave(void)
{
    __atomic_fetch_and(&shootdown.members, ~BIT(shootdown.ops->self()), __ATOMIC_SEQ_CST);
}

unsigned shootdown_self(void)
{
    return shootdown.ops ? shootdown.ops->self() : 0;
}

unsigned shootdown_cpus(void)
{
    unsigned count = 0;

    for (uint64_t left = __atomic_load_n(&shootdown.members, __ATOMIC_RELAXED); left;
         left &= left - 1)
        count++;
    return count ? count : 1;
}

/* The CPUs that may use the table: of the kernel's, all; and those that read one, whichever. */
static uint64_t users_of(const struct table *table)
{
    uint64_t members = __atomic_load_n(&shootdown.members, __ATOMIC_SEQ_CST), users = 0;

    if (table->kind->id == KIND_KERNEL)
        return members;
    for (uint64_t left = members; left; left &= left - 1) {
        const struct cpu *cpu = &shootdown.cpu[lowest_bit(left)];

        if (__atomic_load_n(&cpu->reading, __ATOMIC_SEQ_CST))
            users |= left & -left;
        for (unsigned i = 0; i < CONTEXT_COUNT; i++)
            if (__atomic_load_n(&cpu->context[i], __ATOMIC_SEQ_CST) == table)
                users |= left & -left;
    }
    return users;
}

/* Past the patience: to go on without the answer would free frames that the CPU may still reach. An
 * NMI that was lost, as QEMU's SVM loses one at times, is sent again: two do no harm. */
static void wait_for_answers(uint64_t cpus, const struct table *table)
{
    const struct shootdown_ops *ops = shootdown.ops;
    uint64_t start = ops->now(), asked = start;

    for (uint64_t left = cpus; left; left &= left - 1) {
        const struct cpu *cpu = &shootdown.cpu[lowest_bit(left)];

        while (__atomic_load_n(&cpu->answered, __ATOMIC_ACQUIRE) != shootdown.number) {
            uint64_t now = ops->now();

            if (now - start > ops->patience)
                ops->missing(lowest_bit(left), table);
            if (now - asked > ops->resend) {
                ops->send(lowest_bit(left));
                asked = now;
            }
            __builtin_ia32_pause();
        }
    }
}

/* Has each CPU of the mask take part; this one does meanwhile, if it is in the mask. */
static void ask(uint64_t cpus, struct table *table, const struct flush_batch *batch)
{
    unsigned self = shootdown.ops->self();
    uint64_t others = cpus & ~BIT(self);
    struct shootdown_counters *counters = &shootdown.cpu[self].counters;

    if (others) {
        lock_take(&shootdown.lock);
        shootdown.number++;
        shootdown.table = table;
        shootdown.batch = batch;
        counters->sent++;
        for (uint64_t left = others; left; left &= left - 1, counters->asked++) {
            unsigned cpu = lowest_bit(left);

            __atomic_store_n(&shootdown.cpu[cpu].asked, shootdown.number, __ATOMIC_SEQ_CST);
            shootdown.ops->send(cpu);
        }
    }
    if (table && (cpus & BIT(self)))
        shootdown.ops->forget(table, batch);
    if (others) {
        wait_for_answers(others, table);
        lock_drop(&shootdown.lock);
    }
}

/* This CPU always forgets: its writer may have used the table without publishing it. */
void shootdown_flush(struct table *table, const struct flush_batch *batch)
{
    if (!shootdown.ops) {
        table->kind->flush(table, batch);
        return;
    }
    __atomic_fetch_add(&table->generation, 1, __ATOMIC_SEQ_CST);
    ask(users_of(table) | BIT(shootdown.ops->self()), table, batch);
}

void shootdown_fence(void)
{
    ask(__atomic_load_n(&shootdown.members, __ATOMIC_SEQ_CST), NULL, NULL);
}

/* What the sender reads as the answer comes after all that went before it here. Never back: an NMI
 * may have answered a later flush. */
static void acknowledge(struct cpu *self, uint64_t number)
{
    uint64_t last = __atomic_load_n(&self->answered, __ATOMIC_RELAXED);

    while (last < number && !__atomic_compare_exchange_n(&self->answered, &last, number, false,
                                                         __ATOMIC_SEQ_CST, __ATOMIC_RELAXED))
        continue;
}

/* Until this CPU has answered, the sender keeps what it asks for as it is. */
void shootdown_answer(void)
{
    if (!shootdown.ops)
        return;
    struct cpu *self = &shootdown.cpu[shootdown.ops->self()];
    uint64_t number = __atomic_load_n(&self->asked, __ATOMIC_ACQUIRE);

    if (number == __atomic_load_n(&self->answered, __ATOMIC_RELAXED))
        return;
    if (shootdown.table)
        shootdown.ops->forget(shootdown.table, shootdown.batch);
    if (shootdown.table && __atomic_load_n(&self->reading, __ATOMIC_RELAXED)) {
        __atomic_store_n(&self->owes, number, __ATOMIC_RELAXED);
        return;
    }
    self->counters.answered++;
    acknowledge(self, number);
}

void shootdown_read_begin(void)
{
    if (!shootdown.ops)
        return;
    struct cpu *self = &shootdown.cpu[shootdown.ops->self()];

    /* A barrier, as where a table is published: a flush that does not see it was counted before,
     * and what it has detached is not found any more. */
    __atomic_store_n(&self->reading, self->reading + 1, __ATOMIC_SEQ_CST);
}

/* An NMI after `reading` has become 0 gives the answer itself. */
void shootdown_read_end(void)
{
    if (!shootdown.ops)
        return;
    struct cpu *self = &shootdown.cpu[shootdown.ops->self()];

    __atomic_signal_fence(__ATOMIC_SEQ_CST);
    __atomic_store_n(&self->reading, self->reading - 1, __ATOMIC_RELEASE); /* after the reads */
    __atomic_signal_fence(__ATOMIC_SEQ_CST);
    if (self->reading)
        return;
    uint64_t owed = __atomic_load_n(&self->owes, __ATOMIC_RELAXED);
    if (owed <= __atomic_load_n(&self->answered, __ATOMIC_RELAXED))
        return;
    self->counters.answered++;
    self->counters.late++;
    acknowledge(self, owed);
}

bool shootdown_load(enum shootdown_context context, struct table *table, uint64_t *seen)
{
    if (!shootdown.ops)
        return false;
    struct cpu *self = &shootdown.cpu[shootdown.ops->self()];

    /* A `seen` of 0 is new, and so is its table, perhaps in the place of one that is no more. */
    if (__atomic_load_n(&self->context[context], __ATOMIC_RELAXED) == table && (!seen || *seen))
        return false;
    __atomic_store_n(&self->context[context], table, __ATOMIC_SEQ_CST);
    if (!table || !seen)
        return false;
    uint64_t generation = __atomic_load_n(&table->generation, __ATOMIC_SEQ_CST) + 1;
    if (*seen == generation)
        return false;
    *seen = generation;
    self->counters.missed++;
    return true;
}

struct shootdown_counters shootdown_counters_of(unsigned cpu)
{
    return shootdown.cpu[cpu].counters;
}
