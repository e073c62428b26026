/* See tests/unit/model_slots.h. */
#include "tests/unit/model_slots.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#include "lib/bits.h"
#include "lib/error.h"
#include "mm/frames/buddy.h"
#include "mm/paging/typed.h"
#include "vm/merge.h"
#include "vm/slot_change.h"
#include "vm/slots.h"

struct range {
    unsigned page, count;
};

static struct range some_range(void)
{
    static const unsigned most[] = {4, 100, 512};
    struct range range;

    range.count = 1 + (unsigned)random_below(&chance, most[random_below(&chance, 3)]);
    range.page = (unsigned)random_below(&chance, PAGES - range.count);
    if (random_below(&chance, 4) == 0)
        range.page &= ~511u;
    return range;
}

static gpa_t base_of(struct range range)
{
    return gpa(range.page * PAGE_SIZE);
}

static bool is_one_slot(const struct model *model, struct range range)
{
    const struct slot *slot = guest_slot_at(model->guest, base_of(range));

    return slot != NULL && slot_last(slot) >= base_of(range).v + range.count * PAGE_SIZE - 1;
}

static bool has_memory(const struct model *model, struct range range)
{
    for (unsigned i = 0; i < range.count; i++)
        if (model->page[range.page + i].rights != RIGHT_NONE)
            return true;
    return false;
}

static void set_rights(struct model *model, struct range range, unsigned rights)
{
    for (unsigned i = 0; i < range.count; i++)
        model->page[range.page + i].rights = (uint8_t)rights;
}

static int insert(struct model *model, struct range range)
{
    static const enum slot_kind kinds[] = {SLOT_RAM, SLOT_RAM_LAZY, SLOT_ROM, SLOT_NOEXEC};
    enum slot_kind kind = kinds[random_below(&chance, ARRAY_SIZE(kinds))];
    int error = slot_insert(model->guest, kind, base_of(range), range.count * PAGE_SIZE);

    assert_true((error == E_EXIST) == has_memory(model, range));
    if (error == E_OK)
        set_rights(model, range, slot_kind_rights(kind));
    return error;
}

/* What is gone counts as written. */
static void take_from_model(struct model *model, struct range range)
{
    for (unsigned i = 0; i < range.count; i++) {
        struct page *page = &model->page[range.page + i];

        page->rights = RIGHT_NONE;
        page->dirty |= page->stamp[0] != 0 || page->stamp[1] != 0;
        page->stamp[0] = page->stamp[1] = 0;
    }
}

static int take_away(struct model *model, struct range range)
{
    int error = slot_remove(model->guest, base_of(range), range.count * PAGE_SIZE);

    assert_true((error == E_NOENT) == !is_one_slot(model, range) || error == E_OK);
    if (error == E_OK)
        take_from_model(model, range);
    return error;
}

static bool has_room_for_hole(const struct model *model, struct range range)
{
    const struct slot *slot = guest_slot_at(model->guest, base_of(range));

    return model->guest->slots < GUEST_SLOTS || slot == NULL || slot->base.v == base_of(range).v ||
           slot_last(slot) < base_of(range).v + range.count * PAGE_SIZE;
}

/* Whatever was there. */
static int make_hole(struct model *model, struct range range)
{
    bool room = has_room_for_hole(model, range);
    int error = slot_hole(model->guest, base_of(range), range.count * PAGE_SIZE);

    assert_true((error == E_FULL) == !room);
    if (error == E_OK)
        take_from_model(model, range);
    return error;
}

static int protect(struct model *model, struct range range)
{
    static const uint8_t some[] = {RIGHT_R, RIGHT_RW, RIGHT_RX, RIGHT_RWX, RIGHT_RWX};
    unsigned rights = some[random_below(&chance, ARRAY_SIZE(some))];
    bool one = is_one_slot(model, range);
    int error = slot_protect(model->guest, base_of(range), range.count * PAGE_SIZE, rights);

    assert_true((error == E_NOENT) == !one);
    if (error == E_OK)
        set_rights(model, range, rights);
    return error;
}

