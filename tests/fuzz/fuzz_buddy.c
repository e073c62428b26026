/*
 * The buddy under what a fuzzer finds: the input is a memory map (regions that are added, recorded
 * as in use or reserved; unaligned, overlapping and outside ones among them) and a sequence of
 * calls on three CPUs, good and bad. A plain array says what each frame is; after each call the
 * allocator verifies itself and agrees with it, no two blocks overlap, and at the end, when all is
 * given back, the free blocks are those of the beginning.
 */
#include "mm/frames/buddy.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/panic.h"

#define FRAMES 1300u /* not a multiple of anything */
#define HELD 128u
#define REGIONS 12u

#define must(condition)                                                                            \
    ((condition) ? (void)0                                                                         \
                 : (fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition), abort()))

enum cell { CELL_HOLE, CELL_FREE, CELL_USED, CELL_KEPT };

static uint8_t cell[FRAMES];
static struct held {
    hpa_t block;
    uint8_t order, owner, holders;
} held[HELD];
static unsigned holds, cpu;
static uint64_t quota[4];
static const uint8_t *input;
static size_t left;

_Noreturn void panic(const char *format, ...)
{
    fprintf(stderr, "panic: %s\n", format);
    abort();
}

static unsigned current_cpu(void)
{
    return cpu;
}

static void fence(void)
{
}

static unsigned next(void)
{
    return left > 0 ? (left--, *input++) : 0;
}

static uint64_t next_frame(void)
{
    uint64_t high = next();
    return (high << 8 | next()) % (FRAMES + 40);
}

static owner_t owner_of(unsigned number)
{
    static const owner_t owners[4] = {OWNER_HOST, 16, 17, 700};
    return owners[number % 4];
}

static bool all_are(uint64_t first, uint64_t count, enum cell state)
{
    for (uint64_t i = first; i < first + count; i++)
        if (i >= FRAMES || cell[i] != state)
            return false;
    return true;
}

static void set_all(uint64_t first, uint64_t count, enum cell state)
{
    memset(&cell[first], state, count);
}

static void verify(void)
{
    char why[200] = "";
    if (buddy_verify(why, sizeof(why)) != E_OK) {
        fprintf(stderr, "%s\n", why);
        abort();
    }
}

static void took(hpa_t block, unsigned order, unsigned owner)
{
    must(all_are(pfn_of(block), UINT64_C(1) << order, CELL_FREE));
    set_all(pfn_of(block), UINT64_C(1) << order, CELL_USED);
    held[holds++] = (struct held){block, (uint8_t)order, (uint8_t)(owner % 4), 1};
}

static void gave(unsigned i)
{
    set_all(pfn_of(held[i].block), UINT64_C(1) << held[i].order, CELL_FREE);
    held[i] = held[--holds];
}

static void add_region(void)
{
    uint64_t first = next_frame(), count = next(), odd = next();
    hpa_t base = hpa(first * PAGE_SIZE + (odd == 1 ? 512 : 0));
    uint64_t size = count * PAGE_SIZE + (odd == 2 ? 8 : 0);
    int error;
    enum cell state = odd % 8 == 7 ? CELL_KEPT : CELL_FREE;
    if (state == CELL_FREE)
        error = buddy_add(base, size);
    else
        error = buddy_record(base, size, FRAME_RESERVED, PURPOSE_FIRMWARE, OWNER_NONE);
    bool fits = count > 0 && odd != 1 && odd != 2 && all_are(first, count, CELL_HOLE);
    must((error == E_OK) == fits);
    if (fits)
        set_all(first, count, state);
}

/* Is there an aligned block of free frames within the bounds? What the allocator may not deny. */
static bool exists(unsigned order, uint64_t first, uint64_t end)
{
    uint64_t size = UINT64_C(1) << order;
    for (uint64_t at = (first + size - 1) / size * size; at + size <= end; at += size)
        if (all_are(at, size, CELL_FREE))
            return true;
    return false;
}

static void alloc(bool within)
{
    unsigned order = next() % 9, owner = next();
    uint64_t first = within ? next_frame() : 0, end = within ? first + 1 + next() : FRAMES;
    hpa_t block;
    int error = within ? buddy_alloc_within(order, first * PAGE_SIZE, end * PAGE_SIZE - 1,
                                            PURPOSE_TEST, owner_of(owner), &block)
                       : buddy_alloc(order, PURPOSE_TEST, owner_of(owner), &block);
    uint64_t charged = buddy_owner_frames(owner_of(owner));
    if (error == E_OK) {
        must(charged <= quota[owner % 4]);
        must(pfn_of(block) >= first && pfn_of(block) + (UINT64_C(1) << order) <= end);
        took(block, order, owner);
    } else if (error == E_QUOTA) {
        must(charged + (UINT64_C(1) << order) > quota[owner % 4]);
    } else {
        must(error == E_NOMEM && !exists(order, first, end < FRAMES ? end : FRAMES));
    }
}

static void alloc_at(void)
{
    unsigned order = next() % 9, owner = next();
    uint64_t at = next_frame();
    int error = buddy_alloc_at(hpa_of_pfn(at), order, PURPOSE_TEST, owner_of(owner));
    if (error == E_OK)
        took(hpa_of_pfn(at), order, owner);
    else
        must(error != E_EXIST || !all_are(at, UINT64_C(1) << order, CELL_FREE));
}

