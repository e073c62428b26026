/*
 * The frames behind a guest's slots: given when it is made or at the first touch, and given back.
 * See vm/slots.h.
 */
#include "lib/bits.h"
#include "lib/error.h"
#include "lib/panic.h"
#include "mm/frames/buddy.h"
#include "mm/frames/scrub.h"
#include "mm/paging/typed.h"
#include "vm/cow.h"
#include "vm/dirty.h"
#include "vm/shared.h"
#include "vm/slots.h"

#define LARGE_PAGE (PAGE_SIZE << ORDER_2M)

/* Leaves of what level a block of this size is mapped by, at an address that it is aligned to. */
static unsigned leaf_level(const struct guest *guest, unsigned order)
{
    unsigned level = 1;

    while (level < guest->table.caps.leaf_top && order >= ORDER_2M * level)
        level++;
    return level;
}

int block_map(struct table *table, gpa_t at, unsigned order, unsigned rights, owner_t owner)
{
    struct flush_batch batch;
    hpa_t block;
    int error = scrub_alloc(order, PURPOSE_GUEST_RAM, owner, &block);

    if (error != E_OK)
        return error;
    flush_begin(&batch, table);
    error = gpa_map(table, at, block, PAGE_SIZE << order, attrs_of(rights, MEM_WB), MAP_DEFAULT,
                    &batch);
    flush_commit(&batch);
    if (error != E_OK)
        invariant(buddy_free(block, order, owner) == E_OK);
    return error;
}

static int back_block(struct guest *guest, struct slot *slot, gpa_t at, unsigned order)
{
    unsigned level = leaf_level(guest, order);
    unsigned rights = dirty_rights(guest, slot->rights, level);

    if (guest->options.nx_huge && level > 1)
        rights &= ~(unsigned)RIGHT_X;
    int error = block_map(&guest->table, at, order, rights, guest_owner(guest));

    if (error != E_OK)
        return error;
    slot->backed += PAGE_SIZE << order;
    return E_OK;
}

/* How much of [at, at + left) to ask for at once: what leaves of the largest size possible at
 * `at` can map, up to where larger ones become possible. */
static uint64_t stretch_at(const struct guest *guest, gpa_t at, uint64_t left)
{
    const struct table_kind *kind = guest->table.kind;

    for (unsigned level = guest->table.caps.leaf_top; level > 1; level--) {
        uint64_t size = level_size(kind, level), into = at.v & (size - 1);

        if (into != 0)
            left = min_bytes(left, size - into);
        else if (size <= left)
            break;
    }
    return left;
}

/* The largest block that this allows and the buddy has. A block may be larger than a leaf: its
 * frames are contiguous, and it costs one request. */
int slot_back_some(struct guest *guest, struct slot *slot, gpa_t at, uint64_t left, uint64_t *size)
{
    uint64_t stretch = stretch_at(guest, at, left);
    unsigned order = highest_bit(stretch / PAGE_SIZE);
    int error;

    if (order > BUDDY_MAX_ORDER)
        order = BUDDY_MAX_ORDER;
    if (guest->options.nx_huge && slot->rights == RIGHT_X)
        order = 0; /* a large page of it would have no right at all */
    for (;; order--) {
        *size = PAGE_SIZE << order;
        error = back_block(guest, slot, at, order);
        if (order == 0 || (error != E_NOMEM && error != E_QUOTA))
            return error;
    }
}

int slot_back(struct guest *guest, struct slot *slot)
{
    uint64_t size;

    if (slot_kind_is_lazy(slot->kind) || slot->kind == SLOT_DEVICE)
        return E_OK;
    if (slot->kind == SLOT_SHARED) {
        int error = shared_map(guest, slot);
        slot->backed = error == E_OK ? slot->size : 0;
        return error;
    }
    for (uint64_t done = 0; done < slot->size; done += size) {
        int error =
            slot_back_some(guest, slot, gpa_add(slot->base, done), slot->size - done, &size);
        if (error != E_OK)
            return error;
    }
    return E_OK;
}

int slots_back(struct guest *guest)
{
    int error = E_OK;

    for (unsigned i = 0; error == E_OK && i < guest->slots; i++)
        error = slot_back(guest, &guest->slot[i]);
    return error;
}

static int add_run(void *ctx, const struct mapping *run)
{
    *(uint64_t *)ctx += run->last - run->in + 1;
    return 0;
}

void slots_recount(struct guest *guest)
{
    for (unsigned i = 0; i < guest->slots; i++) {
        struct slot *slot = &guest->slot[i];

        slot->backed = 0;
        table_visit(&guest->table, slot->base.v, slot_last(slot), VISIT_RUNS, add_run,
                    &slot->backed);
    }
}

/* ---- At the first touch ---------------------------------------------------------------------- */

