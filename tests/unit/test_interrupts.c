/*
 * Interrupts of a guest's devices: the interrupt controllers by their data sheet, the timer and the
 * serial port that drive them, and how they reach a CPU that the test plays.
 */
#include "vm/interrupts.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#include "lib/bits.h"
#include "lib/error.h"
#include "mm/trace.h"
#include "tests/unit/fake_machine.h"
#include "tests/unit/random.h"
#include "vm/guest.h"
#include "vm/device.h"

#define RFLAGS_IF BIT(9)
#define COUNT UINT64_C(1024) /* ticks for one count of the timer */

static uint8_t sector[512];
static struct guest *guest;

static int set_up(void **state)
{
    const struct guest_image image = {.bytes = sector, .size = sizeof(sector), .cmdline = "pc"};

    (void)state;
    machine_start(64 * MiB);
    guests_init(&machine_backend, NULL);
    sector[510] = 0x55;
    sector[511] = 0xaa;
    machine_cpu = NULL;
    return guest_create(&image, &guest) != E_OK;
}

static int tear_down(void **state)
{
    (void)state;
    if (!guest_ended(guest))
        guest_kill(guest);
    machine_stop();
    return 0;
}

static void out(uint16_t port, uint8_t value)
{
    port_write(guest, port, 1, value);
}

static uint8_t in(uint16_t port)
{
    return (uint8_t)port_read(guest, port, 1);
}

/* Vectors 0x20 and 0x28 on, as most kernels have it; every line open. */
static void start_pics(uint8_t icw4)
{
    static const uint8_t words[2][3] = {{0x20, 0x04, 0}, {0x28, 0x02, 0}};

    for (unsigned chip = 0; chip < 2; chip++) {
        uint16_t port = chip ? 0xa0 : 0x20;
        out(port, 0x11);
        out(port + 1, words[chip][0]);
        out(port + 1, words[chip][1]);
        out(port + 1, icw4);
        out(port + 1, 0);
    }
}

static void pulse(unsigned irq)
{
    pic_set_line(guest, irq, true);
    pic_set_line(guest, irq, false);
}

static void end_first(void)
{
    out(0x20, 0x20);
}

static void end_second(void)
{
    out(0xa0, 0x20);
    out(0x20, 0x20);
}

static uint8_t read_service(uint16_t port)
{
    out(port, 0x0b);
    return in(port);
}

static uint8_t read_requests(uint16_t port)
{
    out(port, 0x0a);
    return in(port);
}

/* ---- The controllers ------------------------------------------------------------------------- */

static void test_each_line_has_its_vector(void **state)
{
    (void)state;
    start_pics(0x01);
    for (unsigned irq = 0; irq < 16; irq++) {
        if (irq == 2)
            continue;
        pulse(irq);
        assert_true(pic_asks(guest));
        assert_true(pic_requested(guest, irq));
        assert_int_equal(pic_acknowledge(guest), 0x20 + irq);
        assert_false(pic_asks(guest));
        assert_int_equal(read_service(irq < 8 ? 0x20 : 0xa0), BIT(irq % 8));
        if (irq < 8)
            end_first();
        else
            end_second();
        assert_int_equal(read_service(0x20) | read_service(0xa0), 0);
    }
}

static struct trace_point traced;

static void keep_trace(const struct trace_point *point)
{
    traced = *point;
}

static const char *origin_of(bool by_pic, uint8_t vector)
{
    static char text[INTERRUPT_ORIGIN_TEXT];

    return interrupt_origin_text(text, interrupt_origin(guest, by_pic, vector));
}

