/*
 * The keyboard of a PC: the controller and what is behind it, through ports 0x60 and 0x64, as
 * kernels and hobbyists talk to it.
 */
#include "vm/keyboard.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "lib/bits.h"
#include "tests/unit/pc_guest.h"
#include "vm/device.h"
#include "vm/interrupts.h"

#define WIRE_US 600

static bool full(void)
{
    return in8(0x64) & 1;
}

/* The next byte, after its time on the wire; -1: none comes. */
static int next(void)
{
    pass_us(WIRE_US);
    return full() ? in8(0x60) : -1;
}

static void expect(const char *bytes, size_t n)
{
    for (size_t i = 0; i < n; i++)
        assert_int_equal(next(), (uint8_t)bytes[i]);
    assert_int_equal(next(), -1);
}
#define EXPECT(text) expect(text, sizeof(text) - 1)

static uint8_t ask(uint8_t command)
{
    out8(0x64, command);
    assert_true(full()); /* at once */
    return in8(0x60);
}

static void configure(uint8_t config)
{
    out8(0x64, 0x60);
    out8(0x60, config);
}

static void type(const char *text)
{
    assert_int_equal(keyboard_type(pc, text, strlen(text)), strlen(text));
}

static void test_the_controller_answers(void **state)
{
    (void)state;
    assert_int_equal(in8(0x64), 0x1c); /* its BIOS has written a command last */
    out8(0x60, 0xf4);
    assert_int_equal(next(), 0xfa);
    assert_int_equal(in8(0x64), 0x14);
    assert_int_equal(ask(0x20), 0x65);
    assert_int_equal(in8(0x64), 0x1c);
    assert_int_equal(ask(0xaa), 0x55);
    assert_int_equal(ask(0xab), 0x00);
    assert_int_equal(ask(0xa4), 0xf1);
    assert_int_equal(ask(0xc0), 0x80);
    assert_int_equal(ask(0xd0) & 0x03, 0x03);
    out8(0x64, 0xad);
    assert_int_equal(ask(0x20), 0x75);
    out8(0x64, 0xae);
    assert_int_equal(ask(0x20), 0x65);
    configure(0xff);
    assert_int_equal(ask(0x20), 0x75);
    out8(0x64, 0xd2);
    out8(0x60, 0xab);
    assert_int_equal(in8(0x64) & 0x21, 0x01);
    assert_int_equal(in8(0x60), 0xab);
    assert_false(full());
    assert_int_equal(in8(0x60), 0xab); /* what was there last */
    out8(0x64, 0xd1);
    out8(0x60, 0xdf); /* A20 */
    out8(0x64, 0xff); /* pulses nothing */
    assert_int_equal(pc->state, GUEST_RUNNING);
}

/* As Linux and tutorials look for a mouse. */
static void test_there_is_no_auxiliary_device(void **state)
{
    (void)state;
    assert_int_equal(ask(0xa9), 0x01);
    out8(0x64, 0xa8);
    assert_int_equal(ask(0x20) & 0x22, 0x20);
    configure(0x47);
    assert_int_equal(ask(0x20), 0x65);
    out8(0x64, 0xd3);
    out8(0x60, 0x5a);
    assert_int_equal(in8(0x64) & 0x21, 0x01); /* not marked as from there */
    assert_int_equal(in8(0x60), 0x5a);
    out8(0x64, 0xd4);
    out8(0x60, 0xff);
    assert_int_equal(next(), -1);
}

static void send(uint8_t byte)
{
    out8(0x60, byte);
}

static void test_the_keyboard_answers(void **state)
{
    (void)state;
    configure(0x25);
    send(0xff);
    EXPECT("\xfa\xaa");
    send(0xf2);
    EXPECT("\xfa\xab\x83");
    send(0xee);
    EXPECT("\xee");
    send(0xed);
    EXPECT("\xfa");
    send(0x07);
    EXPECT("\xfa");
    assert_int_equal(pc->devices.keyboard.keyboard.leds, 7);
    send(0xf3);
    send(0x20);
    EXPECT("\xfa\xfa");
    assert_int_equal(pc->devices.keyboard.keyboard.typematic, 0x20);
    send(0xf0);
    send(0x00);
    EXPECT("\xfa\xfa\x02");
    send(0xf0);
    send(0x03);
    EXPECT("\xfa\xfe");
    send(0x42);
    EXPECT("\xfe");
    send(0xfe);
    EXPECT("\xfe"); /* the last again */
    send(0xed);
    send(0xf4); /* a command in place of an argument */
    EXPECT("\xfa");
    assert_int_equal(pc->devices.keyboard.keyboard.leds, 7);
    send(0xf6);
    EXPECT("\xfa");
    assert_int_equal(pc->devices.keyboard.keyboard.leds, 0);
}

