/* See vm/page_set.h. */
#include "vm/page_set.h"

#include "lib/bits.h"
#include "lib/error.h"
#include "lib/panic.h"
#include "lib/string.h"
#include "mm/frames/buddy.h"
#include "mm/frames/scrub.h"

#define FANOUT_SHIFT 9
#define FANOUT (1u << FANOUT_SHIFT)
#define LEAF_SHIFT 26 /* bytes of address space */
#define LEVELS 4      /* leaves included: 2^53 bytes */
#define SPAN_SHIFT (LEAF_SHIFT + (LEVELS - 1) * FANOUT_SHIFT)
#define LEAF_WORDS 256
#define SUMMARY_WORDS (LEAF_WORDS / 64)

struct leaf {
    uint64_t word[LEAF_WORDS];
    uint64_t filled[SUMMARY_WORDS]; /* bit n: word n is not 0 */
};
_Static_assert(sizeof(struct leaf) <= PAGE_SIZE, "one frame");

void page_set_begin(struct page_set *set, owner_t owner)
{
    *set = (struct page_set){.owner = owner};
}

/* Directories hold the host's addresses of what is below them, 0 for nothing. */
static int take(struct page_set *set, uint64_t **out)
{
    hpa_t frame;
    int error = scrub_alloc(0, PURPOSE_HEAP, set->owner, &frame);

    if (error != E_OK)
        return error;
    set->frames++;
    *out = direct(frame);
    return E_OK;
}

static void give(struct page_set *set, uint64_t *node)
{
    invariant(buddy_free(direct_hpa(node), 0, set->owner) == E_OK);
    set->frames--;
}

static unsigned index_at(uint64_t at, unsigned level)
{
    return (unsigned)(at >> (LEAF_SHIFT + (level - 1) * FANOUT_SHIFT)) & (FANOUT - 1);
}

static uint64_t *child(const uint64_t *directory, unsigned index)
{
    return (uint64_t *)(uintptr_t)directory[index];
}

/* The leaf that covers `at`; NULL: none does. */
static inline struct leaf *leaf_at(const struct page_set *set, uint64_t at)
{
    uint64_t *node = set->root;

    if (at - set->first > set->last - set->first)
        return NULL; /* or it covers nothing: no root */
    for (unsigned level = LEVELS - 1; node != NULL && level > 0; level--)
        node = child(node, index_at(at, level));
    return (struct leaf *)node;
}

/* The first leaf that covers *at, or an address above it; then *at moves there. NULL: none does. */
static struct leaf *leaf_from(const struct page_set *set, uint64_t *at)
{
    if (*at < set->first)
        *at = set->first;
    while (set->root != NULL && *at <= set->last) {
        uint64_t *node = child(set->root, index_at(*at, LEVELS - 1));
        unsigned level = LEVELS - 1;

        while (node != NULL && --level > 0)
            node = child(node, index_at(*at, level));
        if (node != NULL)
            return (struct leaf *)node;
        unsigned shift = LEAF_SHIFT + (level - 1) * FANOUT_SHIFT;
        *at = ((*at >> shift) + 1) << shift;
    }
    return NULL;
}

/* The first address behind the leaf that covers `at`. */
static uint64_t leaf_end(uint64_t at)
{
    return align_down(at, UINT64_C(1) << LEAF_SHIFT) + (UINT64_C(1) << LEAF_SHIFT);
}

static int cover_leaf(struct page_set *set, uint64_t at)
{
    uint64_t **slot = &set->root;

    for (unsigned level = LEVELS - 1;; level--) {
        if (*slot == NULL) {
            int error = take(set, slot);
            if (error != E_OK)
                return error;
        }
        if (level == 0)
            return E_OK;
        slot = (uint64_t **)(void *)&(*slot)[index_at(at, level)];
    }
}

int page_set_cover(struct page_set *set, uint64_t first, uint64_t size)
{
    int error = E_OK;

    if (size == 0 || first >> SPAN_SHIFT != 0 || (first + (size - 1)) >> SPAN_SHIFT != 0)
        return E_RANGE;
    if (set->root == NULL || first < set->first)
        set->first = first;
    if (set->root == NULL || first + (size - 1) > set->last)
        set->last = first + (size - 1);
    for (uint64_t leaf = first >> LEAF_SHIFT;
         error == E_OK && leaf <= (first + size - 1) >> LEAF_SHIFT; leaf++)
        error = cover_leaf(set, leaf << LEAF_SHIFT);
    return error;
}

static unsigned page_in_leaf(uint64_t at)
{
    return (unsigned)(at >> PAGE_SHIFT) & (LEAF_WORDS * 64 - 1);
}

static void add_page(struct page_set *set, struct leaf *leaf, uint64_t at)
{
    unsigned page = page_in_leaf(at), word = page / 64;

    if (leaf->word[word] & BIT(page % 64))
        return;
    leaf->word[word] |= BIT(page % 64);
    leaf->filled[word / 64] |= BIT(word % 64);
    set->pages++;
}

