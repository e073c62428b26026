/*
 * The frame database: the layout of a record, the answers to queries, and the payload's rules.
 */
#include "mm/frames/frame.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "mm/frames/buddy.h"
#include "tests/unit/hosted.h"

static void *metadata;

static void start(void)
{
    uint64_t size = buddy_metadata_size(32 * MiB);
    free(metadata);
    metadata = aligned_alloc(PAGE_SIZE, size);
    memset(metadata, 0xa5, size);
    assert_int_equal(buddy_init(metadata, size, 32 * MiB), E_OK);
    assert_int_equal(buddy_record(hpa(0), 0x9000, FRAME_RESERVED, PURPOSE_FIRMWARE, 1), E_OK);
    assert_int_equal(buddy_add(hpa(0x9000), 16 * MiB - 0x9000), E_OK);
}

static void test_names(void **state)
{
    (void)state;
    for (unsigned a = 0; a < PURPOSE_COUNT; a++) {
        assert_non_null(purpose_name((enum frame_purpose)a));
        for (unsigned b = 0; b < a; b++)
            assert_string_not_equal(purpose_name((enum frame_purpose)a),
                                    purpose_name((enum frame_purpose)b));
    }
    for (unsigned a = FRAME_FREE; a <= FRAME_RESERVED; a++)
        for (unsigned b = FRAME_FREE; b < a; b++)
            assert_string_not_equal(frame_state_name((enum frame_state)a),
                                    frame_state_name((enum frame_state)b));
    assert_string_equal(purpose_name(PURPOSE_COUNT), "unknown");
    assert_string_equal(purpose_name((enum frame_purpose) - 1), "unknown");
    assert_string_equal(frame_state_name((enum frame_state)7), "unknown");
}

/* The layout is an interface: it is printed raw, and tools read it. */
static void test_layout(void **state)
{
    (void)state;
    assert_int_equal(frame_record(FRAME_FREE, 0, PURPOSE_FREE, OWNER_NONE), 0);
    assert_int_equal(frame_record(FRAME_RESERVED, 18, PURPOSE_TEST, 2047),
                     6 | 18 << 3 | 14 << 8 | 2047 << 13);
    for (unsigned s = FRAME_FREE; s <= FRAME_RESERVED; s++)
        for (unsigned order = 0; order < BUDDY_ORDERS; order++)
            for (unsigned purpose = 0; purpose < PURPOSE_COUNT; purpose++)
                for (unsigned owner = 0; owner < OWNER_LIMIT; owner += 89) {
                    uint64_t payload = UINT64_C(0xfedcba9876) ^ owner;
                    struct frame_info info = frame_record_decode(
                        frame_record((enum frame_state)s, order, (enum frame_purpose)purpose,
                                     (owner_t)owner) |
                        payload << FRAME_PAYLOAD_SHIFT);
                    assert_int_equal(info.state, s);
                    assert_int_equal(info.order, order);
                    assert_int_equal(info.purpose, purpose);
                    assert_int_equal(info.owner, owner);
                    assert_int_equal(info.payload, payload);
                }
}

static void assert_query(hpa_t frame, enum frame_state state, unsigned order,
                         enum frame_purpose purpose, owner_t owner, uint64_t payload, hpa_t head)
{
    struct frame_info info;
    hpa_t first;
    assert_int_equal(frame_query(frame, &info, &first), E_OK);
    assert_int_equal(frame_query(frame, &info, NULL), E_OK);
    assert_int_equal(info.state, state);
    assert_int_equal(info.order, order);
    assert_int_equal(info.purpose, purpose);
    assert_int_equal(info.owner, owner);
    assert_int_equal(info.payload, payload);
    assert_int_equal(first.v, head.v);
}

