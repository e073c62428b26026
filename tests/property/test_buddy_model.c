/*
 * The buddy against a flat model: one cell a frame, searched by brute force. After every operation
 * the allocator verifies itself, and its answers, counters and records must be those of the model.
 *
 * The model is a perfect allocator: a request must succeed exactly when an aligned block of free
 * frames exists within its bounds, whatever the caches of however many CPUs hold.
 *
 * First random sequences on awkward memory maps (holes, ragged edges, several CPUs, quotas, a
 * reserve, misuse of every sort), then every sequence up to a length on a tiny memory.
 */
#include "mm/frames/buddy.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/unit/random.h"

#define FRAMES 3000 /* not a multiple of anything */
#define OWNERS 4
#define CPUS 3

static const owner_t owner_of[OWNERS] = {OWNER_HOST, 16, 24,
                                         700}; /* 16 and 24 share a lease slot */

enum cell_state { CELL_HOLE, CELL_FREE, CELL_USED, CELL_RESERVED };

struct cell {
    enum cell_state state;
    uint64_t head;
    unsigned order;
    enum frame_purpose purpose;
    owner_t owner;
    uint64_t holders; /* 1 unless shared */
};

struct model {
    uint64_t frames;
    struct cell cell[FRAMES];
    uint64_t quota[OWNERS];
    uint64_t reserve;
    uint64_t failed, allocations, frees, refused;
};

static struct model model;
static void *metadata;
static unsigned cpu;
static uint64_t fences;

static unsigned current_cpu(void)
{
    return cpu;
}

static void fence(void)
{
    fences++;
}

static void start(uint64_t frames)
{
    uint64_t size = buddy_metadata_size(frames * PAGE_SIZE);

    free(metadata);
    metadata = aligned_alloc(PAGE_SIZE, size);
    memset(metadata, 0xa5, size);
    cpu = 0;
    assert_int_equal(buddy_init(metadata, size, frames * PAGE_SIZE), E_OK);
    memset(&model, 0, sizeof(model));
    model.frames = frames;
    for (unsigned i = 0; i < OWNERS; i++)
        model.quota[i] = UINT64_MAX;
}

/* ---- What the model says ---- */

static bool all_are(uint64_t first, uint64_t count, enum cell_state state)
{
    if (first + count > model.frames)
        return false;
    for (uint64_t i = first; i < first + count; i++)
        if (model.cell[i].state != state)
            return false;
    return true;
}

static uint64_t free_frames(void)
{
    uint64_t n = 0;
    for (uint64_t i = 0; i < model.frames; i++)
        n += model.cell[i].state == CELL_FREE;
    return n;
}

static uint64_t held(owner_t owner)
{
    uint64_t n = 0;
    for (uint64_t i = 0; i < model.frames; i++)
        n += model.cell[i].state >= CELL_USED && model.cell[i].owner == owner;
    return n;
}

static bool exists(unsigned order, uint64_t first, uint64_t last)
{
    uint64_t size = UINT64_C(1) << order;
    for (uint64_t at = 0; at + size <= model.frames; at += size)
        if (at >= first && at + size - 1 <= last && all_are(at, size, CELL_FREE))
            return true;
    return false;
}

/* What a request for `count` frames must answer, `block` being whether a place for them exists. */
static int expected(unsigned owner, uint64_t count, bool block, int otherwise)
{
    uint64_t have = held(owner_of[owner]);
    if (model.quota[owner] < have || model.quota[owner] - have < count)
        return E_QUOTA;
    if (owner != 0 && model.reserve > 0) {
        if (free_frames() < count)
            return E_NOMEM;
        if (free_frames() - count < model.reserve)
            return E_QUOTA;
    }
    return block ? E_OK : otherwise;
}

static void take(uint64_t first, uint64_t count, unsigned order, enum frame_purpose purpose,
                 owner_t owner)
{
    assert_true(all_are(first, count, CELL_FREE));
    for (uint64_t i = 0; i < count; i++)
        model.cell[first + i] =
            (struct cell){CELL_USED, first + (i >> order << order), order, purpose, owner, 1};
}

static void give(uint64_t head)
{
    uint64_t size = UINT64_C(1) << model.cell[head].order;
    for (uint64_t i = 0; i < size; i++)
        model.cell[head + i] = (struct cell){.state = CELL_FREE};
}

