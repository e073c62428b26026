/*
 * Page tables of any kind: the mapper's public face.
 *
 * A struct table is one root with its kind, what the CPU offers, and where frames and flushes come
 * from. Input addresses (`in`) are host-virtual for the kernel and user kinds and guest-physical
 * for EPT; callers who know which use the typed doors of mm/paging/typed.h.
 *
 * Every writer keeps five promises (docs/ARCHITECTURE.md, "Contracts"): all or nothing; one atomic
 * store an entry; flush, then free; legal entries only; large pages stay whole. Writers answer with
 * a flush batch (mm/paging/flush.h) which the caller must commit:
 *
 *     struct flush_batch batch;
 *     flush_begin(&batch, table);
 *     int error = table_unmap(table, in, size, &batch);
 *     flush_commit(&batch);           // invalidates, waits, then frees what died
 *
 * Ranges are (in, size); size 0 is E_INVAL. A range that ends at 2^64 is expressed without overflow
 * because in + size - 1 is its last address.
 *
 * Offered as a library, and not used by this hypervisor: table_map_fresh() with page_source.h, and
 * table_copy().
 */
#ifndef QUIRE_MM_TABLE_H
#define QUIRE_MM_TABLE_H

#include <stdbool.h>
#include <stdint.h>

#include "lib/error.h"
#include "lib/lock.h"
#include "mm/addr.h"
#include "mm/paging/attrs.h"
#include "mm/paging/flush.h"
#include "mm/frames/frame.h"
#include "mm/paging/kind.h"
#include "mm/trace.h"

/* Where a table's own frames come from and where its flushes go. Hosted tests supply theirs. */
struct table_env {
    /* One 4 KiB frame for a table, contents arbitrary. E_NOMEM or E_QUOTA. */
    int (*take)(const struct table_env *env, struct table *table, hpa_t *out);
    void (*give)(const struct table_env *env, struct table *table, hpa_t frame);
    /* Makes every CPU forget what the batch names, and returns when all have, each of them out of
     * any read of this table (translate, walk, visit: they take no lock) that it was in. Merge and
     * protect call it with the table's lock held, for which other CPUs may be spinning: these have
     * to answer from there. */
    void (*flush)(const struct table_env *env, struct table *table,
                  const struct flush_batch *batch);
    /* Keep the count of present entries in each node's frame record (mm/frames/frame.h). False only
     * before the frame database exists; table_adopt() then catches up. */
    bool frame_records;
    /* Many that died together; NULL: each by give(). */
    void (*give_many)(const struct table_env *env, struct table *table, const hpa_t *frames,
                      unsigned count);
};

struct table {
    const struct table_kind *kind;
    const struct table_ops *ops; /* the kind's */
    struct table_caps caps;
    const struct table_env *env;
    hpa_t root;
    struct lock lock;
    owner_t owner;
    enum frame_purpose purpose; /* of its table frames */
    uint16_t tag;               /* PCID or VPID */
    uint64_t table_frames;      /* root included, shared kernel half excluded */
    struct flush_counters {
        uint64_t asked;         /* ranges that writers handed to a batch */
        uint64_t ranges, whole; /* invalidations done, by range and of the whole context */
        uint64_t spared;        /* writes that needed none: absent to present */
    } flushes;
    uint64_t generation;   /* the environment's: flushes of this table, where it counts them */
    uint64_t open_batches; /* that owe something and were not committed: 0 at rest */
    /* Told of each page whose D is set by software, for an access that it carries out; NULL: nobody
     * is. Whoever sets it calls (arch/x86_64/mm/guest_memory.h). */
    void (*marked)(struct table *table, uint64_t in);
    bool root_pinned; /* root entries are shared with other tables: never removed */
};

/* Takes a root frame and starts an empty table. */
int table_init(struct table *table, const struct table_kind *kind, const struct table_caps *caps,
               const struct table_env *env, enum frame_purpose purpose, owner_t owner);

struct mapping;

