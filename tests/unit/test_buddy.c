/*
 * The buddy, promise by promise: what it refuses, where it takes blocks from, what it counts, what
 * it costs to start. Random sequences are in tests/property/test_buddy_model.c.
 */
#include "mm/frames/buddy.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include <cmocka.h>

#include "tests/unit/hosted.h"
#include "tests/unit/random.h"

static void *metadata;
static uint64_t metadata_size;
static unsigned cpu;
static unsigned fences;

static unsigned current_cpu(void)
{
    return cpu;
}

static void fence(void)
{
    fences++;
}

/* An allocator for memory up to ram_end that knows none of it yet, in metadata full of garbage. */
static void start(uint64_t ram_end)
{
    free(metadata);
    metadata_size = buddy_metadata_size(ram_end);
    metadata = aligned_alloc(PAGE_SIZE, metadata_size);
    memset(metadata, 0xa5, metadata_size);
    cpu = 0;
    assert_int_equal(buddy_init(metadata, metadata_size, ram_end), E_OK);
}

static void start_with(uint64_t ram)
{
    start(ram);
    assert_int_equal(buddy_add(hpa(0), ram), E_OK);
}

static void verify(void)
{
    char why[160] = "";
    if (buddy_verify(why, sizeof(why)) != E_OK)
        fail_msg("%s", why);
}

static struct buddy_stats stats(void)
{
    struct buddy_stats out;
    buddy_stats(&out);
    return out;
}

static hpa_t alloc(unsigned order, owner_t owner)
{
    hpa_t out = hpa(0);
    assert_int_equal(buddy_alloc(order, PURPOSE_TEST, owner, &out), E_OK);
    assert_true(is_aligned(out.v, PAGE_SIZE << order));
    return out;
}

static void assert_alloc_fails(unsigned order, owner_t owner, int error)
{
    hpa_t out = hpa(0x123);
    uint64_t failed = stats().failed;
    assert_int_equal(buddy_alloc(order, PURPOSE_TEST, owner, &out), error);
    assert_int_equal(out.v, 0x123);
    assert_int_equal(stats().failed, failed + 1);
}

/* ---- Starting ---- */

static void test_metadata_size(void **state)
{
    (void)state;
    assert_int_equal(buddy_metadata_size(0), 0);
    assert_int_equal(buddy_metadata_size((UINT64_C(1) << 52) + 1), 0);
    for (unsigned shift = 25; shift <= 52; shift++) {
        uint64_t frames = UINT64_C(1) << (shift - PAGE_SHIFT);
        uint64_t size = buddy_metadata_size(UINT64_C(1) << shift);
        assert_true(size >= frames * 8);
        assert_true(size <= frames * 8 + frames / 2);
        assert_true(is_aligned(size, PAGE_SIZE));
    }
}

static void test_init_refuses(void **state)
{
    (void)state;
    static uint8_t page[2 * 4096] __attribute__((aligned(4096)));
    assert_int_equal(buddy_init(page, sizeof(page), 0), E_RANGE);
    assert_int_equal(buddy_init(page, sizeof(page), (UINT64_C(1) << 52) + 1), E_RANGE);
    assert_int_equal(buddy_init(page + 8, sizeof(page) - 8, PAGE_SIZE), E_ALIGN);
    assert_int_equal(buddy_init(page, buddy_metadata_size(MiB) - 1, MiB), E_NOMEM);
    assert_int_equal(buddy_set_cpus(current_cpu, NULL), E_INVAL);
    assert_int_equal(buddy_set_cpus(NULL, fence), E_INVAL);
}

static void test_knows_nothing_at_first(void **state)
{
    (void)state;
    hpa_t out;
    start(64 * MiB + 1); /* a last frame that RAM covers in part has a record, too */
    assert_int_equal(stats().total_frames, 0);
    assert_int_equal(buddy_alloc(0, PURPOSE_TEST, OWNER_HOST, &out), E_NOMEM);
    for (uint64_t at = 0; at < 65 * MiB; at += 64 * KiB) {
        assert_false(buddy_is_free(hpa(at)));
        assert_int_equal(buddy_free(hpa(at), 0, OWNER_HOST), E_RANGE);
    }
    assert_int_equal(buddy_add(hpa(64 * MiB), PAGE_SIZE), E_OK);
    verify();
}

/* Garbage that looks like records of blocks in use, and like free blocks, is still garbage. */
static void test_plausible_garbage(void **state)
{
    (void)state;
    static const uint64_t garbage[] = {
        (uint64_t)FRAME_USED | PURPOSE_TEST << FRAME_PURPOSE_SHIFT | 1 << FRAME_OWNER_SHIFT,
        (uint64_t)FRAME_CACHED,
        UINT64_MAX,
    };
    for (unsigned i = 0; i < ARRAY_SIZE(garbage); i++) {
        start(GiB);
        uint64_t *words = metadata;
        for (uint64_t n = 0; n < metadata_size / sizeof(*words); n++)
            words[n] = garbage[i];
        assert_int_equal(buddy_init(metadata, metadata_size, GiB), E_OK);
        assert_int_equal(buddy_add(hpa(0), 32 * MiB), E_OK);
        assert_int_equal(buddy_add(hpa(GiB - 5 * PAGE_SIZE), 5 * PAGE_SIZE), E_OK);
        hpa_t block = alloc(0, OWNER_HOST); /* the cache and the lease are there */
        verify();
        for (uint64_t at = 0; at < GiB; at += MiB / 2) {
            int error = at < 32 * MiB ? E_DOUBLE_FREE : E_RANGE;
            assert_int_equal(buddy_free(hpa(at), 0, OWNER_HOST), error);
            assert_int_equal(buddy_is_free(hpa(at)), at < 32 * MiB);
        }
        assert_int_equal(buddy_add(hpa(32 * MiB), 2 * MiB), E_OK);
        assert_int_equal(buddy_free(block, 0, OWNER_HOST), E_OK);
        verify();
    }
}

static void test_add(void **state)
{
    (void)state;
    start(4 * GiB);
    assert_int_equal(buddy_add(hpa(MiB), 0), E_INVAL);
    assert_int_equal(buddy_add(hpa(MiB + 1), PAGE_SIZE), E_ALIGN);
    assert_int_equal(buddy_add(hpa(MiB), PAGE_SIZE + 1), E_ALIGN);
    assert_int_equal(buddy_add(hpa(4 * GiB), PAGE_SIZE), E_RANGE);
    assert_int_equal(buddy_add(hpa(4 * GiB - PAGE_SIZE), 2 * PAGE_SIZE), E_RANGE);
    assert_int_equal(buddy_add(hpa(0), -PAGE_SIZE), E_RANGE);
    assert_int_equal(buddy_add(hpa(-PAGE_SIZE), 2 * PAGE_SIZE), E_RANGE);
    assert_int_equal(stats().total_frames, 0);

    /* Ragged edges; then whatever overlaps them is refused, whether it is free or in use. */
    assert_int_equal(buddy_add(hpa(0x9f000), 0x123000), E_OK);
    verify();
    for (unsigned in_use = 0; in_use < 2; in_use++) {
        assert_int_equal(buddy_add(hpa(0x9f000), PAGE_SIZE), E_EXIST);
        assert_int_equal(buddy_add(hpa(0x1c1000), PAGE_SIZE), E_EXIST);
        assert_int_equal(buddy_add(hpa(0x100000), 4 * PAGE_SIZE), E_EXIST);
        assert_int_equal(buddy_add(hpa(0), 0xa0000), E_EXIST);
        assert_int_equal(buddy_add(hpa(0x1c1000), MiB), E_EXIST);
        assert_int_equal(buddy_add(hpa(0), GiB), E_EXIST);
        assert_int_equal(stats().total_frames, 0x123);
        hpa_t out;
        for (unsigned i = in_use * 0x123; i < 0x123; i++)
            assert_int_equal(buddy_alloc(0, PURPOSE_TEST, OWNER_HOST, &out), E_OK);
    }
    assert_alloc_fails(0, OWNER_HOST, E_NOMEM);

    /* What arrives on either side is welcome, and touching free ranges become one. */
    assert_int_equal(buddy_add(hpa(0x9e000), PAGE_SIZE), E_OK);
    assert_int_equal(buddy_add(hpa(0x1c2000), PAGE_SIZE), E_OK);
    assert_int_equal(buddy_add(hpa(GiB), GiB / 2), E_OK);
    assert_alloc_fails(BUDDY_MAX_ORDER, OWNER_HOST, E_NOMEM);
    assert_int_equal(buddy_add(hpa(GiB + GiB / 2), GiB / 2), E_OK);
    assert_int_equal(alloc(BUDDY_MAX_ORDER, OWNER_HOST).v, GiB);
    verify();
}

static int touched_pages(void *memory, uint64_t size)
{
    uint64_t pages = size / PAGE_SIZE;
    int touched = 0;
    unsigned char *map = malloc(1 << 20);
    for (uint64_t at = 0; at < pages; at += 1 << 20) {
        uint64_t n = pages - at < 1 << 20 ? pages - at : 1 << 20;
        assert_int_equal(mincore((char *)memory + at * PAGE_SIZE, n * PAGE_SIZE, map), 0);
        for (uint64_t i = 0; i < n; i++)
            touched += map[i] & 1;
    }
    free(map);
    return touched;
}

