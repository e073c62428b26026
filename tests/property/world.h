/*
 * A world for the mapper: a small physical memory, one table under test, a flat model of what it
 * should map, and CPUs that use it at the worst moments.
 *
 * - Every store into the live table is seen (tests/property/pte_hooks.h). After each, walks written
 * here from the manual find for each page of the window the old translation or the new one, never a
 * third, and never the old one again; what a store publishes is whole; each entry stored is legal
 * by the SDM (sdm_rules.h). A store that went round mm/paging/pte.h shows as a difference to the
 * copies kept here.
 * - Between any two accesses of the mapper the CPUs walk: they set A and D, also through
 * paging-structure entries that have gone stale, and they fill their TLBs. A flush reaches them one
 * by one, each doing what INVLPG or a flush of the context does and no more. When an operation
 * returns, no CPU holds what the table does not say; no frame is given back that a CPU may still
 * walk or translate to.
 * - No A or D that a CPU has set is lost, whatever was going on.
 *
 * A cell of the model is a 4 KiB page, or a 2 MiB piece so that 1 GiB leaves come into play.
 */
#ifndef QUIRE_TESTS_PROPERTY_WORLD_H
#define QUIRE_TESTS_PROPERTY_WORLD_H

#include "mm/paging/table.h"
#include "tests/property/sdm_rules.h"
#include "tests/unit/random.h"

#define CELLS 1152
#define WORLD_OWNER 40
#define STORE_EVENTS 4

struct land {
    const char *name;
    const struct table_kind *kind;
    enum sdm_format format;
    uint64_t window_4k, window_2m; /* where the window of either sort of cell begins */
};

#define LANDS 8
extern const struct land
    lands[LANDS]; /* kernel, user, EPT; the same with 5 levels; NPT, with 4 and 5 */

struct cell {
    bool present;
    uint64_t out;
    struct attrs attrs;
};

struct found {
    bool present, accessed, dirty;
    uint64_t out; /* of the 4 KiB page at the address asked for */
    struct attrs attrs;
    unsigned level;
    uint64_t *slot;
};

struct world {
    const struct land *land;
    uint64_t base, unit, end; /* the window: [base, end) */
    struct table table;
    struct table other; /* of the same kind, which no CPU uses; empty between operations */
    struct cell cell[CELLS];
    struct random random;
    unsigned block; /* the cell at which a block was last mapped as a whole; 0: none */
    bool hardware;  /* CPUs are at work */
    bool brief;     /* an operation that is not what is tested: no checks at rest */
    bool strike; /* one CPU writes, at one moment: to this page, before the event of this number */
    unsigned strike_cell, strike_part;
    uint64_t strike_at, events;         /* moments of the operation so far */
    uint64_t store_event[STORE_EVENTS]; /* those of its first stores */
    uint64_t fail_in; /* this many more frames are given, then none; UINT64_MAX: no end */
    uint64_t taken;   /* table frames out, of all tables */
    uint64_t stores;  /* into live tables, since the operation began */
    /* For the report. */
    uint64_t all_stores, walks, flushes, needless;
};

extern struct world w;

/* What a CPU with everything offers to this format. */
struct table_caps world_caps(enum sdm_format format);

void world_start(const struct land *land, uint64_t unit, const struct table_caps *caps,
                 uint64_t seed);
/* Destroys the table and checks that everything came back. */
void world_end(void);

/* Each node's frame is recorded as one, with as many present entries as it has, and is counted in
 * its table. */
void world_check_frames(struct table *table);

/* A walk by the manual, from a root. */
struct found world_look(uint64_t root, uint64_t in);

enum world_op {
    OP_MAP,
    OP_REPLACE,
    OP_UNMAP,
    OP_PROTECT,
    OP_SPLIT,
    OP_MERGE,
    OP_SWEEP, /* merges, from the first cell to the end */
    OP_HARVEST,
    OP_CLONE,  /* into the other table; nothing stays there */
    OP_COPY,   /* likewise */
    OP_FRESH,  /* mapped to frames that the world supplies */
    OP_CURSOR, /* page by page, to each cell one of the actions in the flags */
    OP_COUNT
};

/* What a cursor may do to a cell (none of these: look); and whether it goes to and fro. */
enum cursor_flags { CURSOR_MAP = 1, CURSOR_UNMAP = 2, CURSOR_PROTECT = 4, CURSOR_SCATTER = 8 };

struct world_call {
    enum world_op op;
    unsigned first, count; /* cells */
    uint64_t out;          /* map: the first cell's */
    struct attrs attrs;
    unsigned flags;  /* map: the caps; harvest: what to clear; split: the level; cursor */
    unsigned refuse; /* for up to how many frames the allocator is made to fail first */
};

/* Runs it, with the k-th frame refused for each k below `refuse` first, and checks everything there
 * is to check. Returns what the mapper said. */
int world_run(const struct world_call *call);

/* Cuts a call down to what this world has memory for. */
void world_tame(struct world_call *call);

/* A random call that suits the world. */
struct world_call world_random_call(void);

/* Everything that holds at rest: cells, visitor, frames, records, caches. */
void world_check(void);

/* All CPUs cache all that they can of the window; or forget everything, as after a flush. */
void world_fill_caches(void);
void world_forget(void);

/* A test has set A or D in a slot itself, as a CPU would. */
void world_note(const uint64_t *slot);

/* One more table in the same memory, which CPUs do not use; its stores are judged as well. */
void world_table_init(struct table *table);
void world_table_end(struct table *table);

extern struct table_env world_env;

/* The end of the test: supplied by the program. */
_Noreturn void world_fail(const char *message);

/* Says what is wrong, and during which operation. */
_Noreturn void wrong(const char *format, ...) __attribute__((format(printf, 1, 2)));

#define must(condition)                                                                            \
    do {                                                                                           \
        if (!(condition))                                                                          \
            wrong("%s:%d: %s", __FILE__, __LINE__, #condition);                                    \
    } while (0)

#endif
