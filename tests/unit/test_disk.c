/*
 * What guests have written to their BIOS's disks, against a plain model: a number for each sector
 * that tells what is in it. Writes, snapshots, ways back, forks and ends in any order, frames
 * running out; the auditor after each.
 */
#include "vm/disk.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "lib/bits.h"
#include "lib/error.h"
#include "mm/frames/buddy.h"
#include "tests/unit/memory_model.h"
#include "vm/fork.h"
#include "vm/snapshot.h"

#define IMAGE                                                                                      \
    (2 * MiB + 9 * KiB + 100) /* beyond the first table of 4 KiB pages; its end is cut off */
#define SECTORS 96u           /* that are written, up and down the disk */
#define HOLDERS 6u

static uint8_t image[IMAGE];

static struct holder {
    struct guest *guest; /* NULL: it has ended */
    bool has_snapshot;
    uint8_t now[SECTORS], then[SECTORS]; /* 0: as the image has it */
} holders[HOLDERS];
static unsigned used;

/* Whole pages, the last one among them. */
static uint64_t place(unsigned sector)
{
    unsigned page = (IMAGE - 1) / PAGE_SIZE - sector / 8 * 43;

    return page * PAGE_SIZE + sector % 8 * BIOS_SECTOR;
}

static uint8_t expected(unsigned sector, uint8_t stamp, unsigned byte)
{
    uint64_t at = place(sector) + byte;

    if (stamp != 0)
        return (uint8_t)(stamp * 7u + byte);
    return at < IMAGE ? image[at] : 0;
}

static void compare(const struct holder *holder)
{
    uint8_t read[BIOS_SECTOR];

    for (unsigned i = 0; i < SECTORS; i++) {
        disk_read(holder->guest, place(i), read);
        for (unsigned j = 0; j < BIOS_SECTOR; j++)
            if (read[j] != expected(i, holder->now[i], j))
                fail_msg("g%u: byte %u of sector %u is %u", holder->guest->number, j, i, read[j]);
    }
}

static int write(struct holder *holder, unsigned sector, uint8_t stamp)
{
    uint8_t bytes[BIOS_SECTOR];

    for (unsigned j = 0; j < BIOS_SECTOR; j++)
        bytes[j] = expected(sector, stamp, j);
    int error = disk_write(holder->guest, place(sector), bytes);
    if (error == E_OK)
        holder->now[sector] = stamp;
    return error;
}

static void start(void)
{
    static struct guest_image from = {.bytes = image, .size = IMAGE, .cmdline = "disk pc mem=1M"};

    for (unsigned i = 0; i < IMAGE; i++)
        image[i] = (uint8_t)(i / 509 + i % 251);
    image[510] = 0x55;
    image[511] = 0xaa;
    start_machine(BY_MARKS);
    memset(holders, 0, sizeof(holders));
    assert_int_equal(guest_create(&from, &holders[0].guest), E_OK);
    assert_true(holders[0].guest->has_disk);
    used = 1;
}

static void end(struct holder *holder)
{
    assert_int_equal(guest_kill(holder->guest), E_OK);
    while (guest_holds(holder->guest))
        guests_round();
    assert_false(disk_is_written(&holder->guest->disk));
    holder->guest = NULL;
}

static void stop(void)
{
    for (unsigned i = 0; i < used; i++)
        if (holders[i].guest != NULL)
            end(&holders[i]);
    stop_machine();
}

static int count_page(void *ctx, const struct mapping *leaf)
{
    (void)leaf;
    ++*(uint64_t *)ctx;
    return 0;
}

static uint64_t written_pages(struct guest *guest)
{
    struct table *table = &guest->disk.table;
    uint64_t pages = 0;

    if (disk_is_written(&guest->disk))
        (void)table_visit(table, 0, table->kind->input_last, VISIT_PAGES, count_page, &pages);
    return pages;
}

static void nothing_costs_nothing(void **state)
{
    (void)state;
    start();
    struct guest *guest = holders[0].guest;
    uint64_t held = buddy_owner_frames(guest_owner(guest));
    compare(&holders[0]);
    assert_int_equal(written_pages(guest), 0);
    assert_int_equal(disk_frames(guest), 0);
    assert_int_equal(write(&holders[0], 0, 1), E_OK);
    assert_int_equal(written_pages(guest), 1);
    assert_int_equal(buddy_owner_frames(guest_owner(guest)), held + disk_frames(guest));
    assert_int_equal(disk_frames(guest), 1 + 4); /* the page, and what leads to it */
    compare(&holders[0]);
    stop();
}

