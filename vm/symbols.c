/* See vm/symbols.h: what both kinds of table share, and whose symbols a guest's are. */
#include "vm/symbols.h"

#include "lib/format.h"
#include "lib/string.h"
#include "vm/guest.h"
#include "vm/symbols_parts.h"

#define MAP_NAME "System.map"
#define MAP_WORD "symbols"

bool symbols_is_map(const char *cmdline)
{
    size_t length = strlen(MAP_WORD);

    while (*cmdline == ' ')
        cmdline++;
    if (strncmp(cmdline, MAP_NAME, strlen(MAP_NAME)) == 0)
        return true;
    return strncmp(cmdline, MAP_WORD, length) == 0 &&
           (cmdline[length] == '\0' || cmdline[length] == ' ');
}

bool symbols_of_guest(struct symbols *out, const struct guest *guest)
{
    const struct guest_image *image = &guest->image;

    for (unsigned i = 0; i < guest->options.mods && i < image->module_count; i++)
        if (symbols_is_map(image->modules[i].cmdline) &&
            symbols_of_map(out, image->modules[i].bytes, image->modules[i].size))
            return true;
    return image->bytes != NULL && symbols_of_elf(out, image->bytes, image->size);
}

bool symbols_next(const struct symbols *symbols, uint64_t *at, struct symbol *out)
{
    return symbols->is_map ? map_next(symbols, at, out) : elf_next(symbols, at, out);
}

bool symbols_at(const struct symbols *symbols, uint64_t address, struct symbol *out)
{
    bool found = symbols->is_map ? map_at(symbols, address, out) : elf_at(symbols, address, out);

    return found && address - out->address < SYMBOL_REACH;
}

bool symbols_find(const struct symbols *symbols, const char *name, uint64_t *out)
{
    struct symbol symbol;
    size_t length = strlen(name);
    bool found = false;

    for (uint64_t at = 0; symbols_next(symbols, &at, &symbol);) {
        if (symbol.length != length || memcmp(symbol.name, name, length) != 0)
            continue;
        if (!found || symbol.global)
            *out = symbol.address;
        found = true;
        if (symbol.global)
            break;
    }
    return found;
}

/* `address`, named by what is at `looked_up`, which is not above it. */
static const char *text_of(char buffer[SYMBOL_TEXT], const struct guest *guest, uint64_t address,
                           uint64_t looked_up)
{
    struct symbols symbols;
    struct symbol symbol;

    buffer[0] = '\0';
    if (!symbols_of_guest(&symbols, guest) || !symbols_at(&symbols, looked_up, &symbol))
        return buffer;
    if (address == symbol.address)
        format_buffer(buffer, SYMBOL_TEXT, "%.*s", (int)symbol.length, symbol.name);
    else
        format_buffer(buffer, SYMBOL_TEXT, "%.*s+0x%lx", (int)symbol.length, symbol.name,
                      address - symbol.address);
    return buffer;
}

const char *symbol_text(char buffer[SYMBOL_TEXT], const struct guest *guest, uint64_t address)
{
    return text_of(buffer, guest, address, address);
}

const char *symbol_text_of_return(char buffer[SYMBOL_TEXT], const struct guest *guest,
                                  uint64_t address)
{
    return text_of(buffer, guest, address, address - (address != 0));
}
