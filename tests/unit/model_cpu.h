/*
 * The CPU that hosted tests play, for sources that use privileged instructions. The Makefile has
 * this file included before each of them (UNIT_name_MODEL in tests.mk), which are compiled
 * unchanged otherwise: what C cannot say becomes a call of a function here.
 *
 *   model_cpu.c   registers, MSRs, the local APIC, what stays in the CPU between exits
 *   model_tlb.c   what it has cached of page tables, and what its instructions drop of that
 *   model_vmx.c   VMX: instructions, VMCSs, the checks of an entry
 *   model_svm.c   SVM: VMRUN with its checks
 */
#ifndef QUIRE_TESTS_UNIT_MODEL_CPU_H
#define QUIRE_TESTS_UNIT_MODEL_CPU_H

#include <stdbool.h>
#include <stdint.h>

#include "arch/x86_64/cpu.h"
#include "arch/x86_64/percpu.h"
#include "arch/x86_64/vmx/instructions.h"

#define MODEL_LAPIC_ID 5

struct model_cpu {
    uint64_t cr0, cr2, cr3, cr4, dr6, dr7, xcr0, tsc;
    uint64_t dr[4];
    struct descriptor_table gdt, idt;
    struct percpu percpu;
    bool lapic;              /* there is one */
    unsigned ended;          /* interrupts, at the local APIC */
    uint32_t timer;          /* its ticks left; 0: masked */
    bool timer_repeats;      /* ... and then it begins anew */
    uint8_t sent_itself;     /* the vector; 0: none */
    unsigned windows;        /* how often interrupts were opened */
    unsigned nmi_unblocked;  /* how often NMIs were */
    const void *resident;    /* whose registers are in the CPU */
    unsigned resident_drops; /* vCPUs that have gone */
};
extern struct model_cpu model_cpu;

/* After a boot: long mode, what cpu_features says. The TLB is empty. */
void model_cpu_start(void);

/* A register that MSRs are, for a test; NULL where there is none. */
uint64_t *model_msr(uint32_t index);
/* Answers to CPUID, by leaf; 0 where the test has set none. */
void model_set_cpuid(uint32_t leaf, const uint32_t out[4]);

/* What the CPU would raise here; ends the test. */
_Noreturn void model_fault(const char *what);

#define MODEL_REGISTER(name)                                                                       \
    uint64_t model_read_##name(void);                                                              \
    void model_write_##name(uint64_t value);
MODEL_REGISTER(cr0)
MODEL_REGISTER(cr2)
MODEL_REGISTER(cr3)
MODEL_REGISTER(cr4)
MODEL_REGISTER(dr6)
MODEL_REGISTER(dr7)
#undef MODEL_REGISTER
void model_cpuid(uint32_t leaf, uint32_t sub, uint32_t out[4]);
uint64_t model_rdmsr(uint32_t index);
void model_wrmsr(uint32_t index, uint64_t value);
uint64_t model_rdtsc(void);
uint64_t model_xgetbv(uint32_t index);
void model_xsetbv(uint32_t index, uint64_t value);
void model_lgdt(const struct descriptor_table *table);
void model_lidt(const struct descriptor_table *table);
struct descriptor_table model_sgdt(void);
struct descriptor_table model_sidt(void);
void model_open_interrupts(void);
void model_clear_gif(void);
struct percpu *model_this_cpu(void);
void model_invlpg(uint64_t address);
void model_invpcid(enum invpcid_type type, uint16_t pcid, uint64_t address);
struct vm_flags model_vmread(uint64_t field, uint64_t *value);
struct vm_flags model_vmwrite(uint64_t field, uint64_t value);
struct vm_flags model_vmptrld(uint64_t region);
struct vm_flags model_vmclear(uint64_t region);
struct vm_flags model_vmxon(uint64_t region);
struct vm_flags model_invept(uint64_t type, uint64_t low, uint64_t high);
struct vm_flags model_invvpid(uint64_t type, uint64_t low, uint64_t high);

#ifndef MODEL_ITSELF
#define read_cr0 model_read_cr0
#define write_cr0 model_write_cr0
#define read_cr2 model_read_cr2
#define write_cr2 model_write_cr2
#define read_cr3 model_read_cr3
#define write_cr3 model_write_cr3
#define read_cr4 model_read_cr4
#define write_cr4 model_write_cr4
#define read_dr6 model_read_dr6
#define write_dr6 model_write_dr6
#define read_dr7 model_read_dr7
#define write_dr7 model_write_dr7
#define cpuid(leaf, sub, out) model_cpuid(leaf, sub, out)
#define rdmsr model_rdmsr
#define wrmsr model_wrmsr
#define rdtsc model_rdtsc
#define xgetbv model_xgetbv
#define xsetbv model_xsetbv
#define lgdt model_lgdt
#define lidt model_lidt
#define sgdt model_sgdt
#define sidt model_sidt
#define open_interrupts model_open_interrupts
#define clear_gif model_clear_gif
#define this_cpu model_this_cpu
#define invlpg model_invlpg
#define invpcid(type, pcid, at) model_invpcid(type, pcid, at)
#define insn_vmread model_vmread
#define insn_vmwrite model_vmwrite
#define insn_vmptrld model_vmptrld
#define insn_vmclear model_vmclear
#define insn_vmxon model_vmxon
#define insn_invept model_invept
#define insn_invvpid model_invvpid
#include "arch/x86_64/vmx/vmx_cpu.h"
uint64_t model_vmread_whole(enum vmcs_field field);
void model_vmwrite_whole(enum vmcs_field field, uint64_t value);
#define vmread model_vmread_whole
#define vmwrite model_vmwrite_whole
#endif

#endif
