/*
 * The user kind: a ring-3 program's half of the address space. The kernel's half is shared, so that
 * a trap needs no change of tables (table_share_upper()).
 */
#ifndef QUIRE_ARCH_X86_64_MM_USER_H
#define QUIRE_ARCH_X86_64_MM_USER_H

#include "arch/x86_64/mm/layout.h"
#include "mm/paging/table.h"

static inline int user_map(struct table *table, hva_t at, hpa_t to, uint64_t size,
                           struct attrs attrs, struct flush_batch *batch)
{
    return table_map(table, at.v, to, size, attrs, MAP_DEFAULT, batch);
}

static inline int user_translate(struct table *table, hva_t at, struct mapping *out)
{
    return table_translate(table, at.v, out);
}

#endif
