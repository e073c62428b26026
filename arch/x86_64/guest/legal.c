/* See legal.h. */
#include "arch/x86_64/guest/legal.h"

#include <stddef.h>

#include "x86/control.h"

const char *cr0_refusal(const struct cr_context *now, uint64_t value)
{
    if (value & BITS(63, 32))
        return "reserved bits of CR0";
    if ((value & CR0_PG) && !(value & CR0_PE))
        return "CR0.PG without CR0.PE";
    if ((value & CR0_NW) && !(value & CR0_CD))
        return "CR0.NW without CR0.CD";
    if ((value & CR0_PG) && !(now->cr0 & CR0_PG) && (now->efer & EFER_LME)) {
        if (!(now->cr4 & CR4_PAE))
            return "entering IA-32e mode without CR4.PAE";
        if (now->cs_long)
            return "entering IA-32e mode with CS.L set";
        if (now->tr_16bit)
            return "entering IA-32e mode with a 16-bit TSS";
    }
    if (!(value & CR0_PG) && (now->cr0 & CR0_PG)) {
        if ((now->efer & EFER_LMA) && now->cs_long)
            return "leaving paging in 64-bit mode";
        if (now->cr4 & CR4_PCIDE)
            return "clearing CR0.PG with CR4.PCIDE set";
    }
    return NULL;
}

const char *cr4_refusal(const struct cr_context *now, uint64_t value, uint64_t allowed)
{
    uint64_t changed = value ^ now->cr4;
    if (value & ~allowed)
        return "bits of CR4 that this CPU does not offer to guests";
    if ((now->efer & EFER_LMA) && !(value & CR4_PAE))
        return "clearing CR4.PAE in IA-32e mode";
    if ((changed & CR4_PCIDE) && (value & CR4_PCIDE)) {
        if (!(now->efer & EFER_LMA))
            return "CR4.PCIDE outside IA-32e mode";
        if (now->cr3 & CR3_PCID)
            return "setting CR4.PCIDE while CR3[11:0] is not 0";
    }
    return NULL;
}

bool cr3_legal(uint64_t value, unsigned maxphyaddr, bool lam)
{
    return !(value & BITS(63, maxphyaddr) & ~(lam ? CR3_LAM_U57 | CR3_LAM_U48 : 0));
}

bool pdptes_reload(const struct cr_context *now, uint64_t cr0, uint64_t cr4, bool efer_lma)
{
    uint64_t reloading0 = CR0_CD | CR0_NW | CR0_PG;
    uint64_t reloading4 = CR4_PAE | CR4_PGE | CR4_PSE | CR4_SMEP;
    bool pae_paging = (cr0 & CR0_PG) && (cr4 & CR4_PAE) && !efer_lma;
    return pae_paging && (((cr0 ^ now->cr0) & reloading0) || ((cr4 ^ now->cr4) & reloading4));
}

bool pdpte_legal(uint64_t pdpte, unsigned maxphyaddr)
{
    /* SDM Vol. 3, table 4-8: bits 2:1, 8:5 and those above the physical width are reserved. */
    uint64_t reserved = BITS(2, 1) | BITS(8, 5) | BITS(63, maxphyaddr);
    return !(pdpte & 1) || !(pdpte & reserved);
}

bool pat_legal(uint64_t pat)
{
    for (unsigned i = 0; i < 8; i++, pat >>= 8) {
        unsigned type = (unsigned)(pat & 0xff);
        if (type > 7 || type == 2 || type == 3)
            return false;
    }
    return true;
}

bool xcr0_legal(uint64_t value, uint64_t supported)
{
    if ((value & ~supported) || !(value & XCR0_X87))
        return false;
    if ((value & XCR0_AVX) && !(value & XCR0_SSE))
        return false;
    uint64_t avx512 = value & XCR0_AVX512;
    return avx512 == 0 || (avx512 == XCR0_AVX512 && (value & XCR0_AVX));
}

bool exception_has_code(uint8_t vector)
{
    uint64_t with_code = BIT(VECTOR_DF) | BIT(VECTOR_TS) | BIT(VECTOR_NP) | BIT(VECTOR_SS) |
                         BIT(VECTOR_GP) | BIT(VECTOR_PF) | BIT(VECTOR_AC);
    return vector < 32 && (with_code >> vector & 1);
}

bool exception_is_fault(uint8_t vector)
{
    return vector != VECTOR_DB && vector != VECTOR_BP && vector != VECTOR_OF &&
           vector != VECTOR_DF && vector != VECTOR_MC;
}
