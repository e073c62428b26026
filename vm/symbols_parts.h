/*
 * Within vm/symbols*.c: the two kinds of table behind vm/symbols.h.
 */
#ifndef QUIRE_VM_SYMBOLS_PARTS_H
#define QUIRE_VM_SYMBOLS_PARTS_H

#include "vm/symbols.h"

bool elf_next(const struct symbols *symbols, uint64_t *at, struct symbol *out);
bool elf_at(const struct symbols *symbols, uint64_t address, struct symbol *out);
bool map_next(const struct symbols *symbols, uint64_t *at, struct symbol *out);
bool map_at(const struct symbols *symbols, uint64_t address, struct symbol *out);

/* Names are shown on a terminal: each byte must be printable, and there must be one. */
static inline bool symbol_name_fits(const uint8_t *name, uint64_t length)
{
    for (uint64_t i = 0; i < length; i++)
        if (name[i] <= ' ' || name[i] > '~')
            return false;
    return length > 0 && length < SYMBOL_NAME;
}

#endif
