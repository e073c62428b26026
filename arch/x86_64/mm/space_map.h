/*
 * The one way in which ranges enter and leave the hypervisor's half of a table: global where the
 * CPU has global pages, with the flush done on return.
 */
#ifndef QUIRE_ARCH_X86_64_MM_SPACE_MAP_H
#define QUIRE_ARCH_X86_64_MM_SPACE_MAP_H

#include "mm/paging/typed.h"

static inline struct attrs space_attrs(const struct table *table, unsigned rights,
                                       enum mem_type type)
{
    return attrs_of(rights | (table->caps.global ? RIGHT_G : 0u), type);
}

/* Maps [at, at + size), which must be absent, to `to`. A range of size 0 is done already. */
static inline int space_map(struct table *table, hva_t at, hpa_t to, uint64_t size, unsigned rights,
                            enum mem_type type)
{
    struct flush_batch batch;
    int error;

    if (size == 0)
        return E_OK;
    flush_begin(&batch, table);
    error = hva_map(table, at, to, size, space_attrs(table, rights, type), MAP_DEFAULT, &batch);
    flush_commit(&batch);
    return error;
}

static inline int space_unmap(struct table *table, hva_t at, uint64_t size)
{
    struct flush_batch batch;
    int error;

    flush_begin(&batch, table);
    error = hva_unmap(table, at, size, &batch);
    flush_commit(&batch);
    return error;
}

#endif
