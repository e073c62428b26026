/*
 * For those who lift a kind out of Quire (docs/LIFT-MM.md), in place of arch/x86_64/mm/tlb.c, which
 * knows our CPU's features. A host flushes by its own table_env.flush; where that calls the kind's
 * flush, the host supplies the instructions. Nothing that ought to be flushed passes in silence.
 */
#include "arch/x86_64/mm/tlb.h"
#include "lib/panic.h"

#define ABSENT __attribute__((weak))

ABSENT void tlb_flush_pages(const struct flush_batch *batch)
{
    panic("no INVLPG is linked for a flush of %s", batch->table->kind->name);
}

ABSENT void tlb_flush_current(void)
{
    panic("no load of CR3 is linked");
}

ABSENT void tlb_flush_pcid(uint16_t pcid)
{
    panic("no INVPCID is linked for PCID %u", pcid);
}

ABSENT void tlb_flush_all(void)
{
    panic("no flush of all PCIDs is linked");
}

ABSENT void tlb_flush_ept(uint64_t eptp)
{
    panic("no INVEPT is linked for EPTP %#lx", eptp);
}

ABSENT void tlb_flush_asid(uint16_t asid)
{
    panic("no TLB control is linked for ASID %u", asid);
}
