/* See vm/symbols.h. System V ABI, chapter 4, "Symbol Table". */
#include "lib/string.h"
#include "vm/symbols_parts.h"

enum {
    SYMBOL32 = 16, /* bytes of a symbol: name, value, size, info, other, section */
    SYMBOL64 = 24, /* name, info, other, section, value, size */
    SHN_UNDEF = 0,
    SHN_LORESERVE = 0xff00, /* absolute ones, which are no addresses, among them */
    STB_LOCAL = 0,
    STT_NOTYPE = 0,
    STT_OBJECT = 1,
    STT_FUNC = 2,
};

/* A section's bytes, if they are in the image. */
static bool section_bytes(const struct elf *elf, uint32_t index, struct elf_section *out)
{
    if (index >= elf->section_count)
        return false;
    elf_section(elf, index, out);
    return out->bytes != NULL;
}

bool symbols_of_elf(struct symbols *out, const void *image, uint64_t size)
{
    struct elf_section table, names;

    memset(out, 0, sizeof(*out));
    if (!elf_recognise(image, size) || elf_parse_any(image, size, &out->elf, NULL) != E_OK)
        return false;
    for (unsigned i = 0; i < out->elf.section_count; i++) {
        if (!section_bytes(&out->elf, i, &table) || !table.table ||
            !section_bytes(&out->elf, table.link, &names))
            continue;
        out->entry_size = table.entry_size;
        if (out->entry_size < (out->elf.is64 ? SYMBOL64 : SYMBOL32))
            continue;
        out->bytes = table.bytes;
        out->size = table.size;
        out->names = names.bytes;
        out->names_size = names.size;
        return out->size >= out->entry_size;
    }
    return false;
}

static uint64_t field(const uint8_t *at, unsigned bytes)
{
    uint64_t value = 0;

    memcpy(&value, at, bytes);
    return value;
}

/* False for one that names no place: sections, files, constants, what is elsewhere. */
static bool read_symbol(const struct symbols *symbols, const uint8_t *at, struct symbol *out)
{
    bool is64 = symbols->elf.is64;
    uint64_t name = field(at, 4), section = field(at + (is64 ? 6 : 14), 2);
    unsigned info = at[is64 ? 4 : 12], type = info & 0xf;
    uint64_t room, length = 0;

    if (section == SHN_UNDEF || section >= SHN_LORESERVE || name >= symbols->names_size ||
        (type != STT_NOTYPE && type != STT_OBJECT && type != STT_FUNC))
        return false;
    room = symbols->names_size - name;
    if (room > SYMBOL_NAME)
        room = SYMBOL_NAME;
    while (length < room && symbols->names[name + length] != 0)
        length++;
    if (length == room || !symbol_name_fits(symbols->names + name, length))
        return false;
    *out = (struct symbol){
        .address = is64 ? field(at + 8, 8) : field(at + 4, 4),
        .name = (const char *)symbols->names + name,
        .length = (unsigned)length,
        .global = info >> 4 != STB_LOCAL,
        .code = type == STT_FUNC,
        /* NASM's local labels: _start.loop */
        .inner = info == (STB_LOCAL << 4 | STT_NOTYPE) &&
                 memchr(symbols->names + name, '.', length) != NULL,
    };
    return true;
}

bool elf_next(const struct symbols *symbols, uint64_t *at, struct symbol *out)
{
    while (*at < symbols->size && symbols->size - *at >= symbols->entry_size) {
        const uint8_t *entry = symbols->bytes + *at;

        *at += symbols->entry_size;
        if (read_symbol(symbols, entry, out))
            return true;
    }
    return false;
}

/* Which of two at the same address is the better name? */
static unsigned rank(const struct symbol *symbol)
{
    return (symbol->code ? 2u : 0) + (symbol->global ? 1u : 0);
}

static bool in_image(const struct elf *elf, uint64_t address)
{
    struct elf_segment segment;

    for (unsigned i = 0; i < elf->segments; i++)
        if (elf_segment(elf, i, &segment, NULL) == E_OK && segment.load &&
            address >= segment.virtual && address - segment.virtual < segment.memory_size)
            return true;
    return false;
}

bool elf_at(const struct symbols *symbols, uint64_t address, struct symbol *out)
{
    struct symbol symbol;
    bool found = false;

    if (!in_image(&symbols->elf, address))
        return false;
    for (uint64_t at = 0; elf_next(symbols, &at, &symbol);) {
        if (symbol.inner || symbol.address > address || (found && symbol.address < out->address))
            continue;
        if (found && symbol.address == out->address && rank(&symbol) <= rank(out))
            continue;
        *out = symbol;
        found = true;
    }
    return found;
}