/* A terabyte costs a few pages of metadata to start, and its use as much as is used. */
static void test_start_is_lazy(void **state)
{
    (void)state;
    static const uint64_t sizes[] = {16 * GiB, TiB, 64 * TiB};
    for (unsigned i = 0; i < ARRAY_SIZE(sizes); i++) {
        uint64_t size = buddy_metadata_size(sizes[i]);
        void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE,
                            MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        assert_true(memory != MAP_FAILED);
        assert_int_equal(buddy_init(memory, size, sizes[i]), E_OK);
        /* RAM as on a PC: a hole below 1 MiB, one below 4 GiB, and a ragged end. */
        assert_int_equal(buddy_add(hpa(0), 0x9f000), E_OK);
        assert_int_equal(buddy_add(hpa(MiB), 3 * GiB - MiB), E_OK);
        assert_int_equal(buddy_add(hpa(4 * GiB), sizes[i] - 4 * GiB - 17 * PAGE_SIZE), E_OK);
        assert_true(touched_pages(memory, size) < 120);

        hpa_t block[512];
        for (unsigned n = 0; n < ARRAY_SIZE(block); n++)
            block[n] = alloc(n % 11, OWNER_HOST);
        hpa_t large = alloc(BUDDY_MAX_ORDER, OWNER_HOST);
        assert_true(touched_pages(memory, size) < 400);
        verify();
        for (unsigned n = 0; n < ARRAY_SIZE(block); n++)
            assert_int_equal(buddy_free(block[n], n % 11, OWNER_HOST), E_OK);
        assert_int_equal(buddy_free(large, BUDDY_MAX_ORDER, OWNER_HOST), E_OK);
        verify();
        assert_int_equal(munmap(memory, size), 0);
    }
}

/* The largest machine that the architecture can have. */
static void test_four_pebibytes(void **state)
{
    (void)state;
    const uint64_t end = UINT64_C(1) << 52;
    uint64_t size = buddy_metadata_size(end);
    void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    assert_true(memory != MAP_FAILED);
    assert_int_equal(buddy_init(memory, size, end), E_OK);
    assert_int_equal(buddy_add(hpa(end - PAGE_SIZE), PAGE_SIZE), E_OK);
    assert_int_equal(buddy_add(hpa(0), GiB), E_OK);
    assert_int_equal(alloc(0, OWNER_HOST).v, end - PAGE_SIZE);
    assert_int_equal(alloc(0, OWNER_HOST).v < GiB, true);
    assert_int_equal(buddy_free(hpa(end - PAGE_SIZE), 0, OWNER_HOST), E_OK);
    assert_int_equal(buddy_free(hpa(end), 0, OWNER_HOST), E_RANGE);
    assert_int_equal(buddy_free(hpa(-PAGE_SIZE), 0, OWNER_HOST), E_RANGE);
    verify();
    assert_int_equal(munmap(memory, size), 0);
}

/* ---- Taking and giving back ---- */

static void test_orders(void **state)
{
    (void)state;
    start_with(3 * GiB);
    struct buddy_stats before = stats();
    assert_int_equal(before.free_blocks[BUDDY_MAX_ORDER], 3);

    hpa_t block[BUDDY_ORDERS];
    for (unsigned order = 0; order < BUDDY_ORDERS; order++)
        block[order] = alloc(order, OWNER_HOST);
    verify();
    for (unsigned a = 0; a < BUDDY_ORDERS; a++)
        for (unsigned b = a + 1; b < BUDDY_ORDERS; b++)
            assert_true(block[a].v + (PAGE_SIZE << a) <= block[b].v ||
                        block[b].v + (PAGE_SIZE << b) <= block[a].v);
    assert_int_equal(stats().by_purpose[PURPOSE_TEST], (1 << BUDDY_ORDERS) - 1);
    assert_int_equal(buddy_owner_frames(OWNER_HOST), (1 << BUDDY_ORDERS) - 1);
    for (unsigned order = 0; order < BUDDY_ORDERS; order++)
        assert_int_equal(buddy_free(block[order], order, OWNER_HOST), E_OK);
    buddy_drain();
    verify();
    struct buddy_stats after = stats();
    assert_memory_equal(after.free_blocks, before.free_blocks, sizeof(before.free_blocks));
    assert_memory_equal(after.by_purpose, before.by_purpose, sizeof(before.by_purpose));
    assert_int_equal(after.allocations, BUDDY_ORDERS);
    assert_int_equal(after.frees, BUDDY_ORDERS);
}

static void test_alloc_refuses_nonsense(void **state)
{
    (void)state;
    hpa_t out = hpa(0x123);
    start_with(16 * MiB);
    for (unsigned warm = 0; warm < 2; warm++) {
        assert_int_equal(buddy_alloc(BUDDY_ORDERS, PURPOSE_TEST, OWNER_HOST, &out), E_INVAL);
        assert_int_equal(buddy_alloc(~0u, PURPOSE_TEST, OWNER_HOST, &out), E_INVAL);
        assert_int_equal(buddy_alloc(0, PURPOSE_FREE, OWNER_HOST, &out), E_INVAL);
        assert_int_equal(buddy_alloc(0, PURPOSE_COUNT, OWNER_HOST, &out), E_INVAL);
        assert_int_equal(buddy_alloc(0, (enum frame_purpose)(32 + PURPOSE_TEST), 1, &out), E_INVAL);
        assert_int_equal(buddy_alloc(0, PURPOSE_TEST, OWNER_NONE, &out), E_INVAL);
        assert_int_equal(buddy_alloc(0, PURPOSE_TEST, OWNER_LIMIT, &out), E_INVAL);
        assert_int_equal(buddy_alloc(0, PURPOSE_TEST, UINT16_MAX, &out), E_INVAL);
        assert_int_equal(buddy_alloc_frames(0, PURPOSE_TEST, OWNER_HOST, &out), E_INVAL);
        assert_int_equal(buddy_alloc_frames((1 << 18) + 1, PURPOSE_TEST, OWNER_HOST, &out),
                         E_INVAL);
        assert_int_equal(buddy_alloc_within(0, 1, 0, PURPOSE_TEST, OWNER_HOST, &out), E_INVAL);
        assert_int_equal(buddy_alloc_at(hpa(0), BUDDY_ORDERS, PURPOSE_TEST, OWNER_HOST), E_INVAL);
        assert_int_equal(buddy_set_quota(OWNER_NONE, 1), E_INVAL);
        assert_int_equal(buddy_set_quota(OWNER_LIMIT, 1), E_INVAL);
        assert_int_equal(out.v, 0x123);
        alloc(0, OWNER_HOST); /* now the cache and the lease are there */
        out = hpa(0x123);
    }
    verify();
    assert_int_equal(buddy_alloc_frames(3, PURPOSE_COUNT, OWNER_HOST, &out), E_INVAL);
    assert_int_equal(buddy_alloc_at(hpa(0), 0, PURPOSE_TEST, OWNER_LIMIT), E_INVAL);
    assert_int_equal(buddy_quota(OWNER_LIMIT), 0);
    assert_int_equal(buddy_owner_frames(OWNER_LIMIT), 0);
}

/* The cliff that makes a list of free blocks in pages of 511 entries fail. */
static void test_isolated_frames(void **state)
{
    (void)state;
    const unsigned frames = 4096;
    start_with(frames * PAGE_SIZE);
    static hpa_t taken[4096];
    for (unsigned i = 0; i < frames; i++)
        taken[i] = alloc(0, OWNER_HOST);
    assert_alloc_fails(0, OWNER_HOST, E_NOMEM);
    for (unsigned i = 0; i < frames; i++)
        if (pfn_of(taken[i]) % 2)
            assert_int_equal(buddy_free(taken[i], 0, OWNER_HOST), E_OK);
    verify();
    assert_alloc_fails(1, OWNER_HOST, E_NOMEM); /* drains the caches */
    assert_int_equal(stats().free_blocks[0], frames / 2);
    for (unsigned i = 0; i < frames / 2; i++)
        assert_int_equal(pfn_of(alloc(0, OWNER_HOST)) % 2, 1);
    assert_alloc_fails(0, OWNER_HOST, E_NOMEM);
    verify();
    for (unsigned i = 0; i < frames; i++)
        assert_int_equal(buddy_free(hpa(i * PAGE_SIZE), 0, OWNER_HOST), E_OK);
    buddy_drain();
    assert_int_equal(stats().free_blocks[12], 1);
    verify();
}

/* As long as there are blocks of the size asked for, no larger one is split: not for a request, and
 * not to refill a cache. */
