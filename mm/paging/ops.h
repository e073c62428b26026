/*
 * What the template (mm/paging/template.h) makes for a kind. The functions of mm/paging/table.h and
 * mm/paging/cursor.h come here by one indirect call, and mean what is said there.
 */
#ifndef QUIRE_MM_PAGING_OPS_H
#define QUIRE_MM_PAGING_OPS_H

#include "mm/paging/table.h"

struct table_cursor;
struct returned;

struct table_ops {
    int (*map)(struct table *, uint64_t in, hpa_t out, uint64_t size, struct attrs, unsigned flags,
               struct flush_batch *);
    int (*unmap)(struct table *, uint64_t in, uint64_t size, struct flush_batch *);
    int (*protect)(struct table *, uint64_t in, uint64_t size, struct attrs, struct flush_batch *);
    int (*split)(struct table *, uint64_t in, uint64_t size, unsigned level, struct flush_batch *);
    int (*merge)(struct table *, uint64_t in, uint64_t size, struct flush_batch *);
    int (*map_fresh)(struct table *, uint64_t in, uint64_t size, struct attrs, unsigned flags,
                     struct page_source *);
    int (*clone)(struct table *to, struct table *from, uint64_t in, uint64_t size, clone_fn,
                 struct flush_batch *);
    int (*copy)(struct table *to, struct table *from, uint64_t in, uint64_t size,
                struct page_source *);
    int (*translate)(struct table *, uint64_t in, struct mapping *);
    void (*walk)(struct table *, uint64_t in, struct walk *);
    int (*visit)(struct table *, uint64_t first, uint64_t last, unsigned flags, visit_fn, void *);
    int (*visit_nodes)(struct table *, table_node_fn, void *);
    int (*harvest)(struct table *, uint64_t in, uint64_t size, unsigned clear, visit_fn, void *,
                   struct flush_batch *);
    /* Gives back the node `root` (at `level`) and all nodes below it. */
    void (*free_subtree)(struct returned *, hpa_t root, unsigned level);

    int (*cursor_map)(struct table_cursor *, hpa_t out, struct attrs);
    int (*cursor_unmap)(struct table_cursor *);
    int (*cursor_protect)(struct table_cursor *, struct attrs);
    int (*cursor_next)(struct table_cursor *, struct mapping *);
    void (*cursor_seek)(struct table_cursor *, uint64_t at);
    void (*cursor_close)(struct table_cursor *);
};

#endif