static int expected_check(uint64_t pfn, owner_t owner)
{
    if (pfn >= model.frames || model.cell[pfn].state == CELL_HOLE)
        return E_RANGE;
    const struct cell *cell = &model.cell[pfn];
    if (cell->state == CELL_FREE)
        return E_DOUBLE_FREE;
    if (cell->state == CELL_RESERVED)
        return E_STATE;
    if (cell->owner != owner)
        return E_PERM;
    return E_OK;
}

static int expected_free(uint64_t pfn, unsigned order, owner_t owner, bool release)
{
    int error = expected_check(pfn, owner);
    if (error != E_OK)
        return error;
    const struct cell *cell = &model.cell[pfn];
    if (cell->head == pfn && cell->holders > 1 && !release)
        return E_SHARED;
    return cell->head == pfn && cell->order == order ? E_OK : E_ORDER;
}

/* ---- Comparing ---- */

static void compare_frame(uint64_t pfn)
{
    const struct cell *cell = &model.cell[pfn];
    struct frame_info info;
    hpa_t head;
    int error = frame_query(hpa(pfn * PAGE_SIZE + 123), &info, &head);

    assert_int_equal(buddy_is_free(hpa_of_pfn(pfn)), cell->state == CELL_FREE);
    switch (cell->state) {
    case CELL_HOLE:
        assert_int_equal(error, E_RANGE);
        break;
    case CELL_FREE:
        assert_int_equal(error, E_OK);
        assert_true(info.state == FRAME_FREE || info.state == FRAME_CACHED);
        assert_int_equal(info.purpose, PURPOSE_FREE);
        assert_int_equal(info.owner, OWNER_NONE);
        assert_true(all_are(pfn_of(head), UINT64_C(1) << info.order, CELL_FREE));
        assert_true(pfn - pfn_of(head) < UINT64_C(1) << info.order);
        break;
    case CELL_RESERVED:
        assert_int_equal(error, E_OK);
        assert_int_equal(info.state, FRAME_RESERVED);
        assert_int_equal(info.purpose, cell->purpose);
        assert_int_equal(info.owner, cell->owner);
        break;
    case CELL_USED:
        assert_int_equal(error, E_OK);
        assert_int_equal(info.state, cell->head != pfn    ? FRAME_TAIL
                                     : cell->holders == 1 ? FRAME_USED
                                                          : FRAME_SHARED);
        assert_int_equal(pfn_of(head), cell->head);
        assert_int_equal(info.order, cell->order);
        assert_int_equal(info.purpose, cell->purpose);
        assert_int_equal(info.owner, cell->owner);
        if (cell->holders > 1)
            assert_int_equal(info.payload, cell->holders);
        break;
    }
}

static void compare_counters(void)
{
    struct buddy_stats stats;
    uint64_t by_purpose[PURPOSE_COUNT] = {0}, total = 0, reserved = 0;

    buddy_stats(&stats);
    for (uint64_t i = 0; i < model.frames; i++) {
        total += model.cell[i].state != CELL_HOLE;
        reserved += model.cell[i].state == CELL_RESERVED;
        if (model.cell[i].state >= CELL_USED)
            by_purpose[model.cell[i].purpose]++;
    }
    assert_int_equal(stats.total_frames, total);
    assert_int_equal(stats.free_frames, free_frames());
    assert_int_equal(stats.reserved_frames, reserved);
    assert_memory_equal(stats.by_purpose, by_purpose, sizeof(by_purpose));
    for (unsigned i = 0; i < OWNERS; i++)
        assert_int_equal(buddy_owner_frames(owner_of[i]), held(owner_of[i]));
    uint64_t in_blocks = stats.cached_frames;
    for (unsigned order = 0; order < BUDDY_ORDERS; order++)
        in_blocks += stats.free_blocks[order] << order;
    assert_int_equal(in_blocks, stats.free_frames);
    assert_int_equal(stats.allocations, model.allocations);
    assert_int_equal(stats.frees, model.frees);
    assert_int_equal(stats.failed, model.failed);
    assert_int_equal(stats.refused_double + stats.refused_order + stats.refused_owner +
                         stats.refused_range + stats.refused_shared + stats.refused_state,
                     model.refused);
}

struct visit {
    uint64_t next;
    struct frame_info before;
};

