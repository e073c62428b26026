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
#include "vm/lapic.h"
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

/* ---- What devices have told of their next interrupt --------------------------------------------
 */

static void access_lapic(void)
{
    static const uint32_t msrs[] = {IA32_APIC_BASE, IA32_TSC_DEADLINE};
    uint32_t index = below(4) ? X2APIC_MSR_FIRST + (uint32_t)below(0x40) : msrs[below(2)];
    uint64_t base = pc->devices.lapic[0].base ^ (below(4) ? 0 : below(4) << 10);

    lapic_wrmsr(pc, index, index == IA32_APIC_BASE ? base : any_value());
}

/* What opens and closes lines, and who drives them, meets by chance too seldom. */
static void change_a_line(void)
{
    unsigned irq = (unsigned)below(16);

    switch (below(7)) {
    case 0:
        out8(irq < 8 ? 0x21 : 0xa1, (uint8_t)(random_next(&random) & random_next(&random)));
        break;
    case 1:
        window_write(pc, gpa(0xfec00000), 4, 0x10 + 2 * below(IOAPIC_PINS));
        window_write(pc, gpa(0xfec00010), 4, 0x20 + 8 * irq + (below(4) << 15));
        break;
    case 2:
        window_write(pc, gpa(0xfed00010), 8, below(4));
        break;
    case 3: /* LINT0 as ExtINT */
        window_write(pc, gpa(0xfee00350), 4, 0x700 | below(2) << 16);
        break;
    case 4: /* SVR */
        window_write(pc, gpa(0xfee000f0), 4, 0xff | below(2) << 8);
        break;
    case 5: /* the 8254, periodic */
        out8(0x43, 0x34);
        out8(0x40, (uint8_t)random_next(&random));
        out8(0x40, (uint8_t)random_next(&random));
        break;
    default: /* the clock, periodic or not */
        out8(0x70, 0x0b);
        out8(0x71, (uint8_t)(below(2) << 6 | 2));
    }
}

static bool asks(void)
{
    return lapic_asks(pc) || (pic_asks(pc) && lapic_passes_pic(pc, 0));
}

static unsigned waited; /* so often an interrupt did */

/* As an entry does it, with those alone that may have something new. That all be asked, in a copy,
 * finds no interrupt before the first of those that were told; and nothing waits then that will not
 * within a count of the slowest clock, which is how exactly they are told. */
static void check_told(void)
{
    uint64_t now = guest_now(pc), told, asked;
    uint64_t count = clock_ticks(1, pc->devices.clock.hz, 1193182); /* the 8254's */

    devices_update_due(pc, now);
    told = devices_next_due(pc, now);
    const struct guest_devices kept = pc->devices;
    bool waits = asks();
    asked = devices_next(pc, now);
    assert_true(told <= asked || told - asked <= count);
    devices_update(pc, now);
    if (waits)
        assert_true(asks());
    else
        assert_true(!asks() || told <= count);
    pc->devices = kept;
    waited += waits;
    if (lapic_asks(pc))
        lapic_acknowledge(pc);
    else if (waits)
        pic_acknowledge(pc);
    if (below(2)) { /* most are ended */
        lapic_end(pc);
        out8(0xa0, 0x20);
        out8(0x20, 0x20);
    }
}

static void test_what_was_told_holds(void **state)
{
    (void)state;
    for (unsigned i = 0; i < ACCESSES; i++) {
        switch (below(8)) {
        case 0:
            change_a_line();
            break;
        case 1:
            access_lapic();
            break;
        case 2:
        case 3:
            access_window();
            break;
        default:
            access_port();
        }
        let_time_pass();
        if (below(64) == 0)
            type_or_send();
        if (guest_ended(pc))
            start_again();
        check_told();
    }
    assert_true(waited > 1000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_any_accesses, pc_set_up, pc_tear_down),
        cmocka_unit_test_setup_teardown(test_what_was_told_holds, pc_set_up, pc_tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
