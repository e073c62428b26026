/*
 * A set of a guest's pages of 4 KiB, by their guest-physical addresses.
 *
 *     root -> 512 -> 512 -> 512 leaves, each of 64 MiB: 16384 bits, and which words of them are 0
 *
 * The frames are taken beforehand, for the ranges that the set is to cover, so that to add a page
 * cannot fail. To empty it and to go through it cost what is in it, and a few words for each 64 MiB
 * from the first to the last one covered. Frames come from the buddy (PURPOSE_HEAP), charged to the
 * owner given.
 */
#ifndef QUIRE_VM_PAGE_SET_H
#define QUIRE_VM_PAGE_SET_H

#include <stdbool.h>
#include <stdint.h>

#include "mm/frames/frame.h"

struct page_set {
    uint64_t *root;       /* NULL: covers nothing */
    uint64_t first, last; /* what it covers lies within, the last byte included */
    owner_t owner;
    uint64_t frames; /* that it holds */
    uint64_t pages;  /* in the set */
};

void page_set_begin(struct page_set *set, owner_t owner);

/* Has the set cover [first, first + size), 4 KiB boundaries both. E_NOMEM, E_QUOTA: what was
 * covered before still is, and maybe more. */
int page_set_cover(struct page_set *set, uint64_t first, uint64_t size);

/* Adds the pages of [first, first + size) that the set covers; any addresses. */
void page_set_add(struct page_set *set, uint64_t first, uint64_t size);

bool page_set_has(const struct page_set *set, uint64_t at);

/* The lowest page at or above `from` that is in the set; false for none. */
bool page_set_next(const struct page_set *set, uint64_t from, uint64_t *page);

/* Calls `fn` for each page of the set, upwards; it may add none of a higher address. What it
 * returns stops it, unless that is 0, and is returned. Cheaper than page_set_next() for each. */
typedef int (*page_set_fn)(void *ctx, uint64_t page);
int page_set_visit(const struct page_set *set, page_set_fn fn, void *ctx);

/* The lowest run of neighbours at or above `from`; *last is the last byte. */
bool page_set_run(const struct page_set *set, uint64_t from, uint64_t *first, uint64_t *last);

void page_set_clear(struct page_set *set);
/* Gives all frames back. */
void page_set_end(struct page_set *set);

#endif
