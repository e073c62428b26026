/*
 * The walker: every algorithm on page tables, written once.
 *
 *   in:  | level 4 | level 3 | level 2 | level 1 | offset |
 *           |         |         |         |
 *   root -> PML4 ---> PDPT ---> PD -----> PT -----> frame
 *                       \-> 1 GiB  \-> 2 MiB   \-> 4 KiB leaf
 *
 * This file is a template. The file that defines a table kind includes it, and every function below
 * is inlined there with the constant descriptor, so that no mask is read again and no pointer
 * called in a loop. WALKER_OPS(name, descriptor) makes the kind's operation table.
 *
 * Each writer has three phases: plan (reads only: checks everything and counts the tables that it
 * will need), take (all of those frames, or an error), store (cannot fail). A new table is filled
 * before one store publishes it, and a table that dies is handed to the flush batch.
 */
#ifndef QUIRE_MM_WALKER_H
#define QUIRE_MM_WALKER_H

#include <stddef.h>

#include "lib/panic.h"
#include "mm/paging/entry_count.h"
#include "mm/paging/pte.h"
#include "mm/paging/table.h"

#define WALKER static inline __attribute__((always_inline, unused))

#define ENTRY_ADDRESS BITS(51, 12)

/* ---- Entries and indices ----------------------------------------------------------------- */

WALKER unsigned slots_of(const struct table_kind *k)
{
    return 1u << k->index_bits;
}

WALKER unsigned slot_index(const struct table_kind *k, uint64_t in, unsigned level)
{
    return (unsigned)(in >> level_shift(k, level)) & (slots_of(k) - 1);
}

WALKER bool is_present(const struct table_kind *k, uint64_t entry)
{
    return (entry & k->present_mask) != 0;
}

/* Of a present entry. No CPU has leaves above level 3. */
WALKER bool is_leaf(const struct table_kind *k, uint64_t entry, unsigned level)
{
    return level == 1 || (level <= 3 && (entry & k->leaf_bit));
}

/* Present, and points at a table. */
WALKER bool is_table(const struct table_kind *k, uint64_t entry, unsigned level)
{
    return is_present(k, entry) && !is_leaf(k, entry, level);
}

WALKER uint64_t leaf_address(const struct table_kind *k, uint64_t entry, unsigned level)
{
    return entry & ENTRY_ADDRESS & ~(level_size(k, level) - 1);
}

WALKER uint64_t *child_of(uint64_t entry)
{
    return direct(hpa(entry & ENTRY_ADDRESS));
}

WALKER uint64_t table_entry(const struct table_kind *k, const uint64_t *child)
{
    return direct_hpa(child).v | k->table_bits;
}

WALKER uint64_t accessed_dirty(const struct table_kind *k)
{
    return k->accessed_bit | k->dirty_bit;
}

/* Does the input range lie within what the kind maps, on page boundaries, without a wrap? */
WALKER int check_range(const struct table_kind *k, uint64_t in, uint64_t size)
{
    if (size == 0)
        return E_INVAL;
    if ((in | size) & (PAGE_SIZE - 1))
        return E_ALIGN;
    uint64_t last = in + size - 1;
    if (last < in || in < k->input_first || last > k->input_last)
        return E_RANGE;
    return E_OK;
}

/* The present entries of a table are counted in its frame's record (mm/paging/entry_count.h). */
WALKER void count_set(const struct table *t, const uint64_t *table, uint64_t entries)
{
    if (t->env->frame_records)
        frame_set_payload(direct_hpa(table), entries);
}

/* So many more, or (minus) fewer. Returns how many there are now. */
WALKER uint64_t count_add(const struct table *t, const uint64_t *table, uint64_t entries)
{
    if (!t->env->frame_records)
        return 1;
    hpa_t frame = direct_hpa(table);
    uint64_t count = frame_payload(frame) + entries;
    frame_set_payload(frame, count);
    return count;
}

/* ---- Planning and taking table frames ---------------------------------------------------- */

/* Counts each table that will be new once. Positions only go upwards, so that to remember the
 * newest table at each level is enough. */
struct plan {
    uint64_t needed;
    uint64_t
        newest[MAX_LEVELS + 1]; /* input address / the size that a table of this level covers */
};

WALKER void plan_start(struct plan *plan)
{
    plan->needed = 0;
    for (unsigned i = 0; i <= MAX_LEVELS; i++)
        plan->newest[i] = UINT64_MAX;
}

WALKER void plan_table(const struct table_kind *k, struct plan *plan, uint64_t in, unsigned level)
{
    uint64_t which = in >> level_shift(k, level + 1);
    if (plan->newest[level] != which) {
        plan->newest[level] = which;
        plan->needed++;
    }
}

/* A list of frames that are taken and not yet used, in one of them: the others are not touched
 * before they are filled. (A test program may make the lists short.) */
#ifndef SPARE_LIST_FRAMES
#define SPARE_LIST_FRAMES (PAGE_SIZE / sizeof(hpa_t) - 2)
#endif
struct spare_list {
    struct spare_list *next;
    uint64_t count;
    hpa_t frame[SPARE_LIST_FRAMES];
};
_Static_assert(sizeof(struct spare_list) <= PAGE_SIZE, "a list lies in a frame");

/* The list that was made last is used first, in its order, and then its own frame: what comes from
 * the top of memory down, but upwards within a call, is filled upwards, as caches like it best. */
struct spare {
    struct spare_list *first;
    uint64_t used; /* of the first list */
};

WALKER uint64_t *spare_pop(struct spare *spare)
{
    struct spare_list *list = spare->first;

    invariant(list != NULL);
    if (spare->used < list->count)
        return direct(list->frame[spare->used++]);
    spare->first = list->next;
    spare->used = 0;
    return (uint64_t *)list;
}

/* Has the beginning of the frame that is to be filled next on its way: from there on caches fetch
 * ahead by themselves, but not into a page that nothing has touched. Two lines; eight or more come
 * too early, and cost more than they spare. */
WALKER void spare_prefetch(const struct spare *spare)
{
    const struct spare_list *list = spare->first;

    if (list && spare->used < list->count) {
        const char *next = direct(list->frame[spare->used]);
        __builtin_prefetch(next, 1);
        __builtin_prefetch(next + 64, 1);
    }
}

static __attribute__((noinline, unused)) void give_frames(struct table *t, const hpa_t *frames,
                                                          uint64_t count)
{
    bool many = t->env->give_many && count > 1;

    if (many)
        t->env->give_many(t->env, t, frames, (unsigned)count);
    for (uint64_t i = 0; !many && i < count; i++)
        t->env->give(t->env, t, frames[i]);
    count_change(&t->table_frames, -count);
}

/* All or none. */
static __attribute__((noinline, unused)) int take_frames(struct table *t, hpa_t *frames,
                                                         uint64_t count)
{
    int error = E_OK;
    uint64_t n = 0;

    if (t->env->take_many && count > 1) {
        error = t->env->take_many(t->env, t, frames, (unsigned)count);
        n = error ? 0 : count;
    }
    while (!error && n < count) {
        error = t->env->take(t->env, t, &frames[n]);
        n += !error;
    }
    count_change(&t->table_frames, n);
    if (error)
        give_frames(t, frames, n);
    return error;
}

/* Gives back all, of which none has been used. */
static __attribute__((noinline, unused)) void spare_return(struct table *t, struct spare *spare)
{
    for (struct spare_list *list = spare->first; list;) {
        struct spare_list *next = list->next;
        hpa_t frame = direct_hpa(list);

        give_frames(t, list->frame, list->count);
        give_frames(t, &frame, 1);
        list = next;
    }
    spare->first = NULL;
}

static __attribute__((noinline, unused)) int spare_take(struct table *t, uint64_t needed,
                                                        struct spare *spare)
{
    int error = E_OK;

    *spare = (struct spare){NULL, 0};
    while (needed && !error) {
        hpa_t frame;
        error = take_frames(t, &frame, 1);
        if (error)
            break;
        struct spare_list *list = direct(frame);
        uint64_t listed = needed - 1 < SPARE_LIST_FRAMES ? needed - 1 : SPARE_LIST_FRAMES;
        list->next = spare->first;
        spare->first = list;
        error = take_frames(t, list->frame, listed);
        list->count = error ? 0 : listed;
        needed -= 1 + listed;
    }
    if (error)
        spare_return(t, spare);
    return error;
}

/* ---- Filling tables that nothing points at yet ------------------------------------------- */

WALKER void fill_zero(uint64_t *table, unsigned first, unsigned end)
{
    for (unsigned i = first; i < end; i++)
        table[i] = 0;
}

WALKER void fill_leaves(uint64_t *table, unsigned first, unsigned count, uint64_t entry,
                        uint64_t step)
{
    uint64_t *to = &table[first], *end = to + count;
    uint64_t e0 = entry, e1 = e0 + step, e2 = e1 + step, e3 = e2 + step;

    /* Four sums at a time: one alone would have each store wait for the addition before it. */
#pragma GCC unroll 4
    for (; end - to >= 4; to += 4) {
        to[0] = e0, to[1] = e1, to[2] = e2, to[3] = e3;
        e0 += 4 * step, e1 += 4 * step, e2 += 4 * step, e3 += 4 * step;
    }
    for (; to < end; e0 += step)
        *to++ = e0;
}