static int compare_run(void *ctx, hpa_t base, uint64_t size, const struct frame_info *info)
{
    struct visit *visit = ctx;
    uint64_t first = pfn_of(base);

    assert_true(first >= visit->next && size > 0);
    /* Runs are maximal. */
    if (first == visit->next && first > 0)
        assert_false(info->state == visit->before.state && info->owner == visit->before.owner &&
                     info->purpose == visit->before.purpose);
    for (uint64_t i = visit->next; i < first; i++)
        assert_int_equal(model.cell[i].state, CELL_HOLE);
    for (uint64_t i = first; i < first + (size >> PAGE_SHIFT); i++) {
        const struct cell *cell = &model.cell[i];
        switch (cell->state) {
        case CELL_HOLE:
            fail();
            break;
        case CELL_FREE:
            assert_true(info->state == FRAME_FREE || info->state == FRAME_CACHED);
            break;
        default:
            assert_int_equal(info->state, cell->state == CELL_RESERVED ? FRAME_RESERVED
                                          : cell->holders > 1          ? FRAME_SHARED
                                                                       : FRAME_USED);
            assert_int_equal(info->purpose, cell->purpose);
            assert_int_equal(info->owner, cell->owner);
        }
    }
    visit->next = first + (size >> PAGE_SHIFT);
    visit->before = *info;
    return 0;
}

static void verify(void)
{
    char why[160] = "";
    if (buddy_verify(why, sizeof(why)) != E_OK)
        fail_msg("%s", why);
}

static void compare_all(void)
{
    struct visit visit = {0};
    verify();
    compare_counters();
    for (uint64_t i = 0; i < model.frames; i++)
        compare_frame(i);
    assert_int_equal(buddy_visit(compare_run, &visit), 0);
    for (uint64_t i = visit.next; i < model.frames; i++)
        assert_int_equal(model.cell[i].state, CELL_HOLE);
}

/* ---- Operations, each done to both ---- */

static void do_alloc(unsigned order, unsigned owner, enum frame_purpose purpose)
{
    hpa_t got = hpa(0);
    int want = expected(owner, UINT64_C(1) << order, exists(order, 0, UINT64_MAX), E_NOMEM);

    assert_int_equal(buddy_alloc(order, purpose, owner_of[owner], &got), want);
    if (want == E_OK) {
        assert_true(is_aligned(got.v, PAGE_SIZE << order));
        take(pfn_of(got), UINT64_C(1) << order, order, purpose, owner_of[owner]);
        model.allocations++;
    } else {
        model.failed++;
    }
}

static void do_within(unsigned order, uint64_t first, uint64_t last, unsigned owner)
{
    hpa_t got = hpa(0);
    uint64_t size = PAGE_SIZE << order;
    uint64_t low = (first + PAGE_SIZE - 1) / PAGE_SIZE;
    uint64_t end = last == UINT64_MAX ? model.frames : (last + 1) / PAGE_SIZE;
    bool block = end > low && exists(order, low, end - 1);
    int want = expected(owner, UINT64_C(1) << order, block, E_NOMEM);

    assert_int_equal(buddy_alloc_within(order, first, last, PURPOSE_VCPU, owner_of[owner], &got),
                     want);
    if (want == E_OK) {
        assert_true(is_aligned(got.v, size) && got.v >= first && got.v + size - 1 <= last);
        take(pfn_of(got), UINT64_C(1) << order, order, PURPOSE_VCPU, owner_of[owner]);
        model.allocations++;
    } else {
        model.failed++;
    }
}

static void do_at(uint64_t pfn, unsigned order, unsigned owner)
{
    bool block = all_are(pfn, UINT64_C(1) << order, CELL_FREE);
    int want = expected(owner, UINT64_C(1) << order, block, E_EXIST);
    bool asked = true;

    if (!is_aligned(pfn, UINT64_C(1) << order)) {
        want = E_ALIGN;
        asked = false;
    } else if (pfn + (UINT64_C(1) << order) > model.frames) {
        want = E_RANGE;
        asked = false;
    }
    assert_int_equal(buddy_alloc_at(hpa_of_pfn(pfn), order, PURPOSE_STACK, owner_of[owner]), want);
    if (want == E_OK) {
        take(pfn, UINT64_C(1) << order, order, PURPOSE_STACK, owner_of[owner]);
        model.allocations++;
    } else if (asked) {
        model.failed++;
    }
}

static void do_frames(uint64_t count, unsigned owner)
{
    hpa_t got = hpa(0);
    unsigned order = 0;
    while (UINT64_C(1) << order < count)
        order++;
    int want = expected(owner, count, exists(order, 0, UINT64_MAX), E_NOMEM);

    assert_int_equal(buddy_alloc_frames(count, PURPOSE_HEAP, owner_of[owner], &got), want);
    if (want == E_OK) {
        take(pfn_of(got), count, 0, PURPOSE_HEAP, owner_of[owner]);
        model.allocations += count;
    } else {
        model.failed++;
    }
}

