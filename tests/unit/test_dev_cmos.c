/*
 * The clock of a PC, by the MC146818's data sheet, through its two ports.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "lib/bits.h"
#include "tests/unit/pc_guest.h"
#include "vm/clock.h"
#include "vm/cmos_date.h"
#include "vm/device.h"

#define SECOND 1000000

enum { A = 0x0a, B = 0x0b, C = 0x0c, D = 0x0d };

static uint8_t get(uint8_t index)
{
    out8(0x70, index);
    return in8(0x71);
}

static void put(uint8_t index, uint8_t value)
{
    out8(0x70, index);
    out8(0x71, value);
}

/* Seconds, minutes, hours, weekday, day, month, year, as the registers have them. */
static void set_date(const uint8_t date[7])
{
    static const uint8_t registers[7] = {0, 2, 4, 6, 7, 8, 9};

    put(B, get(B) | 0x80);
    for (unsigned i = 0; i < 7; i++)
        put(registers[i], date[i]);
    put(B, get(B) & 0x7f);
}

static void expect_date(const uint8_t date[7])
{
    static const uint8_t registers[7] = {0, 2, 4, 6, 7, 8, 9};

    for (unsigned i = 0; i < 7; i++)
        assert_int_equal(get(registers[i]), date[i]);
}

static void test_it_starts_as_firmware_leaves_it(void **state)
{
    (void)state;
    expect_date((uint8_t[]){0, 0, 0, 7, 1, 1, 0});
    assert_int_equal(get(0x32), 0x20);
    assert_int_equal(get(A), 0x26);
    assert_int_equal(get(B), 0x02);
    assert_int_equal(get(D), 0x80);
    assert_int_equal(in8(0x70), 0xff);
    put(D, 0);
    put(C, 0xff);
    assert_int_equal(get(D), 0x80);
    assert_int_equal(get(C) & 0x80, 0);
}

static void test_seconds_carry(void **state)
{
    (void)state;
    set_date((uint8_t[]){0x59, 0x59, 0x23, 4, 0x31, 0x12, 0x25});
    pass_us(SECOND);
    expect_date((uint8_t[]){0, 0, 0, 5, 1, 1, 0x26});
    set_date((uint8_t[]){0x59, 0x59, 0x23, 7, 0x28, 0x02, 0x24});
    pass_us(SECOND);
    expect_date((uint8_t[]){0, 0, 0, 1, 0x29, 0x02, 0x24});
    set_date((uint8_t[]){0x59, 0x59, 0x23, 1, 0x28, 0x02, 0x23});
    pass_us(SECOND);
    expect_date((uint8_t[]){0, 0, 0, 2, 1, 0x03, 0x23});
    set_date((uint8_t[]){0x09, 0x30, 0x12, 3, 0x31, 0x12, 0x99});
    pass_us(SECOND);
    expect_date((uint8_t[]){0x10, 0x30, 0x12, 3, 0x31, 0x12, 0x99});
    /* Many at once: 400 days, an hour, a minute and a second. */
    set_date((uint8_t[]){0, 0, 0, 7, 1, 1, 0});
    pass_us((400 * 86400ull + 3661) * SECOND);
    expect_date((uint8_t[]){1, 1, 1, 1, 4, 2, 1});
}

static void test_forms(void **state)
{
    (void)state;
    put(B, 0x06); /* binary, 24 hours */
    set_date((uint8_t[]){59, 59, 11, 1, 9, 11, 26});
    pass_us(SECOND);
    expect_date((uint8_t[]){0, 0, 12, 1, 9, 11, 26});
    put(B, 0x00); /* BCD, 12 hours */
    set_date((uint8_t[]){0x59, 0x59, 0x11, 1, 9, 0x11, 0x26});
    pass_us(SECOND);
    expect_date((uint8_t[]){0, 0, 0x92, 1, 9, 0x11, 0x26}); /* noon */
    pass_us(3600ull * SECOND);
    expect_date((uint8_t[]){0, 0, 0x81, 1, 9, 0x11, 0x26});
    put(B, 0x04); /* binary, 12 hours */
    set_date((uint8_t[]){59, 59, 0x8b, 1, 9, 11, 26});
    pass_us(SECOND);
    expect_date((uint8_t[]){0, 0, 12, 2, 10, 11, 26}); /* midnight */
}

static void test_nonsense_becomes_a_date(void **state)
{
    (void)state;
    set_date((uint8_t[]){0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff});
    expect_date((uint8_t[]){0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff});
    pass_us(SECOND);
    expect_date((uint8_t[]){0, 0, 0, 1, 1, 1, 0});
}

