/*
 * A whole guest: it says hello and ends as passed.
 */
#define DEBUG_PORT 0xe9   /* a byte written here is printed */
#define RESULT_PORT 0x510 /* 32 bits written here end the guest: 0 is passed */
#define MAGIC 0x1badb002u
#define FLAGS 0u

/* Multiboot 1: magic, flags, and what makes their sum 0. */
__attribute__((section(".multiboot"), used)) static const unsigned header[] = {
    MAGIC,
    FLAGS,
    0u - (MAGIC + FLAGS),
};

__attribute__((used)) static char stack[4096];

static void out_byte(unsigned short port, char byte)
{
    __asm__ volatile("outb %0, %1" : : "a"(byte), "Nd"(port));
}

static void out_long(unsigned short port, unsigned value)
{
    __asm__ volatile("outl %0, %1" : : "a"(value), "Nd"(port));
}

__attribute__((used)) static void run(void)
{
    for (const char *text = "hello from my own guest\n"; *text; text++)
        out_byte(DEBUG_PORT, *text);
    out_long(RESULT_PORT, 0);
}

/* It begins in 32-bit protected mode without a stack. */
__asm__(".globl start\n"
        "start: mov $stack + 4096, %esp\n"
        "       call run\n");
