/*
 * The reader of ACPI's tables: what firmware writes, and what it should not.
 *
 * The memory is one array; the tables that a machine has are put there, and can be spoilt.
 */
#include "boot/madt.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#define BASE 0xe0000u
#define RSDT_AT 0x100u
#define XSDT_AT 0x200u
#define MADT_AT 0x401u /* tables have any alignment */

static uint8_t memory[0x4000];
static struct boot_rsdp rsdp;
static struct madt madt;
static char why[MADT_WHY];

static const void *reach(void *ctx, uint64_t at, uint64_t size)
{
    (void)ctx;
    if (at < BASE || at - BASE > sizeof(memory) || size > sizeof(memory) - (at - BASE))
        return NULL;
    return memory + (at - BASE);
}

static void put32(unsigned at, uint32_t value)
{
    memcpy(memory + at, &value, 4);
}

static uint32_t length_at(unsigned at)
{
    uint32_t length;

    memcpy(&length, memory + at + 4, 4);
    return length;
}

/* The byte at 9 makes the sum 0. */
static void seal(unsigned at)
{
    uint8_t sum = 0;

    memory[at + 9] = 0;
    for (uint32_t i = 0; i < length_at(at); i++)
        sum = (uint8_t)(sum + memory[at + i]);
    memory[at + 9] = (uint8_t)-sum;
}

static void begin(unsigned at, const char *signature, uint32_t length)
{
    memcpy(memory + at, signature, 4);
    put32(at + 4, length);
}

static void append(const void *bytes, uint8_t n)
{
    uint32_t length = length_at(MADT_AT);

    memcpy(memory + MADT_AT + length, bytes, n);
    put32(MADT_AT + 4, length + n);
    seal(MADT_AT);
}

static void append_local(uint8_t uid, uint8_t id, uint32_t flags)
{
    uint8_t entry[8] = {0, 8, uid, id};

    memcpy(entry + 4, &flags, 4);
    append(entry, sizeof(entry));
}

static void append_x2apic(uint32_t id, uint32_t flags, uint32_t uid)
{
    uint8_t entry[16] = {9, 16};

    memcpy(entry + 4, &id, 4);
    memcpy(entry + 8, &flags, 4);
    memcpy(entry + 12, &uid, 4);
    append(entry, sizeof(entry));
}

/* An RSDT of two tables, of which the second is a MADT without entries; and an XSDT of the same. */
static int set_up(void **state)
{
    (void)state;
    memset(memory, 0, sizeof(memory));
    begin(RSDT_AT, "RSDT", 36 + 8);
    put32(RSDT_AT + 36, BASE + 0x300);
    put32(RSDT_AT + 40, BASE + MADT_AT);
    seal(RSDT_AT);
    begin(XSDT_AT, "XSDT", 36 + 16);
    put32(XSDT_AT + 36, BASE + 0x300);
    put32(XSDT_AT + 44, BASE + MADT_AT);
    seal(XSDT_AT);
    memcpy(memory + 0x300, "FACP", 4);
    begin(MADT_AT, "APIC", 44);
    seal(MADT_AT);
    rsdp = (struct boot_rsdp){.present = true, .revision = 2, .rsdt = hpa(BASE + RSDT_AT)};
    return 0;
}

static int parse(void)
{
    memset(why, 0, sizeof(why));
    return madt_read(&rsdp, reach, NULL, &madt, why, sizeof(why));
}

static void refused(int error, const char *text)
{
    assert_int_equal(parse(), error);
    if (strstr(why, text) == NULL)
        fail_msg("it says: %s", why);
    assert_int_equal(madt.count, 0);
    assert_int_equal(madt.dropped, 0);
}

static void test_cpus_in_order(void **state)
{
    (void)state;
    append_local(0, 0, 1);
    append((const uint8_t[]){1, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}, 12); /* an I/O APIC */
    append_local(1, 2, 0);
    append_local(2, 4, 2);
    append_x2apic(0x1234, 1, 99);
    for (unsigned wide = 0; wide < 2; wide++) {
        rsdp.xsdt = hpa(wide ? BASE + XSDT_AT : 0);
        assert_int_equal(parse(), E_OK);
        assert_int_equal(madt.count, 4);
        assert_int_equal(madt.cpu[0].apic_id, 0);
        assert_true(madt.cpu[0].enabled && !madt.cpu[0].online_capable);
        assert_int_equal(madt.cpu[1].apic_id, 2);
        assert_true(!madt.cpu[1].enabled && !madt.cpu[1].online_capable);
        assert_true(!madt.cpu[2].enabled && madt.cpu[2].online_capable);
        assert_int_equal(madt.cpu[3].apic_id, 0x1234);
        assert_int_equal(madt.cpu[3].uid, 99);
        assert_true(madt.cpu[3].enabled);
    }
}

static void test_a_cpu_told_of_twice(void **state)
{
    (void)state;
    append_local(1, 5, 0);
    append_x2apic(5, 1, 1);
    assert_int_equal(parse(), E_OK);
    assert_int_equal(madt.count, 1);
    assert_true(madt.cpu[0].enabled);
}

static void test_ids_that_are_nobodys(void **state)
{
    (void)state;
    append_local(1, 0xff, 1);
    append_x2apic(UINT32_MAX, 1, 1);
    assert_int_equal(parse(), E_OK);
    assert_int_equal(madt.count, 0);
}

