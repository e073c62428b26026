/*
 * What the files of the world (tests/property/world*.c) know of each other; tests see world.h.
 *
 *   world.c            its memory, its beginning and its end
 *   world_walk.c       the manual's walk, and the cells of the model
 *   world_hardware.c   CPUs with TLBs and paging-structure caches, which load and leave the table
 *   world_shadow.c     copies of all live nodes
 *   world_stores.c     judges each store into a live table
 *   world_env.c        frames and flushes, as the table asks for them
 *   world_pages.c      a source of data blocks, and what a copy has made of them
 *   world_rest.c       what holds between operations
 *   world_run.c        an operation under all judges
 *   world_cursor.c     the same, page by page by a cursor
 *   world_random.c     which operation is next
 */
#ifndef QUIRE_TESTS_PROPERTY_WORLD_INTERNAL_H
#define QUIRE_TESTS_PROPERTY_WORLD_INTERNAL_H

#include <string.h>

#include "mm/frames/buddy.h"
#include "tests/property/world.h"

#define ARENA_BYTES (24 * MiB)
#define FRAMES (ARENA_BYTES / PAGE_SIZE)

/* Beyond what the buddy has: the data blocks that a page source hands out, round and round. */
#define DATA_BYTES (8 * MiB)

/* Two blocks of 512 cells, with 64 cells on either side; a boundary of higher tables between. */
#define SIDE_CELLS 64
#define BLOCK_CELLS 512

/* The pages of a cell that CPUs use, and that are watched: its first, and of 2 MiB its last. */
#define PARTS 2

extern uint8_t *arena;         /* all memory there is */
extern struct sdm_cpu sdm_cpu; /* as the manual's rules see the CPU */
extern struct random chance;   /* of what hardware does */

/* ---- Copies of all live nodes (world_shadow.c) ---- */

struct shadow {
    uint64_t entry[512];
    uint64_t in; /* the lowest input address that it covers */
    unsigned level;
    bool main; /* of the world's own table */
    bool dead; /* taken out, and not yet given back: hardware alone may write to it ... */
    bool gone; /* ... until a flush has made every CPU forget it */
};

extern struct shadow *shadows[FRAMES];

static inline struct shadow *shadow_of(uint64_t frame)
{
    return shadows[frame / PAGE_SIZE];
}

/* The input address of a slot. */
uint64_t slot_in(const struct shadow *shadow, unsigned index);
/* Judges what is stored at `level`. */
struct sdm_entry judge(uint64_t entry, unsigned level);
/* A node has become reachable: it must be whole, and so must all that is below it. */
void adopt(uint64_t frame, unsigned level, uint64_t in, bool main);
/* A node is no longer reachable, nor is anything below it. */
void mark_dead(uint64_t frame);
/* Until a flush, nobody but hardware writes into a dead node. */
void check_undisturbed(uint64_t frame);
/* A flush is done: nobody walks any more through what was dead. */
void forget_dead(bool main, const struct flush_batch *batch);
void drop_shadow(uint64_t frame);
/* No store went round the hooks, and every frame that was taken is reached. */
void check_shadows(void);

/* ---- The operation that is under way (world_run.c) ---- */

struct operation {
    bool active;
    unsigned quiet; /* of so many moments one is used */
    struct world_call call;
    struct cell after[CELLS];
    bool kept[CELLS]; /* the same page before and after: its A and D must survive */
    bool seen_new[CELLS][PARTS];
    bool cleared_a[CELLS][PARTS], cleared_d[CELLS][PARTS]; /* by a harvest, which must tell */
    bool told_a[CELLS][PARTS], told_d[CELLS][PARTS];
    uint64_t block[CELLS][PARTS]; /* what a page source has supplied: the page's address */
    uint64_t next;                /* the input address of the next block */
    unsigned blocks;              /* supplied, not taken back */
    bool owes;                    /* something stored since the last flush needs one */
    bool destroying;
};

