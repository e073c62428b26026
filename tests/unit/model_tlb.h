/*
 * What the CPU of model_cpu.h has cached of page tables, by the manual's rules (SDM Vol. 3, 4.10
 * "Caching Translation Information" and 29.4 for VMX; APM Vol. 2, 15.16 "TLB Control" for SVM): a
 * walk caches each translation and each entry that leads to one, and nothing goes but by what an
 * instruction or a transition names. A real CPU holds less, at times of its own choosing; what is
 * right on this one is right on all of them.
 */
#ifndef QUIRE_TESTS_UNIT_MODEL_TLB_H
#define QUIRE_TESTS_UNIT_MODEL_TLB_H

#include <stdbool.h>
#include <stdint.h>

#include "mm/addr.h"

enum tlb_sort {
    TLB_LINEAR,   /* by the host's CR3, tagged with a PCID */
    TLB_PHYSICAL, /* guest-physical, by an EPTP */
    TLB_COMBINED, /* guest-linear, by a VPID and an EPTP */
    TLB_NESTED,   /* by an ASID */
};

/* How a CPU comes to a translation: what its walk starts from, and what it tags it with. */
struct tlb_way {
    enum tlb_sort sort;
    hpa_t root;
    uint16_t tag; /* PCID, VPID, ASID */
    uint64_t eptp;
    bool keeps_ad;
};

void tlb_empty(void);

/* A CPU uses all that the way's tables map in [first, last]: sets A (D as well with `write`), and
 * caches it. */
void tlb_use(const struct tlb_way *way, uint64_t first, uint64_t last, bool write);

/* One translation, from nowhere. */
void tlb_add(const struct tlb_way *way, uint64_t in, bool global);

/* Cached under the way's tags (of the host, global ones as well). */
unsigned tlb_cached(const struct tlb_way *way);

/* What of [first, last] is cached under the way's tags is what its tables say; else the test fails.
 */
void tlb_check(const struct tlb_way *way, uint64_t first, uint64_t last);

/* No walk goes through this frame any more, of a context that could be used before its tag is
 * flushed: any but the ASIDs'. */
void tlb_check_freed(hpa_t frame);

/* What the instructions and transitions drop. */
void tlb_load_cr3(uint64_t old_cr4, uint64_t value);
void tlb_all_linear(void);
void tlb_vmx_transition(uint16_t vpid);
void tlb_vmrun(uint16_t asid, uint8_t control, bool flush_by_asid);

#endif
