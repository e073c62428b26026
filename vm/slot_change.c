/* See vm/slot_change.h. */
#include "vm/slot_change.h"

#include "lib/bits.h"
#include "lib/error.h"
#include "lib/panic.h"
#include "mm/paging/typed.h"
#include "vm/cow.h"
#include "vm/device.h"
#include "vm/dirty.h"
#include "vm/shared.h"
#include "vm/slots.h"
#include "vm/windows.h"

static int note_gone(void *ctx, const struct mapping *run)
{
    dirty_wrote(ctx, gpa(run->in), run->last - run->in + 1);
    return 0;
}

/* ---- Added ----------------------------------------------------------------------------------- */

static bool is_window(gpa_t base, uint64_t size)
{
    const struct device *device;
    const struct window *window = window_at(base, &device);

    return window != NULL && window->base == base.v && window->size == size;
}

static int check_insert(const struct guest *guest, enum slot_kind kind, gpa_t base, uint64_t size)
{
    if (guest->vcpu == NULL)
        return E_STATE;
    if (kind == SLOT_EXEC_ONLY && !guest->table.caps.execute_only)
        return E_UNSUPPORTED;
    if (base.v >= guest_addresses_end() || size > guest_addresses_end() - base.v)
        return E_RANGE;
    return kind == SLOT_DEVICE && !is_window(base, size) ? E_NOENT : E_OK;
}

/* The frames of a slot that was just added. Without them it is there no more. */
static int give_frames(struct guest *guest, struct slot *slot)
{
    struct slot old = *slot;
    int error = E_OK;

    if (slot->kind != SLOT_DEVICE)
        error = dirty_cover(guest, slot->base, slot->size);
    if (error == E_OK)
        error = slot_back(guest, slot);
    if (error != E_OK) {
        slot_forget(guest, (unsigned)(slot - guest->slot));
        guest_note_frames(guest);
        pages_release_all(&guest->table, old.base.v, slot_last(&old));
        shared_drop(&old, 1);
        return error;
    }
    guest->slots_changed = true;
    return E_OK;
}

int slot_insert(struct guest *guest, enum slot_kind kind, gpa_t base, uint64_t size)
{
    int error = check_insert(guest, kind, base, size);

    if (error == E_OK)
        error = slot_add(guest, base, size, kind);
    return error == E_OK ? give_frames(guest, slot_at(guest, base)) : error;
}

int slot_insert_shared(struct guest *guest, const char *name, gpa_t base, uint64_t size,
                       unsigned rights)
{
    int error = check_insert(guest, SLOT_SHARED, base, size);

    if (error == E_OK)
        error = slot_add(guest, base, size, SLOT_SHARED);
    if (error != E_OK)
        return error;
    struct slot *slot = slot_at(guest, base);
    slot->rights = (uint8_t)rights;
    error = shared_use(slot, name);
    if (error != E_OK) {
        slot_forget(guest, (unsigned)(slot - guest->slot));
        return error;
    }
    return give_frames(guest, slot);
}

/* ---- Removed --------------------------------------------------------------------------------- */

/* Does the range lie in one slot of memory, and is there room for the slots that it leaves? */
static int check_range(const struct guest *guest, const struct slot *slot, gpa_t base,
                       uint64_t size, unsigned kept)
{
    uint64_t last = base.v + (size - 1);

    if (!is_aligned(base.v, PAGE_SIZE) || !is_aligned(size, PAGE_SIZE))
        return E_ALIGN;
    if (slot == NULL || size == 0 || last < base.v || last > slot_last(slot))
        return E_NOENT;
    unsigned ends = (base.v != slot->base.v) + (last != slot_last(slot));
    if (slot->kind == SLOT_DEVICE && (ends != 0 || kept != 0))
        return E_PERM;
    return guest->slots - 1 + kept + ends > GUEST_SLOTS ? E_FULL : E_OK;
}

/* *slot is the one that has all of the range, cut at both ends of it. The range becomes `kept`
 * slots, 0 or 1, and each part that is left of the old one is another. */
static int cut_out(struct guest *guest, gpa_t base, uint64_t size, unsigned kept,
                   struct slot **slot)
{
    uint64_t last = base.v + (size - 1);
    int error;

    if (guest->vcpu == NULL)
        return E_STATE;
    *slot = slot_at(guest, base);
    error = check_range(guest, *slot, base, size, kept);
    return error == E_OK ? pages_cut_ends(guest, base.v, last) : error;
}

static void add_like(struct guest *guest, const struct slot *old, uint64_t first, uint64_t last,
                     unsigned rights)
{
    invariant(slot_add(guest, gpa(first), last - first + 1, old->kind) == E_OK);
    struct slot *slot = slot_at(guest, gpa(first));
    slot->rights = (uint8_t)rights;
    slot->shared = old->shared;
    shared_hold(slot, 1);
}

/* The slot, of which [base, base + size) goes or gets other rights, is no more; its parts before
 * and behind that become slots by themselves. There is room. */
static void part(struct guest *guest, struct slot *slot, uint64_t base, uint64_t size,
                 unsigned rights)
{
    struct slot old = *slot;
    uint64_t last = base + (size - 1);

    slot_forget(guest, (unsigned)(slot - guest->slot));
    if (old.base.v < base)
        add_like(guest, &old, old.base.v, base - 1, old.rights);
    if (rights != RIGHT_NONE)
        add_like(guest, &old, base, last, rights);
    if (slot_last(&old) > last)
        add_like(guest, &old, last + 1, slot_last(&old), old.rights);
    shared_drop(&old, 1);
}