static void test_answers_are_translated(void **state)
{
    (void)state;
    send(0xf2);
    EXPECT("\xfa\xab\x41");
    send(0xf0);
    send(0x00);
    EXPECT("\xfa\xfa\x41");
}

static void test_keys_in_set_1(void **state)
{
    (void)state;
    type("a");
    EXPECT("\x1e\x9e");
    type("A");
    EXPECT("\x2a\x1e\x9e\xaa");
    type("\n\t\b\033 ");
    EXPECT("\x1c\x9c\x0f\x8f\x0e\x8e\x01\x81\x39\xb9");
    type("\003"); /* Ctrl-C */
    EXPECT("\x1d\x2e\xae\x9d");
    type("1!-_\\|");
    EXPECT("\x02\x82\x2a\x02\x82\xaa\x0c\x8c\x2a\x0c\x8c\xaa\x2b\xab\x2a\x2b\xab\xaa");
}

static void test_keys_in_set_2(void **state)
{
    (void)state;
    configure(0x25);
    type("q?");
    EXPECT("\x15\xf0\x15\x12\x4a\xf0\x4a\xf0\x12");
    send(0xf0);
    send(0x01);
    EXPECT("\xfa\xfa");
    type("q?"); /* of the keyboard's own set 1 */
    EXPECT("\x10\x90\x2a\x35\xb5\xaa");
}

/* A US layout, judged by the characters that set 1 has in rows. */
static void test_every_key(void **state)
{
    static const char rows[] = "\0\0331234567890-=\b\tqwertyuiop[]\n\0asdfghjkl;'`\0\\zxcvbnm,./";
    static const char shifted[] = "\0\0!@#$%^&*()_+\0\0QWERTYUIOP{}\0\0ASDFGHJKL:\"~\0|ZXCVBNM<>?";

    (void)state;
    for (unsigned c = 0; c < 256; c++) {
        const char *plain = memchr(rows + 1, (int)c, sizeof(rows) - 2);
        const char *shift = memchr(shifted + 1, (int)c, sizeof(shifted) - 2);
        char text = (char)c;
        bool control = c >= 1 && c <= 26 && plain == NULL;

        assert_int_equal(keyboard_has_key(text), c != 0 && (plain || shift || control || c == ' '));
        if (c == 0 || !(plain || shift))
            continue;
        unsigned key = (unsigned)(plain ? plain - rows : shift - shifted);
        assert_int_equal(keyboard_type(pc, &text, 1), 1);
        if (!plain)
            assert_int_equal(next(), 0x2a);
        assert_int_equal(next(), key);
        assert_int_equal(next(), key | 0x80);
        if (!plain)
            assert_int_equal(next(), 0xaa);
        assert_int_equal(next(), -1);
    }
}

static void test_text_waits_for_its_reader(void **state)
{
    char text[KEYBOARD_TEXT + 10];

    (void)state;
    memset(text, 'x', sizeof(text));
    configure(0x75); /* the keyboard's clock is off: nothing leaves it */
    assert_int_equal(keyboard_type(pc, text, sizeof(text)), KEYBOARD_TEXT);
    assert_int_equal(keyboard_type(pc, "y", 1), 0);
    assert_int_equal(next(), -1);
    out8(0x64, 0xae);
    for (unsigned i = 0; i < KEYBOARD_TEXT; i++) {
        assert_int_equal(next(), 0x2d);
        assert_int_equal(next(), 0xad);
    }
    assert_int_equal(next(), -1);
    assert_int_equal(keyboard_type(pc, "ab\xe4z", 4), 2); /* up to what has no key */
    EXPECT("\x1e\x9e\x30\xb0");
    /* A silent keyboard keeps it. */
    send(0xf5);
    EXPECT("\xfa");
    type("k");
    assert_int_equal(next(), -1);
    send(0xf4);
    EXPECT("\xfa\x25\xa5");
}