static void test_fragments_before_splits(void **state)
{
    (void)state;
    for (unsigned order = 0; order <= BUDDY_MAX_ORDER - 7; order++) {
        const uint64_t large = 48 * MiB, size = PAGE_SIZE << order;
        static hpa_t block[8192];
        unsigned blocks = 0;

        start(64 * MiB);
        assert_int_equal(buddy_add(hpa(16 * MiB), 16 * MiB), E_OK);
        assert_int_equal(buddy_add(hpa(large), 16 * MiB), E_OK);
        assert_int_equal(buddy_alloc_at(hpa(large), 12, PURPOSE_TEST, OWNER_HOST), E_OK);
        for (uint64_t at = 16 * MiB; at < 32 * MiB; at += size)
            assert_int_equal(buddy_alloc_at(hpa(at), order, PURPOSE_TEST, OWNER_HOST), E_OK);
        for (uint64_t at = 16 * MiB; at < 32 * MiB; at += 2 * size, blocks++)
            assert_int_equal(buddy_free(hpa(at), order, OWNER_HOST), E_OK);
        assert_int_equal(buddy_free(hpa(large), 12, OWNER_HOST), E_OK);
        buddy_drain();
        struct buddy_stats before = stats();
        assert_int_equal(before.free_blocks[order], blocks);
        assert_int_equal(before.free_blocks[12], 1);

        for (unsigned i = 0; i < blocks; i++) {
            block[i] = alloc(order, OWNER_HOST);
            assert_true(block[i].v < 32 * MiB);
        }
        assert_int_equal(stats().splits, before.splits);
        assert_int_equal(stats().free_blocks[12], 1);
        assert_true(alloc(order, OWNER_HOST).v >= large);
        assert_int_equal(stats().free_blocks[12], 0);
        verify();
        /* And given back they are taken again before the rest of what was split. */
        for (unsigned i = 0; i < blocks; i++)
            assert_int_equal(buddy_free(block[i], order, OWNER_HOST), E_OK);
        buddy_drain();
        before = stats();
        for (unsigned i = 0; i < blocks; i++)
            (void)alloc(order, OWNER_HOST);
        assert_int_equal(stats().splits, before.splits);
        verify();
    }
}

/* Low memory is what ordinary requests take last. */
static void test_low_memory_is_kept(void **state)
{
    (void)state;
    start_with(64 * MiB);
    for (unsigned i = 0; i < 8000; i++)
        assert_true(alloc(0, OWNER_HOST).v >= MiB);
    hpa_t out;
    assert_int_equal(buddy_alloc_within(8, 0, MiB - 1, PURPOSE_TEST, OWNER_HOST, &out), E_OK);
    assert_int_equal(out.v, 0);
}

/* Also where it is in fragments, which are what is taken first elsewhere; but before a failure. */
static void test_low_fragments_are_kept(void **state)
{
    (void)state;
    for (unsigned order = 0; order <= 7; order++) {
        start(16 * MiB);
        assert_int_equal(buddy_add(hpa(0x1000), 0x9e000), E_OK);
        assert_int_equal(buddy_add(hpa(MiB), 15 * MiB), E_OK);
        unsigned blocks = 15 * MiB / (PAGE_SIZE << order);
        for (unsigned i = 0; i < blocks; i++)
            assert_true(alloc(order, OWNER_HOST).v >= MiB);
        if (order < 7)
            assert_true(alloc(order, OWNER_HOST).v < MiB);
        else
            assert_alloc_fails(order, OWNER_HOST, E_NOMEM);
        verify();
    }
}

static void test_within(void **state)
{
    (void)state;
    hpa_t out;
    start(5 * GiB);
    assert_int_equal(buddy_add(hpa(0x1000), 0x9e000), E_OK);
    assert_int_equal(buddy_add(hpa(4 * GiB - 8 * MiB), 16 * MiB), E_OK);

    assert_int_equal(buddy_alloc_within(0, 0, 4 * GiB - 1, PURPOSE_TEST, OWNER_HOST, &out), E_OK);
    assert_int_equal(out.v, 4 * GiB - PAGE_SIZE);
    assert_int_equal(buddy_alloc_within(11, 0, 4 * GiB - 1, PURPOSE_TEST, OWNER_HOST, &out),
                     E_NOMEM); /* one frame of it has gone */
    assert_int_equal(buddy_alloc_within(11, 0, UINT64_MAX, PURPOSE_TEST, OWNER_HOST, &out), E_OK);
    assert_int_equal(out.v, 4 * GiB);
    assert_int_equal(buddy_alloc_within(0, 0, MiB - 1, PURPOSE_TEST, OWNER_HOST, &out), E_OK);
    assert_int_equal(out.v, 0x9e000);

    /* The bounds are of bytes of the block: one too few at either end excludes it. */
    assert_int_equal(buddy_alloc_within(0, 0x5000, 0x5fff, PURPOSE_TEST, OWNER_HOST, &out), E_OK);
    assert_int_equal(out.v, 0x5000);
    assert_int_equal(buddy_alloc_within(0, 0x6001, 0x6fff, PURPOSE_TEST, OWNER_HOST, &out),
                     E_NOMEM);
    assert_int_equal(buddy_alloc_within(0, 0x6000, 0x6ffe, PURPOSE_TEST, OWNER_HOST, &out),
                     E_NOMEM);
    assert_int_equal(buddy_alloc_within(0, 0x6001, 0x7fff, PURPOSE_TEST, OWNER_HOST, &out), E_OK);
    assert_int_equal(out.v, 0x7000);
    assert_int_equal(buddy_alloc_within(0, 0, 0xfff, PURPOSE_TEST, OWNER_HOST, &out), E_NOMEM);
    assert_int_equal(buddy_alloc_within(0, 5 * GiB, UINT64_MAX, PURPOSE_TEST, OWNER_HOST, &out),
                     E_NOMEM);
    assert_int_equal(buddy_alloc_within(0, UINT64_MAX, UINT64_MAX, PURPOSE_TEST, OWNER_HOST, &out),
                     E_NOMEM);
    verify();
}

static void test_at(void **state)
{
    (void)state;
    start_with(16 * MiB);
    assert_int_equal(buddy_alloc_at(hpa(0x3000), 1, PURPOSE_TEST, OWNER_HOST), E_ALIGN);
    assert_int_equal(buddy_alloc_at(hpa(0x3001), 0, PURPOSE_TEST, OWNER_HOST), E_ALIGN);
    assert_int_equal(buddy_alloc_at(hpa(16 * MiB), 0, PURPOSE_TEST, OWNER_HOST), E_RANGE);
    assert_int_equal(buddy_alloc_at(hpa(0), 13, PURPOSE_TEST, OWNER_HOST), E_RANGE);
    assert_int_equal(buddy_alloc_at(hpa(0x3000), 0, PURPOSE_TEST, OWNER_HOST), E_OK);
    assert_int_equal(buddy_alloc_at(hpa(0x3000), 0, PURPOSE_TEST, OWNER_HOST), E_EXIST);
    assert_int_equal(buddy_alloc_at(hpa(0), 2, PURPOSE_TEST, OWNER_HOST), E_EXIST);
    assert_int_equal(buddy_alloc_at(hpa(0), 1, PURPOSE_TEST, OWNER_HOST), E_OK);
    verify();
    /* A cached frame is free, so it can be had. */
    hpa_t frame = alloc(0, OWNER_HOST);
    assert_int_equal(buddy_free(frame, 0, OWNER_HOST), E_OK);
    assert_true(stats().cached_frames > 0);
    assert_int_equal(buddy_alloc_at(frame, 0, PURPOSE_TEST, OWNER_HOST), E_OK);
    verify();
}

static void test_frames(void **state)
{
    (void)state;
    start_with(64 * MiB);
    for (uint64_t count = 1; count <= 700; count += count < 70 ? 1 : 97) {
        hpa_t out;
        assert_int_equal(buddy_alloc_frames(count, PURPOSE_STACK, 17, &out), E_OK);
        assert_int_equal(stats().by_purpose[PURPOSE_STACK], count);
        assert_int_equal(buddy_owner_frames(17), count);
        verify();
        for (uint64_t i = 0; i < count; i++)
            assert_int_equal(buddy_free(hpa_add(out, i * PAGE_SIZE), 0, 17), E_OK);
    }
    hpa_t out;
    assert_int_equal(buddy_alloc_frames(64 * MiB / PAGE_SIZE, PURPOSE_TEST, 1, &out), E_OK);
    assert_int_equal(buddy_alloc_frames(1, PURPOSE_TEST, 1, &out), E_NOMEM);
    verify();
}

/* ---- Misuse ---- */

static void assert_refused(int error, int expected)
{
    struct buddy_stats now = stats();
    assert_int_equal(error, expected);
    assert_int_equal(now.refused_double, expected == E_DOUBLE_FREE);
    assert_int_equal(now.refused_order, expected == E_ORDER);
    assert_int_equal(now.refused_owner, expected == E_PERM);
    assert_int_equal(now.refused_range, expected == E_RANGE || expected == E_ALIGN);
    assert_int_equal(now.refused_shared, expected == E_SHARED);
    assert_int_equal(now.refused_state, expected == E_STATE);
    verify();
}

/* What `misuse` does to a block of order 3 of owner 16 (in a machine of 16 MiB with a hole above
 * it, and reserved frames below 64 KiB) must answer `error`, once through the cache and once
 * without one. */
struct misuse {
    const char *what;
    int error;
    int64_t offset; /* in frames, of the address that is freed */
    unsigned order;
    owner_t owner;
    bool twice, share, dying;
    uint64_t instead; /* address, when not 0 */
    uint64_t bytes;   /* added to the address */
};

