/*
 * The early allocator: what it gives out, its accounts, and the hand-over to the buddy, judged
 * frame by frame against the lists of memblock.
 */
#include "mm/frames/early.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "lib/bits.h"
#include "tests/unit/random.h"

#define RAM_END (64 * MiB)
#define FRAMES (RAM_END / PAGE_SIZE)

static struct memblock mb;
static struct early early;
static void *metadata;

static void start_buddy(void)
{
    uint64_t size = buddy_metadata_size(RAM_END);

    free(metadata);
    metadata = aligned_alloc(PAGE_SIZE, align_up(size, PAGE_SIZE));
    assert_non_null(metadata);
    memset(metadata, 0xa5, size);
    assert_int_equal(buddy_init(metadata, size, RAM_END), E_OK);
}

static int setup(void **state)
{
    (void)state;
    memblock_init(&mb);
    early_init(&early, &mb, 0, RAM_END - 1);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    free(metadata);
    metadata = NULL;
    return 0;
}

static uint64_t sum_of_purposes(void)
{
    uint64_t sum = 0;

    for (unsigned purpose = 0; purpose < PURPOSE_COUNT; purpose++)
        sum += early.by_purpose[purpose];
    return sum;
}

/* --- giving out ------------------------------------------------------------------------------ */

static void gives_from_the_top_and_accounts(void **state)
{
    hpa_t at;

    (void)state;
    memblock_add(&mb, 0x100000, 0x100000, MEMKIND_USABLE);
    assert_int_equal(early_alloc(&early, 1, PAGE_SIZE, PURPOSE_STACK, &at), E_OK);
    assert_int_equal(at.v, 0x1ff000);
    assert_int_equal(early_alloc(&early, 0x1001, PAGE_SIZE, PURPOSE_HOST_TABLE, &at), E_OK);
    assert_int_equal(at.v, 0x1fd000);
    assert_int_equal(early_alloc(&early, 0x2000, 0x10000, PURPOSE_HOST_TABLE, &at), E_OK);
    assert_int_equal(at.v, 0x1f0000);
    /* What the alignment left over is not lost. */
    assert_int_equal(early_alloc(&early, 0x1000, PAGE_SIZE, PURPOSE_PERCPU, &at), E_OK);
    assert_int_equal(at.v, 0x1fc000);
    assert_int_equal(early.frames, 6);
    assert_int_equal(early.by_purpose[PURPOSE_STACK], 1);
    assert_int_equal(early.by_purpose[PURPOSE_HOST_TABLE], 4);
    assert_int_equal(early.by_purpose[PURPOSE_PERCPU], 1);
    assert_int_equal(sum_of_purposes(), 6);
    assert_true(memblock_is_reserved(&mb, 0x1fd000, 1));
    assert_false(memblock_is_reserved(&mb, 0x1f2000, 0xa000));
}

static void stays_within_its_bounds(void **state)
{
    hpa_t at;

    (void)state;
    memblock_add(&mb, 0, 0x100000, MEMKIND_USABLE);
    early_init(&early, &mb, 0x4000, 0x6fff);
    for (uint64_t expected = 0x6000; expected >= 0x4000; expected -= 0x1000) {
        assert_int_equal(early_alloc(&early, 0x1000, PAGE_SIZE, PURPOSE_HEAP, &at), E_OK);
        assert_int_equal(at.v, expected);
    }
    assert_int_equal(early_alloc(&early, 0x1000, PAGE_SIZE, PURPOSE_HEAP, &at), E_NOMEM);
    assert_int_equal(early.frames, 3);
}