/* The part of the slot within the window of `size` bytes, aligned to its size, that holds `at`. */
static void window_around(const struct slot *slot, gpa_t at, uint64_t size, uint64_t *first,
                          uint64_t *last)
{
    *first = align_down(at.v, size);
    *last = *first + size - 1;
    if (*first < slot->base.v)
        *first = slot->base.v;
    if (*last > slot_last(slot))
        *last = slot_last(slot);
}

static int find_any(void *ctx, const struct mapping *mapping)
{
    (void)ctx;
    (void)mapping;
    return 1;
}

/* A 2 MiB page for all that is around `at`. E_NOENT: the options, the CPU, the slot or what is
 * there already do not let one be there. */
static int fill_large(struct guest *guest, struct slot *slot, gpa_t at)
{
    uint64_t first, last;

    if (guest->options.pages < 2 || guest->table.caps.leaf_top < 2)
        return E_NOENT;
    window_around(slot, at, LARGE_PAGE, &first, &last);
    if (last - first != LARGE_PAGE - 1 ||
        table_visit(&guest->table, first, last, VISIT_RUNS, find_any, NULL) != 0)
        return E_NOENT;
    return back_block(guest, slot, gpa(first), ORDER_2M);
}

/* What is around a page that has just got its frame: as much of it as there are frames for. */
static void fill_around(struct guest *guest, struct slot *slot, gpa_t page)
{
    uint64_t first, last;

    window_around(slot, page, guest->options.around * PAGE_SIZE, &first, &last);
    for (uint64_t at = first; at < last; at += PAGE_SIZE) {
        struct mapping leaf;

        if (gpa_translate(&guest->table, gpa(at), &leaf) != E_OK &&
            back_block(guest, slot, gpa(at), 0) != E_OK)
            return;
    }
}

int slot_fill(struct guest *guest, struct slot *slot, gpa_t at)
{
    gpa_t page = gpa(align_down(at.v, PAGE_SIZE));
    int error;

    if (!slot_kind_fills(slot->kind))
        return E_NOENT;
    error = fill_large(guest, slot, page);
    if (error != E_NOENT && error != E_NOMEM && error != E_QUOTA)
        return error;
    error = back_block(guest, slot, page, 0);
    if (error == E_OK && guest->options.around > 1)
        fill_around(guest, slot, page);
    return error;
}

int slots_fill(struct guest *guest, gpa_t at)
{
    struct slot *slot = slot_at(guest, at);

    return slot != NULL ? slot_fill(guest, slot, at) : E_NOENT;
}

/* ---- Given back ------------------------------------------------------------------------------ */

bool slots_release_by(struct guest *guest, uint64_t deadline)
{
    uint64_t last = guest->table.kind->input_last;
    bool done = false;

    guest_note_frames(guest);
    do
        done = pages_release(&guest->table, &guest->release_from, last);
    while (!done && guests_backend()->ticks() < deadline);
    for (unsigned i = 0; done && i < guest->slots; i++)
        guest->slot[i].backed = 0;
    if (done)
        shared_drop(guest->slot, guest->slots);
    return done;
}

/* A run of neighbours that a slot lets the guest write, and the table does not. */
struct restore {
    const struct guest *guest;
    uint64_t first, last;
    unsigned rights;
    bool found;
};

static int find_unwritable(void *ctx, const struct mapping *leaf)
{
    struct restore *run = ctx;
    const struct slot *slot = guest_slot_at(run->guest, gpa(leaf->in));
    unsigned rights = slot != NULL ? leaf_rights(run->guest, slot->rights, leaf) : RIGHT_NONE;
    bool fits =
        rights & RIGHT_W && !(leaf->attrs.rights & RIGHT_W) && leaf_is_own(run->guest, leaf);

    if (!run->found && fits)
        *run = (struct restore){run->guest, leaf->in, leaf->last, rights, true};
    else if (run->found && (!fits || leaf->in != run->last + 1 || rights != run->rights))
        return 1;
    else if (run->found)
        run->last = leaf->last;
    return 0;
}

void slots_restore_rights(struct guest *guest)
{
    uint64_t from = guest->table.kind->input_first, end = guest->table.kind->input_last;
    struct restore run = {.guest = guest, .found = true};
    struct flush_batch batch;

    flush_begin(&batch, &guest->table);
    while (run.found) {
        run.found = false;
        table_visit(&guest->table, from, end, VISIT_PAGES, find_unwritable, &run);
        if (run.found) /* whole leaves: cannot fail */
            invariant(table_protect(&guest->table, run.first, run.last - run.first + 1,
                                    attrs_of(run.rights, MEM_WB), &batch) == E_OK);
        from = run.last + 1;
    }
    flush_commit(&batch);
}
