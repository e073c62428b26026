/* See vm/keyboard.h. */
#include "vm/keyboard.h"

#include "lib/bits.h"
#include "lib/string.h"
#include "vm/guest.h"

enum {
    SET_LEDS = 0xed,
    ECHO = 0xee,
    SCAN_CODE_SET = 0xf0,
    IDENTIFY = 0xf2,
    SET_TYPEMATIC = 0xf3,
    ENABLE = 0xf4,
    DISABLE = 0xf5,
    SET_DEFAULTS = 0xf6,
    RESEND = 0xfe,
    RESET = 0xff,
};
#define FIRST_COMMAND SET_LEDS

#define ACKNOWLEDGE 0xfa
#define NOT_UNDERSTOOD 0xfe
#define SELF_TEST_PASSED 0xaa
#define IDENTITY_FIRST 0xab
#define IDENTITY_SECOND 0x83
#define BREAK 0xf0 /* of set 2; in set 1 it is bit 7 */

#define TYPEMATIC_DEFAULT 0x2b /* 10.9 characters a second, after half a second */
#define LEDS_USED 0x07

/* Codes of set 2. */
#define KEY_SHIFT 0x12
#define KEY_CONTROL 0x14

#define SHIFT 0x100
#define CONTROL 0x200

uint8_t keyboard_translate(uint8_t code)
{
    static const uint8_t first_half[0x80] = {
        0xff, 0x43, 0x41, 0x3f, 0x3d, 0x3b, 0x3c, 0x58, 0x64, 0x44, 0x42, 0x40, 0x3e, 0x0f, 0x29,
        0x59, 0x65, 0x38, 0x2a, 0x70, 0x1d, 0x10, 0x02, 0x5a, 0x66, 0x71, 0x2c, 0x1f, 0x1e, 0x11,
        0x03, 0x5b, 0x67, 0x2e, 0x2d, 0x20, 0x12, 0x05, 0x04, 0x5c, 0x68, 0x39, 0x2f, 0x21, 0x14,
        0x13, 0x06, 0x5d, 0x69, 0x31, 0x30, 0x23, 0x22, 0x15, 0x07, 0x5e, 0x6a, 0x72, 0x32, 0x24,
        0x16, 0x08, 0x09, 0x5f, 0x6b, 0x33, 0x25, 0x17, 0x18, 0x0b, 0x0a, 0x60, 0x6c, 0x34, 0x35,
        0x26, 0x27, 0x19, 0x0c, 0x61, 0x6d, 0x73, 0x28, 0x74, 0x1a, 0x0d, 0x62, 0x6e, 0x3a, 0x36,
        0x1c, 0x1b, 0x75, 0x2b, 0x63, 0x76, 0x55, 0x56, 0x77, 0x78, 0x79, 0x7a, 0x0e, 0x7b, 0x7c,
        0x4f, 0x7d, 0x4b, 0x47, 0x7e, 0x7f, 0x6f, 0x52, 0x53, 0x50, 0x4c, 0x4d, 0x48, 0x01, 0x45,
        0x57, 0x4e, 0x51, 0x4a, 0x37, 0x49, 0x46, 0x54,
    };

    if (code < ARRAY_SIZE(first_half))
        return first_half[code];
    return code == 0x83 ? 0x41 : code == 0x84 ? 0x54 : code;
}

/* ---- Characters to keys --------------------------------------------------------------------- */

/* The key of a character, a code of set 2, with what is held down beside it; 0: it has none. */
static unsigned key_of(char c)
{
    static const char plain[] = "`1234567890-=qwertyuiop[]\\asdfghjkl;'zxcvbnm,./ \n\t\b\033";
    static const char shifted[] = "~!@#$%^&*()_+QWERTYUIOP{}|ASDFGHJKL:\"ZXCVBNM<>?";
    static const uint8_t keys[] = {
        0x0e, 0x16, 0x1e, 0x26, 0x25, 0x2e, 0x36, 0x3d, 0x3e, 0x46, 0x45, 0x4e, 0x55,
        0x15, 0x1d, 0x24, 0x2d, 0x2c, 0x35, 0x3c, 0x43, 0x44, 0x4d, 0x54, 0x5b, 0x5d,
        0x1c, 0x1b, 0x23, 0x2b, 0x34, 0x33, 0x3b, 0x42, 0x4b, 0x4c, 0x52, 0x1a, 0x22,
        0x21, 0x2a, 0x32, 0x31, 0x3a, 0x41, 0x49, 0x4a, 0x29, 0x5a, 0x0d, 0x66, 0x76,
    };
    const char *at;

    _Static_assert(sizeof(plain) - 1 == sizeof(keys), "each has its key");
    if (c == '\0')
        return 0;
    at = strchr(plain, c);
    if (at != NULL)
        return keys[at - plain];
    at = strchr(shifted, c);
    if (at != NULL)
        return keys[at - shifted] | SHIFT;
    if (c < 1 || c > 26)
        return 0;
    return keys[strchr(plain, 'a' + c - 1) - plain] | CONTROL;
}

bool keyboard_has_key(char c)
{
    return key_of(c) != 0;
}

/* ---- What it sends -------------------------------------------------------------------------- */

