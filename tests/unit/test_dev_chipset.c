/*
 * The small parts of a PC's chipset, through their ports: PCI configuration, resets, the diagnostic
 * port, the port by which test harnesses end QEMU.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "lib/bits.h"
#include "lib/error.h"
#include "tests/unit/fake_machine.h"
#include "tests/unit/pc_guest.h"
#include "vm/ports.h"
#include "vm/reset.h"

static uint32_t config(uint32_t function, unsigned offset)
{
    out32(0xcf8, 0x80000000 | function << 8 | offset);
    return in32(0xcfc);
}

static void test_the_host_bridge(void **state)
{
    (void)state;
    assert_int_equal(config(0, 0), 0x12378086);
    assert_int_equal(config(0, 4), 0x02800006);
    assert_int_equal(config(0, 8), 0x06000002);
    for (unsigned at = 0x0c; at < 0x100; at += 4)
        assert_int_equal(config(0, at), 0);
}

static void test_nothing_else_is_on_the_bus(void **state)
{
    (void)state;
    for (uint32_t function = 1; function <= UINT16_MAX; function++)
        assert_int_equal(config(function, 0), UINT32_MAX);
    out32(0xcf8, 0x00000000); /* not enabled */
    assert_int_equal(in32(0xcfc), UINT32_MAX);
}

static void test_narrow_accesses_of_data(void **state)
{
    (void)state;
    out32(0xcf8, 0x80000000);
    assert_int_equal(port_read(pc, 0xcfc, 2), 0x8086);
    assert_int_equal(port_read(pc, 0xcfe, 2), 0x1237);
    assert_int_equal(in8(0xcfd), 0x80);
    assert_int_equal(port_read(pc, 0xcfd, 2), 0x3780);
    out32(0xcf8, 0x8000000b); /* the lowest two bits are none of the register's */
    assert_int_equal(in32(0xcf8), 0x80000008);
    assert_int_equal(in8(0xcff), 0x06);
}

static void test_what_can_be_written(void **state)
{
    (void)state;
    for (unsigned at = 0; at < 0x100; at += 4) {
        out32(0xcf8, 0x80000000 | at);
        out32(0xcfc, UINT32_MAX);
    }
    assert_int_equal(config(0, 0), 0x12378086);
    assert_int_equal(config(0, 4), 0x02800106);
    assert_int_equal(config(0, 0x0c), 0x0000f800);
    out32(0xcf8, 0x80000004);
    out8(0xcfd, 0);
    assert_int_equal(config(0, 4), 0x02800006);
}

/* What Linux does to find mechanism 1, and that it is not mechanism 2. */
static void test_the_address_is_32_bits_wide(void **state)
{
    (void)state;
    out8(0xcfb, 0x01);
    out32(0xcf8, 0x80000000);
    assert_int_equal(in32(0xcf8), 0x80000000);
    out8(0xcf8, 0x12);
    port_write(pc, 0xcf8, 2, 0x3456);
    port_write(pc, 0xcfa, 2, 0x789a);
    assert_int_equal(in32(0xcf8), 0x80000000);
    assert_int_equal(in8(0xcf8), 0xff);
    assert_int_equal(pc->state, GUEST_RUNNING);
    out32(0xcf8, UINT32_MAX);
    assert_int_equal(in32(0xcf8), 0x80fffffc);
    assert_string_equal(shown("PCI"), "address 0x80fffffc: ff:1f.7 register 0xfc, nothing there\n");
}

/* Behind the last port there is none, and not the first again. */
static void test_the_last_port(void **state)
{
    uint64_t before = pc->devices.unclaimed;

    (void)state;
    assert_int_equal(port_read(pc, 0xffff, 4), UINT32_MAX);
    assert_int_equal(pc->devices.unclaimed, before + 1);
    assert_int_equal(pc->devices.last_unclaimed, 0xffff);
    port_write(pc, 0xfffe, 4, 0);
    assert_int_equal(pc->devices.unclaimed, before + 3);
    assert_int_equal(pc->devices.last_unclaimed, 0xffff);
    assert_int_equal(port_read(pc, 0xfffe, 2), 0xffff);
    assert_int_equal(pc->devices.unclaimed, before + 5);
}

/* A word across two registers is two bytes, of each register its own; a byte has eight bits. */
static void test_accesses_across_registers(void **state)
{
    (void)state;
    port_write(pc, 0x602, 2, 0x0721); /* PM1 enable, and PM1 control behind it */
    assert_int_equal(port_read(pc, 0x602, 2), 0x0721);
    assert_int_equal(port_read(pc, 0x603, 2), 0x0107);
    port_write(pc, 0x603, 2, 0x0000);
    assert_int_equal(port_read(pc, 0x602, 2), 0x0021);
    pass_us(100000); /* of the 32 bits of the ACPI timer */
    assert_in_range(port_read(pc, 0x608, 4), 0x10000, UINT32_MAX);
    assert_in_range(port_read(pc, 0x608, 1), 0, 0xff);
    assert_in_range(port_read(pc, 0x608, 2), 0, 0xffff);
}

