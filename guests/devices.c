/*
 * devices: looks at what a guest finds at its ports, as drivers do that poll, moves strings through
 * them, and checks the modules that came with it.
 *
 * Each module must hold its own command line, over and over, up to its last byte.
 */
#include "guests/guest.h"

#define COM1 0x3f8
#define COM1_IIR (COM1 + 2)
#define COM1_LCR (COM1 + 3)
#define COM1_MCR (COM1 + 4)
#define COM1_LSR (COM1 + 5)
#define COM1_SCRATCH (COM1 + 7)
#define MCR_LOOP 0x10
#define LSR_DATA 0x01
#define LSR_EMPTY 0x60

#define PIC1_DATA 0x21
#define PIT_COUNTER0 0x40
#define PIT_COUNTER2 0x42
#define PIT_CONTROL 0x43
#define SPEAKER 0x61
#define SPEAKER_OUTPUT 0x20
#define KEYBOARD_DATA 0x60
#define KEYBOARD_COMMAND 0x64
#define CMOS_INDEX 0x70
#define CMOS_DATA 0x71
#define FAST_A20 0x92
#define PCI_ADDRESS 0xcf8
#define PCI_DATA 0xcfc
#define NOBODY 0x1234

/* Waits end, one way or the other. */
#define PATIENCE 100000

static uint32_t in32(uint16_t port)
{
    uint32_t value;
    __asm__ volatile("inl %1, %0" : "=a"(value) : "Nd"(port));
    return value;
}

static void out32(uint16_t port, uint32_t value)
{
    __asm__ volatile("outl %0, %1" : : "a"(value), "Nd"(port));
}

static void serial(void)
{
    out8(COM1_SCRATCH, 0x5a);
    check(in8(COM1_SCRATCH) == 0x5a, "the serial port keeps its scratch register");
    check((in8(COM1_LSR) & (LSR_EMPTY | LSR_DATA)) == LSR_EMPTY,
          "it is ready to send and has received nothing");
    check((in8(COM1_IIR) & 1) == 1, "no interrupt is pending there");
    out8(COM1_MCR, MCR_LOOP);
    out8(COM1, 'L');
    check(in8(COM1_LSR) & LSR_DATA && in8(COM1) == 'L', "in loop-back it hears itself");
}

static void strings(void)
{
    static const char forwards[] = "ok: REP OUTSB, forwards\n";
    static const char backwards[] = "\nsdrawkcab ,BSTUO PER :ko";
    static const char short_pointer[] = "ok: REP OUTSB through ESI\n";
    static char received[8];
    const void *from = forwards;
    void *to = received;
    uint64_t count = sizeof(forwards) - 1;

    __asm__ volatile("cld; rep outsb" : "+S"(from), "+c"(count) : "d"(QUIRE_PORT_DEBUG) : "memory");
    check(count == 0 && from == forwards + sizeof(forwards) - 1, "RCX and RSI have moved on");

    from = backwards + sizeof(backwards) - 2;
    count = sizeof(backwards) - 1;
    __asm__ volatile("std; rep outsb; cld"
                     : "+S"(from), "+c"(count)
                     : "d"(QUIRE_PORT_DEBUG)
                     : "memory");
    check((uintptr_t)from == (uintptr_t)backwards - 1, "RSI has moved back");

    from = short_pointer;
    count = sizeof(short_pointer) - 1;
    __asm__ volatile("addr32 rep outsb"
                     : "+S"(from), "+c"(count)
                     : "d"(QUIRE_PORT_DEBUG)
                     : "memory");

    /* The serial port is still in loop-back. */
    from = "string";
    count = 6;
    __asm__ volatile("rep outsb" : "+S"(from), "+c"(count) : "d"(COM1) : "memory");
    count = 6;
    __asm__ volatile("rep insb" : "+D"(to), "+c"(count) : "d"(COM1) : "memory");
    check(__builtin_memcmp(received, "string", 7) == 0, "REP INSB reads what REP OUTSB wrote");
    out8(COM1_MCR, 0);

    count = 0;
    __asm__ volatile("rep outsb" : "+S"(from), "+c"(count) : "d"(QUIRE_PORT_DEBUG) : "memory");
    check(count == 0, "REP with RCX 0 does nothing");
}

/* An operand that my own tables do not map: they reach to 4 GiB. */
#define UNMAPPED "0x200000000"

void try_outsb(void), try_insb(void);
__asm__(".pushsection .text\n"
        "try_outsb:\n\tmovabs $" UNMAPPED ", %rsi\n\tmov $0xe9, %edx\n\toutsb\n\tret\n"
        "try_insb:\n\tmovabs $" UNMAPPED ", %rdi\n\tmov $0xe9, %edx\n\tinsb\n\tret\n"
        ".popsection");