static void test_misuse(void **state)
{
    (void)state;
    static const struct misuse misuses[] = {
        {"double free", E_DOUBLE_FREE, 0, 3, .owner = 16, .twice = true},
        {"free twice, the second time at another order", E_DOUBLE_FREE, 0, 0, .owner = 16,
         .twice = true},
        {"free of a tail of a free block", E_DOUBLE_FREE, 5, 0, .owner = 16, .twice = true},
        {"smaller order", E_ORDER, 0, 2, .owner = 16},
        {"larger order", E_ORDER, 0, 4, .owner = 16},
        {"an order that does not exist", E_ORDER, 0, 77, .owner = 16},
        {"first tail", E_ORDER, 1, 0, .owner = 16},
        {"last tail", E_ORDER, 7, 0, .owner = 16},
        {"tail at the block's order", E_ORDER, 4, 3, .owner = 16},
        {"foreign owner", E_PERM, 0, 3, .owner = 17},
        {"owner who would share the lease slot", E_PERM, 0, 3, .owner = 24},
        {"no owner", E_PERM, 0, 3, .owner = OWNER_NONE},
        {"owner out of range", E_PERM, 0, 3, .owner = UINT16_MAX},
        {"shared", E_SHARED, 0, 3, .owner = 16, .share = true},
        {"dying", E_STATE, 0, 3, .owner = 16, .dying = true},
        {"reserved", E_STATE, 0, 0, .owner = OWNER_HOST, .instead = 0x4000},
        {"reserved block at its order", E_STATE, 0, 4, .owner = OWNER_HOST,
         .instead = 0x10000 - 0xf000},
        {"beyond memory", E_RANGE, 0, 3, .owner = 16, .instead = 32 * MiB},
        {"far beyond memory", E_RANGE, 0, 3, .owner = 16, .instead = UINT64_C(1) << 63},
        {"a hole", E_RANGE, 0, 3, .owner = 16, .instead = 16 * MiB},
        {"inside a reserved frame", E_ALIGN, 0, 3, .owner = 16, .instead = 0x4008},
        {"inside the first frame", E_ALIGN, 0, 3, .owner = 16, .bytes = 1},
    };
    for (unsigned i = 0; i < 2 * ARRAY_SIZE(misuses); i++) {
        const struct misuse *misuse = &misuses[i / 2];
        start(20 * MiB);
        assert_int_equal(buddy_record(hpa(0x1000), 0xf000, FRAME_RESERVED, PURPOSE_FIRMWARE, 1),
                         E_OK);
        assert_int_equal(buddy_add(hpa(0x10000), 16 * MiB - 0x10000), E_OK);
        hpa_t block = alloc(3, 16);
        if (misuse->twice)
            assert_int_equal(buddy_free(block, 3, 16), E_OK);
        if (i % 2)
            buddy_drain();
        if (misuse->share)
            assert_int_equal(buddy_share(block, 16), E_OK);
        if (misuse->dying)
            frame_set_state(block, FRAME_DYING);
        hpa_t at = misuse->instead ? hpa(misuse->instead)
                                   : hpa_add(block, (uint64_t)misuse->offset * PAGE_SIZE);
        at = hpa_add(at, misuse->bytes);
        struct buddy_stats before = stats();
        assert_refused(buddy_free(at, misuse->order, misuse->owner), misuse->error);
        struct buddy_stats after = stats();
        assert_int_equal(after.free_frames, before.free_frames);
        assert_int_equal(after.frees, before.frees);
        assert_int_equal(buddy_owner_frames(16), misuse->twice ? 0 : 8);
    }
}

/* Addresses inside a frame, whatever else they say; also before the CPU holds any frames. */
static void test_unaligned(void **state)
{
    (void)state;
    static const uint64_t wild[] = {1,
                                    PAGE_SIZE - 1,
                                    4 * MiB + 8,
                                    UINT64_MAX,
                                    UINT64_MAX - PAGE_SIZE,
                                    UINT64_MAX - 17 * PAGE_SIZE,
                                    UINT64_MAX - 1,
                                    (UINT64_C(1) << 52) - 1};
    for (unsigned held = 0; held < 2; held++) {
        start_with(8 * MiB);
        if (held)
            alloc(0, 16);
        for (unsigned i = 0; i < ARRAY_SIZE(wild); i++)
            for (unsigned order = 0; order < 3; order++) {
                struct buddy_stats before, after;
                buddy_stats(&before);
                assert_int_equal(buddy_free(hpa(wild[i]), order, 16), E_ALIGN);
                assert_int_equal(buddy_release(hpa(wild[i]), order, 16, NULL), E_ALIGN);
                hpa_t one = hpa(wild[i]);
                assert_int_equal(buddy_free_frames(&one, 1, 16), E_ALIGN);
                buddy_stats(&after);
                assert_int_equal(after.refused_range, before.refused_range + 3);
            }
        verify();
    }
}

/* Lists of frames of two purposes, in runs and shuffled, with every kind of frame in between that
 * has to be refused: what can be freed is, and nothing else changes. */
static void test_free_frames(void **state)
{
    (void)state;
    enum { COUNT = 900 };
    static hpa_t list[COUNT + 6];
    struct random random = {7};

    for (unsigned round = 0; round < 6; round++) {
        start_with(16 * MiB);
        hpa_t foreign = alloc(0, 21), larger = alloc(3, 20), shared = alloc(0, 20);
        assert_int_equal(buddy_share(shared, 20), E_OK);
        for (unsigned i = 0; i < COUNT; i++) {
            enum frame_purpose purpose = i / 100 % 2 ? PURPOSE_EPT_TABLE : PURPOSE_TEST;
            assert_int_equal(buddy_alloc(0, purpose, 20, &list[i]), E_OK);
            frame_set_payload(list[i], i % 3);
        }
        unsigned n = COUNT;
        if (round % 2 == 1) {
            const hpa_t bad[] = {foreign, larger,       shared, hpa(list[5].v + 8),
                                 list[9], hpa(32 * MiB)};
            for (unsigned i = 0; i < ARRAY_SIZE(bad); i++)
                list[n++] = bad[i];
        }
        for (unsigned i = n - 1; round >= 2 && i > 0; i--) {
            unsigned j = (unsigned)random_below(&random, i + 1);
            hpa_t frame = list[i];
            list[i] = list[j];
            list[j] = frame;
        }
        uint64_t frees = stats().frees;
        int error = buddy_free_frames(list, n, 20);
        if (n == COUNT)
            assert_int_equal(error, E_OK);
        else if (round < 2)
            assert_int_equal(error, E_PERM);
        else
            assert_true(error != E_OK);
        verify();
        assert_int_equal(stats().frees, frees + COUNT);
        assert_int_equal(buddy_owner_frames(20), 9);
        assert_int_equal(stats().by_purpose[PURPOSE_TEST], 10);
        assert_int_equal(stats().by_purpose[PURPOSE_EPT_TABLE], 0);
        if (n > COUNT) {
            struct buddy_stats now = stats();
            assert_int_equal(now.refused_owner, 1);
            assert_int_equal(now.refused_order, 1);
            assert_int_equal(now.refused_shared, 1);
            assert_int_equal(now.refused_double, 1);
            assert_int_equal(now.refused_range, 2);
        }
        assert_int_equal(buddy_free_frames(list, 0, 20), E_OK);
        assert_int_equal(buddy_free(larger, 3, 20), E_OK);
        assert_int_equal(buddy_free(foreign, 0, 21), E_OK);
        assert_int_equal(buddy_release(shared, 0, 20, NULL), E_OK);
        assert_int_equal(buddy_release(shared, 0, 20, NULL), E_OK);
        buddy_drain();
        verify();
        assert_int_equal(stats().free_blocks[12], 1);
    }
}

/* Between neighbours that are freed, an address within a frame that is in use. */
static void test_free_frames_aligned(void **state)
{
    (void)state;
    for (unsigned odd = 0; odd < 3; odd++) {
        hpa_t list[3];
        start_with(16 * MiB);
        assert_int_equal(buddy_alloc_many(list, 3, PURPOSE_TEST, 20), E_OK);
        hpa_t kept = list[odd];
        list[odd].v += 8;
        assert_int_equal(buddy_free_frames(list, 3, 20), buddy_free(list[odd], 0, 20));
        assert_int_equal(stats().refused_range, 2);
        assert_int_equal(buddy_owner_frames(20), 1);
        assert_int_equal(buddy_free(kept, 0, 20), E_OK);
        verify();
    }
}

static int compare_frames(const void *a, const void *b)
{
    uint64_t x = ((const hpa_t *)a)->v, y = ((const hpa_t *)b)->v;
    return (x > y) - (x < y);
}

static void assert_distinct(hpa_t *list, unsigned n, owner_t owner)
{
    for (unsigned i = 0; i < n; i++) {
        hpa_t first;
        uint64_t record;
        assert_true(is_aligned(list[i].v, PAGE_SIZE));
        assert_true(buddy_block(list[i], &first, &record) && first.v == list[i].v);
        assert_int_equal(record, frame_record(FRAME_USED, 0, PURPOSE_TEST, owner));
    }
    qsort(list, n, sizeof(*list), compare_frames);
    for (unsigned i = 1; i < n; i++)
        assert_true(list[i - 1].v < list[i].v);
}