/* At most as many as there are frames. */
static void do_many(unsigned count, unsigned owner)
{
    static hpa_t got[FRAMES];
    uint64_t free_frames = 0;
    for (uint64_t i = 0; i < model.frames; i++)
        free_frames += model.cell[i].state == CELL_FREE;
    int want = expected(owner, count, free_frames >= count, E_NOMEM);

    assert_int_equal(buddy_alloc_many(got, count, PURPOSE_EPT_TABLE, owner_of[owner]), want);
    if (want != E_OK) {
        model.failed++;
        return;
    }
    for (unsigned i = 0; i < count; i++)
        take(pfn_of(got[i]), 1, 0, PURPOSE_EPT_TABLE, owner_of[owner]);
    model.allocations += count;
}

/* Any frames at all, those of this owner more often than not, some of them twice. */
static void do_free_many(struct random *random, unsigned count, owner_t owner)
{
    static hpa_t list[2 * FRAMES];
    int want = E_OK;
    unsigned n = 0;

    for (unsigned i = 0; i < count; i++) {
        uint64_t pfn = random_below(random, model.frames + 1);
        for (unsigned tries = 0; tries < 4 && pfn < model.frames && model.cell[pfn].owner != owner;
             tries++)
            pfn = random_below(random, model.frames);
        /* A run of neighbours, as most lists have. */
        for (uint64_t run = random_below(random, 6); n < count && run > 0; run--)
            list[n++] = hpa_of_pfn(pfn++);
    }
    /* In order: what an earlier entry frees a later one frees too often. */
    static uint64_t freed[FRAMES];
    unsigned frees = 0;
    for (unsigned i = 0; i < n; i++) {
        int error = expected_free(pfn_of(list[i]), 0, owner, false);
        if (error == E_OK) {
            give(pfn_of(list[i]));
            freed[frees++] = pfn_of(list[i]);
        } else {
            want = want == E_OK ? error : want;
            model.refused++;
        }
    }
    assert_int_equal(buddy_free_frames(list, n, owner), want);
    for (unsigned i = 0; i < frees; i++)
        assert_true(buddy_is_free(hpa_of_pfn(freed[i])));
    model.frees += frees;
}

static void do_free(uint64_t pfn, unsigned order, owner_t owner)
{
    int want = expected_free(pfn, order, owner, false);
    assert_int_equal(buddy_free(hpa_of_pfn(pfn), order, owner), want);
    if (want == E_OK) {
        give(pfn);
        model.frees++;
    } else {
        model.refused++;
    }
}

static void do_share(uint64_t pfn, owner_t owner)
{
    int want = expected_check(pfn, owner);
    if (want == E_OK && model.cell[pfn].head != pfn)
        want = E_ORDER;
    assert_int_equal(buddy_share(hpa_of_pfn(pfn), owner), want);
    if (want == E_OK)
        for (uint64_t i = 0; i < UINT64_C(1) << model.cell[pfn].order; i++)
            model.cell[pfn + i].holders++;
    else
        model.refused++;
}

static void do_release(uint64_t pfn, unsigned order, owner_t owner)
{
    bool last = true;
    int want = expected_free(pfn, order, owner, true);
    bool want_last = want == E_OK && model.cell[pfn].holders == 1;

    assert_int_equal(buddy_release(hpa_of_pfn(pfn), order, owner, &last), want);
    assert_int_equal(last, want_last);
    if (want != E_OK) {
        model.refused++;
    } else if (want_last) {
        give(pfn);
        model.frees++;
    } else {
        for (uint64_t i = 0; i < UINT64_C(1) << order; i++)
            model.cell[pfn + i].holders--;
    }
}

static void do_add(uint64_t first, uint64_t count)
{
    int want = first + count > model.frames       ? E_RANGE
               : all_are(first, count, CELL_HOLE) ? E_OK
                                                  : E_EXIST;
    assert_int_equal(buddy_add(hpa_of_pfn(first), count * PAGE_SIZE), want);
    for (uint64_t i = 0; want == E_OK && i < count; i++)
        model.cell[first + i].state = CELL_FREE;
}

