/*
 * What VMX keeps for each CPU, behind percpu.vmx; and the accessors of the exit path, for which a
 * VMCS that is not current is a bug of ours.
 */
#ifndef QUIRE_ARCH_VMX_CPU_H
#define QUIRE_ARCH_VMX_CPU_H

#include <stdbool.h>
#include <stdint.h>

#include "arch/x86_64/cpu.h"
#include "arch/x86_64/percpu.h"
#include "arch/x86_64/vmx/vmcs.h"
#include "lib/list.h"
#include "lib/panic.h"

struct vmx_cpu {
    bool on; /* in VMX root operation */
    hpa_t vmxon_region;
    bool has_current; /* a VMCS is current: `current` */
    hpa_t current;
    struct list active;         /* vCPUs whose VMCS is active on this CPU (25.1) */
    uint32_t instruction_error; /* of the last VMfailValid */

    struct descriptor_table gdt, idt; /* an exit leaves their limits at 0xffff (28.5.2) */

    bool lapic; /* the local APIC is ours: interrupts are to be ended there */
    uint64_t external_interrupts, nmis; /* taken as exits */
};

static inline struct vmx_cpu *vmx_cpu(void)
{
    return this_cpu()->vmx;
}

/* A field that is there, of the current VMCS: a panic for an error (ZF or CF, 31.2), which only a
 * fault of our own can be. Every exit reads some twenty, so this is one instruction and a branch.
 */
_Noreturn void vmcs_panic(const char *instruction, enum vmcs_field field);

static inline uint64_t vmread(enum vmcs_field field)
{
    uint64_t value;
    bool failed;

    __asm__ volatile("vmread %[field], %[value]"
                     : [value] "=r"(value), "=@ccbe"(failed)
                     : [field] "r"((uint64_t)field));
    if (__builtin_expect(failed, 0))
        vmcs_panic("VMREAD", field);
    return value;
}

static inline void vmwrite(enum vmcs_field field, uint64_t value)
{
    bool failed;

    __asm__ volatile("vmwrite %[value], %[field]"
                     : "=@ccbe"(failed)
                     : [value] "r"(value), [field] "r"((uint64_t)field)
                     : "memory");
    if (__builtin_expect(failed, 0))
        vmcs_panic("VMWRITE", field);
}

#endif
