/*
 * A cursor: the path of a walk, from the root of a table down to one entry.
 *
 *     at:  | level 4 | level 3 | level 2 | level 1 | offset |
 *              |         |         |         |
 *     root -> node[4]-> node[3]-> node[2]-> node[1] -> frame
 *
 * Every operation of the mapper stands on it (mm/paging/walk.h). Who works page by page holds one,
 * so that the next page costs no walk from the root:
 *
 *     struct table_cursor c;
 *     int error = table_cursor_begin(&c, table, first, last);
 *     while (!error && more)
 *         error = table_cursor_map(&c, next_frame(), attrs);
 *     table_cursor_end(&c);
 *
 * From begin to end the cursor holds the table's lock; the holder calls no other writer of that
 * table. The contracts of mm/paging/table.h hold for each call by itself: it does its page whole,
 * or says why not and changes nothing, the cursor's place included. Pages done before stay done.
 * What is owed for them (invalidations, dead frames) is settled by table_cursor_end(), after the
 * lock is given back; until then no frame that was unmapped may be used again.
 */
#ifndef QUIRE_MM_PAGING_CURSOR_H
#define QUIRE_MM_PAGING_CURSOR_H

#include "mm/paging/ops.h"
#include "mm/paging/pte.h"
#include "mm/paging/table.h"

struct table_cursor {
    struct table *table;
    uint64_t at;   /* the input address that it is at */
    uint64_t last; /* of its range, inclusive */

    /* The path: the nodes that cover `at`, from the root down to `level`. */
    unsigned level;
    uint64_t node[MAX_LEVELS + 1];   /* by level: the node's physical address */
    unsigned rights[MAX_LEVELS + 1]; /* by level: what the entries above the node let through */

    /* What follows is set by table_cursor_begin() alone. */
    uint64_t first; /* of its range */

    /* The window: slots of node[1] from `at` on, which the inline calls below serve by themselves.
     * Its node's record is brought up to date when the window closes. */
    uint64_t *window;
    uint64_t window_first, window_bytes; /* input addresses; 0 bytes: closed */
    uint64_t entries;                    /* present in node[1] */

    struct attrs attrs; /* those mapped last ... */
    uint64_t bits;      /* ... as bits of a level-1 entry; 0: none were */
    uint64_t no_frame;  /* address bits that no frame has, here or on this CPU */

    uint64_t stale_first, stale_end; /* pages whose invalidation is owed; equal: none */
    struct flush_batch batch;
};

/* Takes the lock of `table` for [first, last], page boundaries both (last is the last byte).
 * E_ALIGN, E_RANGE: then nothing is held, and there is nothing to end. */
int table_cursor_begin(struct table_cursor *c, struct table *table, uint64_t first, uint64_t last);

/* Moves to another page of the range, forwards or back. */
static inline void table_cursor_seek(struct table_cursor *c, uint64_t at)
{
    c->table->ops->cursor_seek(c, at);
}

/* The next mapping at or after the cursor, a whole page of any size; moves behind it. E_NOENT:
 * there is none up to the end of the range. */
static inline int table_cursor_next(struct table_cursor *c, struct mapping *out)
{
    return c->table->ops->cursor_next(c, out);
}

/* Gives the 4 KiB page at the cursor these attributes, and moves on. A large page is split first; a
 * hole stays a hole. E_RANGE (the range is done), E_ILLEGAL, E_NOMEM. */
static inline int table_cursor_protect(struct table_cursor *c, struct attrs attrs)
{
    return c->table->ops->cursor_protect(c, attrs);
}

/* Gives the lock back, invalidates, frees. */
void table_cursor_end(struct table_cursor *c);

/* Maps the 4 KiB page at the cursor to the frame `out`, and moves on. E_RANGE (the range is done,
 * or no such frame), E_ALIGN, E_ILLEGAL, E_EXIST, E_NOMEM. */
static inline int table_cursor_map(struct table_cursor *c, hpa_t out, struct attrs attrs)
{
    uint64_t offset = c->at - c->window_first;

    if (offset < c->window_bytes && c->bits && attrs_equal(attrs, c->attrs) &&
        !(out.v & c->no_frame)) {
        uint64_t *slot = &c->window[offset >> PAGE_SHIFT];

        if (!(pte_peek(slot) & c->table->kind->present_mask)) {
            pte_write(slot, out.v | c->bits);
            c->entries++;
            c->at += PAGE_SIZE;
            return E_OK;
        }
    }
    return c->table->ops->cursor_map(c, out, attrs);
}

/* Removes the 4 KiB page at the cursor, and moves on. A large page is split first; a hole stays a
 * hole. E_RANGE (the range is done), E_NOMEM. */
static inline int table_cursor_unmap(struct table_cursor *c)
{
    uint64_t offset = c->at - c->window_first;

    if (offset < c->window_bytes && c->at == c->stale_end && c->entries > 1) {
        uint64_t *slot = &c->window[offset >> PAGE_SHIFT];

        if (pte_peek(slot) & c->table->kind->present_mask) {
            pte_write(slot, 0);
            c->entries--;
            c->at += PAGE_SIZE;
            c->stale_end += PAGE_SIZE;
            return E_OK;
        }
    }
    return c->table->ops->cursor_unmap(c);
}

#endif
