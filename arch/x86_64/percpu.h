/*
 * What each CPU has for itself. In ring 0 the base of GS points at it, so that there is no global
 * for "the current" anything; in ring 3 it waits in IA32_KERNEL_GS_BASE (SWAPGS).
 */
#ifndef QUIRE_ARCH_PERCPU_H
#define QUIRE_ARCH_PERCPU_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "arch/x86_64/call_chain.h"
#include "arch/x86_64/descriptors.h"
#include "lib/lock.h"
#include "mm/addr.h"

/* Offsets for NASM code, held to the structure by assertions below. */
#define PERCPU_SELF 0
#define PERCPU_KERNEL_RSP 8
#define PERCPU_USER_RSP 16

/* The stacks that a CPU may be on. A report follows frame pointers inside these and no others. */
enum cpu_stack {
    STACK_BOOT, /* the first one, inside the image */
    STACK_MAIN,
    STACK_DOUBLE_FAULT,
    STACK_NMI,
    STACK_MACHINE_CHECK,
    STACK_DEBUG,
    STACK_USER_ENTRY, /* for traps from ring 3, where that is not the main one */
    STACK_COUNT
};

/* Where a CPU was when an NMI asked it (cpus.h). */
struct cpu_place {
    bool in_guest; /* or on the way in or out; the calls are those that lead there */
    struct call_chain chain;
};

struct vmx_cpu;  /* arch/x86_64/vmx/ */
struct user_run; /* arch/x86_64/user.c */

struct percpu {
    struct percpu *self;
    uint64_t kernel_rsp; /* SYSCALL entry: where the kernel's stack starts */
    uint64_t user_rsp;   /* SYSCALL entry: scratch */
    unsigned number;     /* 0 is the CPU that booted */
    struct stack_range stack[STACK_COUNT];
    unsigned reporting; /* reports begun and not ended: a trap while reporting sees 1 */
    uint64_t nmis;      /* taken in host mode */
    bool in_guest;      /* a backend is about to enter one, or has an exit's NMI to take */
    /* Has the entry that `in_guest` tells of come out at once, for an NMI that came before it.
     * NULL: none does. */
    void (*cut_slice)(void);
    /* How often others have asked where it is, and of these the last that `place` answers. */
    uint64_t place_asked, place_told;
    struct cpu_place place;
    struct locks_held locks; /* in builds that check their order */
    struct user_run *user;
    struct vmx_cpu *vmx;
    hpa_t svm_host_save, svm_host_vmcb; /* arch/x86_64/svm/: 0 where that is not on */
    /* Takes a guest's registers that stayed on this CPU off it, before ring 3 can see or lose them.
     * NULL: there are none. */
    void (*put_guest)(void);
    uint64_t gdt[GDT_ENTRIES] __attribute__((aligned(16)));
    struct tss tss __attribute__((aligned(16)));
};

_Static_assert(offsetof(struct percpu, self) == PERCPU_SELF, "NASM offset");
_Static_assert(offsetof(struct percpu, kernel_rsp) == PERCPU_KERNEL_RSP, "NASM offset");
_Static_assert(offsetof(struct percpu, user_rsp) == PERCPU_USER_RSP, "NASM offset");

static inline struct percpu *this_cpu(void)
{
    struct percpu *cpu;
    __asm__ volatile("mov %%gs:0, %0" : "=r"(cpu));
    return cpu;
}

/* Makes `cpu` (zeroed) the structure of the CPU that runs this. */
void percpu_install(struct percpu *cpu, unsigned number);

/* The same with the static structure of the CPU that booted. */
void percpu_install_boot(void);

extern const char *const cpu_stack_names[STACK_COUNT];

#endif