/* What a driver does before it starts: reads until there is nothing, which must end soon. */
static void test_a_flush_ends(void **state)
{
    unsigned reads = 0;

    (void)state;
    type("typed ahead");
    while (full()) {
        in8(0x60);
        assert_true(++reads < 16);
    }
}

static void test_an_answer_overtakes_a_key(void **state)
{
    (void)state;
    type("ab");
    pass_us(WIRE_US);
    assert_true(full());
    assert_int_equal(ask(0x20), 0x65);
    EXPECT("\x1e\x9e\x30\xb0");
    /* Also a break, whose prefix has been swallowed. */
    type("a");
    assert_int_equal(next(), 0x1e);
    pass_us(WIRE_US);
    assert_int_equal(ask(0xaa), 0x55);
    EXPECT("\x9e");
    /* What was in the buffer when the clock was turned off stays there. */
    type("a");
    pass_us(WIRE_US);
    out8(0x64, 0xad);
    assert_int_equal(in8(0x60), 0x1e);
    assert_int_equal(next(), -1);
    out8(0x64, 0xae);
    EXPECT("\x9e");
}

static void test_interrupts(void **state)
{
    static const char codes[] = "\x23\xa3\x17\x97";

    (void)state;
    open_lines();
    assert_true(keyboard_listens(pc));
    type("hi");
    for (unsigned i = 0; i < 4; i++) {
        pass_us(WIRE_US);
        assert_int_equal(take_irq(), 1);
        assert_int_equal(in8(0x60), (uint8_t)codes[i]);
        assert_int_equal(take_irq(), -1);
    }
    ask(0x20);
    assert_int_equal(take_irq(), 1); /* the controller's own answers, too */
    configure(0x64);
    type("x");
    pass_us(WIRE_US);
    assert_int_equal(take_irq(), -1);
    assert_false(keyboard_listens(pc));
    assert_true(full());
}

static void test_next_is_when_it_asks(void **state)
{
    uint64_t now, after;

    (void)state;
    open_lines();
    type("x");
    in8(0x60);
    take_irq();
    now = guest_now(pc);
    after = keyboard_device.next(pc, now);
    assert_true(after <= pc->devices.clock.hz / 2000 + 1);
    keyboard_device.update(pc, now + after - 1);
    assert_int_equal(take_irq(), -1);
    keyboard_device.update(pc, now + after);
    assert_int_equal(take_irq(), 1);
    assert_true(keyboard_device.next(pc, now + after) == UINT64_MAX);
}

static void test_what_nobody_reads_is_bounded(void **state)
{
    (void)state;
    configure(0x35);
    for (unsigned i = 0; i < 1000; i++)
        send(0xee);
    assert_int_equal(pc->devices.keyboard.keyboard.queued <= KEYBOARD_QUEUE, true);
    for (unsigned i = 0; i < KEYBOARD_QUEUE - 1; i++)
        assert_int_equal(next(), 0xee);
    assert_int_equal(next(), 0x00); /* overrun */
    assert_int_equal(next(), -1);
}

static void test_shown(void **state)
{
    (void)state;
    out8(0x64, 0xad);
    type("x");
    assert_string_equal(shown("keyboard"),
                        "controller: interrupt on, clock off, translating, output empty\n"
                        "scanning, set 2, LEDs 0x0, 0 bytes queued, 1 characters to type\n");
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, pc_set_up, pc_tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_the_controller_answers),
        TEST(test_there_is_no_auxiliary_device),
        TEST(test_the_keyboard_answers),
        TEST(test_answers_are_translated),
        TEST(test_keys_in_set_1),
        TEST(test_keys_in_set_2),
        TEST(test_every_key),
        TEST(test_text_waits_for_its_reader),
        TEST(test_a_flush_ends),
        TEST(test_an_answer_overtakes_a_key),
        TEST(test_interrupts),
        TEST(test_next_is_when_it_asks),
        TEST(test_what_nobody_reads_is_bounded),
        TEST(test_shown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