/* Of one that is held, with perhaps one thing wrong; or of any frame at all. */
static void give_back(void)
{
    unsigned how = next(), i = holds > 0 ? next() % holds : 0;
    if (how % 8 == 7 || holds == 0) {
        uint64_t at = next_frame();
        if (at >= FRAMES || cell[at] != CELL_USED)
            must(buddy_free(hpa_of_pfn(at), 0, OWNER_HOST) != E_OK);
        return;
    }
    struct held *h = &held[i];
    owner_t owner = owner_of(how % 8 == 6 ? h->owner + 1u : h->owner);
    unsigned order = how % 8 == 5 ? h->order + 1u : h->order;
    int error = buddy_free(h->block, order, owner);
    if (how % 8 >= 5)
        must(error != E_OK);
    else
        must(error == (h->holders > 1 ? E_SHARED : E_OK));
    if (error == E_OK) {
        must(buddy_free(h->block, order, owner) != E_OK);
        gave(i);
    }
}

static void alloc_many(void)
{
    hpa_t list[HELD];
    unsigned owner = next(), n = next() % (HELD - 1 - holds);
    uint64_t charged = buddy_owner_frames(owner_of(owner)), available = 0;
    for (uint64_t i = 0; i < FRAMES; i++)
        available += cell[i] == CELL_FREE;
    int error = buddy_alloc_many(list, n, PURPOSE_TEST, owner_of(owner));
    if (charged + n > quota[owner % 4])
        must(error == E_QUOTA);
    else
        must(error == (available >= n ? E_OK : E_NOMEM));
    for (unsigned i = 0; error == E_OK && i < n; i++)
        took(list[i], 0, owner);
}

static void give_many_back(void)
{
    hpa_t list[HELD];
    unsigned n = 0, owner = next() % 4;
    for (unsigned i = 0; i < holds; i++)
        if (held[i].order == 0 && held[i].owner == owner && held[i].holders == 1)
            list[n++] = held[i].block;
    must(buddy_free_frames(list, n, owner_of(owner)) == E_OK);
    for (unsigned i = 0; i < holds;)
        if (held[i].order == 0 && held[i].owner == owner && held[i].holders == 1)
            gave(i);
        else
            i++;
}

static void share(void)
{
    if (holds == 0)
        return;
    unsigned i = next() % holds;
    bool last, more = next() % 2;
    struct held *h = &held[i];
    if (more && h->holders < 200) {
        must(buddy_share(h->block, owner_of(h->owner)) == E_OK);
        h->holders++;
    } else {
        must(buddy_release(h->block, h->order, owner_of(h->owner), &last) == E_OK);
        must(last == (h->holders == 1));
        if (last)
            gave(i);
        else
            h->holders--;
    }
}

static void step(void)
{
    unsigned what = next();
    cpu = what >> 4 & 3;
    cpu = cpu == 3 ? 0 : cpu;
    switch (what & 15) {
    case 0:
        add_region();
        break;
    case 1:
        buddy_drain();
        break;
    case 2:
        share();
        break;
    case 3:
        give_many_back();
        break;
    case 4: {
        unsigned owner = 1 + next() % 3;
        quota[owner] = next() * 4u;
        must(buddy_set_quota(owner_of(owner), quota[owner]) == E_OK);
        break;
    }
    case 5:
        alloc_at();
        break;
    case 6:
        alloc(true);
        break;
    case 7:
    case 8:
    case 9:
        give_back();
        break;
    case 10:
        if (holds < HELD - 1)
            alloc_many();
        break;
    default:
        if (holds < HELD - 1)
            alloc(false);
        break;
    }
    while (holds >= HELD - 1) {
        unsigned i = holds - 1;
        while (held[i].holders > 1) {
            must(buddy_release(held[i].block, held[i].order, owner_of(held[i].owner), NULL) ==
                 E_OK);
            held[i].holders--;
        }
        must(buddy_free(held[i].block, held[i].order, owner_of(held[i].owner)) == E_OK);
        gave(i);
    }
}

/* The free blocks of a frame state, as a perfect buddy would have them. */
static void assert_merged(void)
{
    struct buddy_stats stats;
    uint64_t expected[BUDDY_ORDERS] = {0};
    for (uint64_t at = 0; at < FRAMES;) {
        unsigned order = 0;
        if (cell[at] != CELL_FREE) {
            at++;
            continue;
        }
        while (order < BUDDY_MAX_ORDER && at % (UINT64_C(2) << order) == 0 &&
               all_are(at, UINT64_C(2) << order, CELL_FREE))
            order++;
        expected[order]++;
        at += UINT64_C(1) << order;
    }
    buddy_stats(&stats);
    must(memcmp(expected, stats.free_blocks, sizeof(expected)) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static void *metadata;
    uint64_t bytes = buddy_metadata_size(FRAMES * PAGE_SIZE);

    if (metadata == NULL)
        metadata = aligned_alloc(PAGE_SIZE, bytes);
    memset(metadata, 0xa5, bytes);
    memset(cell, CELL_HOLE, sizeof(cell));
    input = data;
    left = size;
    holds = cpu = 0;
    for (unsigned i = 0; i < 4; i++)
        quota[i] = UINT64_MAX;
    must(buddy_init(metadata, bytes, FRAMES * PAGE_SIZE) == E_OK);
    if (next() % 4 == 0)
        must(buddy_set_cpus(NULL, NULL) == E_OK);
    else
        must(buddy_set_cpus(current_cpu, fence) == E_OK);
    for (unsigned regions = next() % REGIONS; regions > 0; regions--)
        add_region();
    verify();
    while (left > 0) {
        step();
        verify();
        for (uint64_t i = 0; i < FRAMES; i += 1 + (left & 7))
            must(buddy_is_free(hpa_of_pfn(i)) == (cell[i] == CELL_FREE));
    }
    while (holds > 0) {
        struct held *h = &held[holds - 1];
        for (; h->holders > 0; h->holders--)
            must(buddy_release(h->block, h->order, owner_of(h->owner), NULL) == E_OK);
        gave(holds - 1);
    }
    buddy_drain();
    verify();
    assert_merged();
    return 0;
}