/* Lists of every length around the sizes at which something else serves them, after the CPU has
 * kept this many of its own; in memory that is whole, and in memory of which every other frame is
 * in use. */
static void test_alloc_many(void **state)
{
    static const unsigned lengths[] = {0, 1, 2, 63, 64, 65, 127, 128, 200, 511, 512, 513, 1500};
    static hpa_t list[1500], odd[2048];
    (void)state;
    for (unsigned fragmented = 0; fragmented < 2; fragmented++)
        for (unsigned kept = 0; kept < 200; kept += 67)
            for (unsigned l = 0; l < ARRAY_SIZE(lengths); l++) {
                unsigned n = lengths[l];
                start_with(16 * MiB);
                for (unsigned i = 0; fragmented && i < 2048; i++) {
                    odd[i] = hpa_of_pfn(2 * i);
                    assert_int_equal(buddy_alloc_at(odd[i], 0, PURPOSE_TEST, 21), E_OK);
                }
                hpa_t own[200];
                for (unsigned i = 0; i < kept; i++)
                    own[i] = alloc(0, 20);
                for (unsigned i = 0; i < kept; i++)
                    assert_int_equal(buddy_free(own[i], 0, 20), E_OK);
                struct buddy_stats before = stats();
                assert_int_equal(buddy_alloc_many(list, n, PURPOSE_TEST, 20), E_OK);
                verify();
                assert_distinct(list, n, 20);
                assert_int_equal(stats().free_frames, before.free_frames - n);
                assert_int_equal(stats().allocations, before.allocations + n);
                assert_int_equal(buddy_owner_frames(20), n);
                /* Fragments serve before anything whole is split. */
                if (fragmented)
                    assert_int_equal(stats().splits, before.splits);
                assert_int_equal(buddy_free_frames(list, n, 20), E_OK);
                for (unsigned i = 0; fragmented && i < 2048; i++)
                    assert_int_equal(buddy_free(odd[i], 0, 21), E_OK);
                buddy_drain();
                verify();
                assert_int_equal(stats().free_blocks[12], 1);
            }
}

static void test_alloc_many_refuses(void **state)
{
    static hpa_t list[4096 + 1];
    (void)state;
    start_with(16 * MiB);
    assert_int_equal(buddy_alloc_many(list, 3, PURPOSE_FREE, 20), E_INVAL);
    assert_int_equal(buddy_alloc_many(list, 3, PURPOSE_COUNT, 20), E_INVAL);
    assert_int_equal(buddy_alloc_many(list, 3, PURPOSE_TEST, OWNER_NONE), E_INVAL);
    assert_int_equal(buddy_alloc_many(list, 3, PURPOSE_TEST, OWNER_LIMIT), E_INVAL);
    assert_int_equal(stats().failed, 0);

    /* One more than there are; all of them, with some in the stock of other orders and another CPU.
     */
    assert_int_equal(buddy_set_cpus(current_cpu, fence), E_OK);
    for (cpu = 0; cpu < 2; cpu++)
        for (unsigned order = 0; order < 8; order++)
            assert_int_equal(buddy_free(alloc(order, 20), order, 20), E_OK);
    cpu = 0;
    assert_true(stats().cached_frames > 0);
    assert_int_equal(buddy_alloc_many(list, 4097, PURPOSE_TEST, 20), E_NOMEM);
    assert_int_equal(stats().failed, 1);
    assert_int_equal(buddy_owner_frames(20), 0);
    verify();
    for (unsigned order = 0; order < 8; order++)
        assert_int_equal(buddy_free(alloc(order, 20), order, 20), E_OK);
    assert_int_equal(buddy_alloc_many(list, 4096, PURPOSE_TEST, 20), E_OK);
    verify();
    assert_distinct(list, 4096, 20);
    assert_int_equal(stats().free_frames, 0);
    assert_int_equal(buddy_alloc_many(list, 0, PURPOSE_TEST, 20), E_OK);
    assert_int_equal(buddy_free_frames(list, 4096, 20), E_OK);

    /* The quota, what is leased to CPUs not being lost to it, and the host's reserve. */
    assert_int_equal(buddy_set_quota(20, 100), E_OK);
    for (cpu = 0; cpu < 2; cpu++)
        assert_int_equal(buddy_free(alloc(0, 20), 0, 20), E_OK);
    assert_int_equal(buddy_alloc_many(list, 101, PURPOSE_TEST, 20), E_QUOTA);
    assert_int_equal(buddy_alloc_many(list, 100, PURPOSE_TEST, 20), E_OK);
    assert_alloc_fails(0, 20, E_QUOTA);
    verify();
    assert_int_equal(buddy_free_frames(list, 100, 20), E_OK);
    buddy_set_reserve(1000);
    assert_int_equal(buddy_alloc_many(list, 3097, PURPOSE_TEST, 21), E_QUOTA);
    assert_int_equal(buddy_alloc_many(list, 3096, PURPOSE_TEST, 21), E_OK);
    assert_int_equal(buddy_alloc_many(&list[3096], 1000, PURPOSE_TEST, OWNER_HOST), E_OK);
    verify();
    assert_int_equal(buddy_set_cpus(NULL, NULL), E_OK);
}

/* Of a group, some frames in use and the others held by another CPU: each is told for what it is, a
 * second free of a held one is a double free, and what is held serves nobody else until it is
 * drained. */
static void test_frames_held_by_others(void **state)
{
    (void)state;
    start_with(4 * MiB);
    assert_int_equal(buddy_set_cpus(current_cpu, fence), E_OK);
    cpu = 1;
    hpa_t used = alloc(0, 20), given = alloc(0, 20);
    assert_int_equal(buddy_free(given, 0, 20), E_OK);
    cpu = 0;
    unsigned cached = 0;
    for (uint64_t i = 0; i < 64; i++) {
        hpa_t frame = hpa(align_down(used.v, 64 * PAGE_SIZE) + i * PAGE_SIZE);
        struct frame_info info;
        assert_int_equal(frame_query(frame, &info, NULL), E_OK);
        assert_int_equal(info.state, frame.v == used.v ? FRAME_USED : FRAME_CACHED);
        assert_int_equal(buddy_is_free(frame), frame.v != used.v);
        cached += info.state == FRAME_CACHED;
    }
    assert_int_equal(stats().cached_frames, cached);
    assert_int_equal(buddy_free(given, 0, 20), E_DOUBLE_FREE);
    assert_int_equal(buddy_add(hpa(align_down(used.v, 64 * PAGE_SIZE)), PAGE_SIZE), E_EXIST);
    verify();
    assert_int_equal(buddy_alloc_at(given, 0, PURPOSE_TEST, 20), E_OK); /* drains for it */
    verify();
    assert_int_equal(buddy_free(given, 0, 20), E_OK);
    assert_int_equal(buddy_free(used, 0, 20), E_OK);
    buddy_drain();
    assert_int_equal(stats().free_blocks[10], 1);
    verify();
    assert_int_equal(buddy_set_cpus(NULL, NULL), E_OK);
}

/* Frames that were once heads of their own blocks are nothing but tails in a larger one. */
static void test_no_stale_heads(void **state)
{
    (void)state;
    start_with(4 * MiB);
    for (unsigned i = 0; i < 1024; i++)
        alloc(0, OWNER_HOST);
    for (unsigned i = 0; i < 1024; i++)
        assert_int_equal(buddy_free(hpa(i * PAGE_SIZE), 0, OWNER_HOST), E_OK);
    assert_int_equal(alloc(10, OWNER_HOST).v, 0);
    for (unsigned i = 1; i < 1024; i++)
        assert_int_equal(buddy_free(hpa(i * PAGE_SIZE), 0, OWNER_HOST), E_ORDER);
    assert_int_equal(stats().refused_order, 1023);
    assert_int_equal(buddy_free(hpa(0), 10, OWNER_HOST), E_OK);
    verify();
}

/* A record that changes while its block is in a cache is noticed before anybody gets the block. */
static void test_damaged_cache(void **state)
{
    (void)state;
    hpa_t out;
    start_with(4 * MiB);
    hpa_t frame = alloc(0, OWNER_HOST);
    assert_int_equal(buddy_free(frame, 0, OWNER_HOST), E_OK);
    frame_records[pfn_of(frame)] = frame_record(FRAME_USED, 0, PURPOSE_TEST, 16);
    assert_panics(buddy_alloc(0, PURPOSE_TEST, OWNER_HOST, &out), "broken invariant");
}

static void test_share(void **state)
{
    (void)state;
    bool last;
    start_with(4 * MiB);
    hpa_t block = alloc(2, 16);
    assert_int_equal(buddy_share(block, 17), E_PERM);
    assert_int_equal(buddy_share(hpa_add(block, PAGE_SIZE), 16), E_ORDER);
    assert_int_equal(buddy_share(block, 16), E_OK);
    struct frame_info info;
    assert_int_equal(frame_query(block, &info, NULL), E_OK);
    assert_int_equal(buddy_share(block, 16), E_OK);
    assert_int_equal(frame_payload(block), 3);
    assert_int_equal(buddy_owner_frames(16), 4);
    assert_int_equal(buddy_free(block, 2, 16), E_SHARED);
    assert_int_equal(buddy_release(block, 1, 16, &last), E_ORDER);
    assert_false(last);
    assert_int_equal(buddy_release(block, 2, 17, &last), E_PERM);
    assert_int_equal(buddy_release(block, 2, 16, &last), E_OK);
    assert_false(last);
    assert_int_equal(buddy_release(block, 2, 16, NULL), E_OK);
    assert_int_equal(frame_payload(block), 0);
    verify();
    assert_int_equal(buddy_release(block, 2, 16, &last), E_OK);
    assert_true(last);
    assert_int_equal(buddy_release(block, 2, 16, &last), E_DOUBLE_FREE);
    assert_false(last);
    assert_int_equal(buddy_share(block, 16), E_DOUBLE_FREE);
    assert_int_equal(buddy_owner_frames(16), 0);
    verify();
}

