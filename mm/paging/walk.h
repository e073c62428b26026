/*
 * The walk: how every operation gets from the root of a table to an entry. Part of the template
 * (mm/paging/template.h).
 *
 *   in:  | level 4 | level 3 | level 2 | level 1 | offset |
 *           |         |         |         |
 *   root -> PML4 ---> PDPT ---> PD -----> PT -----> frame
 *                       \-> 1 GiB  \-> 2 MiB   \-> 4 KiB leaf
 *
 * A node is a page of the tree; each of its slots holds an entry, which is absent, leads to a node
 * one level down, or is a leaf. A cursor (mm/paging/cursor.h) remembers the nodes on its path.
 * walk() goes down the path to a slot; advance() moves to another address, and up again just as
 * far as that address needs. Every operation is this loop:
 *
 *     cursor_start(&c, table, first, last);
 *     do {
 *         uint64_t entry = walk(&c, bottom);
 *         ...                                   // the entry is in slot_of(&c), at c.level
 *     } while (advance(&c, slot_last(&c)));     // or further, when more was done
 *
 * KIND is a constant, so that its masks and shifts are constants here, and its functions inline.
 */
#ifndef QUIRE_MM_PAGING_WALK_H
#define QUIRE_MM_PAGING_WALK_H

#include "mm/paging/cursor.h"
#include "mm/paging/pte.h"
#include "mm/paging/table.h"

/* The name of an operation of this kind: OP(map) is ept_map. */
#define OP(name) OP_NAMED(KIND_NAME, name)
#define OP_NAMED(kind, name) OP_JOINED(kind, name)
#define OP_JOINED(kind, name) kind##_##name

/* A function that several operations share, and that is not worth a copy in each. */
#define SHARED __attribute__((noinline, unused))

#define SLOTS level_slots(&KIND)
#define ACCESSED_DIRTY (KIND.accessed_bit | KIND.dirty_bit)

/* How an entry is read: a kind whose nodes are not ours to look at has a way of its own. */
#ifndef KIND_LOAD
#define KIND_LOAD(c, node, index) pte_read((const uint64_t *)direct(hpa(node)) + (index))
#endif

static inline unsigned shift_of(unsigned level)
{
    return level_shift(&KIND, level);
}

/* What a slot of this level covers, in bytes. */
static inline uint64_t size_of(unsigned level)
{
    return level_size(&KIND, level);
}

static inline unsigned index_of(uint64_t in, unsigned level)
{
    return (unsigned)(in >> shift_of(level)) & (SLOTS - 1);
}

static inline bool is_present(uint64_t entry)
{
    return entry_present(&KIND, entry);
}

/* Of a present entry. */
static inline bool is_leaf(uint64_t entry, unsigned level)
{
    return entry_leaf(&KIND, entry, level);
}

/* Present, and leads to a node. */
static inline bool is_node(uint64_t entry, unsigned level)
{
    return is_present(entry) && !is_leaf(entry, level);
}

/* entry_rule(), of this kind. */
static SHARED enum rule judge(const struct table_caps *caps, unsigned level, uint64_t entry)
{
    return entry_judge(&KIND, caps, level, entry);
}

static inline uint64_t leaf_address(uint64_t entry, unsigned level)
{
    return entry_leaf_address(&KIND, entry, level);
}

/* The path is the root alone. */
static inline void cursor_start(struct table_cursor *c, struct table *t, uint64_t first,
                                uint64_t last)
{
    c->table = t;
    c->at = first;
    c->last = last;
    c->level = KIND.levels;
    c->node[KIND.levels] = t->root.v;
    c->rights[KIND.levels] = ~0u;
}

/* One level down, by an entry of the lowest node. */
static inline void descend(struct table_cursor *c, uint64_t entry)
{
    c->rights[c->level - 1] = c->rights[c->level] & KIND.table_rights(entry, &c->table->caps);
    c->node[--c->level] = entry & ENTRY_ADDRESS;
}

