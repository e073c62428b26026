/*
 * The 8042 keyboard controller of a guest, ports 0x60 and 0x64, with no keyboard plugged in: it
 * answers its own commands (self-test, configuration byte, output port with A20) and takes a reset.
 * A20 is always open.
 */
#include "lib/bits.h"
#include "vm/device.h"
#include "vm/guest.h"
#include "vm/reset.h"

#define KEYBOARD_DATA 0x60
#define KEYBOARD_COMMAND 0x64

#define STATUS_OUTPUT_FULL BIT(0)
#define STATUS_SYSTEM BIT(2) /* self-test passed */
#define STATUS_UNLOCKED BIT(4)

enum keyboard_command {
    COMMAND_READ_CONFIG = 0x20,
    COMMAND_WRITE_CONFIG = 0x60,
    COMMAND_TEST_AUX = 0xa9,
    COMMAND_SELF_TEST = 0xaa,
    COMMAND_TEST_KEYBOARD = 0xab,
    COMMAND_READ_OUTPUT = 0xd0,
    COMMAND_WRITE_OUTPUT = 0xd1,
    COMMAND_PULSE_FIRST = 0xf0, /* to 0xff: pulses the output lines whose bit is 0 */
};

#define SELF_TEST_PASSED 0x55
#define TEST_NO_ERROR 0x00
#define TEST_CLOCK_LOW 0x01 /* what a missing auxiliary device looks like */
#define CONFIG_DEFAULT 0x74 /* keyboard and auxiliary clocks off, translation, self-test passed */
#define OUTPUT_A20_NO_RESET 0x03

static void answer(struct dev_keyboard *keyboard, uint8_t value)
{
    keyboard->output = value;
    keyboard->output_full = true;
}

static void command(struct guest *guest, uint8_t value)
{
    struct dev_keyboard *keyboard = &guest->devices.keyboard;

    keyboard->command = 0;
    if (value >= COMMAND_PULSE_FIRST) {
        if (!(value & BIT(0)))
            guest_reset(guest, "port 0x64");
        return;
    }
    switch (value) {
    case COMMAND_READ_CONFIG:
        answer(keyboard, keyboard->config);
        break;
    case COMMAND_SELF_TEST:
        answer(keyboard, SELF_TEST_PASSED);
        break;
    case COMMAND_TEST_KEYBOARD:
        answer(keyboard, TEST_NO_ERROR);
        break;
    case COMMAND_TEST_AUX:
        answer(keyboard, TEST_CLOCK_LOW);
        break;
    case COMMAND_READ_OUTPUT:
        answer(keyboard, OUTPUT_A20_NO_RESET);
        break;
    case COMMAND_WRITE_CONFIG:
    case COMMAND_WRITE_OUTPUT:
        keyboard->command = value;
        break;
    }
}

static void data(struct guest *guest, uint8_t value)
{
    struct dev_keyboard *keyboard = &guest->devices.keyboard;

    if (keyboard->command == COMMAND_WRITE_CONFIG)
        keyboard->config = value;
    else if (keyboard->command == COMMAND_WRITE_OUTPUT && !(value & BIT(0)))
        guest_reset(guest, "port 0x60");
    keyboard->command = 0; /* anything else was for a keyboard that is not there */
}

static uint32_t keyboard_read(struct guest *guest, uint16_t port, unsigned width)
{
    struct dev_keyboard *keyboard = &guest->devices.keyboard;

    (void)width;
    if (port == KEYBOARD_COMMAND)
        return STATUS_SYSTEM | STATUS_UNLOCKED | (keyboard->output_full ? STATUS_OUTPUT_FULL : 0);
    keyboard->output_full = false;
    return keyboard->output;
}

static void keyboard_write(struct guest *guest, uint16_t port, unsigned width, uint32_t value)
{
    (void)width;
    if (port == KEYBOARD_COMMAND)
        command(guest, (uint8_t)value);
    else
        data(guest, (uint8_t)value);
}

static void keyboard_reset(struct guest *guest)
{
    guest->devices.keyboard.config = CONFIG_DEFAULT;
}

static const struct port_range ranges[] = {
    {KEYBOARD_DATA, KEYBOARD_DATA, 1, keyboard_read, keyboard_write},
    {KEYBOARD_COMMAND, KEYBOARD_COMMAND, 1, keyboard_read, keyboard_write},
};

const struct device keyboard_device = {
    .name = "keyboard",
    .ports = ranges,
    .port_count = ARRAY_SIZE(ranges),
    .reset = keyboard_reset,
};
