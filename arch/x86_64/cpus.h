/*
 * The machine's CPUs: starting those beside the one that booted, what each of them is doing, giving
 * them something to do, and stopping them.
 *
 * A CPU that has been started does what cpus_set_idle_work() says, or halts until there is work for
 * it (VECTOR_WAKE) or a flush that it has to take part in (an NMI, arch/x86_64/mm/shootdown.h).
 */
#ifndef QUIRE_ARCH_CPUS_H
#define QUIRE_ARCH_CPUS_H

#include <stdbool.h>
#include <stdint.h>

#include "arch/x86_64/mm/shootdown.h"
#include "arch/x86_64/mm/tlb.h"
#include "arch/x86_64/percpu.h"
#include "mm/addr.h"

#define CPUS_MOST SHOOTDOWN_CPUS

enum cpu_status {
    CPU_ONLINE,
    CPU_OFF,     /* the firmware has not enabled it */
    CPU_SILENT,  /* it did not answer the start-up IPIs */
    CPU_REFUSED, /* it came, and is not like the one that booted */
    CPU_NO_ROOM, /* no memory for its structures, or one too many */
};
const char *cpu_status_name(enum cpu_status status);

/* A CPU that the firmware tells of. */
struct cpu_candidate {
    uint32_t apic_id;
    bool enabled;
};

#define CPU_WHY 120

/* What is different about virtualisation on this CPU than on the first: E_OK and VMX or SVM is on,
 * or an error with the reason in words in why[CPU_WHY]. */
typedef int (*cpu_enable_fn)(char *why);

/*
 * Starts each candidate that is enabled and is not the CPU that this runs on, one after the other.
 * `page` is a page of RAM below 1 MiB, for the trampoline; it has its contents back afterwards.
 * `enable` (may be NULL) is called on each. Returns how many CPUs run now. To be called once, on
 * the CPU that booted, before anything has been published to shootdown_load().
 */
unsigned cpus_start(const struct cpu_candidate *candidates, unsigned count, hpa_t page,
                    cpu_enable_fn enable);

struct cpu_info {
    enum cpu_status status;
    unsigned number; /* of one that is online; 0 is the one that booted */
    uint32_t apic_id;
    const char *doing;
    char why[CPU_WHY]; /* it is not online, in words; "" otherwise */
    uint64_t nmis, wakes;
    struct shootdown_counters flushes;
    struct tlb_counters tlb;
};

/* The CPUs that are known of, from 0; false beyond the last. Number 0 is the one that booted. */
bool cpus_info(unsigned index, struct cpu_info *out);

/* What each CPU but the one that booted does while it has no other work, with interrupts masked. To
 * be called again at once if it says true; otherwise the CPU halts until work comes, or
 * cpus_wake(). To be set once, in good time. */
void cpus_set_idle_work(bool (*work)(void));
void cpus_wake(unsigned number);

/* Has a CPU leave the guest that it runs, by an NMI; nothing else comes of it. */
void cpus_kick(unsigned number);

/* The CPU that runs this. */
unsigned cpus_self(void);

/* How many are online: numbers 0 up to one less. */
unsigned cpus_online(void);

/*
 * Where a CPU is, asked by an NMI that changes nothing of what it does; of the CPU that runs this,
 * the calls that lead here. By one CPU at a time. E_NOENT: no such CPU is online; E_HARDWARE: it
 * has not answered within 2^30 ticks.
 */
int cpus_place(unsigned number, struct cpu_place *out);

/*
 * Has another CPU run fn(argument) as soon as it is idle. `what` says for people what that is.
 * E_NOENT: no such CPU is online, or it is this one; E_STATE: it has something to do already.
 * cpus_done() is true once it has come back from it; all that it stored is visible then.
 */
int cpus_run(unsigned number, const char *what, void (*fn)(void *argument), void *argument);
bool cpus_done(unsigned number);

#endif
