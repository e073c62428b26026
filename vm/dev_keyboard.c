/*
 * The 8042 keyboard controller of a guest, ports 0x60 and 0x64, by the IBM PS/2 Hardware Interface
 * Technical Reference, "Keyboard and auxiliary device controller"; at it a keyboard
 * (vm/keyboard.h), and no auxiliary device: its clock is off for good (bit 5 of the configuration),
 * its test fails, and what is to come back from it comes without the mark that it did. A20 is open
 * always.
 *
 * A byte of the keyboard's takes its time on the wire. Without that, a driver that empties the
 * output buffer before it starts would never come to the end of what was typed ahead.
 */
#include "lib/bits.h"
#include "vm/clock.h"
#include "vm/device.h"
#include "vm/guest.h"
#include "vm/interrupts.h"
#include "vm/keyboard.h"
#include "vm/reset.h"

#define KEYBOARD_DATA 0x60
#define KEYBOARD_COMMAND 0x64

#define WIRE_HZ 2000 /* bytes a second */

#define STATUS_OUTPUT_FULL BIT(0)
#define STATUS_SYSTEM BIT(2)  /* self-test passed */
#define STATUS_COMMAND BIT(3) /* the last write was to the command port */
#define STATUS_UNLOCKED BIT(4)

enum keyboard_command {
    COMMAND_READ_CONFIG = 0x20,
    COMMAND_WRITE_CONFIG = 0x60,
    COMMAND_TEST_PASSWORD = 0xa4,
    COMMAND_TEST_AUX = 0xa9,
    COMMAND_SELF_TEST = 0xaa,
    COMMAND_TEST_KEYBOARD = 0xab,
    COMMAND_DISABLE_KEYBOARD = 0xad,
    COMMAND_ENABLE_KEYBOARD = 0xae,
    COMMAND_READ_INPUT = 0xc0,
    COMMAND_READ_OUTPUT = 0xd0,
    COMMAND_WRITE_OUTPUT = 0xd1,
    COMMAND_WRITE_KEYBOARD_BUFFER = 0xd2, /* the byte comes back as if the keyboard had sent it */
    COMMAND_WRITE_AUX_BUFFER = 0xd3,      /* ... the auxiliary device */
    COMMAND_WRITE_AUX = 0xd4,
    COMMAND_PULSE_FIRST = 0xf0, /* to 0xff: pulses the output lines whose bit is 0 */
};

#define SELF_TEST_PASSED 0x55
#define NO_PASSWORD 0xf1
#define TEST_NO_ERROR 0x00
#define TEST_CLOCK_LOW 0x01 /* what a missing auxiliary device looks like */
#define INPUT_UNLOCKED 0x80
#define OUTPUT_A20_NO_RESET 0x03
#define OUTPUT_FULL BIT(4) /* the line to IRQ 1 */

#define CONFIG_INTERRUPT BIT(0)
#define CONFIG_AUX_INTERRUPT BIT(1)
#define CONFIG_SYSTEM BIT(2)
#define CONFIG_KEYBOARD_OFF BIT(4)
#define CONFIG_AUX_OFF BIT(5)
#define CONFIG_TRANSLATE BIT(6)
#define CONFIG_FIRMWARE (CONFIG_INTERRUPT | CONFIG_SYSTEM | CONFIG_AUX_OFF | CONFIG_TRANSLATE)
#define CONFIG_UNUSED 0x88

#define BREAK_PREFIX 0xf0 /* of scan code set 2 */
#define BREAK_BIT 0x80    /* of set 1 */

static void drive_line(struct guest *guest)
{
    const struct dev_keyboard *controller = &guest->devices.keyboard;

    irq_set_line(guest, IRQ_KEYBOARD,
                 controller->output_full && controller->config & CONFIG_INTERRUPT);
}

static void put_output(struct dev_keyboard *controller, uint8_t byte, bool from_keyboard)
{
    controller->output = byte;
    controller->output_full = true;
    controller->from_keyboard = from_keyboard;
}

/* A byte at the keyboard's connector, as the system is to see it. False: it is no more than the
 * prefix of what follows. */