/* Whoever traces hears which device it was, as the controllers are programmed. */
static void test_where_an_interrupt_came_from(void **state)
{
    (void)state;
    start_pics(0x01);
    assert_string_equal(origin_of(true, 0x20), "timer, 8259 line 0");
    assert_string_equal(origin_of(true, 0x28), "clock, 8259 line 8");
    assert_string_equal(origin_of(true, 0x27), "line, 8259 line 7");
    guest->devices.ioapic.entry[4] = 0x34;
    guest->devices.ioapic.entry[2] = 0x30;
    guest->devices.ioapic.entry[1] = 0x31 | BIT(16);
    guest->devices.lapic[0].lvt[LAPIC_LVT_TIMER] = 0xec;
    assert_string_equal(origin_of(false, 0x34), "serial, I/O APIC pin 4");
    assert_string_equal(origin_of(false, 0x30), "timer, I/O APIC pin 2");
    assert_string_equal(origin_of(false, 0xec), "local APIC's timer");
    assert_string_equal(origin_of(false, 0x31),
                        "the CPU itself, by its ICR"); /* the pin is masked */
    trace_hook = keep_trace;
    trace_events = BIT(TRACE_INTERRUPT);
    pulse(4);
    fake_of(guest)->state.rflags = RFLAGS_IF;
    interrupts_offer(guest, 0);
    trace_events = 0;
    assert_int_equal(traced.event, TRACE_INTERRUPT);
    assert_int_equal(traced.owner, guest_owner(guest));
    assert_int_equal(traced.a, 0x24);
    assert_int_equal(traced.c, (uint64_t)ORIGIN_PIC << 8 | 4);
}

static void test_higher_lines_nest(void **state)
{
    (void)state;
    start_pics(0x01);
    pulse(5);
    assert_int_equal(pic_acknowledge(guest), 0x25);
    pulse(6);
    assert_false(pic_asks(guest)); /* below what is in service */
    pulse(9);                      /* by line 2: above */
    assert_int_equal(pic_acknowledge(guest), 0x29);
    pulse(12);
    assert_false(pic_asks(guest));
    pulse(0);
    assert_int_equal(pic_acknowledge(guest), 0x20);
    end_first();
    end_second();
    assert_int_equal(pic_acknowledge(guest), 0x2c);
    end_second();
    assert_false(pic_asks(guest)); /* 5 is in service still */
    end_first();
    assert_int_equal(pic_acknowledge(guest), 0x26);
}

/* A line does not interrupt its own handler. */
static void test_a_line_waits_for_its_own_end(void **state)
{
    (void)state;
    start_pics(0x01);
    for (unsigned irq = 1; irq < 16; irq += 6) {
        pulse(irq);
        assert_int_equal(pic_acknowledge(guest), 0x20 + irq);
        pulse(irq);
        assert_false(pic_asks(guest));
        irq < 8 ? end_first() : end_second();
        assert_int_equal(pic_acknowledge(guest), 0x20 + irq);
        irq < 8 ? end_first() : end_second();
    }
}

/* A line that stays up has asked once; a chip that comes up asks for nothing; a vector's low three
 * bits are the line's. */
static void test_edges_and_words(void **state)
{
    (void)state;
    assert_int_equal(in(0x21) & in(0xa1), 0xff);
    start_pics(0x01);
    pic_set_line(guest, 3, true);
    assert_int_equal(pic_acknowledge(guest), 0x23);
    pic_set_line(guest, 3, true);
    end_first();
    assert_false(pic_asks(guest));
    pic_set_line(guest, 3, false);
    end_first(); /* nothing is in service */
    assert_int_equal(read_service(0x20), 0);
    out(0x20, 0x11); /* four words, the second with bits that it has not */
    out(0x21, 0x47);
    out(0x21, 0x04);
    out(0x21, 0x01);
    assert_int_equal(in(0x21), 0x00);
    out(0x21, 0xf0);
    assert_int_equal(in(0x21), 0xf0);
    pulse(3);
    assert_int_equal(pic_acknowledge(guest), 0x43);
}

static void test_masks_hold_back(void **state)
{
    (void)state;
    start_pics(0x01);
    out(0x21, 0x10);
    pulse(4);
    assert_false(pic_asks(guest));
    assert_int_equal(read_requests(0x20), 0x10);
    assert_true(pic_masked(guest, 4));
    out(0x21, 0x00);
    assert_int_equal(pic_acknowledge(guest), 0x24);
    end_first();
    /* The second chip is reached by line 2. */
    out(0x21, 0x04);
    assert_true(pic_masked(guest, 14));
    pulse(14);
    assert_false(pic_asks(guest));
    out(0x21, 0);
    assert_int_equal(pic_acknowledge(guest), 0x2e);
}

