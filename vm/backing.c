/*
 * The frames behind a guest's slots: given when it is made or at the first touch, found for whoever
 * writes there on the guest's behalf, and given back. See vm/slots.h.
 */
#include "lib/bits.h"
#include "lib/error.h"
#include "lib/panic.h"
#include "lib/string.h"
#include "mm/frames/buddy.h"
#include "mm/frames/scrub.h"
#include "mm/paging/typed.h"
#include "vm/cow.h"
#include "vm/dirty.h"
#include "vm/slots.h"

#define ORDER_2M 9

/* One zeroed block of 2^order frames, mapped at `at`. */
static int back_block(struct guest *guest, struct slot *slot, gpa_t at, unsigned order)
{
    uint64_t size = PAGE_SIZE << order;
    unsigned rights = dirty_rights(guest, slot_rights(slot->kind), order < ORDER_2M ? 1 : 2);
    struct flush_batch batch;
    hpa_t block;
    int error = scrub_alloc(order, PURPOSE_GUEST_RAM, guest_owner(guest), &block);

    if (error != E_OK)
        return error;
    flush_begin(&batch, &guest->table);
    error = gpa_map(&guest->table, at, block, size, attrs_of(rights, MEM_WB), MAP_DEFAULT, &batch);
    flush_commit(&batch);
    if (error != E_OK) {
        invariant(buddy_free(block, order, guest_owner(guest)) == E_OK);
        return error;
    }
    slot->backed += size;
    guest_note_frames(guest);
    return E_OK;
}

static uint64_t min_bytes(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
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

/* Backs `at` with the largest block that this allows and the buddy has. A block may be larger
 * than a leaf: its frames are contiguous, and it costs one request. *size receives what it
 * covers. */
static int back_largest(struct guest *guest, struct slot *slot, gpa_t at, uint64_t *size)
{
    uint64_t stretch = stretch_at(guest, at, slot_last(slot) - at.v + 1);
    unsigned order = highest_bit(stretch / PAGE_SIZE);
    int error;

    if (order > BUDDY_MAX_ORDER)
        order = BUDDY_MAX_ORDER;
    for (;; order--) {
        *size = PAGE_SIZE << order;
        error = back_block(guest, slot, at, order);
        if (order == 0 || (error != E_NOMEM && error != E_QUOTA))
            return error;
    }
}

int slots_back(struct guest *guest)
{
    for (unsigned i = 0; i < guest->slots; i++) {
        struct slot *slot = &guest->slot[i];
        uint64_t size;

        if (slot_kind_is_lazy(slot->kind) || slot->kind == SLOT_DEVICE)
            continue;
        for (uint64_t done = 0; done < slot->size; done += size) {
            int error = back_largest(guest, slot, gpa_add(slot->base, done), &size);
            if (error != E_OK)
                return error;
        }
    }
    return E_OK;
}

int slots_fill(struct guest *guest, gpa_t at)
{
    gpa_t page = gpa(align_down(at.v, PAGE_SIZE));
    struct slot *slot = slot_at(guest, page);

    if (slot == NULL || !slot_kind_is_lazy(slot->kind))
        return E_NOENT;
    return back_block(guest, slot, page, 0);
}

bool slots_release_by(struct guest *guest, uint64_t deadline)
{
    uint64_t last = guest->table.kind->input_last;
    bool done = false;

    do
        done = pages_release(&guest->table, &guest->release_from, last);
    while (!done && guests_backend()->ticks() < deadline);
    for (unsigned i = 0; done && i < guest->slots; i++)
        guest->slot[i].backed = 0;
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
    unsigned rights = slot != NULL ? slot_rights(slot->kind) : RIGHT_NONE;
    bool fits = rights & RIGHT_W && !(leaf->attrs.rights & RIGHT_W) &&
                leaf_is_own(leaf, guest_owner(run->guest));

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

/* The host's view of the page that backs `at`, whatever the guest may do with it, and how many
 * bytes follow in it; NULL for none. */
static uint8_t *backing_of(struct guest *guest, gpa_t at, uint64_t *room)
{
    struct mapping mapping;

    if (!guest->has_table || gpa_translate(&guest->table, at, &mapping) != E_OK)
        return NULL;
    *room = mapping.last - at.v + 1;
    return (uint8_t *)direct(hpa_add(mapping.out, at.v - mapping.in));
}

uint64_t guest_read(struct guest *guest, gpa_t from, void *to, uint64_t size)
{
    return guest->has_table ? gpa_read(&guest->table, from, RIGHT_R, to, size) : 0;
}

/* Up to the end of one page (of the table's leaf), backed on demand. */
static int place_piece(struct guest *guest, gpa_t at, const uint8_t *from, uint64_t size,
                       uint64_t *placed)
{
    uint64_t room = 0;
    uint8_t *bytes = backing_of(guest, at, &room);

    if (bytes == NULL) {
        const struct slot *slot = guest_slot_at(guest, at);
        int error = E_OK;

        if (slot == NULL || !slot_kind_is_lazy(slot->kind))
            return E_RANGE;
        error = slots_fill(guest, at);
        if (error != E_OK)
            return error;
        bytes = backing_of(guest, at, &room);
        invariant(bytes != NULL);
    }
    int error = page_own(guest, at);
    if (error != E_OK)
        return error;
    bytes = backing_of(guest, at, &room);
    room = min_bytes(room, PAGE_SIZE - (at.v & (PAGE_SIZE - 1)));
    *placed = min_bytes(room, size);
    dirty_wrote(guest, at, *placed);
    memcpy(bytes, from, *placed);
    return E_OK;
}

struct stretch {
    uint64_t first, last;
};

static int zero_run(void *ctx, const struct mapping *run)
{
    const struct stretch *stretch = ctx;
    uint64_t first = run->in > stretch->first ? run->in : stretch->first;
    uint64_t last = run->last < stretch->last ? run->last : stretch->last;

    memset(direct(hpa_add(run->out, first - run->in)), 0, last - first + 1);
    return 0;
}

/* Zeroes are what absent lazy memory reads as anyway: only what is there is written. While a guest
 * is loaded it shares nothing yet. */
static int place_zeroes(struct guest *guest, gpa_t at, uint64_t size)
{
    while (size != 0) {
        const struct slot *slot = guest_slot_at(guest, at);
        struct stretch stretch = {.first = at.v};
        uint64_t piece;

        if (slot == NULL || slot->kind == SLOT_DEVICE)
            return E_RANGE;
        piece = min_bytes(size, slot_last(slot) - at.v + 1);
        stretch.last = at.v + piece - 1;
        gpa_visit(&guest->table, at, gpa(stretch.last), VISIT_RUNS, zero_run, &stretch);
        at = gpa_add(at, piece);
        size -= piece;
    }
    return E_OK;
}

int slots_place(struct guest *guest, gpa_t at, const void *from, uint64_t size)
{
    uint64_t placed = 0;

    if (from == NULL)
        return place_zeroes(guest, at, size);
    for (uint64_t done = 0; done < size; done += placed) {
        int error = place_piece(guest, gpa_add(at, done), (const uint8_t *)from + done, size - done,
                                &placed);
        if (error != E_OK)
            return error;
    }
    return E_OK;
}

uint64_t guest_write(struct guest *guest, gpa_t to, const void *from, uint64_t size)
{
    uint64_t done = 0, placed;

    while (done < size && place_piece(guest, gpa_add(to, done), (const uint8_t *)from + done,
                                      size - done, &placed) == E_OK)
        done += placed;
    return done;
}