extern struct operation op;

/* What a CPU has set in the page that a cell maps (or, the second pair, will map). */
extern bool accessed[CELLS][PARTS], dirty[CELLS][PARTS];
extern bool accessed_new[CELLS][PARTS], dirty_new[CELLS][PARTS];

/* ---- The manual's walk (world_walk.c): whether entries are legal is judged when they are stored
 */

static inline uint8_t *world_memory(uint64_t address)
{
    if (address >= ARENA_BYTES)
        wrong("a table at %#lx, outside memory", address);
    return arena + address;
}

static inline uint64_t *table_at(uint64_t frame)
{
    return (uint64_t *)(void *)world_memory(frame);
}

static inline uint64_t frame_in(uint64_t entry)
{
    return entry & 0x000ffffffffff000;
}

static inline bool present(uint64_t entry)
{
    if (w.land->format == SDM_EPT)
        return (entry & (sdm_cpu.user_execute ? 0x407 : 7)) != 0;
    return entry & 1;
}

static inline bool page(uint64_t entry, unsigned level)
{
    return level == 1 || (level <= 3 && sdm_bit(entry, 7));
}

unsigned rights_of(uint64_t entry);
/* The type and the global flag of a page's entry, with the rights that the way to it leaves. */
struct attrs attrs_in(uint64_t entry, unsigned level, unsigned rights);

static inline uint64_t page_start(uint64_t entry, unsigned level)
{
    return frame_in(entry) & ~(sdm_page_bytes(level) - 1);
}

static inline unsigned index_in(uint64_t in, unsigned level)
{
    return (in >> (12 + 9 * (level - 1))) & 511;
}

/* ---- Cells ---- */

static inline uint64_t cell_in(unsigned i)
{
    return w.base + i * w.unit;
}

static inline unsigned parts(void)
{
    return w.unit == PAGE_SIZE ? 1 : PARTS;
}

static inline uint64_t part_offset(unsigned part)
{
    return part ? w.unit - PAGE_SIZE : 0;
}

static inline bool part_within(unsigned i, unsigned part, uint64_t in, uint64_t bytes)
{
    return cell_in(i) + part_offset(part) - in < bytes;
}

/* The cells that [in, in + bytes) covers. */
void cells_of(uint64_t in, uint64_t bytes, unsigned *first, unsigned *end);
bool says(const struct found *found, const struct cell *cell, uint64_t offset);

/* ---- CPUs (world_hardware.c) ---- */

#define CPUS 4

/* A moment between two steps of the mapper: some CPU uses some page. */
void some_access(uint64_t in, uint64_t bytes);
/* Each CPU that may hold translations forgets what the batch names, by the hypervisor's own
 * protocol, sooner or later, while the rest go on. */
void cpus_invalidate(const struct flush_batch *batch);
/* An EPT violation walks the tables anew before it is reported; a page fault goes to a handler, and
 * ours does not retry (SDM Vol. 3, 29.4.3.1 and 4.10.4.3). */
bool added_rights_are_free(void);
/* At rest: what a CPU holds is what the table says. */
void check_caches(void);
/* No CPU walks through a frame in there; nor translates to it. */
void check_not_walked(uint64_t first, uint64_t bytes);
void check_unreachable(uint64_t first, uint64_t bytes);

/* ---- By a cursor (world_cursor.c) ---- */

/* What a cursor does to a cell: OP_MAP, OP_UNMAP, OP_PROTECT; OP_COUNT: it looks. */
enum world_op cursor_action(const struct world_call *call, unsigned i);
int apply_by_cursor(const struct world_call *call);
void check_by_cursor(void);

/* ---- Blocks of data (world_pages.c) ---- */

extern struct page_source world_source;

/* What a clone or a copy has put into the other table; and out with it. */
void check_other(void);

/* The table's environment as this world's seed wants it (world_env.c). */
void choose_env(uint64_t seed);

#endif
