/*
 * Guests on the machine's CPUs: whose turn it is on which of them, who may look at a guest, and how
 * all of them are made to stand still. docs/ARCHITECTURE.md, "Several CPUs".
 *
 * Everything in vm/ is under the guests' lock, which a CPU drops only while guest code runs on it;
 * first touches, between two entries, share it (vm/touch.h).
 * On a machine with one CPU there is no lock, and all that is here besides the rounds does nothing.
 */
#ifndef QUIRE_VM_SCHED_H
#define QUIRE_VM_SCHED_H

#include <stdbool.h>
#include <stdint.h>

struct guest;
struct guest_cpu;
struct vcpu;
struct wide_lock;

#define GUEST_CPUS 64

/* The machine's CPUs as far as guests are concerned, by number; 0 is the console's. Nothing but
 * relax() is called with the guests' lock dropped. */
struct guests_cpus {
    unsigned count;
    unsigned (*self)(void);
    /* Has a CPU that runs guest code leave it, and does no harm to one that does not. */
    void (*kick)(unsigned cpu);
    /* Has a CPU that halts call guests_run_here() again. */
    void (*wake)(unsigned cpu);
    void (*relax)(void); /* between two looks at what another CPU changes */
};

/* To be called once, by CPU 0, before any guest runs; it holds the guests' lock from then on. NULL:
 * there is one CPU. The others stand still until guests_go_on(). */
void guests_set_cpus(const struct guests_cpus *cpus);
unsigned guests_cpus(void);

/* What another CPU than 0 does while it has nothing else to do: a round of its guests. False: there
 * are none for it, and it has put all that it had; it may halt until wake(). */
bool guests_run_here(void);

/* On CPU 0: no guest is on another CPU, nor active there, until guests_go_on(). These nest. */
void guests_stop_others(void);
void guests_go_on(void);

/* CPU 0 lets others have the guests' lock; `idle`: it has nobody to run, and may wait a little. */
void guests_breathe(bool idle);

/* Another CPU is not to take this CPU's lock while it halts: around that. */
void guests_leave(void);
void guests_enter(void);

/* The vCPU that runs on a CPU, or did when it was stopped; NULL: nobody, or there is one CPU. */
struct guest_cpu *guests_turn(unsigned cpu);

/* The CPU in whose queue the vCPU is. */
unsigned sched_queue_of(const struct guest_cpu *cpu);

/* Something has come for the vCPU: where it runs on another CPU it is to look now. */
void guest_nudge(const struct guest_cpu *cpu);

/* Within vm/: puts the vCPU into a queue, the shortest, when its guest is made. */
void sched_choose_queue(struct guest_cpu *cpu);

/* ---- Within the scheduler ------------------------------------------------------------------- */

/* A guest of which somebody wants a turn. */
bool guest_wants_turn(const struct guest *guest);
/* A vCPU that wants a turn, and one that would use it. Of a guest that has ended the first does,
 * for what it gives back. */
bool cpu_wants_turn(const struct guest_cpu *cpu);
bool cpu_is_busy(const struct guest_cpu *cpu);

/* The number of the CPU that runs this. */
unsigned sched_self(void);
/* Is this CPU to end what it does, and to stand still? Never CPU 0. */
bool sched_stopping(void);
/* What is to be dropped while guest code runs; NULL: nothing. */
struct wide_lock *sched_lock(void);
/* To share it, from where it is dropped by this vCPU; what that waits counts as such. False:
 * somebody has it, or something has come for the vCPU that is out on this CPU (guest_nudge()) since
 * sched_heed(), or the CPU is to stand still: the last two are not waited with. */
bool sched_share(struct vcpu *vcpu);
void sched_unshare(void);
void sched_heed(void);
/* Whether something has; NULL: nothing does. */
const bool *sched_nudged(void);
/* The turn of a vCPU begins on this CPU. */
void sched_begin_turn(struct guest_cpu *cpu);
/* This CPU puts what it has; that only of a guest that has ended, for whoever finishes it. */
void sched_put(void);
void sched_let_go(void);
/* Has no other CPU anything of this guest? Those that do are brought out of guest code. Until then
 * nothing that is the guest's may be freed. */
bool sched_alone(const struct guest *guest);
/* One round of this CPU's queue: of each guest one vCPU. How many turns were taken by those that
 * used them. */
unsigned sched_round(unsigned cpu);

#endif
