/*
 * A guest's memory, read and written on its behalf: by loaders, calls and devices. See vm/slots.h
 * and vm/guest.h.
 */
#include "lib/error.h"
#include "lib/panic.h"
#include "lib/string.h"
#include "mm/paging/typed.h"
#include "vm/cow.h"
#include "vm/dirty.h"
#include "vm/slots.h"

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

        if (slot == NULL || !slot_kind_fills(slot->kind))
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
