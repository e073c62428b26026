/* What cpus.c and cpus_start.c share. */
#ifndef QUIRE_ARCH_CPUS_INTERNAL_H
#define QUIRE_ARCH_CPUS_INTERNAL_H

#include "arch/x86_64/cpus.h"
#include "arch/x86_64/percpu.h"
#include "lib/error.h"
#include "lib/format.h"
#include "lib/string.h"

struct cpu_entry {
    enum cpu_status status;
    unsigned number;
    uint32_t apic_id;
    struct percpu *percpu;
    char why[CPU_WHY];
    /* What it is to do: NULL in `what` is nothing, and everything else is the giver's until `what`
     * is stored, the CPU's own until it is NULL again. */
    const char *what;
    void (*fn)(void *argument);
    void *argument;
    uint64_t wakes;
    bool stopped; /* another CPU reports the end; where it was is its percpu->place */
};

struct cpus {
    struct cpu_entry entry[CPUS_MOST];
    unsigned count;                         /* entries in use; the first is the CPU that booted */
    unsigned online;                        /* CPUs that run, numbered from 0 */
    struct cpu_entry *by_number[CPUS_MOST]; /* those, and one that is being started */
};
extern struct cpus cpus;

extern const struct shootdown_ops cpus_shootdown_ops;

_Noreturn void cpus_idle(struct cpu_entry *self);
struct trap_frame;
void cpus_take_nmi(const struct trap_frame *frame);
void cpus_stop_all_others(struct sink *to);
void cpus_show_all_others(struct sink *to);

#endif