static bool translate(struct dev_keyboard *controller, uint8_t *byte)
{
    controller->raw = *byte;
    controller->raw_break = controller->is_break;
    if (!(controller->config & CONFIG_TRANSLATE))
        return true;
    if (*byte == BREAK_PREFIX) {
        controller->is_break = true;
        return false;
    }
    *byte = keyboard_translate(*byte) | (controller->is_break ? BREAK_BIT : 0);
    controller->is_break = false;
    return true;
}

/* The keyboard's clock is on and nothing is in its way. */
static bool can_receive(const struct dev_keyboard *controller)
{
    return !controller->output_full && !(controller->config & CONFIG_KEYBOARD_OFF) &&
           keyboard_has_byte(&controller->keyboard);
}

static void keyboard_update(struct guest *guest, uint64_t now)
{
    struct dev_keyboard *controller = &guest->devices.keyboard;

    while (can_receive(controller) && now >= controller->ready) {
        uint8_t byte = keyboard_send(&controller->keyboard);

        if (translate(controller, &byte))
            put_output(controller, byte, true);
    }
    drive_line(guest);
}

static uint64_t keyboard_next(const struct guest *guest, uint64_t now)
{
    const struct dev_keyboard *controller = &guest->devices.keyboard;

    if (!can_receive(controller) || !(controller->config & CONFIG_INTERRUPT) ||
        irq_masked(guest, IRQ_KEYBOARD))
        return UINT64_MAX;
    return controller->ready > now ? controller->ready - now : 1;
}

/* The wire is busy with a byte from now on. */
static void occupy_wire(struct guest *guest)
{
    guest->devices.keyboard.ready =
        guest_now(guest) + clock_ticks(1, guest->devices.clock.hz, WIRE_HZ);
}

size_t keyboard_type(struct guest *guest, const char *text, size_t n)
{
    size_t taken = keyboard_take_text(&guest->devices.keyboard.keyboard, text, n);

    keyboard_update(guest, guest_now(guest));
    interrupts_come(guest);
    return taken;
}

bool keyboard_listens(const struct guest *guest)
{
    const struct dev_keyboard *controller = &guest->devices.keyboard;

    return (controller->config & (CONFIG_INTERRUPT | CONFIG_KEYBOARD_OFF)) == CONFIG_INTERRUPT &&
           controller->keyboard.scanning && !irq_masked(guest, IRQ_KEYBOARD);
}

/* ---- Commands ------------------------------------------------------------------------------- */

/* The controller's own answers go before what the keyboard has sent, which is not lost. */
static void answer(struct dev_keyboard *controller, uint8_t byte)
{
    if (controller->output_full && controller->from_keyboard) {
        keyboard_put_back(&controller->keyboard, controller->raw);
        controller->is_break = controller->raw_break;
    }
    put_output(controller, byte, false);
}

static void set_config(struct dev_keyboard *controller, uint8_t config)
{
    controller->config =
        (config & (uint8_t) ~(CONFIG_UNUSED | CONFIG_AUX_INTERRUPT)) | CONFIG_AUX_OFF;
}

static uint8_t output_port(const struct dev_keyboard *controller)
{
    return OUTPUT_A20_NO_RESET | (controller->output_full ? OUTPUT_FULL : 0);
}

static void command(struct guest *guest, uint8_t value)
{
    struct dev_keyboard *controller = &guest->devices.keyboard;

    controller->command = 0;
    if (value >= COMMAND_PULSE_FIRST) {
        if (!(value & BIT(0)))
            guest_reset(guest, "port 0x64");
        return;
    }
    switch (value) {
    case COMMAND_READ_CONFIG:
        answer(controller, controller->config);
        break;
    case COMMAND_TEST_PASSWORD:
        answer(controller, NO_PASSWORD);
        break;
    case COMMAND_SELF_TEST:
        answer(controller, SELF_TEST_PASSED);
        break;
    case COMMAND_TEST_KEYBOARD:
        answer(controller, TEST_NO_ERROR);
        break;
    case COMMAND_TEST_AUX:
        answer(controller, TEST_CLOCK_LOW);
        break;
    case COMMAND_DISABLE_KEYBOARD:
        controller->config |= CONFIG_KEYBOARD_OFF;
        break;
    case COMMAND_ENABLE_KEYBOARD:
        controller->config &= (uint8_t)~CONFIG_KEYBOARD_OFF;
        break;
    case COMMAND_READ_INPUT:
        answer(controller, INPUT_UNLOCKED);
        break;
    case COMMAND_READ_OUTPUT:
        answer(controller, output_port(controller));
        break;
    case COMMAND_WRITE_CONFIG:
    case COMMAND_WRITE_OUTPUT:
    case COMMAND_WRITE_KEYBOARD_BUFFER:
    case COMMAND_WRITE_AUX_BUFFER:
    case COMMAND_WRITE_AUX:
        controller->command = value;
        break;
    }
}