static void do_record(uint64_t first, uint64_t count, bool reserved, owner_t owner)
{
    int want = first + count > model.frames       ? E_RANGE
               : all_are(first, count, CELL_HOLE) ? E_OK
                                                  : E_EXIST;
    enum frame_purpose purpose = reserved ? PURPOSE_FIRMWARE : PURPOSE_BOOT;
    assert_int_equal(buddy_record(hpa_of_pfn(first), count * PAGE_SIZE,
                                  reserved ? FRAME_RESERVED : FRAME_USED, purpose, owner),
                     want);
    for (uint64_t i = 0; want == E_OK && i < count; i++)
        model.cell[first + i] =
            (struct cell){reserved ? CELL_RESERVED : CELL_USED, first + i, 0, purpose, owner, 1};
}

/* The owner's index in the model; recorded frames belong to the host or to it. */
static void do_quota(unsigned owner, uint64_t frames)
{
    assert_int_equal(buddy_set_quota(owner_of[owner], frames), E_OK);
    assert_int_equal(buddy_quota(owner_of[owner]), frames);
    model.quota[owner] = frames;
}

/* ---- Random sequences ---- */

static uint64_t some_frame(struct random *random)
{
    return random_below(random, 64) == 0 ? model.frames + random_below(random, 1000)
                                         : random_below(random, model.frames);
}

/* Small orders most of the time. */
static unsigned some_order(struct random *random)
{
    uint64_t roll = random_below(random, 100);
    return (unsigned)(roll < 50   ? 0
                      : roll < 80 ? random_below(random, 4)
                                  : random_below(random, 13));
}

/* The first frame of a random block in use; false when the random frame met none. */
static bool some_block(struct random *random, uint64_t *pfn)
{
    for (unsigned tries = 0; tries < 16; tries++) {
        *pfn = random_below(random, model.frames);
        if (model.cell[*pfn].state == CELL_USED) {
            *pfn = model.cell[*pfn].head;
            return true;
        }
    }
    return false;
}

static void random_step(struct random *random, unsigned fill)
{
    uint64_t roll = random_below(random, 100), pfn = 0;
    unsigned owner = (unsigned)random_below(random, OWNERS);
    unsigned order = some_order(random);

    cpu = (unsigned)random_below(random, CPUS);
    if (roll < fill) {
        do_alloc(order, owner, (enum frame_purpose)(1 + random_below(random, PURPOSE_COUNT - 1)));
    } else if (roll < 80) {
        if (some_block(random, &pfn))
            do_free(pfn, model.cell[pfn].order, model.cell[pfn].owner);
    } else if (roll < 84) {
        uint64_t a = random_below(random, model.frames * PAGE_SIZE);
        uint64_t b =
            random_below(random, 8) == 0 ? UINT64_MAX : a + random_below(random, 700 * PAGE_SIZE);
        do_within(order, random_below(random, 2) ? a : align_down(a, PAGE_SIZE),
                  random_below(random, 2) || b == UINT64_MAX ? b : align_down(b, PAGE_SIZE) + 4095,
                  owner);
    } else if (roll < 87) {
        pfn = some_frame(random);
        do_at(random_below(random, 8) ? align_down(pfn, UINT64_C(1) << order) : pfn, order, owner);
    } else if (roll < 88) {
        do_frames(1 + random_below(random, 100), owner);
    } else if (roll < 89) {
        do_many((unsigned)random_below(random, random_below(random, 4) ? 40 : 400), owner);
        do_free_many(random, (unsigned)random_below(random, 200), owner_of[owner]);
    } else if (roll < 93) { /* misuse, most of it */
        pfn = some_frame(random);
        do_free(pfn, order, owner_of[owner]);
        if (some_block(random, &pfn)) {
            do_free(pfn, order, model.cell[pfn].owner);
            do_free(pfn, model.cell[pfn].order, owner_of[owner]);
        }
    } else if (roll < 96) {
        if (some_block(random, &pfn))
            do_share(pfn, random_below(random, 8) ? model.cell[pfn].owner : owner_of[owner]);
        do_share(some_frame(random), owner_of[owner]);
    } else if (roll < 98) {
        if (some_block(random, &pfn))
            do_release(pfn, random_below(random, 8) ? model.cell[pfn].order : order,
                       model.cell[pfn].owner);
        do_release(some_frame(random), order, owner_of[owner]);
    } else if (random_below(random, 4) == 0) {
        buddy_drain();
        struct buddy_stats stats;
        buddy_stats(&stats);
        assert_int_equal(stats.cached_frames, 0);
    } else if (random_below(random, 2) == 0) {
        uint64_t quota =
            random_below(random, 3) ? UINT64_MAX : random_below(random, model.frames / 2);
        do_quota(1 + (unsigned)random_below(random, OWNERS - 1), quota);
        model.reserve = random_below(random, 2) ? 0 : random_below(random, 200);
        buddy_set_reserve(model.reserve);
    } else if (random_below(random, 2) == 0) {
        do_add(some_frame(random), 1 + random_below(random, 40));
    } else {
        do_record(some_frame(random), 1 + random_below(random, 40), random_below(random, 2) != 0,
                  OWNER_HOST);
    }
}

