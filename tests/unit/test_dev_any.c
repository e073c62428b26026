/*
 * Any accesses to any ports and windows of a PC, in any order, as time goes by: nothing breaks, no
 * device asks to be looked at without end, and each stays within its bounds.
 */
#include <ctype.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "lib/bits.h"
#include "lib/error.h"
#include "tests/unit/fake_machine.h"
#include "tests/unit/pc_guest.h"
#include "tests/unit/random.h"
#include "vm/clock.h"
#include "vm/cmos_date.h"
#include "vm/device.h"
#include "vm/interrupts.h"
#include "vm/keyboard.h"
#include "vm/ports.h"
#include "vm/screen.h"
#include "vm/windows.h"

#define ACCESSES 1000000

static struct random random = {0x9c};

static uint64_t below(uint64_t limit)
{
    return random_below(&random, limit);
}

/* Any at all, or one of a device's, or next to one. */
static uint16_t any_port(void)
{
    const struct device *device = device_by_index(0);
    unsigned devices = 0;

    if (below(8) == 0)
        return (uint16_t)random_next(&random);
    while (device_by_index(devices) != NULL)
        devices++;
    do
        device = device_by_index((unsigned)below(devices));
    while (device->port_count == 0);
    const struct port_range *range = &device->ports[below(device->port_count)];
    return (uint16_t)(range->first - 3 + below(range->last - range->first + 7u));
}

static uint32_t any_value(void)
{
    static const uint32_t masks[] = {0x00, 0x0f, 0x7f, 0xff, 0xffff, UINT32_MAX};

    return (uint32_t)random_next(&random) & masks[below(ARRAY_SIZE(masks))];
}

static void access_port(void)
{
    uint16_t port = any_port();
    unsigned width = 1u << below(3);

    if (below(2))
        port_write(pc, port, width, any_value());
    else if (width < 4)
        assert_true(port_read(pc, port, width) <= BITS(width * 8 - 1, 0));
    else
        port_read(pc, port, width);
}

static void access_window(void)
{
    const struct device *device;
    unsigned devices = 0, bytes = 1u << below(4);
    uint64_t at;

    while (device_by_index(devices) != NULL)
        devices++;
    do
        device = device_by_index((unsigned)below(devices));
    while (device->window_count == 0);
    const struct window *window = &device->windows[below(device->window_count)];
    /* Most registers are in the first half of their page. */
    at = window->base + below(below(2) ? window->size : window->size / 2) / bytes * bytes;
    if (below(2))
        window_write(pc, gpa(at), bytes, (uint64_t)any_value() << (below(4) ? 0 : 32));
    else
        window_read(pc, gpa(at), bytes);
}

/* Time goes by: little most of the time, years now and then. */
static void let_time_pass(void)
{
    if (below(4) == 0)
        machine_pass(random_next(&random) >> (12 + below(50)));
}

static void type_or_send(void)
{
    char text[16];
    size_t n = below(sizeof(text));

    for (size_t i = 0; i < n; i++)
        text[i] = (char)random_next(&random);
    if (below(2))
        keyboard_type(pc, text, n);
    else
        guest_input(pc, text, n);
}

/* After an update the next interrupt lies ahead; what is promised comes without a turn on the spot.
 */
static void check_time(void)
{
    uint64_t now = guest_now(pc), next;

    devices_update(pc, now);
    next = devices_next(pc, now);
    assert_true(next != 0);
    for (unsigned i = 0; i < 4 && next != UINT64_MAX && next < UINT64_C(1) << 50; i++) {
        now += next;
        machine_pass(next);
        devices_update(pc, now);
        next = devices_next(pc, now);
        assert_true(next != 0);
    }
    if (pic_asks(pc))
        pic_acknowledge(pc);
}

static void check_bounds(void)
{
    static struct screen screen;
    const struct guest_devices *devices = &pc->devices;
    char text[DATE_TEXT];

    assert_true(devices->cmos.index < 128);
    assert_int_equal(strlen(date_text(text, devices->cmos.ram)), 19);
    assert_true(devices->cmos.alarm_in <= 86400);
    assert_true(devices->keyboard.keyboard.queued <= KEYBOARD_QUEUE);
    assert_true(devices->keyboard.keyboard.text_count <= KEYBOARD_TEXT);
    assert_true(devices->serial.input_count <= SERIAL_INPUT);
    assert_true(devices->vga.dac_read < VGA_DAC && devices->vga.dac_write < VGA_DAC);
    assert_true(devices->pic.chip[0].lowest < 8 && devices->pic.chip[1].lowest < 8);
    assert_int_equal(devices->acpi.status & ~0x0001u, 0);
    if (screen_read(pc, &screen) == E_OK)
        assert_true(screen.rows <= SCREEN_ROWS && screen.columns <= SCREEN_COLUMNS);
}

static void check_shown(void)
{
    const struct device *device;

    for (unsigned i = 0; (device = device_by_index(i)) != NULL; i++) {
        for (const char *c = shown(device->name); *c != '\0'; c++)
            assert_true(*c == '\n' || isprint((unsigned char)*c));
    }
}

static void start_again(void)
{
    guest_finish(pc);
    assert_int_equal(guest_start(pc), E_OK);
    machine_forget_log();
}

static void test_any_accesses(void **state)
{
    unsigned resets = 0;

    (void)state;
    for (unsigned i = 0; i < ACCESSES; i++) {
        if (below(4) == 0)
            access_window();
        else
            access_port();
        let_time_pass();
        if (below(64) == 0)
            type_or_send();
        if (below(16) == 0)
            check_time();
        if (below(4096) == 0) {
            check_bounds();
            check_shown();
        }
        if (guest_ended(pc)) {
            resets++;
            start_again();
        }
    }
    assert_true(resets > 100); /* it went through many lives */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_any_accesses, pc_set_up, pc_tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