/* Fills `table`, which will stand at `level` and cover `in`, with what the leaf `old` at
 * `old_level` says for its part: translation, rights, memory type, A and D. */
WALKER void fill_from_leaf(const struct table_kind *k, const struct table *t, uint64_t *table,
                           unsigned level, uint64_t in, uint64_t old, unsigned old_level)
{
    struct attrs attrs = k->decode(old, old_level, &t->caps);
    uint64_t covered = level_size(k, level + 1);
    uint64_t offset = align_down(in, covered) - align_down(in, level_size(k, old_level));
    uint64_t entry = (leaf_address(k, old, old_level) + offset) | k->encode(attrs, level, &t->caps);

    entry = (entry & ~accessed_dirty(k)) | (old & accessed_dirty(k));
    fill_leaves(table, 0, slots_of(k), entry, level_size(k, level));
}

/*
 * Hangs a chain of new tables into `slot` (at slot_level, covering `in`), down to a table at
 * `bottom`, whose slots [index, index + count) hold leaves from `entry` on. The slot is absent or a
 * leaf; what a leaf said goes on being said by all other slots of the chain. One store publishes
 * it; where hardware sets A or D in the old leaf meanwhile, the chain is filled again.
 */
WALKER void hang_chain(const struct table_kind *k, struct table *t, struct spare *spare,
                       uint64_t *slot, unsigned slot_level, unsigned bottom, uint64_t in,
                       unsigned index, unsigned count, uint64_t entry)
{
    uint64_t *chain[MAX_LEVELS + 1];
    uint64_t old = pte_read(slot);
    bool split = is_present(k, old);

    for (unsigned level = bottom; level < slot_level; level++)
        chain[level] = spare_pop(spare);
    do {
        for (unsigned level = bottom; level < slot_level; level++) {
            uint64_t *table = chain[level];
            unsigned at = level == bottom ? index : slot_index(k, in, level);
            unsigned filled = level == bottom ? count : 1;

            if (split) {
                fill_from_leaf(k, t, table, level, in, old, slot_level);
            } else {
                fill_zero(table, 0, at);
                fill_zero(table, at + filled, slots_of(k));
            }
            if (level == bottom)
                fill_leaves(table, at, count, entry, level_size(k, level));
            else
                table[at] = table_entry(k, chain[level - 1]);
            count_set(t, table, split ? all_entries(k) : entries_of(k, at, filled));
        }
        if (!split) {
            pte_write(slot, table_entry(k, chain[slot_level - 1]));
            break;
        }
    } while (!pte_exchange_if(slot, &old, table_entry(k, chain[slot_level - 1])));
}

/* ---- Splitting at the edges of a range ---------------------------------------------------- */

/*
 * A range that begins or ends within a large leaf needs it split down to where `edge` is a
 * boundary. Finds the leaf: returns its slot and level, or NULL when no split is needed.
 */
WALKER uint64_t *edge_leaf(const struct table_kind *k, struct table *t, uint64_t edge,
                           unsigned *level)
{
    uint64_t *table = direct(t->root);

    for (unsigned l = k->levels; l > 1; l--) {
        uint64_t *slot = &table[slot_index(k, edge, l)];
        uint64_t entry = pte_read(slot);

        if (is_aligned(edge, level_size(k, l)) || !is_present(k, entry))
            return NULL;
        if (is_leaf(k, entry, l)) {
            *level = l;
            return slot;
        }
        table = child_of(entry);
    }
    return NULL;
}

/* The lowest level at which a table is needed for `edge` to be a boundary. */
WALKER unsigned edge_bottom(const struct table_kind *k, uint64_t edge)
{
    unsigned level = 1;
    while (is_aligned(edge, level_size(k, level + 1)))
        level++;
    return level;
}

/* `same`: leaves that hold these attributes already need no split (NULL: all do). */
WALKER bool edge_matters(const struct table_kind *k, const struct table *t, uint64_t entry,
                         unsigned level, const struct attrs *same)
{
    return !same || !attrs_equal(k->decode(entry, level, &t->caps), *same);
}

WALKER void plan_edge(const struct table_kind *k, struct table *t, struct plan *plan, uint64_t edge,
                      const struct attrs *same)
{
    unsigned level;
    uint64_t *slot = edge_leaf(k, t, edge, &level);

    if (!slot || !edge_matters(k, t, pte_read(slot), level, same))
        return;
    for (unsigned l = level - 1; l >= edge_bottom(k, edge); l--)
        plan_table(k, plan, edge, l);
}

WALKER void split_edge(const struct table_kind *k, struct table *t, struct spare *spare,
                       uint64_t edge, const struct attrs *same, struct flush_batch *batch)
{
    unsigned level;
    uint64_t *slot = edge_leaf(k, t, edge, &level);

    if (!slot || !edge_matters(k, t, pte_read(slot), level, same))
        return;
    hang_chain(k, t, spare, slot, level, edge_bottom(k, edge), edge, 0, 0, 0);
    uint64_t first = align_down(edge, level_size(k, level));
    flush_add(batch, first, first + level_size(k, level) - 1, level);
}

/* Both edges of [in, last]: plan, take, split. The end of the address space is no edge. */
WALKER int split_edges(const struct table_kind *k, struct table *t, uint64_t in, uint64_t last,
                       const struct attrs *same, struct flush_batch *batch)
{
    struct plan plan;
    struct spare spare;

    plan_start(&plan);
    plan_edge(k, t, &plan, in, same);
    if (last != UINT64_MAX)
        plan_edge(k, t, &plan, last + 1, same);
    int error = spare_take(t, plan.needed, &spare);
    if (error)
        return error;
    split_edge(k, t, &spare, in, same, batch);
    if (last != UINT64_MAX)
        split_edge(k, t, &spare, last + 1, same, batch);
    invariant(spare.first == NULL);
    return E_OK;
}

/* ---- Reading: spans of slots --------------------------------------------------------------- */

/* Consecutive slots of one table; the first is a leaf, later ones may be anything. */
struct span {
    uint64_t *slot;
    unsigned count;
    unsigned level;
    unsigned rights; /* what the tables above let through */
    uint64_t in;     /* of the first slot */
    uint64_t *above; /* the entry that points at this table; NULL for the root */
};

/* A table below a pinned root may be empty: its count says so without a look at its 512 slots. */
WALKER bool is_empty_pinned(const struct table_kind *k, const struct table *t, uint64_t entry,
                            unsigned level)
{
    return t->root_pinned && level == k->levels && t->env->frame_records &&
           frame_payload(hpa(entry & ENTRY_ADDRESS)) == 0;
}

/* The first span that begins with a leaf covering or following `pos`, up to `last`. */
WALKER bool next_span(const struct table_kind *k, const struct table *t, uint64_t pos,
                      uint64_t last, struct span *span)
{
    for (;;) {
        uint64_t *table = direct(t->root);
        uint64_t *above = NULL;
        unsigned rights = ~0u;
        unsigned level = k->levels;

        for (;;) {
            unsigned index = slot_index(k, pos, level);
            uint64_t entry = pte_read(&table[index]);

            if (is_present(k, entry) && is_leaf(k, entry, level)) {
                uint64_t first = align_down(pos, level_size(k, level));
                uint64_t span_slots = ((last - first) >> level_shift(k, level)) + 1;
                unsigned in_table = slots_of(k) - index;

                *span = (struct span){
                    .slot = &table[index],
                    .count = span_slots < in_table ? (unsigned)span_slots : in_table,
                    .level = level,
                    .rights = rights,
                    .in = first,
                    .above = above,
                };
                return true;
            }
            if (is_present(k, entry) && !is_empty_pinned(k, t, entry, level)) {
                rights &= k->table_rights(entry, &t->caps);
                above = &table[index];
                table = child_of(entry);
                level--;
                continue;
            }
            uint64_t slot_last = pos | (level_size(k, level) - 1);
            if (slot_last >= last)
                return false;
            pos = slot_last + 1;
            if (index + 1 == slots_of(k))
                break; /* the next slot belongs to another table: from the root again */
        }
    }
}

/* The last input address that a span's first `count` slots cover. */
WALKER uint64_t span_last(const struct table_kind *k, const struct span *span, unsigned count)
{
    return span->in + ((uint64_t)count << level_shift(k, span->level)) - 1;
}

WALKER void describe_leaf(const struct table_kind *k, const struct table *t, uint64_t in,
                          unsigned level, uint64_t entry, unsigned rights, struct mapping *out)
{
    out->in = in;
    out->last = in + level_size(k, level) - 1;
    out->out = hpa(leaf_address(k, entry, level));
    out->attrs = k->decode(entry, level, &t->caps);
    out->attrs.rights &= (uint8_t)(rights | RIGHT_G);
    out->level = (uint8_t)level;
    out->accessed = (entry & k->accessed_bit) != 0;
    out->dirty = (entry & k->dirty_bit) != 0;
    out->raw = entry;
}

