/*
 * What C cannot say: the instructions that read and change the CPU's own state, and what this CPU
 * offers. One detection at boot fills cpu_features; everybody else asks that.
 */
#ifndef QUIRE_ARCH_CPU_H
#define QUIRE_ARCH_CPU_H

#include <stdbool.h>
#include <stdint.h>

#include "x86/control.h"
#include "x86/msr.h"

/* What the hypervisor has in IA32_PAT. Entries 0..3 are those of reset, so that tables made before
 * it is written keep their meaning. The index that selects an entry is PAT:PCD:PWT of the
 * page-table leaf. */
#define PAT_HOST                                                                                   \
    (PAT_ENTRY(0, PAT_WB) | PAT_ENTRY(1, PAT_WT) | PAT_ENTRY(2, PAT_UC_MINUS) |                    \
     PAT_ENTRY(3, PAT_UC) | PAT_ENTRY(4, PAT_WC) | PAT_ENTRY(5, PAT_WP) |                          \
     PAT_ENTRY(6, PAT_UC_MINUS) | PAT_ENTRY(7, PAT_UC))

enum cpuid_register { CPUID_EAX, CPUID_EBX, CPUID_ECX, CPUID_EDX };

static inline void cpuid(uint32_t leaf, uint32_t sub, uint32_t out[4])
{
    __asm__ volatile("cpuid"
                     : "=a"(out[CPUID_EAX]), "=b"(out[CPUID_EBX]), "=c"(out[CPUID_ECX]),
                       "=d"(out[CPUID_EDX])
                     : "a"(leaf), "c"(sub));
}

/* For registers that are known to exist; see rdmsr_safe() in trap.h for the others. */
static inline uint64_t rdmsr(uint32_t index)
{
    uint32_t low, high;
    __asm__ volatile("rdmsr" : "=a"(low), "=d"(high) : "c"(index) : "memory");
    return (uint64_t)high << 32 | low;
}

static inline void wrmsr(uint32_t index, uint64_t value)
{
    __asm__ volatile("wrmsr"
                     :
                     : "c"(index), "a"((uint32_t)value), "d"((uint32_t)(value >> 32))
                     : "memory");
}

