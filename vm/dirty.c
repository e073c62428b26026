/* See vm/dirty.h. The CPU's part: SDM Vol. 3, 29.3.5 and 29.3.6; APM Vol. 2, 15.25.5. */
#include "vm/dirty.h"

#include "lib/error.h"
#include "lib/list.h"
#include "lib/panic.h"
#include "mm/paging/typed.h"
#include "vm/slots.h"

const char *dirty_way_name(enum dirty_way way)
{
    static const char *const names[] = {
        [DIRTY_OFF] = "off",
        [DIRTY_BY_MARKS] = "the table's dirty bits",
        [DIRTY_BY_LOG] = "the CPU's log",
        [DIRTY_BY_PROTECTION] = "write protection",
    };
    return (unsigned)way < ARRAY_SIZE(names) ? names[way] : "?";
}

static void note(struct guest *guest, uint64_t first, uint64_t size)
{
    for (unsigned i = 0; i < DIRTY_ASKERS; i++)
        if (dirty_asked(guest, (enum dirty_asker)i))
            page_set_add(&guest->dirty.set[i], first, size);
}

void dirty_wrote(struct guest *guest, gpa_t at, uint64_t size)
{
    if (guest->dirty.way != DIRTY_OFF)
        note(guest, at.v, size);
}

/* ---- To notice the next write ---------------------------------------------------------------- */

static uint64_t whole(const struct table *table)
{
    return table->kind->input_last - table->kind->input_first + 1;
}

unsigned dirty_rights(const struct guest *guest, unsigned rights, unsigned level)
{
    enum dirty_way way = guest->dirty.way;

    if (way == DIRTY_BY_PROTECTION || (way != DIRTY_OFF && level > 1))
        rights &= ~(unsigned)RIGHT_W;
    return rights;
}

static void protect(struct guest *guest, const struct mapping *run, unsigned rights,
                    struct flush_batch *batch)
{
    struct attrs attrs = run->attrs;

    attrs.rights = (uint8_t)rights;
    /* Whole leaves: nothing has to be split, so that nothing can fail. */
    invariant(table_protect(&guest->table, run->in, run->last - run->in + 1, attrs, batch) == E_OK);
}

struct search {
    const struct guest *guest;
    struct mapping found;
};

/* A run that may be written and should not. */
static int is_open(void *ctx, const struct mapping *run)
{
    struct search *search = ctx;

    if (dirty_rights(search->guest, run->attrs.rights, run->level) == run->attrs.rights)
        return 0;
    search->found = *run;
    return 1;
}

static void protect_all(struct guest *guest, struct flush_batch *batch)
{
    struct table *table = &guest->table;
    uint64_t from = table->kind->input_first, last = table->kind->input_last;
    struct search search = {.guest = guest};
    /* Runs are of one size of leaf only where each is shown by itself. */
    unsigned flags = guest->dirty.way == DIRTY_BY_PROTECTION ? VISIT_RUNS : VISIT_PAGES;

    while (table_visit(table, from, last, flags, is_open, &search) != 0) {
        protect(guest, &search.found, search.found.attrs.rights & ~(unsigned)RIGHT_W, batch);
        if (search.found.last >= last)
            break;
        from = search.found.last + 1;
    }
}

static int take_leaf(void *ctx, const struct mapping *leaf)
{
    *(struct mapping *)ctx = *leaf;
    return 0;
}

struct watching {
    struct guest *guest;
    struct flush_batch batch;
};

/* The page has been written, or opened whole: its next write is to be noticed again. */
static int watch_again(void *ctx, uint64_t page)
{
    struct watching *watching = ctx;
    struct guest *guest = watching->guest;
    struct table *table = &guest->table;
    struct mapping leaf = {.level = 0};

    if (guest->dirty.way == DIRTY_BY_LOG)
        (void)table_harvest(table, page, PAGE_SIZE, HARVEST_CLEAR_D, take_leaf, &leaf,
                            &watching->batch);
    if (leaf.level == 0 && table_translate(table, page, &leaf) != E_OK)
        return 0; /* it is there no more */
    unsigned rights = dirty_rights(guest, leaf.attrs.rights, leaf.level);
    if (rights != leaf.attrs.rights)
        protect(guest, &leaf, rights, &watching->batch);
    return 0;
}

/* ---- What the CPU knows ---------------------------------------------------------------------- */

static void note_logged(void *ctx, gpa_t page)
{
    struct guest *guest = ctx;

    note(guest, page.v, PAGE_SIZE);
    page_set_add(&guest->dirty.open, page.v, PAGE_SIZE);
}

/* D was set by the hypervisor, for an access that it carries out: the CPU does not log it. */
static void note_marked(struct table *table, uint64_t in)
{
    note_logged(container_of(table, struct guest, table), gpa(in));
}

static int note_dirty(void *ctx, const struct mapping *leaf)
{
    struct guest *guest = ctx;

    if (!leaf->dirty)
        return 0;
    note(guest, leaf->in, leaf->last - leaf->in + 1);
    if (leaf->level > 1)
        page_set_add(&guest->dirty.open, leaf->in, PAGE_SIZE);
    return 0;
}

void dirty_drain(struct guest *guest)
{
    if (guest->dirty.way == DIRTY_BY_LOG)
        guests_backend()->log_take(guest->vcpu, note_logged, guest);
}

/* Of all its vCPUs, none of which is active on another CPU. */
static void drain_all(struct guest *guest)
{
    for (unsigned i = 0; guest->dirty.way == DIRTY_BY_LOG && i < guest->cpus; i++)
        guests_backend()->log_take(guest->cpu[i].vcpu, note_logged, guest);
}

