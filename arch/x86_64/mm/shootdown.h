/*
 * Flushes on several CPUs: which of them may hold translations of a table, and how each is made to
 * forget and to say so (SDM Vol. 3, 4.10.5 "Propagation of paging-structure changes to multiple
 * processors"; 29.4.3.3 for EPT; APM Vol. 2, 15.16 for ASIDs).
 *
 * Each CPU publishes the tables that it may use: the kernel's at all times, and one of a program
 * and one of a guest (enum shootdown_context). A flush goes by NMI to those alone that have
 * published its table, and comes back when each has answered. An NMI is taken wherever a CPU is:
 * halted, in a guest, spinning for any lock, with interrupts masked. CPUs that have not published
 * the table are not disturbed; each table counts its flushes, and who publishes it (again) learns
 * whether there was one since, and then forgets first.
 *
 *     sender                                CPU that begins to use the table
 *     stores into the table                 publishes it            (a full barrier)
 *     counts the flush (a full barrier)     looks at the count: flushes if it has changed
 *     looks who has published the table     uses the table
 *
 * Of the two looks at least one sees what the other CPU did before it.
 *
 * One flush is under way at a time. `shootdown.lock` comes last in the order of locks: a table's
 * and the buddy's may be held. Who answers takes no lock.
 *
 * A CPU that only reads a table (translate, walk, visit) takes no lock, and frames must not be
 * freed under it: where other CPUs may write at the same time it reads between
 * shootdown_read_begin() and shootdown_read_end(), takes part in flushes of any table meanwhile,
 * and answers no sooner than at the end.
 *
 * Portable: what is the machine's comes as struct shootdown_ops.
 */
#ifndef QUIRE_ARCH_X86_64_MM_SHOOTDOWN_H
#define QUIRE_ARCH_X86_64_MM_SHOOTDOWN_H

#include <stdbool.h>
#include <stdint.h>

#include "mm/paging/table.h"

/* CPU numbers are below; a mask of CPUs is one word. */
#define SHOOTDOWN_CPUS 64

enum shootdown_context {
    CONTEXT_PROGRAM, /* what CR3 holds, where that is not the kernel's table */
    CONTEXT_GUEST,   /* the EPT or nested table of the guest that ran last, or runs */
    CONTEXT_COUNT
};

struct shootdown_ops {
    unsigned (*self)(void);     /* the number of the CPU that this runs on */
    void (*send)(unsigned cpu); /* an NMI: that CPU is to call shootdown_answer() */
    void (*forget)(struct table *table, const struct flush_batch *batch); /* this CPU alone */
    uint64_t (*now)(void); /* ticks; called again and again while answers are missing */
    uint64_t resend;       /* ticks after which a CPU that has not answered is sent another NMI */
    uint64_t patience;     /* ticks after which a CPU that has not answered is missing */
    void (*missing)(unsigned cpu, const struct table *table); /* does not return */
};

/* What a CPU has had to do with flushes. Written by that CPU alone. */
struct shootdown_counters {
    uint64_t sent;     /* flushes that it had others take part in */
    uint64_t asked;    /* CPUs that it asked, all in all */
    uint64_t answered; /* flushes of others that it took part in */
    uint64_t late;     /* of these, answered at the end of a read */
    uint64_t missed;   /* tables that it published and of which it had missed a flush */
};

/* One CPU, ops->self(), is there from now on. Before it no flush goes to other CPUs. */
void shootdown_init(const struct shootdown_ops *ops);

/* This CPU takes part from now on; it has to forget everything next. And: no longer. */
void shootdown_join(void);
void shootdown_leave(void);

/* The number of this CPU; 0 before shootdown_init(). */
unsigned shootdown_self(void);

/* How many CPUs take part. */
unsigned shootdown_cpus(void);

/* Every CPU that may hold translations of `table` forgets what the batch names; this one, too. For
 * table_env.flush, with or without the table's lock. */
void shootdown_flush(struct table *table, const struct flush_batch *batch);

/* Returns when every other CPU has executed a full barrier since. For buddy_set_cpus(). */
void shootdown_fence(void);

/* By the CPU that the NMI has interrupted, with further NMIs blocked. */
void shootdown_answer(void);

/*
 * This CPU is about to use `table` (NULL: no longer any) as `context`. `seen` is where it keeps
 * what it knew of the table last, 0 at first: true when that is out of date, and it has to forget
 * all of the table's translations before it uses any. NULL where every load forgets anyway, as
 * CR3's does. Cheap for a table that is the context already.
 */
bool shootdown_load(enum shootdown_context context, struct table *table, uint64_t *seen);

/* Around reads without a lock. They nest. */
void shootdown_read_begin(void);
void shootdown_read_end(void);

struct shootdown_counters shootdown_counters_of(unsigned cpu);

#endif
