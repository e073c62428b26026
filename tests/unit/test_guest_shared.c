/*
 * Memory that guests share by name, among everything else that their memory goes through
 * (memory_model.h): one array of words is what all of them see.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "lib/bits.h"
#include "lib/error.h"
#include "mm/frames/buddy.h"
#include "tests/unit/memory_model.h"
#include "vm/dirty.h"
#include "vm/fork.h"
#include "vm/shared.h"
#include "vm/slot_change.h"
#include "vm/slots.h"
#include "vm/snapshot.h"

#define RING_PAGES 600u /* a page of 2 MiB, and some small ones */
#define RING_AT (UINT64_C(1) << 30)
#define OPTION "share=ring:2400K@1G"
#define READ_ONLY "share=ring:2400K:r@1G"
#define ELSEWHERE "share=ring:2400K@0x40001000" /* by small pages alone */

static uint64_t ring[RING_PAGES];

static gpa_t place_in_ring(const struct guest *guest, unsigned page)
{
    for (unsigned i = 0; i < guest->slots; i++)
        if (guest->slot[i].kind == SLOT_SHARED)
            return gpa_add(guest->slot[i].base, page * PAGE_SIZE);
    return gpa(0);
}

static const struct slot *ring_slot(const struct guest *guest)
{
    return guest_slot_at(guest, place_in_ring(guest, 0));
}

static void expect_ring(const struct model *model)
{
    for (unsigned i = 0; i < RING_PAGES; i++) {
        uint64_t word = 1;

        assert_int_equal(guest_read(model->guest, place_in_ring(model->guest, i), &word, 8), 8);
        if (word != ring[i])
            fail_msg("g%u, page %u: 0x%lx, not 0x%lx", model->guest->number, i, word, ring[i]);
    }
}

static bool has_ring(const struct model *model)
{
    return ring_slot(model->guest)->kind == SLOT_SHARED;
}

static void write_ring(struct model *model)
{
    unsigned page = (unsigned)random_below(&chance, RING_PAGES);
    uint64_t stamp = random_next(&chance);
    gpa_t at = place_in_ring(model->guest, page);

    if (ring_slot(model->guest)->rights & RIGHT_W) {
        uint64_t *word = reach(model->guest, at, RIGHT_W);

        assert_non_null(word);
        *word = stamp;
    } else {
        assert_int_equal(guest_write(model->guest, at, &stamp, sizeof(stamp)), sizeof(stamp));
    }
    ring[page] = stamp;
}

/* With room for so many frames: it has it, or as if it had not been tried. */
static void add_ring(struct model *model)
{
    static const uint64_t places[] = {RING_AT, RING_AT + PAGE_SIZE, 4 * MiB};
    unsigned rights = random_below(&chance, 2) ? RIGHT_RW : RIGHT_R, before = model->guest->slots;
    gpa_t at = gpa(places[random_below(&chance, ARRAY_SIZE(places))]);
    owner_t owner = guest_owner(model->guest);
    uint64_t held = buddy_owner_frames(owner);

    if (has_ring(model))
        return;
    if (random_below(&chance, 2))
        buddy_set_quota(owner, held + random_below(&chance, 8));
    int error = slot_insert_shared(model->guest, "ring", at, RING_PAGES * PAGE_SIZE, rights);
    buddy_set_quota(owner, UINT64_MAX);
    if (error == E_OK) {
        assert_int_equal(ring_slot(model->guest)->rights, rights);
        assert_int_equal(ring_slot(model->guest)->backed, RING_PAGES * PAGE_SIZE);
        expect_ring(model);
        return;
    }
    assert_int_equal(error, at.v < 8 * MiB ? E_EXIST : E_QUOTA);
    assert_int_equal(model->guest->slots, before);
    assert_false(has_ring(model));
}

static void change(struct model *model)
{
    switch (random_below(&chance, 15)) {
    case 13:
    case 14:
        add_ring(model);
        break;
    case 12:
        give_or_take(model, random_below(&chance, 2) ? UINT64_MAX : random_below(&chance, 12));
        break;
    case 0:
        take_snapshot(model);
        break;
    case 1:
        go_back(model);
        break;
    case 2:
        make_fork(model);
        break;
    case 3:
        if (guests_alive() > 1)
            end_one(model);
        break;
    case 4:
        ask_again(model);
        break;
    case 5:
        ask_no_more(model);
        break;
    case 6:
        if (guests_alive() > 1 && living > 1 && has_ring(model) && random_below(&chance, 3) == 0)
            assert_int_equal(
                slot_remove(model->guest, ring_slot(model->guest)->base, RING_PAGES * PAGE_SIZE),
                E_OK);
        break;
    default:
        for (unsigned n = 0; n < 8; n++) {
            assert_true(cpu_write(model, some_page(model, RIGHT_RW), random_next(&chance)));
            if (has_ring(model))
                write_ring(model);
        }
    }
}