void dirty_collect(struct guest *guest)
{
    struct table *table = &guest->table;
    struct watching watching = {.guest = guest};

    if (guest->dirty.way == DIRTY_OFF)
        return;
    flush_begin(&watching.batch, table);
    drain_all(guest);
    if (guest->dirty.way == DIRTY_BY_MARKS)
        (void)table_harvest(table, table->kind->input_first, whole(table), HARVEST_CLEAR_D,
                            note_dirty, guest, &watching.batch);
    (void)page_set_visit(&guest->dirty.open, watch_again, &watching);
    page_set_clear(&guest->dirty.open);
    flush_commit(&watching.batch);
}

void dirty_opens(struct guest *guest, gpa_t page, uint64_t size)
{
    if (guest->dirty.way != DIRTY_BY_PROTECTION && size == PAGE_SIZE)
        return; /* the CPU tells when it is written */
    note(guest, page.v, size);
    page_set_add(&guest->dirty.open, page.v, size);
}

/* ---- Who asks -------------------------------------------------------------------------------- */

static int cover(struct guest *guest, struct page_set *set)
{
    int error = slots_cover(guest, set, guest_owner(guest));

    guest_note_frames(guest);
    return error;
}

int dirty_cover(struct guest *guest, gpa_t base, uint64_t size)
{
    int error = E_OK;

    if (guest->dirty.way != DIRTY_OFF)
        error = page_set_cover(&guest->dirty.open, base.v, size);
    for (unsigned i = 0; error == E_OK && i < DIRTY_ASKERS; i++)
        if (dirty_asked(guest, (enum dirty_asker)i))
            error = page_set_cover(&guest->dirty.set[i], base.v, size);
    guest_note_frames(guest);
    return error;
}

static void stop_logs(struct guest *guest)
{
    for (unsigned i = 0; i < guest->cpus; i++)
        guests_backend()->log_stop(guest->cpu[i].vcpu);
}

/* Each vCPU has a log of its own. */
static int start_logs(struct guest *guest)
{
    int error = guests_backend()->log_start != NULL ? E_OK : E_UNSUPPORTED;

    for (unsigned i = 0; error == E_OK && i < guest->cpus; i++) {
        error = guests_backend()->log_start(guest->cpu[i].vcpu);
        if (error != E_OK && i != 0)
            stop_logs(guest);
    }
    return error;
}

/* Chooses how, and starts. */
static int watch(struct guest *guest)
{
    struct table *table = &guest->table;
    struct flush_batch batch;
    int error = cover(guest, &guest->dirty.open);

    if (error != E_OK)
        return error;
    guest->dirty.way = table->caps.accessed_dirty ? DIRTY_BY_MARKS : DIRTY_BY_PROTECTION;
    if (table->caps.accessed_dirty) {
        error = start_logs(guest);
        if (error == E_OK)
            guest->dirty.way = DIRTY_BY_LOG;
        else if (error != E_UNSUPPORTED)
            goto failed;
    }
    if (guest->dirty.way == DIRTY_BY_LOG)
        table->marked = note_marked;
    flush_begin(&batch, table);
    if (guest->dirty.way != DIRTY_BY_PROTECTION)
        (void)table_harvest(table, table->kind->input_first, whole(table), HARVEST_CLEAR_D, NULL,
                            NULL, &batch);
    protect_all(guest, &batch);
    flush_commit(&batch);
    return E_OK;
failed:
    guest->dirty.way = DIRTY_OFF;
    page_set_end(&guest->dirty.open);
    return error;
}

int dirty_start(struct guest *guest, enum dirty_asker asker)
{
    int error;

    if (dirty_asked(guest, asker) || guest->vcpu == NULL)
        return E_STATE;
    error = cover(guest, &guest->dirty.set[asker]);
    if (error != E_OK)
        return error;
    if (guest->dirty.way == DIRTY_OFF)
        error = watch(guest);
    else
        dirty_collect(guest);
    if (error != E_OK)
        page_set_end(&guest->dirty.set[asker]);
    else
        guest->dirty.askers |= 1u << asker;
    return error;
}

static void stop_watching(struct guest *guest)
{
    if (guest->dirty.way == DIRTY_BY_LOG)
        stop_logs(guest);
    guest->table.marked = NULL;
    guest->dirty.way = DIRTY_OFF;
    page_set_end(&guest->dirty.open);
}

/* Nothing that is still read-only is lost: it becomes writable at the next write. Joined is what is
 * equal, and never across the end of a slot: what may be done on its two sides is not the same. */
static void join_pages(struct guest *guest)
{
    struct flush_batch batch;
    int error;

    for (unsigned i = 0; i < guest->slots; i++) {
        uint64_t at = guest->slot[i].base.v;

        do {
            flush_begin(&batch, &guest->table);
            error = table_merge_sweep(&guest->table, &at, slot_last(&guest->slot[i]), &batch);
            flush_commit(&batch);
        } while (error == E_OK);
    }
}

void dirty_stop(struct guest *guest, enum dirty_asker asker)
{
    if (!dirty_asked(guest, asker))
        return;
    guest->dirty.askers &= ~(1u << asker);
    page_set_end(&guest->dirty.set[asker]);
    if (guest->dirty.askers != 0)
        return;
    stop_watching(guest);
    slots_restore_rights(guest);
    join_pages(guest);
}

void dirty_end(struct guest *guest)
{
    if (guest->dirty.way == DIRTY_OFF)
        return;
    for (unsigned i = 0; i < DIRTY_ASKERS; i++)
        page_set_end(&guest->dirty.set[i]);
    guest->dirty.askers = 0;
    stop_watching(guest);
}