enum map_flags {
    MAP_DEFAULT = 0, /* E_EXIST when any page of the range is mapped already */
    MAP_REPLACE = 1, /* replace what is there */
    MAP_CAP_4K = 2,  /* no leaf larger than 4 KiB ... */
    MAP_CAP_2M = 4,  /* ... than 2 MiB */
};

/* Maps [in, in + size) to [out, out + size), at the largest leaves that alignment, the CPU and the
 * caps in `flags` allow. E_ALIGN, E_RANGE (input width, canonical form, maxphyaddr, wrap),
 * E_ILLEGAL (attributes that this kind or CPU cannot express), E_EXIST, E_NOMEM. */
int table_map(struct table *table, uint64_t in, hpa_t out, uint64_t size, struct attrs attrs,
              unsigned flags, struct flush_batch *batch);

/* Removes every mapping in the range; holes are fine. A large page that the range covers in part is
 * split first. What the leaves pointed at is the caller's: visit first, or add it to the batch. A
 * and D go with the entries: who wants the last of the dirty bits takes the right to write first,
 * then harvests, then unmaps. */
int table_unmap(struct table *table, uint64_t in, uint64_t size, struct flush_batch *batch);

/* Gives every mapping in the range these attributes; holes stay holes. A and D are kept. */
int table_protect(struct table *table, uint64_t in, uint64_t size, struct attrs attrs,
                  struct flush_batch *batch);

/* Splits every leaf in the range down to `level` (1 or 2). */
int table_split(struct table *table, uint64_t in, uint64_t size, unsigned level,
                struct flush_batch *batch);

/* Joins, wherever the range allows it, 512 equal neighbours into one leaf; A and D are or-ed. */
int table_merge(struct table *table, uint64_t in, uint64_t size, struct flush_batch *batch);

/*
 * A background sweep of merges: joins what can be joined in the next part of the table that maps
 * anything, from *cursor to `end` (inclusive), and moves *cursor past it. The lock is held for one
 * part at a time (1 GiB, or what the largest leaf of this CPU covers). E_NOENT once the end has
 * been reached, *cursor being kind->input_first again. Of a whole table: from there to
 * kind->input_last.
 */
int table_merge_sweep(struct table *table, uint64_t *cursor, uint64_t end,
                      struct flush_batch *batch);

/* Where the frames behind new leaves come from. Called with the table's lock held. */
struct page_source {
    /* One block of `size` bytes (of a 4 KiB, 2 MiB or 1 GiB leaf), aligned to it, reachable through
     * direct(), contents arbitrary. E_NOMEM: a smaller leaf is tried, if there is one; any other
     * error ends the call. */
    int (*take)(struct page_source *source, uint64_t size, hpa_t *out);
    /* Takes back a block that the operation could not use. */
    void (*give)(struct page_source *source, hpa_t block, uint64_t size);
    /* Gives a block its contents, before anything maps it. `from` is what it is a copy of: as many
     * bytes, at from->out; NULL for a fresh one. */
    void (*fill)(struct page_source *source, hpa_t block, uint64_t size,
                 const struct mapping *from);
};

/* Maps the range to frames of `source` (mm/paging/page_source.h: of the buddy), taken first, at the
 * largest leaves that alignment, the CPU, the caps in `flags` and the source allow. Absent to
 * present: no flush. Errors as table_map(), and the source's; E_INVAL for MAP_REPLACE. */
int table_map_fresh(struct table *table, uint64_t in, uint64_t size, struct attrs attrs,
                    unsigned flags, struct page_source *source);

/*
 * Copy-on-write: `to`, which must map nothing in the range (E_EXIST), maps the frames that `from`
 * maps there, and neither may write to them any more. `batch` is one of `from`; `to` must not be
 * used before it is committed. The frames have one more holder each, which is for `fn` (NULL: for
 * nobody) to record: it is told of `leaves` leaves of this level, whose frames are contiguous, once
 * they are stored; with the locks of both tables held. Both tables have the same kind and CPU
 * (E_INVAL). E_ALIGN, E_RANGE, E_NOMEM.
 */
