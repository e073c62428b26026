/* See guest.h. */
#include "guests/guest.h"

#define COM1 0x3f8
#define COM1_STATUS (COM1 + 5)
#define COM1_EMPTY 0x20

static bool use_serial;
static uint32_t checks, first_failed;

void guest_use_serial(void)
{
    out8(COM1 + 1, 0);    /* no interrupts */
    out8(COM1 + 3, 0x80); /* divisor latch: 115200 */
    out8(COM1, 1);
    out8(COM1 + 1, 0);
    out8(COM1 + 3, 3); /* 8N1 */
    use_serial = true;
}

static void put(char c)
{
    if (!use_serial) {
        out8(QUIRE_PORT_DEBUG, (uint8_t)c);
        return;
    }
    while (!(in8(COM1_STATUS) & COM1_EMPTY))
        continue;
    out8(COM1, (uint8_t)c);
}

void print(const char *text)
{
    while (*text)
        put(*text++);
}

void print_hex(uint64_t value)
{
    int shift = 60;

    print("0x");
    while (shift > 0 && !(value >> shift & 15))
        shift -= 4;
    for (; shift >= 0; shift -= 4)
        put("0123456789abcdef"[value >> shift & 15]);
}

void print_number(uint32_t value)
{
    char digits[11];
    unsigned at = sizeof(digits) - 1;

    digits[at] = '\0';
    do {
        digits[--at] = (char)('0' + value % 10);
        value /= 10;
    } while (value);
    print(&digits[at]);
}

uint32_t last_number(const struct multiboot_info *info, uint32_t otherwise)
{
    const char *text = info ? (const char *)(uintptr_t)info->cmdline : "";
    uint32_t number = 0;

    for (; *text; text++)
        number = *text >= '0' && *text <= '9' ? number * 10 + (uint32_t)(*text - '0') : 0;
    return number ? number : otherwise;
}

bool check(bool holds, const char *what)
{
    checks++;
    if (!holds && !first_failed)
        first_failed = checks;
    print(holds ? "ok: " : "FAILED: ");
    print(what);
    put('\n');
    return holds;
}

_Noreturn void guest_end(void)
{
    if (first_failed)
        hypercall(QUIRE_HC_FAIL, first_failed, 0, 0, 0);
    else
        hypercall(QUIRE_HC_PASS, 0, 0, 0, 0);
    for (;;)
        __asm__ volatile("cli; hlt");
}

uint32_t hypercall(uint32_t number, uintptr_t rbx, uintptr_t rcx, uintptr_t rdx, uintptr_t rsi)
{
    uintptr_t answer = number;

    __asm__ volatile("vmcall"
                     : "+a"(answer)
                     : "b"(rbx), "c"(rcx), "d"(rdx), "S"(rsi)
                     : "memory", "cc");
    return (uint32_t)answer;
}
