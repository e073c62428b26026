/* See vm/merge.h. */
#include "vm/merge.h"

#include "lib/bits.h"
#include "lib/error.h"
#include "lib/panic.h"
#include "lib/string.h"
#include "mm/frames/buddy.h"
#include "mm/paging/typed.h"
#include "vm/cow.h"
#include "vm/slots.h"
#include "vm/snapshot.h"

#define SEEN_FRAMES 64
#define SEEN (SEEN_FRAMES * PAGE_SIZE / sizeof(struct merge_entry))
#define PAGE_WORDS (PAGE_SIZE / sizeof(uint64_t))
#define LARGE_PAGES 512u
#define ZEROES_TO_SPLIT 64u /* of a large page: to split it costs a frame */

_Static_assert(GUEST_LIMIT < PAGE_SIZE, "a guest's number fits below a page's address");

int merge_begin(struct merge *merge)
{
    hpa_t at;
    int error = buddy_alloc_frames(SEEN_FRAMES, PURPOSE_HEAP, OWNER_HOST, &at);

    *merge = (struct merge){.guest = 1};
    if (error != E_OK)
        return error;
    merge->seen = direct(at);
    memset(merge->seen, 0, SEEN_FRAMES * PAGE_SIZE);
    return E_OK;
}

void merge_end(struct merge *merge)
{
    hpa_t at = direct_hpa(merge->seen);

    for (unsigned i = 0; i < SEEN_FRAMES; i++)
        invariant(buddy_free(hpa_add(at, i * PAGE_SIZE), 0, OWNER_HOST) == E_OK);
    merge->seen = NULL;
}

static bool is_zero(const uint64_t *words)
{
    for (unsigned i = 0; i < PAGE_WORDS; i++)
        if (words[i] != 0)
            return false;
    return true;
}

static uint64_t hash_of(const uint64_t *words)
{
    uint64_t hash = UINT64_C(0xcbf29ce484222325);

    for (unsigned i = 0; i < PAGE_WORDS; i++) {
        hash = (hash ^ words[i]) * UINT64_C(0x9e3779b97f4a7c15);
        hash ^= hash >> 29;
    }
    return hash;
}

static bool allows(const struct guest *guest)
{
    return guest != NULL && guest->options.merge && guest->has_table && !guest->finishing;
}

/* RAM that nobody else sees. */
static bool is_mergeable(const struct guest *guest, uint64_t at)
{
    const struct slot *slot = guest_slot_at(guest, gpa(at));

    return slot != NULL && (slot->kind == SLOT_RAM || slot->kind == SLOT_RAM_LAZY);
}

/* The page of an entry, if it is one of 4 KiB still that may be shared. */
static struct guest *page_of(const struct merge_entry *entry, uint64_t *at, struct mapping *leaf)
{
    struct guest *guest = guest_by_number((unsigned)(entry->place % PAGE_SIZE));

    *at = align_down(entry->place, PAGE_SIZE);
    if (entry->place == 0 || !allows(guest) || !is_mergeable(guest, *at) ||
        gpa_translate(&guest->table, gpa(*at), leaf) != E_OK || leaf->level != 1)
        return NULL;
    return guest;
}

/* Shares the page with that of the entry, where it is equal to it; else it takes its place. */
static void match(struct merge *merge, struct guest *guest, const struct mapping *leaf,
                  struct merge_entry *entry, uint64_t hash)
{
    struct mapping other;
    uint64_t at;
    struct guest *from = entry->hash == hash ? page_of(entry, &at, &other) : NULL;
    bool freed;

    if (from == NULL || memcmp(direct(other.out), direct(leaf->out), PAGE_SIZE) != 0) {
        *entry = (struct merge_entry){hash, leaf->in | guest->number};
        return;
    }
    if (other.out.v == leaf->out.v)
        return;
    page_merge(guest, gpa(leaf->in), from, gpa(at), &freed);
    merge->shared++;
    merge->freed += freed;
}

static void look_at(struct merge *merge, struct guest *guest, const struct mapping *leaf)
{
    const uint64_t *words = direct(leaf->out);
    bool zero = is_zero(words);

    merge->looked++;
    if (zero && !merge->zeroes_done) {
        match(merge, guest, leaf, &merge->zeroes, 0);
    } else if (!zero && merge->zeroes_done) {
        uint64_t hash = hash_of(words);

        match(merge, guest, leaf, &merge->seen[hash % SEEN], hash);
    }
}

static bool is_worth_splitting(const struct mapping *leaf)
{
    unsigned zeroes = 0;

    for (unsigned i = 0; i < LARGE_PAGES; i++)
        zeroes += is_zero(direct(hpa_add(leaf->out, i * PAGE_SIZE)));
    return zeroes >= ZEROES_TO_SPLIT;
}

/* The guest is done: the next one, and after the last all of them once more for what is not zero.
 * True: that was it. */
static bool next_guest(struct merge *merge)
{
    merge->at = 0;
    if (++merge->guest <= guest_count())
        return false;
    merge->guest = 1;
    if (merge->zeroes_done)
        return true;
    merge->zeroes_done = true;
    return false;
}

bool merge_step(struct merge *merge, unsigned pages)
{
    while (pages > 0) {
        struct guest *guest = guest_by_number(merge->guest);
        struct mapping leaf;

        if (!allows(guest) ||
            !first_leaf(&guest->table, merge->at, guest->table.kind->input_last, &leaf)) {
            if (next_guest(merge))
                return true;
            continue;
        }
        pages--;
        merge->at = leaf.last + 1;
        if (!is_mergeable(guest, leaf.in))
            continue;
        if (leaf.level == 1) {
            look_at(merge, guest, &leaf);
        } else if (leaf.level == 2 && !merge->zeroes_done) {
            pages -= pages < LARGE_PAGES ? pages : LARGE_PAGES;
            if (is_worth_splitting(&leaf) && leaf_split(guest, &leaf) == E_OK)
                merge->at = leaf.in;
        }
    }
    return false;
}

static uint64_t backed(const struct slot *slot, unsigned slots)
{
    uint64_t bytes = 0;

    for (unsigned i = 0; i < slots; i++)
        bytes += slot[i].backed;
    return bytes;
}

uint64_t merge_frames_shown(void)
{
    uint64_t bytes = 0;

    for (unsigned i = 1; i <= guest_count(); i++) {
        const struct guest *guest = guest_by_number(i);

        if (guest->has_table)
            bytes += backed(guest->slot, guest->slots);
        if (guest->snapshot != NULL)
            bytes += backed(guest->snapshot->slot, guest->snapshot->slots);
    }
    return bytes / PAGE_SIZE;
}
