/*
 * How many frames a guest may hold from its start on, its tables and vCPU included. The buddy holds
 * it to that (mm/frames/buddy.h); the console's `quota` changes it.
 */
#ifndef QUIRE_VM_QUOTA_H
#define QUIRE_VM_QUOTA_H

#include <stdint.h>

#include "vm/guest.h"

/* Of a guest that is made from its options. Without `quota=` one of lazy memory that could take
 * nearly all there is leaves others a fourth of what is free now. UINT64_MAX: no limit. */
uint64_t quota_at_start(const struct guest *guest);

/* Of a fork that is made of `from`: what that may hold itself, whoever has said so. Where it has no
 * limit, the fork's memory comes as lazy memory does, and so does its limit. */
uint64_t quota_of_fork(const struct guest *from);

#endif
