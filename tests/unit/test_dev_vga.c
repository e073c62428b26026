/*
 * The VGA of a PC: its registers through their ports, and the screen that its memory makes.
 */
#include "vm/screen.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "lib/bits.h"
#include "lib/error.h"
#include "tests/unit/fake_machine.h"
#include "tests/unit/pc_guest.h"
#include "vm/ports.h"

static struct screen screen;

static void set(uint16_t port, uint8_t index, uint8_t value)
{
    out8(port, index);
    out8(port + 1, value);
}

static uint8_t get(uint16_t port, uint8_t index)
{
    out8(port, index);
    return in8(port + 1);
}

static void write_text(uint64_t at, const char *text)
{
    for (; *text != '\0'; text++, at += 2)
        assert_int_equal(guest_write(pc, gpa(at), (uint8_t[]){(uint8_t)*text, 0x1e}, 2), 2);
}

static void expect_text(unsigned row, unsigned column, const char *text)
{
    for (; *text != '\0'; text++, column++)
        assert_int_equal(screen.cell[row][column][0], *text);
}

static void test_mode_3_to_begin_with(void **state)
{
    (void)state;
    assert_int_equal(in8(0x3cc), 0x67);
    assert_int_equal(get(0x3d4, 0x01), 79);
    assert_int_equal(get(0x3d4, 0x13), 40);
    assert_int_equal(get(0x3c4, 0x02), 0x03);
    assert_int_equal(get(0x3ce, 0x06), 0x0e);
    assert_int_equal(in8(0x3da) & 0xf6, 0);
    out8(0x3c0, 0x06);
    assert_int_equal(in8(0x3c1), 0x14);
    assert_int_equal(in8(0x3ca), 0);
    assert_int_equal(screen_read(pc, &screen), E_OK);
    assert_int_equal(screen.columns, 80);
    assert_int_equal(screen.rows, 25);
    assert_true(screen.cursor_shown);
    assert_string_equal(shown("VGA"), "text, 80 by 25, at 0xb8000, start 0x0, cursor 0x0\n");
}

static void test_registers_are_kept(void **state)
{
    static const struct {
        uint16_t port;
        unsigned count;
    } banks[] = {{0x3d4, 25}, {0x3c4, 5}, {0x3ce, 9}};

    (void)state;
    set(0x3d4, 0x11, 0x0e); /* no protection */
    struct dev_vga before = pc->devices.vga;
    for (unsigned i = 0; i < ARRAY_SIZE(banks); i++) {
        for (unsigned index = 0; index < 256; index++)
            set(banks[i].port, (uint8_t)index, (uint8_t)(index == 0x11 ? 0x0e : index ^ 0x5a));
        for (unsigned index = 0; index < 256; index++) {
            uint8_t kept = (uint8_t)(index == 0x11 ? 0x0e : index ^ 0x5a);

            assert_int_equal(get(banks[i].port, (uint8_t)index), index < banks[i].count ? kept : 0);
            assert_int_equal(in8(banks[i].port), index);
        }
    }
    /* What lies behind a bank is another's. */
    assert_memory_equal(pc->devices.vga.attribute, before.attribute, sizeof(before.attribute));
    assert_memory_equal(pc->devices.vga.dac, before.dac, sizeof(before.dac));
    /* By one 16-bit access, as most do it. */
    port_write(pc, 0x3d4, 2, 0x340f);
    assert_int_equal(get(0x3d4, 0x0f), 0x34);
    out8(0x3da, 0x02);
    assert_int_equal(in8(0x3ca), 0x02);
}

static void test_attributes_alternate(void **state)
{
    (void)state;
    in8(0x3da); /* index first */
    out8(0x3c0, 0x23);
    out8(0x3c0, 0x55);
    out8(0x3c0, 0x24);
    in8(0x3da);
    out8(0x3c0, 0x23);
    assert_int_equal(in8(0x3c1), 0x55);
    assert_int_equal(in8(0x3c0), 0x23);
}

static void test_colours(void **state)
{
    (void)state;
    out8(0x3c7, 0x3e); /* yellow of the EGA's */
    assert_int_equal(in8(0x3c7), 3);
    assert_int_equal(in8(0x3c9), 0x3f);
    assert_int_equal(in8(0x3c9), 0x3f);
    assert_int_equal(in8(0x3c9), 0x15);
    out8(0x3c8, 0xff);
    for (unsigned i = 0; i < 6; i++) /* the last colour, then the first */
        out8(0x3c9, (uint8_t)(0x41 + i));
    assert_int_equal(in8(0x3c7), 0);
    assert_int_equal(in8(0x3c8), 1);
    out8(0x3c7, 0);
    assert_int_equal(in8(0x3c9), 0x04);
    out8(0x3c6, 0x0f);
    assert_int_equal(in8(0x3c6), 0x0f);
}

static void test_timings_are_protected(void **state)
{
    (void)state;
    assert_int_equal(get(0x3d4, 0x11) & 0x80, 0x80);
    set(0x3d4, 0x00, 0x12);
    assert_int_equal(in8(0x3d5), 0x5f);
    set(0x3d4, 0x07, 0xef);
    assert_int_equal(in8(0x3d5), 0x0f); /* but for bit 4 */
    set(0x3d4, 0x11, 0x0e);
    set(0x3d4, 0x00, 0x12);
    assert_int_equal(in8(0x3d5), 0x12);
}

