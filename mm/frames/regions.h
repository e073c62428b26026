/*
 * The address space as a row of segments: what memblock's two lists are made of.
 *
 *    0        4 MiB       6 MiB                  top
 *    |  gap   |  usable   |  gap                 |        a node for each segment, at its start
 *
 * Each address lies in exactly one segment. A segment has flags, or it is a gap. Neighbours differ:
 * segments that become alike are joined. The nodes are a treap in an array: a search tree by start,
 * and a heap by a hash of the node's index, so that its depth is logarithmic whatever the order in
 * which changes come.
 *
 * Cost: a change or a question takes O(log n) steps, amortised, however many segments the range of
 * a change covers. Each node knows the lowest level below it, so that a change skips what stands
 * against it; what it does not skip it raises or removes. A change next to the one before it starts
 * there and not at the root: input in ascending or descending order costs O(1) each.
 */
#ifndef QUIRE_MM_REGIONS_H
#define QUIRE_MM_REGIONS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/error.h"

struct memregion {
    uint64_t base, size; /* bytes */
    uint32_t flags;
};

struct region_node {
    uint64_t start;  /* the segment ends where the next one starts */
    uint32_t level;  /* 0: a gap; otherwise flags + 1 */
    uint32_t lowest; /* level in this subtree */
    uint32_t parent, child[2];
};

struct memregions {
    struct region_node *nodes; /* the first is not a node: it stands for "none" */
    size_t capacity, used;     /* nodes */
    size_t count;              /* segments that are no gap */
    uint32_t root, free;       /* free: a list through `parent` */
    uint32_t recent;           /* where the last change was */
};

#define REGION_FLAGS_MAX (UINT32_MAX - 2)

/* Nodes that `regions` regions need, none next to another. */
#define REGION_NODES(regions) (2 * (size_t)(regions) + 2)

struct memsegment {
    uint64_t first, last; /* inclusive */
    bool gap;
    uint32_t flags; /* unless it is a gap */
};

/* Starts as one gap, in `capacity` nodes (2 or more, below 2^32) that may hold anything. */
void regions_init(struct memregions *list, struct region_node *nodes, size_t capacity);

/* Goes on in a larger array. */
void regions_move(struct memregions *list, struct region_node *nodes, size_t capacity);

/* Changes of [first, last]. E_FULL, and nothing is changed: no nodes left for the new edges. */
int regions_set(struct memregions *list, uint64_t first, uint64_t last, uint32_t flags);
int regions_clear(struct memregions *list, uint64_t first, uint64_t last);
/* Gaps and segments with lower flags get these; the others stand. */
int regions_raise(struct memregions *list, uint64_t first, uint64_t last, uint32_t flags);

/* The segment that an address lies in. */
struct memsegment regions_segment(const struct memregions *list, uint64_t address);

/* The region that `from` lies in, whole, or the first one above; the one behind `region`. False:
 * there is none. A region of all 2^64 bytes has no size that fits: it comes in two halves. */
bool regions_from(const struct memregions *list, uint64_t from, struct memregion *region);
bool regions_next(const struct memregions *list, struct memregion *region);

#define regions_each(region, list)                                                                 \
    for (bool more_ = regions_from(list, 0, region); more_; more_ = regions_next(list, region))

#endif
