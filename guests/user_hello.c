/*
 * A ring-3 program that does nothing wrong: it checks that its segments arrived, that the
 * hypervisor reads no memory on its behalf that is not its own, and ends with 0.
 */
#include "guests/user.h"

#define KERNEL_ADDRESS 0xffffffff80200000ul
#define UNMAPPED_ADDRESS 0x10000000ul
#define STACK_PROBE 32768

static const char greeting[] = "hello from ring 3\n";
static int initialised = 42;
static char zeroes[10000];

enum failure { NONE, BAD_DATA, BAD_BSS, BAD_ANSWER, BAD_STACK };

static enum failure check_memory(void)
{
    if (initialised != 42)
        return BAD_DATA;
    initialised++;
    for (unsigned i = 0; i < sizeof(zeroes); i++) {
        if (zeroes[i] != 0)
            return BAD_BSS;
        zeroes[i] = (char)i;
    }
    return NONE;
}

static enum failure check_stack(void)
{
    volatile unsigned char deep[STACK_PROBE];

    for (unsigned i = 0; i < sizeof(deep); i += 512)
        deep[i] = (unsigned char)(i >> 9);
    for (unsigned i = 0; i < sizeof(deep); i += 512)
        if (deep[i] != (unsigned char)(i >> 9))
            return BAD_STACK;
    return NONE;
}

/* A pointer that is not ours, wholly or in part, must be refused and must not be followed. */
static enum failure check_pointers(void)
{
    const void *end = (const void *)(((unsigned long)zeroes + sizeof(zeroes) + 4095) & ~4095ul);

    if (user_write((const void *)KERNEL_ADDRESS, 16) != QUIRE_USER_E_FAULT ||
        user_write((const void *)UNMAPPED_ADDRESS, 1) != QUIRE_USER_E_FAULT ||
        user_write((const char *)end - 8, 16) != QUIRE_USER_E_FAULT ||
        user_write((const void *)-16ul, 32) != QUIRE_USER_E_FAULT ||
        user_write(greeting, QUIRE_USER_WRITE_MAX + 1) != QUIRE_USER_E_RANGE ||
        user_write(greeting, 0) != 0)
        return BAD_ANSWER;
    return NONE;
}

int user_main(void)
{
    enum failure failure;

    if (user_write(greeting, sizeof(greeting) - 1) != (long)sizeof(greeting) - 1)
        return BAD_ANSWER;
    failure = check_memory();
    if (failure == NONE)
        failure = check_stack();
    if (failure == NONE)
        failure = check_pointers();
    if (failure == NONE)
        user_print("data, bss, stack and pointer checks are right\n");
    return failure;
}