static void queue(struct keyboard *keyboard, uint8_t byte)
{
    if (keyboard->queued < KEYBOARD_QUEUE)
        keyboard->queue[keyboard->queued++] = byte;
    else /* overrun: a code in place of what is lost */
        keyboard->queue[KEYBOARD_QUEUE - 1] = keyboard->set == 1 ? 0xff : 0x00;
}

static void press(struct keyboard *keyboard, unsigned key)
{
    queue(keyboard, keyboard->set == 1 ? keyboard_translate((uint8_t)key) : (uint8_t)key);
}

static void release(struct keyboard *keyboard, unsigned key)
{
    if (keyboard->set == 1) {
        queue(keyboard, keyboard_translate((uint8_t)key) | 0x80);
        return;
    }
    queue(keyboard, BREAK);
    queue(keyboard, (uint8_t)key);
}

/* The keys of the next character, which are 6 codes at most: they fit into an empty queue. */
static void type_next(struct keyboard *keyboard)
{
    unsigned key = key_of(keyboard->text[keyboard->text_first]);
    unsigned held = key & SHIFT ? KEY_SHIFT : key & CONTROL ? KEY_CONTROL : 0;

    keyboard->text_first = (keyboard->text_first + 1) % KEYBOARD_TEXT;
    keyboard->text_count--;
    if (held != 0)
        press(keyboard, held);
    press(keyboard, key & 0xff);
    release(keyboard, key & 0xff);
    if (held != 0)
        release(keyboard, held);
}

bool keyboard_has_byte(const struct keyboard *keyboard)
{
    return keyboard->queued != 0 || (keyboard->scanning && keyboard->text_count != 0);
}

uint8_t keyboard_send(struct keyboard *keyboard)
{
    uint8_t byte;

    if (keyboard->queued == 0)
        type_next(keyboard);
    byte = keyboard->queue[0];
    memmove(keyboard->queue, keyboard->queue + 1, --keyboard->queued);
    keyboard->last = byte;
    return byte;
}

void keyboard_put_back(struct keyboard *keyboard, uint8_t byte)
{
    unsigned kept = keyboard->queued < KEYBOARD_QUEUE ? keyboard->queued++ : KEYBOARD_QUEUE - 1;

    memmove(keyboard->queue + 1, keyboard->queue, kept);
    keyboard->queue[0] = byte;
}

/* ---- What it is told ------------------------------------------------------------------------ */

static void set_defaults(struct keyboard *keyboard)
{
    keyboard->queued = 0;
    keyboard->set = 2;
    keyboard->typematic = TYPEMATIC_DEFAULT;
    keyboard->leds = 0;
}

void keyboard_power_on(struct keyboard *keyboard)
{
    set_defaults(keyboard);
    keyboard->scanning = true;
}

/* The byte behind a command that takes one. */
static void argument(struct keyboard *keyboard, uint8_t command, uint8_t byte)
{
    if (command == SCAN_CODE_SET && byte > 2) {
        queue(keyboard, NOT_UNDERSTOOD);
        return;
    }
    queue(keyboard, ACKNOWLEDGE);
    if (command == SET_LEDS)
        keyboard->leds = byte & LEDS_USED;
    else if (command == SET_TYPEMATIC)
        keyboard->typematic = byte;
    else if (byte != 0)
        keyboard->set = byte;
    else
        queue(keyboard, keyboard->set);
}

static void command(struct keyboard *keyboard, uint8_t byte)
{
    switch (byte) {
    case SET_LEDS:
    case SCAN_CODE_SET:
    case SET_TYPEMATIC:
        keyboard->expects = byte;
        queue(keyboard, ACKNOWLEDGE);
        break;
    case ECHO:
        queue(keyboard, ECHO);
        break;
    case IDENTIFY:
        queue(keyboard, ACKNOWLEDGE);
        queue(keyboard, IDENTITY_FIRST);
        queue(keyboard, IDENTITY_SECOND);
        break;
    case ENABLE:
        keyboard->queued = 0;
        keyboard->scanning = true;
        queue(keyboard, ACKNOWLEDGE);
        break;
    case DISABLE:
    case SET_DEFAULTS:
        set_defaults(keyboard);
        if (byte == DISABLE)
            keyboard->scanning = false;
        queue(keyboard, ACKNOWLEDGE);
        break;
    case RESEND:
        keyboard_put_back(keyboard, keyboard->last);
        break;
    case RESET:
        keyboard_power_on(keyboard);
        queue(keyboard, ACKNOWLEDGE);
        queue(keyboard, SELF_TEST_PASSED);
        break;
    default:
        queue(keyboard, NOT_UNDERSTOOD);
    }
}

void keyboard_receive(struct keyboard *keyboard, uint8_t byte)
{
    uint8_t expects = keyboard->expects;

    keyboard->expects = 0;
    if (expects != 0 && byte < FIRST_COMMAND)
        argument(keyboard, expects, byte);
    else
        command(keyboard, byte);
}

size_t keyboard_take_text(struct keyboard *keyboard, const char *text, size_t n)
{
    size_t taken = 0;

    while (taken < n && keyboard->text_count < KEYBOARD_TEXT && keyboard_has_key(text[taken]))
        keyboard->text[(keyboard->text_first + keyboard->text_count++) % KEYBOARD_TEXT] =
            text[taken++];
    return taken;
}