static void refuses_what_makes_no_sense(void **state)
{
    hpa_t at = hpa(7);

    (void)state;
    memblock_add(&mb, 0x100000, 0x100000, MEMKIND_USABLE);
    assert_int_equal(early_alloc(&early, 0, PAGE_SIZE, PURPOSE_HEAP, &at), E_INVAL);
    assert_int_equal(early_alloc(&early, 1, 0, PURPOSE_HEAP, &at), E_INVAL);
    assert_int_equal(early_alloc(&early, 1, 2048, PURPOSE_HEAP, &at), E_INVAL);
    assert_int_equal(early_alloc(&early, 1, 3 * PAGE_SIZE, PURPOSE_HEAP, &at), E_INVAL);
    assert_int_equal(early_alloc(&early, 1, PAGE_SIZE, PURPOSE_FREE, &at), E_INVAL);
    assert_int_equal(early_alloc(&early, 1, PAGE_SIZE, PURPOSE_COUNT, &at), E_INVAL);
    assert_int_equal(early_alloc(&early, UINT64_MAX, PAGE_SIZE, PURPOSE_HEAP, &at), E_NOMEM);
    assert_int_equal(early_alloc(&early, UINT64_MAX - 0xfff, PAGE_SIZE, PURPOSE_HEAP, &at),
                     E_NOMEM);
    assert_int_equal(early_alloc(&early, 0x101000, PAGE_SIZE, PURPOSE_HEAP, &at), E_NOMEM);
    assert_int_equal(at.v, 7);
    assert_int_equal(early.frames, 0);
    assert_int_equal(sum_of_purposes(), 0);
    assert_int_equal(mb.reserved.count, 0);
}

/* Memblock cannot note it: nothing was taken. */
static void a_full_list_takes_nothing(void **state)
{
    hpa_t at;

    (void)state;
    memblock_add(&mb, 0, 0x400000, MEMKIND_USABLE);
    for (uint64_t i = 0; i < MEMBLOCK_INITIAL; i++)
        assert_int_equal(memblock_reserve(&mb, i * 0x2000, 0x1000, PURPOSE_BOOT), E_OK);
    assert_int_equal(early_alloc(&early, 1, PAGE_SIZE, PURPOSE_HEAP, &at), E_FULL);
    assert_int_equal(early.frames, 0);
    assert_int_equal(sum_of_purposes(), 0);
    assert_int_equal(mb.reserved.count, MEMBLOCK_INITIAL);
}

static void takes_back_what_it_gave(void **state)
{
    hpa_t at, again;

    (void)state;
    memblock_add(&mb, 0x300000, 0x1000, MEMKIND_USABLE);
    assert_int_equal(early_alloc(&early, 0x1000, PAGE_SIZE, PURPOSE_PERCPU, &at), E_OK);
    assert_int_equal(at.v, 0x300000);
    assert_int_equal(early_free(&early, hpa(0x2ff000), 0x1000, PURPOSE_PERCPU), E_PERM);
    assert_int_equal(early_free(&early, at, 0x1000, PURPOSE_PERCPU), E_OK);
    assert_int_equal(early.frames, 0);
    memblock_remove(&mb, 0x300000, 0x1000);

    memblock_add(&mb, 0x100000, 0x100000, MEMKIND_USABLE);
    memblock_reserve(&mb, 0x1fe000, 0x1000, PURPOSE_IMAGE);
    assert_int_equal(early_alloc(&early, 0x3000, PAGE_SIZE, PURPOSE_HOST_TABLE, &at), E_OK);
    assert_int_equal(at.v, 0x1fb000);
    assert_int_equal(early_alloc(&early, 0x1000, PAGE_SIZE, PURPOSE_STACK, &again), E_OK);
    assert_int_equal(again.v, 0x1ff000);

    /* Not these: another purpose, too much, never given, not RAM, somewhere within. */
    assert_int_equal(early_free(&early, at, 0x1000, PURPOSE_STACK), E_PERM);
    assert_int_equal(early_free(&early, at, 0x4000, PURPOSE_HOST_TABLE), E_INVAL);
    assert_int_equal(early_free(&early, hpa(0x1fd000), 0x2000, PURPOSE_HOST_TABLE), E_PERM);
    assert_int_equal(early_free(&early, hpa(0x1fe000), 0x1000, PURPOSE_IMAGE), E_INVAL);
    assert_int_equal(early_free(&early, hpa(0x100000), 0x1000, PURPOSE_HOST_TABLE), E_PERM);
    assert_int_equal(early_free(&early, hpa(0x800000), 0x1000, PURPOSE_HOST_TABLE), E_PERM);
    assert_int_equal(early_free(&early, hpa(0x1ff000), 0x2000, PURPOSE_STACK), E_INVAL);
    assert_int_equal(early_free(&early, hpa(0x1fb800), 0x1000, PURPOSE_HOST_TABLE), E_INVAL);
    assert_int_equal(early_free(&early, at, 0, PURPOSE_HOST_TABLE), E_INVAL);
    assert_int_equal(early_free(&early, at, 0x1000, PURPOSE_COUNT), E_INVAL);
    assert_int_equal(early.frames, 4);
    assert_int_equal(early.by_purpose[PURPOSE_HOST_TABLE], 3);

    assert_int_equal(early_free(&early, hpa(0x1fc000), 0x1000, PURPOSE_HOST_TABLE), E_OK);
    assert_int_equal(early_free(&early, hpa(0x1fc000), 0x1000, PURPOSE_HOST_TABLE), E_PERM);
    assert_int_equal(early.frames, 3);
    assert_int_equal(early.by_purpose[PURPOSE_HOST_TABLE], 2);
    assert_int_equal(early_alloc(&early, 0x1000, PAGE_SIZE, PURPOSE_STACK, &again), E_OK);
    assert_int_equal(again.v, 0x1fc000);
}

