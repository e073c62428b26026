/*
 * What a guest may load into its registers, as the CPU would judge it, and the bits of a segment's
 * access rights: the same for every backend. Pure functions of their arguments. Sections are those
 * of the SDM, Vol. 3, where nothing else is said.
 */
#ifndef QUIRE_ARCH_GUEST_LEGAL_H
#define QUIRE_ARCH_GUEST_LEGAL_H

#include <stdbool.h>
#include <stdint.h>

#include "lib/bits.h"

/* Why a change of a control register raises #GP(0), as MOV to CR would (SDM Vol. 2, "MOV -- Move
 * to/from Control Registers"); NULL when it is legal. */
struct cr_context {
    uint64_t cr0, cr3, cr4, efer; /* before the move, as the guest sees them */
    bool cs_long;                 /* CS.L: executing 64-bit code */
    bool tr_16bit;                /* TR holds a 16-bit TSS */
};
const char *cr0_refusal(const struct cr_context *now, uint64_t value);
/* `allowed`: the bits of CR4 that this guest may set. */
const char *cr4_refusal(const struct cr_context *now, uint64_t value, uint64_t allowed);
/* CR3 as MOV takes it, its bit 63 apart. A CPU with LAM has two bits above the address, and lets a
 * guest set them that was not told of it, for MOV to CR3 does not exit. */
bool cr3_legal(uint64_t value, unsigned maxphyaddr, bool lam);
/* Does this move load the four PDPTEs from memory (SDM Vol. 3, 4.4.1)? `cr0` and `cr4` are the new
 * values, `efer_lma` the new LMA. */
bool pdptes_reload(const struct cr_context *now, uint64_t cr0, uint64_t cr4, bool efer_lma);
/* A present PDPTE with a reserved bit makes the move fault. */
bool pdpte_legal(uint64_t pdpte, unsigned maxphyaddr);

/* IA32_PAT: every byte a memory type that exists (SDM Vol. 3, 12.12.2). */
bool pat_legal(uint64_t pat);

/* XCR0 as XSETBV takes it (SDM Vol. 1, 13.3): x87 always, AVX only with SSE, the three parts of
 * AVX-512 together and only with AVX, nothing beyond `supported`. */
bool xcr0_legal(uint64_t value, uint64_t supported);

/* In protected mode this exception pushes an error code (SDM Vol. 3, table 6-1). */
bool exception_has_code(uint8_t vector);
/* It pushes RF as 1, so that a breakpoint on the instruction is not hit again when that is tried
 * again (18.3.1.1). #DB is no fault, or says itself what it pushes; INT3 and INTO are traps. */
bool exception_is_fault(uint8_t vector);

/* Pending debug exceptions (table 25-4), DR6 and the qualification of #DB share these. */
#define DEBUG_BREAKPOINTS BITS(3, 0)
#define DEBUG_ENABLED_BREAKPOINT BIT(12)
#define DEBUG_BD BIT(13)
#define DEBUG_BS BIT(14)

/* Access rights of a segment: struct segment of vm/backend.h, and a field of the VMCS (25.4.1,
 * table 25-2). */
#define ACCESS_TYPE BITS(3, 0)
#define ACCESS_CODE_OR_DATA BIT(4)
#define ACCESS_DPL_SHIFT 5
#define ACCESS_PRESENT BIT(7)
#define ACCESS_LONG BIT(13)
#define ACCESS_DB BIT(14)
#define ACCESS_GRANULARITY BIT(15)
#define ACCESS_UNUSABLE BIT(16)
#define ACCESS_ACCESSED BIT(0)   /* type bit 0 of code and data segments */
#define ACCESS_WRITABLE BIT(1)   /* type bit 1: data writable, code readable */
#define ACCESS_CONFORMING BIT(2) /* type bit 2: data expand-down, code conforming */
#define ACCESS_CODE BIT(3)       /* type bit 3 */
#define TSS_TYPE_BUSY_16 3
#define TSS_TYPE_BUSY 11 /* 32-bit, or 64-bit in IA-32e mode */
#define LDT_TYPE 2

#endif