/* ---- The 8254 ---------------------------------------------------------------------------------
 */

#define COUNTS(us) (unsigned)((us)*UINT64_C(1193182) / 1000000)
#define SLACK 40 /* counts that go by while ports are read */

static void load_third(uint8_t mode, uint16_t count)
{
    out8(0x43, (uint8_t)(0xb0 | mode << 1));
    out8(0x42, (uint8_t)count);
    out8(0x42, (uint8_t)(count >> 8));
}

static unsigned third_count(void)
{
    unsigned low = in8(0x42);

    return low | (unsigned)in8(0x42) << 8;
}

static void test_a_count_is_read(void **state)
{
    (void)state;
    out8(0x61, 0x01);
    for (unsigned i = 0; i < 2; i++) {
        unsigned whole = i ? 65536 : 50000; /* 0 stands for 65536 */

        load_third(2, (uint16_t)whole);
        pass_us(10000);
        out8(0x43, 0x80); /* latched: it holds until both halves were read */
        pass_us(5000);
        out8(0x43, 0x80);
        pass_us(5000);
        unsigned left = whole - COUNTS(10000);
        assert_in_range(third_count(), left - SLACK, left);
        left = whole - COUNTS(20000);
        out8(0x43, 0x80);
        assert_in_range(third_count(), left - SLACK, left);
    }
}

static void test_modes_of_the_third_counter(void **state)
{
    unsigned high = 0;

    (void)state;
    for (unsigned mode = 0; mode < 8; mode++) {
        load_third((uint8_t)mode, 1000);
        out8(0x43, 0xe8); /* its status */
        assert_int_equal(in8(0x42) & 0x3f, 0x30 | (mode & (mode & 2 ? 3 : 7)) << 1);
    }
    /* Of an odd count the longer half is high. */
    load_third(3, 3);
    for (unsigned i = 0; i < 600; i++)
        high += in8(0x61) >> 5 & 1;
    assert_in_range(high, 350, 450);
    /* A rising gate starts it anew. */
    out8(0x61, 0x00);
    load_third(2, 50000);
    pass_us(10000);
    out8(0x61, 0x01);
    out8(0x43, 0x80);
    assert_in_range(third_count(), 50000 - SLACK, 50000);
    pass_us(10000);
    out8(0x61, 0x03); /* it is up already */
    out8(0x43, 0x80);
    assert_in_range(third_count(), 30000, 50000 - COUNTS(10000));
    out8(0x61, 0xff);
    assert_int_equal(in8(0x61) & 0xcf, 0x03);
}

/* ---- The serial port --------------------------------------------------------------------------
 */

static void test_the_serial_port_by_itself(void **state)
{
    uint64_t before = pc->output_total;

    (void)state;
    out8(0x3fb, 0x83); /* the divisor */
    out8(0x3f8, 0x0c);
    out8(0x3f9, 0x00);
    assert_int_equal(in8(0x3f8), 0x0c);
    out8(0x3fb, 0x03);
    assert_int_equal(pc->output_total, before);
    out8(0x3fc, 0x1f); /* loop-back */
    for (unsigned i = 0; i < SERIAL_INPUT + 1; i++)
        out8(0x3f8, (uint8_t)i);
    assert_int_equal(pc->output_total, before);
    assert_int_equal(pc->devices.serial.input_count, SERIAL_INPUT);
    assert_int_equal(in8(0x3fd) & 0x03, 0x03);
    assert_int_equal(in8(0x3fd) & 0x03, 0x01); /* an overrun is told once */
    assert_int_equal(in8(0x3f8), 0);
    assert_int_equal(in8(0x3f8), 1);
    assert_int_equal(in8(0x3fe), 0xf0);
    out8(0x3fa, 0x03); /* clears the receiver */
    assert_int_equal(in8(0x3fd) & 0x01, 0);
    assert_int_equal(in8(0x3fa), 0xc1);
    out8(0x3fc, 0x00);
    assert_int_equal(in8(0x3fe), 0xb0);
    out8(0x3f8, 'x');
    assert_int_equal(pc->output_total, before + 1);
}

static void test_the_diagnostic_port(void **state)
{
    (void)state;
    out8(0x80, 0x42);
    assert_int_equal(in8(0x80), 0x42);
    assert_string_equal(shown("chipset"), "last to port 0x80: 0x42\n");
    out8(0xf0, 0); /* as kernels do that look for an FPU's interrupt */
    assert_int_equal(pc->devices.unclaimed, 0);
}

static void test_reset_control(void **state)
{
    (void)state;
    out8(0xcf9, 0x02);
    assert_int_equal(in8(0xcf9), 0x02);
    assert_int_equal(pc->state, GUEST_RUNNING);
    assert_int_equal(in8(0x92), 0x02); /* A20, which is open */
    out8(0x92, 0x00);                  /* stays open, but whoever closes it waits for its bit */
    assert_int_equal(in8(0x92), 0x00);
    assert_int_equal(in8(0xcf9), 0x02);
    out8(0xcf9, 0x00);
    assert_int_equal(in8(0x92), 0x00);
    out8(0x92, 0x02);
    assert_int_equal(in8(0x92), 0x02);
    assert_int_equal(pc->state, GUEST_RUNNING);
    out8(0xcf9, 0x06);
    assert_int_equal(pc->state, GUEST_STOPPED);
    assert_string_equal(pc->reason, "the guest asked for a reset of its machine (port 0xcf9)");
    guests_round();
    assert_int_equal(pc->state, GUEST_STOPPED);
}