static void test_a_level_asks_until_it_drops(void **state)
{
    (void)state;
    start_pics(0x01);
    out(0x4d0, 0xff);
    out(0x4d1, 0xff);
    assert_int_equal(in(0x4d0), 0xf8);
    assert_int_equal(in(0x4d1), 0xde);
    for (unsigned i = 0; i < 3; i++) {
        pic_set_line(guest, 11, true);
        assert_int_equal(pic_acknowledge(guest), 0x2b);
        end_second();
    }
    assert_true(pic_asks(guest));
    pic_set_line(guest, 11, false);
    assert_false(pic_asks(guest));
    assert_int_equal(read_requests(0xa0), 0);
}

static void test_what_is_gone_is_spurious(void **state)
{
    (void)state;
    start_pics(0x01);
    assert_int_equal(pic_acknowledge(guest), 0x27);
    assert_int_equal(read_service(0x20), 0);
    /* Of the second chip: line 2 of the first is in service all the same. */
    pulse(10);
    guest->devices.pic.chip[1].mask = 0xff; /* masked between request and acknowledge */
    assert_int_equal(pic_acknowledge(guest), 0x2f);
    assert_int_equal(read_service(0xa0), 0);
    assert_int_equal(read_service(0x20), 0x04);
}

static void test_ends_of_interrupt(void **state)
{
    (void)state;
    start_pics(0x01);
    pulse(6);
    pic_acknowledge(guest);
    pulse(1);
    pic_acknowledge(guest);
    out(0x20, 0x66); /* specific: line 6, although 1 is the highest */
    assert_int_equal(read_service(0x20), 0x02);
    /* Rotation: what was served last comes last. */
    out(0x20, 0xa0);
    assert_int_equal(read_service(0x20), 0);
    pulse(1);
    pulse(7);
    assert_int_equal(pic_acknowledge(guest), 0x27);
    end_first();
    out(0x20, 0xc7); /* the lowest is 7: as at the start */
    pulse(7);
    assert_int_equal(pic_acknowledge(guest), 0x21);
}

static void test_automatic_end(void **state)
{
    (void)state;
    start_pics(0x03);
    for (unsigned i = 0; i < 2; i++) {
        pulse(3);
        assert_int_equal(pic_acknowledge(guest), 0x23);
        assert_int_equal(read_service(0x20), 0);
    }
    out(0x20, 0x80); /* rotate in automatic mode */
    pulse(3);
    assert_int_equal(pic_acknowledge(guest), 0x23);
    pulse(3);
    pulse(4);
    assert_int_equal(pic_acknowledge(guest), 0x24);
}

static void test_special_mask_mode(void **state)
{
    (void)state;
    start_pics(0x01);
    pulse(1);
    pic_acknowledge(guest);
    pulse(5);
    assert_false(pic_asks(guest));
    out(0x20, 0x68);
    out(0x21, 0x02); /* what is in service is masked: lower lines pass */
    assert_int_equal(pic_acknowledge(guest), 0x25);
    out(0x20, 0x48);
    out(0x21, 0x00);
    pulse(6);
    assert_false(pic_asks(guest));
}

static void test_poll(void **state)
{
    (void)state;
    start_pics(0x01);
    out(0x20, 0x0c);
    assert_int_equal(in(0x20), 0);
    pulse(4);
    out(0x20, 0x0c);
    assert_int_equal(in(0x20), 0x84);
    assert_int_equal(read_service(0x20), 0x10);
    end_first();
}

static void test_initialisation_forgets(void **state)
{
    (void)state;
    start_pics(0x01);
    pulse(3);
    pic_acknowledge(guest);
    pulse(5);
    start_pics(0x01);
    assert_int_equal(read_service(0x20) | read_requests(0x20), 0);
    /* One chip alone, and no fourth word. */
    out(0x20, 0x12);
    out(0x21, 0x47);
    out(0x21, 0xfe);
    assert_int_equal(in(0x21), 0xfe);
    pulse(0);
    assert_int_equal(pic_acknowledge(guest), 0x40);
}

