/*
 * A guest's PAE paging (SDM Vol. 3, 4.4): two levels under one of the four PDPTE registers.
 */
#include "arch/x86_64/mm/guest_kinds.h"
#include "arch/x86_64/mm/host_entry.h"

static uint64_t pae_reserved(unsigned level, bool leaf, const struct table_caps *caps)
{
    return BITS(62, 52) | host_reserved(level, leaf, caps);
}

static const struct table_ops guestpae_ops;

const struct table_kind guestpae_kind = {
    .name = "guest PAE",
    .id = KIND_GUESTPAE,
    .levels = 2,
    .index_bits = 9,
    .entry_bytes = 8,
    .input_last = BITS(29, 0), /* what one PDPTE covers */
    .present_mask = PTE_P,
    .leaf_bit = PTE_PS,
    .accessed_bit = PTE_A,
    .dirty_bit = PTE_D,
    .read_only = true,
    .decode = host_decode,
    .table_rights = host_table_rights,
    .reserved = pae_reserved,
    .ops = &guestpae_ops,
};

#define KIND guestpae_kind
#define KIND_NAME guestpae
#define KIND_LOAD(c, node, index) guest_load(c, node, index)
#include "mm/paging/steps.h"

static const struct table_ops guestpae_ops = {OPS_OF_READING};
