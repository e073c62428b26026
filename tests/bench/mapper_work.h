/*
 * What bench_mapper.c times: the mapper's work, and the plain loops that it is held against. In a
 * file of its own so that both are compiled with the same flags, those of the hypervisor (no vector
 * registers, and so no floating point) as well as others.
 */
#ifndef QUIRE_TESTS_BENCH_MAPPER_WORK_H
#define QUIRE_TESTS_BENCH_MAPPER_WORK_H

#include "mm/paging/cursor.h"

/* What the row at hand works on. */
struct work {
    struct table table;
    uint64_t base, size; /* the range */
    unsigned flags;      /* of map */
    unsigned shift;      /* of a page of the row */
    uint64_t *plain;     /* where plain loops store: as many entries as the largest row has */
    uint64_t **leaf_tables;
    uint64_t leaf_count;
    uint8_t *other; /* OTHER_BYTES that are nobody's */
};
extern struct work work;

#define OTHER_BYTES (256 * MiB)

void table_start(struct table *table, const struct table_kind *kind, owner_t owner);
void work_start(const struct table_kind *kind, owner_t owner);
void work_end(void);
void note_leaf_tables(void); /* fills leaf_tables from the table */

/* Set-up and tear-down. */
void map_it(void);
void map_it_2m(void);
void unmap_it(void);
void lone_pages_in(void);   /* other lone pages are mapped ... */
void lone_pages_next(void); /* ... or only chosen, ... */
void lone_pages_out(void);  /* ... and unmapped */
void make_cold(void);       /* drives what nobody has used lately out of the caches */

/* Each does its work and returns how many times. */
uint64_t work_map(void);
uint64_t work_unmap(void);
uint64_t work_split(void);
uint64_t work_protect(void);
uint64_t work_translate(void);
uint64_t work_cursor_map(void);
uint64_t work_cursor_unmap(void);
uint64_t work_cursor_protect(void);
uint64_t work_cursor_translate(void);
uint64_t work_lone_map(void);
uint64_t work_lone_unmap(void);
uint64_t work_lone_protect(void);
uint64_t work_lone_nodes(void);

/* The range of the row in a table of one's own. */
uint64_t cursor_map_pages(struct table *table, struct table_cursor *c);
uint64_t cursor_unmap_pages(struct table *table, struct table_cursor *c);

uint64_t loop_store(void);
uint64_t loop_zero_and_fill(void);
uint64_t loop_four_loads(void);
uint64_t loop_lone(void);
uint64_t loop_zero_three(void);
uint64_t loop_exchange(void);

/* harvest_work.c, over leaf_tables: */
void set_marks(void); /* A and D of every page */
uint64_t work_harvest(void);
uint64_t loop_read(void);
uint64_t loop_clear(void);

#endif
