/*
 * writer: writes pages chosen by a seed (its command line: a number), reads others, and says which
 * it wrote; then halts. Without paging, so that nothing but its own stores writes memory.
 *
 *     writer mem=8M paused -- 7
 */
#include "guests/guest.h"

#define PAGE 4096u
#define FIRST 0x200000u /* from here ... */
#define PAGES 1536u     /* ... so many */
#define WRITES 48u
#define UNCLAIMED_PORT 0x2e8u

static bool written[PAGES];
static uint32_t state;

static uint32_t next_random(void)
{
    state = state * 1664525u + 1013904223u;
    return state >> 8;
}

static volatile uint32_t *word_at(uint32_t page)
{
    return (volatile uint32_t *)(uintptr_t)(FIRST + page * PAGE + 4 * (next_random() % (PAGE / 4)));
}

/* What the hypervisor writes for it. */
static void input_string(uint32_t page)
{
    void *to = (void *)(uintptr_t)(FIRST + page * PAGE + PAGE - 2); /* the next page as well */
    uint32_t count = 4;

    __asm__ volatile("cld; rep insb"
                     : "+D"(to), "+c"(count)
                     : "d"(UNCLAIMED_PORT)
                     : "memory", "cc");
    written[page] = written[page + 1] = true;
}

static void say_runs(void)
{
    for (uint32_t page = 0; page < PAGES; page++) {
        uint32_t first = page;

        if (!written[page])
            continue;
        while (page + 1 < PAGES && written[page + 1])
            page++;
        print("wrote ");
        print_hex(FIRST + first * PAGE);
        print(" ");
        print_hex(FIRST + page * PAGE + PAGE - 1);
        print("\n");
    }
}

void guest_main(const struct multiboot_info *info)
{
    uint32_t sum = 0;

    state = last_number(info, 0);
    for (unsigned i = 0; i < WRITES; i++) {
        uint32_t page = next_random() % PAGES;

        *word_at(page) = next_random();
        written[page] = true;
        sum += *word_at(next_random() % PAGES);
    }
    input_string(next_random() % (PAGES - 1));
    say_runs();
    print("read ");
    print_hex(sum);
    print("\n");
    for (;;)
        __asm__ volatile("cli; hlt");
}
