/*
 * Address-space identifiers: the tag of a guest's translations in the TLB (APM Vol. 2, 15.16 "TLB
 * Control"). 0 is the host's.
 */
#ifndef QUIRE_ARCH_SVM_ASID_H
#define QUIRE_ARCH_SVM_ASID_H

#include <stdbool.h>
#include <stdint.h>

/* `count`: of those that the CPU has, 0 included. */
void asid_init(uint32_t count);

/* E_FULL. What its last holder left is stale. */
int asid_take(uint16_t *out);
void asid_give(uint16_t asid);

/* The vCPUs of a table each have an ASID, for each has linear addresses of its own; the table's tag
 * is one of them, and tlb_flush_asid() of that means all. Another joins that of `first`, or is the
 * first itself, where that is 0: returns the tag. Nobody may be using the table. */
uint16_t asid_join(uint16_t first, uint16_t asid);

/* Whether translations under this ASID have to be forgotten by the entry that follows on this CPU:
 * asked once, and with GIF clear. */
bool asid_take_stale(uint16_t asid);

#endif
