/*
 * What CPUID tells a guest: the CPU's own answer, reduced to what Quire virtualises.
 *
 * Every leaf has a policy; features pass only if they are named in it, so that one which a newer
 * CPU brings stays hidden until somebody has thought about it.
 */
#ifndef QUIRE_VM_CPUID_H
#define QUIRE_VM_CPUID_H

#include <stdint.h>

struct cpuid_regs {
    uint32_t eax, ebx, ecx, edx;
};

/*
 * The answer for guest `number` at (leaf, subleaf). `host` is asked for the CPU's own answers. A
 * leaf beyond the highest of its range answers as the highest basic leaf does (SDM Vol. 2,
 * "CPUID"). `osxsave` of CR4 never shows: XSAVE is hidden.
 */
struct cpuid_regs cpuid_answer(uint32_t leaf, uint32_t subleaf, unsigned number,
                               void (*host)(uint32_t leaf, uint32_t subleaf, uint32_t out[4]));

/* The physical address width that a guest is told, in bits. */
unsigned cpuid_guest_maxphyaddr(void (*host)(uint32_t, uint32_t, uint32_t out[4]));

#endif
