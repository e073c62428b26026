/*
 * The registers that say how this CPU runs, as they stand now, for those who show them.
 */
#ifndef QUIRE_ARCH_CPU_STATE_H
#define QUIRE_ARCH_CPU_STATE_H

#include <stdint.h>

struct cpu_state {
    uint64_t cr0, cr3, cr4, efer;
};

void cpu_state_read(struct cpu_state *out);

/* The number of the CPU that this runs on; 0 is the one that booted. */
unsigned cpu_number(void);

#endif
