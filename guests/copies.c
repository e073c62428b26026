/*
 * copies: a guest to be copied. It knows what each of its pages holds, and what is in its registers
 * that nobody saves in memory; at a key it does something and verifies all of that:
 *
 *     w  writes every third page      v  verifies
 *     c  an instruction that is none, without a table of handlers: it ends by a triple fault
 *     q  passes
 *
 * Copies are told apart by the number of the guest, which CPUID has.
 */
#include "guests/guest.h"

#define PAGE 4096u
#define FIRST 0x200000u
#define PAGES 1024u
#define KEYBOARD 0x60u
#define KEYBOARD_STATUS 0x64u
#define CR4_OSFXSR 0x200u
#define KEY_C 0x2eu
#define KEY_Q 0x10u
#define KEY_V 0x2fu
#define KEY_W 0x11u

static uint32_t expected[PAGES];
static uint32_t rounds;

static volatile uint32_t *word_of(uint32_t page)
{
    return (volatile uint32_t *)(uintptr_t)(FIRST + page * PAGE + 4 * (page % (PAGE / 4)));
}

static uint32_t number(void)
{
    uint32_t out[4];

    cpuid(QUIRE_CPUID_BASE + 1, out);
    return out[1];
}

static void load_registers(void)
{
    __asm__ volatile("movd %0, %%xmm3; mov %0, %%dr1" : : "r"(rounds) : "memory");
}

static bool registers_hold(void)
{
    uint32_t vector, debug;

    __asm__ volatile("movd %%xmm3, %0; mov %%dr1, %1" : "=r"(vector), "=r"(debug));
    return vector == rounds && debug == rounds;
}

static void write_pages(void)
{
    rounds++;
    for (uint32_t page = rounds % 3; page < PAGES; page += 3)
        *word_of(page) = expected[page] = rounds * 1000 + number();
    load_registers();
}

static void verify(void)
{
    uint32_t wrong = 0;

    for (uint32_t page = 0; page < PAGES; page++)
        wrong += *word_of(page) != expected[page];
    print("round ");
    print_number(rounds);
    print(" of g");
    print_number(number());
    print(wrong == 0 && registers_hold() ? ": all holds\n" : ": WRONG\n");
}

static uint8_t next_key(void)
{
    while (!(in8(KEYBOARD_STATUS) & 1))
        hypercall(QUIRE_HC_YIELD, 0, 0, 0, 0);
    return in8(KEYBOARD);
}

void guest_main(const struct multiboot_info *info)
{
    (void)info;
    set_cr4(read_cr4() | CR4_OSFXSR);
    write_pages();
    verify();
    for (;;) {
        switch (next_key()) {
        case KEY_W:
            write_pages();
            verify();
            break;
        case KEY_V:
            verify();
            break;
        case KEY_C:
            __asm__ volatile("ud2");
            break;
        case KEY_Q:
            guest_end();
        }
    }
}
