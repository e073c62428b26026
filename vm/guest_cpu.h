/*
 * A virtual CPU of a guest, as vm/ has it: what the backend runs (struct vcpu), whether it waits
 * and for what, and its place among those who want the machine's CPUs. Its local APIC is among the
 * guest's devices (vm/devices.h), by the same number.
 *
 * A guest has cpu[0] to cpu[cpus - 1], all by one second-level table. Whatever in vm/ is done for
 * one of them speaks of the guest and means the one that is dealt with: `guest->now`, whose struct
 * vcpu is `guest->vcpu`. All of vm/ runs under the guests' lock, so that there is one such a guest.
 * guest_deal_with() alone changes it: when a turn begins; right behind each run(), during which
 * another CPU may have dealt with another; where one is meant that is named, such as an interrupt's
 * destination, and then back.
 */
#ifndef QUIRE_VM_GUEST_CPU_H
#define QUIRE_VM_GUEST_CPU_H

#include <stdbool.h>
#include <stdint.h>

#include "vm/devices.h"
#include "vm/share.h"

struct guest;
struct table;
struct vcpu;

/* QUIRE_HC_EXPECT_FAULT; size 0: none expected. */
struct expected_fault {
    uint64_t base, size, resume;
};

/* What a snapshot or a fork takes of it beside its registers. */
struct cpu_condition {
    bool halted; /* executed HLT and nothing has woken it ... */
    bool deaf;   /* ... and its interrupts are closed, so that only an NMI or INIT will */
    bool waits;  /* for a start-up IPI: it executes nothing (vm/startup.h) */
    bool init;   /* an INIT has come, and then ... */
    bool sipi;   /* ... a start-up IPI, with this vector; neither is taken yet */
    uint8_t vector;
    struct expected_fault expect_fault;
};

struct guest_cpu {
    struct guest *guest;
    unsigned index; /* its number, and its local APIC's ID after a reset */
    struct vcpu *vcpu;
    struct cpu_condition is;

    uint64_t
        quiet_until; /* clock before which nothing can come for it, if nobody touches a device */
    struct {         /* a fault that the table does not explain, and how often */
        uint64_t gpa, rip, generation;
        unsigned count;
    } spurious;
    bool clock_told; /* the backend knows where the guest's clock stands */

    unsigned queue;     /* the CPU in whose queue it is, if the guest is not pinned (vm/sched.h) */
    uint64_t moves;     /* to other queues */
    uint64_t ticks;     /* TSC ticks that it has had: inside, and at its exits */
    struct share share; /* its debt is kept over the guest's lives */
};

/* ---- Within vm/ ------------------------------------------------------------------------------ */

/* As many as the guest has, by some table; or none, and the error: E_NOMEM, E_QUOTA, E_FULL. */
int vcpus_create(struct guest *guest, struct table *table, struct vcpu *to[GUEST_VCPUS]);
void vcpus_destroy(struct vcpu *of[GUEST_VCPUS]);

/* The guest's own, by its table; cpu[0] is dealt with then. Those that run have to be put before
 * they are destroyed (sched_alone()). */
int guest_cpus_create(struct guest *guest);
/* Why that failed becomes the guest's reason. */
void guest_cpus_refused(struct guest *guest, int error);
void guest_cpus_destroy(struct guest *guest);

/* How many it has, 1 to GUEST_VCPUS: each that is new gets into a queue. */
void guest_cpus_count(struct guest *guest, unsigned cpus);
/* What a new life does not inherit from the last one. */
void guest_cpus_reset(struct guest *guest);

#endif