/* --- the hand-over --------------------------------------------------------------------------- */

/* What memblock's lists say of a frame, read the slow way. -1: no RAM, 0: free, or the purpose. */
static int frame_by_lists(uint64_t pfn)
{
    uint64_t first = pfn * PAGE_SIZE, last = first + PAGE_SIZE - 1;
    int purpose = 0;

    if (!memblock_is_usable(&mb, first, PAGE_SIZE))
        return -1;
    struct memregion region;
    regions_each (&region, &mb.reserved) {
        if (region.base <= last && region.base + (region.size - 1) >= first &&
            (purpose == 0 || (int)region.flags < purpose))
            purpose = (int)region.flags;
    }
    return purpose;
}

/* Each frame of the machine, none excepted: as the lists say, in the frame database. */
static void check_every_frame(uint64_t handed, uint64_t recorded)
{
    uint64_t free_frames = 0, used = 0, reserved = 0, by_purpose[PURPOSE_COUNT] = {0};
    struct buddy_stats stats;
    char why[160] = "";

    for (uint64_t pfn = 0; pfn < FRAMES; pfn++) {
        int expected = frame_by_lists(pfn);
        struct frame_info info;

        assert_int_equal(buddy_is_free(hpa_of_pfn(pfn)), expected == 0);
        if (expected < 0)
            continue;
        if (expected == 0) {
            free_frames++;
            continue;
        }
        assert_int_equal(frame_query(hpa_of_pfn(pfn), &info, NULL), E_OK);
        assert_int_equal(info.purpose, expected);
        by_purpose[expected]++;
        if (expected == PURPOSE_FIRMWARE || expected == PURPOSE_IMAGE) {
            reserved++;
            /* Firmware and image may be recorded in larger blocks, whose later frames are tails. */
            assert_true(info.state == FRAME_RESERVED || info.state == FRAME_TAIL);
            assert_int_equal(buddy_free(hpa_of_pfn(pfn), 0, OWNER_HOST) == E_OK, false);
        } else {
            used++;
            assert_int_equal(info.state, FRAME_USED);
            assert_int_equal(info.order, 0);
            assert_int_equal(info.owner, OWNER_HOST);
        }
    }
    assert_int_equal(handed, free_frames);
    assert_int_equal(recorded, used + reserved);

    buddy_stats(&stats);
    assert_int_equal(stats.total_frames, handed + recorded);
    assert_int_equal(stats.free_frames, handed);
    assert_int_equal(stats.reserved_frames, reserved);
    for (unsigned purpose = 1; purpose < PURPOSE_COUNT; purpose++)
        assert_int_equal(stats.by_purpose[purpose], by_purpose[purpose]);
    if (buddy_verify(why, sizeof(why)) != E_OK)
        fail_msg("%s", why);
}

/* A machine as a loader leaves it. */
static void small_machine(void)
{
    memblock_add(&mb, 0, 0x9fc00, MEMKIND_USABLE);
    memblock_add(&mb, 0x100000, RAM_END - 0x110000, MEMKIND_USABLE);
    memblock_add(&mb, RAM_END - 0x10000, 0x10000, MEMKIND_ACPI_RECLAIMABLE);
    memblock_reserve(&mb, 0, 0x100000, PURPOSE_FIRMWARE);
    memblock_reserve(&mb, 0x200000, 0x54321, PURPOSE_IMAGE);
    memblock_reserve(&mb, 0x300000, 0x1234, PURPOSE_BOOT);
}