typedef void (*clone_fn)(hpa_t out, unsigned leaves, unsigned level);
int table_clone(struct table *to, struct table *from, uint64_t in, uint64_t size, clone_fn fn,
                struct flush_batch *batch);

/* A copy with frames of its own: what `from` maps in the range, `to` maps with the same attributes
 * to blocks of `source`, filled from the original, which is only read. Errors as table_clone(), and
 * the source's. */
int table_copy(struct table *to, struct table *from, uint64_t in, uint64_t size,
               struct page_source *source);

/* Removes everything and gives back every table frame, the root last. The table must not be
 * current on any CPU. It is unusable afterwards. Commits its own flush. */
int table_destroy(struct table *table);

/* One translation, or a run of equal ones: [in, last] maps to out.. with the same attributes. */
struct mapping {
    uint64_t in, last;
    hpa_t out;
    struct attrs attrs; /* effective: what all levels together let through */
    uint8_t level;      /* of the leaf */
    bool accessed, dirty;
    uint64_t raw; /* the leaf entry (of a run: its first) */
};

/* The page that covers `in`. mapping.in/last are the page's bounds; the translated address is
 * mapping.out + (in - mapping.in). E_NOENT, E_RANGE; E_ILLEGAL for an entry the CPU would refuse.
 */
int table_translate(struct table *table, uint64_t in, struct mapping *out);

/* Copies what the table shows from `in` on to `to`, for as long as it gives all of these rights.
 * Returns how many bytes that were, at most `size`. */
uint64_t table_read(struct table *table, uint64_t in, unsigned rights, void *to, uint64_t size);

/* Every step of one walk, for people. */
enum entry_class { ENTRY_ABSENT, ENTRY_TABLE, ENTRY_LEAF, ENTRY_BAD };
struct walk_step {
    uint8_t level;
    uint16_t index;
    hpa_t address; /* of the entry itself */
    uint64_t raw;
    enum entry_class class;
    enum rule rule;     /* RULE_OK unless class is ENTRY_BAD */
    struct attrs attrs; /* of this entry alone */
    bool accessed, dirty;
};
struct walk {
    unsigned count; /* steps taken, root first */
    struct walk_step step[MAX_LEVELS];
    int error;              /* as table_translate() */
    struct mapping mapping; /* valid when error is E_OK */
};
void table_walk(struct table *table, uint64_t in, struct walk *out);

/* Calls `fn` for each run of equal mappings that are contiguous in and out, within [first, last]
 * (inclusive), in order. Stops when fn returns non-zero and returns that. Changes nothing.
 * VISIT_PAGES reports each leaf on its own; VISIT_AD keeps runs apart whose A or D differ. */
enum visit_flags { VISIT_RUNS = 0, VISIT_PAGES = 1, VISIT_AD = 2 };
typedef int (*visit_fn)(void *ctx, const struct mapping *mapping);
int table_visit(struct table *table, uint64_t first, uint64_t last, unsigned flags, visit_fn fn,
                void *ctx);

/* A node of a table, as a visitor is shown it. */
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

/* Collects A and D of every page in the range and clears what `clear` names. `fn` (may be NULL)
 * sees each page whose A or D was set, as it was before. The batch carries the invalidation that
 * makes the next access set them again. E_UNSUPPORTED where hardware keeps none. */
enum harvest_clear { HARVEST_READ = 0, HARVEST_CLEAR_A = 1, HARVEST_CLEAR_D = 2 };
int table_harvest(struct table *table, uint64_t in, uint64_t size, unsigned clear, visit_fn fn,
                  void *ctx, struct flush_batch *batch);

/* Takes over a table that was built before the frame database existed: every table frame must be
 * recorded already (buddy_record); sets their entry counts and changes to `env`. */
int table_adopt(struct table *table, const struct table_env *env);

/* Has every root slot of the kind's own range lead to a node, for good. All or nothing. */
int table_preallocate(struct table *kernel);

/* A user table shares the kernel's upper half: copies the 256 upper root entries of `kernel`, all
 * of which table_preallocate() has made present. */
int table_share_upper(struct table *user, const struct table *kernel);

#endif