/* Whatever is written: an acknowledge answers with a vector of either chip, and what asks is above
 * what is in service. */
static void test_any_words(void **state)
{
    struct random random = {0x8259};

    (void)state;
    for (unsigned i = 0; i < 200000; i++) {
        static const uint16_t ports[] = {0x20, 0x21, 0xa0, 0xa1, 0x4d0, 0x4d1};
        uint16_t port = ports[random_below(&random, 6)];
        switch (random_below(&random, 4)) {
        case 0:
            out(port, (uint8_t)random_below(&random, 256));
            break;
        case 1:
            in(port);
            break;
        case 2:
            pic_set_line(guest, (unsigned)random_below(&random, 16), random_below(&random, 2));
            break;
        default: {
            const struct pic_chip *chip = guest->devices.pic.chip;
            bool asked = pic_asks(guest);
            uint8_t before = chip[0].in_service, vector = pic_acknowledge(guest);
            unsigned which = (vector & 0xf8) == chip[1].vector ? 1 : 0;
            assert_int_equal(vector & 0xf8, chip[which].vector);
            if (!asked)
                assert_int_equal(chip[0].in_service, before);
        }
        }
    }
}

/* ---- The timer ------------------------------------------------------------------------------- */

static void set_timer(uint8_t mode, uint16_t count)
{
    out(0x43, (uint8_t)(0x30 | mode << 1));
    out(0x40, (uint8_t)count);
    out(0x40, (uint8_t)(count >> 8));
}

/* The guest's clock, which stands still, comes to `now`. */
static void update_at(uint64_t now)
{
    guest->clock.at = now;
    devices_update(guest, now);
}

static uint64_t timer_start(void)
{
    return guest->devices.pit.counter[0].started;
}

static void test_a_periodic_timer(void **state)
{
    (void)state;
    for (uint8_t mode = 2; mode < 4; mode++) {
        start_pics(0x01);
        set_timer(mode, 100);
        uint64_t start = timer_start();
        for (uint64_t n = 1; n < 10; n++) {
            uint64_t due = start + n * 100 * COUNT;
            assert_int_equal(devices_next(guest, due - COUNT), COUNT);
            update_at(due - 1);
            assert_false(pic_asks(guest));
            update_at(due);
            assert_int_equal(pic_acknowledge(guest), 0x20);
            end_first();
        }
    }
}

static void test_a_timer_that_fires_once(void **state)
{
    (void)state;
    start_pics(0x01);
    set_timer(0, 50);
    assert_false(pic_asks(guest)); /* the output is low */
    uint64_t due = timer_start() + 50 * COUNT;
    assert_int_equal(devices_next(guest, due - 7), 7);
    update_at(due);
    assert_int_equal(pic_acknowledge(guest), 0x20);
    end_first();
    assert_int_equal(devices_next(guest, due), UINT64_MAX);
    update_at(due + 1000000 * COUNT);
    assert_false(pic_asks(guest));
    /* Mode 4 strobes one count later; modes 1 and 5 wait for a gate. */
    set_timer(4, 50);
    assert_int_equal(devices_next(guest, timer_start()), 51 * COUNT);
    set_timer(1, 50);
    assert_int_equal(devices_next(guest, timer_start()), UINT64_MAX);
}

static void test_missed_ticks_are_made_up(void **state)
{
    (void)state;
    start_pics(0x01);
    set_timer(2, 10);
    uint64_t now = timer_start() + 10 * 10 * COUNT + 5 * COUNT;
    unsigned ticks = 0;
    for (update_at(now); pic_asks(guest); update_at(now), ticks++) {
        assert_int_equal(pic_acknowledge(guest), 0x20);
        assert_int_equal(devices_next(guest, now), ticks < 9 ? COUNT : 5 * COUNT);
        end_first();
    }
    assert_int_equal(ticks, 10);
    /* Not those of a line that was masked, but for the last. */
    out(0x21, 0xff);
    now += 1000 * COUNT;
    update_at(now);
    assert_int_equal(devices_next(guest, now), UINT64_MAX);
    out(0x21, 0);
    for (ticks = 0; pic_asks(guest); update_at(now), ticks++) {
        pic_acknowledge(guest);
        end_first();
    }
    assert_int_equal(ticks, 1);
    /* Nor more than a thousand. */
    now += 1000000 * COUNT;
    for (ticks = 0, update_at(now); pic_asks(guest); update_at(now), ticks++) {
        pic_acknowledge(guest);
        end_first();
    }
    assert_int_equal(ticks, 1000);
}

