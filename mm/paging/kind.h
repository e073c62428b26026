/*
 * A table kind: everything that tells one kind of page table from another, as one constant.
 *
 * The mapper (mm/paging/template.h) is compiled for each kind: the file that defines a kind
 * includes the template behind its descriptor, and every field below folds into the code. To add a
 * kind is to write one such file (docs/ADD-A-KIND.md).
 *
 * Levels are numbered as the manual numbers them from the leaf up: 1 PT, 2 PD, 3 PDPT, 4 PML4,
 * 5 PML5. An entry at level L covers 2^(12 + index_bits * (L - 1)) bytes.
 */
#ifndef QUIRE_MM_KIND_H
#define QUIRE_MM_KIND_H

#include <stdbool.h>
#include <stdint.h>

#include "lib/error.h"
#include "mm/addr.h"
#include "mm/frames/frame.h"
#include "mm/paging/attrs.h"

#define MAX_LEVELS 5

enum kind_id {
    KIND_KERNEL,
    KIND_USER,
    KIND_EPT,
    KIND_NPT,
    KIND_GUEST64,
    KIND_GUESTPAE,
    KIND_GUEST32,
    KIND_COUNT
};

/* What the CPU at hand offers, found at run time; one constant value for the life of a table. */
struct table_caps {
    uint8_t maxphyaddr;      /* width of a host-physical address in bits: 32..52 */
    uint8_t leaf_top;        /* highest level that may hold a leaf: 1 (4K), 2 (2M), 3 (1G) */
    uint8_t noexec_top;      /* the same of leaves that are not executed, where that is more */
    bool exec_small;         /* executable leaves of 4K are not merged */
    bool nx;                 /* host: EFER.NXE. EPT: always true */
    bool accessed_dirty;     /* hardware sets A and D. Host: always; EPT: EPTP bit 6 */
    bool execute_only;       /* EPT: X without R is legal */
    bool mode_based_execute; /* EPT: bit 10 is execute for user-mode addresses */
    bool global;             /* host: CR4.PGE */
    uint16_t mem_types;      /* bit n: enum mem_type value n can be had */
};

struct table;
struct table_ops;
struct flush_batch;

/* The legality rules (SDM Vol. 3, 4.5 for host kinds; 29.3.2 and 29.3.3 for EPT), by name. */
enum rule {
    RULE_OK = 0,
    RULE_NOT_PRESENT,       /* nothing to judge */
    RULE_RESERVED_BITS,     /* a bit that must be 0 is 1 */
    RULE_BEYOND_MAXPHYADDR, /* the address field exceeds the CPU's physical width */
    RULE_MISALIGNED_LEAF,   /* a large leaf whose address is no multiple of its size */
    RULE_NO_SUCH_LEAF,      /* the leaf bit where no page of that size exists */
    RULE_WRITE_ONLY,        /* EPT: W without R */
    RULE_EXECUTE_ONLY,      /* EPT: X without R, without the capability */
    RULE_MEM_TYPE,          /* EPT: type 2, 3 or 7 */
    RULE_REQUIRED_BITS,     /* a bit that must be 1 is 0 */
    RULE_NX_DISABLED,       /* host: bit 63 while EFER.NXE is 0 */
    RULE_COUNT
};

/* The rule in words, and the manual's section it comes from. */
const char *rule_text(enum rule rule);
const char *rule_section(enum kind_id kind, enum rule rule);

struct table_kind {
    const char *name; /* "kernel", "user", "EPT" */
    enum kind_id id;
    enum frame_purpose purpose; /* that its nodes' frames are recorded with */
    uint8_t levels;             /* of a full table: 4 (5: la57) */
    uint8_t index_bits;         /* 9; 10 for 32-bit paging */
    uint8_t entry_bytes;        /* 8; 4 for 32-bit paging */
    bool sign_extended;         /* input addresses are canonical, not plain numbers */
    uint64_t input_first;       /* lowest input address that this kind maps ... */
    uint64_t input_last;        /* ... and the highest, inclusive */
    uint64_t present_mask;      /* present when any of these bits is set */
    uint64_t leaf_bit;          /* at level 2 and above: this entry is a leaf */
    uint64_t accessed_bit;
    uint64_t dirty_bit;
    uint64_t required_bits;  /* of each present entry that must be 1; part of what encode() gives */
    uint64_t table_bits;     /* every bit of a non-leaf entry but the address */
    bool read_only;          /* we walk it, we never write it: a guest's own tables */
    bool rights_grow_freely; /* added rights need no invalidation: a fault walks anew (EPT, SDM
                                 Vol. 3, 29.4.3.1); the host kinds have no handler that would retry
                              */

