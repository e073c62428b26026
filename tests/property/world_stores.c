/*
 * Every store into a live table is judged as it happens: walks find the old translation or the new
 * one and never the old one again; and nothing is owed to the CPUs that is not done.
 */
#include "tests/property/world_internal.h"
#include "tests/property/pte_hooks.h"

/* Old or new, and once new never old. */
static void check_moment(unsigned first, unsigned end)
{
    for (unsigned i = first; i < end; i++)
        for (unsigned part = 0; part < (parts() == 1 ? 1 : PARTS + 1); part++) {
            uint64_t offset = part < PARTS ? part_offset(part)
                                           : random_below(&chance, w.unit / PAGE_SIZE) * PAGE_SIZE;
            struct found found = world_look(w.table.root.v, cell_in(i) + offset);
            bool is_new = says(&found, &op.after[i], offset);
            bool was_new = part < PARTS && op.seen_new[i][part];

            if (!is_new && (was_new || !says(&found, &w.cell[i], offset)))
                wrong("after store %lu %#lx is %s", w.stores, (cell_in(i) + offset),
                      was_new ? "old again" : "neither old nor new");
            if (is_new && part < PARTS &&
                !(w.cell[i].present == op.after[i].present && w.cell[i].out == op.after[i].out &&
                  attrs_equal(w.cell[i].attrs, op.after[i].attrs)))
                op.seen_new[i][part] = true;
        }
}

/* Would a stale copy of `old` do harm once `new` stands there? */
static bool needs_flush(uint64_t old, uint64_t new, unsigned level)
{
    uint64_t ad = sdm_accessed(w.land->format) | sdm_dirty(w.land->format);

    if (!present(old) || (old | ad) == (new | ad))
        return present(old) && w.table.caps.accessed_dirty && (old & ad & ~new);
    if (!added_rights_are_free() || !present(new) || !page(old, level) || !page(new, level) ||
        page_start(old, level) != page_start(new, level))
        return true;
    struct attrs before = attrs_in(old, level, ~0u), after = attrs_in(new, level, ~0u);
    return before.type != after.type || (before.rights & ~after.rights);
}

/* A or D that an operation takes out of a page: it answers for it to the caller. */
static void note_cleared(uint64_t old, uint64_t new, uint64_t in, unsigned level)
{
    uint64_t gone = old & ~new;
    unsigned first, end;

    must(op.call.op == OP_HARVEST);
    cells_of(in, sdm_page_bytes(level), &first, &end);
    for (unsigned i = first; i < end; i++)
        for (unsigned part = 0; part < parts(); part++) {
            if (!part_within(i, part, in, sdm_page_bytes(level)))
                continue;
            if (gone & sdm_accessed(w.land->format)) {
                op.cleared_a[i][part] |= accessed[i][part];
                accessed[i][part] = false;
            }
            if (gone & sdm_dirty(w.land->format)) {
                op.cleared_d[i][part] |= dirty[i][part];
                dirty[i][part] = false;
            }
        }
}

void hook_touched(const uint64_t *slot)
{
    if (!op.active)
        return;
    uint64_t at = (uint64_t)((const uint8_t *)slot - arena);
    const struct shadow *shadow = at < ARENA_BYTES ? shadow_of(at) : NULL;

    if (shadow && shadow->main)
        some_access(slot_in(shadow, at % PAGE_SIZE / 8), sdm_page_bytes(shadow->level));
}

void hook_stored(uint64_t *slot)
{
    uint64_t at = (uint64_t)((uint8_t *)slot - arena);

    must(at < ARENA_BYTES);
    struct shadow *shadow = shadow_of(at);
    if (!shadow)
        return; /* not published yet */
    unsigned index = at % PAGE_SIZE / 8, level = shadow->level;
    uint64_t old = shadow->entry[index], new = *slot;
    uint64_t in = slot_in(shadow, index);
    uint64_t ad = sdm_accessed(w.land->format) | sdm_dirty(w.land->format);

    if (shadow->gone)
        return; /* private again */
    if (shadow->dead)
        wrong("a store into the table %#lx, which is dead", (at & ~(PAGE_SIZE - 1)));
    if (w.stores < STORE_EVENTS)
        w.store_event[w.stores] = w.events;
    w.stores++;
    w.all_stores++;
    shadow->entry[index] = new;
    struct sdm_entry said = judge(new, level);
    bool was_table = present(old) && !page(old, level);
    bool same_table = was_table && said.class == SDM_TABLE && frame_in(old) == said.address;

    if (was_table && !same_table)
        mark_dead(frame_in(old));
    if (said.class == SDM_TABLE && !same_table)
        adopt(said.address, level - 1, in, shadow->main);
    if (!shadow->main)
        return;
    if (op.active && said.class == SDM_PAGE && (in < w.base || in >= w.end))
        wrong("%#lx was mapped, beside the range", in);
    if (!was_table && said.class == SDM_PAGE && (old & ad & ~new) && (old | ad) == (new | ad) &&
        op.active && op.call.op != OP_REPLACE)
        note_cleared(old, new, in, level);
    op.owes |= needs_flush(old, new, level);
    if (!op.active)
        return; /* a test of its own: nobody has said what is to come */

    unsigned first, end;
    cells_of(in, sdm_page_bytes(level), &first, &end);
    check_moment(first, end);
    /* All of the window: at each store of a short operation, now and then in a long one. */
    if ((w.stores < 48 || w.stores % 61 == 0) && !w.strike && !w.brief)
        check_moment(0, CELLS);
    for (unsigned n = 0; n < CPUS; n++)
        some_access(in, sdm_page_bytes(level));
}
