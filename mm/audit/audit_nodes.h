/*
 * Every node of a table, shown before it is read: for a reader that does not trust the table. This
 * stands in for the mapper's own operation of this name.
 */
#ifndef QUIRE_MM_AUDIT_NODES_H
#define QUIRE_MM_AUDIT_NODES_H

#include "mm/paging/table.h"

struct table_node {
    hpa_t frame;
    unsigned level;
    uint64_t first, last; /* input addresses that it covers */
    unsigned rights;      /* that the entries above let through */
    hpa_t parent;         /* the node that holds the entry which led here; 0 for the root ... */
    unsigned index;       /* ... and which entry */
};

enum node_verdict { NODE_ENTER, NODE_SKIP, NODE_STOP };
typedef enum node_verdict (*table_node_fn)(void *ctx, const struct table_node *node);

/* Calls `fn` for each node, the root first, parents before children, the lowest input address
 * first; before anything of the node is read. Below a node that is entered, each present non-leaf
 * entry is followed, whatever else it holds. Non-zero when `fn` said NODE_STOP. */
int table_visit_nodes(struct table *table, table_node_fn fn, void *ctx);

#endif