static void data(struct guest *guest, uint8_t value)
{
    struct dev_keyboard *controller = &guest->devices.keyboard;

    switch (controller->command) {
    case COMMAND_WRITE_CONFIG:
        set_config(controller, value);
        break;
    case COMMAND_WRITE_OUTPUT:
        if (!(value & BIT(0)))
            guest_reset(guest, "port 0x60");
        break;
    case COMMAND_WRITE_KEYBOARD_BUFFER:
    case COMMAND_WRITE_AUX_BUFFER:
        answer(controller, value);
        break;
    case COMMAND_WRITE_AUX: /* nobody hears it */
        break;
    default: /* for the keyboard, whose clock it turns on */
        controller->config &= (uint8_t)~CONFIG_KEYBOARD_OFF;
        keyboard_receive(&controller->keyboard, value);
        occupy_wire(guest);
    }
    controller->command = 0;
}

static uint8_t status(const struct dev_keyboard *controller)
{
    return STATUS_UNLOCKED | (controller->config & CONFIG_SYSTEM ? STATUS_SYSTEM : 0) |
           (controller->output_full ? STATUS_OUTPUT_FULL : 0) |
           (controller->command_last ? STATUS_COMMAND : 0);
}

static uint32_t keyboard_read(struct guest *guest, uint16_t port, unsigned width)
{
    struct dev_keyboard *controller = &guest->devices.keyboard;
    uint8_t byte;

    (void)width;
    keyboard_update(guest, guest_now(guest));
    if (port == KEYBOARD_COMMAND)
        return status(controller);
    byte = controller->output; /* an empty buffer holds what was there last */
    if (controller->output_full && controller->from_keyboard)
        occupy_wire(guest);
    controller->output_full = false;
    drive_line(guest);
    return byte;
}

static void keyboard_write(struct guest *guest, uint16_t port, unsigned width, uint32_t value)
{
    (void)width;
    guest->devices.keyboard.command_last = port == KEYBOARD_COMMAND;
    if (port == KEYBOARD_COMMAND)
        command(guest, (uint8_t)value);
    else
        data(guest, (uint8_t)value);
    keyboard_update(guest, guest_now(guest));
}

static void keyboard_reset(struct guest *guest)
{
    guest->devices.keyboard.config = CONFIG_FIRMWARE;
    keyboard_power_on(&guest->devices.keyboard.keyboard);
}

static void keyboard_show(const struct guest *guest, struct sink *to)
{
    const struct dev_keyboard *controller = &guest->devices.keyboard;
    const struct keyboard *keyboard = &controller->keyboard;

    format(to, "controller: interrupt %s, clock %s, %s, output %s\n",
           controller->config & CONFIG_INTERRUPT ? "on" : "off",
           controller->config & CONFIG_KEYBOARD_OFF ? "off" : "on",
           controller->config & CONFIG_TRANSLATE ? "translating" : "not translating",
           controller->output_full ? "full" : "empty");
    format(to, "%s, set %u, LEDs 0x%x, %u bytes queued, %u characters to type\n",
           keyboard->scanning ? "scanning" : "silent", keyboard->set, keyboard->leds,
           keyboard->queued, keyboard->text_count);
}

static const struct port_range ranges[] = {
    {KEYBOARD_DATA, KEYBOARD_DATA, 1, keyboard_read, keyboard_write},
    {KEYBOARD_COMMAND, KEYBOARD_COMMAND, 1, keyboard_read, keyboard_write},
};

const struct device keyboard_device = {
    .name = "keyboard",
    .ports = ranges,
    .port_count = ARRAY_SIZE(ranges),
    .bears = BEARS_ON_ITSELF,
    .timed = TIMED_KEYBOARD,
    .reset = keyboard_reset,
    .update = keyboard_update,
    .next = keyboard_next,
    .show = keyboard_show,
};
