/* See mm/paging/cursor.h. What a cursor does to a table is made for each kind: mm/paging/page.h. */
#include "mm/paging/cursor.h"

#include "lib/bits.h"

int table_cursor_begin(struct table_cursor *c, struct table *table, uint64_t first, uint64_t last)
{
    const struct table_kind *kind = table->kind;

    if (!is_aligned(first, PAGE_SIZE) || !is_aligned(last + 1, PAGE_SIZE))
        return E_ALIGN;
    if (first > last || first < kind->input_first || last > kind->input_last)
        return E_RANGE;
    lock_take(&table->lock);
    c->table = table;
    c->at = c->first = first;
    c->last = last;
    c->level = kind->levels;
    c->node[kind->levels] = table->root.v;
    c->rights[kind->levels] = ~0u;
    c->window_first = c->window_bytes = c->bits = 0;
    c->no_frame = ~BITS(table->caps.maxphyaddr - 1u, PAGE_SHIFT);
    c->stale_first = c->stale_end = 0;
    flush_begin(&c->batch, table);
    return E_OK;
}

void table_cursor_end(struct table_cursor *c)
{
    c->table->ops->cursor_close(c);
    lock_drop(&c->table->lock);
    flush_commit(&c->batch);
}
