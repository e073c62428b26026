/*
 * What a table kind's file gets from the walker: one function for each operation of mm/table.h, with
 * the kind folded in. Callers use mm/table.h, which looks the table's kind up once an operation.
 */
#ifndef QUIRE_MM_TABLE_OPS_H
#define QUIRE_MM_TABLE_OPS_H

#include "mm/table.h"

struct table_ops {
    int (*map)(struct table *, uint64_t in, hpa_t out, uint64_t size, struct attrs, unsigned flags,
               struct flush_batch *);
    int (*unmap)(struct table *, uint64_t in, uint64_t size, struct flush_batch *);
    int (*protect)(struct table *, uint64_t in, uint64_t size, struct attrs, struct flush_batch *);
    int (*split)(struct table *, uint64_t in, uint64_t size, unsigned level, struct flush_batch *);
    int (*merge)(struct table *, uint64_t in, uint64_t size, struct flush_batch *);
    int (*map_fresh)(struct table *, uint64_t in, uint64_t size, struct attrs, unsigned flags,
                     struct page_source *);
    int (*clone)(struct table *to, struct table *from, uint64_t in, uint64_t size,
                 struct flush_batch *);
    int (*copy)(struct table *to, struct table *from, uint64_t in, uint64_t size,
                struct page_source *);
    int (*translate)(struct table *, uint64_t in, struct mapping *);
    void (*walk)(struct table *, uint64_t in, struct walk *);
    int (*visit)(struct table *, uint64_t first, uint64_t last, unsigned flags, visit_fn, void *);
    int (*visit_frames)(struct table *, table_frame_fn, void *);
    int (*harvest)(struct table *, uint64_t in, uint64_t size, unsigned clear, visit_fn, void *,
                   struct flush_batch *);
    int (*preallocate)(struct table *);
    /* Gives back the table frame `root` (at `level`) and all table frames below it. Of the root of the
     * whole table only the slots of the kind's own input range are followed. */
    void (*free_subtree)(struct table *, hpa_t root, unsigned level);
};

#endif