/* Blocks of all kinds that follow each other: larger, smaller, shared before, another's. */
static void test_share_run(void **state)
{
    (void)state;
    start_with(64 * MiB);
    hpa_t large = alloc(11, 18);
    assert_int_equal(buddy_divide(large, 11, 10, 18), E_OK);
    assert_int_equal(buddy_divide(large, 10, 2, 18), E_OK);
    assert_int_equal(buddy_share(large, 18), E_OK);
    assert_int_equal(buddy_transfer(hpa_add(large, 4 * PAGE_SIZE), 2, 18, OWNER_SHARED), E_OK);
    assert_int_equal(buddy_set_quota(17, 1 << 20), E_OK);
    assert_int_equal(buddy_share_run(large, 2048, 1, 17), E_INVAL);
    assert_int_equal(buddy_share_run(large, 2048, 1, OWNER_NONE), E_INVAL);
    assert_int_equal(buddy_share_run(hpa_add(large, 1), 1, 1, OWNER_SHARED), E_ALIGN);

    assert_int_equal(buddy_share_run(large, 2048, 1, OWNER_SHARED), E_OK);
    assert_int_equal(buddy_owner_frames(18), 0);
    assert_int_equal(buddy_owner_frames(OWNER_SHARED), 2048);
    for (uint64_t at = 0; at < 2048; at += 2) {
        struct frame_info info;
        hpa_t head;
        assert_int_equal(frame_query(hpa_add(large, (at + 1) * PAGE_SIZE), &info, &head), E_OK);
        assert_int_equal(head.v, large.v + at * PAGE_SIZE);
        assert_int_equal(info.order, 1);
        assert_int_equal(info.owner, OWNER_SHARED);
        assert_int_equal(info.payload, at < 4 ? 3 : 2);
    }
    verify();
    /* A part of them once more, by smaller ones; what is within a block that stays begins none. */
    assert_int_equal(buddy_share_run(hpa_add(large, 1025 * PAGE_SIZE), 2, 1, OWNER_SHARED),
                     E_ORDER);
    assert_int_equal(buddy_share_run(hpa_add(large, 1025 * PAGE_SIZE), 1, 0, OWNER_SHARED), E_OK);
    assert_int_equal(frame_payload(hpa_add(large, 1024 * PAGE_SIZE)), 2);
    assert_int_equal(frame_payload(hpa_add(large, 1025 * PAGE_SIZE)), 3);
    assert_int_equal(buddy_share_run(hpa_add(large, 2046 * PAGE_SIZE), 4, 1, OWNER_SHARED),
                     E_RANGE);
    assert_int_equal(frame_payload(hpa_add(large, 2046 * PAGE_SIZE)), 3);
    verify();
}

/* ---- Records of what was there before ---- */

static void test_record(void **state)
{
    (void)state;
    struct frame_info info;
    start(8 * GiB);
    assert_int_equal(buddy_record(hpa(0), 0, FRAME_USED, PURPOSE_BOOT, 1), E_INVAL);
    assert_int_equal(buddy_record(hpa(0), PAGE_SIZE, FRAME_FREE, PURPOSE_BOOT, 1), E_INVAL);
    assert_int_equal(buddy_record(hpa(0), PAGE_SIZE, FRAME_CACHED, PURPOSE_BOOT, 1), E_INVAL);
    assert_int_equal(buddy_record(hpa(0), PAGE_SIZE, FRAME_USED, PURPOSE_BOOT, OWNER_NONE),
                     E_INVAL);
    assert_int_equal(buddy_record(hpa(1), PAGE_SIZE, FRAME_USED, PURPOSE_BOOT, 1), E_ALIGN);
    assert_int_equal(buddy_record(hpa(8 * GiB), PAGE_SIZE, FRAME_USED, PURPOSE_BOOT, 1), E_RANGE);

    assert_int_equal(buddy_record(hpa(0x1000), 0x5000, FRAME_USED, PURPOSE_BOOT, 1), E_OK);
    assert_int_equal(buddy_record(hpa(0x5000), 0x5000, FRAME_USED, PURPOSE_BOOT, 1), E_EXIST);
    assert_int_equal(buddy_add(hpa(0x5000), 0x1000), E_EXIST);
    assert_int_equal(stats().by_purpose[PURPOSE_BOOT], 5);
    assert_int_equal(buddy_owner_frames(1), 5);
    for (uint64_t at = 0x1000; at < 0x6000; at += PAGE_SIZE) {
        frame_set_payload(hpa(at), at); /* each has a record of its own */
        assert_int_equal(buddy_free(hpa(at), 1, 1), E_ORDER);
        assert_int_equal(buddy_free(hpa(at), 0, 2), E_PERM);
        assert_int_equal(buddy_free(hpa(at), 0, 1), E_OK);
    }
    assert_int_equal(stats().total_frames, 5);
    assert_int_equal(stats().free_frames, 5);

    /* A reserved range of gigabytes: every frame answers, few records are written. */
    assert_int_equal(buddy_record(hpa(GiB - MiB), 5 * GiB, FRAME_RESERVED, PURPOSE_FIRMWARE, 0),
                     E_OK);
    for (uint64_t at = GiB - MiB; at < 6 * GiB - MiB; at += 7 * MiB + PAGE_SIZE) {
        assert_int_equal(frame_query(hpa(at), &info, NULL), E_OK);
        assert_int_equal(info.state, FRAME_RESERVED);
        assert_int_equal(info.purpose, PURPOSE_FIRMWARE);
    }
    assert_int_equal(frame_query(hpa(GiB - MiB - 1), &info, NULL), E_RANGE);
    assert_int_equal(frame_query(hpa(6 * GiB - MiB), &info, NULL), E_RANGE);
    assert_int_equal(buddy_record(hpa(4 * GiB), PAGE_SIZE, FRAME_USED, PURPOSE_BOOT, 1), E_EXIST);
    assert_int_equal(buddy_add(hpa(6 * GiB - MiB - PAGE_SIZE), PAGE_SIZE), E_EXIST);
    assert_int_equal(stats().reserved_frames, 5 * GiB / PAGE_SIZE);
    verify();
}

/* ---- Quotas and the reserve ---- */

static void test_quota(void **state)
{
    (void)state;
    start_with(64 * MiB);
    assert_int_equal(buddy_quota(16), UINT64_MAX);
    assert_int_equal(buddy_set_quota(16, 100), E_OK);
    assert_int_equal(buddy_quota(16), 100);
    hpa_t held[100];
    for (unsigned i = 0; i < 100; i++)
        held[i] = alloc(0, 16);
    assert_alloc_fails(0, 16, E_QUOTA);
    assert_alloc_fails(3, 16, E_QUOTA);
    alloc(0, 17); /* others are not concerned */
    assert_int_equal(buddy_owner_frames(16), 100);
    for (unsigned i = 0; i < 8; i++)
        assert_int_equal(buddy_free(held[i], 0, 16), E_OK);
    assert_alloc_fails(4, 16, E_QUOTA);
    hpa_t eight = alloc(3, 16);
    assert_alloc_fails(0, 16, E_QUOTA);
    verify();

    /* A quota below what is held: nothing more until enough has come back. */
    assert_int_equal(buddy_set_quota(16, 90), E_OK);
    assert_int_equal(buddy_free(eight, 3, 16), E_OK);
    assert_alloc_fails(0, 16, E_QUOTA); /* 92 held */
    assert_int_equal(buddy_free(held[8], 0, 16), E_OK);
    assert_int_equal(buddy_free(held[9], 0, 16), E_OK);
    assert_alloc_fails(0, 16, E_QUOTA); /* 90 */
    assert_int_equal(buddy_free(held[10], 0, 16), E_OK);
    alloc(0, 16);
    assert_alloc_fails(0, 16, E_QUOTA);
    verify();
    assert_int_equal(buddy_set_quota(16, UINT64_MAX), E_OK);
    alloc(10, 16);
    verify();
}

/* What is recorded is charged without a question, but not forgotten by the next one. */
static void test_quota_counts_recorded(void **state)
{
    (void)state;
    start(16 * MiB);
    assert_int_equal(buddy_add(hpa(MiB), 15 * MiB), E_OK);
    assert_int_equal(buddy_set_quota(16, 10), E_OK);
    hpa_t first = alloc(0, 16), second = alloc(0, 16);
    assert_int_equal(buddy_record(hpa(0), 9 * PAGE_SIZE, FRAME_USED, PURPOSE_TEST, 16), E_OK);
    assert_int_equal(buddy_owner_frames(16), 11);
    verify();
    assert_int_equal(buddy_free(first, 0, 16), E_OK);
    assert_alloc_fails(0, 16, E_QUOTA);
    assert_int_equal(buddy_free(second, 0, 16), E_OK);
    alloc(0, 16);
    assert_alloc_fails(0, 16, E_QUOTA);
    verify();
}

