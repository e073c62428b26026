/*
 * Page by page: what a cursor that a caller holds does when its window does not serve. Part of the
 * template (mm/paging/template.h).
 */
#ifndef QUIRE_MM_PAGING_PAGE_H
#define QUIRE_MM_PAGING_PAGE_H

#include "mm/paging/protect.h"
#include "mm/paging/read.h"
#include "mm/paging/unmap.h"

/* Has the cursor gone beyond its range? That may end with the address space. */
static inline bool is_done(const struct table_cursor *c)
{
    return c->at - c->first > c->last - c->first;
}

/* Closes the window: the record of its node gets the count, and the path covers c->at again. */
static SHARED void leave_window(struct table_cursor *c)
{
    uint64_t at = c->at;

    count_set(c->table, c->node[1], c->entries);
    c->at = c->window_first;
    c->window_bytes = 0;
    go_to(c, at);
}

static inline void close_window(struct table_cursor *c)
{
    if (c->window_bytes)
        leave_window(c);
}

/* Opens it at the cursor, whose path ends in a node of level 1. */
static inline void open_window(struct table_cursor *c)
{
    uint64_t end = node_last(c) < c->last ? node_last(c) : c->last;

    c->window = slot_of(c);
    c->window_first = c->at;
    c->window_bytes = end - c->at + 1;
    c->entries = count_of(c->table, c->node[1]);
}

/* Notes that the page at the cursor must be invalidated. */
static inline void note_stale(struct table_cursor *c)
{
    if (c->at != c->stale_end) {
        if (c->stale_first != c->stale_end)
            flush_add(&c->batch, c->stale_first, c->stale_end - 1, 1);
        c->stale_first = c->at;
    }
    c->stale_end = c->at + PAGE_SIZE;
}

/* walk(c, 1), without a call where the last page was in the same node. */
static inline uint64_t walk_on(struct table_cursor *c)
{
    return c->level == 1 ? read_entry(c) : walk(c, 1);
}

/* Brings the cursor to a slot of level 1, by splitting or by new nodes. */
static SHARED int reach_page(struct table_cursor *c)
{
    struct supply supply;

    walk(c, 1);
    int error = supply_take(c->table, c->level - 1, &supply);
    if (!error)
        install_down(c, &supply, 1, &c->batch);
    return error;
}

/* The bits of these attributes: those mapped last are known. */
static inline bool page_bits(struct table_cursor *c, struct attrs attrs)
{
    uint64_t bits[MAX_LEVELS + 1];

    if (c->bits != 0 && attrs_equal(attrs, c->attrs))
        return true;
    if (!encode_attrs(c->table, attrs, 1, 1, bits))
        return false;
    c->attrs = attrs;
    c->bits = bits[1];
    return true;
}

static int OP(cursor_map)(struct table_cursor *c, hpa_t out, struct attrs attrs)
{
    int error = check_frames(c->table, out, PAGE_SIZE);

    close_window(c);
    if (!error && is_done(c))
        error = E_RANGE;
    if (!error && !page_bits(c, attrs))
        error = E_ILLEGAL;
    if (!error && is_present(walk(c, 1)))
        error = E_EXIST;
    if (!error)
        error = reach_page(c);
    if (error)
        return error;
    c->table->flushes.spared++;
    pte_write(slot_of(c), out.v | c->bits);
    count_add(c->table, c->node[1], 1);
    open_window(c);
    c->at += PAGE_SIZE;
    return E_OK;
}

static int OP(cursor_unmap)(struct table_cursor *c)
{
    close_window(c);
    if (!c->table->env->frame_records)
        return E_STATE;
    if (is_done(c))
        return E_RANGE;
    if (!is_present(walk(c, 1))) {
        go_to(c, c->at + PAGE_SIZE);
        return E_OK;
    }
    int error = reach_page(c);
    if (error)
        return error;
    note_stale(c);
    pte_write(slot_of(c), 0);
    if (count_add(c->table, c->node[1], -UINT64_C(1))) {
        open_window(c);
        c->at += PAGE_SIZE;
        return E_OK;
    }
    drop_empty(c, &c->batch);
    go_to(c, c->at + PAGE_SIZE);
    return E_OK;
}

/* Without a window: the exchange that keeps A and D costs more than all the rest. */
static int OP(cursor_protect)(struct table_cursor *c, struct attrs attrs)
{
    close_window(c);
    if (is_done(c))
        return E_RANGE;
    if (!page_bits(c, attrs))
        return E_ILLEGAL;
    uint64_t entry = walk_on(c);
    if (is_present(entry) && c->level > 1 &&
        !attrs_equal(KIND.decode(entry, c->level, &c->table->caps), attrs)) {
        int error = reach_page(c);
        if (error)
            return error;
        entry = read_entry(c);
    }
    if (is_present(entry) && c->level == 1 &&
        protect_leaf(c, entry, attrs, c->bits & ~ACCESSED_DIRTY))
        note_stale(c);
    go_to(c, c->at + PAGE_SIZE);
    return E_OK;
}

static int OP(cursor_next)(struct table_cursor *c, struct mapping *out)
{
    uint64_t entry;

    close_window(c);
    if (is_done(c))
        return E_NOENT;
    bool found = find_leaf(c, &entry);
    if (found)
        *out = mapping_of(c, entry);
    go_to(c, found ? slot_last(c) + 1 : c->last + 1);
    return found ? E_OK : E_NOENT;
}

/* An open window stays: what does not find its page in it closes it. */
static void OP(cursor_seek)(struct table_cursor *c, uint64_t at)
{
    go_to(c, at);
}

/* Nothing is left but the lock and the batch. */
static void OP(cursor_close)(struct table_cursor *c)
{
    close_window(c);
    if (c->stale_first != c->stale_end)
        flush_add(&c->batch, c->stale_first, c->stale_end - 1, 1);
}

#endif
