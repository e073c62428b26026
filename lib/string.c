/*
 * See lib/string.h. The compiler recognises a loop that copies, fills or measures and replaces
 * it by a call to the very function that contains it; OPAQUE in the loop prevents that.
 */
#include "lib/string.h"

#include <stdint.h>

/* The compiler may assume nothing about `variable` from here on. */
#define OPAQUE(variable) __asm__("" : "+r"(variable))

typedef uint64_t __attribute__((may_alias, aligned(1))) word;

void *memcpy(void *restrict to, const void *restrict from, size_t n)
{
    void *cursor = to;
    size_t words = n / sizeof(word);

    __asm__ volatile("rep movsq\n\t"
                     "movl %k[rest], %%ecx\n\t"
                     "rep movsb"
                     : "+&D"(cursor), "+&S"(from), "+&c"(words)
                     : [rest] "r"(n % sizeof(word))
                     : "memory");
    return to;
}

void *memmove(void *to, const void *from, size_t n)
{
    unsigned char *target = to;
    const unsigned char *source = from;

    /* Unsigned: also true when `to` lies below `from`. Then a forward copy is safe, because each
     * byte is read before the store that could overwrite it. */
    if ((uintptr_t)to - (uintptr_t)from >= n)
        return memcpy(to, from, n);

    for (; n >= sizeof(word); n -= sizeof(word)) {
        OPAQUE(n);
        *(word *)(target + n - sizeof(word)) = *(const word *)(source + n - sizeof(word));
    }
    for (; n > 0; n--) {
        OPAQUE(n);
        target[n - 1] = source[n - 1];
    }
    return to;
}

void *memset(void *to, int byte, size_t n)
{
    void *cursor = to;
    size_t words = n / sizeof(word);

    __asm__ volatile(
        "rep stosq\n\t"
        "movl %k[rest], %%ecx\n\t"
        "rep stosb"
        : "+&D"(cursor), "+&c"(words)
        : "a"((unsigned char)byte * UINT64_C(0x0101010101010101)), [rest] "r"(n % sizeof(word))
        : "memory");
    return to;
}

int memcmp(const void *a, const void *b, size_t n)
{
    const unsigned char *left = a, *right = b;

    for (size_t i = 0; i < n; i++) {
        if (left[i] != right[i])
            return left[i] < right[i] ? -1 : 1;
    }
    return 0;
}

void *memchr(const void *s, int byte, size_t n)
{
    const uint64_t ones = UINT64_MAX / 0xff;
    const uint64_t wanted = ones * (unsigned char)byte;
    const unsigned char *at = s;

    /* A word at a time, until one has a byte that differs from the wanted ones by 0. */
    for (; n >= sizeof(word); at += sizeof(word), n -= sizeof(word)) {
        uint64_t difference = *(const word *)at ^ wanted;
        if ((difference - ones) & ~difference & (ones << 7))
            break;
    }
    for (; n; at++, n--) {
        if (*at == (unsigned char)byte)
            return (void *)(uintptr_t)at;
    }
    return NULL;
}

size_t strlen(const char *s)
{
    size_t length = 0;

    while (s[length] != '\0') {
        length++;
        OPAQUE(length);
    }
    return length;
}

size_t strnlen(const char *s, size_t max)
{
    size_t length = 0;

    while (length < max && s[length] != '\0') {
        length++;
        OPAQUE(length);
    }
    return length;
}

int strcmp(const char *a, const char *b)
{
    return strncmp(a, b, SIZE_MAX);
}

int strncmp(const char *a, const char *b, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        unsigned char left = (unsigned char)a[i], right = (unsigned char)b[i];

        if (left != right)
            return left < right ? -1 : 1;
        if (left == '\0')
            break;
    }
    return 0;
}

char *strchr(const char *s, int c)
{
    while (*s != (char)c) {
        if (*s == '\0')
            return NULL;
        s++;
    }
    return (char *)(uintptr_t)s;
}