static void test_colour_or_monochrome(void **state)
{
    (void)state;
    assert_int_equal(in8(0x3b5), 0xff);
    assert_int_equal(in8(0x3ba), 0xff);
    out8(0x3c2, 0x66);
    assert_int_equal(in8(0x3d5), 0xff);
    set(0x3b4, 0x0f, 0x12);
    assert_int_equal(in8(0x3b5), 0x12);
    assert_int_not_equal(in8(0x3ba), 0xff);
    write_text(0xb0000, "mono");
    assert_int_equal(screen_read(pc, &screen), E_OK);
    expect_text(0, 0, "mono");
    out8(0x3c2, 0x67);
    screen_read(pc, &screen);
    expect_text(0, 0, "");
    assert_int_equal(screen.cell[0][0][0], 0);
    set(0x3ce, 0x06, 0x0a); /* the memory at 0xb0000 by its own register */
    screen_read(pc, &screen);
    expect_text(0, 0, "mono");
}

/* 70 frames a second, each with one retrace. */
static void test_retraces(void **state)
{
    unsigned retraces = 0, hidden = 0, samples = 100000;
    bool before = false;

    (void)state;
    for (unsigned i = 0; i < samples; i++) {
        uint8_t status = in8(0x3da);

        retraces += status & 0x08 && !before;
        hidden += status & 1;
        assert_true(!(status & 0x08) || status & 1);
        before = status & 0x08;
        machine_pass(pc->devices.clock.hz / samples - 1000);
    }
    assert_in_range(retraces, 69, 71);
    assert_in_range(hidden, samples * 27 / 100, samples * 31 / 100);
}

static void test_the_screen(void **state)
{
    (void)state;
    write_text(0xb8000, "top left");
    write_text(0xb8000 + (24 * 80 + 75) * 2, "right");
    set(0x3d4, 0x0e, (24 * 80 + 79) >> 8);
    set(0x3d4, 0x0f, (24 * 80 + 79) & 0xff);
    assert_int_equal(screen_read(pc, &screen), E_OK);
    expect_text(0, 0, "top left");
    expect_text(24, 75, "right");
    assert_int_equal(screen.cell[24][79][1], 0x1e);
    assert_int_equal(screen.cursor_row, 24);
    assert_int_equal(screen.cursor_column, 79);
    assert_true(screen.cursor_shown);
    set(0x3d4, 0x0a, 0x20);
    screen_read(pc, &screen);
    assert_false(screen.cursor_shown);
}

static void test_the_start_address(void **state)
{
    (void)state;
    write_text(0xb8000 + 160 * 3, "third line");
    set(0x3d4, 0x0d, 240);
    screen_read(pc, &screen);
    expect_text(0, 0, "third line");
    assert_false(screen.cursor_shown); /* it is above */
    /* Past the end of the memory is its beginning. */
    set(0x3d4, 0x0c, 0x3f);
    set(0x3d4, 0x0d, 0xf6);
    write_text(0xb8000 + 0x7fec, "around the");
    write_text(0xb8000, " corner");
    screen_read(pc, &screen);
    expect_text(0, 0, "around the corner");
    assert_true(screen.cursor_shown);
    assert_int_equal(screen.cursor_column, 10);
}

static void test_other_sizes(void **state)
{
    (void)state;
    set(0x3d4, 0x09, 0x47); /* 8 lines a row */
    screen_read(pc, &screen);
    assert_int_equal(screen.rows, 50);
    set(0x3d4, 0x09, 0xc7); /* doubled */
    screen_read(pc, &screen);
    assert_int_equal(screen.rows, 25);
    set(0x3d4, 0x11, 0);
    set(0x3d4, 0x01, 39);
    set(0x3d4, 0x13, 20);
    write_text(0xb8000 + 80, "row 1");
    screen_read(pc, &screen);
    assert_int_equal(screen.columns, 40);
    expect_text(1, 0, "row 1");
    set(0x3ce, 0x06, 0x05);
    assert_int_equal(screen_read(pc, &screen), E_UNSUPPORTED);
    assert_string_equal(shown("VGA"), "graphics\n");
}

/* Whatever the registers hold, the screen is within its bounds. */
static void test_any_registers(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 4096; i++) {
        pc->devices.vga.crtc[i % VGA_CRTC] = (uint8_t)(i * 167 >> 3);
        pc->devices.vga.misc = (uint8_t)i;
        if (screen_read(pc, &screen) != E_OK)
            continue;
        assert_true(screen.rows <= SCREEN_ROWS && screen.columns <= SCREEN_COLUMNS);
        assert_true(!screen.cursor_shown ||
                    (screen.cursor_row < screen.rows && screen.cursor_column < screen.columns));
    }
}

static void test_it_is_kept_at_the_end(void **state)
{
    (void)state;
    write_text(0xb8000, "panic");
    guest_kill(pc);
    assert_int_equal(screen_read(pc, &screen), E_OK);
    expect_text(0, 0, "panic");
    assert_int_equal(guest_start(pc), E_OK);
    assert_int_equal(screen_read(pc, &screen), E_OK);
    assert_int_equal(screen.cell[0][0][0], 0);
}

static int set_up_plain(void **state)
{
    (void)state;
    return pc_set_up_with("plain");
}

static void test_a_guest_without_video_memory(void **state)
{
    (void)state;
    assert_int_equal(screen_read(pc, &screen), E_NOENT);
    guest_kill(pc);
    assert_int_equal(screen_read(pc, &screen), E_NOENT);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, pc_set_up, pc_tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_mode_3_to_begin_with),
        TEST(test_registers_are_kept),
        TEST(test_attributes_alternate),
        TEST(test_colours),
        TEST(test_timings_are_protected),
        TEST(test_colour_or_monochrome),
        TEST(test_retraces),
        TEST(test_the_screen),
        TEST(test_the_start_address),
        TEST(test_other_sizes),
        TEST(test_any_registers),
        TEST(test_it_is_kept_at_the_end),
        cmocka_unit_test_setup_teardown(test_a_guest_without_video_memory, set_up_plain,
                                        pc_tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
