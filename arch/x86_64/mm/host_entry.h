/*
 * Entries of the host's own page tables, 4-level and 5-level: bits, and encode and decode between
 * them and mm/paging/attrs.h. Shared by the kernel and the user kind, which differ in their input
 * range and in who may come through a non-leaf entry.
 *
 * SDM Vol. 3, 4.5.4 "Linear-Address Translation with 4-Level Paging and 5-Level Paging", tables
 * 4-15 to 4-20; memory types by 12.12 "Page Attribute Table", with the PAT that arch/x86_64/cpu.c
 * loads.
 */
#ifndef QUIRE_ARCH_X86_64_MM_HOST_ENTRY_H
#define QUIRE_ARCH_X86_64_MM_HOST_ENTRY_H

#include "mm/paging/kind.h"

#define PTE_P BIT(0)
#define PTE_RW BIT(1)
#define PTE_US BIT(2)
#define PTE_PWT BIT(3)
#define PTE_PCD BIT(4)
#define PTE_A BIT(5)
#define PTE_D BIT(6)
#define PTE_PS BIT(7)     /* levels 2 and 3: a leaf */
#define PTE_PAT_4K BIT(7) /* level 1 */
#define PTE_G BIT(8)
#define PTE_PAT_LARGE BIT(12)
#define PTE_NX BIT(63)

/* Which PAT entry holds a memory type: PA0 WB, PA1 WT, PA2 UC-, PA3 UC, PA4 WC, PA5 WP. */
static inline unsigned pat_index(enum mem_type type)
{
    switch (type) {
    case MEM_WB:
        return 0;
    case MEM_WT:
        return 1;
    case MEM_UC:
        return 3;
    case MEM_WC:
        return 4;
    case MEM_WP:
        return 5;
    }
    return 3;
}

static inline enum mem_type pat_type(unsigned index)
{
    static const uint8_t types[8] = {MEM_WB, MEM_WT, MEM_UC, MEM_UC,
                                     MEM_WC, MEM_WP, MEM_UC, MEM_UC};
    return (enum mem_type)types[index & 7];
}

static inline uint64_t host_encode(struct attrs attrs, unsigned level,
                                   const struct table_caps *caps)
{
    unsigned pat = pat_index((enum mem_type)attrs.type);
    uint64_t entry = 0;

    if (attrs.rights & RIGHT_R)
        entry |= PTE_P;
    if (attrs.rights & RIGHT_W)
        entry |= PTE_RW;
    if (attrs.rights & RIGHT_U)
        entry |= PTE_US;
    if (!(attrs.rights & RIGHT_X))
        entry |= PTE_NX;
    if ((attrs.rights & RIGHT_G) && caps->global)
        entry |= PTE_G;
    if (pat & 1)
        entry |= PTE_PWT;
    if (pat & 2)
        entry |= PTE_PCD;
    if (pat & 4)
        entry |= level == 1 ? PTE_PAT_4K : PTE_PAT_LARGE;
    if (level > 1)
        entry |= PTE_PS;
    return entry;
}

static inline unsigned host_table_rights(uint64_t entry, const struct table_caps *caps)
{
    (void)caps;
    return RIGHT_R | (entry & PTE_RW ? RIGHT_W : 0u) | (entry & PTE_US ? RIGHT_U : 0u) |
           (entry & PTE_NX ? 0u : RIGHT_X);
}

static inline struct attrs host_decode(uint64_t entry, unsigned level,
                                       const struct table_caps *caps)
{
    uint64_t pat_bit = level == 1 ? PTE_PAT_4K : PTE_PAT_LARGE;
    unsigned pat =
        (entry & PTE_PWT ? 1u : 0) | (entry & PTE_PCD ? 2u : 0) | (entry & pat_bit ? 4u : 0);

    return attrs_of(host_table_rights(entry, caps) | (entry & PTE_G ? RIGHT_G : 0u), pat_type(pat));
}

static inline uint64_t host_reserved(unsigned level, bool leaf, const struct table_caps *caps)
{
    uint64_t reserved = caps->nx ? 0 : PTE_NX;

    if (level >= 4)
        reserved |= PTE_PS;
    if (leaf && level == 2)
        reserved |= BITS(20, 13);
    if (leaf && level == 3)
        reserved |= BITS(29, 13);
    return reserved;
}

#endif
