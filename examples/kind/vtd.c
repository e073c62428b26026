/*
 * A table kind that Quire has not: the second-stage tables of VT-d, which translate the addresses
 * of devices. Intel Virtualization Technology for Directed I/O, 9.8 "Second-Stage Paging Entries".
 *
 * Devices do not execute, and memory types are not used. Attributes that say otherwise do not
 * survive encode and decode, so the mapper refuses them as E_ILLEGAL.
 */
#include "vtd.h"

#include "mm/paging/ops.h"

#define VTD_R BIT(0)
#define VTD_W BIT(1)
#define VTD_LEAF BIT(7)
#define VTD_A BIT(8)
#define VTD_D BIT(9)

static uint64_t vtd_encode(struct attrs attrs, unsigned level, const struct table_caps *caps)
{
    (void)caps;
    return (attrs.rights & RIGHT_R ? VTD_R : 0) | (attrs.rights & RIGHT_W ? VTD_W : 0) |
           (level > 1 ? VTD_LEAF : 0);
}

static unsigned vtd_rights(uint64_t entry, const struct table_caps *caps)
{
    (void)caps;
    return (entry & VTD_R ? RIGHT_R : 0u) | (entry & VTD_W ? RIGHT_W : 0u);
}

static struct attrs vtd_decode(uint64_t entry, unsigned level, const struct table_caps *caps)
{
    (void)level;
    return attrs_of(vtd_rights(entry, caps), MEM_WB);
}

static uint64_t vtd_reserved(unsigned level, bool leaf, const struct table_caps *caps)
{
    (void)caps;
    if (level >= 4)
        return VTD_LEAF;
    if (leaf && level > 1)
        return level == 2 ? BITS(20, 12) : BITS(29, 12);
    return 0;
}

static const struct table_ops vtd_ops;

const struct table_kind vtd_kind = {
    .name = "VT-d",
    .id = KIND_COUNT, /* none of the library's own */
    .levels = 4,
    .index_bits = 9,
    .entry_bytes = 8,
    .input_last = BITS(47, 0),
    .present_mask = VTD_R | VTD_W,
    .leaf_bit = VTD_LEAF,
    .accessed_bit = VTD_A,
    .dirty_bit = VTD_D,
    .table_bits = VTD_R | VTD_W,
    .encode = vtd_encode,
    .decode = vtd_decode,
    .table_rights = vtd_rights,
    .reserved = vtd_reserved,
    .ops = &vtd_ops,
};

#define KIND vtd_kind
#define KIND_NAME vtd
#include "mm/paging/template.h"
