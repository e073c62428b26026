/* See trial.h: every CPU maps, writes, reads and unmaps a page of its own in one table. Each waits
 * for the table's lock while others, that hold it or have just dropped it, wait for its answer. */
#include "arch/x86_64/oracle/trial_internal.h"

#include "arch/x86_64/cpu.h"
#include "arch/x86_64/mm/kernel.h"
#include "arch/x86_64/mm/layout.h"
#include "arch/x86_64/mm/space_map.h"
#include "lib/error.h"
#include "mm/frames/buddy.h"

struct writer {
    unsigned cpu;
    uint64_t rounds, done, wrong;
    int error;
};

static int write_once(struct writer *writer)
{
    /* Neighbours share nodes, which come and go. */
    hva_t at = hva(TRIAL_KERNEL_AT + (uint64_t)writer->cpu * PAGE_SIZE);
    volatile uint64_t *mapped = (volatile uint64_t *)(uintptr_t)at.v;
    uint64_t value = (uint64_t)writer->cpu << 32 | writer->done;
    hpa_t frame;
    int error = buddy_alloc(0, PURPOSE_TEST, OWNER_HOST, &frame);

    if (error != E_OK)
        return error;
    volatile uint64_t *there = direct(frame);
    *there = 0;
    error = space_map(&kernel_table, at, frame, PAGE_SIZE, RIGHT_RW, MEM_WB);
    if (error == E_OK) {
        *mapped = value;
        writer->wrong += *there != value || *mapped != value;
        error = space_unmap(&kernel_table, at, PAGE_SIZE);
    }
    int freed = buddy_free(frame, 0, OWNER_HOST);
    return error == E_OK ? freed : error;
}

static void write_on(void *argument)
{
    struct writer *writer = argument;

    while (writer->done < writer->rounds && writer->error == E_OK) {
        writer->error = write_once(writer);
        writer->done++;
    }
}

int trial_writers(uint64_t rounds, struct trial_counts *counts)
{
    static struct writer writers[CPUS_MOST];
    unsigned all = cpus_online();
    uint64_t start = rdtsc();
    int error = E_OK;

    for (unsigned i = 0; i < all; i++) {
        writers[i] = (struct writer){.cpu = i, .rounds = rounds};
        counts->asked -= shootdown_counters_of(i).answered;
    }
    for (unsigned i = 1; i < all && error == E_OK; i++)
        error = cpus_run(i, "trial of writers", write_on, &writers[i]);
    write_on(&writers[0]);
    for (unsigned i = 1; i < all; i++)
        while (!cpus_done(i))
            cpu_pause();
    for (unsigned i = 0; i < all; i++) {
        counts->changes += writers[i].done;
        counts->reads += writers[i].done;
        counts->stale += writers[i].wrong;
        counts->asked += shootdown_counters_of(i).answered;
        error = error == E_OK ? writers[i].error : error;
    }
    counts->users = all - 1;
    counts->ticks = counts->changes ? (rdtsc() - start) / counts->changes : 0;
    return error;
}
