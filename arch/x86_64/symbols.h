/*
 * The hypervisor's own symbols, for backtraces and for the console. The table is made from the
 * linked image by tools/symbols.py and linked in by a second pass (boot/image.mk).
 */
#ifndef QUIRE_ARCH_SYMBOLS_H
#define QUIRE_ARCH_SYMBOLS_H

#include <stdbool.h>
#include <stdint.h>

/* The symbol at or below an address of the image and how far the address lies behind it. NULL
 * outside the image. */
const char *symbol_of(uint64_t address, uint64_t *offset);

/* The address of a symbol by its exact name. */
bool symbol_address(const char *name, uint64_t *out);

/* The name of the symbol at this place of the list, by address; NULL behind the last. */
const char *symbol_name(unsigned index);

#endif
