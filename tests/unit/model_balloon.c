/* Memory that guests give back and ask for, in the model: see memory_model.h. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#include "lib/error.h"
#include "mm/frames/buddy.h"
#include "mm/paging/typed.h"
#include "tests/unit/memory_model.h"
#include "vm/balloon.h"

static bool has_frame(const struct model *model, unsigned page)
{
    struct mapping leaf;

    return gpa_translate(&model->guest->table, place_of(page, 0), &leaf) == E_OK;
}

static bool may_give(const struct model *model, unsigned page)
{
    const struct slot *slot = guest_slot_at(model->guest, place_of(page, 0));

    return slot != NULL && slot->rights & RIGHT_W &&
           (slot->kind == SLOT_RAM || slot->kind == SLOT_RAM_LAZY || slot->kind == SLOT_NOEXEC);
}

/* Of what was given back, if it was: zeroes, and no frame. */
static void expect_given(struct model *model, unsigned page, bool given, bool had_frame)
{
    struct page *of = &model->page[page];

    assert_int_equal(has_frame(model, page), had_frame && !given);
    if (!given)
        return;
    of->dirty |= of->stamp[0] != 0 || of->stamp[1] != 0;
    of->stamp[0] = of->stamp[1] = 0;
}

void give_or_take(struct model *model, uint64_t room)
{
    static const unsigned most[] = {4, 100, 1200};
    unsigned count = 1 + (unsigned)random_below(&chance, most[random_below(&chance, 3)]);
    unsigned first = (unsigned)random_below(&chance, PAGES - count);
    unsigned steps = 1 + (unsigned)random_below(&chance, 8), page;
    uint64_t at = first * PAGE_SIZE, left = count * PAGE_SIZE, end = at + left;
    bool give = random_below(&chance, 3) != 0, allowed = true, had_frame[PAGES];
    owner_t owner = guest_owner(model->guest);
    int error = E_OK;

    for (page = first; page < first + count; page++)
        allowed = allowed && may_give(model, page);
    for (page = 0; page < PAGES; page++)
        had_frame[page] = has_frame(model, page);
    if (room != UINT64_MAX)
        buddy_set_quota(owner, buddy_owner_frames(owner) + room);
    model->guest->vcpu->deadline = random_below(&chance, 2) * UINT64_MAX;
    for (; steps > 0 && left != 0 && error == E_OK; steps--)
        error =
            give ? balloon_give(model->guest, &at, &left) : balloon_take(model->guest, &at, &left);
    buddy_set_quota(owner, UINT64_MAX);
    assert_int_equal(at + left, end);
    assert_true(at == first * PAGE_SIZE || allowed);
    assert_true(error == (allowed ? E_OK : E_PERM) || (error == E_QUOTA && room != UINT64_MAX));
    for (page = 0; page < PAGES; page++) {
        bool done = page >= first && page < at / PAGE_SIZE;

        if (give)
            expect_given(model, page, done, had_frame[page]);
        else
            assert_int_equal(has_frame(model, page), had_frame[page] || done);
    }
}
