/*
 * The user kind: 4-level tables of the lower half, every non-leaf entry open to ring 3, so that a
 * leaf alone decides.
 *
 * The last page below the non-canonical gap is left out: an instruction that ends there would leave
 * a non-canonical RIP for SYSRET (SDM Vol. 2, SYSRET). And there are no global pages: what is
 * global outlives the load of CR3 that another program's table comes with (SDM Vol. 3, 4.10.2.4),
 * and the flush of one PCID.
 */
#include "arch/x86_64/mm/host_entry.h"
#include "arch/x86_64/mm/host_root.h"
#include "arch/x86_64/mm/layout.h"
#include "arch/x86_64/mm/tlb.h"
#include "mm/paging/ops.h"

static uint64_t user_encode(struct attrs attrs, unsigned level, const struct table_caps *caps)
{
    return host_encode(attrs, level, caps) & ~PTE_G;
}

/* Without PCIDs nothing of a table that is not current is cached: the load of CR3 that left it
 * dropped it all. */
static void user_flush(struct table *table, const struct flush_batch *batch)
{
    bool current = host_root_is_current(table);

    if (current && batch->whole)
        tlb_flush_current();
    else if (current)
        tlb_flush_pages(batch);
    else if (read_cr4() & CR4_PCIDE)
        tlb_flush_pcid(table->tag);
}
#ifndef KIND_LEVELS
#define KIND_LEVELS 4 /* a test compiles this file with 5 */
#endif

static const struct table_ops user_ops;

const struct table_kind user_kind = {
    .name = "user",
    .id = KIND_USER,
    .purpose = PURPOSE_USER_TABLE,
    .levels = KIND_LEVELS,
    .index_bits = 9,
    .entry_bytes = 8,
    .sign_extended = true,
    .input_first = USER_FIRST,
    .input_last = USER_LAST,
    .present_mask = PTE_P,
    .leaf_bit = PTE_PS,
    .accessed_bit = PTE_A,
    .dirty_bit = PTE_D,
    .table_bits = PTE_P | PTE_RW | PTE_US | PTE_A,
    .encode = user_encode,
    .decode = host_decode,
    .table_rights = host_table_rights,
    .reserved = host_reserved,
    .flush = user_flush,
    .ops = &user_ops,
};

#define KIND user_kind
#define KIND_NAME user
#include "mm/paging/template.h"
