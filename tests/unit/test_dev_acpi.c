/*
 * ACPI of a PC: its tables as the guest finds them, and the fixed hardware that they tell of.
 */
#include "vm/acpi_tables.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "lib/bits.h"
#include "lib/error.h"
#include "tests/unit/fake_machine.h"
#include "tests/unit/pc_guest.h"
#include "vm/device.h"
#include "vm/interrupts.h"
#include "vm/load_parts.h"
#include "vm/ports.h"
#include "vm/slots.h"

#define HALF_US UINT64_C(599932016) /* 2^31 counts at 3579545 Hz, cut */

static uint16_t in16(uint16_t port)
{
    return (uint16_t)port_read(pc, port, 2);
}

static void out16(uint16_t port, uint16_t value)
{
    port_write(pc, port, 2, value);
}

/* ---- The tables ------------------------------------------------------------------------------ */

static uint8_t table[4096];

static uint64_t get(unsigned at, unsigned width)
{
    uint64_t value = 0;

    memcpy(&value, table + at, width);
    return value;
}

static uint8_t sum(unsigned size)
{
    uint8_t total = 0;

    for (unsigned i = 0; i < size; i++)
        total = (uint8_t)(total + table[i]);
    return total;
}

/* Reads a table from the guest's memory; its length, checked with its sum. */
static unsigned read_table(uint64_t at, const char *signature)
{
    guest_read(pc, gpa(at), table, sizeof(table) - at % sizeof(table)); /* a page of ROM */
    assert_memory_equal(table, signature, 4);
    assert_int_equal(sum((unsigned)get(4, 4)), 0);
    return (unsigned)get(4, 4);
}

static void test_they_are_found(void **state)
{
    uint64_t xsdt, tables[3];

    (void)state;
    assert_int_equal(guest_read(pc, gpa(0xe0000), table, 36), 36);
    assert_memory_equal(table, "RSD PTR ", 8);
    assert_int_equal(sum(20), 0);
    assert_int_equal(sum(36), 0);
    assert_int_equal(table[15], 2);
    xsdt = get(24, 8);
    assert_int_equal(read_table(get(16, 4), "RSDT"), 36 + 3 * 4);
    for (unsigned i = 0; i < 3; i++)
        tables[i] = get(36 + 4 * i, 4);
    assert_int_equal(read_table(xsdt, "XSDT"), 36 + 3 * 8);
    for (unsigned i = 0; i < 3; i++)
        assert_int_equal(get(36 + 8 * i, 8), tables[i]);
    read_table(tables[0], "FACP");
    read_table(tables[1], "APIC");
    read_table(tables[2], "HPET");
}

static void test_the_fixed_table(void **state)
{
    uint64_t facs, dsdt;

    (void)state;
    assert_int_equal(read_table(0xe00c0, "FACP"), 276);
    facs = get(36, 4);
    dsdt = get(40, 4);
    assert_int_equal(get(132, 8), 0); /* one of the two says it */
    assert_int_equal(get(140, 8), dsdt);
    assert_int_equal(get(46, 2), IRQ_ACPI);
    assert_int_equal(get(48, 4), 0); /* no SMI command */
    assert_int_equal(get(56, 4), 0x600);
    assert_int_equal(get(64, 4), 0x604);
    assert_int_equal(get(76, 4), 0x608);
    assert_int_equal(get(148 + 4, 8), 0x600); /* the same by generic addresses */
    assert_int_equal(get(172 + 4, 8), 0x604);
    assert_int_equal(get(208 + 4, 8), 0x608);
    assert_int_equal(get(116 + 4, 8), 0xcf9);
    assert_int_equal(get(128, 1), 6);
    assert_int_equal(get(108, 1), 0x32);
    assert_int_equal(get(112, 4) & BIT(20), 0); /* not hardware-reduced */
    read_table(dsdt, "DSDT");
    assert_int_equal(facs & 63, 0);
    assert_int_equal(guest_read(pc, gpa(facs), table, 64), 64);
    assert_memory_equal(table, "FACS", 4);
    /* It is in memory that the guest may write and its map keeps back. */
    assert_int_equal(guest_slot_at(pc, gpa(facs))->kind, SLOT_RAM);
    assert_in_range(facs, LOAD_EBDA, GUEST_LOW_RAM_END - 64);
}

