/*
 * Shares of the CPU, with a CPU and a clock that the test plays: whatever a guest has the
 * hypervisor do is charged to it, and what it prints holds nobody up.
 */
#include "vm/share.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "guests/abi.h"
#include "lib/bits.h"
#include "lib/error.h"
#include "lib/log.h"
#include "mm/frames/buddy.h"
#include "tests/unit/fake_machine.h"
#include "vm/guest.h"
#include "vm/ports.h"
#include "vm/slots.h"

#define LSR 0x3fd
#define LSR_READY 0x60

static uint8_t sector[512];

static int set_up(void **state)
{
    (void)state;
    machine_start(64 * MiB);
    guests_init(&machine_backend, NULL);
    guests_set_between(NULL);
    sector[510] = 0x55;
    sector[511] = 0xaa;
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    log_set_room(NULL);
    for (unsigned i = 1; i <= guest_count(); i++)
        if (!guest_ended(guest_by_number(i)))
            guest_kill(guest_by_number(i));
    machine_stop();
    return 0;
}

static struct guest *make(const char *cmdline)
{
    const struct guest_image image = {.bytes = sector, .size = sizeof(sector), .cmdline = cmdline};
    struct guest *guest;

    if (guest_create(&image, &guest) != E_OK)
        fail_msg("%s: %s", cmdline, guest != NULL ? guest->reason : "no guest");
    return guest;
}

static void print(struct guest *guest, unsigned lines)
{
    while (lines--)
        for (const char *c = "what a guest prints is so long\n"; *c != '\0'; c++)
            guest_putc(guest, *c);
}

static void rounds(unsigned count)
{
    while (count--)
        guests_round();
}

static unsigned count_log(const char *what)
{
    unsigned count = 0;

    for (const char *at = machine_log(); (at = strstr(at, what)) != NULL; at++)
        count++;
    return count;
}

/* ---- The account ---- */

static void a_debt_is_paid_by_turns(void **state)
{
    struct share share = {0};

    (void)state;
    assert_int_equal(share_turn(&share), SLICE_TICKS);
    share_owe(&share, 5 * SLICE_TICKS / 2);
    assert_int_equal(share_turn(&share), 0);
    assert_int_equal(share_turn(&share), 0);
    assert_int_equal(share_turn(&share), SLICE_TICKS / 2);
    assert_int_equal(share_turn(&share), SLICE_TICKS);
    assert_int_equal(share.sat_out, 2);
    assert_int_equal(share.overran, 5 * SLICE_TICKS / 2);
    /* The sum does not wrap, and no debt is for ever. */
    share_owe(&share, UINT64_MAX);
    share_owe(&share, UINT64_MAX);
    assert_int_equal(share.debt, SHARE_MOST_DEBT);
    share_owe(&share, 1);
    assert_int_equal(share.debt, SHARE_MOST_DEBT);
}

/* ---- Two guests ---- */

static struct guest *hostile;
static uint64_t cost; /* ticks that each exit of the hostile one takes */

static void dear_exits(struct fake_vcpu *vcpu, struct vm_exit *exit)
{
    if (vcpu->vcpu.guest != hostile) {
        exit->kind = VM_EXIT_SLICE;
        return;
    }
    exit->kind = VM_EXIT_HANDLED;
    machine_pass(cost);
}

/* Whatever an exit costs, be it many slices, both have the same in the end. */
static void overrun_slices_are_taken_from_the_next(void **state)
{
    static const unsigned slices_x8[] = {1, 7, 8, 9, 20, 40, 120, 333};
    struct guest *victim;

    (void)state;
    hostile = make("hostile mem=1M");
    victim = make("victim mem=1M");
    machine_cpu = dear_exits;
    for (unsigned i = 0; i < ARRAY_SIZE(slices_x8); i++) {
        uint64_t before = hostile->ticks, had = victim->ticks;

        cost = slices_x8[i] * SLICE_TICKS / 8;
        rounds(2000);
        before = hostile->ticks - before;
        had = victim->ticks - had;
        if (had * 100 < 48 * (had + before))
            fail_msg("exits of %u/8 slices: the victim had %lu of %lu", slices_x8[i], had,
                     had + before);
    }
    assert_true(hostile->cpu[0].share.sat_out > 0);
    assert_true(victim->cpu[0].share.overran < victim->ticks / 50);
}

/* A line that takes its time: each byte a hundredth of a slice. */
static void write_slowly(struct sink *sink, const char *bytes, size_t n)
{
    (void)sink;
    (void)bytes;
    machine_pass(n * SLICE_TICKS / 100);
}

static void prints_all_the_time(struct fake_vcpu *vcpu, struct vm_exit *exit)
{
    exit->kind = VM_EXIT_SLICE;
    if (vcpu->vcpu.guest == hostile)
        print(hostile, 1000);
}

