/*
 * Symbols of a guest, searched where they lie: in the symbol table of its ELF image, or in the text
 * of a System.map, as `nm -n` writes it:
 *
 *     ffffffff81000000 T startup_64
 *
 * Nothing in them is trusted, nothing is copied, and a question costs at most one pass over the
 * table. Addresses are those of the link; where a kernel has moved itself, they differ.
 */
#ifndef QUIRE_VM_SYMBOLS_H
#define QUIRE_VM_SYMBOLS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "vm/elf.h"

struct guest;

#define SYMBOL_NAME 64 /* longer names are passed over: no console line has room for them */

/* What lies farther behind a symbol than this is not taken for a part of it. */
#define SYMBOL_REACH (UINT64_C(1) << 20)

struct symbol {
    uint64_t address;
    const char *name; /* `length` bytes, not terminated */
    unsigned length;
    bool global, code;
    bool inner; /* a label within what the symbol before it names: only its name finds it */
};

struct symbols {
    bool is_map;
    const uint8_t *bytes; /* the text, or the symbols of an ELF file */
    uint64_t size;
    uint64_t entry_size; /* from here on: ELF */
    const uint8_t *names;
    uint64_t names_size;
    struct elf elf;
};

/* False where there are none. The bytes must stay in place as long as `out` is used. */
bool symbols_of_elf(struct symbols *out, const void *image, uint64_t size);
bool symbols_of_map(struct symbols *out, const void *text, uint64_t size);

/* Those of a guest: of a System.map among its modules, else of its image. */
bool symbols_of_guest(struct symbols *out, const struct guest *guest);

/* Is a module with this command line such a map? Its first word begins with System.map, or is
 * `symbols`. It is for the console alone, and not handed to the guest. */
bool symbols_is_map(const char *cmdline);

/* One after the other, in the order of the table; *at is 0 before the first. */
bool symbols_next(const struct symbols *symbols, uint64_t *at, struct symbol *out);

/* The last symbol at or before `address` that reaches so far. A map must be sorted by address, as
 * it is by custom; of one that is not, the answer may be none. */
bool symbols_at(const struct symbols *symbols, uint64_t address, struct symbol *out);

/* The address of a name; of several symbols with this name, that of the first global one. */
bool symbols_find(const struct symbols *symbols, const char *name, uint64_t *out);

/* "main+0x12", or "" where no symbol of the guest is. Returns `buffer`. */
#define SYMBOL_TEXT (SYMBOL_NAME + 20)
const char *symbol_text(char buffer[SYMBOL_TEXT], const struct guest *guest, uint64_t address);

/* Likewise of a return address: the call before it may be the last instruction of its function. */
const char *symbol_text_of_return(char buffer[SYMBOL_TEXT], const struct guest *guest,
                                  uint64_t address);

#endif