/* A guest that keeps a line masked may read when it has asked. */
static void test_a_masked_timer_is_polled(void **state)
{
    (void)state;
    start_pics(0x01);
    out(0x21, 0xff);
    set_timer(0, 50);
    guest->clock.at = timer_start() + 50 * COUNT - 1;
    assert_int_equal(read_requests(0x20) & 1, 0);
    guest->clock.at++;
    assert_int_equal(read_requests(0x20) & 1, 1);
}

/* ---- The serial port ------------------------------------------------------------------------- */

static void test_the_serial_port_asks(void **state)
{
    (void)state;
    start_pics(0x01);
    out(0x3f9, 0x01); /* received data; but OUT2 is closed */
    assert_int_equal(guest_input(guest, "ab", 2), 2);
    assert_false(pic_asks(guest));
    assert_false(serial_listens(guest));
    out(0x3fc, 0x08);
    assert_true(serial_listens(guest));
    assert_int_equal(pic_acknowledge(guest), 0x24);
    assert_int_equal(in(0x3fa) & 0x0f, 0x04);
    assert_int_equal(in(0x3f8), 'a');
    end_first();
    assert_false(pic_asks(guest)); /* an edge: the line is still up */
    assert_int_equal(in(0x3f8), 'b');
    guest_input(guest, "c", 1);
    assert_int_equal(pic_acknowledge(guest), 0x24);
    in(0x3f8);
    end_first();
    /* The transmitter: at once when it is asked for, and after each byte. */
    out(0x3f9, 0x02);
    for (unsigned i = 0; i < 3; i++) {
        assert_int_equal(pic_acknowledge(guest), 0x24);
        end_first();
        assert_int_equal(in(0x3fa) & 0x0f, 0x02);
        assert_int_equal(in(0x3fa) & 0x0f, 0x01); /* reading took it away */
        assert_false(pic_asks(guest));
        out(0x3f8, 'x');
    }
}

/* ---- The CPU --------------------------------------------------------------------------------- */

static void test_they_wait_for_an_open_cpu(void **state)
{
    struct fake_vcpu *vcpu = fake_of(guest);

    (void)state;
    start_pics(0x01);
    pulse(3);
    vcpu->state.rflags = 0;
    interrupts_offer(guest, 0);
    assert_int_equal(vcpu->events, 0);
    assert_true(vcpu->window);
    vcpu->state.rflags = RFLAGS_IF;
    interrupts_offer(guest, 0);
    assert_int_equal(vcpu->events, 1);
    assert_int_equal(vcpu->event.kind, VM_EVENT_INTERRUPT);
    assert_int_equal(vcpu->event.vector, 0x23);
    assert_false(vcpu->window);
    assert_int_equal(guest->interrupts, 1);
}

static void halt(struct fake_vcpu *vcpu, struct vm_exit *exit)
{
    (void)vcpu;
    exit->kind = VM_EXIT_HALT;
}

static void test_halted_for_good(void **state)
{
    (void)state;
    machine_cpu = halt;
    fake_of(guest)->state.rflags = RFLAGS_IF;
    assert_int_equal(guests_round(), 0); /* all masked, nothing set */
    assert_int_equal(guest->state, GUEST_HALTED);
}

static void test_interrupts_off(void **state)
{
    (void)state;
    start_pics(0x01);
    set_timer(2, 10);
    machine_cpu = halt;
    fake_of(guest)->state.rflags = 0;
    assert_int_equal(guests_round(), 0);
    assert_int_equal(guest->state, GUEST_HALTED);
}

