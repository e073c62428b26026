/*
 * A machine for hosted tests of vm/: a small physical memory with the real buddy on it, and a
 * backend whose "CPU" is a function of the test's: it looks at the registers and says which exit
 * comes next.
 */
#ifndef QUIRE_TESTS_UNIT_FAKE_MACHINE_H
#define QUIRE_TESTS_UNIT_FAKE_MACHINE_H

#include <stdint.h>

#include "vm/backend.h"
#include "vm/guest.h"

struct fake_vcpu {
    struct vcpu vcpu; /* first: the backend converts between the two */
    struct vcpu_state state;
    struct vcpu_rest rest;
    struct vm_event event; /* the last one that was injected ... */
    unsigned events;       /* ... and how many there were */
    bool halted, window;
    uint64_t clock;   /* offset of its TSC */
    unsigned retries; /* how often an instruction was to be run again */
    unsigned logged;  /* pages in its log of dirty pages */
    bool logs;
    gpa_t log[512];
    uint32_t noted;  /* where the last access to a port ended */
    unsigned inside; /* for a test: how many CPUs run it */
    unsigned active; /* 1 + the number of the CPU that has it; 0: none */
};

/* The CPU that this is; NULL: 0 is the only one. */
extern unsigned (*machine_self)(void);

/* How often a CPU has touched a vCPU that was active on another one; atomic. */
extern uint64_t machine_stolen;

/* Memory faults that were dealt with before the guests' lock was taken; atomic. */
extern uint64_t machine_touches;

/* The CPU: fills *exit. Without one (NULL) every run ends with its slice. */
extern void (*machine_cpu)(struct fake_vcpu *vcpu, struct vm_exit *exit);

/* What the CPU offers for guests' tables; machine_start() sets all that there is. */
extern struct table_caps machine_caps;

/* The CPU's answers to CPUID; after machine_start() all zeroes. */
extern void (*machine_cpuid)(uint32_t leaf, uint32_t subleaf, uint32_t out[4]);

/* The base of every segment. Linear addresses are physical ones, except that those from here on are
 * mapped nowhere, and that those from there on cannot be written. */
extern uint64_t machine_base, machine_unmapped, machine_read_only;

/* The XSAVE components that guests may have; machine_start() sets none. */
extern uint64_t machine_xcr0_mask;

/* Does the CPU keep a log of dirty pages? After machine_start() it does not. */
extern bool machine_logs;

/* What vcpu_create answers from now on; E_OK: it works. */
extern int machine_vcpu_error;

extern const struct vm_backend machine_backend;

/* A fresh memory of `bytes`, all free, and what was logged forgotten. */
void machine_start(uint64_t bytes);
void machine_stop(void);

uint64_t machine_free_frames(void);

/* Lets time pass: ticks of its clock, which besides goes on by 1000 each time that it is read. */
void machine_pass(uint64_t ticks);

/* Everything that was logged since machine_start(), lines ended by "\n". */
const char *machine_log(void);
void machine_forget_log(void);

static inline struct fake_vcpu *fake_of(const struct guest *guest)
{
    return (struct fake_vcpu *)guest->vcpu;
}

#endif
