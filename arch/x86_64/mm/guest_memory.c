/* See guest_memory.h. SDM Vol. 3, 29.3.5 "Accessed and Dirty Flags for EPT". */
#include "arch/x86_64/mm/guest_memory.h"

#include "mm/paging/pte.h"

/* The page of `at` becomes the view's. */
static int look(struct guest_view *view, gpa_t at)
{
    if (view->known && at.v - view->page.in <= view->page.last - view->page.in)
        return E_OK;
    int error = table_translate(view->table, at.v, &view->page);
    view->known = error == E_OK;
    return error;
}

int guest_memory_reach(struct guest_view *view, gpa_t at, unsigned access, uint8_t **bytes,
                       unsigned *allowed)
{
    int error = look(view, at);

    if (error != E_OK)
        return error;
    *allowed = view->page.attrs.rights;
    if (access & ~*allowed)
        return E_PERM;
    *bytes = direct(hpa_add(view->page.out, at.v - view->page.in));
    return E_OK;
}

int guest_memory_mark(struct guest_view *view, gpa_t at, bool dirty)
{
    struct table *table = view->table;
    const struct table_kind *kind = table->kind;
    const struct mapping *page = &view->page;
    struct walk walk;
    int error;

    if (!table->caps.accessed_dirty)
        return E_UNSUPPORTED;
    error = look(view, at);
    if (error != E_OK || (page->accessed && (page->dirty || !dirty)))
        return error; /* the commonest case: the marks are there */
    view->known = false;
    lock_take(&table->lock);
    table_walk(table, at.v, &walk);
    error = walk.error;
    for (unsigned i = 0; error == E_OK && i < walk.count; i++) {
        const struct walk_step *step = &walk.step[i];
        uint64_t bits = kind->accessed_bit;

        if (step->class == ENTRY_LEAF && dirty)
            bits |= kind->dirty_bit;
        if (bits & ~step->raw)
            pte_set_bits(direct(step->address), bits);
    }
    lock_drop(&table->lock);
    if (error == E_OK && dirty && !page->dirty && table->marked)
        table->marked(table, align_down(at.v, PAGE_SIZE));
    return error;
}
