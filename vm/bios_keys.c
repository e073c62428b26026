/* The keyboard: line 1 brings a key code of set 1, which goes into the BIOS data area's ring as a
 * pair of character and code, by an American layout; INT 0x16 takes them out. While the ring is
 * full the code stays at the controller, which then asks the keyboard for no other: what is typed
 * faster than the guest reads waits. A PC beeps and drops it. */
#include "vm/bios.h"

#include "lib/bits.h"
#include "vm/ports.h"
#include "x86/control.h"

#define KEYBOARD_DATA 0x60
#define KEYBOARD_STATUS 0x64
#define STATUS_FULL BIT(0)

#define BDA_KEYBOARD_3 0x96
#define AFTER_E0 BIT(1) /* in it */
#define BDA_KEYBOARD_4 0x97
#define LEFT_THERE BIT(3) /* in it, reserved in a PC: a code waits at the controller for room */

#define CODE_E0 0xe0
#define CODE_RELEASED BIT(7)
enum {
    CODE_CONTROL = 0x1d,
    CODE_LEFT = 0x2a,
    CODE_RIGHT = 0x36,
    CODE_ALT = 0x38,
    CODE_CAPS = 0x3a
};

enum { RIGHT_SHIFT = 1, LEFT_SHIFT = 2, CONTROL = 4, ALT = 8, CAPS = 0x40 };

/* By key code. */
static const char plain[] =
    "\0\0331234567890-=\b\tqwertyuiop[]\r\0asdfghjkl;'`\0\\zxcvbnm,./\0*\0 ";
static const char shifted[] =
    "\0\033!@#$%^&*()_+\b\0QWERTYUIOP{}\r\0ASDFGHJKL:\"~\0|ZXCVBNM<>?\0*\0 ";
_Static_assert(sizeof(plain) == 0x3b && sizeof(shifted) == sizeof(plain), "up to the space bar");

static uint8_t character_of(uint8_t code, uint32_t shift)
{
    bool upper = shift & (LEFT_SHIFT | RIGHT_SHIFT);
    char c = code < sizeof(plain) ? plain[code] : 0;

    if (shift & ALT)
        return 0;
    if (shift & CAPS && c >= 'a' && c <= 'z')
        upper = !upper;
    if (shift & CONTROL)
        return c >= 'a' && c <= 'z' ? (uint8_t)(c & 0x1f) : 0;
    return (uint8_t)(upper && code < sizeof(shifted) ? shifted[code] : c);
}

static uint32_t shift_bit(uint8_t code)
{
    switch (code) {
    case CODE_CONTROL:
        return CONTROL;
    case CODE_LEFT:
        return LEFT_SHIFT;
    case CODE_RIGHT:
        return RIGHT_SHIFT;
    case CODE_ALT:
        return ALT;
    default:
        return 0;
    }
}

/* The ring's pointers are the guest's to write: one that leads elsewhere begins anew. */
static uint32_t pointer(const struct bios_call *call, unsigned which)
{
    uint32_t at = bios_data(call, which, 2);

    return at >= BDA_KEYS && at < BDA_KEYS_END && at % 2 == 0 ? at : BDA_KEYS;
}

static uint32_t next(uint32_t at)
{
    return at + 2 < BDA_KEYS_END ? at + 2 : BDA_KEYS;
}

static bool is_full(const struct bios_call *call)
{
    return next(pointer(call, BDA_KEY_TAIL)) == pointer(call, BDA_KEY_HEAD);
}

static bool push(struct bios_call *call, uint16_t key)
{
    uint32_t tail = pointer(call, BDA_KEY_TAIL);

    if (is_full(call))
        return false;
    bios_set_data(call, tail, 2, key);
    bios_set_data(call, BDA_KEY_TAIL, 2, next(tail));
    return true;
}

static bool peek(const struct bios_call *call, uint16_t *key)
{
    uint32_t head = pointer(call, BDA_KEY_HEAD);

    *key = (uint16_t)bios_data(call, head, 2);
    return head != pointer(call, BDA_KEY_TAIL);
}

/* A code that the controller has: into the shift state, or into the ring, which has room. */
static void take_code(struct bios_call *call)
{
    uint32_t shift = bios_data(call, BDA_SHIFT, 1), state = bios_data(call, BDA_KEYBOARD_3, 1);
    uint8_t code = (uint8_t)port_read(call->guest, KEYBOARD_DATA, 1), key;
    uint32_t bit;

    bios_set_data(call, BDA_KEYBOARD_3, 1,
                  code == CODE_E0 ? state | AFTER_E0 : state & (uint32_t)~AFTER_E0);
    if (code == CODE_E0)
        return;
    key = code & (uint8_t)~CODE_RELEASED;
    bit = shift_bit(key);
    if (bit != 0 && !(state & AFTER_E0 && (key == CODE_LEFT || key == CODE_RIGHT)))
        bios_set_data(call, BDA_SHIFT, 1, code & CODE_RELEASED ? shift & ~bit : shift | bit);
    if (bit != 0 || code & CODE_RELEASED)
        return;
    if (key == CODE_CAPS)
        bios_set_data(call, BDA_SHIFT, 1, shift ^ CAPS);
    else /* the grey ones share their codes with the number pad; but for two they have no character
          */
        (void)push(call, (uint16_t)(key << 8 | (state & AFTER_E0 && key != 0x1c && key != 0x35
                                                    ? 0
                                                    : character_of(key, shift))));
}

void bios_key_irq(struct bios_call *call)
{
    uint32_t state = bios_data(call, BDA_KEYBOARD_4, 1);
    bool there = port_read(call->guest, KEYBOARD_STATUS, 1) & STATUS_FULL;
    bool waits = there && is_full(call);

    bios_set_data(call, BDA_KEYBOARD_4, 1,
                  waits ? state | LEFT_THERE : state & (uint32_t)~LEFT_THERE);
    if (there && !waits)
        take_code(call);
}

void bios_key_left(struct bios_call *call)
{
    if (bios_data(call, BDA_KEYBOARD_4, 1) & LEFT_THERE)
        bios_key_irq(call);
}

void bios_keys(struct bios_call *call)
{
    uint16_t key;
    bool there = peek(call, &key);

    switch (bios_high(call, RAX)) {
    case 0x00:
    case 0x10: /* takes one, or waits for it */
        call->wait = !there;
        if (!there)
            return;
        bios_set_data(call, BDA_KEY_HEAD, 2, next(pointer(call, BDA_KEY_HEAD)));
        bios_key_left(call);
        bios_set_word(call, RAX, key);
        break;
    case 0x01:
    case 0x11: /* looks: ZF, there is none */
        call->flags = (uint16_t)((call->flags & ~RFLAGS_ZF) | (there ? 0 : RFLAGS_ZF));
        if (there)
            bios_set_word(call, RAX, key);
        break;
    case 0x02:
    case 0x12:
        bios_set_low(call, RAX, (uint8_t)bios_data(call, BDA_SHIFT, 1));
        break;
    case 0x05:
        bios_set_low(call, RAX, push(call, bios_word(call, RCX)) ? 0 : 1);
        break;
    default: /* repeat rates, lamps */
        break;
    }
}
