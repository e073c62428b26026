/*
 * table.h with typed addresses, so that the four kinds stay apart up to the mapper's door: gpa_ for
 * tables whose input is guest-physical (EPT), hva_ where it is host-virtual (kernel, user). Each
 * does what the table_ function of its name does. A struct mapping has its addresses raw.
 */
#ifndef QUIRE_MM_TYPED_H
#define QUIRE_MM_TYPED_H

#include "mm/paging/table.h"

/* ---- Guest-physical ------------------------------------------------------------------------- */

static inline int gpa_map(struct table *table, gpa_t at, hpa_t to, uint64_t size,
                          struct attrs attrs, unsigned flags, struct flush_batch *batch)
{
    return table_map(table, at.v, to, size, attrs, flags, batch);
}

static inline int gpa_unmap(struct table *table, gpa_t at, uint64_t size, struct flush_batch *batch)
{
    return table_unmap(table, at.v, size, batch);
}

static inline int gpa_translate(struct table *table, gpa_t at, struct mapping *out)
{
    return table_translate(table, at.v, out);
}

static inline uint64_t gpa_read(struct table *table, gpa_t from, unsigned rights, void *to,
                                uint64_t size)
{
    return table_read(table, from.v, rights, to, size);
}

static inline void gpa_walk(struct table *table, gpa_t at, struct walk *out)
{
    table_walk(table, at.v, out);
}

static inline int gpa_visit(struct table *table, gpa_t first, gpa_t last, unsigned flags,
                            visit_fn fn, void *ctx)
{
    return table_visit(table, first.v, last.v, flags, fn, ctx);
}

/* ---- Host-virtual --------------------------------------------------------------------------- */

static inline int hva_map(struct table *table, hva_t at, hpa_t to, uint64_t size,
                          struct attrs attrs, unsigned flags, struct flush_batch *batch)
{
    return table_map(table, at.v, to, size, attrs, flags, batch);
}

static inline int hva_unmap(struct table *table, hva_t at, uint64_t size, struct flush_batch *batch)
{
    return table_unmap(table, at.v, size, batch);
}

static inline int hva_protect(struct table *table, hva_t at, uint64_t size, struct attrs attrs,
                              struct flush_batch *batch)
{
    return table_protect(table, at.v, size, attrs, batch);
}

static inline int hva_translate(struct table *table, hva_t at, struct mapping *out)
{
    return table_translate(table, at.v, out);
}

static inline uint64_t hva_read(struct table *table, hva_t from, unsigned rights, void *to,
                                uint64_t size)
{
    return table_read(table, from.v, rights, to, size);
}

static inline void hva_walk(struct table *table, hva_t at, struct walk *out)
{
    table_walk(table, at.v, out);
}

static inline int hva_visit(struct table *table, hva_t first, hva_t last, unsigned flags,
                            visit_fn fn, void *ctx)
{
    return table_visit(table, first.v, last.v, flags, fn, ctx);
}

#endif