static void hands_over_every_frame(void **state)
{
    uint64_t handed, recorded;
    hpa_t at, table, bad;

    (void)state;
    small_machine();
    assert_int_equal(early_alloc(&early, 0x3000, PAGE_SIZE, PURPOSE_HOST_TABLE, &table), E_OK);
    assert_int_equal(early_alloc(&early, 0x4000, 0x4000, PURPOSE_STACK, &at), E_OK);
    start_buddy();
    assert_int_equal(early_verify_hand_over(&early, &bad), E_STATE); /* not yet */
    assert_int_equal(early_hand_over(&early, &handed, &recorded), E_OK);
    assert_int_equal(early_verify_hand_over(&early, &bad), E_OK);
    assert_int_equal(recorded, 0x9f + 0x55 + 2 + 3 + 4);
    assert_int_equal(handed, 0x9f + (RAM_END - 0x110000) / PAGE_SIZE - recorded);
    check_every_frame(handed, recorded);

    /* What the hypervisor held is the buddy's to take back, frame by frame. */
    assert_int_equal(buddy_free(hpa_add(table, 0x1000), 0, OWNER_HOST), E_OK);
    assert_true(buddy_is_free(hpa_add(table, 0x1000)));
    assert_int_equal(buddy_free(hpa(0x300000), 0, OWNER_HOST), E_OK);     /* a module's */
    assert_int_not_equal(buddy_free(hpa(0x200000), 0, OWNER_HOST), E_OK); /* the image's */
}

static void is_closed_afterwards(void **state)
{
    uint64_t handed, recorded;
    hpa_t at;

    (void)state;
    small_machine();
    assert_int_equal(early_alloc(&early, 1, PAGE_SIZE, PURPOSE_STACK, &at), E_OK);
    start_buddy();
    assert_int_equal(early_hand_over(&early, &handed, &recorded), E_OK);
    assert_int_equal(early_alloc(&early, 1, PAGE_SIZE, PURPOSE_STACK, &at), E_STATE);
    assert_int_equal(early_free(&early, at, 1, PURPOSE_STACK), E_STATE);
    assert_int_equal(early_hand_over(&early, &handed, &recorded), E_STATE);
}

static void a_purpose_that_is_none_stops_it(void **state)
{
    uint64_t handed, recorded;

    (void)state;
    small_machine();
    memblock_reserve(&mb, 0x400000, 0x1000, PURPOSE_COUNT);
    start_buddy();
    assert_int_equal(early_hand_over(&early, &handed, &recorded), E_INVAL);
    /* Half-way is no way back. */
    assert_int_equal(early_hand_over(&early, &handed, &recorded), E_STATE);
}

static void a_buddy_that_is_too_small_stops_it(void **state)
{
    uint64_t handed, recorded;

    (void)state;
    small_machine();
    memblock_add(&mb, RAM_END, 0x1000, MEMKIND_USABLE);
    start_buddy();
    assert_int_equal(early_hand_over(&early, &handed, &recorded), E_RANGE);
}

/* --- what verification sees ------------------------------------------------------------------ */

static int hand_over_small_machine(void **state)
{
    uint64_t handed, recorded;
    hpa_t bad;

    setup(state);
    small_machine();
    start_buddy();
    assert_int_equal(early_hand_over(&early, &handed, &recorded), E_OK);
    assert_int_equal(early_verify_hand_over(&early, &bad), E_OK);
    return 0;
}

static void assert_offender(uint64_t address)
{
    hpa_t bad = hpa(0);

    assert_int_equal(early_verify_hand_over(&early, &bad), E_STATE);
    assert_int_equal(bad.v, address);
}

static void verify_sees_a_free_frame_in_use(void **state)
{
    (void)state;
    assert_int_equal(buddy_alloc_at(hpa(0x456000), 0, PURPOSE_TEST, OWNER_HOST), E_OK);
    assert_offender(0x456000);
}

static void verify_sees_a_taken_frame_free(void **state)
{
    (void)state;
    assert_int_equal(buddy_free(hpa(0x301000), 0, OWNER_HOST), E_OK);
    buddy_drain();
    assert_offender(0x301000);
}