/* What is there of memory and of slots goes; no leaf and no block reaches across the ends, and
 * there is room for what is left of a slot on both sides. */
static void take_out(struct guest *guest, uint64_t first, uint64_t last)
{
    table_visit(&guest->table, first, last, VISIT_RUNS, note_gone, guest);
    guest_note_frames(guest);
    pages_release_all(&guest->table, first, last);
    for (unsigned i = 0; i < guest->slots;) {
        struct slot *slot = &guest->slot[i];
        uint64_t from = slot->base.v > first ? slot->base.v : first;
        uint64_t to = min_bytes(slot_last(slot), last);

        i = from > to ? i + 1 : 0;
        if (from <= to)
            part(guest, slot, from, to - from + 1, RIGHT_NONE);
    }
    slots_recount(guest);
    guest->slots_changed = true;
}

int slot_remove(struct guest *guest, gpa_t base, uint64_t size)
{
    struct slot *slot;
    int error = cut_out(guest, base, size, 0, &slot);

    if (error == E_OK)
        take_out(guest, base.v, base.v + (size - 1));
    return error;
}

static int check_hole(const struct guest *guest, uint64_t first, uint64_t last)
{
    for (unsigned i = 0; i < guest->slots; i++) {
        const struct slot *slot = &guest->slot[i];
        unsigned ends = (slot->base.v < first) + (slot_last(slot) > last);

        if (slot_last(slot) < first || slot->base.v > last)
            continue;
        if (slot->kind == SLOT_DEVICE && ends != 0)
            return E_PERM;
        if (ends == 2 && guest->slots == GUEST_SLOTS)
            return E_FULL;
    }
    return E_OK;
}

int slot_hole(struct guest *guest, gpa_t base, uint64_t size)
{
    uint64_t last = base.v + (size - 1);
    int error;

    if (guest->vcpu == NULL)
        return E_STATE;
    if (!is_aligned(base.v, PAGE_SIZE) || !is_aligned(size, PAGE_SIZE))
        return E_ALIGN;
    if (size == 0 || base.v >= guest_addresses_end() || size > guest_addresses_end() - base.v)
        return E_RANGE;
    error = check_hole(guest, base.v, last);
    if (error == E_OK)
        error = pages_cut_ends(guest, base.v, last);
    if (error == E_OK)
        take_out(guest, base.v, last);
    return error;
}

/* ---- Rights ---------------------------------------------------------------------------------- */

static bool can_express(const struct guest *guest, unsigned rights)
{
    if (guest->options.nx_huge && rights == RIGHT_X)
        return false;
    if (rights == RIGHT_NONE || (rights & RIGHT_W && !(rights & RIGHT_R)))
        return false;
    return rights & RIGHT_R || guest->table.caps.execute_only;
}

struct change {
    const struct guest *guest;
    unsigned rights;
    struct mapping found;
};

/* What the leaf is to have: the right to write comes when it is written, for it may be shared, or
 * watched. */
static unsigned wanted(const struct guest *guest, const struct mapping *leaf, unsigned rights)
{
    rights = leaf_rights(guest, rights, leaf);
    return leaf->attrs.rights & RIGHT_W ? rights : rights & ~(unsigned)RIGHT_W;
}

static int find_other(void *ctx, const struct mapping *leaf)
{
    struct change *change = ctx;

    if (wanted(change->guest, leaf, change->rights) == leaf->attrs.rights)
        return 0;
    change->found = *leaf;
    return 1;
}

static void change_rights(struct guest *guest, uint64_t first, uint64_t last, unsigned rights)
{
    struct change change = {.guest = guest, .rights = rights};
    struct flush_batch batch;

    flush_begin(&batch, &guest->table);
    while (table_visit(&guest->table, first, last, VISIT_RUNS, find_other, &change) != 0) {
        struct attrs attrs = change.found.attrs;

        attrs.rights = (uint8_t)wanted(guest, &change.found, rights);
        /* Whole leaves: nothing has to be split, so that nothing can fail. */
        invariant(table_protect(&guest->table, change.found.in,
                                change.found.last - change.found.in + 1, attrs, &batch) == E_OK);
        if (change.found.last >= last)
            break;
        first = change.found.last + 1;
    }
    flush_commit(&batch);
}

/* A slot that goes on where another of its kind and rights ends becomes one with it. */
static void join(struct guest *guest)
{
    for (unsigned i = 1; i < guest->slots;) {
        struct slot *before = &guest->slot[i - 1], *slot = &guest->slot[i];

        if (slot->kind == SLOT_DEVICE || slot->shared != NULL || slot->kind != before->kind ||
            slot->rights != before->rights || slot_last(before) + 1 != slot->base.v) {
            i++;
            continue;
        }
        before->size += slot->size;
        slot_forget(guest, i);
    }
}

int slot_protect(struct guest *guest, gpa_t base, uint64_t size, unsigned rights)
{
    int error;
    struct slot *slot;

    if (guest->vcpu != NULL && !can_express(guest, rights))
        return E_UNSUPPORTED;
    error = cut_out(guest, base, size, 1, &slot);
    if (error != E_OK)
        return error;
    part(guest, slot, base.v, size, rights);
    change_rights(guest, base.v, base.v + (size - 1), rights);
    if (guest->dirty.way == DIRTY_OFF)
        slots_restore_rights(guest);
    join(guest);
    slots_recount(guest);
    guest->slots_changed = true;
    return E_OK;
}
