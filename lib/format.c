/* See lib/format.h. Nothing is buffered here but the digits of one number. */
#include "lib/format.h"

#include <stdbool.h>

#include "lib/string.h"

/* 64 bits in decimal take 20 digits, in hexadecimal 16. */
#define DIGITS_MAX 20

struct conversion {
    bool left, zero, alternate, upper;
    size_t width;
    bool has_precision;
    size_t precision;
    enum { LENGTH_INT, LENGTH_CHAR, LENGTH_SHORT, LENGTH_LONG } length;
};

static void pad(struct sink *sink, char with, size_t n)
{
    static const char blanks[] = "                ", zeros[] = "0000000000000000";
    const char *bytes = with == '0' ? zeros : blanks;

    while (n > 0) {
        size_t piece = n < sizeof(blanks) - 1 ? n : sizeof(blanks) - 1;

        sink->write(sink, bytes, piece);
        n -= piece;
    }
}

/* A body that is not a number: only the width and '-' count. */
static void put_text(struct sink *sink, const struct conversion *c, const char *text, size_t n)
{
    size_t fill = c->width > n ? c->width - n : 0;

    if (!c->left)
        pad(sink, ' ', fill);
    if (n > 0)
        sink->write(sink, text, n);
    if (c->left)
        pad(sink, ' ', fill);
}

static void put_number(struct sink *sink, const struct conversion *c, const char *prefix,
                       uint64_t value, unsigned base)
{
    const char *alphabet = c->upper ? "0123456789ABCDEF" : "0123456789abcdef";
    char digits[DIGITS_MAX];
    size_t first = DIGITS_MAX, prefix_length = strlen(prefix);

    for (; value != 0; value /= base)
        digits[--first] = alphabet[value % base];

    size_t count = DIGITS_MAX - first;
    size_t wanted = c->has_precision ? c->precision : 1;
    size_t zeros = wanted > count ? wanted - count : 0;
    size_t length = prefix_length + zeros + count;
    size_t fill = c->width > length ? c->width - length : 0;

    /* As in C: '-' beats '0', and so does a precision. */
    if (c->zero && !c->left && !c->has_precision) {
        zeros += fill;
        fill = 0;
    }
    if (!c->left)
        pad(sink, ' ', fill);
    if (prefix_length > 0)
        sink->write(sink, prefix, prefix_length);
    pad(sink, '0', zeros);
    if (count > 0)
        sink->write(sink, digits + first, count);
    if (c->left)
        pad(sink, ' ', fill);
}

/* Decimal digits at *text; saturates far beyond any sensible width instead of wrapping. */
static size_t read_number(const char **text)
{
    size_t value = 0;

    for (; **text >= '0' && **text <= '9'; (*text)++) {
        if (value < 100000)
            value = value * 10 + (size_t)(**text - '0');
    }
    return value;
}

static int64_t narrow_signed(int64_t value, const struct conversion *c)
{
    switch (c->length) {
    case LENGTH_CHAR:
        return (signed char)value;
    case LENGTH_SHORT:
        return (short)value;
    default:
        return value;
    }
}

static uint64_t narrow_unsigned(uint64_t value, const struct conversion *c)
{
    switch (c->length) {
    case LENGTH_CHAR:
        return (unsigned char)value;
    case LENGTH_SHORT:
        return (unsigned short)value;
    default:
        return value;
    }
}

/* va_list may be an array type; wrapped, it can be passed down and stays advanced. */
struct arguments {
    va_list list;
};

static void read_flags(const char **text, struct conversion *c)
{
    for (;; (*text)++) {
        if (**text == '-')
            c->left = true;
        else if (**text == '0')
            c->zero = true;
        else if (**text == '#')
            c->alternate = true;
        else
            return;
    }
}

static void read_width(const char **text, struct conversion *c, struct arguments *arguments)
{
    if (**text == '*') {
        int width = va_arg(arguments->list, int);

        (*text)++;
        if (width < 0)
            c->left = true;
        c->width = width < 0 ? -(size_t)width : (size_t)width;
    } else {
        c->width = read_number(text);
    }
}

static void read_precision(const char **text, struct conversion *c, struct arguments *arguments)
{
    if (**text != '.')
        return;
    (*text)++;
    c->has_precision = true;
    if (**text == '*') {
        int precision = va_arg(arguments->list, int);

        (*text)++;
        c->has_precision = precision >= 0;
        c->precision = (size_t)precision;
    } else {
        c->precision = read_number(text);
    }
}

static void read_length(const char **text, struct conversion *c)
{
    for (;; (*text)++) {
        if (**text == 'l' || **text == 'z')
            c->length = LENGTH_LONG;
        else if (**text == 'h')
            c->length = c->length == LENGTH_SHORT ? LENGTH_CHAR : LENGTH_SHORT;
        else
            return;
    }
}