/* ---- Map ------------------------------------------------------------------------------------ */

/* The longest run of equal-sized leaves from here that stays within one table or, where it fills
 * that, within the tables beside it that have the same parent. */
struct run {
    unsigned level, index, count; /* of the first table, all of them alike */
    unsigned tables;              /* that are filled whole; 0: one, in part */
};

WALKER uint64_t table_bytes(const struct table_kind *k, struct run run)
{
    return (uint64_t)run.count << level_shift(k, run.level);
}

WALKER struct run run_at(const struct table_kind *k, uint64_t in, uint64_t out, uint64_t left,
                         unsigned top)
{
    struct run run = {.level = top};

    while (run.level > 1 &&
           (!is_aligned(in | out, level_size(k, run.level)) || left < level_size(k, run.level)))
        run.level--;
    run.index = slot_index(k, in, run.level);
    uint64_t fitting = left >> level_shift(k, run.level);
    unsigned in_table = slots_of(k) - run.index;
    run.count = fitting < in_table ? (unsigned)fitting : in_table;
    /* A larger leaf can begin only where this table ends, since it must be aligned as `in` is; and
     * nowhere at all behind a whole table, which would have been one itself. */
    if (run.count == slots_of(k)) {
        uint64_t whole = fitting >> k->index_bits;
        unsigned beside = slots_of(k) - slot_index(k, in, run.level + 1);
        run.tables = whole < beside ? (unsigned)whole : beside;
    }
    return run;
}

/* Plans the whole tables of a run that have free slots waiting for them, and returns how many these
 * are. */
WALKER unsigned plan_tables(const struct table_kind *k, struct table *t, struct plan *plan,
                            uint64_t in, struct run run)
{
    uint64_t *table = direct(t->root);
    unsigned n = 0;

    for (unsigned level = k->levels; level > run.level + 1; level--) {
        uint64_t entry = pte_read(&table[slot_index(k, in, level)]);

        if (!is_present(k, entry)) {
            for (unsigned l = level - 1; l > run.level; l--)
                plan_table(k, plan, in, l);
            plan->needed += run.tables;
            return run.tables;
        }
        if (is_leaf(k, entry, level))
            return 0;
        table = child_of(entry);
    }
    table += slot_index(k, in, run.level + 1);
    while (n < run.tables && !is_present(k, pte_read(&table[n])))
        n++;
    plan->needed += n;
    return n;
}

/* The table at `bottom` that covers `in`; what was missing on the way is new, and empty. NULL where
 * a leaf covers it. */
WALKER uint64_t *make_way(const struct table_kind *k, struct table *t, struct spare *spare,
                          uint64_t in, unsigned bottom)
{
    uint64_t *table = direct(t->root);

    for (unsigned level = k->levels; level > bottom; level--) {
        uint64_t *slot = &table[slot_index(k, in, level)];
        uint64_t entry = pte_read(slot);

        if (!is_present(k, entry)) {
            hang_chain(k, t, spare, slot, level, bottom, in, 0, 0, 0);
            count_add(t, table, entry_at(k, slot_index(k, in, level)));
            entry = pte_read(slot);
        } else if (is_leaf(k, entry, level)) {
            return NULL;
        }
        table = child_of(entry);
    }
    return table;
}

/* Stores what plan_tables() has planned. Each table is whole before it is published. */
WALKER unsigned do_tables(const struct table_kind *k, struct table *t, struct spare *spare,
                          uint64_t in, struct run run, uint64_t entry)
{
    uint64_t step = level_size(k, run.level);
    uint64_t *table = run.tables ? make_way(k, t, spare, in, run.level + 1) : NULL;
    unsigned n = 0;

    if (!table)
        return 0;
    uint64_t *slot = &table[slot_index(k, in, run.level + 1)];
    while (n < run.tables && !is_present(k, pte_read(&slot[n]))) {
        uint64_t *child = spare_pop(spare);

        spare_prefetch(spare);
        fill_leaves(child, 0, slots_of(k), entry, step);
        count_set(t, child, all_entries(k));
        pte_write(&slot[n++], table_entry(k, child));
        entry += step << k->index_bits;
    }
    count_add(t, table, entries_of(k, slot_index(k, in, run.level + 1), n));
    return n;
}

WALKER int plan_run(const struct table_kind *k, struct table *t, struct plan *plan, uint64_t in,
                    struct run run, bool replace)
{
    uint64_t *table = direct(t->root);

    for (unsigned level = k->levels; level > run.level; level--) {
        uint64_t entry = pte_read(&table[slot_index(k, in, level)]);
        bool present = is_present(k, entry);

        if (present && !is_leaf(k, entry, level)) {
            table = child_of(entry);
            continue;
        }
        if (present && !replace)
            return E_EXIST;
        for (unsigned l = level - 1; l >= run.level; l--)
            plan_table(k, plan, in, l);
        return E_OK;
    }
    if (!replace)
        for (unsigned i = 0; i < run.count; i++)
            if (is_present(k, pte_read(&table[run.index + i])))
                return E_EXIST;
    return E_OK;
}

/* Puts leaves into slots of a live table, whatever they held. */
WALKER void store_run(const struct table_kind *k, struct table *t, uint64_t *table, uint64_t in,
                      struct run run, uint64_t entry, struct flush_batch *batch)
{
    uint64_t step = level_size(k, run.level);
    uint64_t added = 0;

    for (unsigned i = 0; i < run.count; i++, in += step) {
        uint64_t *slot = &table[run.index + i];
        uint64_t old = pte_read(slot);

        pte_write(slot, entry + i * step);
        if (!is_present(k, old)) {
            added += entry_at(k, run.index + i);
        } else {
            flush_add(batch, in, in + step - 1, is_leaf(k, old, run.level) ? run.level : 1);
            if (!is_leaf(k, old, run.level))
                flush_dead_table(batch, hpa(old & ENTRY_ADDRESS), run.level - 1);
        }
    }
    count_add(t, table, added);
}

WALKER void do_run(const struct table_kind *k, struct table *t, struct spare *spare, uint64_t in,
                   struct run run, uint64_t entry, struct flush_batch *batch)
{
    uint64_t *table = direct(t->root);

    for (unsigned level = k->levels; level > run.level; level--) {
        uint64_t *slot = &table[slot_index(k, in, level)];
        uint64_t old = pte_read(slot);

        if (is_table(k, old, level)) {
            table = child_of(old);
            continue;
        }
        hang_chain(k, t, spare, slot, level, run.level, in, run.index, run.count, entry);
        if (is_present(k, old)) {
            uint64_t first = align_down(in, level_size(k, level));
            flush_add(batch, first, first + level_size(k, level) - 1, level);
        } else {
            count_add(t, table, entry_at(k, slot_index(k, in, level)));
        }
        return;
    }
    store_run(k, t, table, in, run, entry, batch);
}

/* Can this kind on this CPU say exactly these attributes, at every level up to `top`? */
WALKER bool can_express(const struct table_kind *k, const struct table *t, struct attrs attrs,
                        unsigned top)
{
    unsigned passed = k->table_rights(k->table_bits, &t->caps) | RIGHT_G;

    if (attrs.rights & ~passed)
        return false; /* no walk gets there with these rights */
    for (unsigned level = 1; level <= top; level++) {
        uint64_t entry = k->encode(attrs, level, &t->caps);
        if (!(t->caps.mem_types & (1u << (attrs.type & 7))) ||
            entry_rule(k, &t->caps, level, entry) != RULE_OK ||
            !attrs_equal(k->decode(entry, level, &t->caps), attrs))
            return false;
    }
    return true;
}

/* The bits of `attrs` for leaves up to level `top`, or NULL when this kind cannot say them.
 * `encoded` is where the table, whose lock the caller holds, keeps the last answer. */
WALKER const uint64_t *encode_all(const struct table_kind *k, const struct table *t,
                                  struct encoded_attrs *encoded, struct attrs attrs, unsigned top)
{
    if (encoded->levels >= top && attrs_equal(encoded->attrs, attrs))
        return encoded->bits;
    if (!can_express(k, t, attrs, top))
        return NULL;
    encoded->attrs = attrs;
    encoded->levels = (uint8_t)top;
    for (unsigned level = 1; level <= top; level++)
        encoded->bits[level] = k->encode(attrs, level, &t->caps);
    return encoded->bits;
}

WALKER unsigned top_leaf(const struct table *t, unsigned flags)
{
    unsigned top = t->caps.leaf_top;
    if ((flags & MAP_CAP_2M) && top > 2)
        top = 2;
    return flags & MAP_CAP_4K ? 1 : top;
}

/* Which quarter of a level-1 table covers this address. */
WALKER uint64_t near_which(const struct table_kind *k, uint64_t in)
{
    return in >> (PAGE_SHIFT + quarter_shift(k));
}

/* Finds the quarter of a level-1 table that covers an address, and remembers it. False when there
 * is none, when it has no record to count in, when not all that the table covers is within what the
 * kind maps, or while no attributes are known. */