/* Bit 7 of the index masks NMIs, and is none of the index. */
static void test_the_index_has_seven_bits(void **state)
{
    (void)state;
    for (unsigned index = 0x40; index < 0x80; index++) {
        put((uint8_t)(0x80 | index), (uint8_t)(index * 3));
        assert_int_equal(get((uint8_t)index), (uint8_t)(index * 3));
        assert_int_equal(get((uint8_t)(0x80 | index)), (uint8_t)(index * 3));
    }
}

static void test_set_stops_the_clock(void **state)
{
    (void)state;
    put(B, 0x92); /* SET takes UIE with it */
    assert_int_equal(get(B), 0x82);
    put(0, 0x30);
    pass_us(5 * SECOND);
    assert_int_equal(get(0), 0x30);
    assert_int_equal(get(A) & 0x80, 0);
    assert_int_equal(get(C) & 0x10, 0);
    put(B, 0x02);
    pass_us(SECOND);
    assert_int_equal(get(0), 0x31);
}

static void test_a_released_divider_takes_half_a_second(void **state)
{
    (void)state;
    put(A, 0x76);
    put(0, 0x10);
    pass_us(5 * SECOND);
    assert_int_equal(get(0), 0x10);
    put(A, 0x26);
    pass_us(SECOND / 2 - 5000);
    assert_int_equal(get(0), 0x10);
    pass_us(5000);
    assert_int_equal(get(0), 0x11);
    pass_us(SECOND - 5000);
    assert_int_equal(get(0), 0x11);
    pass_us(5000);
    assert_int_equal(get(0), 0x12);
}

/* UIP is set from 244 us before an update, which takes 1984 us, to its end. */
static void test_update_in_progress(void **state)
{
    (void)state;
    put(A, 0x70);
    put(A, 0x20);
    pass_us(SECOND / 2 - 2300);
    assert_int_equal(get(A) & 0x80, 0);
    pass_us(100);
    assert_int_equal(get(A) & 0x80, 0x80);
    pass_us(2100);
    assert_int_equal(get(A) & 0x80, 0x80);
    assert_int_equal(get(C) & 0x10, 0);
    pass_us(110);
    assert_int_equal(get(A) & 0x80, 0);
    assert_int_equal(get(C), 0x10);
}

static void test_update_ended_interrupt(void **state)
{
    (void)state;
    open_lines();
    put(B, 0x12);
    get(C);
    pass_us(SECOND);
    assert_int_equal(take_irq(), 8);
    pass_us(SECOND);
    assert_int_equal(take_irq(), -1); /* not until C is read */
    assert_int_equal(get(C), 0xd0);   /* whatever is enabled, each cause is flagged */
    assert_int_equal(get(C), 0);
    pass_us(SECOND);
    assert_int_equal(take_irq(), 8);
}

static void test_periodic_interrupt(void **state)
{
    static const struct {
        uint8_t rate;
        unsigned hz;
    } rates[] = {{1, 256}, {2, 128}, {3, 8192}, {6, 1024}, {15, 2}};

    (void)state;
    open_lines();
    for (unsigned i = 0; i < ARRAY_SIZE(rates); i++) {
        unsigned taken = 0, pieces = rates[i].hz * 4;

        put(A, 0x20 | rates[i].rate);
        put(B, 0x42);
        get(C);
        take_irq();
        for (unsigned piece = 0; piece < pieces; piece++) {
            pass_us(SECOND / pieces);
            if (take_irq() == 8) {
                assert_int_equal(get(C) & 0xc0, 0xc0);
                taken++;
            }
        }
        assert_in_range(taken, rates[i].hz - 1, rates[i].hz + rates[i].hz / 50 + 1);
    }
    put(A, 0x20);
    get(C);
    take_irq();
    pass_us(SECOND);
    assert_int_equal(take_irq(), -1);
}

static void set_alarm(uint8_t hour, uint8_t minute, uint8_t second)
{
    put(5, hour);
    put(3, minute);
    put(1, second);
}