static void verify_sees_a_frame_both_had(void **state)
{
    (void)state;
    assert_int_equal(memblock_reserve(&mb, 0x700000, 1, PURPOSE_STACK), E_OK);
    assert_offender(0x700000);
}

static void verify_sees_another_purpose(void **state)
{
    (void)state;
    assert_int_equal(memblock_reserve(&mb, 0x300000, 0x1000, PURPOSE_STACK), E_OK);
    assert_offender(0x300000);
}

/* A buddy that was told almost, but not quite, what memblock says. */
static void verify_sees_another_state_or_owner(void **state)
{
    const struct {
        enum frame_state state;
        enum frame_purpose purpose;
        owner_t owner;
        bool right;
    } records[] = {
        {FRAME_RESERVED, PURPOSE_IMAGE, OWNER_HOST, true},
        {FRAME_USED, PURPOSE_IMAGE, OWNER_HOST, false},
        {FRAME_RESERVED, PURPOSE_IMAGE, OWNER_FIRST_USER, false},
        {FRAME_USED, PURPOSE_STACK, OWNER_HOST, true},
        {FRAME_RESERVED, PURPOSE_STACK, OWNER_HOST, false},
        {FRAME_USED, PURPOSE_STACK, OWNER_FIRST_USER, false},
    };

    for (size_t i = 0; i < ARRAY_SIZE(records); i++) {
        hpa_t bad;

        setup(state);
        memblock_add(&mb, 0x100000, 0x2000, MEMKIND_USABLE);
        memblock_reserve(&mb, 0x101000, 0x1000, records[i].purpose);
        start_buddy();
        assert_int_equal(buddy_add(hpa(0x100000), 0x1000), E_OK);
        assert_int_equal(buddy_record(hpa(0x101000), 0x1000, records[i].state, records[i].purpose,
                                      records[i].owner),
                         E_OK);
        early.closed = true;
        if (records[i].right)
            assert_int_equal(early_verify_hand_over(&early, &bad), E_OK);
        else
            assert_offender(0x101000);
    }
}

static void verify_sees_a_missing_frame(void **state)
{
    (void)state;
    /* In a hole, and at the very end. */
    assert_int_equal(memblock_add(&mb, 0xc0000, 0x1000, MEMKIND_USABLE), E_OK);
    assert_offender(0xc0000);
    assert_int_equal(memblock_remove(&mb, 0xc0000, 0x1000), E_OK);
    assert_int_equal(memblock_add(&mb, RAM_END + 0x5000, 0x1000, MEMKIND_USABLE), E_OK);
    assert_offender(RAM_END + 0x5000);
}

static void verify_sees_a_frame_that_is_no_ram(void **state)
{
    (void)state;
    assert_int_equal(memblock_remove(&mb, 0x600fff, 1), E_OK);
    assert_offender(0x600000);
    assert_int_equal(memblock_add(&mb, 0x600fff, 1, MEMKIND_USABLE), E_OK);
    assert_int_equal(memblock_remove(&mb, RAM_END - 0x11000, 0x1000), E_OK);
    assert_offender(RAM_END - 0x11000);
}

/* --- random machines ------------------------------------------------------------------------- */

#define HELD_MAX 64

struct held {
    hpa_t base;
    uint64_t frames;
    enum frame_purpose purpose;
};

static struct region_node *grow(void *ctx, size_t count)
{
    struct region_node **arrays = ctx, *array = malloc(count * sizeof(*array));

    while (*arrays != NULL)
        arrays++;
    return *arrays = array;
}

static void random_machine(struct random *random)
{
    /* Within 4 MiB anywhere of the 64, so that things meet. */
    uint64_t origin = random_below(random, 16) * 4 * MiB;
    uint64_t regions = 1 + random_below(random, 12);

    for (uint64_t i = 0; i < regions; i++) {
        uint64_t base = random_below(random, 4 * MiB), size;

        size = 1 + random_below(random, random_below(random, 2) ? 4 * MiB - base : 0x8000);
        if (size > 4 * MiB - base)
            size = 4 * MiB - base;
        memblock_add(&mb, origin + base, size,
                     random_below(random, 3) ? MEMKIND_USABLE
                                             : (enum mem_kind)random_below(random, 5));
        base = random_below(random, 4 * MiB - 0x10000);
        if (random_below(random, 2))
            memblock_reserve(&mb, origin + base, 1 + random_below(random, 0x10000),
                             1 + (uint32_t)random_below(random, PURPOSE_COUNT - 1));
    }
}

