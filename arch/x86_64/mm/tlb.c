/* See tlb.h. SDM Vol. 3, 4.10.4 "Invalidation of TLBs and Paging-Structure Caches". */
#include "arch/x86_64/mm/tlb.h"

#include "arch/x86_64/cpu.h"

void tlb_flush_pages(const struct flush_batch *batch)
{
    for (unsigned i = 0; i < batch->count; i++) {
        const struct flush_range *range = &batch->range[i];
        uint64_t step = level_size(batch->table->kind, range->level);

        for (uint64_t at = range->first;; at += step) {
            invlpg(at);
            tlb_count()->invlpg++;
            if (range->last - at < step)
                break;
        }
    }
}

void tlb_flush_current(void)
{
    tlb_count()->cr3_loads++;
    write_cr3(read_cr3()); /* without CR3_KEEP */
}

void tlb_flush_pcid(uint16_t pcid)
{
    if (!cpu_features.invpcid) {
        tlb_flush_all();
        return;
    }
    tlb_count()->invpcid++;
    invpcid(INVPCID_SINGLE, pcid, 0);
}

/* A change of CR4.PGE does it where INVPCID is absent. */
void tlb_flush_all(void)
{
    tlb_count()->all_global++;
    if (cpu_features.invpcid) {
        invpcid(INVPCID_ALL_GLOBAL, 0, 0);
        return;
    }
    uint64_t cr4 = read_cr4();
    if (cr4 & (CR4_PGE | CR4_PCIDE)) {
        write_cr4(cr4 ^ CR4_PGE);
        write_cr4(cr4);
    } else {
        write_cr3(read_cr3());
    }
}