static void test_query(void **state)
{
    (void)state;
    hpa_t block, other;
    struct frame_info info;
    start();

    assert_int_equal(buddy_alloc(3, PURPOSE_EPT_TABLE, 20, &block), E_OK);
    frame_set_payload(block, 77);
    for (unsigned i = 0; i < 8; i++) /* any address within the frame does */
        assert_query(hpa_add(block, i * PAGE_SIZE + 511 * i), i == 0 ? FRAME_USED : FRAME_TAIL, 3,
                     PURPOSE_EPT_TABLE, 20, 77, block);
    assert_int_equal(buddy_alloc(18, PURPOSE_TEST, 1, &other), E_NOMEM); /* empties the caches */
    assert_query(hpa(8 * MiB - 1), FRAME_FREE, 10, PURPOSE_FREE, OWNER_NONE, 0, hpa(4 * MiB));
    assert_query(hpa(0x9000), FRAME_FREE, 0, PURPOSE_FREE, OWNER_NONE, 0, hpa(0x9000));

    assert_int_equal(buddy_free(block, 3, 20), E_OK);
    for (unsigned i = 0; i < 8; i++)
        assert_query(hpa_add(block, i * PAGE_SIZE), FRAME_CACHED, 3, PURPOSE_FREE, OWNER_NONE, 0,
                     block);
    /* Reserved: one block of 8 and one of 1, every frame of which says the same. */
    for (unsigned i = 0; i < 8; i++)
        assert_query(hpa(i * PAGE_SIZE), FRAME_RESERVED, 3, PURPOSE_FIRMWARE, 1, 0, hpa(0));
    assert_query(hpa(0x8000), FRAME_RESERVED, 0, PURPOSE_FIRMWARE, 1, 0, hpa(0x8000));

    assert_int_equal(frame_query(hpa(16 * MiB), &info, NULL), E_RANGE);
    assert_int_equal(frame_query(hpa(32 * MiB - 1), &info, NULL), E_RANGE);
    assert_int_equal(frame_query(hpa(32 * MiB), &info, NULL), E_RANGE);
    assert_int_equal(frame_query(hpa(UINT64_MAX), &info, NULL), E_RANGE);
}

static void test_payload(void **state)
{
    (void)state;
    hpa_t head;
    start();
    assert_int_equal(buddy_alloc(1, PURPOSE_USER_TABLE, 3, &head), E_OK);
    assert_int_equal(frame_payload(head), 0); /* a new block's, whatever the last holder left */
    frame_set_payload(head, BITS(39, 0));
    assert_int_equal(frame_payload(head), BITS(39, 0));
    assert_query(head, FRAME_USED, 1, PURPOSE_USER_TABLE, 3, BITS(39, 0), head);
    assert_int_equal(buddy_free(head, 1, 3), E_OK);
    assert_int_equal(buddy_alloc_at(head, 1, PURPOSE_TEST, 1), E_OK);
    assert_int_equal(frame_payload(head), 0);
}

static void test_states(void **state)
{
    (void)state;
    hpa_t head;
    start();
    assert_int_equal(buddy_alloc(0, PURPOSE_GUEST_RAM, 16, &head), E_OK);
    frame_set_payload(head, 5);
    frame_set_state(head, FRAME_DYING);
    assert_query(head, FRAME_DYING, 0, PURPOSE_GUEST_RAM, 16, 5, head);
    assert_panics(frame_set_state(head, FRAME_DYING), "broken invariant");
    assert_panics(frame_set_state(head, FRAME_FREE), "broken invariant");
    frame_set_state(head, FRAME_USED);
    assert_query(head, FRAME_USED, 0, PURPOSE_GUEST_RAM, 16, 5, head);
    assert_panics(frame_set_state(head, FRAME_USED), "broken invariant");
    assert_panics(frame_set_state(head, FRAME_RESERVED), "broken invariant");
    assert_int_equal(buddy_free(head, 0, 16), E_OK);
    assert_panics(frame_set_state(head, FRAME_DYING), "broken invariant");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_names),   cmocka_unit_test(test_layout), cmocka_unit_test(test_query),
        cmocka_unit_test(test_payload), cmocka_unit_test(test_states),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    free(metadata);
    return failed;
}
