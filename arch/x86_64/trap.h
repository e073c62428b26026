/*
 * Exceptions: entry, dispatch, report. The hypervisor runs with external interrupts masked, so a
 * trap is one of four things: a fault of a ring-3 program (offered to its owner), an instruction
 * that was allowed to fail (rdmsr_safe), an NMI, or a bug of ours, which is reported in full and
 * ends the machine.
 */
#ifndef QUIRE_ARCH_TRAP_H
#define QUIRE_ARCH_TRAP_H

#include <stdbool.h>
#include <stdint.h>

#include "lib/format.h"
#include "mm/paging/table.h"

/* As trap_entry.asm stores it, lowest address first. */
struct trap_frame {
    uint64_t r15, r14, r13, r12, r11, r10, r9, r8, rdi, rsi, rbp, rbx, rdx, rcx, rax;
    uint64_t vector, error; /* error: 0 where the exception has none */
    uint64_t rip, cs, rflags, rsp, ss;
};

static inline bool trap_from_user(const struct trap_frame *frame)
{
    return (frame->cs & 3) == 3;
}

/* All 32 exceptions on the current stack, from the first lines of C on. percpu_install_boot()
 * first. */
void traps_init_early(void);

/* Gives double fault, NMI, machine check and debug their own guarded stacks on this CPU, the first,
 * and has the gates use them. E_NOMEM. */
int traps_init(void);

/* For another CPU: its stacks, before it starts; and on it, descriptor tables, after
 * percpu_install(). */
struct percpu;
int traps_give_stacks(struct percpu *cpu);
void traps_load(void);

/*
 * Where there are several CPUs (cpus.h). The first is called by each NMI, in host mode and out of a
 * guest (then with NULL), with further ones blocked. The second before a report that ends the
 * machine: no other CPU goes on, and each says where it was. The third behind the report: who had
 * called whom on each of them.
 */
extern void (*cpus_nmi)(const struct trap_frame *frame);
extern void (*cpus_stop_others)(struct sink *to);
extern void (*cpus_show_others)(struct sink *to);

/* Has `entry` (an assembly routine that ends in IRETQ) take a vector from 32 up, on the stack that
 * a trap of that ring starts on; ring 3 may raise it by INT n if `from_ring3`. For every CPU. */
void trap_set_gate(uint8_t vector, void (*entry)(void), bool from_ring3);

/*
 * Offered every exception of ring 3 before it is judged. True: dealt with; the frame (which the
 * hook may have changed) is returned to. False: reported as the hypervisor's own.
 */
extern bool (*trap_user_hook)(struct trap_frame *frame);

/*
 * Offered every exception of ring 0 but NMI, double fault and machine check, while the oracle
 * (arch/x86_64/oracle/) has the CPU make accesses that may fault; NULL at all other times. True:
 * the frame, changed by the hook, is returned to.
 */
extern bool (*trap_probe_hook)(struct trap_frame *frame);

/* E_UNSUPPORTED when the CPU answers with a general-protection exception. */
int rdmsr_safe(uint32_t index, uint64_t *out);
int wrmsr_safe(uint32_t index, uint64_t value);

/* "#PF page fault". NULL for a vector the manual reserves. */
const char *trap_name(uint64_t vector);

/* The pieces of a report, for others who have one to write (a ring-3 program that was stopped). */
void trap_show_registers(struct sink *to, const struct trap_frame *frame);
void trap_show_backtrace(struct sink *to, uint64_t rip, uint64_t rbp); /* of this CPU */
struct call_chain;
void trap_show_chain(struct sink *to, const struct call_chain *chain);
/* The walk of a linear address through the kernel's table, level by level. */
void trap_show_walk(struct sink *to, uint64_t address);
/* The same through any table. */
void trap_show_walk_in(struct sink *to, struct table *table, uint64_t address);

/* Registers, backtrace and (of a page or double fault) the walk of CR2. */
void trap_report(struct sink *to, const struct trap_frame *frame);

#endif