    /* Attributes to the bits of a leaf at `level`, without the address; and back. */
    uint64_t (*encode)(struct attrs attrs, unsigned level, const struct table_caps *caps);
    struct attrs (*decode)(uint64_t entry, unsigned level, const struct table_caps *caps);
    /* The rights that a non-leaf entry lets through (for the effective rights of a walk). */
    unsigned (*table_rights)(uint64_t entry, const struct table_caps *caps);
    /* Which bits of a leaf (or, leaf false, of a non-leaf) at this level must be 0, address bits
     * below a large page's size included, address bits above maxphyaddr excluded. */
    uint64_t (*reserved)(unsigned level, bool leaf, const struct table_caps *caps);
    /* Rules beyond reserved bits that only this kind has; RULE_OK when none is broken,
     * RULE_NOT_PRESENT where a bit of present_mask does not count on this CPU. */
    enum rule (*own_rule)(uint64_t entry, bool leaf, const struct table_caps *caps);
    /* What this CPU has to do to forget what the batch names; NULL for a kind that is never
     * written. How it reaches every CPU is the affair of table_env.flush. */
    void (*flush)(struct table *table, const struct flush_batch *batch);

    const struct table_ops *ops; /* the walker's entry points for this kind */
};

extern const struct table_kind kernel_kind, user_kind, ept_kind, npt_kind;

/* The names and sizes of the levels. */
const char *level_name(unsigned level); /* "PT" "PD" "PDPT" "PML4" "PML5" */
static inline unsigned level_shift(const struct table_kind *kind, unsigned level)
{
    return PAGE_SHIFT + kind->index_bits * (level - 1u);
}
static inline uint64_t level_size(const struct table_kind *kind, unsigned level)
{
    return UINT64_C(1) << level_shift(kind, level);
}

/* What an entry is, and the address in it. No CPU has leaves above level 3. */
#define ENTRY_ADDRESS BITS(51, 12)
static inline bool entry_present(const struct table_kind *kind, uint64_t entry)
{
    return (entry & kind->present_mask) != 0;
}
static inline bool entry_leaf(const struct table_kind *kind, uint64_t entry, unsigned level)
{
    return level == 1 || (level <= 3 && (entry & kind->leaf_bit));
}
static inline uint64_t entry_leaf_address(const struct table_kind *kind, uint64_t entry,
                                          unsigned level)
{
    return entry & ENTRY_ADDRESS & ~(level_size(kind, level) - 1);
}

/* Judges one entry as it would stand at `level`. The one checker: map, explain, the auditor and the
 * fuzzer all ask it; the template has it compiled for its kind. mm/paging/legal.c names its
 * sections. */
enum rule entry_rule(const struct table_kind *kind, const struct table_caps *caps, unsigned level,
                     uint64_t entry);
static inline __attribute__((always_inline)) enum rule entry_judge(const struct table_kind *kind,
                                                                   const struct table_caps *caps,
                                                                   unsigned level, uint64_t entry)
{
    if (!entry_present(kind, entry))
        return RULE_NOT_PRESENT;

    bool leaf = entry_leaf(kind, entry, level);
    enum rule own = kind->own_rule ? kind->own_rule(entry, leaf, caps) : RULE_OK;

    if (own == RULE_NOT_PRESENT)
        return own;
    if (leaf && level > caps->leaf_top)
        return RULE_NO_SUCH_LEAF;
    if (level > 3 && (entry & kind->leaf_bit & kind->reserved(level, false, caps)))
        return RULE_NO_SUCH_LEAF;
    if (kind->entry_bytes == 8 && caps->maxphyaddr < 52 && (entry & BITS(51, caps->maxphyaddr)))
        return RULE_BEYOND_MAXPHYADDR;

    uint64_t reserved = entry & kind->reserved(level, leaf, caps);
    if (reserved & BIT(63))
        return RULE_NX_DISABLED;
    if (leaf && level > 1 && (reserved & BITS(51, 12)))
        return RULE_MISALIGNED_LEAF;
    if (reserved)
        return RULE_RESERVED_BITS;
    if (kind->required_bits & ~entry)
        return RULE_REQUIRED_BITS;
    return own;
}

/* The slots of a node of this level that are the kind's own, first and end: of the root, those of
 * its input range. */
static inline unsigned level_slots(const struct table_kind *kind)
{
    return 1u << kind->index_bits;
}
static inline unsigned slots_first(const struct table_kind *kind, unsigned level)
{
    uint64_t first = level == kind->levels ? kind->input_first : 0;
    return (unsigned)(first >> level_shift(kind, level)) & (level_slots(kind) - 1);
}
static inline unsigned slots_end(const struct table_kind *kind, unsigned level)
{
    uint64_t last = level == kind->levels ? kind->input_last : UINT64_MAX;
    return ((unsigned)(last >> level_shift(kind, level)) & (level_slots(kind) - 1)) + 1;
}

#endif