static void unmapped_strings(void)
{
    check(guest_try(QUIRE_FAULT_EXEC, (uintptr_t)try_outsb) == GUEST_EXCEPTION + 14 &&
              guest_fault_address == 0x200000000 && guest_fault_code == 0,
          "OUTSB from where nothing is mapped is my own page fault");
    check(guest_try(QUIRE_FAULT_EXEC, (uintptr_t)try_insb) == GUEST_EXCEPTION + 14 &&
              guest_fault_address == 0x200000000 && guest_fault_code == 2,
          "and so is INSB to there");
}

static uint32_t pit_count(void)
{
    uint32_t count;

    out8(PIT_CONTROL, 0x00); /* latch counter 0 */
    count = in8(PIT_COUNTER0);
    return count | (uint32_t)in8(PIT_COUNTER0) << 8;
}

static void timer(void)
{
    uint32_t first, tries = 0;

    out8(PIT_CONTROL, 0x34); /* counter 0, both bytes, rate generator */
    out8(PIT_COUNTER0, 0xff);
    out8(PIT_COUNTER0, 0xff);
    first = pit_count();
    while (pit_count() == first && tries < PATIENCE)
        tries++;
    check(tries < PATIENCE, "the timer counts");

    tries = 0;
    out8(SPEAKER, 0x01);
    out8(PIT_CONTROL, 0xb0); /* counter 2, both bytes, one-shot */
    out8(PIT_COUNTER2, 0x10);
    out8(PIT_COUNTER2, 0x00);
    while (!(in8(SPEAKER) & SPEAKER_OUTPUT) && tries < PATIENCE)
        tries++;
    check(tries < PATIENCE, "a wait for its third counter ends");
}

static uint8_t cmos(uint8_t index)
{
    out8(CMOS_INDEX, index);
    return in8(CMOS_DATA);
}

static void chipset(const struct multiboot_info *info)
{
    uint32_t extended = cmos(0x30) | (uint32_t)cmos(0x31) << 8;

    out8(PIC1_DATA, 0xfb);
    check(in8(PIC1_DATA) == 0xfb, "the interrupt controller keeps its mask");
    check(extended == info->mem_upper || (extended == 0xffff && info->mem_upper > 0xffff),
          "CMOS and Multiboot agree on the memory");
    check(cmos(0x0d) == 0x80, "the clock is valid");
    check(!(in8(KEYBOARD_COMMAND) & 3), "the keyboard controller waits for commands");
    out8(KEYBOARD_COMMAND, 0xaa);
    check(in8(KEYBOARD_COMMAND) & 1 && in8(KEYBOARD_DATA) == 0x55, "and passes its self-test");
    check(in8(FAST_A20) & 2, "A20 is open");
    out32(PCI_ADDRESS, 0x80000000);
    check(in32(PCI_DATA) == 0x12378086, "the PCI bus has its host bridge");
    out32(PCI_ADDRESS, 0x80000800);
    check(in32(PCI_DATA) == UINT32_MAX, "and no device");
    out32(NOBODY, 0);
    check(in32(NOBODY) == UINT32_MAX, "a port that nobody has reads as all ones");
}

static bool holds_its_name(const struct multiboot_module *module)
{
    const char *text = (const char *)(uintptr_t)module->string;
    const char *bytes = (const char *)(uintptr_t)module->start;
    size_t at = 0;

    for (size_t i = 0; i < module->end - module->start; i++) {
        if (bytes[i] != text[at++])
            return false;
        if (text[at] == '\0')
            at = 0;
    }
    return true;
}

static void modules(const struct multiboot_info *info)
{
    const struct multiboot_module *module = (const void *)(uintptr_t)info->mods_addr;

    if (!check(info->flags & MULTIBOOT_INFO_MODULES, "the list of modules is given"))
        return;
    for (uint32_t i = 0; i < info->mods_count; i++, module++) {
        print("module \"");
        print((const char *)(uintptr_t)module->string);
        print("\", ");
        print_number(module->end - module->start);
        print(" bytes\n");
        check((module->start & 0xfff) == 0, "it begins on a page of its own");
        check(module->start >= (uintptr_t)image_end, "behind my image");
        check(holds_its_name(module), "and is whole");
    }
}

void guest_main(const struct multiboot_info *info)
{
    if (check(info != NULL, "started by a Multiboot 1 loader")) {
        chipset(info);
        modules(info);
    }
    serial();
    strings();
    unmapped_strings();
    timer();
    guest_end();
}
