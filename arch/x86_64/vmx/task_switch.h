/*
 * A task switch in progress, as task_switch.c (the steps) and task_segments.c (descriptors, and the
 * CPU's own accesses to its tables) share it. Internal to these two.
 */
#ifndef QUIRE_ARCH_VMX_TASK_SWITCH_H
#define QUIRE_ARCH_VMX_TASK_SWITCH_H

#include "arch/x86_64/vmx/exits.h"
#include "arch/x86_64/vmx/state.h"

enum task_source { TASK_CALL, TASK_IRET, TASK_JMP, TASK_GATE };

#define SELECTOR_LDT BIT(2) /* TI */
#define SELECTOR_RPL BITS(1, 0)

/* Figure 8-2 and 8-10: where both formats keep what is switched. */
struct tss_layout {
    uint8_t word; /* bytes of a register */
    uint8_t cr3, ip, flags, gpr, segment, ldt, trap;
    uint8_t segments; /* ES CS SS DS, and FS GS in the larger one */
    uint8_t limit;
};
#define TSS_MAX 0x68

/* One switch in progress. A step that fails has raised an exception, or told in `exit`. */
struct task_switch {
    struct vmx_vcpu *v;
    struct vm_exit *exit;
    struct operand_cpu cpu;
    enum task_source source;
    uint16_t selector; /* of the new TSS */
    uint64_t descriptor;
    const struct tss_layout *from, *to;
    uint8_t old[TSS_MAX], new[TSS_MAX];
    uint32_t vectoring; /* the event that came through a task gate, or 0 */
    uint32_t external;  /* bit 0 of error codes */
    bool committed;     /* the new task's registers are loaded */
};

/* Each of these is false when the switch ends there. */

/* Raises an exception of the switch: its error code is a selector. */
bool task_fails(struct task_switch *s, uint8_t vector, uint16_t selector);
/* The supervisor's accesses to tables, in words. `from` NULL: only that it can be written. */
bool task_read(struct task_switch *s, uint64_t at, void *to, unsigned size);
bool task_write(struct task_switch *s, uint64_t at, const void *from, unsigned size);
/* One access of up to 8 bytes as the operand says. */
bool task_access(struct task_switch *s, const struct operand *operand, void *to, const void *from);
/* A segment register or LDTR from its descriptor, with the checks of a task switch (table 8-1). */
bool task_load_segment(struct task_switch *s, unsigned index, uint16_t selector, unsigned cpl);
bool task_load_ldt(struct task_switch *s, uint16_t selector);

void task_set_hidden(unsigned index, uint16_t selector, uint64_t descriptor);
void task_set_v86(unsigned index, uint16_t selector);
/* Where a selector's descriptor lies; false where there is none. */
bool task_descriptor_place(uint16_t selector, uint64_t *at);

static inline uint64_t descriptor_base(uint64_t d)
{
    return (d >> 16 & BITS(23, 0)) | (d >> 32 & BITS(31, 24));
}

static inline uint16_t descriptor_access(uint64_t d)
{
    return (uint16_t)(d >> 40 & 0xf0ff);
}

static inline uint32_t descriptor_limit(uint64_t d)
{
    uint32_t limit = (uint32_t)((d & 0xffff) | (d >> 32 & 0xf0000));

    return descriptor_access(d) & ACCESS_GRANULARITY ? limit << 12 | 0xfff : limit;
}

#endif