/* At each frame that is not there: nothing has changed, and what was written is. */
static void frames_run_out(void **state)
{
    (void)state;
    start();
    owner_t owner = guest_owner(holders[0].guest);
    for (unsigned k = 0; k < 5; k++) {
        buddy_set_quota(owner, buddy_owner_frames(owner) - disk_frames(holders[0].guest) + k);
        assert_int_equal(write(&holders[0], 7, 9), E_QUOTA);
        compare(&holders[0]);
        audit_all();
    }
    buddy_set_quota(owner, UINT64_MAX);
    assert_int_equal(write(&holders[0], 7, 9), E_OK);
    compare(&holders[0]);
    stop();
}

/* A fork between the write and the way back: what was written is another's as well. */
static void a_write_that_a_fork_holds_goes_back(void **state)
{
    (void)state;
    start();
    assert_int_equal(guest_snapshot(holders[0].guest), E_OK);
    assert_int_equal(write(&holders[0], 3, 5), E_OK);
    assert_int_equal(guest_fork(holders[0].guest, &holders[1].guest), E_OK);
    memcpy(holders[1].now, holders[0].now, SECTORS);
    used = 2;
    assert_int_equal(guest_back(holders[0].guest), E_OK);
    holders[0].now[3] = 0;
    compare(&holders[0]);
    compare(&holders[1]);
    audit_all();
    stop();
}

static void it_goes_by_and_by(void **state)
{
    uint8_t sector[BIOS_SECTOR] = {1};
    unsigned calls = 1;

    (void)state;
    start();
    for (uint64_t at = 0; at < IMAGE; at += PAGE_SIZE)
        assert_int_equal(disk_write(holders[0].guest, at, sector), E_OK);
    assert_int_equal(written_pages(holders[0].guest), (IMAGE + PAGE_SIZE - 1) / PAGE_SIZE);
    for (; !disk_forget_by(&holders[0].guest->disk, 0); calls++)
        audit_all();
    assert_int_equal(calls, 3); /* 256 pages at a time */
    compare(&holders[0]);
    stop();
}

static void fork_one(struct holder *from)
{
    struct holder *to = &holders[used];

    if (used == HOLDERS)
        return;
    assert_int_equal(guest_fork(from->guest, &to->guest), E_OK);
    memcpy(to->now, from->now, SECTORS);
    used++;
}

static void snapshot_one(struct holder *holder)
{
    assert_int_equal(guest_snapshot(holder->guest), E_OK);
    memcpy(holder->then, holder->now, SECTORS);
    holder->has_snapshot = true;
}

static void send_back(struct holder *holder)
{
    assert_int_equal(guest_back(holder->guest), holder->has_snapshot ? E_OK : E_NOENT);
    if (holder->has_snapshot)
        memcpy(holder->now, holder->then, SECTORS);
}

static void write_some(struct holder *holder)
{
    owner_t owner = guest_owner(holder->guest);

    if (random_below(&chance, 4) == 0)
        buddy_set_quota(owner, buddy_owner_frames(owner) + random_below(&chance, 4));
    for (unsigned i = 0; i < 6; i++)
        (void)write(holder, (unsigned)random_below(&chance, SECTORS),
                    (uint8_t)random_below(&chance, 256));
    buddy_set_quota(owner, UINT64_MAX);
}

static void step(struct holder *holder)
{
    switch (random_below(&chance, 12)) {
    case 0:
        fork_one(holder);
        break;
    case 1:
        snapshot_one(holder);
        break;
    case 2:
    case 3:
        send_back(holder);
        break;
    case 4:
        guest_snapshot_drop(holder->guest);
        holder->has_snapshot = false;
        break;
    case 5:
        if (random_below(&chance, 6) == 0)
            end(holder);
        break;
    default:
        write_some(holder);
    }
}

static void in_any_order(void **state)
{
    (void)state;
    for (unsigned round = 0; round < 30; round++) {
        chance.state = round;
        start();
        for (unsigned i = 0; i < 60; i++) {
            struct holder *holder = &holders[random_below(&chance, used)];

            if (holder->guest != NULL)
                step(holder);
            for (unsigned j = 0; j < used; j++)
                if (holders[j].guest != NULL)
                    compare(&holders[j]);
            audit_all();
        }
        stop();
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nothing_costs_nothing),
        cmocka_unit_test(frames_run_out),
        cmocka_unit_test(a_write_that_a_fork_holds_goes_back),
        cmocka_unit_test(it_goes_by_and_by),
        cmocka_unit_test(in_any_order),
    };
    return cmocka_run_group_tests_name("disk", tests, NULL, NULL);
}
