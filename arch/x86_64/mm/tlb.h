/*
 * What this CPU does to forget translations: the instructions that a kind's flush
 * (table_kind.flush) is made of, each counted.
 */
#ifndef QUIRE_ARCH_X86_64_MM_TLB_H
#define QUIRE_ARCH_X86_64_MM_TLB_H

#include "mm/paging/table.h"

/* Each page of the batch's ranges, with the paging-structure caches of the current PCID: INVLPG. */
void tlb_flush_pages(const struct flush_batch *batch);

/* The current PCID, global pages excepted: CR3 is loaded anew. */
void tlb_flush_current(void);

/* One PCID, global pages excepted. CR4.PCIDE is 1. */
void tlb_flush_pcid(uint16_t pcid);

/* Every PCID, and global pages. */
void tlb_flush_all(void);

/* What is derived from one EPTP: INVEPT. In arch/x86_64/vmx/eptp.c. */
void tlb_flush_ept(uint64_t eptp);

/* What is tagged with one ASID, before the guest that has it is entered again: TLB control of the
 * VMCB. In arch/x86_64/svm/asid.c. */
void tlb_flush_asid(uint16_t asid);

/* How often each instruction was used since boot, on one CPU. */
struct tlb_counters {
    uint64_t invlpg, cr3_loads, invpcid, all_global;
    uint64_t one_guest_table, all_guest_tables; /* INVEPT */
    uint64_t guest_tag, guest_tag_at_entry;     /* INVVPID; an ASID at the next entry */
};
/* This CPU's, to be counted up; those of a CPU; and of all together. In tlb_counters.c. */
struct tlb_counters *tlb_count(void);
const struct tlb_counters *tlb_counters_of(unsigned cpu);
struct tlb_counters tlb_counters_total(void);

#endif