/* The entry in the cursor's slot. */
static inline uint64_t read_entry(const struct table_cursor *c)
{
    return KIND_LOAD(c, c->node[c->level], index_of(c->at, c->level));
}

/* Down to the slot that covers c->at: to a leaf, an absent entry, or a slot of level `bottom`,
 * whichever comes first. Returns the entry. */
static SHARED uint64_t walk(struct table_cursor *c, unsigned bottom)
{
    for (;;) {
        uint64_t entry = read_entry(c);

        if (c->level <= bottom || !is_node(entry, c->level))
            return entry;
        descend(c, entry);
    }
}

/* Moves to `to`. The path loses the nodes that do not cover it. */
static inline void go_to(struct table_cursor *c, uint64_t to)
{
    uint64_t changed = c->at ^ to;

    c->at = to;
    while (c->level < KIND.levels && changed >> shift_of(c->level + 1))
        c->level++;
}

/* The path loses the nodes that begin at `at`, so that whole slots above them can be dealt with. */
static inline void go_up(struct table_cursor *c)
{
    while (c->level < KIND.levels && is_aligned(c->at, size_of(c->level + 1)))
        c->level++;
}

/* Moves behind `done`, the last address that was dealt with. False at the end of the range. */
static inline bool advance(struct table_cursor *c, uint64_t done)
{
    if (done >= c->last)
        return false;
    go_to(c, done + 1);
    return true;
}

/* The last address of the slot, and of the node, that the cursor is at. */
static inline uint64_t slot_last(const struct table_cursor *c)
{
    return c->at | (size_of(c->level) - 1);
}

static inline uint64_t node_last(const struct table_cursor *c)
{
    return c->level == KIND.levels ? c->last : c->at | (size_of(c->level + 1) - 1);
}

static inline uint64_t *slots_of(const struct table_cursor *c, unsigned level)
{
    return direct(hpa(c->node[level]));
}

static inline uint64_t *slot_of(const struct table_cursor *c)
{
    return &slots_of(c, c->level)[index_of(c->at, c->level)];
}

/* How many slots from the cursor's on, in its node, have their first byte up to `last`. */
static inline unsigned slots_to(const struct table_cursor *c, uint64_t last)
{
    uint64_t end = node_last(c) < last ? node_last(c) : last;

    return (unsigned)((end >> shift_of(c->level)) - (c->at >> shift_of(c->level))) + 1;
}

/* The end of `slots` slots from the cursor's on. */
static inline uint64_t slots_last(const struct table_cursor *c, unsigned slots)
{
    return slot_last(c) + (slots - 1) * size_of(c->level);
}

/* Does the count say that the node, which an entry leads to, is empty? Nodes below a pinned root
 * may be; their slots need no look. */
static inline bool is_empty(const struct table *t, uint64_t entry)
{
    return t->root_pinned && t->env->frame_records &&
           frame_payload(hpa(entry & ENTRY_ADDRESS)) == 0;
}

/* The last address of the absent slots from the cursor's on, in its node. */
static inline uint64_t absent_last(const struct table_cursor *c)
{
    const uint64_t *slot = slot_of(c);
    unsigned slots = slots_to(c, c->last), n = 1;

    while (n < slots && !is_present(pte_peek(&slot[n])))
        n++;
    return slots_last(c, n);
}

/* Moves to the next leaf at or after the cursor. False when there is none up to the range's end. */
static SHARED bool find_leaf(struct table_cursor *c, uint64_t *entry)
{
    for (;;) {
        *entry = read_entry(c);
        if (is_present(*entry) && is_leaf(*entry, c->level))
            return true;
        if (is_present(*entry) && !is_empty(c->table, *entry))
            descend(c, *entry);
        else if (!advance(c, is_present(*entry) ? slot_last(c) : absent_last(c)))
            return false;
    }
}

#endif