WALKER bool go_near(const struct table_kind *k, struct table *t, uint64_t in)
{
    uint64_t covered = level_size(k, 2) - 1;
    uint64_t *table = direct(t->root);

    if (!t->env->frame_records || t->encoded.levels == 0 || (in & ~covered) < k->input_first ||
        (in | covered) > k->input_last)
        return false;
#pragma GCC unroll 4
    for (unsigned level = k->levels; level > 1; level--) {
        uint64_t above = pte_peek(&table[slot_index(k, in, level)]);

        if (!is_table(k, above, level))
            return false;
        table = child_of(above);
    }
    t->near.which = near_which(k, in);
    t->near.table = table;
    t->near.record = &frame_records[pfn_of(direct_hpa(table))];
    t->near.one = entry_at(k, slot_index(k, in, 1)) << FRAME_PAYLOAD_SHIFT;
    return true;
}

/* Is this the only CPU, and does the quarter used last cover this address? Then the address is
 * valid, like all that its table covers. */
WALKER bool is_near(const struct table_kind *k, const struct table *t, uint64_t in)
{
    return __builtin_expect(!locks_needed && t->near.which == near_which(k, in), 1);
}

/*
 * The commonest case of all: one page, of the kind that was mapped last, into the quarter used last
 * (of which nothing is mapped, if it is `empty`), on the only CPU. Says whether it was that; if
 * not, nothing was stored.
 */
WALKER bool map_near(const struct table_kind *k, struct table *t, uint64_t in, uint64_t out,
                     struct attrs attrs, bool empty)
{
    const struct encoded_attrs *encoded = &t->encoded;
    uint64_t *slot = &t->near.table[slot_index(k, in, 1)], *record = t->near.record;

    if (__builtin_expect((in & (PAGE_SIZE - 1)) || (out & t->not_frame) ||
                             !attrs_equal(encoded->attrs, attrs) ||
                             (!empty && is_present(k, pte_scan(slot))),
                         0))
        return false;
    pte_write(slot, out | encoded->bits[1]);
    *record += t->near.one;
    t->flushes.spared++;
    return true;
}

/* The same when another quarter was used last. Its table may be in no cache: where the count says
 * that the slot is free the slot is not read, and no store has to be waited for. */
WALKER bool map_far(const struct table_kind *k, struct table *t, uint64_t in, uint64_t out,
                    struct attrs attrs)
{
    if (locks_needed || !go_near(k, t, in))
        return false;
    bool empty = !(*t->near.record & t->near.one * ENTRY_COUNT_MASK);
    if (!map_near(k, t, in, out, attrs, empty))
        return false;
    t->known_page = in;
    return true;
}

/*
 * The common small case: all of the range is one run in a table that exists, and its slots are
 * free. Nothing needs to be planned or taken. Says whether that was so; if not, nothing was stored.
 */
WALKER bool map_in_place(const struct table_kind *k, struct table *t, uint64_t in, struct run run,
                         uint64_t entry)
{
    uint64_t *table = direct(t->root);

    for (unsigned level = k->levels; level > run.level; level--) {
        uint64_t above = pte_read(&table[slot_index(k, in, level)]);

        if (!is_table(k, above, level))
            return false;
        table = child_of(above);
    }
    for (unsigned i = 0; i < run.count; i++)
        if (is_present(k, pte_read(&table[run.index + i])))
            return false;
    for (unsigned i = 0; i < run.count; i++)
        pte_write(&table[run.index + i], entry + i * level_size(k, run.level));
    count_add(t, table, entries_of(k, run.index, run.count));
    return true;
}

/* Anything else: plan, take, store. The lock is held. */
WALKER int map_by_plan(const struct table_kind *k, struct table *t, uint64_t in, uint64_t out,
                       uint64_t size, unsigned top, const uint64_t *encoded, bool replace,
                       struct flush_batch *batch)
{
    struct plan plan;
    struct spare spare;
    uint64_t delta = out - in;
    uint64_t pos = in, left = size;

    plan_start(&plan);
    while (left) {
        struct run run = run_at(k, pos, pos + delta, left, top);
        unsigned tables = run.tables ? plan_tables(k, t, &plan, pos, run) : 0;
        int error = tables ? E_OK : plan_run(k, t, &plan, pos, run, replace);
        if (error)
            return error;
        uint64_t done = table_bytes(k, run) * (tables ? tables : 1);
        pos += done;
        left -= done;
    }
    int error = spare_take(t, plan.needed, &spare);
    if (error)
        return error;
    for (pos = in, left = size; left;) {
        struct run run = run_at(k, pos, pos + delta, left, top);
        uint64_t entry = (pos + delta) | encoded[run.level];
        unsigned tables = do_tables(k, t, &spare, pos, run, entry);
        if (!tables)
            do_run(k, t, &spare, pos, run, entry, batch);
        uint64_t done = table_bytes(k, run) * (tables ? tables : 1);
        pos += done;
        left -= done;
    }
    invariant(spare.first == NULL);
    return E_OK;
}

WALKER int walker_map(const struct table_kind *k, struct table *t, uint64_t in, hpa_t out,
                      uint64_t size, struct attrs attrs, unsigned flags, struct flush_batch *batch)
{
    int error = check_range(k, in, size);
    if (error)
        return error;
    if (!is_aligned(out.v, PAGE_SIZE))
        return E_ALIGN;
    uint64_t out_last = out.v + size - 1;
    if (out_last < out.v || out_last >> t->caps.maxphyaddr)
        return E_RANGE;
    bool replace = flags & MAP_REPLACE;
    if (replace && !t->env->frame_records)
        return E_STATE; /* tables may die, and there is no list to hold them yet */

    lock_take(&t->lock);
    unsigned top = top_leaf(t, flags);
    const uint64_t *encoded = encode_all(k, t, &t->encoded, attrs, top);
    struct run run = run_at(k, in, out.v, size, top);
    if (!encoded)
        error = E_ILLEGAL;
    else if (table_bytes(k, run) != size ||
             !map_in_place(k, t, in, run, out.v | encoded[run.level]))
        error = map_by_plan(k, t, in, out.v, size, top, encoded, replace, batch);
    if (!error && !batch->count && !batch->whole)
        t->flushes.spared++;
    lock_drop(&t->lock);
    return error;
}

/* ---- Unmap ---------------------------------------------------------------------------------- */

/* `table` at `level` has just lost its last entry: takes it out of its parent, and so on upwards.
 */
WALKER void drop_empty(const struct table_kind *k, struct table *t, uint64_t *table, unsigned level,
                       uint64_t *const parent_slot[], struct flush_batch *batch)
{
    unsigned highest = k->levels - (t->root_pinned ? 2u : 1u);

    while (level <= highest) {
        uint64_t *slot = parent_slot[level + 1];

        pte_write(slot, 0);
        flush_dead_table(batch, direct_hpa(table), level);
        table = (uint64_t *)align_down((uint64_t)(uintptr_t)slot, PAGE_SIZE);
        level++;
        if (count_add(t, table, -entry_at(k, (unsigned)(slot - table))))
            return;
    }
}

/*
 * The common small case: one 4 KiB page in the quarter used last, whose table keeps other entries.
 * Says whether it was that; if not, nothing was stored. The slot of a page that is known to be
 * mapped is not read.
 */
WALKER bool unmap_near(const struct table_kind *k, struct table *t, uint64_t in,
                       struct flush_batch *batch)
{
    uint64_t *slot = &t->near.table[slot_index(k, in, 1)], *record = t->near.record;
    uint64_t counted = *record - t->near.one;

    if (!(counted & FRAME_PAYLOAD_MASK))
        return false;
    if (t->known_page == in)
        t->known_page = NO_PAGE;
    else if ((in & (PAGE_SIZE - 1)) || !is_present(k, pte_scan(slot)))
        return false;
    pte_write(slot, 0);
    *record = counted;
    if (batch->state != FLUSH_NOTHING) {
        flush_add(batch, in, in + (PAGE_SIZE - 1), 1);
        return true;
    }
    t->flushes.asked++;
    t->open_batches++;
    batch->range[0] = (struct flush_range){in, in + (PAGE_SIZE - 1), 1};
    batch->state = FLUSH_ONE_RANGE;
    return true;
}

WALKER bool unmap_far(const struct table_kind *k, struct table *t, uint64_t in,
                      struct flush_batch *batch)
{
    return !locks_needed && go_near(k, t, in) && unmap_near(k, t, in, batch);
}

WALKER int walker_unmap(const struct table_kind *k, struct table *t, uint64_t in, uint64_t size,
                        struct flush_batch *batch)
{
    int error = check_range(k, in, size);
    if (error)
        return error;
    if (!t->env->frame_records)
        return E_STATE;

