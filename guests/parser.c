/*
 * parser: something to fuzz. It reads records from its input at 3M, each a type, a length and so
 * many bytes, and says when it is done. One of its types trusts the length: `fuzz` finds that.
 *
 *     parser bare mem=4M
 *     fuzz g1 input=0x300000:32 rounds=20000 seed=1
 *
 * With until=parsed a round ends right before it says so.
 */
#include "guests/guest.h"

#define INPUT ((volatile uint8_t *)0x300000)
#define INPUT_SIZE 32u
#define NAME_SIZE 16u
#define TYPE_END 0
#define TYPE_SUM 1
#define TYPE_NAME 2
#define TYPE_COPY 3
#define COPY_TO 0x9ff20u /* 224 bytes below the hole where a PC has its video memory */

static const uint8_t sample[INPUT_SIZE] = {
    TYPE_SUM,  4, 1,   2,   3,        4,           /* */
    TYPE_NAME, 5, 'q', 'u', 'i',      'r', 'e',    /* */
    TYPE_COPY, 6, 9,   8,   7,        6,   5,   4, /* */
    TYPE_SUM,  2, 0,   0,   TYPE_END,
};

static volatile uint32_t sum;
static volatile char name[NAME_SIZE];

static void record(uint8_t type, const volatile uint8_t *bytes, uint32_t length, uint32_t left)
{
    uint32_t whole = length < left ? length : left;

    switch (type) {
    case TYPE_SUM:
        for (uint32_t i = 0; i < whole; i++)
            sum += bytes[i];
        break;
    case TYPE_NAME:
        for (uint32_t i = 0; i < whole && i < NAME_SIZE - 1; i++)
            name[i] = (char)bytes[i];
        break;
    case TYPE_COPY: /* the planted one: as many as it says, not as many as there are */
        for (uint32_t i = 0; i < length; i++)
            ((volatile uint8_t *)(uintptr_t)COPY_TO)[i] = bytes[i];
        break;
    default:
        break;
    }
}

static void parse(void)
{
    uint32_t at = 0;

    while (at + 2 <= INPUT_SIZE && INPUT[at] != TYPE_END) {
        uint32_t length = INPUT[at + 1];

        record(INPUT[at], &INPUT[at + 2], length, INPUT_SIZE - at - 2);
        at += 2 + length;
    }
}

void parsed(void);
__attribute__((noinline)) void parsed(void)
{
    hypercall(QUIRE_HC_DONE, 0, 0, 0, 0);
}

void guest_main(const struct multiboot_info *info)
{
    (void)info;
    for (uint32_t i = 0; i < INPUT_SIZE; i++)
        INPUT[i] = sample[i];
    print("ready\n");
    for (;;) {
        hypercall(QUIRE_HC_YIELD, 0, 0, 0, 0);
        parse();
        parsed();
    }
}
