/*
 * The inside of the auditor's self-test: tables of scratch memory, and the ways to damage them.
 *
 *   audit_selftest.c    each trial in turn
 *   selftest_tables.c   the tables, as the auditor is content with them
 *   selftest_damage.c   breaks a thing, and puts it right
 *   selftest_nodes.c    trials: table frames and entries
 *   selftest_leaves.c   trials: memory that leaves show
 *   selftest_whole.c    trials: what is judged of tables as a whole
 */
#ifndef QUIRE_MM_SELFTEST_H
#define QUIRE_MM_SELFTEST_H

#include "mm/audit/audit_selftest.h"

#define OWNER_KERNEL (OWNER_LIMIT - 4)
#define OWNER_PROGRAM (OWNER_LIMIT - 3)
#define OWNER_OTHER (OWNER_LIMIT - 2)
#define OWNER_GUEST (OWNER_LIMIT - 1)

/* Input addresses; those of the kernel count from the lowest that its kind maps. */
#define KERNEL_TEXT UINT64_C(0x1000)
#define KERNEL_DATA UINT64_C(0x2000)
#define KERNEL_GUARD UINT64_C(0x5000)
#define KERNEL_ALIAS UINT64_C(0x6000)
#define USER_TEXT UINT64_C(0x400000)
#define USER_DATA UINT64_C(0x401000)
#define GUEST_PAGES 3
#define GUEST_FAR GiB /* reached by tables of its own */
#define GUEST_EMPTY UINT64_C(0x7000)
#define SPARE_PD_SLOT 5

#define UNDO_LIMIT 4

enum which { TABLE_KERNEL, TABLE_PROGRAM, TABLE_GUEST, TABLE_OTHER, TABLES };

/* One thing that is broken: what the auditor must say of it, and how it is put right. */
struct damage {
    enum which table;
    bool has_in, has_at;
    uint64_t in;
    hpa_t at;

    struct {
        uint64_t *word, was;
    } poke[UNDO_LIMIT];
    unsigned pokes;
    hpa_t frame; /* taken for it; 0: none */
    owner_t owner;
    bool batch_open;
    bool no_memory;
};

extern struct scratch {
    struct table table[TABLES];
    struct audit_root root_in_cpu;
    struct audit_table described[TABLES];
    struct audit_guard guard;
    struct audit audit;
    struct flush_batch batch;
} scratch;

/* ---- The tables ----------------------------------------------------------------------------- */

/* E_NOMEM or E_QUOTA: what was built is still to be destroyed. */
int scratch_build(const struct audit_selftest *setup);
void scratch_destroy(void);

/* The slot of a table that covers `in`, at `level`. */
uint64_t *scratch_slot(enum which which, uint64_t in, unsigned level);

/* Input addresses of the kernel's table. */
static inline uint64_t kernel_address(uint64_t offset)
{
    return scratch.table[TABLE_KERNEL].kind->input_first + offset;
}

static inline hpa_t leads_to(const uint64_t *slot)
{
    return hpa(*slot & BITS(51, 12));
}

static inline uint64_t leading_to(uint64_t entry, hpa_t frame)
{
    return (entry & ~BITS(51, 12)) | frame.v;
}

/* The last frame that the CPU can address, and no machine has. */
static inline hpa_t no_ram(void)
{
    return hpa(BIT(scratch.table[TABLE_GUEST].caps.maxphyaddr) - PAGE_SIZE);
}

/* ---- Damage --------------------------------------------------------------------------------- */

void damage_word(struct damage *d, uint64_t *word, uint64_t value);
void damage_record(struct damage *d, hpa_t frame, uint64_t mask, uint64_t value);
void damage_state(struct damage *d, hpa_t frame, enum frame_state state);

/* Adds to the count of present entries of the node that `slot` lies in. */
void damage_count(struct damage *d, const uint64_t *slot, uint64_t entries);

/* Puts an entry into a slot that is absent, with the count that goes with it. */
void damage_slot(struct damage *d, uint64_t *slot, uint64_t entry);

/* A frame to break something with; the trial is called off when there is none. */
hpa_t damage_frame(struct damage *d, enum frame_purpose purpose, owner_t owner);

/* A frame of an owner's that no table of its own reaches. */
void damage_stray(struct damage *d, enum which which, enum frame_purpose purpose);

void damage_undo(struct damage *d);

/* What the auditor must say: a table, an input address and a frame or entry; or no input address.
 */
static inline void expect(struct damage *d, enum which table, uint64_t in, hpa_t at)
{
    d->table = table;
    d->has_in = d->has_at = true;
    d->in = in;
    d->at = at;
}

static inline void expect_frame(struct damage *d, enum which table, hpa_t at)
{
    d->table = table;
    d->has_at = true;
    d->at = at;
}

/* ---- Trials --------------------------------------------------------------------------------- */

struct trial {
    enum audit_rule rule; /* AUDIT_RULES: nothing is wrong, and nothing must be said */
    const char *corruption;
    void (*inflict)(struct damage *, uint64_t argument);
    uint64_t argument;
};

struct trials {
    const struct trial *trial;
    unsigned count;
};

extern const struct trials node_trials, ept_trials, npt_trials, leaf_trials, whole_trials;

#endif
