/* See mm/audit/tally.h. */
#include "mm/audit/tally.h"

#include <stddef.h>

#include "lib/error.h"
#include "lib/panic.h"
#include "lib/string.h"
#include "mm/frames/buddy.h"
#include "mm/frames/frame.h"

#define PAGE_BITS (PAGE_SIZE * 8)
#define FANOUT_SHIFT 9
#define FANOUT (1u << FANOUT_SHIFT)
#define DIRECTORIES 3

_Static_assert(PAGE_BITS == 1 << 15, "a page of bits is for 32768 frames");

void tally_begin(struct tally *tally)
{
    *tally = (struct tally){0};
}

/* The link stands in the frame's record, so that all of the frame is for counting. */
static uint64_t *take_page(struct tally *tally)
{
    hpa_t frame;

    if (buddy_alloc(0, PURPOSE_HEAP, OWNER_HOST, &frame) != E_OK)
        return NULL;
    frame_set_payload(frame, tally->newest);
    tally->newest = pfn_of(frame) + 1;
    tally->frames++;
    return memset(direct(frame), 0, PAGE_SIZE);
}

/* The bits of page number `page` of a plane; NULL where there are none, or (make) none to be had.
 */
static uint64_t *bits_of(struct tally *tally, unsigned plane, uint64_t page, bool make)
{
    struct tally_plane *in = &tally->plane[plane];
    uint64_t **slot = &in->root;

    if (in->bits != NULL && in->page == page)
        return in->bits;
    for (unsigned left = DIRECTORIES;; left--) {
        if (*slot == NULL && make)
            *slot = take_page(tally);
        if (*slot == NULL)
            return NULL;
        if (left == 0)
            break;
        slot = (uint64_t **)(void *)*slot + (page >> FANOUT_SHIFT * (left - 1) & (FANOUT - 1));
    }
    in->page = page;
    in->bits = *slot;
    return in->bits;
}

/* Adds 1 to the counts of those frames of a word that `mask` names. */
static int carry(struct tally *tally, uint64_t page, unsigned word, uint64_t mask)
{
    uint64_t full = mask;

    /* A count that has all bits set stays as it is. */
    for (unsigned p = 0; p < TALLY_PLANES && full != 0; p++) {
        const uint64_t *bits = bits_of(tally, p, page, false);
        full &= bits != NULL ? bits[word] : 0;
    }
    mask &= ~full;
    for (unsigned p = 0; mask != 0; p++) {
        uint64_t *bits = bits_of(tally, p, page, true);

        if (bits == NULL)
            return E_NOMEM;
        uint64_t carried = bits[word] & mask;
        bits[word] ^= mask;
        mask = carried;
    }
    return E_OK;
}

int tally_add(struct tally *tally, uint64_t pfn, uint64_t count, uint64_t *again,
              uint64_t *first_again)
{
    *again = 0;
    for (uint64_t end = pfn + count, next; pfn < end; pfn = next) {
        uint64_t page = pfn / PAGE_BITS;
        unsigned word = (unsigned)(pfn % PAGE_BITS / 64), bit = pfn % 64;
        uint64_t mask = ~UINT64_C(0) << bit, seen = 0;
        uint64_t *bits = bits_of(tally, 0, page, true);

        if (bits == NULL)
            return E_NOMEM;
        next = pfn - bit + 64;
        if (next > end) {
            mask &= ~UINT64_C(0) >> (next - end);
            next = end;
        }
        for (unsigned p = 0; p < TALLY_PLANES; p++) {
            const uint64_t *higher = bits_of(tally, p, page, false);
            if (higher == NULL)
                break; /* a plane begins only where a lower one overflowed */
            seen |= higher[word] & mask;
        }
        if (seen == 0) {
            bits[word] |= mask;
            continue;
        }
        if (*again == 0)
            *first_again = pfn - bit + lowest_bit(seen);
        for (; seen != 0; seen &= seen - 1)
            (*again)++;
        if (carry(tally, page, word, mask) != E_OK)
            return E_NOMEM;
    }
    return E_OK;
}

unsigned tally_count(struct tally *tally, uint64_t pfn)
{
    unsigned count = 0;

    for (unsigned p = 0; p < TALLY_PLANES; p++) {
        const uint64_t *bits = bits_of(tally, p, pfn / PAGE_BITS, false);
        if (bits == NULL)
            break;
        count |= (unsigned)(bits[pfn % PAGE_BITS / 64] >> pfn % 64 & 1) << p;
    }
    return count;
}

/* The first page of bits after `page`, which is not there, that may be there. */
static uint64_t next_page(const struct tally *tally, uint64_t page)
{
    const uint64_t *directory = tally->plane[0].root;

    for (unsigned left = DIRECTORIES; left > 0; left--) {
        if (directory == NULL)
            return ((page >> FANOUT_SHIFT * left) + 1) << FANOUT_SHIFT * left;
        directory =
            ((uint64_t **)(void *)directory)[page >> FANOUT_SHIFT * (left - 1) & (FANOUT - 1)];
    }
    return page + 1;
}

/* Those frames of a word that were counted at least `times` times: any bit of the count will do but
 * the lowest `times` - 1. */
static uint64_t counted_word(struct tally *tally, uint64_t page, unsigned word, unsigned times)
{
    uint64_t counted = 0;

    for (unsigned p = times - 1; p < TALLY_PLANES; p++) {
        const uint64_t *bits = bits_of(tally, p, page, false);
        if (bits == NULL)
            break;
        counted |= bits[word];
    }
    return counted;
}

uint64_t tally_counted(struct tally *tally, uint64_t pfn, uint64_t end, unsigned times)
{
    while (pfn < end) {
        uint64_t page = pfn / PAGE_BITS;

        if (bits_of(tally, times - 1, page, false) == NULL) {
            pfn = next_page(tally, page) * PAGE_BITS;
            continue;
        }
        uint64_t counted = counted_word(tally, page, (unsigned)(pfn % PAGE_BITS / 64), times);
        counted &= ~UINT64_C(0) << pfn % 64;
        pfn = align_down(pfn, 64);
        if (counted != 0) {
            pfn += lowest_bit(counted);
            return pfn < end ? pfn : end;
        }
        pfn += 64;
    }
    return end;
}

uint64_t tally_uncounted(struct tally *tally, uint64_t pfn, uint64_t end)
{
    while (pfn < end) {
        const uint64_t *bits = bits_of(tally, 0, pfn / PAGE_BITS, false);
        uint64_t low = bits != NULL ? bits[pfn % PAGE_BITS / 64] >> pfn % 64 : 0;

        if (low == ~UINT64_C(0) >> pfn % 64 && end - pfn >= 64 - pfn % 64)
            pfn += 64 - pfn % 64;
        else if ((low & 1) == 0 && tally_count(tally, pfn) == 0)
            return pfn;
        else
            pfn++;
    }
    return end;
}

void tally_end(struct tally *tally)
{
    while (tally->newest != 0) {
        hpa_t frame = hpa_of_pfn(tally->newest - 1);

        tally->newest = frame_payload(frame);
        invariant(buddy_free(frame, 0, OWNER_HOST) == E_OK);
    }
    *tally = (struct tally){0};
}