void page_set_add(struct page_set *set, uint64_t first, uint64_t size)
{
    uint64_t at = align_down(first, PAGE_SIZE), last = first + (size - 1);
    struct leaf *leaf;

    while (size != 0 && (leaf = leaf_from(set, &at)) != NULL && at <= last)
        for (uint64_t end = leaf_end(at); at < end && at <= last; at += PAGE_SIZE)
            add_page(set, leaf, at);
}

bool page_set_has(const struct page_set *set, uint64_t at)
{
    const struct leaf *leaf = leaf_at(set, at);
    unsigned page = page_in_leaf(at);

    return leaf != NULL && (leaf->word[page / 64] >> page % 64 & 1) != 0;
}

/* The lowest page of the leaf from number `page` on; LEAF_WORDS * 64 for none. */
static unsigned next_in_leaf(const struct leaf *leaf, unsigned page)
{
    unsigned word = page / 64;
    uint64_t bits = leaf->word[word] & (~UINT64_C(0) << page % 64);

    if (bits != 0)
        return word * 64 + lowest_bit(bits);
    for (unsigned i = ++word / 64; i < SUMMARY_WORDS; i++) {
        bits = leaf->filled[i];
        if (i == word / 64)
            bits &= ~UINT64_C(0) << word % 64;
        if (bits != 0) {
            word = i * 64 + lowest_bit(bits);
            return word * 64 + lowest_bit(leaf->word[word]);
        }
    }
    return LEAF_WORDS * 64;
}

bool page_set_next(const struct page_set *set, uint64_t from, uint64_t *page)
{
    uint64_t at = align_up(from, PAGE_SIZE);

    const struct leaf *leaf;

    if (set->pages == 0 || at < from)
        return false;
    for (; (leaf = leaf_from(set, &at)) != NULL; at = leaf_end(at)) {
        unsigned found = next_in_leaf(leaf, page_in_leaf(at));

        if (found < LEAF_WORDS * 64) {
            *page = align_down(at, UINT64_C(1) << LEAF_SHIFT) + ((uint64_t)found << PAGE_SHIFT);
            return true;
        }
    }
    return false;
}

bool page_set_run(const struct page_set *set, uint64_t from, uint64_t *first, uint64_t *last)
{
    if (!page_set_next(set, from, first))
        return false;
    *last = *first + PAGE_SIZE - 1;
    while (page_set_has(set, *last + 1))
        *last += PAGE_SIZE;
    return true;
}

/* The pages of a leaf whose first page is at `base`. */
static int visit_leaf(const struct leaf *leaf, uint64_t base, page_set_fn fn, void *ctx)
{
    for (unsigned word = 0; word < LEAF_WORDS; word++) {
        uint64_t filled = leaf->filled[word / 64] >> word % 64;

        if (filled == 0) {
            word |= 63;
            continue;
        }
        word += lowest_bit(filled);
        for (uint64_t bits = leaf->word[word]; bits != 0; bits &= bits - 1) {
            int stop = fn(ctx, base + ((word * 64 + lowest_bit(bits)) * PAGE_SIZE));

            if (stop != 0)
                return stop;
        }
    }
    return 0;
}

int page_set_visit(const struct page_set *set, page_set_fn fn, void *ctx)
{
    const struct leaf *leaf;
    int stop = 0;

    for (uint64_t at = 0; stop == 0 && set->pages != 0 && (leaf = leaf_from(set, &at)) != NULL;
         at = leaf_end(at))
        stop = visit_leaf(leaf, leaf_end(at) - (UINT64_C(1) << LEAF_SHIFT), fn, ctx);
    return stop;
}

static void clear_leaf(struct leaf *leaf)
{
    for (unsigned i = 0; i < SUMMARY_WORDS; i++) {
        for (uint64_t left = leaf->filled[i]; left != 0; left &= left - 1)
            leaf->word[i * 64 + lowest_bit(left)] = 0;
        leaf->filled[i] = 0;
    }
}

void page_set_clear(struct page_set *set)
{
    struct leaf *leaf;

    for (uint64_t at = 0; set->pages != 0 && (leaf = leaf_from(set, &at)) != NULL;
         at = leaf_end(at))
        clear_leaf(leaf);
    set->pages = 0;
}

void page_set_end(struct page_set *set)
{
    for (unsigned i = 0; set->root != NULL && i < FANOUT; i++) {
        uint64_t *upper = child(set->root, i);

        for (unsigned j = 0; upper != NULL && j < FANOUT; j++) {
            uint64_t *lower = child(upper, j);

            for (unsigned k = 0; lower != NULL && k < FANOUT; k++)
                if (child(lower, k) != NULL)
                    give(set, child(lower, k));
            if (lower != NULL)
                give(set, lower);
        }
        if (upper != NULL)
            give(set, upper);
    }
    if (set->root != NULL)
        give(set, set->root);
    invariant(set->frames == 0);
    page_set_begin(set, set->owner);
}
