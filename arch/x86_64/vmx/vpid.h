/*
 * VPIDs: the tags by which the CPU tells the guests' translations apart (SDM Vol. 3, 29.1). 0 is
 * the host's, and a guest's where the CPU has none to give.
 */
#ifndef QUIRE_ARCH_VMX_VPID_H
#define QUIRE_ARCH_VMX_VPID_H

#include <stdint.h>

/* A VPID under which no translation is left; 0, and the guest runs untagged, where VPIDs are not
 * offered. E_FULL. */
int vpid_take(uint16_t *out);
void vpid_give(uint16_t vpid);

/* Drops the translations that are tagged with it. */
void vpid_flush(uint16_t vpid);

#endif