    uint64_t last = in + size - 1;
    lock_take(&t->lock);
    t->known_page = NO_PAGE;
    error = split_edges(k, t, in, last, NULL, batch);
    for (uint64_t pos = in; !error;) {
        uint64_t *slot_at[MAX_LEVELS + 1];
        uint64_t *table = direct(t->root);
        unsigned level = k->levels;
        uint64_t done; /* the last address dealt with */

        for (;; level--) {
            unsigned index = slot_index(k, pos, level);
            uint64_t step = level_size(k, level);
            uint64_t entry = pte_read(&table[index]);

            slot_at[level] = &table[index];
            done = pos | (step - 1);
            if (!is_present(k, entry))
                break;
            bool whole = is_aligned(pos, step) && last - pos >= step - 1;
            if (!whole || (level == k->levels && t->root_pinned)) {
                invariant(!is_leaf(k, entry, level)); /* the edges are split */
                table = child_of(entry);
                continue;
            }
            uint64_t first = pos;
            uint64_t removed = 0;
            unsigned smallest = level; /* leaf: below a dead table it may be any */
            for (unsigned i = index;; i++) {
                uint64_t old = pte_read(&table[i]);
                if (is_present(k, old)) {
                    pte_write(&table[i], 0);
                    removed += entry_at(k, i);
                    if (!is_leaf(k, old, level)) {
                        flush_dead_table(batch, hpa(old & ENTRY_ADDRESS), level - 1);
                        smallest = 1;
                    }
                }
                done = pos | (step - 1);
                if (i + 1 == slots_of(k) || last - done < step)
                    break;
                pos = done + 1;
            }
            flush_add(batch, first, done, smallest);
            if (!count_add(t, table, -removed) && level < k->levels)
                drop_empty(k, t, table, level, slot_at, batch);
            break;
        }
        if (done >= last)
            break;
        pos = done + 1;
    }
    lock_drop(&t->lock);
    return error;
}

/* ---- Protect, split, merge ------------------------------------------------------------------ */

/* Replaces a live leaf's bits, keeping A and D whatever hardware does meanwhile. */
WALKER void rewrite_leaf(const struct table_kind *k, const struct table *t, uint64_t *slot,
                         uint64_t old, uint64_t bits)
{
    uint64_t kept = accessed_dirty(k);

    if (!t->caps.accessed_dirty || (old & kept) == kept) {
        pte_write(slot, bits | (old & kept)); /* hardware has nothing to add */
        return;
    }
    while (!pte_exchange_if(slot, &old, bits | (old & kept)))
        continue;
}

/* Does a change of attributes leave behind translations that allow too much, or cache wrongly? */
WALKER bool change_needs_flush(const struct table_kind *k, struct attrs before, struct attrs after)
{
    return !k->rights_grow_freely || before.type != after.type || (before.rights & ~after.rights);
}

/*
 * Tables that are changed by exchange: where hardware may set A or D in any of 512 live entries,
 * one atomic operation for each costs more than a changed copy of the table that takes its place by
 * one store. What hardware still sets in the old table until the flush is gathered into the copy
 * then.
 */
#define COPIES 16

struct copies {
    unsigned count;
    struct {
        uint64_t *old, *new;
    } pair[COPIES];
    /* Taken, or old and forgotten: to become copies, in that order, so that tables that lie one
     * behind the other go on doing so. A ring: never more than COPIES tables are out at a time. */
    unsigned free_first, free_end;
    uint64_t *free[COPIES];
};

/* The loops over whole tables, of 512 slots or more, have functions of their own, and so all
 * registers; by pointers that move, for addresses made of two registers cost more; what they gather
 * goes into several words, so that none waits for another. */

/* What any of the entries has. */
static __attribute__((noinline, unused)) uint64_t any_of(const uint64_t *table, unsigned slots)
{
    uint64_t any[4] = {0};

    for (const uint64_t *end = table + slots; table < end; table += 16)
#pragma GCC unroll 16
        for (unsigned i = 0; i < 16; i++)
            any[i % 4] |= pte_scan(&table[i]);
    return any[0] | any[1] | any[2] | any[3];
}

/* What any of the entries of two tables differs in. */
static __attribute__((noinline, unused)) uint64_t differing(const uint64_t *a, const uint64_t *b,
                                                            unsigned slots)
{
    uint64_t any[4] = {0};

    for (const uint64_t *end = a + slots; a < end; a += 8, b += 8)
#pragma GCC unroll 8
        for (unsigned i = 0; i < 8; i++)
            any[i % 4] |= pte_scan(&a[i]) ^ pte_scan(&b[i]);
    return any[0] | any[1] | any[2] | any[3];
}

/* Fills `new` with the leaves of `old`, of which none is absent: they keep these bits and get
 * those. */
static __attribute__((noinline, unused)) void copy_changed(uint64_t *new, const uint64_t *old,
                                                           unsigned slots, uint64_t keep,
                                                           uint64_t bits)
{
    for (const uint64_t *end = old + slots; old < end; old += 16, new += 16)
#pragma GCC unroll 16
        for (unsigned i = 0; i < 16; i++)
            new[i] = (pte_scan(&old[i]) & keep) | bits;
}

/* Changes live entries in place as if `first` became `wanted`, four at a time, for as long as they
 * differ from `first` in nothing but `varying`. Returns how many were alike. */
static __attribute__((noinline, unused)) unsigned change_alike(uint64_t *slot, unsigned count,
                                                               uint64_t first, uint64_t varying,
                                                               uint64_t wanted)
{
    unsigned done = 0;

#pragma GCC unroll 2
    for (; count - done >= 4; done += 4, slot += 4) {
        uint64_t a = pte_peek(&slot[0]) ^ first, b = pte_peek(&slot[1]) ^ first;
        uint64_t c = pte_peek(&slot[2]) ^ first, d = pte_peek(&slot[3]) ^ first;

        if ((a | b | c | d) & ~varying)
            break;
        if (first == wanted)
            continue;
        pte_write(&slot[0], a ^ wanted);
        pte_write(&slot[1], b ^ wanted);
        pte_write(&slot[2], c ^ wanted);
        pte_write(&slot[3], d ^ wanted);
    }
    return done;
}

/* Every CPU forgets the tables that copies took the place of, of which there is one at least; what
 * hardware marked in them meanwhile is gathered into the copies, and they may become copies
 * themselves. */
WALKER void copies_settle(const struct table_kind *k, struct table *t, struct copies *copies)
{
    struct flush_batch now;
    uint64_t kept = accessed_dirty(k);

    flush_begin(&now, t);
    flush_whole(&now);
    flush_commit(&now);
    for (unsigned n = 0; n < copies->count; n++) {
        uint64_t *old = copies->pair[n].old, *new = copies->pair[n].new;
        bool late = (any_of(old, slots_of(k)) & kept) && (differing(old, new, slots_of(k)) & kept);

        for (unsigned i = 0; late && i < slots_of(k); i++)
            if (pte_peek(&old[i]) & ~pte_peek(&new[i]) & kept)
                pte_set_bits(&new[i], pte_peek(&old[i]) & kept);
        count_set(t, old, 0);
        copies->free[copies->free_end++ % COPIES] = old;
    }
    copies->count = 0;
}

/* Is this span a whole table of leaves, which a copy can take the place of? That no entry is absent
 * is what the count in its frame's record says. Tables right below a pinned root are other roots'
 * as well, and so not to be replaced. */
WALKER bool can_copy(const struct table_kind *k, const struct table *t, const struct span *span)
{
    if (span->count != slots_of(k) || !span->above || !t->env->frame_records ||
        (t->root_pinned && span->level == k->levels - 1u) ||
        frame_payload(direct_hpa(span->slot)) != all_entries(k))
        return false;
    for (unsigned i = 0; span->level > 1 && i < slots_of(k); i++)
        if (!is_leaf(k, pte_read(&span->slot[i]), span->level))
            return false;
    return true;
}

/*
 * A whole table of leaves by a copy: these keep the bits `keep`, A and D among them, and get
 * `bits`. Owes no flush when it is settled. False, with nothing changed, where no frame is to be
 * had.
 */
WALKER bool protect_by_copy(const struct table_kind *k, struct table *t, const struct span *span,
                            uint64_t keep, uint64_t bits, struct copies *copies)
{
    if (copies->count == COPIES)
        copies_settle(k, t, copies);
    if (copies->free_first == copies->free_end) {
        hpa_t frame;
        if (take_frames(t, &frame, 1) != E_OK)
            return false;
        copies->free[copies->free_end++ % COPIES] = direct(frame);
    }
    uint64_t *new = copies->free[copies->free_first++ % COPIES];
    copy_changed(new, span->slot, slots_of(k), keep, bits);
    count_set(t, new, all_entries(k));
    uint64_t above = pte_read(span->above);
    while (!pte_exchange_if(span->above, &above, direct_hpa(new).v | (above & ~ENTRY_ADDRESS)))
        continue;
    t->near.which = NEAR_NONE;
    copies->pair[copies->count].old = span->slot;
    copies->pair[copies->count++].new = new;
    return true;
}

/*
 * The common large cases: leaves with the same attributes, one after the other, by plain stores
 * where hardware has nothing to add, A and D being set or kept by nobody; and a whole table of
 * leaves of which this does less than half, by a copy. Where the first leaf is as wanted, and
 * perhaps all are, nothing is copied. Returns how many slots it dealt with, perhaps none.
 */
