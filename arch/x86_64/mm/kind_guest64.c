/*
 * A guest's 4-level paging (SDM Vol. 3, 4.5).
 */
#include "arch/x86_64/mm/guest_kinds.h"
#include "arch/x86_64/mm/host_entry.h"

static const struct table_ops guest64_ops;

const struct table_kind guest64_kind = {
    .name = "guest 4-level",
    .id = KIND_GUEST64,
    .levels = 4,
    .index_bits = 9,
    .entry_bytes = 8,
    .sign_extended = true,
    .input_last = UINT64_MAX,
    .present_mask = PTE_P,
    .leaf_bit = PTE_PS,
    .accessed_bit = PTE_A,
    .dirty_bit = PTE_D,
    .read_only = true,
    .decode = host_decode,
    .table_rights = host_table_rights,
    .reserved = host_reserved,
    .ops = &guest64_ops,
};

#define KIND guest64_kind
#define KIND_NAME guest64
#define KIND_LOAD(c, node, index) guest_load(c, node, index)
#include "mm/paging/steps.h"

static const struct table_ops guest64_ops = {OPS_OF_READING};
