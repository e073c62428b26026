/*
 * printf-style formatting into a sink, without libc.
 *
 * A sink is anything that takes bytes: the serial port, a log ring, a buffer. Supported, with the
 * meaning they have in C: %s %c %d %i %u %x %X %p %% with the flags '-', '0' and '#', a width, a
 * precision, '*' for either, and the lengths hh, h, l, ll and z. Anything else ends the
 * interpretation: the text from there on appears as it was written.
 */
#ifndef QUIRE_LIB_FORMAT_H
#define QUIRE_LIB_FORMAT_H

#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

struct sink {
    void (*write)(struct sink *sink, const char *bytes, size_t n);
};

void format(struct sink *sink, const char *text, ...) __attribute__((format(printf, 2, 3)));
void vformat(struct sink *sink, const char *text, va_list args)
    __attribute__((format(printf, 2, 0)));

/* Formats into a buffer of `size` bytes, always terminated when size > 0. Returns the length
 * that the whole text has, as snprintf does. */
size_t format_buffer(char *buffer, size_t size, const char *text, ...)
    __attribute__((format(printf, 3, 4)));
size_t vformat_buffer(char *buffer, size_t size, const char *text, va_list args)
    __attribute__((format(printf, 3, 0)));

/* A byte count in words: in the largest unit that makes it a whole number, "4K", "2M", "1023M",
 * "1000B", or, where that takes five digits and more, in the largest that leaves something before
 * the point, rounded: "15.6M". Returns buffer. */
#define SIZE_TEXT 24
const char *size_text(char buffer[SIZE_TEXT], uint64_t bytes);

#endif
