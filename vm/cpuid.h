/*
 * What CPUID tells a guest: the CPU's own answer, reduced to what Quire virtualises.
 *
 * Every leaf has a policy; features pass only if they are named in it, so that one which a newer
 * CPU brings stays hidden until somebody has thought about it.
 */
#ifndef QUIRE_VM_CPUID_H
#define QUIRE_VM_CPUID_H

#include <stdbool.h>
#include <stdint.h>

struct cpuid_regs {
    uint32_t eax, ebx, ecx, edx;
};

/* What the answer depends on besides the leaf. */
struct cpuid_context {
    void (*host)(uint32_t leaf, uint32_t subleaf, uint32_t out[4]); /* the CPU's own answers */
    unsigned number;                                                /* of the guest */
    uint64_t xcr0_mask; /* XSAVE components that it may enable; 0: no XSAVE */
    uint64_t xcr0;      /* those that it has enabled now */
    bool osxsave;       /* CR4.OSXSAVE as the guest sees it */
    bool code64;        /* asked in 64-bit mode */
    unsigned cpus, cpu; /* how many it has; the one that asks */
    bool apic;          /* it has a local APIC, ... */
    bool apic_enabled;  /* ... that IA32_APIC_BASE has enabled */
};

/* A leaf beyond the highest of its range answers as the highest basic one does (SDM Vol. 2,
 * "CPUID"). */
struct cpuid_regs cpuid_answer(uint32_t leaf, uint32_t subleaf,
                               const struct cpuid_context *context);

/* The rate of the TSC in Hz as CPUID tells it, 0 where it does not. */
uint64_t cpuid_tsc_hz(void (*host)(uint32_t, uint32_t, uint32_t out[4]));

/* Does the CPU say that AMD has made it? */
bool cpuid_is_amd(void (*host)(uint32_t, uint32_t, uint32_t out[4]));

/* The physical address width that a guest is told, in bits. */
unsigned cpuid_guest_maxphyaddr(void (*host)(uint32_t, uint32_t, uint32_t out[4]));

#endif