static void test_the_timer_wakes(void **state)
{
    struct fake_vcpu *vcpu = fake_of(guest);

    (void)state;
    start_pics(0x03);
    set_timer(2, 1000);
    machine_cpu = halt;
    vcpu->state.rflags = RFLAGS_IF;
    for (unsigned round = 0; vcpu->events < 5; round++) {
        assert_true(round < 10000);
        assert_int_equal(guests_round(), 1);
        assert_int_equal(guest->state, GUEST_RUNNING);
    }
    assert_int_equal(guest->exits[VM_EXIT_HALT], vcpu->events + guest->cpu[0].is.halted);
    /* It is not run while nothing has come. */
    assert_true(vcpu->vcpu.entries <= vcpu->events + 1);
}

static void test_input_wakes(void **state)
{
    struct fake_vcpu *vcpu = fake_of(guest);

    (void)state;
    start_pics(0x01);
    out(0x3fc, 0x08);
    out(0x3f9, 0x01);
    machine_cpu = halt;
    vcpu->state.rflags = RFLAGS_IF;
    guests_round();
    guests_round();
    assert_int_equal(vcpu->events, 0);
    /* Also when it was paused meanwhile. */
    assert_int_equal(guest_pause(guest), E_OK);
    assert_int_equal(guest_start(guest), E_OK);
    assert_int_equal(guest->state, GUEST_RUNNING);
    guest_input(guest, "x", 1);
    guests_round();
    assert_int_equal(vcpu->events, 1);
    assert_int_equal(vcpu->event.vector, 0x24);
}

/* ---- On the console -------------------------------------------------------------------------- */

static char shown[512];

static void keep(struct sink *sink, const char *bytes, size_t n)
{
    (void)sink;
    strncat(shown, bytes, n);
}

static void test_what_is_shown(void **state)
{
    struct sink sink = {keep};

    (void)state;
    shown[0] = '\0';
    start_pics(0x01);
    out(0x21, 0x40);
    pulse(3);
    pic_acknowledge(guest);
    pulse(6);
    pic_device.show(guest, &sink);
    set_timer(2, 11932);
    out(0x43, 0xb0);
    out(0x42, 0x10);
    out(0x42, 0x00);
    pit_device.show(guest, &sink);
    out(0x3f9, 0x05);
    serial_device.show(guest, &sink);
    assert_string_equal(shown,
                        "first: vectors 0x20-0x27, IMR 0x40, IRR 0x40, ISR 0x08, ELCR 0x00\n"
                        "second: vectors 0x28-0x2f, IMR 0x00, IRR 0x00, ISR 0x00, ELCR 0x00\n"
                        "counter 0: mode 2, reload 11932, 99 Hz\n"
                        "counter 1: not loaded\n"
                        "counter 2: mode 0, from 16, once\n"
                        "IER 0x05, LCR 0x00, MCR 0x00, divisor 0, FIFO off, 0 bytes waiting\n");
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_each_line_has_its_vector),
        TEST(test_where_an_interrupt_came_from),
        TEST(test_higher_lines_nest),
        TEST(test_a_line_waits_for_its_own_end),
        TEST(test_edges_and_words),
        TEST(test_masks_hold_back),
        TEST(test_a_level_asks_until_it_drops),
        TEST(test_what_is_gone_is_spurious),
        TEST(test_ends_of_interrupt),
        TEST(test_automatic_end),
        TEST(test_special_mask_mode),
        TEST(test_poll),
        TEST(test_initialisation_forgets),
        TEST(test_any_words),
        TEST(test_a_periodic_timer),
        TEST(test_a_timer_that_fires_once),
        TEST(test_missed_ticks_are_made_up),
        TEST(test_a_masked_timer_is_polled),
        TEST(test_the_serial_port_asks),
        TEST(test_they_wait_for_an_open_cpu),
        TEST(test_halted_for_good),
        TEST(test_interrupts_off),
        TEST(test_the_timer_wakes),
        TEST(test_input_wakes),
        TEST(test_what_is_shown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