static void run(enum way way, uint64_t seed)
{
    start_machine(way);
    chance.state = seed;
    memset(ring, 0, sizeof(ring));
    make("a mem=8M " OPTION);
    make("b mem=8M lazy " ELSEWHERE);
    make("c mem=8M " READ_ONLY);
    struct model *last = make("d mem=8M " OPTION); /* has it until the end */
    for (unsigned n = 0; n < 200; n++) {
        struct model *model = some_model();

        if (model != last)
            change(model);
        else
            write_ring(model);
        audit_all();
        model = some_model();
        expect_contents(model);
        if (has_ring(model))
            expect_ring(model);
    }
    expect_ring(last);
    for (unsigned i = 0; i < living; i++)
        if (models[i].guest != NULL)
            end_one(&models[i]);
    stop_machine();
}

static void one_memory_for_all(void **state)
{
    (void)state;
    for (enum way way = 0; way < WAYS; way++)
        for (uint64_t seed = 0; seed < 3; seed++)
            run(way, 1 + 10 * seed + way);
}

/* It is made by the first, zeroed, and goes with the last; nobody is charged with it. */
static void from_the_first_to_the_last(void **state)
{
    uint64_t word = 5, frames;
    struct guest *fork;

    (void)state;
    start_machine(BY_MARKS);
    memset(ring, 0, sizeof(ring));
    struct model *a = make("a mem=1M " OPTION);
    expect_ring(a);
    frames = buddy_owner_frames(OWNER_SHARED);
    assert_in_range(frames, RING_PAGES, RING_PAGES + 8);
    struct model *b = make("b mem=1M " READ_ONLY);
    assert_int_equal(buddy_owner_frames(OWNER_SHARED), frames);
    assert_int_equal(shared_by_index(0)->users, 2);
    assert_true(buddy_owner_frames(guest_owner(b->guest)) < 256);
    assert_int_equal(guest_write(a->guest, gpa(RING_AT), &word, 8), 8);
    assert_int_equal(guest_snapshot(a->guest), E_OK);
    assert_int_equal(guest_fork(b->guest, &fork), E_OK);
    assert_int_equal(shared_by_index(0)->users, 4);
    assert_int_equal(ring_slot(fork)->rights, RIGHT_R);
    audit_all();
    assert_int_equal(guest_kill(b->guest), E_OK);
    assert_int_equal(guest_kill(a->guest), E_OK);
    assert_int_equal(shared_by_index(0)->users, 1);
    assert_int_equal(guest_start(a->guest), E_OK); /* finds what the fork has kept */
    word = 0;
    assert_int_equal(guest_read(a->guest, gpa(RING_AT), &word, 8), 8);
    assert_int_equal(word, 5);
    assert_int_equal(guest_kill(a->guest), E_OK);
    assert_int_equal(guest_kill(fork), E_OK);
    assert_null(shared_by_index(0));
    assert_int_equal(buddy_owner_frames(OWNER_SHARED), 0);
    assert_int_equal(guest_start(a->guest), E_OK); /* made anew */
    expect_ring(a);
    assert_int_equal(guest_kill(a->guest), E_OK);
    stop_machine();
}

/* A snapshot keeps it, when its guest has it no more and nobody else has. */
static void a_snapshot_has_it(void **state)
{
    uint64_t word = 5;

    (void)state;
    start_machine(BY_MARKS);
    struct guest *guest = make("a mem=1M " OPTION)->guest;
    assert_int_equal(guest_write(guest, gpa(RING_AT), &word, 8), 8);
    assert_int_equal(guest_snapshot(guest), E_OK);
    assert_int_equal(slot_remove(guest, gpa(RING_AT), RING_PAGES * PAGE_SIZE), E_OK);
    assert_int_equal(shared_by_index(0)->users, 1);
    audit_all();
    assert_int_equal(guest_back(guest), E_OK);
    assert_int_equal(shared_by_index(0)->users, 2);
    word = 0;
    assert_int_equal(guest_read(guest, gpa(RING_AT), &word, 8), 8);
    assert_int_equal(word, 5);
    audit_all();
    assert_int_equal(slot_remove(guest, gpa(RING_AT + PAGE_SIZE), PAGE_SIZE), E_OK);
    assert_int_equal(shared_by_index(0)->users, 3); /* two parts, and the snapshot's */
    audit_all();
    assert_int_equal(guest_kill(guest), E_OK);
    stop_machine();
}

/* One guest's writes are that guest's alone. */
static void each_has_written_what_it_wrote(void **state)
{
    (void)state;
    for (enum way way = 0; way < WAYS; way++) {
        start_machine(way);
        struct guest *a = make("a mem=1M " OPTION)->guest, *b = make("b mem=1M " OPTION)->guest;

        assert_int_equal(dirty_start(a, DIRTY_CONSOLE), E_OK);
        assert_int_equal(dirty_start(b, DIRTY_CONSOLE), E_OK);
        *reach(a, gpa(RING_AT), RIGHT_W) = 7;
        *reach(b, gpa(RING_AT + PAGE_SIZE), RIGHT_W) = 8;
        dirty_collect(a);
        dirty_collect(b);
        assert_int_equal(a->dirty.set[DIRTY_CONSOLE].pages, 1);
        assert_int_equal(b->dirty.set[DIRTY_CONSOLE].pages, 1);
        assert_true(page_set_has(&b->dirty.set[DIRTY_CONSOLE], RING_AT + PAGE_SIZE));
        assert_int_equal(*reach(b, gpa(RING_AT), RIGHT_R), 7);
        dirty_stop(a, DIRTY_CONSOLE);
        audit_all();
        assert_int_equal(a->pages_copied + b->pages_copied, 0);
        assert_int_equal(guest_kill(a), E_OK);
        assert_int_equal(guest_kill(b), E_OK);
        stop_machine();
    }
}