WALKER unsigned protect_many(const struct table_kind *k, struct table *t, const struct span *span,
                             uint64_t bits, struct attrs attrs, struct copies *copies,
                             struct flush_batch *batch)
{
    uint64_t page = ENTRY_ADDRESS & ~(level_size(k, span->level) - 1);
    uint64_t kept = accessed_dirty(k);
    uint64_t first = pte_peek(&span->slot[0]);
    struct attrs before = k->decode(first, span->level, &t->caps);
    bool same = attrs_equal(before, attrs);
    uint64_t wanted = same ? first : (first & (page | kept)) | bits;
    unsigned done = 0;

    if (!t->caps.accessed_dirty)
        done = change_alike(span->slot, span->count, first, page | kept, wanted);
    else if ((first & kept) == kept)
        done = change_alike(span->slot, span->count, first, page, wanted);
    if (done < span->count / 2 && t->caps.accessed_dirty && !same && can_copy(k, t, span) &&
        protect_by_copy(k, t, span, page | kept, bits, copies))
        return span->count;
    if (done && !same && change_needs_flush(k, before, attrs))
        flush_add(batch, span->in, span_last(k, span, done), span->level);
    return done;
}

WALKER int walker_protect(const struct table_kind *k, struct table *t, uint64_t in, uint64_t size,
                          struct attrs attrs, struct flush_batch *batch)
{
    int error = check_range(k, in, size);
    if (error)
        return error;

    uint64_t last = in + size - 1;
    lock_take(&t->lock);
    const uint64_t *encoded = encode_all(k, t, &t->protected, attrs, t->caps.leaf_top);
    error = encoded ? split_edges(k, t, in, last, &attrs, batch) : E_ILLEGAL;
    struct copies copies;
    copies.count = copies.free_first = copies.free_end = 0;
    struct span span;
    for (uint64_t pos = in; !error && next_span(k, t, pos, last, &span);) {
        uint64_t bits = encoded[span.level] & ~accessed_dirty(k);
        uint64_t step = level_size(k, span.level);
        uint64_t at = span.in;
        unsigned i;

        i = protect_many(k, t, &span, bits, attrs, &copies, batch);
        for (at += (uint64_t)i << level_shift(k, span.level); i < span.count; i++, at += step) {
            uint64_t old = pte_read(&span.slot[i]);
            if (!is_present(k, old))
                continue;
            if (!is_leaf(k, old, span.level))
                break;
            struct attrs before = k->decode(old, span.level, &t->caps);
            if (attrs_equal(before, attrs))
                continue;
            rewrite_leaf(k, t, &span.slot[i], old, leaf_address(k, old, span.level) | bits);
            if (change_needs_flush(k, before, attrs))
                flush_add(batch, at, at + step - 1, span.level);
        }
        uint64_t done = span_last(k, &span, i);
        if (done >= last)
            break;
        pos = done + 1;
    }
    if (copies.count)
        copies_settle(k, t, &copies);
    while (copies.free_first < copies.free_end) {
        hpa_t frame = direct_hpa(copies.free[copies.free_first++ % COPIES]);
        give_frames(t, &frame, 1);
    }
    lock_drop(&t->lock);
    return error;
}

WALKER int walker_split(const struct table_kind *k, struct table *t, uint64_t in, uint64_t size,
                        unsigned bottom, struct flush_batch *batch)
{
    int error = check_range(k, in, size);
    if (error)
        return error;
    if (bottom < 1 || bottom > 2)
        return E_INVAL;

    uint64_t last = in + size - 1;
    struct plan plan;
    struct spare spare = {NULL, 0};
    struct span span;
    lock_take(&t->lock);
    plan_start(&plan);
    for (uint64_t pos = in; next_span(k, t, pos, last, &span);) {
        uint64_t done = span_last(k, &span, span.level > bottom ? 1 : span.count);
        uint64_t first = span.in > in ? span.in : in;
        uint64_t end = done < last ? done : last;

        /* One table for each leaf, on the way down, that the range touches. */
        for (unsigned level = span.level; level > bottom; level--)
            plan.needed += (end >> level_shift(k, level)) - (first >> level_shift(k, level)) + 1;
        if (done >= last)
            break;
        pos = done + 1;
    }
    error = spare_take(t, plan.needed, &spare);
    for (uint64_t pos = in; !error && next_span(k, t, pos, last, &span);) {
        uint64_t done = span_last(k, &span, span.level > bottom ? 1 : span.count);

        if (span.level > bottom) {
            /* One level at a time; what comes out is found again if it is still too large. */
            hang_chain(k, t, &spare, span.slot, span.level, span.level - 1, span.in, 0, 0, 0);
            flush_add(batch, span.in, done, span.level);
            if (span.level - 1 > bottom) {
                pos = span.in > in ? span.in : in;
                continue;
            }
        }
        if (done >= last)
            break;
        pos = done + 1;
    }
    invariant(error || spare.first == NULL);
    lock_drop(&t->lock);
    return error;
}

/* Is `table` at `level` 512 leaves that one leaf at level + 1 could stand for? */
WALKER bool mergeable(const struct table_kind *k, const uint64_t *table, unsigned level,
                      uint64_t *ad)
{
    uint64_t first = pte_read(&table[0]) & ~accessed_dirty(k);
    uint64_t step = level_size(k, level);

    *ad = 0;
    if (!is_present(k, first) || !is_leaf(k, first, level) ||
        !is_aligned(leaf_address(k, first, level), level_size(k, level + 1)))
        return false;
    for (unsigned i = 0; i < slots_of(k); i++) {
        uint64_t entry = pte_read(&table[i]);
        if ((entry & ~accessed_dirty(k)) != first + i * step)
            return false;
        *ad |= entry & accessed_dirty(k);
    }
    return true;
}

/*
 * Joins upwards, level by level. A CPU may still set A or D in the old table until the flush is
 * done, so each merge flushes at once and then or-s what the old table gathered meanwhile into the
 * leaf.
 */
WALKER int walker_merge(const struct table_kind *k, struct table *t, uint64_t in, uint64_t size,
                        struct flush_batch *batch)
{
    int error = check_range(k, in, size);
    if (error)
        return error;
    if (!t->env->frame_records)
        return E_STATE;

    uint64_t last = in + size - 1;
    lock_take(&t->lock);
    for (unsigned level = 1; level < t->caps.leaf_top; level++) {
        uint64_t step = level_size(k, level + 1);
        struct span span;

        for (uint64_t pos = in; next_span(k, t, pos, last, &span);) {
            uint64_t first = align_down(span.in, step);
            uint64_t done = span.level <= level ? first + step - 1 : span_last(k, &span, 1);

            if (span.level == level && first >= in && last - first >= step - 1) {
                uint64_t *old = (uint64_t *)align_down((uint64_t)(uintptr_t)span.slot, PAGE_SIZE);
                uint64_t *slot = direct(t->root);
                uint64_t ad;

                slot += slot_index(k, first, k->levels);
                for (unsigned l = k->levels; l > level + 1; l--)
                    slot = child_of(pte_read(slot)) + slot_index(k, first, l - 1);
                if (mergeable(k, old, level, &ad)) {
                    struct attrs attrs = k->decode(old[0], level, &t->caps);
                    uint64_t bits = k->encode(attrs, level + 1, &t->caps) & ~accessed_dirty(k);
                    struct flush_batch now;

                    pte_write(slot, leaf_address(k, old[0], level) | bits | ad);
                    flush_begin(&now, t);
                    flush_whole(&now);
                    flush_commit(&now);
                    for (unsigned i = 0; i < slots_of(k); i++)
                        ad |= pte_read(&old[i]) & accessed_dirty(k);
                    pte_set_bits(slot, ad);
                    flush_dead_table(batch, direct_hpa(old), level);
                }
            }
            if (done >= last)
                break;
            pos = done + 1;
        }
    }
    lock_drop(&t->lock);
    return E_OK;
}

/* ---- Translate, walk, visit ----------------------------------------------------------------- */

/* Is this non-leaf entry one that a writer stored, but for the accessed bit? Then it is legal. */
WALKER bool as_written(const struct table_kind *k, const struct table *t, uint64_t entry)
{
    uint64_t bits = ~(ENTRY_ADDRESS | k->accessed_bit);
    return ((entry ^ k->table_bits) & bits) == 0 &&
           !((entry & ENTRY_ADDRESS) >> t->caps.maxphyaddr);
}

WALKER int walker_translate(const struct table_kind *k, struct table *t, uint64_t in,
                            struct mapping *out)
{
    if (in < k->input_first || in > k->input_last)
        return E_RANGE;
    const uint64_t *table = direct(t->root);
    unsigned rights = ~0u;

    for (unsigned level = k->levels;; level--) {
        uint64_t entry = pte_read(&table[slot_index(k, in, level)]);

        if (!is_present(k, entry))
            return E_NOENT;
        if (is_leaf(k, entry, level)) {
            if (entry_rule(k, &t->caps, level, entry) != RULE_OK)
                return E_ILLEGAL;
            describe_leaf(k, t, align_down(in, level_size(k, level)), level, entry, rights, out);
            return E_OK;
        }
        if (!as_written(k, t, entry) && entry_rule(k, &t->caps, level, entry) != RULE_OK)
            return E_ILLEGAL;
        rights &= k->table_rights(entry, &t->caps);
        table = child_of(entry);
    }
}

