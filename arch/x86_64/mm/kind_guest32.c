/*
 * A guest's 32-bit paging (SDM Vol. 3, 4.3): entries of 4 bytes; pages of 4 MiB whose address bits
 * 39:32 lie in bits 20:13.
 */
#include "lib/list.h"
#include "arch/x86_64/mm/guest_kinds.h"
#include "arch/x86_64/mm/host_entry.h"

static uint64_t guest32_reserved(unsigned level, bool leaf, const struct table_caps *caps)
{
    if (!leaf || level != 2)
        return 0;
    unsigned width = caps->maxphyaddr < 40 ? caps->maxphyaddr : 40;
    /* Bits 20:13 stand for 39:32; those past the width, and bit 21, are reserved. */
    return width >= 40 ? BIT(21) : BITS(21, 13 + (width > 32 ? width - 32 : 0));
}

static struct attrs guest32_decode(uint64_t entry, unsigned level, const struct table_caps *caps)
{
    struct attrs attrs = host_decode(entry, level, caps);
    attrs.rights |= RIGHT_X; /* 32-bit entries have no NX */
    return attrs;
}

static const struct table_ops guest32_ops;

const struct table_kind guest32_kind = {
    .name = "guest 32-bit",
    .id = KIND_GUEST32,
    .levels = 2,
    .index_bits = 10,
    .entry_bytes = 4,
    .input_last = UINT32_MAX,
    .present_mask = PTE_P,
    .leaf_bit = PTE_PS,
    .accessed_bit = PTE_A,
    .dirty_bit = PTE_D,
    .read_only = true,
    .decode = guest32_decode,
    .table_rights = host_table_rights,
    .reserved = guest32_reserved,
    .ops = &guest32_ops,
};

/* Without CR4.PSE bit 7 of a PDE is ignored (table 4-4 is for PSE = 1). Which entry is one its
 * place in the walk says: a directory may also be reached as a table, from one of its own entries.
 */
static uint64_t guest32_load(const struct table_cursor *c, uint64_t node, unsigned index)
{
    struct guest_table *guest = container_of(c->table, struct guest_table, table);
    uint64_t entry = guest_load(c, node, index);

    if (c->level == 1)
        return entry;
    guest->directory_entry = entry;
    return guest->large_pages ? entry : entry & ~PTE_PS;
}

#define KIND guest32_kind
#define KIND_NAME guest32
#define KIND_LOAD(c, node, index) guest32_load(c, node, index)
#include "mm/paging/steps.h"

static const struct table_ops guest32_ops = {OPS_OF_READING};
