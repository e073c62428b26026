/* See vm/balloon.h. */
#include "vm/balloon.h"

#include "lib/bits.h"
#include "lib/error.h"
#include "lib/panic.h"
#include "mm/paging/typed.h"
#include "vm/cow.h"
#include "vm/dirty.h"
#include "vm/slots.h"

#define PIECE (PAGE_SIZE << 9)

static int check(const struct guest *guest, uint64_t at, uint64_t left)
{
    uint64_t last = at + (left - 1);

    if (!is_aligned(at, PAGE_SIZE) || !is_aligned(left, PAGE_SIZE))
        return E_ALIGN;
    if (left != 0 && last < at)
        return E_RANGE;
    while (left != 0) {
        const struct slot *slot = guest_slot_at(guest, gpa(at));

        if (slot == NULL || !slot_kind_is_ram(slot->kind) || !(slot->rights & RIGHT_W))
            return E_PERM;
        if (slot_last(slot) >= last)
            break;
        at = slot_last(slot) + 1;
    }
    return E_OK;
}

/* The last byte of the piece that begins at `at`. It lies in one slot. */
static uint64_t piece_end(const struct slot *slot, uint64_t at, uint64_t last)
{
    return min_bytes(min_bytes(align_down(at, PIECE) + (PIECE - 1), slot_last(slot)), last);
}

static bool turn_is_over(const struct guest *guest)
{
    return guests_backend()->ticks() >= guest->vcpu->deadline;
}

/* ---- Given back ------------------------------------------------------------------------------ */

static int note_gone(void *ctx, const struct mapping *run)
{
    struct guest *guest = ctx;
    uint64_t size = run->last - run->in + 1;

    dirty_wrote(guest, gpa(run->in), size);
    slot_at(guest, gpa(run->in))->backed -= size;
    guest->pages_given += size / PAGE_SIZE;
    return 0;
}

/* The first leaf at or behind `at`, and what follows it in its piece: where to go on. */
static uint64_t give_piece(struct guest *guest, uint64_t at, uint64_t last)
{
    struct table *table = &guest->table;
    struct mapping leaf;

    if (!first_leaf(table, at, last, &leaf))
        return last + 1;
    uint64_t end = piece_end(slot_at(guest, gpa(leaf.in)), leaf.in, last);
    if (leaf.last > end)
        end = leaf.last;
    /* No leaf reaches across the end, only blocks of frames may: nothing that can fail. */
    invariant(pages_cut_ends(guest, leaf.in, end) == E_OK);
    table_visit(table, leaf.in, end, VISIT_RUNS, note_gone, guest);
    guest_note_frames(guest);
    pages_release_all(table, leaf.in, end);
    return end + 1;
}

int balloon_give(struct guest *guest, uint64_t *at, uint64_t *left)
{
    uint64_t last = *at + (*left - 1);
    int error = check(guest, *at, *left);

    if (error == E_OK && *left != 0)
        error = pages_cut_ends(guest, *at, last);
    while (error == E_OK && *left != 0) {
        *at = give_piece(guest, *at, last);
        *left = last + 1 - *at;
        if (turn_is_over(guest))
            break;
    }
    return error;
}

/* ---- Asked for again ------------------------------------------------------------------------- */

/* What has a frame already is passed over. *next: where to go on, after an error the same. */
static int take_piece(struct guest *guest, uint64_t at, uint64_t last, uint64_t *next)
{
    struct slot *slot = slot_at(guest, gpa(at));
    uint64_t end = piece_end(slot, at, last), size = 0;
    struct mapping leaf;

    if (gpa_translate(&guest->table, gpa(at), &leaf) == E_OK) {
        *next = min_bytes(leaf.last, last) + 1;
        return E_OK;
    }
    if (first_leaf(&guest->table, at, end, &leaf))
        end = leaf.in - 1;
    int error = slot_back_some(guest, slot, gpa(at), end - at + 1, &size);
    *next = error == E_OK ? at + size : at;
    guest->pages_taken += error == E_OK ? size / PAGE_SIZE : 0;
    return error;
}

int balloon_take(struct guest *guest, uint64_t *at, uint64_t *left)
{
    uint64_t last = *at + (*left - 1);
    int error = check(guest, *at, *left);

    while (error == E_OK && *left != 0) {
        error = take_piece(guest, *at, last, at);
        *left = last + 1 - *at;
        if (turn_is_over(guest))
            break;
    }
    return error;
}
