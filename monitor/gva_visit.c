/*
 * A search through all of a guest's own tables, as far as its registers lead to any. See
 * monitor/tables.h.
 */
#include "arch/x86_64/mm/explain.h"
#include "mm/paging/typed.h"
#include "monitor/tables.h"

/* How much of the address space the entry covers at which a walk ended. */
static uint64_t covered(enum paging_mode mode, const struct walk *walk)
{
    unsigned bits = mode == PAGING_32BIT ? 10 : 9;

    if (walk->count == 0)
        return mode == PAGING_PAE ? GiB : 0; /* a PDPTE; or nothing could be read at all */
    return UINT64_C(1) << (PAGE_SHIFT + bits * (walk->step[walk->count - 1].level - 1u));
}

static bool continues(const struct mapping *run, const struct mapping *page)
{
    return run->last + 1 == page->in && run->out.v + (page->in - run->in) == page->out.v &&
           run->level == page->level && attrs_equal(run->attrs, page->attrs);
}

/* The next address of the mode at or above `at`; `end` and more when there is none. */
static uint64_t next_address(enum paging_mode mode, uint64_t at)
{
    bool between = mode == PAGING_4LEVEL && at >> 47 && at >> 47 != BITS(16, 0);

    return between ? ~BITS(46, 0) : at; /* on to the upper half */
}

int table_visit_gva(struct gva_visit *visit, uint64_t first, uint64_t last, visit_fn fn, void *ctx)
{
    const struct gva_context *registers = &visit->registers;
    enum paging_mode mode = paging_mode_of(registers);
    uint64_t end = mode == PAGING_4LEVEL ? UINT64_MAX : UINT32_MAX;
    struct mapping run;
    bool open = false; /* a run has begun */
    int stopped = 0;

    if (last < end)
        end = last;
    for (uint64_t at = align_down(first, PAGE_SIZE);;) {
        struct gva_walk walk;
        uint64_t size;

        at = next_address(mode, at);
        if (at > end)
            break;
        visit->next = open ? run.in : at;
        if (visit->walks == visit->most_walks)
            return E_FULL;
        visit->walks++;
        int error = gva_walk(registers, gva(at), &walk);
        struct mapping page = walk.walk.mapping;
        if (error) {
            visit->illegal += error == E_ILLEGAL;
            visit->absent += walk.table_unbacked;
            size = covered(mode, &walk.walk);
            page.last = size ? at | (size - 1) : end;
        } else {
            page.attrs.type = (uint8_t)pat_of_leaf(visit->pat, page.raw, page.level);
            if (open && continues(&run, &page)) {
                run.last = page.last;
            } else {
                if (open && (stopped = fn(ctx, &run)))
                    return stopped;
                run = page;
                open = true;
            }
        }
        if (page.last >= end)
            break;
        at = page.last + 1;
    }
    return open ? fn(ctx, &run) : 0;
}
