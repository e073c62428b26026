/*
 * Translation invalidation: what each table kind's flush batches come down to on this CPU.
 *
 *   kernel  INVLPG a page; past the limit, or when tables died, everything with global pages
 *   user    INVLPG where the table is current; else, or past the limit, its PCID
 *   EPT     INVEPT single-context (the architecture has no finer one)
 *
 * One CPU runs so far; when there are more, this is the place that waits for all of them.
 */
#ifndef QUIRE_ARCH_X86_64_MM_TLB_H
#define QUIRE_ARCH_X86_64_MM_TLB_H

#include "mm/paging/table.h"

/* The flush hook of every table_env of the hypervisor. */
void tlb_flush(const struct table_env *env, struct table *table, const struct flush_batch *batch);

/* How often each instruction was used since boot. */
struct tlb_counters {
    uint64_t invlpg, cr3_loads, invpcid, all_global, invept_single, invept_all, invvpid;
};
extern struct tlb_counters tlb_counters;

#endif
