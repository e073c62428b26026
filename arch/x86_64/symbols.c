/*
 * See arch/x86_64/symbols.h. The table (section .symbols) is
 *
 *   symbol_count, count x { offset from image_base, offset of the name in symbol_names }, names
 *
 * sorted by address. The first link pass has none of it, hence the weak declarations.
 */
#include "arch/x86_64/symbols.h"

#include <stddef.h>

#include "lib/string.h"

struct symbol {
    uint32_t address; /* less image_base */
    uint32_t name;    /* byte offset in symbol_names */
};

extern const uint32_t symbol_count __attribute__((weak));
extern const struct symbol symbol_table[] __attribute__((weak));
extern const char symbol_names[] __attribute__((weak));

extern const char image_base[], kernel_text[], kernel_image_end[];

static uint32_t count(void)
{
    return &symbol_count ? symbol_count : 0;
}

const char *symbol_of(uint64_t address, uint64_t *offset)
{
    if (address < (uint64_t)(uintptr_t)kernel_text ||
        address >= (uint64_t)(uintptr_t)kernel_image_end)
        return NULL;
    uint32_t wanted = (uint32_t)(address - (uint64_t)(uintptr_t)image_base);

    /* Bisection: the symbols before `low` are at or below `wanted`, those from `high` on above. */
    uint32_t low = 0, high = count();
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (symbol_table[middle].address <= wanted)
            low = middle + 1;
        else
            high = middle;
    }
    if (low == 0)
        return NULL;
    *offset = wanted - symbol_table[low - 1].address;
    return &symbol_names[symbol_table[low - 1].name];
}

bool symbol_address(const char *name, uint64_t *out)
{
    for (uint32_t i = 0; i < count(); i++) {
        if (strcmp(&symbol_names[symbol_table[i].name], name) != 0)
            continue;
        *out = (uint64_t)(uintptr_t)image_base + symbol_table[i].address;
        return true;
    }
    return false;
}

const char *symbol_name(unsigned index)
{
    return index < count() ? &symbol_names[symbol_table[index].name] : NULL;
}