static void test_more_than_there_is_room_for(void **state)
{
    (void)state;
    for (unsigned i = 0; i < MADT_CPUS + 3; i++)
        append_x2apic(1000 + i, 1, i);
    assert_int_equal(parse(), E_OK);
    assert_int_equal(madt.count, MADT_CPUS);
    assert_int_equal(madt.dropped, 3);
    assert_int_equal(madt.cpu[MADT_CPUS - 1].apic_id, 1000 + MADT_CPUS - 1);
}

static void test_no_tables(void **state)
{
    (void)state;
    rsdp.present = false;
    refused(E_NOENT, "passed no ACPI root pointer");
    rsdp = (struct boot_rsdp){.present = true};
    refused(E_NOENT, "passed no ACPI root pointer");
    set_up(NULL);
    put32(RSDT_AT + 40, BASE + 0x300);
    seal(RSDT_AT);
    refused(E_NOENT, "the RSDT at 0xe0100 lists no MADT");
}

static void test_addresses(void **state)
{
    (void)state;
    rsdp.rsdt = hpa(0x1000);
    refused(E_RANGE, "the RSDT at 0x1000 lies where memory cannot be read");
    rsdp.rsdt = hpa(BASE + sizeof(memory) - 10);
    refused(E_RANGE, "lies where memory cannot be read");
    rsdp.xsdt = hpa(UINT64_MAX - 8);
    refused(E_RANGE, "lies where memory cannot be read");
    set_up(NULL);
    put32(RSDT_AT + 36, 0x10); /* one that cannot be reached is passed over */
    seal(RSDT_AT);
    assert_int_equal(parse(), E_OK);
}

static void test_headers(void **state)
{
    (void)state;
    memory[RSDT_AT] = 'X';
    refused(E_FORMAT, "does not begin with \"RSDT\"");
    set_up(NULL);
    memory[RSDT_AT + 20]++;
    refused(E_FORMAT, "the 44 bytes of the RSDT at 0xe0100 must sum to 0");
    set_up(NULL);
    memory[MADT_AT + 20]++;
    refused(E_FORMAT, "the 44 bytes of the APIC at 0xe0401 must sum to 0");
    set_up(NULL);
    put32(RSDT_AT + 4, 35);
    refused(E_TRUNC, "gives its length as 35; 36 to 1048576 is right");
    put32(RSDT_AT + 4, UINT32_MAX);
    refused(E_TRUNC, "gives its length as 4294967295");
    put32(RSDT_AT + 4, 0x8000);
    refused(E_RANGE, "the 32768 bytes of the RSDT at 0xe0100 cannot all be read");
    set_up(NULL);
    put32(MADT_AT + 4, 40);
    seal(MADT_AT);
    refused(E_TRUNC, "the MADT at 0xe0401 has 40 bytes; it needs 44");
}

static void test_entries(void **state)
{
    (void)state;
    append((const uint8_t[]){0, 7, 0, 0, 0, 0, 0}, 7);
    refused(E_TRUNC, "the MADT's entry of type 0 at 0x2c has 7 bytes; it needs 8");
    set_up(NULL);
    append((const uint8_t[]){9, 8, 0, 0, 0, 0, 0, 0}, 8);
    refused(E_TRUNC, "the MADT's entry of type 9 at 0x2c has 8 bytes; it needs 16");
    set_up(NULL);
    append((const uint8_t[]){77, 0}, 2);
    refused(E_TRUNC, "the MADT's entry at 0x2c gives its length as 0; there are 2 bytes left");
    set_up(NULL);
    append((const uint8_t[]){77, 3}, 2);
    refused(E_TRUNC, "gives its length as 3; there are 2 bytes left");
    set_up(NULL);
    append((const uint8_t[]){77}, 1);
    refused(E_TRUNC, "there are 1 bytes left");
    set_up(NULL);
    append((const uint8_t[]){77, 2}, 2); /* unknown, and well formed */
    append_local(1, 1, 1);
    assert_int_equal(parse(), E_OK);
    assert_int_equal(madt.count, 1);
}

/* Whatever byte is wrong: an answer, and no byte outside of the tables is looked at. */
static void test_every_byte_spoilt(void **state)
{
    (void)state;
    append_local(0, 0, 1);
    append_x2apic(300, 1, 1);
    for (unsigned at = RSDT_AT; at < MADT_AT + length_at(MADT_AT); at++)
        for (unsigned value = 0; value < 256; value += 15) {
            uint8_t was = memory[at];

            memory[at] = (uint8_t)value;
            int error = parse();
            assert_true(error == E_OK || why[0] != 0);
            assert_true(madt.count <= 2);
            memory[at] = was;
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_cpus_in_order, set_up),
        cmocka_unit_test_setup(test_a_cpu_told_of_twice, set_up),
        cmocka_unit_test_setup(test_ids_that_are_nobodys, set_up),
        cmocka_unit_test_setup(test_more_than_there_is_room_for, set_up),
        cmocka_unit_test_setup(test_no_tables, set_up),
        cmocka_unit_test_setup(test_addresses, set_up),
        cmocka_unit_test_setup(test_headers, set_up),
        cmocka_unit_test_setup(test_entries, set_up),
        cmocka_unit_test_setup(test_every_byte_spoilt, set_up),
    };
    return cmocka_run_group_tests_name("MADT", tests, NULL, NULL);
}
