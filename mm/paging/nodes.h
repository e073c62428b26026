/*
 * The frames that nodes lie in: taken before a writer stores, counted while they live, given back
 * after the flush. The same for every kind.
 */
#ifndef QUIRE_MM_PAGING_NODES_H
#define QUIRE_MM_PAGING_NODES_H

#include "mm/paging/table.h"

/* ---- The count of a node's present entries, in its frame's record (mm/frames/frame.h) -------- */

static inline void count_set(const struct table *t, uint64_t node, uint64_t entries)
{
    if (t->env->frame_records)
        frame_set_payload(hpa(node), entries);
}

static inline uint64_t count_of(const struct table *t, uint64_t node)
{
    return t->env->frame_records ? frame_payload(hpa(node)) : 1;
}

/* So many more, or (negative) fewer. Returns how many there are now. */
static inline uint64_t count_add(const struct table *t, uint64_t node, uint64_t entries)
{
    uint64_t count = count_of(t, node) + entries;

    count_set(t, node, count);
    return count;
}

/* ---- The supply: frames that are taken and not used yet -------------------------------------- */

/* A chain of frame numbers + 1; 0 is the end. Each frame's record names the next one, so that no
 * frame is touched before it is filled; before there are records, its first word does. */
struct supply {
    uint64_t first;
};

/* So many, or an error and none. */
int supply_take(struct table *t, uint64_t needed, struct supply *supply);

/* The frame of a node that will be filled. */
uint64_t supply_pop(const struct table *t, struct supply *supply);

/* Adds a node that is empty again. */
void supply_push(const struct table *t, struct supply *supply, hpa_t frame);

/* Gives back what is left. */
void supply_return(struct table *t, struct supply *supply);

/* ---- Nodes on their way back, so that many cost one call ------------------------------------- */

#define RETURNED_FRAMES 128
#define RETURNED_FEW 8

struct returned {
    struct table *table;
    unsigned count;
    hpa_t frame[RETURNED_FRAMES];
};

static inline void returned_start(struct returned *returned, struct table *t)
{
    returned->table = t;
    returned->count = 0;
}

void returned_add(struct returned *returned, hpa_t node);

/* Gives back what was added. */
void returned_end(struct returned *returned);

#endif
