/* A hosted program has no TLB of its own: what the kinds' flushes are made of does nothing. Weak: a
 * test that looks at them has functions of its own. */
#include "arch/x86_64/mm/tlb.h"

__attribute__((weak)) void tlb_flush_pages(const struct flush_batch *batch)
{
    (void)batch;
}

__attribute__((weak)) void tlb_flush_current(void)
{
}

__attribute__((weak)) void tlb_flush_pcid(uint16_t pcid)
{
    (void)pcid;
}

__attribute__((weak)) void tlb_flush_all(void)
{
}

__attribute__((weak)) void tlb_flush_ept(uint64_t eptp)
{
    (void)eptp;
}

__attribute__((weak)) void tlb_flush_asid(uint16_t asid)
{
    (void)asid;
}
