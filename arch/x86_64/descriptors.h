/*
 * Segment descriptors: one GDT and one TSS for each CPU, in its struct percpu.
 *
 *   0x08 kernel code   0x10 kernel data   0x18 user data   0x20 user code   0x28 TSS (16 bytes)
 *
 * The order is the one that SYSCALL and SYSRET assume (SDM Vol. 2, "SYSCALL", "SYSRET"):
 * STAR[47:32] = SELECTOR_KERNEL_CODE, STAR[63:48] = SELECTOR_USER_BASE.
 */
#ifndef QUIRE_ARCH_DESCRIPTORS_H
#define QUIRE_ARCH_DESCRIPTORS_H

#include <stdint.h>

#define SELECTOR_KERNEL_CODE 0x08
#define SELECTOR_KERNEL_DATA 0x10
#define SELECTOR_USER_BASE (0x10 | 3) /* SYSRET: SS is this + 8, 64-bit CS this + 16 */
#define SELECTOR_USER_DATA (0x18 | 3)
#define SELECTOR_USER_CODE (0x20 | 3)
#define SELECTOR_TSS 0x28
#define GDT_ENTRIES 7

/* Interrupt stack table slots, as IDT gates number them; 0 means: stay on the current stack. */
enum ist { IST_NONE, IST_DOUBLE_FAULT, IST_NMI, IST_MACHINE_CHECK, IST_DEBUG, IST_COUNT };

/* SDM Vol. 3, 7.7 "Task management in 64-bit mode". */
struct __attribute__((packed)) tss {
    uint32_t reserved0;
    uint64_t rsp[3];
    uint64_t reserved1;
    uint64_t ist[7]; /* slot n of enum ist is ist[n - 1] */
    uint64_t reserved2;
    uint16_t reserved3;
    uint16_t io_map_base;
};

struct percpu;

/* Fills the GDT and TSS of `cpu` and loads them on the CPU that runs this. IST slots are empty. */
void descriptors_load(struct percpu *cpu);

/* The stack that a trap or interrupt from ring 3 starts on. */
void tss_set_rsp0(uint64_t top);

#endif
