/*
 * The NPT kind: a guest's physical address space under AMD-V, and its root register, nCR3.
 */
#ifndef QUIRE_ARCH_X86_64_MM_NPT_H
#define QUIRE_ARCH_X86_64_MM_NPT_H

#include "mm/paging/attrs.h"
#include "mm/paging/table.h"
#include "x86/control.h"

/* nCR3 has the format of CR3 in the host's paging mode: APM Vol. 2, 15.25.3 "Enabling Nested
 * Paging" and 5.3.2 "CR3". Bits 4:3 choose the cache policy of accesses to the root table. */
#define NCR3_PWT BIT(3)
#define NCR3_PCD BIT(4)

/* EXITINFO1 of a nested page fault (15.25.6): the error code of a page fault, and one of these. */
#define NPT_FAULT_FINAL BIT(32) /* at the final address */
#define NPT_FAULT_WALK BIT(33)  /* at an entry of the guest's own tables */

/* The access that it tells of: RIGHT_R, RIGHT_W or RIGHT_X. */
static inline unsigned npt_fault_access(uint64_t info)
{
    return info & PF_FETCH ? RIGHT_X : info & PF_WRITE ? RIGHT_W : RIGHT_R;
}

struct ncr3 {
    uint64_t raw;
    hpa_t root;         /* the root table's frame: the address alone */
    enum mem_type type; /* of accesses to the root table, as the host's PAT has it */
};

/* Write-back. `root` 4 KiB aligned. */
uint64_t ncr3_compose(hpa_t root);

/* E_ILLEGAL when a reserved bit is set. */
int ncr3_decode(uint64_t raw, unsigned maxphyaddr, struct ncr3 *out);

#endif