/* What the line costs is charged to who prints. */
static void output_is_charged(void **state)
{
    static struct sink slow = {write_slowly};
    struct guest *victim;
    uint64_t start;

    (void)state;
    hostile = make("hostile mem=1M");
    victim = make("victim mem=1M");
    log_attach(&slow);
    machine_cpu = prints_all_the_time;
    start = guests_backend()->ticks();
    rounds(1000);
    uint64_t passed = guests_backend()->ticks() - start;
    if (victim->ticks * 100 < 45 * passed)
        fail_msg("the victim had %lu of %lu", victim->ticks, passed);
    assert_true(hostile->output_dropped > 0);
    log_attach(NULL);
}

/* ---- Output ---- */

static bool has_room_now;

static bool has_room(void)
{
    return has_room_now;
}

/* What was lost is said once the log goes on, and how much it was; the newest is there. */
static void dropped_output_is_counted_and_said(void **state)
{
    struct guest *guest = make("flood mem=1M");
    char line[160];

    (void)state;
    log_set_room(has_room);
    has_room_now = false;
    print(guest, 1000);
    guests_round();
    assert_int_equal(count_log("] what a guest prints"), 0);
    has_room_now = true;
    rounds(20);
    snprintf(
        line, sizeof(line),
        "g%u flood: %u bytes of its output were dropped here, it prints too fast; `output g%u` "
        "has the newest\n",
        guest->number, 31 * 1000 - GUEST_OUTPUT, guest->number);
    assert_int_equal(count_log(line), 1);
    assert_int_equal(guest->output_dropped, 31 * 1000 - GUEST_OUTPUT);
    assert_int_equal(guest->output_untold, 0);
    assert_int_equal(count_log("] what a guest prints is so long\n"), GUEST_OUTPUT / 31);
    /* Who does not print too fast loses nothing. */
    for (unsigned i = 0; i < 100; i++) {
        print(guest, 3);
        guests_round();
    }
    assert_int_equal(guest->output_dropped, 31 * 1000 - GUEST_OUTPUT);
    assert_int_equal(count_log("] what a guest prints is so long\n"), GUEST_OUTPUT / 31 + 300);
    /* At its end all that is in the ring comes out. */
    has_room_now = false;
    print(guest, 50);
    guest_kill(guest);
    assert_true(log_pass_on(true));
    assert_int_equal(count_log("] what a guest prints is so long\n"), GUEST_OUTPUT / 31 + 350);
}

/* Guests take turns at the line. */
static void the_line_is_shared(void **state)
{
    struct guest *first = make("first mem=1M"), *second = make("second mem=1M");
    unsigned a, b;

    (void)state;
    for (unsigned i = 0; i < 20; i++) {
        print(first, 500);
        print(second, 500);
        guests_show_output();
    }
    a = count_log(" first] what");
    b = count_log(" second] what");
    assert_true(a > 100 && b > 100 && a + 20 > b && b + 20 > a);
}

/* A guest that waits for its transmitter loses nothing, polled or by interrupts. */
static void the_transmitter_waits(void **state)
{
    struct guest *guest = make("polite mem=1M");
    unsigned sent = 0;

    (void)state;
    log_set_room(has_room);
    has_room_now = false;
    while ((port_read(guest, LSR, 1) & LSR_READY) == LSR_READY && sent < 100000) {
        port_write(guest, 0x3f8, 1, sent % 32 == 31 ? '\n' : 'p');
        sent++;
    }
    assert_int_equal(sent, GUEST_OUTPUT / 2);
    assert_int_equal(port_read(guest, LSR, 1) & LSR_READY, 0);
    port_write(guest, 0x3fc, 1, 0x0b); /* OUT2 */
    port_write(guest, 0x3f9, 1, 0x02); /* the interrupt of the transmitter */
    assert_int_equal(port_read(guest, 0x3fa, 1) & 0xf, 1);
    has_room_now = true;
    rounds(20);
    assert_int_equal(port_read(guest, 0x3fa, 1) & 0xf, 2);
    assert_int_equal(port_read(guest, LSR, 1) & LSR_READY, LSR_READY);
    assert_int_equal(guest->output_dropped, 0);
    assert_int_equal(count_log("ppppp\n"), sent / 32);
    /* Whoever is attached holds it up as well. */
    guest_output_read(guest, guest->output_total);
    print(guest, GUEST_OUTPUT / 2 / 31 + 1);
    rounds(20);
    assert_int_equal(port_read(guest, LSR, 1) & LSR_READY, 0);
    guest_output_read(guest, UINT64_MAX);
    assert_int_equal(port_read(guest, LSR, 1) & LSR_READY, LSR_READY);
}

/* ---- Ends ---- */

static bool stops;

static bool between(void)
{
    return stops;
}

/* A key that waits ends the round after a slice, and the next goes on with the next guest. */
static void a_round_can_end_between_slices(void **state)
{
    struct guest *first = make("first mem=1M"), *second = make("second mem=1M");

    (void)state;
    guests_set_between(between);
    stops = true;
    guests_round();
    assert_true((first->ticks > 0) != (second->ticks > 0));
    guests_round();
    assert_true(first->ticks > 0 && second->ticks > 0);
    stops = false;
    guests_set_between(NULL);
}