/* ---- reset=restart --------------------------------------------------------------------------- */

static int set_up_restart(void **state)
{
    (void)state;
    return pc_set_up_with("machine pc reset=restart");
}

static void reset_by_port(struct fake_vcpu *vcpu, struct vm_exit *exit)
{
    vcpu->vcpu.gpr[RAX] = 0xfe;
    *exit = (struct vm_exit){.kind = VM_EXIT_PORT, .length = 2, .port = {.port = 0x64, .width = 1}};
}

static void triple_fault(struct fake_vcpu *vcpu, struct vm_exit *exit)
{
    (void)vcpu;
    exit->kind = VM_EXIT_SHUTDOWN;
}

static void restarts_so_often(void (*cpu)(struct fake_vcpu *, struct vm_exit *))
{
    uint64_t free_frames;

    machine_cpu = cpu;
    for (unsigned i = 0; i < RESET_RESTARTS; i++) {
        assert_int_equal(guests_round(), 1);
        assert_int_equal(pc->state, GUEST_RUNNING);
    }
    assert_non_null(strstr(machine_log(), "machine: restarts (8 of 8)"));
    assert_null(strstr(machine_log(), "stays stopped"));
    assert_int_equal(guests_round(), 0);
    assert_int_equal(pc->state, GUEST_STOPPED);
    assert_non_null(strstr(machine_log(), "restarted 8 times; it stays stopped until `start g1`"));
    free_frames = machine_free_frames();
    /* From the console all begins anew. */
    assert_int_equal(guest_start(pc), E_OK);
    assert_int_equal(guests_round(), 1);
    assert_int_equal(guest_kill(pc), E_OK);
    assert_int_equal(machine_free_frames(), free_frames);
    machine_cpu = NULL;
}

static void test_a_reset_restarts(void **state)
{
    (void)state;
    restarts_so_often(reset_by_port);
}

static void test_a_triple_fault_restarts(void **state)
{
    (void)state;
    restarts_so_often(triple_fault);
}

static void test_other_ends_do_not(void **state)
{
    (void)state;
    out32(0x510, 3);
    assert_int_equal(pc->state, GUEST_FAILED);
    guest_finish(pc);
    guest_restart(pc);
    assert_int_equal(pc->state, GUEST_FAILED);
    assert_int_equal(guest_start(pc), E_OK);
    assert_int_equal(guest_kill(pc), E_OK);
    guest_restart(pc);
    assert_int_equal(pc->state, GUEST_KILLED);
}

/* ---- debug-exit ------------------------------------------------------------------------------ */

static int set_up_debug_exit(void **state)
{
    (void)state;
    return pc_set_up_with("machine debug-exit");
}

static void test_debug_exit_passes(void **state)
{
    (void)state;
    out32(0xf4, 0x10);
    assert_int_equal(pc->state, GUEST_PASSED);
}

static void test_debug_exit_fails(void **state)
{
    (void)state;
    out8(0xf4, 0x11);
    assert_int_equal(pc->state, GUEST_FAILED);
    assert_int_equal(pc->verdict, 0x11);
    assert_string_equal(pc->reason, "the guest wrote 17 to port 0xf4 (in QEMU: status 35)");
}

static void test_debug_exit_is_an_option(void **state)
{
    (void)state;
    out32(0xf4, 0x10);
    assert_int_equal(pc->state, GUEST_RUNNING);
    assert_int_equal(in8(0xf4), 0xff);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, pc_set_up, pc_tear_down)
#define TEST_WITH(name, set_up) cmocka_unit_test_setup_teardown(name, set_up, pc_tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_the_host_bridge),
        TEST(test_nothing_else_is_on_the_bus),
        TEST(test_narrow_accesses_of_data),
        TEST(test_what_can_be_written),
        TEST(test_the_address_is_32_bits_wide),
        TEST(test_the_last_port),
        TEST(test_a_count_is_read),
        TEST(test_modes_of_the_third_counter),
        TEST(test_the_serial_port_by_itself),
        TEST(test_accesses_across_registers),
        TEST(test_the_diagnostic_port),
        TEST(test_reset_control),
        TEST_WITH(test_a_reset_restarts, set_up_restart),
        TEST_WITH(test_a_triple_fault_restarts, set_up_restart),
        TEST_WITH(test_other_ends_do_not, set_up_restart),
        TEST_WITH(test_debug_exit_passes, set_up_debug_exit),
        TEST_WITH(test_debug_exit_fails, set_up_debug_exit),
        TEST(test_debug_exit_is_an_option),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