static void refused(const char *cmdline, const char *reason)
{
    static uint8_t image[512] = {[510] = 0x55, [511] = 0xaa};
    const struct guest_image of = {.bytes = image, .size = sizeof(image), .cmdline = cmdline};
    struct guest *guest;

    assert_int_not_equal(guest_create(&of, &guest), E_OK);
    if (strstr(guest->reason, reason) == NULL)
        fail_msg("%s", guest->reason);
}

static void what_is_refused(void **state)
{
    char line[64];

    (void)state;
    start_machine(BY_MARKS);
    struct guest *guest = make("a mem=1M " OPTION)->guest;
    refused("b mem=1M share=ring:1M@1G", "share=ring: it has 2400K, not 1M");
    refused("b mem=1M share=large:1G@1G", "share=large: no memory of 1G: ");
    for (unsigned i = 1; i < SHARED_LIMIT; i++) {
        snprintf(line, sizeof(line), "c mem=1M share=s%u:4K@1G", i);
        make(line);
        living = 1;
    }
    refused("b mem=1M share=more:4K@1G", "there are 16 memories with names already");
    assert_int_equal(slot_insert_shared(guest, "ring", gpa(2 * GiB), PAGE_SIZE, RIGHT_R), E_INVAL);
    assert_int_equal(slot_insert_shared(guest, "more", gpa(2 * GiB), PAGE_SIZE, RIGHT_R), E_FULL);
    assert_int_equal(slot_insert_shared(guest, "s1", gpa(RING_AT), PAGE_SIZE, RIGHT_R), E_EXIST);
    assert_int_equal(slot_insert_shared(guest, "s1", gpa(2 * GiB + 1), PAGE_SIZE, RIGHT_R),
                     E_ALIGN);
    assert_int_equal(
        slot_insert_shared(guest, "s1", gpa(guest_addresses_end()), PAGE_SIZE, RIGHT_R), E_RANGE);
    assert_int_equal(slot_insert_shared(guest, "s1", gpa(2 * GiB), PAGE_SIZE, RIGHT_R), E_OK);
    assert_int_equal(shared_by_index(1)->users, 2);
    audit_all();
    for (unsigned i = 1; i <= guest_count(); i++)
        if (!guest_ended(guest_by_number(i)))
            assert_int_equal(guest_kill(guest_by_number(i)), E_OK);
    assert_true(guest_ended(guest));
    stop_machine();
}

/* With any number of frames a guest has it, or nothing is left of the trial. */
static void every_shortage(void **state)
{
    static uint8_t image[512] = {[510] = 0x55, [511] = 0xaa};
    int error = E_NOMEM;

    (void)state;
    start_machine(BY_MARKS);
    struct guest *first = make("a mem=1M " OPTION)->guest, *guest;
    struct guest_image of = {.bytes = image, .size = sizeof(image)};
    for (unsigned k = 0; error != E_OK; k++) {
        char line[80];

        snprintf(line, sizeof(line), "b mem=1M lazy quota=%uK " ELSEWHERE, 4 * (k + 1));
        of.cmdline = line;
        error = guest_create(&of, &guest);
        assert_true(error == E_OK || buddy_owner_frames(guest_owner(guest)) == 0);
        assert_int_equal(shared_by_index(0)->users, error == E_OK ? 2 : 1);
        audit_all();
        assert_true(k < 40);
    }
    struct guest *late = make("c mem=1M")->guest;
    error = E_QUOTA;
    for (unsigned k = 0; error != E_OK; k++) {
        uint64_t held = buddy_owner_frames(guest_owner(late));

        buddy_set_quota(guest_owner(late), held + k);
        error = slot_insert_shared(late, "ring", gpa(GiB + PAGE_SIZE), RING_PAGES * PAGE_SIZE,
                                   RIGHT_RW);
        assert_true(error == E_OK || buddy_owner_frames(guest_owner(late)) == held);
        assert_int_equal(shared_by_index(0)->users, error == E_OK ? 3 : 2);
        audit_all();
        assert_true(k < 10);
    }
    assert_int_equal(guest_kill(late), E_OK);
    assert_int_equal(guest_kill(guest), E_OK);
    assert_int_equal(guest_kill(first), E_OK);
    stop_machine();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_memory_for_all), cmocka_unit_test(from_the_first_to_the_last),
        cmocka_unit_test(a_snapshot_has_it),  cmocka_unit_test(each_has_written_what_it_wrote),
        cmocka_unit_test(what_is_refused),    cmocka_unit_test(every_shortage),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
