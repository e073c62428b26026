/*
 * How much a guest may hold from its start on: all that it costs. Its memory, tables, vCPU,
 * snapshot and sets of pages are charged to it as an owner, and the buddy holds it to that
 * (mm/frames/buddy.h). Its structure and its vCPU's place in the slab are the host's, for they
 * outlive it; the buddy is told of so much less. The console's `quota` changes it.
 */
#ifndef QUIRE_VM_QUOTA_H
#define QUIRE_VM_QUOTA_H

#include <stdint.h>

#include "mm/frames/buddy.h"
#include "vm/guest.h"

/* Frames that a guest costs and is not charged with: struct guest, with the ring of what it has
 * printed, and a backend's structure (VCPU_MOST) for each of its vCPUs. */
static inline uint64_t quota_beside(const struct guest *guest)
{
    return (sizeof(*guest) + PAGE_SIZE - 1) / PAGE_SIZE + guest->cpus * (VCPU_MOST / PAGE_SIZE);
}

/* What the buddy is told where the guest may hold so many bytes, rounded up to pages. */
static inline uint64_t quota_frames(const struct guest *guest, uint64_t bytes)
{
    uint64_t frames = bytes / PAGE_SIZE + (bytes % PAGE_SIZE != 0), beside = quota_beside(guest);

    return frames > beside ? frames - beside : 0;
}

/* The quota, and what it holds now, in bytes. UINT64_MAX: no limit. */
static inline uint64_t quota_bytes(const struct guest *guest)
{
    uint64_t frames = buddy_quota(guest_owner(guest));

    return frames == UINT64_MAX ? UINT64_MAX : (frames + quota_beside(guest)) * PAGE_SIZE;
}

static inline uint64_t quota_held(const struct guest *guest)
{
    return (buddy_owner_frames(guest_owner(guest)) + quota_beside(guest)) * PAGE_SIZE;
}

/* In frames, for the buddy: of a guest that is made from its options. Without `quota=` one of lazy
 * memory that could take nearly all there is leaves others a fourth of what is free now.
 * UINT64_MAX: no limit. */
uint64_t quota_at_start(const struct guest *guest);

/* Likewise, of a fork that is made of `from`: what that may hold itself, whoever has said so. Where
 * it has no limit, the fork's memory comes as lazy memory does, and so does its limit. */
uint64_t quota_of_fork(const struct guest *from);

/* Into the guest's reason: why there was no frame for its table, after this error. */
void quota_says_no_table(struct guest *guest, int error);

#endif
