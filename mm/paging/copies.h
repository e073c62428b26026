/*
 * Protect by copies: an accelerator of protect (mm/paging/protect.h). Part of the template.
 *
 * Where hardware may set A or D in any of 512 live leaves, each needs an atomic exchange. A changed
 * copy of the whole node takes its place by one store instead. What hardware still sets in the old
 * node until the flush is gathered into the copy then.
 *
 * Worth: protect of 1 GiB of 4 KiB leaves by one call is 15 times as fast (docs/BENCHMARKS.md).
 * Contract: a node is copied only where the caller may change all of its leaves; nothing is owed
 * for it when copies_settle() is done. Without a frame to be had, nothing is done. Doors:
 * copies_start(), copies_protect(), copies_end().
 */
#ifndef QUIRE_MM_PAGING_COPIES_H
#define QUIRE_MM_PAGING_COPIES_H

#include "mm/paging/build.h"

#define COPIES 16

struct copies {
    unsigned count;
    struct {
        uint64_t old, new; /* nodes */
    } pair[COPIES];
    /* Frames for copies: taken, or of old nodes that are settled. A ring, so that nodes that lie
     * one behind the other go on doing so. */
    unsigned free_first, free_end;
    uint64_t free[COPIES];
};

static inline void copies_start(struct copies *copies)
{
    copies->count = copies->free_first = copies->free_end = 0;
}

/* Fills `to` with the leaves at `from`, of which none is absent: they keep these bits, and get
 * those. A function of its own has all registers for its loop; this and the next read 16 slots a
 * round. */
static __attribute__((noinline)) void copy_changed(uint64_t *to, const uint64_t *from,
                                                   uint64_t keep, uint64_t bits)
{
    for (const uint64_t *end = from + SLOTS; from < end; from += 16, to += 16)
#pragma GCC unroll 16
        for (unsigned i = 0; i < 16; i++)
            to[i] = (pte_scan(&from[i]) & keep) | bits;
}

/* The bits in which any entry of `a` differs from its fellow in `b`. */
static __attribute__((noinline)) uint64_t differing(const uint64_t *a, const uint64_t *b)
{
    uint64_t any[4] = {0};

    for (const uint64_t *end = a + SLOTS; a < end; a += 16, b += 16)
#pragma GCC unroll 16
        for (unsigned i = 0; i < 16; i++)
            any[i % 4] |= pte_scan(&a[i]) ^ pte_scan(&b[i]);
    return any[0] | any[1] | any[2] | any[3];
}

/* Every CPU forgets the old nodes; what hardware marked in them meanwhile goes into the copies, and
 * their frames serve again. */
static SHARED void copies_settle(struct table *t, struct copies *copies)
{
    struct flush_batch now;

    flush_begin(&now, t);
    flush_whole(&now);
    flush_commit(&now);
    for (unsigned n = 0; n < copies->count; n++) {
        const uint64_t *old = direct(hpa(copies->pair[n].old));
        uint64_t *new = direct(hpa(copies->pair[n].new));
        bool marked = differing(old, new) & ACCESSED_DIRTY;

        for (unsigned i = 0; marked && i < SLOTS; i++)
            if (pte_peek(&old[i]) & ~pte_peek(&new[i]) & ACCESSED_DIRTY)
                pte_set_bits(&new[i], pte_peek(&old[i]) & ACCESSED_DIRTY);
        count_set(t, copies->pair[n].old, 0);
        copies->free[copies->free_end++ % COPIES] = copies->pair[n].old;
    }
    copies->count = 0;
}

/* Are all slots of the cursor's node leaves, and the node this table's own to replace? Nodes right
 * below a pinned root are other roots' as well. */
static inline bool can_copy(const struct table_cursor *c)
{
    const struct table *t = c->table;

    if (c->level == KIND.levels || !t->env->frame_records ||
        (t->root_pinned && c->level == KIND.levels - 1u) ||
        frame_payload(hpa(c->node[c->level])) != SLOTS)
        return false;
    for (unsigned i = 0; c->level > 1 && i < SLOTS; i++)
        if (!is_leaf(pte_read(&slots_of(c, c->level)[i]), c->level))
            return false;
    return true;
}

/* Changes all leaves of the cursor's node, which the range covers: these keep the bits `keep`, A
 * and D among them, and get `bits`. False, with nothing changed, where that cannot be done. */
static SHARED bool copies_protect(struct table_cursor *c, uint64_t keep, uint64_t bits,
                                  struct copies *copies)
{
    struct table *t = c->table;

    if (!can_copy(c))
        return false;
    if (copies->count == COPIES)
        copies_settle(t, copies);
    if (copies->free_first == copies->free_end) {
        hpa_t frame;

        if (t->env->take(t->env, t, &frame) != E_OK)
            return false;
        count_change(&t->table_frames, 1);
        copies->free[copies->free_end++ % COPIES] = frame.v;
    }
    uint64_t old = c->node[c->level], new = copies->free[copies->free_first++ % COPIES];
    copy_changed(direct(hpa(new)), direct(hpa(old)), keep, bits);
    count_set(t, new, SLOTS);
    uint64_t *above = &slots_of(c, c->level + 1)[index_of(c->at, c->level + 1)];
    uint64_t entry = pte_read(above);
    while (!pte_exchange_if(above, &entry, new | (entry & ~ENTRY_ADDRESS)))
        continue;
    c->node[c->level] = new;
    copies->pair[copies->count].old = old;
    copies->pair[copies->count++].new = new;
    return true;
}

static inline void copies_end(struct table *t, struct copies *copies)
{
    if (copies->count)
        copies_settle(t, copies);
    while (copies->free_first < copies->free_end) {
        t->env->give(t->env, t, hpa(copies->free[copies->free_first++ % COPIES]));
        count_change(&t->table_frames, -UINT64_C(1));
    }
}

#endif