/* Returns how many allocations succeeded. */
static unsigned random_allocations(struct random *random)
{
    struct held held[HELD_MAX];
    size_t count = 0;
    uint64_t frames = 0;
    unsigned succeeded = 0;

    for (int step = 0; step < 80; step++) {
        if (count < HELD_MAX && random_below(random, 3) != 0) {
            uint64_t size = 1 + random_below(random, 0x6000);
            uint64_t align = PAGE_SIZE << random_below(random, 4);
            struct held *one = &held[count];

            one->purpose = (enum frame_purpose)(1 + random_below(random, PURPOSE_COUNT - 1));
            one->frames = (size + PAGE_SIZE - 1) / PAGE_SIZE;
            /* As a search from the top that remembers nothing. */
            uint64_t expected;
            int error = memblock_find(&mb, one->frames * PAGE_SIZE, align, early.first, early.last,
                                      &expected);
            assert_int_equal(early_alloc(&early, size, align, one->purpose, &one->base), error);
            if (error != E_OK)
                continue;
            assert_int_equal(one->base.v, expected);
            assert_true(is_aligned(one->base.v, align));
            for (size_t i = 0; i < count; i++)
                assert_true(one->base.v + one->frames * PAGE_SIZE <= held[i].base.v ||
                            held[i].base.v + held[i].frames * PAGE_SIZE <= one->base.v);
            for (uint64_t i = 0; i < one->frames; i++)
                assert_int_equal(frame_by_lists(pfn_of(one->base) + i), one->purpose);
            frames += one->frames;
            count++;
            succeeded++;
        } else if (count > 0) {
            size_t i = random_below(random, count);

            assert_int_equal(
                early_free(&early, held[i].base, held[i].frames * PAGE_SIZE, held[i].purpose),
                E_OK);
            for (uint64_t j = 0; j < held[i].frames; j++)
                assert_int_equal(frame_by_lists(pfn_of(held[i].base) + j), 0);
            frames -= held[i].frames;
            held[i] = held[--count];
        }
        assert_int_equal(early.frames, frames);
        assert_int_equal(sum_of_purposes(), frames);
    }
    return succeeded;
}

static void random_machines_are_handed_over(void **state)
{
    struct random random = {1};
    unsigned allocations = 0;

    for (int machine = 0; machine < 40; machine++) {
        struct region_node *arrays[32] = {0};
        uint64_t handed, recorded;
        hpa_t bad = hpa(0);

        setup(state);
        mb.grow = grow;
        mb.grow_ctx = arrays;
        random_machine(&random);
        allocations += random_allocations(&random);
        start_buddy();
        assert_int_equal(early_hand_over(&early, &handed, &recorded), E_OK);
        assert_int_equal(early_verify_hand_over(&early, &bad), E_OK);
        check_every_frame(handed, recorded);
        for (size_t i = 0; i < ARRAY_SIZE(arrays); i++)
            free(arrays[i]);
    }
    assert_true(allocations > 1000);
}

#define case_(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
#define verify_case(name) cmocka_unit_test_setup_teardown(name, hand_over_small_machine, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        case_(gives_from_the_top_and_accounts),
        case_(stays_within_its_bounds),
        case_(refuses_what_makes_no_sense),
        case_(a_full_list_takes_nothing),
        case_(takes_back_what_it_gave),
        case_(hands_over_every_frame),
        case_(is_closed_afterwards),
        case_(a_purpose_that_is_none_stops_it),
        case_(a_buddy_that_is_too_small_stops_it),
        verify_case(verify_sees_a_free_frame_in_use),
        verify_case(verify_sees_a_taken_frame_free),
        verify_case(verify_sees_a_frame_both_had),
        verify_case(verify_sees_another_purpose),
        case_(verify_sees_another_state_or_owner),
        verify_case(verify_sees_a_missing_frame),
        verify_case(verify_sees_a_frame_that_is_no_ram),
        case_(random_machines_are_handed_over),
    };

    return cmocka_run_group_tests_name("early", tests, NULL, NULL);
}
