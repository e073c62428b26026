/*
 * The buddy's own verification against damage: each single bit of its bitmaps and records, and of
 * its counters, is turned round in a memory that is in all sorts of use. It must survive the look,
 * name what is wrong wherever the bit means anything, and be content again once the bit is back.
 */
#include "mm/frames/buddy.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "mm/frames/buddy_cache.h"
#include "tests/unit/random.h"

#define RAM (6 * MiB)
#define OWNERS 3
#define HELD 400

static uint8_t *metadata, *ram;
static uint64_t metadata_size;
static struct {
    hpa_t block;
    unsigned order;
    owner_t owner;
} held[HELD];
static unsigned holding;

/* Blocks of many orders, taken and given back at random; some shared, some reserved, some in
 * caches. */
static void set_up_memory(void)
{
    struct random random = {7};

    holding = 0;
    metadata_size = align_up(buddy_metadata_size(RAM), PAGE_SIZE);
    metadata = aligned_alloc(PAGE_SIZE, metadata_size);
    ram = aligned_alloc(PAGE_SIZE, RAM); /* freed frames may be poisoned */
    memset(metadata, 0xa5, metadata_size);
    direct_base = (uint64_t)(uintptr_t)ram;
    assert_int_equal(buddy_init(metadata, metadata_size, RAM), E_OK);
    assert_int_equal(
        buddy_record(hpa(0), 16 * PAGE_SIZE, FRAME_RESERVED, PURPOSE_FIRMWARE, OWNER_NONE), E_OK);
    assert_int_equal(buddy_add(hpa(16 * PAGE_SIZE), RAM - 16 * PAGE_SIZE), E_OK);
    for (unsigned round = 0; round < 4000; round++) {
        unsigned n = (unsigned)random_below(&random, HELD);

        if (n >= holding && holding < HELD) {
            n = holding;
            held[n].order = random_below(&random, 4) ? 0 : (unsigned)random_below(&random, 7);
            held[n].owner = (owner_t)(20 + random_below(&random, OWNERS));
            if (buddy_alloc(held[n].order, PURPOSE_TEST, held[n].owner, &held[n].block) == E_OK)
                holding++;
        } else if (n < holding) {
            assert_int_equal(buddy_free(held[n].block, held[n].order, held[n].owner), E_OK);
            held[n] = held[--holding];
        }
    }
    assert_true(holding > HELD / 2);
    for (unsigned i = 0; i < 4; i++)
        assert_int_equal(buddy_share(held[i].block, held[i].owner), E_OK);
}

static void tear_down_memory(void)
{
    free(metadata);
    free(ram);
    holding = 0;
}

/* Turns a bit round, looks, and turns it back. Says whether it was noticed. */
static bool notices(uint64_t *word, unsigned bit)
{
    char why[160] = "";

    *word ^= BIT(bit);
    int error = buddy_verify(why, sizeof(why));
    *word ^= BIT(bit);
    assert_true(error == E_OK || (error == E_STATE && why[0]));
    return error != E_OK;
}

static void content(void)
{
    char why[160];

    if (buddy_verify(why, sizeof(why)) != E_OK)
        fail_msg("%s", why);
}

static void test_records(void **state)
{
    unsigned looked = 0;

    (void)state;
    set_up_memory();
    content();
    for (unsigned i = 0; i < holding; i++)
        for (unsigned bit = 0; bit < FRAME_PAYLOAD_SHIFT; bit++, looked++) {
            uint64_t *record = &frame_records[pfn_of(held[i].block)];
            enum frame_state after = frame_record_state(*record ^ BIT(bit));
            bool noticed = notices(record, bit);
            /* A shared block may as well be one in use or dying, whose payload is its holder's. */
            if (!noticed && after != FRAME_USED && after != FRAME_DYING)
                fail_msg("bit %u of the record %#lx goes unnoticed", bit, *record);
        }
    content();
    print_message("%u bits of records\n", looked);
    tear_down_memory();
}

