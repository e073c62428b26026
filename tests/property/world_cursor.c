/*
 * What a range operation does, page by page by a cursor, under the same judges. Each cell has one
 * action of those that the call allows; a refused page changes nothing and is tried again; what is
 * owed is owed until the cursor ends.
 */
#include "tests/property/world_internal.h"

#include "tests/property/pte_hooks.h"

#include "mm/paging/cursor.h" /* its inline calls, with the hooks */

enum world_op cursor_action(const struct world_call *call, unsigned i)
{
    static const enum world_op actions[] = {OP_MAP, OP_UNMAP, OP_PROTECT};
    enum world_op allowed[ARRAY_SIZE(actions)];
    unsigned count = 0;

    for (unsigned n = 0; n < ARRAY_SIZE(actions); n++)
        if (call->flags & 1u << n)
            allowed[count++] = actions[n];
    return count ? allowed[i * 5 / 3 % count] : OP_COUNT;
}

/* The next mapping from a cell on, as a walk by the manual finds it. */
static void look_on(struct table_cursor *cursor, const struct world_call *call, unsigned i)
{
    uint64_t last = cell_in(call->first + call->count) - 1;
    struct found found = {0};
    struct mapping mapping;
    uint64_t in = cell_in(i);

    while (in <= last && !(found = world_look(w.table.root.v, in)).present)
        in += w.unit;
    int error = table_cursor_next(cursor, &mapping);
    if (in > last) {
        must(error == E_NOENT);
        return;
    }
    must(error == E_OK);
    must(mapping.in <= in && in <= mapping.last);
    must(mapping.last - mapping.in + 1 == sdm_page_bytes(found.level));
    must(mapping.level == found.level && attrs_equal(mapping.attrs, found.attrs));
    must(mapping.out.v + (in - mapping.in) == found.out);
}

static int one_step(struct table_cursor *cursor, const struct world_call *call, unsigned i,
                    uint64_t in)
{
    switch (cursor_action(call, i)) {
    case OP_MAP:
        return table_cursor_map(cursor, hpa(call->out + (in - cell_in(call->first))), call->attrs);
    case OP_UNMAP:
        return table_cursor_unmap(cursor);
    default:
        return table_cursor_protect(cursor, call->attrs);
    }
}

/* All or nothing, and the lock is held; a page that is mapped already is passed over. */
static void one_page(struct table_cursor *cursor, const struct world_call *call, unsigned i,
                     uint64_t in)
{
    bool exists = cursor_action(call, i) == OP_MAP && w.cell[i].present;
    uint64_t stores = w.stores, taken = w.taken;
    int error = one_step(cursor, call, i, in);

    if (error)
        must(w.stores == stores && w.taken == taken);
    if (error == E_NOMEM) {
        w.fail_in = UINT64_MAX;
        error = one_step(cursor, call, i, in);
        w.fail_in = random_below(&chance, 8);
    }
    must(error == (exists ? E_EXIST : E_OK));
    must(!locks_needed || lock_held(&w.table.lock));
    if (exists && in + PAGE_SIZE < cell_in(call->first + call->count))
        table_cursor_seek(cursor, in + PAGE_SIZE);
}

static void one_cell(struct table_cursor *cursor, const struct world_call *call, unsigned i)
{
    if (cursor_action(call, i) == OP_COUNT) {
        look_on(cursor, call, i);
        return;
    }
    for (uint64_t at = 0; at < w.unit; at += PAGE_SIZE)
        one_page(cursor, call, i, cell_in(i) + at);
}

int apply_by_cursor(const struct world_call *call)
{
    unsigned stride = call->flags & CURSOR_SCATTER ? 2 : 1, end = call->first + call->count;
    uint64_t flushes = w.flushes;
    struct table_cursor cursor;

    must(table_cursor_begin(&cursor, &w.table, cell_in(call->first), cell_in(end) - 1) == E_OK);
    for (unsigned pass = 0; pass < stride; pass++)
        for (unsigned i = call->first + pass; i < end; i += stride) {
            if (stride > 1 || i == call->first || cursor_action(call, i) == OP_COUNT)
                table_cursor_seek(&cursor, cell_in(i));
            one_cell(&cursor, call, i);
        }
    w.fail_in = UINT64_MAX;
    must(w.flushes == flushes);
    table_cursor_end(&cursor);
    return E_OK;
}

/* All that the window maps, page after page, is what walks by the manual find. */
void check_by_cursor(void)
{
    struct table_cursor cursor;
    struct mapping mapping;
    unsigned next = 0;

    must(table_cursor_begin(&cursor, &w.table, w.base, w.end - 1) == E_OK);
    while (table_cursor_next(&cursor, &mapping) == E_OK) {
        struct found found = world_look(w.table.root.v, mapping.in);
        unsigned first, end;

        must(found.present && mapping.last - mapping.in + 1 == sdm_page_bytes(found.level));
        must(mapping.out.v == found.out && attrs_equal(mapping.attrs, found.attrs));
        must(mapping.level == found.level && mapping.raw == *found.slot);
        must(mapping.accessed == found.accessed && mapping.dirty == found.dirty);
        cells_of(mapping.in, mapping.last - mapping.in + 1, &first, &end);
        must(first >= next || first + 1 == next); /* of a cell there may be many pages */
        for (; next < first; next++)
            must(!w.cell[next].present);
        next = end;
    }
    for (; next < CELLS; next++)
        must(!w.cell[next].present);
    must(table_cursor_next(&cursor, &mapping) == E_NOENT);
    table_cursor_end(&cursor);
}
