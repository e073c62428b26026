/*
 * The EPT kind: second-level tables, guest-physical to host-physical.
 *
 * Guest RAM ignores the guest's PAT (bit 6): the frames are mapped write-back in the host's direct
 * map, and one frame with two memory types is undefined (SDM Vol. 3, 12.12.4). That write-back is
 * the type which the firmware's MTRRs have for them, too, boot/memory_map.c sees to.
 */
#include "arch/x86_64/mm/ept.h"

#include "arch/x86_64/mm/tlb.h"
#include "mm/paging/ops.h"

static uint64_t ept_encode(struct attrs attrs, unsigned level, const struct table_caps *caps)
{
    uint64_t entry = ((uint64_t)attrs.type << EPT_TYPE_SHIFT) | EPT_IGNORE_PAT;

    if (attrs.rights & RIGHT_R)
        entry |= EPT_R;
    if (attrs.rights & RIGHT_W)
        entry |= EPT_W;
    if (attrs.rights & RIGHT_X)
        entry |= EPT_X;
    if ((attrs.rights & RIGHT_U) && caps->mode_based_execute)
        entry |= EPT_XU;
    if (level > 1)
        entry |= EPT_LEAF;
    return entry;
}

static unsigned ept_rights(uint64_t entry, const struct table_caps *caps)
{
    return (entry & EPT_R ? RIGHT_R : 0u) | (entry & EPT_W ? RIGHT_W : 0u) |
           (entry & EPT_X ? RIGHT_X : 0u) |
           (caps->mode_based_execute && (entry & EPT_XU) ? RIGHT_U : 0u);
}

static struct attrs ept_decode(uint64_t entry, unsigned level, const struct table_caps *caps)
{
    (void)level;
    return attrs_of(ept_rights(entry, caps), (enum mem_type)((entry & EPT_TYPE) >> EPT_TYPE_SHIFT));
}

static uint64_t ept_reserved(unsigned level, bool leaf, const struct table_caps *caps)
{
    (void)caps;
    if (!leaf)
        return level >= 4 ? BITS(7, 3) : BITS(6, 3);
    if (level == 2)
        return BITS(20, 12);
    return level == 3 ? BITS(29, 12) : 0;
}

/* SDM Vol. 3, 29.3.3.1 "EPT Misconfigurations". */
static enum rule ept_own_rule(uint64_t entry, bool leaf, const struct table_caps *caps)
{
    uint64_t execute = caps->mode_based_execute ? EPT_X | EPT_XU : EPT_X;

    if (!(entry & (EPT_R | EPT_W | execute)))
        return RULE_NOT_PRESENT; /* bit 10 alone, which this CPU ignores */
    if ((entry & (EPT_R | EPT_W)) == EPT_W)
        return RULE_WRITE_ONLY;
    if (!(entry & EPT_R) && (entry & execute) && !caps->execute_only)
        return RULE_EXECUTE_ONLY;
    if (leaf) {
        unsigned type = (unsigned)((entry & EPT_TYPE) >> EPT_TYPE_SHIFT);
        if (type == 2 || type == 3 || type == 7)
            return RULE_MEM_TYPE;
    }
    return RULE_OK;
}

/* SDM Vol. 3, 29.4.3.3 "Guidelines for Use of the INVEPT Instruction". There is no finer one than
 * of a whole EPTP. */
static void ept_flush(struct table *table, const struct flush_batch *batch)
{
    (void)batch;
    tlb_flush_ept(ept_eptp(table));
}
#ifndef KIND_LEVELS
#define KIND_LEVELS 4 /* a test compiles this file with 5 */
#endif

static const struct table_ops ept_ops;

const struct table_kind ept_kind = {
    .name = "EPT",
    .id = KIND_EPT,
    .purpose = PURPOSE_EPT_TABLE,
    .levels = KIND_LEVELS,
    .index_bits = 9,
    .entry_bytes = 8,
    .input_first = 0,
    .input_last = BITS(11 + 9 * KIND_LEVELS, 0),
    .present_mask = EPT_R | EPT_W | EPT_X | EPT_XU,
    .leaf_bit = EPT_LEAF,
    .accessed_bit = EPT_A,
    .dirty_bit = EPT_D,
    .table_bits = EPT_R | EPT_W | EPT_X | EPT_XU, /* ignored without mode-based control */
    .rights_grow_freely = true,
    .encode = ept_encode,
    .decode = ept_decode,
    .table_rights = ept_rights,
    .reserved = ept_reserved,
    .own_rule = ept_own_rule,
    .flush = ept_flush,
    .ops = &ept_ops,
};

#define KIND ept_kind
#define KIND_NAME ept
#include "mm/paging/template.h"

/* ---- The root register --------------------------------------------------------------------- */

uint64_t eptp_compose(hpa_t root, enum mem_type type, unsigned levels, bool accessed_dirty)
{
    return (root.v & ENTRY_ADDRESS) | (uint64_t)type | ((uint64_t)(levels - 1) << EPTP_WALK_SHIFT) |
           (accessed_dirty ? EPTP_AD : 0);
}

int eptp_decode(uint64_t raw, struct eptp *out)
{
    *out = (struct eptp){
        .raw = raw,
        .root = hpa(raw & ENTRY_ADDRESS),
        .type = (enum mem_type)(raw & EPTP_TYPE),
        .levels = (unsigned)((raw & EPTP_WALK) >> EPTP_WALK_SHIFT) + 1,
        .accessed_dirty = (raw & EPTP_AD) != 0,
    };
    bool known_type = out->type == MEM_UC || out->type == MEM_WB;
    bool known_walk = out->levels == 4 || out->levels == 5;
    if ((raw & EPTP_RESERVED) || (raw & BITS(63, 52)) || !known_type || !known_walk)
        return E_ILLEGAL;
    return E_OK;
}

uint64_t ept_eptp(const struct table *table)
{
    enum mem_type type = table->caps.mem_types & (1u << MEM_WB) ? MEM_WB : MEM_UC;
    return eptp_compose(table->root, type, table->kind->levels, table->caps.accessed_dirty);
}