static void ends(struct fake_vcpu *vcpu, struct vm_exit *exit)
{
    if (vcpu->vcpu.guest != hostile) {
        exit->kind = VM_EXIT_SLICE;
        return;
    }
    exit->kind = VM_EXIT_SHUTDOWN;
    machine_pass(2 * SLICE_TICKS);
}

/* Much memory goes back by and by; meanwhile the guest is there and holds what is left. */
static void memory_is_given_back_by_turns(void **state)
{
    struct guest *victim;
    uint64_t before, last;
    unsigned turns = 0;

    (void)state;
    hostile = make("large mem=32M lazy");
    victim = make("victim mem=1M");
    for (uint64_t at = MiB; at < 24 * MiB; at += PAGE_SIZE)
        assert_int_equal(slots_fill(hostile, gpa(at)), E_OK);
    before = last = buddy_owner_frames(guest_owner(hostile));
    machine_cpu = ends;
    guests_round();
    while (guest_holds(hostile)) {
        uint64_t frames = buddy_owner_frames(guest_owner(hostile));

        assert_true(frames <= last);
        last = frames;
        assert_int_equal(guest_start(victim), E_STATE);
        assert_true(guests_round() == 2 || !guest_holds(hostile));
        turns++;
    }
    assert_true(before > 23 * MiB / PAGE_SIZE && turns > 1);
    assert_int_equal(buddy_owner_frames(guest_owner(hostile)), 0);
    assert_int_equal(guests_round(), 1);
    assert_int_equal(count_log("large: gave back"), 1);
}

static void a_step_is_short(void **state)
{
    struct guest *guest = make("large mem=32M lazy");
    uint64_t frames;
    unsigned steps = 0;

    (void)state;
    for (uint64_t at = MiB; at < 9 * MiB; at += PAGE_SIZE)
        assert_int_equal(slots_fill(guest, gpa(at)), E_OK);
    guest->release_from = 0;
    do {
        frames = buddy_owner_frames(guest_owner(guest));
        steps++;
    } while (!slots_release_by(guest, 0) &&
             frames - buddy_owner_frames(guest_owner(guest)) <= 256 + 3);
    assert_true(steps >= 8 * MiB / PAGE_SIZE / 256);
    /* One that starts anew meanwhile gives back the rest first. */
    assert_int_equal(guest_kill(guest), E_OK);
    assert_int_equal(guest_start(guest), E_OK);
}

/* An ELF's zeroes over lazy memory are no work, however many. */
static void zeroes_over_lazy_memory_cost_nothing(void **state)
{
    struct guest *guest = make("vast mem=900G lazy");
    uint64_t frames = buddy_owner_frames(guest_owner(guest));

    (void)state;
    assert_int_equal(slots_place(guest, gpa(16 * MiB), NULL, 800 * GiB), E_OK);
    assert_int_equal(buddy_owner_frames(guest_owner(guest)), frames);
    assert_int_equal(slots_place(guest, gpa(16 * MiB), NULL, 900 * GiB), E_RANGE);
}

/* A lazy guest that could take all there is leaves something to others. */
static void a_greedy_guest_has_a_quota(void **state)
{
    uint64_t before = machine_free_frames();
    struct guest *greedy = make("greedy mem=1G lazy"), *modest = make("modest mem=1M lazy");
    uint64_t at = MiB;

    (void)state;
    assert_in_range(buddy_quota(guest_owner(greedy)), before / 2, before / 4 * 3);
    assert_int_equal(buddy_quota(guest_owner(modest)), UINT64_MAX);
    while (slots_fill(greedy, gpa(at)) == E_OK)
        at += PAGE_SIZE;
    assert_int_equal(slots_fill(greedy, gpa(at)), E_QUOTA);
    for (at = 0; at < 64 * PAGE_SIZE; at += PAGE_SIZE)
        if (slots_fill(modest, gpa(at)) != E_OK)
            assert_int_equal(slots_fill(modest, gpa(at)), E_EXIST);
}

/* Where no guest can run there is no clock to be asked. */
static void without_guests_nothing_is_shown(void **state)
{
    (void)state;
    guests_init(NULL, "this CPU has nothing");
    guests_show_unfinished(0);
    assert_int_equal(guests_round(), 0);
    guests_init(&machine_backend, NULL);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_debt_is_paid_by_turns),
        TEST(overrun_slices_are_taken_from_the_next),
        TEST(output_is_charged),
        TEST(dropped_output_is_counted_and_said),
        TEST(the_line_is_shared),
        TEST(the_transmitter_waits),
        TEST(a_round_can_end_between_slices),
        TEST(memory_is_given_back_by_turns),
        TEST(a_step_is_short),
        TEST(zeroes_over_lazy_memory_cost_nothing),
        TEST(a_greedy_guest_has_a_quota),
        TEST(without_guests_nothing_is_shown),
    };
    return cmocka_run_group_tests_name("shares", tests, NULL, NULL);
}
