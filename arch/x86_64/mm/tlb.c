/* See tlb.h. SDM Vol. 3, 4.10.4 "Invalidation of TLBs and Paging-Structure Caches" and 29.4.3.3
 * "Guidelines for Use of the INVEPT Instruction". */
#include "arch/x86_64/mm/tlb.h"

#include "arch/x86_64/cpu.h"
#include "arch/x86_64/mm/ept.h"
#include "arch/x86_64/mm/host_root.h"
#include "arch/x86_64/vmx/vmcs.h"
#include "lib/panic.h"

struct tlb_counters tlb_counters;

/* Everything of every PCID, global pages too: a change of CR4.PGE does it where INVPCID is absent.
 */
static void flush_all_global(void)
{
    tlb_counters.all_global++;
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

static void flush_pages(const struct flush_batch *batch)
{
    for (unsigned i = 0; i < batch->count; i++) {
        const struct flush_range *range = &batch->range[i];
        uint64_t step = level_size(batch->table->kind, range->level);

        for (uint64_t at = range->first;; at += step) {
            invlpg(at);
            tlb_counters.invlpg++;
            if (range->last - at < step)
                break;
        }
    }
}

static void flush_user(struct table *table, const struct flush_batch *batch)
{
    if (host_root_is_current(table)) {
        if (!batch->whole) {
            flush_pages(batch); /* INVLPG drops the PCID's paging-structure caches as well */
            return;
        }
        tlb_counters.cr3_loads++;
        write_cr3(read_cr3()); /* without CR3_KEEP: drops this PCID's translations */
        return;
    }
    /* Without PCIDs nothing of another table is cached: the CR3 load that left it dropped it all.
     */
    if (!(read_cr4() & CR4_PCIDE))
        return;
    if (cpu_features.invpcid) {
        tlb_counters.invpcid++;
        invpcid(INVPCID_SINGLE, table->tag, 0);
    } else {
        flush_all_global();
    }
}

static void flush_ept(struct table *table)
{
    tlb_counters.invept_single++;
    int error = invept(INVEPT_SINGLE_CONTEXT, ept_eptp(table));
    if (error)
        panic("INVEPT of EPTP %#lx: %s", ept_eptp(table), error_text(error));
}

void tlb_flush(const struct table_env *env, struct table *table, const struct flush_batch *batch)
{
    (void)env;
    switch (table->kind->id) {
    case KIND_KERNEL:
        /* The kernel half is reached under every PCID, whose paging-structure caches INVLPG leaves.
         */
        if (batch->whole || batch->tables_died)
            flush_all_global();
        else
            flush_pages(batch);
        return;
    case KIND_USER:
        flush_user(table, batch);
        return;
    case KIND_EPT:
        flush_ept(table);
        return;
    default:
        panic("a flush for a table of kind %s, which nothing writes", table->kind->name);
    }
}
