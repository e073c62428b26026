/*
 * The serial port's driver against a port made of a few variables: nothing that is sent is lost,
 * with a FIFO and without one, and with one the status is read once for as many bytes as it holds.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "arch/x86_64/cpu.h"

static uint8_t port_read(uint16_t port);
static void port_write(uint16_t port, uint8_t value);

/* The driver's own text, with its ports here. */
#define inb port_read
#define outb port_write
#include "arch/x86_64/uart.c"
#undef inb
#undef outb

#define HELD 16

static struct {
    bool broken_fifo; /* a 16550: its FIFO can be switched on, and IIR tells that it must not be
                         used */
    bool has_fifo;
    bool stuck; /* nothing ever leaves it */
    bool fifo_on;
    uint8_t scratch, lcr;
    char held[HELD];
    unsigned held_count, slowness, looks, lost;
    char sent[8192];
    unsigned sent_count, status_reads;
} port;

static unsigned capacity(void)
{
    return port.fifo_on && port.has_fifo ? HELD : 1;
}

/* Time passes by looks at the status: after `slowness` of them a byte has left. */
static void pass_time(void)
{
    if (port.stuck || port.held_count == 0 || ++port.looks < port.slowness)
        return;
    port.looks = 0;
    port.sent[port.sent_count++] = port.held[0];
    memmove(port.held, port.held + 1, --port.held_count);
}

static uint8_t port_read(uint16_t number)
{
    switch (number - COM1) {
    case 2:
        return !port.fifo_on ? 0x01 : port.has_fifo ? 0xc1 : port.broken_fifo ? 0x81 : 0x01;
    case 5:
        port.status_reads++;
        pass_time();
        return port.held_count ? 0 : LSR_HOLDING_EMPTY | LSR_ALL_SENT;
    case 7:
        return port.scratch;
    default:
        return 0;
    }
}

static void port_write(uint16_t number, uint8_t value)
{
    switch (number - COM1) {
    case 0:
        if (port.lcr & LCR_DLAB)
            break;
        if (port.held_count == capacity())
            port.lost++;
        else
            port.held[port.held_count++] = (char)value;
        break;
    case 2:
        /* What is in the FIFOs is gone when they are switched. */
        if (port.fifo_on != (value & 1) || (value & 4))
            port.lost += port.held_count, port.held_count = 0;
        port.fifo_on = value & 1;
        break;
    case 3:
        port.lcr = value;
        break;
    case 7:
        port.scratch = value;
        break;
    default:
        break;
    }
}

static void begin(bool has_fifo, unsigned slowness)
{
    memset(&port, 0, sizeof(port));
    port.has_fifo = has_fifo;
    port.slowness = slowness;
    assert_true(uart_init());
    port.status_reads = 0;
}

static void say(unsigned lines)
{
    for (unsigned i = 0; i < lines; i++)
        format(&uart_sink, "line %u of text\n", i);
}

static void expect_lines(unsigned lines)
{
    char wanted[8192];
    size_t n = 0;

    for (unsigned i = 0; i < lines; i++)
        n += (size_t)snprintf(wanted + n, sizeof(wanted) - n, "line %u of text\r\n", i);
    assert_int_equal(port.lost, 0);
    assert_int_equal(port.sent_count, n);
    assert_memory_equal(port.sent, wanted, n);
}

static void nothing_is_lost(void **state)
{
    (void)state;
    for (unsigned fifo = 0; fifo < 2; fifo++)
        for (unsigned slowness = 1; slowness < 50; slowness += 7) {
            begin(fifo, slowness);
            say(40);
            uart_flush();
            expect_lines(40);
        }
}

static void a_fifo_is_filled_at_one_look(void **state)
{
    (void)state;
    begin(true, 1);
    write(&uart_sink, "0123456789abcdef", 16);
    assert_int_equal(port.status_reads, 1);
    assert_int_equal(port.held_count, 16);
    write(&uart_sink, "g", 1);
    assert_int_equal(port.status_reads, 1 + 16);
    uart_flush();
    assert_int_equal(port.sent_count, 17);
    assert_int_equal(port.lost, 0);
}

static void a_16550_has_no_fifo_to_rely_on(void **state)
{
    (void)state;
    memset(&port, 0, sizeof(port));
    port.broken_fifo = true;
    port.slowness = 1;
    assert_true(uart_init());
    say(10);
    uart_flush();
    expect_lines(10);
}

/* The FIFO is given up while it is full: what is in it must be sent before. */
static void giving_up_the_fifo_loses_nothing(void **state)
{
    (void)state;
    begin(true, 3);
    say(5);
    uart_hold_sender();
    assert_false(port.fifo_on);
    for (unsigned i = 5; i < 10; i++)
        format(&uart_sink, "line %u of text\n", i);
    uart_flush();
    expect_lines(10);
}

static void a_port_that_sends_nothing_stops_nobody(void **state)
{
    (void)state;
    begin(true, 1);
    port.stuck = true;
    write(&uart_sink, "0123456789abcdefg", 17);
    assert_int_equal(port.held_count, 16);
    assert_int_equal(port.lost, 0);
}

static void say_queued(unsigned first, unsigned end)
{
    for (unsigned i = first; i < end; i++)
        format(&uart_queue_sink, "line %u of text\n", i);
}

/* Nothing waits for the transmitter as long as the queue has room; what is sent directly comes
 * behind it. */
static void a_queue_waits_for_nobody(void **state)
{
    (void)state;
    for (unsigned fifo = 0; fifo < 2; fifo++) {
        begin(fifo, 1000);
        say_queued(0, 40);
        assert_true(port.status_reads < 1000 && port.sent_count == 0);
        assert_true(uart_has_room() && uart_is_queued());
        for (unsigned i = 0; i < 500; i++)
            assert_false(uart_attend());
        assert_int_equal(port.sent_count, 0);
        format(&uart_sink, "line %u of text\n", 40);
        assert_false(uart_is_queued());
        uart_flush();
        expect_lines(41);
    }
}

static void a_full_queue_loses_nothing(void **state)
{
    (void)state;
    begin(true, 3);
    say_queued(0, 300);
    assert_false(uart_has_room());
    for (unsigned i = 0; uart_is_queued() && i < 100000; i++)
        uart_attend();
    assert_true(uart_has_room());
    uart_flush();
    expect_lines(300);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nothing_is_lost),
        cmocka_unit_test(a_fifo_is_filled_at_one_look),
        cmocka_unit_test(a_16550_has_no_fifo_to_rely_on),
        cmocka_unit_test(giving_up_the_fifo_loses_nothing),
        cmocka_unit_test(a_port_that_sends_nothing_stops_nobody),
        cmocka_unit_test(a_queue_waits_for_nobody),
        cmocka_unit_test(a_full_queue_loses_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
