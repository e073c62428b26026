/*
 * ring: two guests that speak through memory which they share by name:
 *
 *     ring bare mem=2M share=ring:64K@1G   share=back:4K:r@1088M      writes the ring
 *     ring bare mem=2M share=ring:64K:r@1G share=back:4K@1088M        reads it, and answers
 *
 * Which of them one is, it finds by what it may write. When all messages have come and been
 * answered, at a key: `w` writes to the ring, whoever is asked, `v` verifies what is there, `q`
 * passes.
 */
#include "guests/guest.h"

#define RING 0x40000000u
#define BACK 0x44000000u
#define PAGE 4096u
#define PAGES 16u
#define MESSAGES 100u
#define KEYBOARD 0x60u
#define KEYBOARD_STATUS 0x64u
#define KEY_Q 0x10u
#define KEY_V 0x2fu
#define KEY_W 0x11u

static volatile uint32_t *const ring = (volatile uint32_t *)RING;
static volatile uint32_t *const back = (volatile uint32_t *)BACK;

/* A message: all of a page but the first, which has the number of the last one in its first word.
 */
static volatile uint32_t *place_of(uint32_t message)
{
    return ring + PAGE / 4 * (1 + message % (PAGES - 1));
}

static uint32_t word_of(uint32_t message, uint32_t index)
{
    return (message * 2654435761u) ^ index;
}

static void write_message(uint32_t message)
{
    for (uint32_t i = 0; i < PAGE / 4; i++)
        place_of(message)[i] = word_of(message, i);
    ring[0] = message;
}

static bool holds(uint32_t message)
{
    for (uint32_t i = 0; i < PAGE / 4; i++)
        if (place_of(message)[i] != word_of(message, i))
            return false;
    return true;
}

static void wait_for(const volatile uint32_t *word, uint32_t value)
{
    while (*word != value)
        hypercall(QUIRE_HC_YIELD, 0, 0, 0, 0);
}

static uint8_t next_key(void)
{
    while (!(in8(KEYBOARD_STATUS) & 1))
        hypercall(QUIRE_HC_YIELD, 0, 0, 0, 0);
    return in8(KEYBOARD);
}

void guest_main(const struct multiboot_info *info)
{
    bool writes = hypercall(QUIRE_HC_BACKING, RING, 0, 0, 0) == QUIRE_BACKING_NOEXEC;
    uint32_t wrong = 0;

    (void)info;
    for (uint32_t message = 1; message <= MESSAGES; message++) {
        if (writes) {
            write_message(message);
            wait_for(back, message);
        } else {
            wait_for(ring, message);
            wrong += !holds(message);
            *back = message;
        }
    }
    check(wrong == 0, writes ? "every message was answered" : "every message came as it was sent");
    for (;;) {
        switch (next_key()) {
        case KEY_W:
            write_message(ring[0] + 1);
            print("written\n");
            break;
        case KEY_V:
            print_number(ring[0]);
            print(holds(ring[0]) ? " is as it was sent\n" : " is NOT as it was sent\n");
            break;
        case KEY_Q:
            guest_end();
        }
    }
}