static void test_counters(void **state)
{
    struct {
        const char *name;
        uint64_t *word;
    } counters[BUDDY_ORDERS + 16];
    unsigned count = 0;

    (void)state;
    set_up_memory();
    for (unsigned order = 0; order < BUDDY_ORDERS; order++) {
        counters[count].name = "members";
        counters[count++].word = &buddy.members[order];
    }
    counters[count].name = "free_frames";
    counters[count++].word = &buddy.free_frames;
    counters[count].name = "total";
    counters[count++].word = &buddy.total;
    counters[count].name = "reserved";
    counters[count++].word = &buddy.reserved;
    counters[count].name = "charged_for";
    counters[count++].word = &buddy.charged_for[PURPOSE_TEST];
    for (unsigned owner = 20; owner < 20 + OWNERS; owner++) {
        counters[count].name = "charged";
        counters[count++].word = &buddy_accounts[owner].charged;
    }
    for (unsigned i = 0; i < count; i++)
        for (unsigned bit = 0; bit < 64; bit++)
            if (!notices(counters[i].word, bit))
                fail_msg("bit %u of %s goes unnoticed", bit, counters[i].name);
    for (unsigned bit = 0; bit < BUDDY_ORDERS; bit++) {
        char why[160];
        buddy.open_orders ^= 1u << bit;
        assert_int_equal(buddy_verify(why, sizeof(why)), E_STATE);
        buddy.open_orders ^= 1u << bit;
    }
    content();
    tear_down_memory();
}

/* What lies beyond a summary bit of 0 was never written and means nothing: there a bit may go
 * unnoticed. */
static void test_bitmaps(void **state)
{
    unsigned noticed = 0, looked = 0;

    (void)state;
    set_up_memory();
    uint64_t *words = (uint64_t *)(void *)metadata;
    const uint64_t *records_end = frame_records + RAM / PAGE_SIZE;
    for (uint64_t i = 0; i < metadata_size / 8; i++) {
        if (&words[i] >= frame_records && &words[i] < records_end)
            continue;
        for (unsigned bit = 0; bit < 64; bit++, looked++)
            noticed += notices(&words[i], bit);
    }
    content();
    /* Of each set the words in use: at least one bit a free block and its summaries. */
    assert_true(noticed > 1000);
    print_message("%u of %u bits of bitmaps noticed\n", noticed, looked);
    tear_down_memory();
}

/* The records of frames in the middle of blocks and in free blocks mean nothing; no bit of them
 * kills. */
static void test_records_without_meaning(void **state)
{
    unsigned noticed = 0;

    (void)state;
    set_up_memory();
    for (uint64_t pfn = 0; pfn < RAM / PAGE_SIZE; pfn++)
        for (unsigned bit = 0; bit < 64; bit += 3)
            noticed += notices(&frame_records[pfn], bit);
    content();
    assert_true(noticed > 1000);
    tear_down_memory();
}

static void test_caches(void **state)
{
    struct cpu *cpu = &buddy_cpus[0];
    unsigned noticed = 0;

    (void)state;
    set_up_memory();
    for (unsigned order = 0; order < CACHED_ORDERS; order++)
        for (unsigned bit = 0; bit < 3 * 64; bit++)
            noticed += notices((uint64_t *)&cpu->stack[order] + bit / 64, bit % 64);
    assert_int_equal(noticed, CACHED_ORDERS * 3 * 64);
    for (unsigned order = 0; order < CACHED_ORDERS; order++)
        for (unsigned i = 0; i < stack_count(&cpu->stack[order]); i++)
            for (unsigned bit = 0; bit < 64; bit++)
                if (!notices(&cpu->slot[cache_first(order) + i], bit))
                    fail_msg("bit %u of a cached block of order %u goes unnoticed", bit, order);
    for (unsigned bit = 0; bit < 64; bit++) {
        assert_true(notices(&cpu->held, bit) || cpu->held_base == 0);
        notices(&cpu->held_base, bit);
    }
    content();
    tear_down_memory();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_records), cmocka_unit_test(test_counters),
        cmocka_unit_test(test_bitmaps), cmocka_unit_test(test_records_without_meaning),
        cmocka_unit_test(test_caches),
    };
    return cmocka_run_group_tests_name("buddy damage", tests, NULL, NULL);
}
