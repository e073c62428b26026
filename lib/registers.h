/*
 * Registers in a report, alike wherever they come from: `NAME 0x...`, three on a line.
 */
#ifndef QUIRE_LIB_REGISTERS_H
#define QUIRE_LIB_REGISTERS_H

#include <stdbool.h>

#include "lib/format.h"

struct register_value {
    const char *name;
    uint64_t value;
};

static inline void show_registers(struct sink *to, const char *indent,
                                  const struct register_value *list, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        bool ends = i % 3 == 2 || i + 1 == count;

        format(to, "%s%-6s 0x%-*lx%s", i % 3 ? "" : indent, list[i].name, ends ? 0 : 16,
               list[i].value, ends ? "\n" : "  ");
    }
}

#endif