#define CONTROL_REGISTER(name)                                                                     \
    static inline uint64_t read_##name(void)                                                       \
    {                                                                                              \
        uint64_t value;                                                                            \
        __asm__ volatile("mov %%" #name ", %0" : "=r"(value) : : "memory");                        \
        return value;                                                                              \
    }                                                                                              \
    static inline void write_##name(uint64_t value)                                                \
    {                                                                                              \
        __asm__ volatile("mov %0, %%" #name : : "r"(value) : "memory");                            \
    }
CONTROL_REGISTER(cr0)
CONTROL_REGISTER(cr2)
CONTROL_REGISTER(cr3)
CONTROL_REGISTER(cr4)
CONTROL_REGISTER(dr6)
CONTROL_REGISTER(dr7)
#undef CONTROL_REGISTER

static inline void invlpg(uint64_t address)
{
    __asm__ volatile("invlpg (%0)" : : "r"(address) : "memory");
}

/* SDM Vol. 2, "INVPCID". Only where cpu_features.invpcid. */
enum invpcid_type {
    INVPCID_ADDRESS = 0,
    INVPCID_SINGLE = 1,
    INVPCID_ALL_GLOBAL = 2, /* every PCID, global translations too */
    INVPCID_ALL = 3,        /* every PCID, but not global translations */
};
static inline void invpcid(enum invpcid_type type, uint16_t pcid, uint64_t address)
{
    struct {
        uint64_t pcid, address;
    } descriptor = {pcid, address};
    __asm__ volatile("invpcid %0, %1" : : "m"(descriptor), "r"((uint64_t)type) : "memory");
}

static inline uint64_t rdtsc(void)
{
    uint32_t low, high;
    __asm__ volatile("rdtsc" : "=a"(low), "=d"(high));
    return (uint64_t)high << 32 | low;
}

#define PORT_ACCESS(suffix, type)                                                                  \
    static inline type in##suffix(uint16_t port)                                                   \
    {                                                                                              \
        type value;                                                                                \
        __asm__ volatile("in" #suffix " %1, %0" : "=a"(value) : "Nd"(port) : "memory");            \
        return value;                                                                              \
    }                                                                                              \
    static inline void out##suffix(uint16_t port, type value)                                      \
    {                                                                                              \
        __asm__ volatile("out" #suffix " %0, %1" : : "a"(value), "Nd"(port) : "memory");           \
    }
PORT_ACCESS(b, uint8_t)
PORT_ACCESS(w, uint16_t)
PORT_ACCESS(l, uint32_t)
#undef PORT_ACCESS

static inline uint64_t xgetbv(uint32_t index)
{
    uint32_t low, high;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(index));
    return (uint64_t)high << 32 | low;
}

static inline void xsetbv(uint32_t index, uint64_t value)
{
    __asm__ volatile("xsetbv"
                     :
                     : "c"(index), "a"((uint32_t)value), "d"((uint32_t)(value >> 32))
                     : "memory");
}

/* The operand of LGDT, LIDT, SGDT, SIDT. */
struct __attribute__((packed)) descriptor_table {
    uint16_t limit;
    uint64_t base;
};

static inline struct descriptor_table sgdt(void)
{
    struct descriptor_table table;
    __asm__ volatile("sgdt %0" : "=m"(table));
    return table;
}

static inline struct descriptor_table sidt(void)
{
    struct descriptor_table table;
    __asm__ volatile("sidt %0" : "=m"(table));
    return table;
}

static inline void lgdt(const struct descriptor_table *table)
{
    __asm__ volatile("lgdt %0" : : "m"(*table));
}

static inline void lidt(const struct descriptor_table *table)
{
    __asm__ volatile("lidt %0" : : "m"(*table));
}

/* For a moment, so that what is pending is taken (SDM Vol. 2, STI: not before the second NOP). */
static inline void open_interrupts(void)
{
    __asm__ volatile("sti\n\tnop\n\tnop\n\tcli" : : : "memory");
}

/* Nothing interrupts this CPU until STGI, NMIs included. On CPUs with SVM (APM Vol. 2, 15.17). */
static inline void clear_gif(void)
{
    __asm__ volatile("clgi" : : : "memory");
}

static inline void cpu_pause(void)
{
    __asm__ volatile("pause" : : : "memory");
}

/* Stops this CPU for good; an NMI wakes it only to stop again. */
static inline _Noreturn void cpu_stop(void)
{
    for (;;)
        __asm__ volatile("cli; hlt" : : : "memory");
}

/* With SMAP, supervisor code reaches user pages only between these two (no-ops elsewhere). */
void user_access_begin(void);
void user_access_end(void);

struct cpu_features {
    char vendor[13];     /* CPUID leaf 0: "GenuineIntel" */
    char brand[49];      /* leaves 0x80000002..4, without leading blanks; "" when not given */
    char hypervisor[13]; /* leaf 0x40000000 of a hypervisor underneath; "" for none */
    unsigned family, model, stepping;
    uint8_t maxphyaddr;  /* bits of a physical address: 32..52 */
    uint8_t linear_bits; /* bits of a linear address: 48 or 57 */
    bool nx, page1g, pge, pcid, invpcid, smep, smap, umip, pat, mtrr, mce, la57, lam;
    bool vmx, svm, fxsr, xsave, tsc_deadline, x2apic, fsgsbase, syscall, rdtscp, invariant_tsc;
    uint64_t xcr0; /* components that XCR0 may enable; 0 without XSAVE */
};
extern struct cpu_features cpu_features;

/* What the CPU that this runs on offers, by CPUID. */
void cpu_features_read(struct cpu_features *out);

/* Fills cpu_features, on the CPU that boots. Changes nothing. */
void cpu_detect(void);

/* A vendor's way to run guests, for the console. */
struct cpu_way {
    const char *name, *purpose;
    bool offered, on;
};
#define CPU_WAYS 2
void cpu_ways(struct cpu_way out[CPU_WAYS]);

/* Whether the time-stamp counter ticks once an instruction, as some emulators have it: then
 * differences of it are a measure that every run repeats. */
bool tsc_counts_instructions(void);

/*
 * Puts this CPU into the state that the hypervisor runs in, using all that cpu_features says: CR0
 * with WP and NE, caches on; CR4 with PGE, SMEP, SMAP, UMIP, MCE, OSFXSR, OSXSAVE; EFER.NXE; the
 * host's PAT. To be called on every CPU, after its trap handlers stand and with a CR3 whose low
 * twelve bits are 0. CR4.PCIDE waits for cpu_enable_pcid().
 */
void cpu_enable(void);

/* Turns PCIDs on where offered. CR3[11:0] must be 0 (SDM Vol. 3, 4.10.1). */
void cpu_enable_pcid(void);

#endif