static void test_alarm(void **state)
{
    (void)state;
    open_lines();
    put(B, 0x22);
    set_date((uint8_t[]){0x50, 0x59, 0x23, 1, 1, 1, 0});
    set_alarm(0, 0, 0x02);
    get(C);
    pass_us(11 * SECOND);
    assert_int_equal(take_irq(), -1);
    pass_us(SECOND);
    assert_int_equal(take_irq(), 8);
    assert_int_equal(get(C) & 0xa0, 0xa0);
    pass_us(86399ull * SECOND);
    assert_int_equal(take_irq(), -1);
    pass_us(SECOND); /* a day later */
    assert_int_equal(take_irq(), 8);
    get(C);
    set_alarm(0xc0, 0xff, 0x30); /* each minute */
    pass_us(27 * SECOND);
    assert_int_equal(take_irq(), -1);
    pass_us(SECOND);
    assert_int_equal(take_irq(), 8);
    get(C);
    pass_us(60 * SECOND);
    assert_int_equal(take_irq(), 8);
    get(C);
    set_alarm(0x30, 0xff, 0xff); /* no such hour */
    pass_us(2 * 86400ull * SECOND);
    assert_int_equal(take_irq(), -1);
    assert_int_equal(get(C) & 0x20, 0);
    /* Passed over while the guest did not run: once. */
    set_alarm(0xff, 0xff, 0xff);
    pass_us(1000ull * SECOND);
    assert_int_equal(take_irq(), 8);
    assert_int_equal(get(C), 0xf0);
}

/* The guest is run no longer than until its clock asks: `next` tells when, to the count. */
static void test_next_is_when_it_asks(void **state)
{
    static const uint8_t causes[] = {0x42, 0x12, 0x22};

    (void)state;
    open_lines();
    set_alarm(0xff, 0xff, 0xff);
    for (unsigned i = 0; i < ARRAY_SIZE(causes); i++) {
        uint64_t now, next;

        put(B, causes[i]);
        get(C);
        while (take_irq() >= 0)
            ;
        now = guest_now(pc);
        cmos_device.update(pc, now);
        next = cmos_device.next(pc, now);
        assert_true(next <= pc->devices.clock.hz);
        cmos_device.update(pc, now + next - 1);
        assert_int_equal(take_irq(), -1);
        cmos_device.update(pc, now + next);
        assert_int_equal(take_irq(), 8);
        assert_true(cmos_device.next(pc, now + next) == UINT64_MAX);
    }
    put(B, 0x02);
    get(C);
    assert_true(cmos_device.next(pc, guest_now(pc)) == UINT64_MAX);
}

static void test_date_from_the_host(void **state)
{
    static const struct {
        uint64_t seconds;
        const char *text;
    } dates[] = {
        {0, "2000-01-01 00:00:00"},
        {59 * 86400ull, "2000-02-29 00:00:00"},
        {60 * 86400ull - 1, "2000-02-29 23:59:59"},
        {366 * 86400ull, "2001-01-01 00:00:00"},
        {849265660, "2026-11-29 11:07:40"},
        {36525 * 86400ull - 1, "2099-12-31 23:59:59"},
        {36525 * 86400ull, "2000-01-01 00:00:00"},
    };
    uint8_t ram[128] = {0};
    char text[DATE_TEXT];

    (void)state;
    for (unsigned i = 0; i < ARRAY_SIZE(dates); i++) {
        for (unsigned form = 0; form < 4; form++) {
            ram[CMOS_STATUS_B] = (uint8_t)(form << 1);
            date_put(ram, dates[i].seconds);
            assert_string_equal(date_text(text, ram), dates[i].text);
            assert_true(date_seconds(ram) == dates[i].seconds % (36525 * 86400ull));
        }
    }
    date_put(ram, 849265660);
    assert_int_equal(ram[CMOS_WEEKDAY], 1); /* a Sunday */
    clock_set_date(849265660, 0);
    assert_true(clock_date(0, 1000) == 849265660);
    assert_true(clock_date(2500, 1000) == 849265662);
    clock_set_date(0, 0);
}

static void test_shown(void **state)
{
    (void)state;
    put(B, 0x46);
    put(0x32, 20);
    assert_string_equal(shown("CMOS"), "2000-01-01 00:00:00, binary\n"
                                       "interrupts: periodic\nperiodic at 1024 Hz\n");
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, pc_set_up, pc_tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_it_starts_as_firmware_leaves_it),
        TEST(test_seconds_carry),
        TEST(test_forms),
        TEST(test_nonsense_becomes_a_date),
        TEST(test_the_index_has_seven_bits),
        TEST(test_set_stops_the_clock),
        TEST(test_a_released_divider_takes_half_a_second),
        TEST(test_update_in_progress),
        TEST(test_update_ended_interrupt),
        TEST(test_periodic_interrupt),
        TEST(test_alarm),
        TEST(test_next_is_when_it_asks),
        TEST(test_date_from_the_host),
        TEST(test_shown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
