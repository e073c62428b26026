/*
 * A guest's memory by its linear addresses, for people who look: what vm/backend.h's operation of
 * this name stands on.
 */
#ifndef QUIRE_ARCH_GUEST_READ_LINEAR_H
#define QUIRE_ARCH_GUEST_READ_LINEAR_H

#include "arch/x86_64/mm/guest_walk.h"
#include "mm/paging/table.h"
#include "vm/backend.h"

/* What a guest's registers say of its linear addresses, for gva_walk(): its entries are read
 * through `second`, and whatever that leads to, from RAM alone. */
struct gva_context guest_gva_context(struct table *second, const struct vcpu_state *state);

/* Through the guest's own tables as `state` has them, then `second`; whatever their rights are, and
 * without a mark in them. False unless all of it is RAM. */
bool guest_read_linear(struct table *second, const struct vcpu_state *state, uint64_t at, void *to,
                       unsigned size);

#endif
