/*
 * The NPT kind: AMD's second-level tables, guest-physical to host-physical.
 *
 * Entries are those of long-mode paging, read by the nested rules: every access of a guest, that of
 * its table walk included, counts as a user access, so that U/S must be 1 on the whole way; global
 * pages do not exist (APM Vol. 2, 15.25.5 "Nested Table Walk"). Whether bit 63 is NX or reserved
 * the host's EFER.NXE says. The memory type is an index into the host's PAT, and combines with the
 * one that the guest has from its own PAT (15.25.8): there is no bit that has the guest's ignored.
 */
#include "arch/x86_64/mm/npt.h"

#include "arch/x86_64/mm/host_entry.h"
#include "arch/x86_64/mm/tlb.h"
#include "mm/paging/ops.h"

static uint64_t npt_encode(struct attrs attrs, unsigned level, const struct table_caps *caps)
{
    return (host_encode(attrs, level, caps) & ~PTE_G) | PTE_US;
}

static unsigned npt_rights(uint64_t entry, const struct table_caps *caps)
{
    return host_table_rights(entry, caps) & RIGHT_RWX;
}

static struct attrs npt_decode(uint64_t entry, unsigned level, const struct table_caps *caps)
{
    struct attrs host = host_decode(entry, level, caps);

    return attrs_of(npt_rights(entry, caps), (enum mem_type)host.type);
}

/* APM Vol. 2, 5.3.3 and 5.3.4: as the host's, and bit 8 of an entry of the highest levels and of a
 * PDPE that refers to a table. */
static uint64_t npt_reserved(unsigned level, bool leaf, const struct table_caps *caps)
{
    return host_reserved(level, leaf, caps) | (level >= 3 && !leaf ? PTE_G : 0);
}

/* APM Vol. 2, 15.16 "TLB Control": all that is tagged with the guest's ASID, at its next entry.
 * INVLPGA takes a linear address of the guest's, which nobody here knows. */
static void npt_flush(struct table *table, const struct flush_batch *batch)
{
    (void)batch;
    tlb_flush_asid(table->tag);
}
#ifndef KIND_LEVELS
#define KIND_LEVELS 4 /* a test compiles this file with 5 */
#endif

static const struct table_ops npt_ops;

const struct table_kind npt_kind = {
    .name = "NPT",
    .id = KIND_NPT,
    .purpose = PURPOSE_NPT_TABLE,
    .levels = KIND_LEVELS,
    .index_bits = 9,
    .entry_bytes = 8,
    .input_first = 0,
    .input_last = KIND_LEVELS == 4 ? BITS(47, 0) : BITS(51, 0), /* physical addresses end there */
    .present_mask = PTE_P,
    .leaf_bit = PTE_PS,
    .accessed_bit = PTE_A,
    .dirty_bit = PTE_D,
    .required_bits = PTE_US,
    .table_bits = PTE_P | PTE_RW | PTE_US | PTE_A,
    .encode = npt_encode,
    .decode = npt_decode,
    .table_rights = npt_rights,
    .reserved = npt_reserved,
    .flush = npt_flush,
    .ops = &npt_ops,
};

#define KIND npt_kind
#define KIND_NAME npt
#include "mm/paging/template.h"

/* ---- The root register --------------------------------------------------------------------- */

uint64_t ncr3_compose(hpa_t root)
{
    return root.v & ENTRY_ADDRESS; /* PAT entry 0: write-back */
}

int ncr3_decode(uint64_t raw, unsigned maxphyaddr, struct ncr3 *out)
{
    unsigned index = (raw & NCR3_PWT ? 1u : 0) | (raw & NCR3_PCD ? 2u : 0);

    *out = (struct ncr3){
        .raw = raw,
        .root = hpa(raw & ENTRY_ADDRESS),
        .type = pat_type(index),
    };
    if (raw & (BITS(11, 5) | BITS(2, 0) | BITS(63, 52)))
        return E_ILLEGAL;
    return maxphyaddr < 52 && (raw & BITS(51, maxphyaddr)) ? E_ILLEGAL : E_OK;
}
