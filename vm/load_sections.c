/*
 * Section headers for kernels that look their own symbols up (Multiboot 0.6.96, 3.3, `syms`;
 * Multiboot 2, 3.6.7): headers, and those sections that no segment loads, each header with the
 * address where its section is.
 */
#include "lib/bits.h"
#include "lib/error.h"
#include "vm/load_parts.h"

#define SECTIONS_MOST 512 /* headers; linkers write some dozens */
#define SECTION_ALIGN 16

struct load_sections load_sections_of(const struct elf *elf)
{
    struct load_sections out = {.elf = elf};

    if (elf->section_count == 0 || elf->section_count > SECTIONS_MOST)
        return out;
    out.count = elf->section_count;
    out.size = elf->section_size;
    out.names = elf->section_names;
    return out;
}

/* Is it to be put into memory? */
static bool is_wanted(const struct elf_section *section, bool all)
{
    return section->address == 0 && section->size != 0 && section->bytes != NULL &&
           (all || section->symbols);
}

static uint64_t size_of(const struct load_sections *sections, bool all)
{
    struct elf_section section;
    uint64_t size = 0;

    for (unsigned i = 0; i < sections->count; i++) {
        elf_section(sections->elf, i, &section);
        if (is_wanted(&section, all))
            size += align_up(section.size, SECTION_ALIGN);
    }
    return size;
}

static int put_sections(struct loader *loader, const struct load_sections *sections, uint64_t table,
                        uint64_t at, bool all)
{
    struct elf_section section;
    int error = E_OK;

    for (unsigned i = 0; i < sections->count && error == E_OK; i++) {
        elf_section(sections->elf, i, &section);
        if (!is_wanted(&section, all))
            continue;
        error = loader->place(loader->ctx, at, section.bytes, section.size);
        if (error == E_OK)
            error = loader->place(loader->ctx,
                                  table + (uint64_t)i * sections->size + section.address_at, &at,
                                  section.address_size);
        at += align_up(section.size, SECTION_ALIGN);
    }
    return error;
}

int load_sections_put(struct loader *loader, const struct load_sections *sections, uint64_t at)
{
    const uint8_t *headers = sections->elf->bytes + sections->elf->section_headers;
    int error = loader->place(loader->ctx, at, headers, (uint64_t)sections->count * sections->size);

    /* All, or at least symbols and strings, or the headers alone. */
    for (unsigned all = 2; all-- > 0 && error == E_OK;) {
        uint64_t size = size_of(sections, all), block;

        if (size == 0 || load_find_beyond(loader, size, &block) != E_OK)
            continue;
        error = load_place(loader, block, NULL, 0, size, "the ELF sections");
        if (error == E_OK)
            error = put_sections(loader, sections, at, block, all);
        break;
    }
    return error;
}
