/*
 * See vm/symbols.h. A System.map has lines ADDRESS TYPE NAME, sorted by address; /proc/kallsyms has
 * the same, with a tab and a module's name behind some. A line that is something else is passed
 * over.
 */
#include "lib/bits.h"
#include "lib/string.h"
#include "vm/symbols_parts.h"

#define ADDRESS_DIGITS 16

bool symbols_of_map(struct symbols *out, const void *text, uint64_t size)
{
    struct symbol first;
    uint64_t at = 0;

    memset(out, 0, sizeof(*out));
    out->is_map = true;
    out->bytes = text;
    out->size = size;
    return map_next(out, &at, &first);
}

static int digit_of(uint8_t c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

static uint64_t line_end(const struct symbols *symbols, uint64_t at)
{
    const uint8_t *newline = memchr(symbols->bytes + at, '\n', symbols->size - at);

    return newline != NULL ? (uint64_t)(newline - symbols->bytes) : symbols->size;
}

/* Types in lower case are local; `A` is a constant and no address. */
static bool read_line(const struct symbols *symbols, uint64_t at, uint64_t end, struct symbol *out)
{
    const uint8_t *bytes = symbols->bytes;
    unsigned digits = 0;
    uint64_t length = 0;

    out->address = 0;
    for (; at < end && digits <= ADDRESS_DIGITS && digit_of(bytes[at]) >= 0; at++, digits++)
        out->address = out->address << 4 | (uint64_t)digit_of(bytes[at]);
    if (digits == 0 || digits > ADDRESS_DIGITS || end - at < 4 || bytes[at] != ' ' ||
        bytes[at + 2] != ' ')
        return false;
    uint8_t type = bytes[at + 1], upper = type & (uint8_t)~0x20u;
    if (upper == 'A' || upper == 'U')
        return false;
    out->global = type == upper;
    out->code = upper == 'T' || upper == 'W';
    at += 3;
    while (at + length < end && length < SYMBOL_NAME && bytes[at + length] != '\t' &&
           bytes[at + length] != '\r')
        length++;
    out->name = (const char *)bytes + at;
    out->length = (unsigned)length;
    return symbol_name_fits(bytes + at, length);
}

bool map_next(const struct symbols *symbols, uint64_t *at, struct symbol *out)
{
    while (*at < symbols->size) {
        uint64_t start = *at, end = line_end(symbols, start);

        *at = end < symbols->size ? end + 1 : end;
        if (read_line(symbols, start, end, out))
            return true;
    }
    return false;
}

static uint64_t line_start(const struct symbols *symbols, uint64_t at, uint64_t least)
{
    while (at > least && symbols->bytes[at - 1] != '\n')
        at--;
    return at;
}

/* The last symbol of the text: what the upper half of an address space is told by. */
static bool last_symbol(const struct symbols *symbols, struct symbol *out)
{
    uint64_t end = symbols->size;

    for (unsigned lines = 0; end > 0 && lines < 16; lines++) {
        uint64_t start = line_start(symbols, end - 1, 0);
        uint64_t stop = symbols->bytes[end - 1] == '\n' ? end - 1 : end;

        if (start < stop && read_line(symbols, start, stop, out))
            return true;
        end = start;
    }
    return false;
}

bool map_at(const struct symbols *symbols, uint64_t address, struct symbol *out)
{
    uint64_t low = 0, high = symbols->size;
    struct symbol symbol, last;
    bool found = false;

    /* Of a kernel in the upper half, low values are offsets (its variables of each CPU). Behind the
     * last symbol the kernel ends. */
    if (!last_symbol(symbols, &last) || address > last.address ||
        (last.address & ~address & BIT(63)))
        return false;
    /* Bisection by lines: all before `low` are at or below `address`, all from `high` on above. */
    while (low < high) {
        uint64_t start = line_start(symbols, low + (high - low) / 2, low), next = start;

        if (!map_next(symbols, &next, &symbol) || symbol.address > address) {
            high = start;
            continue;
        }
        low = next;
        *out = symbol;
        found = true;
    }
    return found;
}