/* Where a walk reads its entries: our own tables directly, a guest's through whatever it takes. */
typedef bool (*entry_load)(void *ctx, uint64_t table, unsigned index, uint64_t *raw);

WALKER void walk_steps(const struct table_kind *k, const struct table_caps *caps, uint64_t root,
                       uint64_t in, entry_load load, void *ctx, struct walk *walk)
{
    uint64_t table = root;
    unsigned rights = ~0u;

    walk->count = 0;
    if (in < k->input_first || in > k->input_last) {
        walk->error = E_RANGE;
        return;
    }
    for (unsigned level = k->levels;; level--) {
        struct walk_step *step = &walk->step[walk->count];
        unsigned index = slot_index(k, in, level);
        uint64_t entry;

        if (!load(ctx, table, index, &entry)) {
            walk->error = E_RANGE;
            return;
        }
        bool leaf = is_leaf(k, entry, level);
        enum rule rule = entry_rule(k, caps, level, entry);
        *step = (struct walk_step){
            .level = (uint8_t)level,
            .index = (uint16_t)index,
            .address = hpa(table + (uint64_t)index * k->entry_bytes),
            .raw = entry,
            .class = rule == RULE_NOT_PRESENT ? ENTRY_ABSENT
                     : rule != RULE_OK        ? ENTRY_BAD
                     : leaf                   ? ENTRY_LEAF
                                              : ENTRY_TABLE,
            .rule = rule == RULE_NOT_PRESENT ? RULE_OK : rule,
            .accessed = (entry & k->accessed_bit) != 0,
            .dirty = leaf && (entry & k->dirty_bit) != 0,
        };
        walk->count++;
        if (step->class == ENTRY_ABSENT || step->class == ENTRY_BAD) {
            walk->error = step->class == ENTRY_ABSENT ? E_NOENT : E_ILLEGAL;
            return;
        }
        if (leaf) {
            step->attrs = k->decode(entry, level, caps);
            walk->mapping = (struct mapping){
                .in = align_down(in, level_size(k, level)),
                .last = in | (level_size(k, level) - 1),
                .out = hpa(leaf_address(k, entry, level)),
                .attrs = attrs_of(step->attrs.rights & (rights | RIGHT_G), step->attrs.type),
                .level = (uint8_t)level,
                .accessed = step->accessed,
                .dirty = step->dirty,
                .raw = entry,
            };
            walk->error = E_OK;
            return;
        }
        step->attrs = attrs_of(k->table_rights(entry, caps), MEM_WB);
        rights &= step->attrs.rights;
        table = entry & ENTRY_ADDRESS;
    }
}

static __attribute__((unused)) bool load_direct(void *ctx, uint64_t table, unsigned index,
                                                uint64_t *raw)
{
    (void)ctx;
    *raw = pte_read((uint64_t *)direct(hpa(table)) + index);
    return true;
}

WALKER void walker_walk(const struct table_kind *k, struct table *t, uint64_t in, struct walk *walk)
{
    walk_steps(k, &t->caps, t->root.v, in, load_direct, NULL, walk);
}

/* Does `next` continue `run`? */
WALKER bool continues(const struct mapping *run, const struct mapping *next, unsigned flags)
{
    return run->last != UINT64_MAX && run->last + 1 == next->in &&
           run->out.v + (next->in - run->in) == next->out.v && run->level == next->level &&
           attrs_equal(run->attrs, next->attrs) &&
           (!(flags & VISIT_AD) || (run->accessed == next->accessed && run->dirty == next->dirty));
}

WALKER int walker_visit(const struct table_kind *k, struct table *t, uint64_t first, uint64_t last,
                        unsigned flags, visit_fn fn, void *ctx)
{
    if (first > last || first < k->input_first || last > k->input_last)
        return E_RANGE;

    struct mapping run;
    bool have = false;
    struct span span;
    for (uint64_t pos = first; next_span(k, t, pos, last, &span);) {
        uint64_t step = level_size(k, span.level);
        uint64_t in = span.in;
        unsigned i;

        for (i = 0; i < span.count; i++, in += step) {
            struct mapping page;
            uint64_t entry = pte_read(&span.slot[i]);

            if (!is_present(k, entry))
                continue;
            if (!is_leaf(k, entry, span.level))
                break;
            describe_leaf(k, t, in, span.level, entry, span.rights, &page);
            if (have && !(flags & VISIT_PAGES) && continues(&run, &page, flags)) {
                run.last = page.last;
                run.accessed |= page.accessed;
                run.dirty |= page.dirty;
                continue;
            }
            int stop = have ? fn(ctx, &run) : 0;
            if (stop)
                return stop;
            run = page;
            have = true;
        }
        /* A leaf may be followed by a table in the same span: go on from there. */
        uint64_t done = span_last(k, &span, i ? i : 1);
        if (done >= last)
            break;
        pos = done + 1;
    }
    return have ? fn(ctx, &run) : 0;
}

/* The slots of the root that are this table's own. */
WALKER unsigned root_first(const struct table_kind *k)
{
    return slot_index(k, k->input_first, k->levels);
}

WALKER unsigned root_end(const struct table_kind *k)
{
    return slot_index(k, k->input_last, k->levels) + 1;
}

/* Calls `fn` for each table frame, parents first. */
WALKER int walker_visit_frames(const struct table_kind *k, struct table *t, table_frame_fn fn,
                               void *ctx)
{
    struct {
        uint64_t *table;
        unsigned next, end;
    } at[MAX_LEVELS + 1];
    unsigned level = k->levels;

    at[level].table = direct(t->root);
    at[level].next = root_first(k);
    at[level].end = root_end(k);
    for (bool entered = true;;) {
        uint64_t *table = at[level].table;

        if (entered) {
            uint64_t entries = 0;
            for (unsigned i = at[level].next; i < at[level].end; i++)
                entries += is_present(k, pte_read(&table[i])) ? entry_at(k, i) : 0;
            int stop = fn(ctx, direct_hpa(table), level, entries);
            if (stop)
                return stop;
        }
        entered = false;
        while (level > 1 && !entered && at[level].next < at[level].end) {
            uint64_t entry = pte_read(&table[at[level].next++]);
            if (is_table(k, entry, level)) {
                level--;
                at[level].table = child_of(entry);
                at[level].next = 0;
                at[level].end = slots_of(k);
                entered = true;
            }
        }
        if (!entered && level++ == k->levels)
            return 0;
    }
}

/* Table frames on their way back, so that many cost one call. */
struct returned {
    struct table *table;
    unsigned count;
    hpa_t frame[128];
};

static __attribute__((noinline, unused)) void give_returned(struct returned *returned)
{
    give_frames(returned->table, returned->frame, returned->count);
    returned->count = 0;
}

WALKER void give_table(struct returned *returned, hpa_t frame)
{
    if (returned->count == ARRAY_SIZE(returned->frame))
        give_returned(returned);
    returned->frame[returned->count++] = frame;
}

/* The tables below one of level 2, below which nothing hangs. So many slots at a time that the list
 * has room for all that they may hold. */
WALKER void give_leaf_tables(const struct table_kind *k, struct returned *returned,
                             const uint64_t *table)
{
    enum { slots = ARRAY_SIZE(((struct returned *)0)->frame) / 2 };
    _Static_assert(512 % slots == 0, "tables of 512 or 1024 slots are some parts of so many");

    for (unsigned i = 0; i < slots_of(k); i += slots) {
        if (returned->count > ARRAY_SIZE(returned->frame) - slots)
            give_returned(returned);
        hpa_t *to = &returned->frame[returned->count];
        for (const uint64_t *slot = &table[i], *end = slot + slots; slot < end; slot++) {
            uint64_t entry = pte_read(slot);

            if (is_table(k, entry, 2))
                *to++ = hpa(entry & ENTRY_ADDRESS);
        }
        returned->count = (unsigned)(to - returned->frame);
    }
}

/* Children before their parent, which is read to find them. */
WALKER void walker_free_subtree(const struct table_kind *k, struct table *t, hpa_t root,
                                unsigned top)
{
    struct {
        uint64_t *table;
        unsigned next, end;
    } at[MAX_LEVELS + 1];
    bool whole = top == k->levels && root.v == t->root.v;
    unsigned level = top;
    struct returned returned;

    returned.table = t;
    returned.count = 0;
    at[top].table = direct(root);
    at[top].next = whole ? root_first(k) : 0;
    at[top].end = whole ? root_end(k) : slots_of(k);
    for (;;) {
        bool entered = false;

        if (level == 2)
            give_leaf_tables(k, &returned, at[level].table);
        while (level > 2 && !entered && at[level].next < at[level].end) {
            uint64_t entry = pte_read(&at[level].table[at[level].next++]);
            if (is_table(k, entry, level)) {
                level--;
                at[level].table = child_of(entry);
                at[level].next = 0;
                at[level].end = slots_of(k);
                entered = true;
            }
        }
        if (entered)
            continue;
        give_table(&returned, direct_hpa(at[level].table));
        if (level++ == top)
            break;
    }
    give_returned(&returned);
}