/* Without the ROM, or without being a PC, there are none. */
static void test_without_room(void **state)
{
    static const char *const lines[] = {"plain", "holed pc hole=0xe0000+4K",
                                        "cut pc hole=0x9f000+4K"};

    (void)state;
    for (unsigned i = 0; i < ARRAY_SIZE(lines); i++) {
        pc_tear_down(state);
        int error = pc_set_up_with(lines[i]);
        if (i == 2) { /* which the extended BIOS data area needs */
            assert_int_not_equal(error, 0);
            continue;
        }
        assert_int_equal(error, 0);
        memset(table, 0, sizeof(table));
        guest_read(pc, gpa(0xe0000), table, 8);
        assert_int_equal(table[0], 0);
    }
}

/* ---- The hardware ---------------------------------------------------------------------------- */

static void test_it_is_always_on(void **state)
{
    (void)state;
    assert_int_equal(in16(0x604), 0x0001);
    out16(0x604, 0x0000);
    assert_int_equal(in16(0x604), 0x0001);
    out16(0x604, 0x1402); /* a type alone does nothing */
    assert_int_equal(in16(0x604), 0x1403);
    assert_int_equal(in8(0x605), 0x14);
    out8(0x605, 0x04);
    assert_int_equal(in16(0x604), 0x0403);
    assert_int_equal(in16(0x600), 0);
    out16(0x602, 0xffff);
    assert_int_equal(in16(0x602), 0x0721);
    assert_int_equal(in32(0x600), 0x07210000);
    out8(0x603, 0x01);
    assert_int_equal(in16(0x602), 0x0121);
    assert_int_equal(in16(0x606), 0);
    assert_string_equal(shown("ACPI"), "PM1 status 0x0000, enable 0x0121, control 0x0403\n");
    assert_int_equal(pc->state, GUEST_RUNNING);
}

static void test_power_off(void **state)
{
    (void)state;
    out16(0x604, 0x2000); /* a sleep that there is not */
    assert_int_equal(pc->state, GUEST_RUNNING);
    out16(0x604, 0x1400);
    out16(0x604, 0x3400);
    assert_int_equal(pc->state, GUEST_PASSED);
    assert_string_equal(pc->reason, "powered off by ACPI");
    assert_non_null(strstr(machine_log(), "machine: powered off by ACPI"));
}

static void test_power_off_by_bytes(void **state)
{
    (void)state;
    out8(0x605, 0x34);
    assert_int_equal(pc->state, GUEST_PASSED);
}

static void test_the_timer_counts(void **state)
{
    uint32_t first = in32(0x608), counts;

    (void)state;
    pass_us(1000000);
    counts = in32(0x608) - first;
    assert_in_range(counts, 3579545, 3579545 + 20);
    out32(0x608, 0);
    assert_in_range(in32(0x608), first + 3579545, first + 3579545 + 40);
    assert_int_equal(in8(0x60b), in32(0x608) >> 24);
}

static void test_the_timer_interrupts(void **state)
{
    (void)state;
    open_lines();
    out8(0x4d1, 0x02); /* a level */
    out16(0x602, 0x0001);
    pass_us(HALF_US - 100);
    assert_int_equal(take_irq(), -1);
    pass_us(200);
    assert_int_equal(in16(0x600), 0x0001);
    assert_int_equal(take_irq(), 9);
    assert_int_equal(take_irq(), 9); /* until it is cleared */
    out16(0x600, 0x0001);
    assert_int_equal(in16(0x600), 0);
    assert_int_equal(take_irq(), -1);
    out16(0x602, 0);
    pass_us(HALF_US + 100);
    assert_int_equal(in16(0x600), 0x0001);
    assert_int_equal(take_irq(), -1);
}

static void test_next_is_when_it_asks(void **state)
{
    uint64_t now, next;

    (void)state;
    open_lines();
    now = guest_now(pc);
    assert_true(acpi_device.next(pc, now) == UINT64_MAX);
    out16(0x602, 0x0001);
    now = guest_now(pc);
    next = acpi_device.next(pc, now);
    acpi_device.update(pc, now + next - 1);
    assert_int_equal(take_irq(), -1);
    acpi_device.update(pc, now + next);
    assert_int_equal(take_irq(), 9);
    assert_true(acpi_device.next(pc, now + next) == UINT64_MAX);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, pc_set_up, pc_tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_they_are_found),
        TEST(test_the_fixed_table),
        TEST(test_without_room),
        TEST(test_it_is_always_on),
        TEST(test_power_off),
        TEST(test_power_off_by_bytes),
        TEST(test_the_timer_counts),
        TEST(test_the_timer_interrupts),
        TEST(test_next_is_when_it_asks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
