/*
 * The kernel kind: 4-level tables of the upper half of the canonical space. A and D are set from
 * the start (the hypervisor does not page itself, so hardware need never write its tables).
 */
#include "arch/x86_64/mm/host_entry.h"
#include "arch/x86_64/mm/kernel.h"
#include "arch/x86_64/mm/tlb.h"
#include "mm/paging/ops.h"

struct table kernel_table;

static uint64_t kernel_encode(struct attrs attrs, unsigned level, const struct table_caps *caps)
{
    uint64_t entry = host_encode(attrs, level, caps);
    return entry & PTE_P ? entry | PTE_A | PTE_D : entry;
}

/* The kernel's half is reached under every PCID, and INVLPG leaves the paging-structure caches of
 * all but the current one. */
static void kernel_flush(struct table *table, const struct flush_batch *batch)
{
    (void)table;
    if (batch->whole || batch->tables_died)
        tlb_flush_all();
    else
        tlb_flush_pages(batch);
}
#ifndef KIND_LEVELS
#define KIND_LEVELS 4 /* a test compiles this file with 5 */
#endif

static const struct table_ops kernel_ops;

const struct table_kind kernel_kind = {
    .name = "kernel",
    .id = KIND_KERNEL,
    .purpose = PURPOSE_HOST_TABLE,
    .levels = KIND_LEVELS,
    .index_bits = 9,
    .entry_bytes = 8,
    .sign_extended = true,
    .input_first = ~BITS(10 + 9 * KIND_LEVELS, 0),
    .input_last = UINT64_MAX,
    .present_mask = PTE_P,
    .leaf_bit = PTE_PS,
    .accessed_bit = PTE_A,
    .dirty_bit = PTE_D,
    .table_bits = PTE_P | PTE_RW | PTE_A,
    .encode = kernel_encode,
    .decode = host_decode,
    .table_rights = host_table_rights,
    .reserved = host_reserved,
    .flush = kernel_flush,
    .ops = &kernel_ops,
};

#define KIND kernel_kind
#define KIND_NAME kernel
#include "mm/paging/template.h"