/* ---- Harvest, preallocate ------------------------------------------------------------------- */

WALKER int walker_harvest(const struct table_kind *k, struct table *t, uint64_t in, uint64_t size,
                          unsigned clear, visit_fn fn, void *ctx, struct flush_batch *batch)
{
    int error = check_range(k, in, size);
    if (error)
        return error;
    if (!t->caps.accessed_dirty)
        return E_UNSUPPORTED;

    uint64_t last = in + size - 1;
    uint64_t bits = (clear & HARVEST_CLEAR_A ? k->accessed_bit : 0) |
                    (clear & HARVEST_CLEAR_D ? k->dirty_bit : 0);
    int stop = 0;
    struct span span;
    lock_take(&t->lock);
    for (uint64_t pos = in; !stop && next_span(k, t, pos, last, &span);) {
        uint64_t step = level_size(k, span.level);
        uint64_t at = span.in;
        unsigned i;

        for (i = 0; i < span.count && !stop; i++, at += step) {
            uint64_t entry = pte_read(&span.slot[i]);

            if (!is_present(k, entry))
                continue;
            if (!is_leaf(k, entry, span.level))
                break;
            if (entry & bits) {
                entry = pte_clear_bits(&span.slot[i], bits);
                flush_add(batch, at, at + step - 1, span.level);
            }
            if (fn && (entry & accessed_dirty(k))) {
                struct mapping page;
                describe_leaf(k, t, at, span.level, entry, span.rights, &page);
                stop = fn(ctx, &page);
            }
        }
        uint64_t done = span_last(k, &span, i ? i : 1);
        if (done >= last)
            break;
        pos = done + 1;
    }
    lock_drop(&t->lock);
    return stop;
}

/* Makes every root slot of the kind's own range point at a table, for good. */
WALKER int walker_preallocate(const struct table_kind *k, struct table *t)
{
    uint64_t *root = direct(t->root);
    struct spare spare;
    uint64_t needed = 0, added = 0;

    lock_take(&t->lock);
    for (unsigned i = root_first(k); i < root_end(k); i++)
        needed += !is_present(k, pte_read(&root[i]));
    int error = spare_take(t, needed, &spare);
    if (!error) {
        for (unsigned i = root_first(k); i < root_end(k); i++) {
            if (is_present(k, pte_read(&root[i])))
                continue;
            uint64_t *table = spare_pop(&spare);
            fill_zero(table, 0, slots_of(k));
            count_set(t, table, 0);
            pte_write(&root[i], table_entry(k, table));
            added += entry_at(k, i);
        }
        count_add(t, root, added);
        t->root_pinned = true;
    }
    lock_drop(&t->lock);
    return error;
}

#include "mm/paging/walker_clone.h"

/* ---- One kind's entry points ---------------------------------------------------------------- */

#define WALKER_OPS(name, kind)                                                                     \
    static __attribute__((noinline)) bool name##_map_far(struct table *t, uint64_t in, hpa_t out,  \
                                                         struct attrs a)                           \
    {                                                                                              \
        return map_far(&(kind), t, in, out.v, a);                                                  \
    }                                                                                              \
    static __attribute__((aligned(64))) bool name##_op_map_page(struct table *t, uint64_t in,      \
                                                                hpa_t out, struct attrs a)         \
    {                                                                                              \
        if (is_near(&(kind), t, in))                                                               \
            return map_near(&(kind), t, in, out.v, a, false);                                      \
        return name##_map_far(t, in, out, a);                                                      \
    }                                                                                              \
    static __attribute__((noinline)) bool name##_unmap_far(struct table *t, uint64_t in,           \
                                                           struct flush_batch *b)                  \
    {                                                                                              \
        return unmap_far(&(kind), t, in, b);                                                       \
    }                                                                                              \
    static __attribute__((aligned(64))) bool name##_op_unmap_page(struct table *t, uint64_t in,    \
                                                                  struct flush_batch *b)           \
    {                                                                                              \
        if (is_near(&(kind), t, in))                                                               \
            return unmap_near(&(kind), t, in, b);                                                  \
        return name##_unmap_far(t, in, b);                                                         \
    }                                                                                              \
    static int name##_op_map(struct table *t, uint64_t in, hpa_t out, uint64_t size,               \
                             struct attrs a, unsigned flags, struct flush_batch *b)                \
    {                                                                                              \
        return walker_map(&(kind), t, in, out, size, a, flags, b);                                 \
    }                                                                                              \
    static int name##_op_unmap(struct table *t, uint64_t in, uint64_t size, struct flush_batch *b) \
    {                                                                                              \
        return walker_unmap(&(kind), t, in, size, b);                                              \
    }                                                                                              \
    static int name##_op_protect(struct table *t, uint64_t in, uint64_t size, struct attrs a,      \
                                 struct flush_batch *b)                                            \
    {                                                                                              \
        return walker_protect(&(kind), t, in, size, a, b);                                         \
    }                                                                                              \
    static int name##_op_split(struct table *t, uint64_t in, uint64_t size, unsigned level,        \
                               struct flush_batch *b)                                              \
    {                                                                                              \
        return walker_split(&(kind), t, in, size, level, b);                                       \
    }                                                                                              \
    static int name##_op_merge(struct table *t, uint64_t in, uint64_t size, struct flush_batch *b) \
    {                                                                                              \
        return walker_merge(&(kind), t, in, size, b);                                              \
    }                                                                                              \
    static int name##_op_map_fresh(struct table *t, uint64_t in, uint64_t size, struct attrs a,    \
                                   unsigned flags, struct page_source *source)                     \
    {                                                                                              \
        return walker_map_fresh(&(kind), t, in, size, a, flags, source);                           \
    }                                                                                              \
    static int name##_op_clone(struct table *to, struct table *t, uint64_t in, uint64_t size,      \
                               struct flush_batch *b)                                              \
    {                                                                                              \
        return walker_clone(&(kind), to, t, in, size, b);                                          \
    }                                                                                              \
    static int name##_op_copy(struct table *to, struct table *t, uint64_t in, uint64_t size,       \
                              struct page_source *source)                                          \
    {                                                                                              \
        return walker_copy(&(kind), to, t, in, size, source);                                      \
    }                                                                                              \
    static int name##_op_translate(struct table *t, uint64_t in, struct mapping *m)                \
    {                                                                                              \
        return walker_translate(&(kind), t, in, m);                                                \
    }                                                                                              \
    static void name##_op_walk(struct table *t, uint64_t in, struct walk *w)                       \
    {                                                                                              \
        walker_walk(&(kind), t, in, w);                                                            \
    }                                                                                              \
    static int name##_op_visit(struct table *t, uint64_t first, uint64_t last, unsigned flags,     \
                               visit_fn fn, void *ctx)                                             \
    {                                                                                              \
        return walker_visit(&(kind), t, first, last, flags, fn, ctx);                              \
    }                                                                                              \
    static int name##_op_visit_frames(struct table *t, table_frame_fn fn, void *ctx)               \
    {                                                                                              \
        return walker_visit_frames(&(kind), t, fn, ctx);                                           \
    }                                                                                              \
    static int name##_op_harvest(struct table *t, uint64_t in, uint64_t size, unsigned clear,      \
                                 visit_fn fn, void *ctx, struct flush_batch *b)                    \
    {                                                                                              \
        return walker_harvest(&(kind), t, in, size, clear, fn, ctx, b);                            \
    }                                                                                              \
    static int name##_op_preallocate(struct table *t)                                              \
    {                                                                                              \
        return walker_preallocate(&(kind), t);                                                     \
    }                                                                                              \
    static void name##_op_free_subtree(struct table *t, hpa_t root, unsigned level)                \
    {                                                                                              \
        walker_free_subtree(&(kind), t, root, level);                                              \
    }                                                                                              \
    static const struct table_ops name##_ops = {                                                   \
        .map_page = name##_op_map_page,                                                            \
        .unmap_page = name##_op_unmap_page,                                                        \
        .map = name##_op_map,                                                                      \
        .unmap = name##_op_unmap,                                                                  \
        .protect = name##_op_protect,                                                              \
        .split = name##_op_split,                                                                  \
        .merge = name##_op_merge,                                                                  \
        .map_fresh = name##_op_map_fresh,                                                          \
        .clone = name##_op_clone,                                                                  \
        .copy = name##_op_copy,                                                                    \
        .translate = name##_op_translate,                                                          \
        .walk = name##_op_walk,                                                                    \
        .visit = name##_op_visit,                                                                  \
        .visit_frames = name##_op_visit_frames,                                                    \
        .harvest = name##_op_harvest,                                                              \
        .preallocate = name##_op_preallocate,                                                      \
        .free_subtree = name##_op_free_subtree,                                                    \
    }

#endif