void expect_slots(const struct model *model)
{
    const struct guest *guest = model->guest;
    uint64_t backed = 0, mapped = 0;

    for (unsigned i = 0; i < PAGES; i++) {
        const struct slot *slot = guest_slot_at(guest, place_of(i, 0));
        struct mapping leaf;

        assert_int_equal(slot != NULL ? slot->rights : RIGHT_NONE, model->page[i].rights);
        if (gpa_translate((struct table *)&guest->table, place_of(i, 0), &leaf) != E_OK)
            continue;
        mapped += PAGE_SIZE;
        assert_int_equal(leaf.attrs.rights & ~(unsigned)model->page[i].rights, 0);
        assert_int_equal((leaf.attrs.rights | RIGHT_W) & model->page[i].rights,
                         model->page[i].rights);
    }
    for (unsigned i = 0; i < guest->slots; i++)
        backed += guest->slot[i].backed;
    assert_int_equal(backed, mapped);
}

/* With room for so many frames more: done, or as if it had not been tried. */
static void change_slots(struct model *model, uint64_t room)
{
    static int (*const changes[])(struct model *, struct range) = {insert, take_away, make_hole,
                                                                   protect};
    owner_t owner = guest_owner(model->guest);
    uint64_t held = buddy_owner_frames(owner);

    if (room != UINT64_MAX)
        buddy_set_quota(owner, held + room);
    int error = changes[random_below(&chance, ARRAY_SIZE(changes))](model, some_range());
    buddy_set_quota(owner, UINT64_MAX);
    assert_true(error == E_OK || error == E_EXIST || error == E_NOENT || error == E_FULL ||
                (error == E_QUOTA && room != UINT64_MAX));
    expect_slots(model);
}

/* Between two steps guests may write what the sweep has seen: the first pages. */
static void write_some(void)
{
    for (unsigned n = 0; n < 40; n++) {
        struct model *model = some_model();
        unsigned page = (unsigned)random_below(&chance, 16);

        if ((model->page[page].rights & RIGHT_RW) == RIGHT_RW)
            assert_true(cpu_write(model, page, random_below(&chance, 2) * random_next(&chance)));
    }
}

/* Pages that are equal are shared, in steps of any size; contents stay, and so do rights. */
static void sweep(void)
{
    bool runs = random_below(&chance, 2) != 0;
    struct merge merge;
    uint64_t before = machine_free_frames(), after;

    assert_int_equal(merge_begin(&merge), E_OK);
    while (!merge_step(&merge, 1 + (unsigned)random_below(&chance, 600)))
        if (runs)
            write_some();
    merge_end(&merge);
    if (runs)
        return;
    after = machine_free_frames();
    assert_true(after + 4 * GUESTS >= before + merge.freed); /* nodes of pages that were split */
    assert_true(after <= before + merge.freed);
    assert_true(merge.freed <= merge.shared);
}

void one_change(struct model *model, unsigned which)
{
    switch (which) {
    case USUAL_CHANGES:
        if (random_below(&chance, 4) == 0)
            drop_snapshot(model);
        break;
    case USUAL_CHANGES + 1:
    case USUAL_CHANGES + 2:
        change_slots(model, UINT64_MAX);
        break;
    case USUAL_CHANGES + 3:
    case USUAL_CHANGES + 4:
        change_slots(model, random_below(&chance, 12));
        break;
    case USUAL_CHANGES + 5:
        if (random_below(&chance, 3) == 0)
            sweep();
        break;
    case USUAL_CHANGES + 6:
        give_or_take(model, UINT64_MAX);
        break;
    case USUAL_CHANGES + 7:
        give_or_take(model, random_below(&chance, 12));
        break;
    default:
        usual_change(model, which);
    }
}

void any_change(struct model *model)
{
    one_change(model, (unsigned)random_below(&chance, CHANGES));
}

void judge_all(const struct model *model)
{
    expect_contents(model);
    expect_slots(model);
}