static void test_reserve(void **state)
{
    (void)state;
    const uint64_t frames = 1024, reserve = 100;
    start_with(frames * PAGE_SIZE);
    buddy_set_reserve(reserve);
    uint64_t got = 0;
    hpa_t out;
    while (buddy_alloc(0, PURPOSE_TEST, 16, &out) == E_OK)
        got++;
    assert_int_equal(got, frames - reserve);
    assert_alloc_fails(0, 17, E_QUOTA);
    assert_alloc_fails(0, OWNER_FIRST_USER, E_QUOTA);
    for (uint64_t i = 0; i < reserve; i++)
        alloc(0, OWNER_HOST);
    assert_alloc_fails(0, OWNER_HOST, E_NOMEM);
    assert_alloc_fails(0, 16, E_NOMEM);
    verify();
}

/* ---- Several CPUs ---- */

/* What lies in one CPU's cache is not lost to another's request, of whatever size. */
static void test_caches_of_others(void **state)
{
    (void)state;
    assert_int_equal(buddy_set_cpus(current_cpu, fence), E_OK);
    start_with(4 * MiB);
    fences = 0;
    for (unsigned i = 0; i < 1024; i++)
        alloc(0, 16);
    for (unsigned i = 0; i < 1024; i++) {
        cpu = i % 4;
        assert_int_equal(buddy_free(hpa(i * PAGE_SIZE), 0, 16), E_OK);
    }
    verify();
    assert_int_equal(stats().free_frames, 1024);
    assert_true(stats().cached_frames > 4);
    fences = 0;
    cpu = 5;
    assert_int_equal(alloc(10, 16).v, 0);
    assert_int_equal(fences, 1);
    assert_int_equal(buddy_free(hpa(0), 10, 16), E_OK);

    /* Frame by frame, each CPU in turn: none fails before all are gone. */
    for (unsigned i = 0; i < 1024; i++) {
        cpu = i % 7;
        alloc(0, 16);
    }
    assert_alloc_fails(0, 16, E_NOMEM);
    assert_int_equal(buddy_owner_frames(16), 1024);
    verify();
    assert_int_equal(buddy_set_cpus(NULL, NULL), E_OK);
}

static void test_cpu_out_of_range(void **state)
{
    (void)state;
    hpa_t out;
    assert_int_equal(buddy_set_cpus(current_cpu, fence), E_OK);
    start_with(MiB);
    cpu = BUDDY_CPUS - 1;
    hpa_t frame = alloc(0, OWNER_HOST);
    cpu = BUDDY_CPUS;
    assert_panics(buddy_alloc(0, PURPOSE_TEST, OWNER_HOST, &out), "BUDDY_CPUS");
    assert_panics(buddy_free(frame, 0, OWNER_HOST), "BUDDY_CPUS");
    assert_int_equal(buddy_set_cpus(NULL, NULL), E_OK);
}

/* A quota is one number, however many CPUs an owner's frames come and go on. */
static void test_quota_on_many_cpus(void **state)
{
    (void)state;
    hpa_t out;
    assert_int_equal(buddy_set_cpus(current_cpu, fence), E_OK);
    start_with(64 * MiB);
    assert_int_equal(buddy_set_quota(16, 500), E_OK);
    for (unsigned i = 0; i < 500; i++) {
        cpu = i % 5;
        alloc(0, 16);
    }
    for (cpu = 0; cpu < 7; cpu++)
        assert_int_equal(buddy_alloc(0, PURPOSE_TEST, 16, &out), E_QUOTA);
    cpu = 0;
    assert_int_equal(buddy_owner_frames(16), 500);
    verify();
    assert_int_equal(buddy_set_cpus(NULL, NULL), E_OK);
}

/* ---- Looking ---- */

struct runs {
    unsigned count, stop_at;
    struct {
        uint64_t base, size;
        struct frame_info info;
    } run[32];
};

static int collect(void *ctx, hpa_t base, uint64_t size, const struct frame_info *info)
{
    struct runs *runs = ctx;
    runs->run[runs->count].base = base.v;
    runs->run[runs->count].size = size;
    runs->run[runs->count].info = *info;
    return ++runs->count == runs->stop_at ? 42 : 0;
}

static void test_visit(void **state)
{
    (void)state;
    struct runs runs = {0};
    start(4 * GiB);
    assert_int_equal(buddy_visit(collect, &runs), 0);
    assert_int_equal(runs.count, 0);

    assert_int_equal(buddy_record(hpa(0), 0x10000, FRAME_RESERVED, PURPOSE_FIRMWARE, 1), E_OK);
    assert_int_equal(buddy_add(hpa(0x10000), 0x90000), E_OK);
    assert_int_equal(buddy_record(hpa(MiB), 3 * MiB, FRAME_USED, PURPOSE_IMAGE, 1), E_OK);
    assert_int_equal(buddy_add(hpa(4 * MiB), 3 * GiB), E_OK);
    assert_int_equal(buddy_alloc_at(hpa(8 * MiB), 9, PURPOSE_GUEST_RAM, 16), E_OK);
    assert_int_equal(buddy_alloc_at(hpa(10 * MiB), 0, PURPOSE_GUEST_RAM, 16), E_OK);
    assert_int_equal(buddy_alloc_at(hpa(10 * MiB + 0x1000), 0, PURPOSE_GUEST_RAM, 17), E_OK);
    assert_int_equal(buddy_visit(collect, &runs), 0);

    static const struct {
        uint64_t base, end;
        enum frame_state state;
        enum frame_purpose purpose;
        owner_t owner;
    } want[] = {
        {0, 0x10000, FRAME_RESERVED, PURPOSE_FIRMWARE, 1},
        {0x10000, 0xa0000, FRAME_FREE, PURPOSE_FREE, 0},
        {MiB, 4 * MiB, FRAME_USED, PURPOSE_IMAGE, 1},
        {4 * MiB, 8 * MiB, FRAME_FREE, PURPOSE_FREE, 0},
        {8 * MiB, 10 * MiB + 0x1000, FRAME_USED, PURPOSE_GUEST_RAM, 16},
        {10 * MiB + 0x1000, 10 * MiB + 0x2000, FRAME_USED, PURPOSE_GUEST_RAM, 17},
        {10 * MiB + 0x2000, 4 * MiB + 3 * GiB, FRAME_FREE, PURPOSE_FREE, 0},
    };
    assert_int_equal(runs.count, ARRAY_SIZE(want));
    for (unsigned i = 0; i < ARRAY_SIZE(want); i++) {
        assert_int_equal(runs.run[i].base, want[i].base);
        assert_int_equal(runs.run[i].size, want[i].end - want[i].base);
        assert_int_equal(runs.run[i].info.state, want[i].state);
        assert_int_equal(runs.run[i].info.purpose, want[i].purpose);
        assert_int_equal(runs.run[i].info.owner, want[i].owner);
    }
    runs = (struct runs){.stop_at = 3};
    assert_int_equal(buddy_visit(collect, &runs), 42);
    assert_int_equal(runs.count, 3);
}

/* ---- Being stopped, and what changes meanwhile ---- */

struct poll {
    unsigned calls, stop_at;
    bool allocates;
};

static int count_polls(void *ctx)
{
    struct poll *poll = ctx;
    hpa_t block;
    if (poll->allocates) {
        assert_int_equal(buddy_alloc(0, PURPOSE_TEST, 16, &block), E_OK);
        assert_int_equal(buddy_free(block, 0, 16), E_OK);
        assert_int_equal(buddy_alloc(12, PURPOSE_TEST, 16, &block), E_OK);
        assert_int_equal(buddy_free(block, 12, 16), E_OK);
    }
    return ++poll->calls == poll->stop_at ? 42 : 0;
}

/* One run of many blocks: the lock is left in between, and that is where the visit ends. */
static void test_visit_stops(void **state)
{
    (void)state;
    struct runs runs = {0};
    struct poll poll = {0};
    start(256 * MiB);
    assert_int_equal(buddy_record(hpa(0), 256 * MiB, FRAME_USED, PURPOSE_TEST, 16), E_OK);
    assert_int_equal(buddy_visit_until(collect, &runs, count_polls, &poll), 0);
    assert_int_equal(runs.count, 1);
    assert_int_equal(runs.run[0].size, 256 * MiB);
    assert_true(poll.calls >= 256 * MiB / PAGE_SIZE / 512);
    runs.count = 0;
    poll = (struct poll){.stop_at = 3};
    assert_int_equal(buddy_visit_until(collect, &runs, count_polls, &poll), 42);
    assert_int_equal(poll.calls, 3);
    assert_int_equal(runs.count, 0);
}

