/*
 * What a vCPU starts with before a loader has its say: a CPU after a reset (SDM Vol. 3, table
 * 10-1), but for CS, whose base lies within 1 MiB.
 */
#ifndef QUIRE_ARCH_GUEST_RESET_STATE_H
#define QUIRE_ARCH_GUEST_RESET_STATE_H

#include "vm/backend.h"

extern const struct vcpu_state guest_reset_state;

#endif