/* Random regions with ragged edges; what is left over are holes. */
static void random_map(struct random *random)
{
    start(1 + random_below(random, FRAMES));
    for (uint64_t at = 0; at < model.frames;) {
        uint64_t left = model.frames - at;
        uint64_t count = 1 + random_below(random, random_below(random, 2) ? left : 1 + left / 8);
        switch (random_below(random, 6)) {
        case 0:
            break;
        case 1:
            do_record(at, count, true, OWNER_NONE);
            break;
        case 2:
            do_record(at, count < 20 ? count : 20, false, OWNER_HOST);
            break;
        default:
            do_add(at, count);
        }
        at += count;
    }
}

static void free_everything(void)
{
    for (uint64_t i = 0; i < model.frames; i++)
        while (model.cell[i].state == CELL_USED)
            do_release(i, model.cell[i].order, model.cell[i].owner);
}

/* All free frames in the largest blocks that their addresses allow: the only state without use. */
static void assert_pristine(void)
{
    struct buddy_stats stats;
    uint64_t blocks[BUDDY_ORDERS] = {0};

    buddy_drain();
    for (uint64_t at = 0; at < model.frames;) {
        unsigned order = 0;
        if (model.cell[at].state != CELL_FREE) {
            at++;
            continue;
        }
        while (order < BUDDY_MAX_ORDER && is_aligned(at, UINT64_C(2) << order) &&
               all_are(at, UINT64_C(2) << order, CELL_FREE))
            order++;
        blocks[order]++;
        at += UINT64_C(1) << order;
    }
    buddy_stats(&stats);
    assert_memory_equal(stats.free_blocks, blocks, sizeof(blocks));
}

static void test_random(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 24; seed++) {
        struct random random = {seed};
        random_map(&random);
        compare_all();
        for (unsigned step = 0; step < 1500; step++) {
            random_step(&random, step / 250 % 2 ? 35 : 55); /* fills up, then empties */
            verify();
            if (step % 8 == 0)
                compare_counters();
            for (unsigned i = 0; i < 8; i++)
                compare_frame(random_below(&random, model.frames));
            if (step % 250 == 249)
                compare_all();
        }
        free_everything();
        assert_pristine();
        compare_all();
    }
    assert_true(fences > 0);
}

/* ---- Every sequence ---- */

/* Memory of TINY frames from frame TINY_BASE on; one step is a digit of the sequence's number:
 * allocate at order 0, 1 or 2; give back the lowest, the second or the third block in use; drain.
 */
#define TINY_BASE 3u
#define TINY 6u
#define STEPS 7u
#define LENGTH 6u

static void tiny_step(unsigned step)
{
    unsigned nth = step - 3;
    if (step < 3) {
        do_alloc(step, step % OWNERS, PURPOSE_TEST);
        return;
    }
    if (step == 6) {
        buddy_drain();
        return;
    }
    for (uint64_t i = TINY_BASE; i < TINY_BASE + TINY; i++)
        if (model.cell[i].state == CELL_USED && model.cell[i].head == i && nth-- == 0) {
            do_free(i, model.cell[i].order, model.cell[i].owner);
            do_free(i, model.cell[i].order, model.cell[i].owner); /* and once too often */
            return;
        }
}

static void test_every_sequence(void **state)
{
    (void)state;
    unsigned sequences = 1;
    for (unsigned length = 1; length <= LENGTH; length++) {
        sequences *= STEPS;
        for (unsigned number = 0; number < sequences; number++) {
            unsigned digits = number;
            start(TINY_BASE + TINY);
            do_add(TINY_BASE, TINY);
            for (unsigned i = 0; i < length; i++, digits /= STEPS) {
                cpu = i % 2;
                tiny_step(digits % STEPS);
            }
            compare_all(); /* a shorter beginning is a sequence of its own */
            free_everything();
            assert_pristine();
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_random),
        cmocka_unit_test(test_every_sequence),
    };
    assert_int_equal(buddy_set_cpus(current_cpu, fence), E_OK);
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    free(metadata);
    return failed;
}