/* A hole of which no record is ready costs one step, however large; so does one at the end. */
static void test_visit_skips_holes(void **state)
{
    (void)state;
    struct runs runs = {0};
    struct poll poll = {0};
    start(16 * GiB);
    assert_int_equal(buddy_add(hpa(MiB), MiB), E_OK);
    assert_int_equal(buddy_record(hpa(12 * GiB), MiB, FRAME_USED, PURPOSE_TEST, 16), E_OK);
    assert_int_equal(buddy_visit_until(collect, &runs, count_polls, &poll), 0);
    assert_int_equal(runs.count, 2);
    assert_int_equal(runs.run[1].base, 12 * GiB);
    assert_int_equal(runs.run[1].size, MiB);
    assert_true(poll.calls < 8);
}

static void test_verify_stops(void **state)
{
    (void)state;
    char why[160];
    struct poll poll = {0};
    start_with(64 * MiB);
    for (unsigned i = 0; i < 8192; i++)
        alloc(0, 16);
    assert_int_equal(buddy_verify_until(count_polls, &poll, why, sizeof(why)), E_OK);
    assert_string_equal(why, "");
    unsigned all = poll.calls;
    assert_true(all >= 8192 / 512);
    for (unsigned stop = 1; stop <= all; stop++) {
        poll = (struct poll){.stop_at = stop};
        assert_int_equal(buddy_verify_until(count_polls, &poll, why, sizeof(why)), 42);
        assert_int_equal(poll.calls, stop);
    }
    verify();
}

/* Who takes and gives back between two parts is no fault; and a fault is one all the same. */
static void test_verify_while_memory_changes(void **state)
{
    (void)state;
    char why[160];
    struct poll poll = {.allocates = true};
    start_with(64 * MiB);
    hpa_t block = alloc(4, 16);
    assert_int_equal(buddy_verify_until(count_polls, &poll, why, sizeof(why)), E_OK);
    assert_non_null(strstr(why, "no total was judged"));
    frame_records[pfn_of(block)] = frame_record(FRAME_USED, 9, PURPOSE_TEST, 16);
    assert_int_equal(buddy_verify_until(count_polls, &poll, why, sizeof(why)), E_STATE);
    assert_non_null(strstr(why, "cannot have order 9"));
    frame_records[pfn_of(block)] = frame_record(FRAME_USED, 4, PURPOSE_TEST, 16);
    verify();
}

/* ---- Verifying: each sort of damage is found and named ---- */

static void assert_broken(const char *fragment)
{
    char why[160] = "";
    assert_int_equal(buddy_verify(why, sizeof(why)), E_STATE);
    if (strstr(why, fragment) == NULL)
        fail_msg("expected \"%s\", got \"%s\"", fragment, why);
}

static void test_verify_finds_damage(void **state)
{
    (void)state;
    start_with(8 * MiB);
    hpa_t block = alloc(4, 16);
    uint64_t *record = &frame_records[pfn_of(block)];
    const uint64_t good = *record;

    *record = frame_record(FRAME_USED, 4, PURPOSE_STACK, 16);
    assert_broken("stacks");
    *record = frame_record(FRAME_USED, 4, PURPOSE_TEST, 17);
    assert_broken("owner 16");
    *record = frame_record(FRAME_USED, 3, PURPOSE_TEST, 16);
    assert_broken("test: 8 frames, counted as 16");
    *record = frame_record(FRAME_USED, 9, PURPOSE_TEST, 16);
    assert_broken("cannot have order 9");
    *record = frame_record(FRAME_USED, 4, PURPOSE_FREE, 16);
    assert_broken("in use for nothing");
    *record = frame_record(FRAME_TAIL, 4, PURPOSE_TEST, 16);
    assert_broken("makes no sense");
    *record = frame_record(FRAME_USED, 31, PURPOSE_TEST, 16);
    assert_broken("makes no sense");
    *record = good | UINT64_C(1) << FRAME_PAYLOAD_SHIFT; /* the payload is the layer's */
    verify();
    *record = (good & ~FRAME_STATE_MASK) | FRAME_SHARED;
    assert_broken("shared by 0");
    *record = (good & ~FRAME_STATE_MASK) | FRAME_RESERVED;
    assert_broken("16 frames reserved, counted as 0");
    *record = 0;
    assert_broken("counted as");
    *record = good;
    verify();

    record[5] = frame_record(FRAME_USED, 0, PURPOSE_TEST, 16);
    assert_broken("starts inside another");
    record[5] = 0;

    /* A free frame of the same 2 MiB, whose record should be 0. */
    record = &frame_records[align_down(pfn_of(block), 512)];
    assert_true(buddy_is_free(hpa(align_down(block.v, 2 * MiB))));
    *record = frame_record(FRAME_CACHED, 4, PURPOSE_FREE, OWNER_NONE);
    assert_broken("is free and in use");
    *record = UINT64_C(1) << FRAME_PAYLOAD_SHIFT;
    assert_broken("makes no sense");
    *record = 0;
    verify();

    /* A cached block's. */
    assert_int_equal(buddy_free(block, 4, 16), E_OK);
    record = &frame_records[pfn_of(block)];
    *record = frame_record(FRAME_CACHED, 3, PURPOSE_FREE, OWNER_NONE);
    assert_broken("has the record of no such block");
    *record = good;
    assert_broken("has the record of no such block");
    *record = frame_record(FRAME_CACHED, 4, PURPOSE_TEST, OWNER_NONE);
    assert_broken("record of cached");
    *record = frame_record(FRAME_CACHED, 4, PURPOSE_FREE, OWNER_NONE);
    verify();
}

/* Any bit of a record or of what is free changes it; to use memory and give it back does not. */
static void test_fingerprint(void **state)
{
    (void)state;
    start_with(8 * MiB);
    hpa_t kept = alloc(3, 16), block[64];
    assert_int_equal(buddy_share(kept, 16), E_OK);
    buddy_drain();
    const uint64_t before = buddy_fingerprint();

    for (unsigned round = 0; round < 200; round++) {
        for (unsigned i = 0; i < 64; i++)
            block[i] = alloc((i + round) % 5, (owner_t)(16 + i % 3));
        assert_int_not_equal(buddy_fingerprint(), before);
        for (unsigned i = 0; i < 64; i++) {
            unsigned n = (i * 29 + round) % 64;
            cpu = i % 3;
            assert_int_equal(buddy_free(block[n], (n + round) % 5, (owner_t)(16 + n % 3)), E_OK);
        }
        cpu = 0;
        if (round == 0)
            assert_int_not_equal(buddy_fingerprint(), before); /* some are cached */
        buddy_drain();
        assert_true(buddy_fingerprint() == before);
    }

    uint64_t *record = &frame_records[pfn_of(kept)];
    for (unsigned bit = 0; bit < 64; bit++) {
        *record ^= BIT(bit);
        assert_int_not_equal(buddy_fingerprint(), before);
        *record ^= BIT(bit);
    }
    for (uint64_t pfn = 0; pfn < 8 * MiB / PAGE_SIZE; pfn++)
        if (buddy_alloc_at(hpa_of_pfn(pfn), 0, PURPOSE_TEST, 16) == E_OK) {
            assert_int_not_equal(buddy_fingerprint(), before);
            assert_int_equal(buddy_free(hpa_of_pfn(pfn), 0, 16), E_OK);
            buddy_drain();
            assert_true(buddy_fingerprint() == before);
        }
    verify();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_metadata_size),
        cmocka_unit_test(test_init_refuses),
        cmocka_unit_test(test_knows_nothing_at_first),
        cmocka_unit_test(test_plausible_garbage),
        cmocka_unit_test(test_add),
        cmocka_unit_test(test_start_is_lazy),
        cmocka_unit_test(test_four_pebibytes),
        cmocka_unit_test(test_orders),
        cmocka_unit_test(test_alloc_refuses_nonsense),
        cmocka_unit_test(test_isolated_frames),
        cmocka_unit_test(test_fragments_before_splits),
        cmocka_unit_test(test_low_memory_is_kept),
        cmocka_unit_test(test_low_fragments_are_kept),
        cmocka_unit_test(test_within),
        cmocka_unit_test(test_at),
        cmocka_unit_test(test_frames),
        cmocka_unit_test(test_misuse),
        cmocka_unit_test(test_unaligned),
        cmocka_unit_test(test_free_frames),
        cmocka_unit_test(test_free_frames_aligned),
        cmocka_unit_test(test_alloc_many),
        cmocka_unit_test(test_alloc_many_refuses),
        cmocka_unit_test(test_frames_held_by_others),
        cmocka_unit_test(test_no_stale_heads),
        cmocka_unit_test(test_damaged_cache),
        cmocka_unit_test(test_share),
        cmocka_unit_test(test_share_run),
        cmocka_unit_test(test_record),
        cmocka_unit_test(test_quota),
        cmocka_unit_test(test_quota_counts_recorded),
        cmocka_unit_test(test_reserve),
        cmocka_unit_test(test_caches_of_others),
        cmocka_unit_test(test_quota_on_many_cpus),
        cmocka_unit_test(test_cpu_out_of_range),
        cmocka_unit_test(test_visit),
        cmocka_unit_test(test_visit_stops),
        cmocka_unit_test(test_visit_skips_holes),
        cmocka_unit_test(test_verify_stops),
        cmocka_unit_test(test_verify_while_memory_changes),
        cmocka_unit_test(test_verify_finds_damage),
        cmocka_unit_test(test_fingerprint),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    free(metadata);
    return failed;
}