static void put_signed(struct sink *sink, const struct conversion *c, struct arguments *arguments)
{
    int64_t value =
        c->length == LENGTH_LONG ? va_arg(arguments->list, long) : va_arg(arguments->list, int);

    value = narrow_signed(value, c);
    if (value < 0)
        put_number(sink, c, "-", -(uint64_t)value, 10);
    else
        put_number(sink, c, "", (uint64_t)value, 10);
}

static void put_unsigned(struct sink *sink, const struct conversion *c, struct arguments *arguments,
                         unsigned base)
{
    uint64_t value = c->length == LENGTH_LONG ? va_arg(arguments->list, unsigned long)
                                              : va_arg(arguments->list, unsigned int);
    const char *prefix = "";

    value = narrow_unsigned(value, c);
    if (base == 16 && c->alternate && value != 0)
        prefix = c->upper ? "0X" : "0x";
    put_number(sink, c, prefix, value, base);
}

static void put_string(struct sink *sink, const struct conversion *c, struct arguments *arguments)
{
    const char *text = va_arg(arguments->list, const char *);

    if (text == NULL)
        text = "(null)";
    /* With a precision the text need not be terminated. */
    put_text(sink, c, text, c->has_precision ? strnlen(text, c->precision) : strlen(text));
}

/* One conversion, *text just behind its '%'. False when it is not one of ours: then the types of
 * all further arguments are unknown. */
static bool convert(struct sink *sink, const char **text, struct arguments *arguments)
{
    struct conversion c = {.length = LENGTH_INT};
    char byte;

    read_flags(text, &c);
    read_width(text, &c, arguments);
    read_precision(text, &c, arguments);
    read_length(text, &c);

    switch (**text) {
    case 'd':
    case 'i':
        put_signed(sink, &c, arguments);
        break;
    case 'u':
        put_unsigned(sink, &c, arguments, 10);
        break;
    case 'X':
        c.upper = true;
        put_unsigned(sink, &c, arguments, 16);
        break;
    case 'x':
        put_unsigned(sink, &c, arguments, 16);
        break;
    case 'p':
        put_number(sink, &c, "0x", (uint64_t)(uintptr_t)va_arg(arguments->list, void *), 16);
        break;
    case 's':
        put_string(sink, &c, arguments);
        break;
    case 'c':
        byte = (char)va_arg(arguments->list, int);
        put_text(sink, &c, &byte, 1);
        break;
    case '%':
        sink->write(sink, "%", 1);
        break;
    default:
        return false;
    }
    (*text)++;
    return true;
}

void vformat(struct sink *sink, const char *text, va_list args)
{
    struct arguments arguments;

    va_copy(arguments.list, args);
    while (*text != '\0') {
        size_t plain = 0;

        while (text[plain] != '\0' && text[plain] != '%')
            plain++;
        if (plain > 0)
            sink->write(sink, text, plain);
        text += plain;
        if (*text == '\0')
            break;

        const char *percent = text++;

        if (!convert(sink, &text, &arguments)) {
            /* Shown as written, so that whoever wrote it sees it. */
            sink->write(sink, percent, strlen(percent));
            break;
        }
    }
    va_end(arguments.list);
}

void format(struct sink *sink, const char *text, ...)
{
    va_list args;

    va_start(args, text);
    vformat(sink, text, args);
    va_end(args);
}

struct buffer_sink {
    struct sink sink;
    char *bytes;
    size_t size;
    size_t length; /* of the whole text, also where it no longer fits */
};

static void buffer_write(struct sink *sink, const char *bytes, size_t n)
{
    struct buffer_sink *buffer = (struct buffer_sink *)sink;

    if (buffer->length + 1 < buffer->size) {
        size_t room = buffer->size - 1 - buffer->length;

        memcpy(buffer->bytes + buffer->length, bytes, n < room ? n : room);
    }
    buffer->length += n;
}

size_t vformat_buffer(char *buffer, size_t size, const char *text, va_list args)
{
    struct buffer_sink to = {{buffer_write}, buffer, size, 0};

    vformat(&to.sink, text, args);
    if (size > 0)
        buffer[to.length < size ? to.length : size - 1] = '\0';
    return to.length;
}

size_t format_buffer(char *buffer, size_t size, const char *text, ...)
{
    va_list args;

    va_start(args, text);
    size_t length = vformat_buffer(buffer, size, text, args);
    va_end(args);
    return length;
}

const char *size_text(char buffer[SIZE_TEXT], uint64_t bytes)
{
    static const char units[] = "BKMGTPE";
    unsigned unit = 0, tenths;
    uint64_t below = 0; /* what the last division left over */

    while (bytes != 0 && bytes % 1024 == 0) {
        bytes /= 1024;
        unit++;
    }
    if (bytes < 10000) {
        format_buffer(buffer, SIZE_TEXT, "%lu%c", bytes, units[unit]);
        return buffer;
    }
    for (; bytes >= 1024; unit++) {
        below = bytes % 1024;
        bytes /= 1024;
    }
    tenths = (unsigned)((below * 10 + 512) / 1024);
    format_buffer(buffer, SIZE_TEXT, "%lu.%u%c", bytes + tenths / 10, tenths % 10, units[unit]);
    return buffer;
}
