/*
 * The kernel kind: the hypervisor's own half of the address space, and the one table of it.
 */
#ifndef QUIRE_ARCH_X86_64_MM_KERNEL_H
#define QUIRE_ARCH_X86_64_MM_KERNEL_H

#include "mm/paging/table.h"

/* The hypervisor's table; built by kernel_space_build(). root.v is 0 until then. */
extern struct table kernel_table;

static inline int kernel_map(hva_t at, hpa_t to, uint64_t size, struct attrs attrs, unsigned flags,
                             struct flush_batch *batch)
{
    return table_map(&kernel_table, at.v, to, size, attrs, flags, batch);
}

static inline int kernel_unmap(hva_t at, uint64_t size, struct flush_batch *batch)
{
    return table_unmap(&kernel_table, at.v, size, batch);
}

static inline int kernel_translate(hva_t at, struct mapping *out)
{
    return table_translate(&kernel_table, at.v, out);
}

#endif
