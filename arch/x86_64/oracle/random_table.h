/*
 * What the three spaces of the oracle share: memory that may be touched, tables with random content
 * in it, damage that is put right again, and pairs to try. Internal to this folder.
 */
#ifndef QUIRE_ARCH_ORACLE_RANDOM_TABLE_H
#define QUIRE_ARCH_ORACLE_RANDOM_TABLE_H

#include "arch/x86_64/mm/host_entry.h"
#include "arch/x86_64/oracle/oracle.h"
#include "mm/paging/table.h"

#define PIECES 16
#define DAMAGES 8
#define RECENT 16

/* What memory holds where nobody put anything: INTO, an undefined opcode in 64-bit mode, so that a
 * fetch from a wrong place is noticed wherever it comes to. */
#define FILLER 0xce

struct oracle {
    uint64_t random; /* state of the generator */
    hpa_t memory;    /* 4 MiB that leaves show, all FILLER */
    const struct vm_backend *backend;
    const struct oracle_listener *listener;
    uint64_t tried;               /* pairs, in all spaces */
    struct oracle_counts *counts; /* of the space at hand */
    enum oracle_space space;
};

#define ORACLE_ORDER 10
#define ORACLE_MEMORY (PAGE_SIZE << ORACLE_ORDER)

uint64_t oracle_random(struct oracle *oracle);
/* 0 .. limit - 1. */
uint64_t oracle_below(struct oracle *oracle, uint64_t limit);

/* One stretch of leaves: [in, in + size) shows [out, out + size), of which only what lies in the
 * oracle's memory is touched. */
struct piece {
    uint64_t in, size;
    hpa_t out;
};

struct random_table {
    struct table *table;
    uint64_t first, last;      /* input addresses used */
    uint64_t keep;             /* no entry on the way to this one is damaged */
    const struct attrs *attrs; /* to choose from */
    unsigned attrs_count;
    struct piece piece[PIECES];
    unsigned pieces;
    struct damage {
        uint64_t *slot, was, in;
    } damage[DAMAGES];
    unsigned damages;
    uint64_t recent[RECENT]; /* input addresses tried last: translations of them may be cached */
    unsigned recents;
    uint64_t through; /* the one that went through last ... */
    bool again;       /* ... is to be tried again */
};

/* Maps random pieces, then changes parts of them as random_table_change() does. E_NOMEM. */
int random_table_fill(struct oracle *oracle, struct random_table *random);

/* One more change, through a writer, of a table that may be in use: of rights, of the frames behind
 * a piece, of page sizes, or a part unmapped. Not of a damaged table. E_NOMEM. */
int random_table_change(struct oracle *oracle, struct random_table *random);

/*
 * Changes a few entries of the table as no mapper would: rights and ignored bits, and in some a bit
 * that makes them illegal. Where entries lead to does not change. `harmless` are the bits to flip
 * at any level, fatal(level, leaf) those that no CPU accepts there.
 */
void random_table_damage(struct oracle *oracle, struct random_table *random, uint64_t harmless,
                         uint64_t (*fatal)(const struct table *table, unsigned level, bool leaf));

/* Entries of long mode, the host's and AMD's nested ones. Harmless: R/W, U/S, A, ignored bits, NX;
 * a leaf's D, and P itself. Reserved (4.4.2 of the tables in 4.5): beyond the physical width, the
 * page-size bit of the root, address bits below a large page's size. */
#define LONG_MODE_HARMLESS (PTE_P | PTE_RW | PTE_US | PTE_A | BITS(11, 9) | BITS(62, 59) | PTE_NX)
uint64_t long_mode_reserved(const struct table *table, unsigned level, bool leaf);

/* Puts every damaged entry back, and removes all that was mapped. */
void random_table_clear(struct random_table *random);

/* One access to try. */
struct pair {
    uint64_t in;
    unsigned access;
    struct walk walk; /* what is predicted of it */
    hpa_t to;         /* where it comes to, if it goes through */
};

/* Draws one: within a piece, near its edges, through a damaged entry, tried lately, or anywhere. Of
 * `width` bytes, which stay in a page. */
void random_pair(struct oracle *oracle, struct random_table *random, unsigned width,
                 struct pair *pair);

/* Do table_translate() and entry_rule() say the same as the walk, on which the prediction rests? */
bool pair_is_consistent(struct table *table, const struct pair *pair);

/* The accessed and dirty bits of the walk's entries after an access that went through; what is
 * wrong with them, or NULL. Where a CPU keeps none there is nothing to say. */
const char *check_accessed_dirty(struct table *table, const struct pair *pair);

/* Counts the pair by what is predicted of it: `refused` if the walk was well and rights are
 * missing. */
void count_pair(struct oracle *oracle, const struct pair *pair, bool refused);

void report_pair(struct oracle *oracle, const struct pair *pair, const char *conditions,
                 const char *predicted, const char *happened);

/* The spaces. Each tries `pairs` of them. */
int oracle_kernel(struct oracle *oracle, uint64_t pairs);
int oracle_user(struct oracle *oracle, uint64_t pairs);
int oracle_guest(struct oracle *oracle, uint64_t pairs);

#endif
