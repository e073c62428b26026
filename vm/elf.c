/* See vm/elf.h. Field offsets are those of the System V ABI, chapters 4 and 5. */
#include "vm/elf.h"

#include "lib/bits.h"
#include "lib/string.h"
#include "mm/paging/attrs.h"

enum {
    EI_CLASS = 4,
    EI_DATA = 5,
    EI_VERSION = 6,
    EI_NIDENT = 16,
    ELFCLASS32 = 1,
    ELFCLASS64 = 2,
    ELFDATA2LSB = 1,
    EV_CURRENT = 1,
    ET_EXEC = 2,
    ET_DYN = 3,
    EM_386 = 3,
    EM_X86_64 = 62,
    PT_LOAD = 1,
    PT_NOTE = 4,
    SHT_NULL = 0,
    SHT_SYMTAB = 2,
    SHT_STRTAB = 3,
    SHT_NOBITS = 8,
    NOTE_HEADER = 12, /* sizes of name and descriptor, type */
    PF_X = 1,
    PF_W = 2,
    PF_R = 4,
};

/* Where the two classes keep the same field, and how wide an address is. */
struct layout {
    uint8_t header_size, entry, phoff, phentsize, phnum;
    uint8_t ph_size, ph_flags, ph_offset, ph_vaddr, ph_paddr, ph_filesz, ph_memsz;
    uint8_t ph_align;
    uint8_t shoff, shentsize, shnum, shstrndx;
    uint8_t sh_size, sh_address, sh_offset, sh_length, sh_link, sh_entsize;
    uint8_t word; /* bytes of an address or offset */
};

static const struct layout layout32 = {
    .header_size = 52,
    .entry = 24,
    .phoff = 28,
    .phentsize = 42,
    .phnum = 44,
    .ph_size = 32,
    .ph_flags = 24,
    .ph_offset = 4,
    .ph_vaddr = 8,
    .ph_paddr = 12,
    .ph_filesz = 16,
    .ph_memsz = 20,
    .ph_align = 28,
    .shoff = 32,
    .shentsize = 46,
    .shnum = 48,
    .shstrndx = 50,
    .sh_size = 40,
    .sh_address = 12,
    .sh_offset = 16,
    .sh_length = 20,
    .sh_link = 24,
    .sh_entsize = 36,
    .word = 4,
};
static const struct layout layout64 = {
    .header_size = 64,
    .entry = 24,
    .phoff = 32,
    .phentsize = 54,
    .phnum = 56,
    .ph_size = 56,
    .ph_flags = 4,
    .ph_offset = 8,
    .ph_vaddr = 16,
    .ph_paddr = 24,
    .ph_filesz = 32,
    .ph_memsz = 40,
    .ph_align = 48,
    .shoff = 40,
    .shentsize = 58,
    .shnum = 60,
    .shstrndx = 62,
    .sh_size = 64,
    .sh_address = 16,
    .sh_offset = 24,
    .sh_length = 32,
    .sh_link = 40,
    .sh_entsize = 56,
    .word = 8,
};

static uint64_t read_field(const uint8_t *at, unsigned bytes)
{
    uint64_t value = 0;

    for (unsigned i = bytes; i-- > 0;)
        value = value << 8 | at[i];
    return value;
}

static int refuse(int error, const char **why, const char *text)
{
    if (why != NULL)
        *why = text;
    return error;
}

bool elf_recognise(const void *bytes, uint64_t size)
{
    return size >= 4 && memcmp(bytes, "\177ELF", 4) == 0;
}

static const struct layout *layout_of(bool is64)
{
    return is64 ? &layout64 : &layout32;
}

static int check_identity(const uint8_t *bytes, uint64_t size, struct elf *out, const char **why)
{
    const struct layout *layout;
    unsigned machine, type;

    if (!elf_recognise(bytes, size))
        return refuse(
            E_FORMAT, why,
            "not an ELF image; a Multiboot header of another format has the address fields");
    if (size < EI_NIDENT)
        return refuse(E_TRUNC, why, "the ELF identification is cut off: is the file whole?");
    if (bytes[EI_CLASS] != ELFCLASS32 && bytes[EI_CLASS] != ELFCLASS64)
        return refuse(E_FORMAT, why, "the ELF class is neither 32-bit nor 64-bit");
    if (bytes[EI_DATA] != ELFDATA2LSB)
        return refuse(E_UNSUPPORTED, why, "the ELF image is not little-endian: compile it for x86");
    if (bytes[EI_VERSION] != EV_CURRENT)
        return refuse(E_FORMAT, why, "the ELF version is not 1");
    out->is64 = bytes[EI_CLASS] == ELFCLASS64;
    layout = layout_of(out->is64);
    if (size < layout->header_size)
        return refuse(E_TRUNC, why, "the ELF header is cut off: is the file whole?");
    type = (unsigned)read_field(bytes + 16, 2);
    out->movable = type == ET_DYN;
    if (type != ET_EXEC && type != ET_DYN)
        return refuse(E_UNSUPPORTED, why, "the ELF image is no executable: link it (ld -n -T ...)");
    machine = (unsigned)read_field(bytes + 18, 2);
    if (machine != EM_386 && machine != EM_X86_64)
        return refuse(E_UNSUPPORTED, why,
                      "the ELF image is for another processor than x86: compile with -m32 or -m64");
    return E_OK;
}

/* Debugging and symbols: a table that is not whole is none. */
static void find_sections(struct elf *elf, const struct layout *layout)
{
    const uint8_t *bytes = elf->bytes;
    uint64_t at = read_field(bytes + layout->shoff, layout->word);
    unsigned size = (unsigned)read_field(bytes + layout->shentsize, 2);
    unsigned count = (unsigned)read_field(bytes + layout->shnum, 2);

    if (at == 0 || size < layout->sh_size || at > elf->size ||
        (uint64_t)size * count > elf->size - at)
        return;
    elf->section_headers = at;
    elf->section_size = size;
    elf->section_count = count;
    elf->section_names = (unsigned)read_field(bytes + layout->shstrndx, 2);
}

int elf_parse_any(const void *image, uint64_t size, struct elf *out, const char **why)
{
    const uint8_t *bytes = image;
    const struct layout *layout;
    uint64_t table_size;
    int error;

    memset(out, 0, sizeof(*out));
    error = check_identity(bytes, size, out, why);
    if (error != E_OK)
        return error;
    layout = layout_of(out->is64);
    out->bytes = bytes;
    out->size = size;
    out->entry = read_field(bytes + layout->entry, layout->word);
    out->headers = read_field(bytes + layout->phoff, layout->word);
    out->header_size = (unsigned)read_field(bytes + layout->phentsize, 2);
    out->segments = (unsigned)read_field(bytes + layout->phnum, 2);
    if (out->segments == 0)
        return refuse(E_FORMAT, why,
                      "the ELF image has no program headers, nothing to load: link it, and do not "
                      "strip them");
    if (out->segments > ELF_MAX_SEGMENTS)
        return refuse(
            E_UNSUPPORTED, why,
            "the ELF image has more than 64 program headers: join some in the linker script");
    if (out->header_size < layout->ph_size)
        return refuse(E_FORMAT, why, "the ELF program headers are smaller than their format");
    table_size = (uint64_t)out->header_size * out->segments;
    if (out->headers > size || table_size > size - out->headers)
        return refuse(
            E_TRUNC, why,
            "the ELF program headers lie beyond the end of the image: is the file whole?");
    find_sections(out, layout);
    return E_OK;
}

int elf_parse(const void *image, uint64_t size, struct elf *out, const char **why)
{
    int error = elf_parse_any(image, size, out, why);

    if (error == E_OK && out->movable)
        return refuse(E_UNSUPPORTED, why, ELF_MOVABLE_TEXT);
    return error;
}

static unsigned rights_of(uint64_t flags)
{
    return (flags & PF_R ? RIGHT_R : 0u) | (flags & PF_W ? RIGHT_W : 0u) |
           (flags & PF_X ? RIGHT_X : 0u);
}

int elf_segment(const struct elf *elf, unsigned index, struct elf_segment *out, const char **why)
{
    const struct layout *layout = layout_of(elf->is64);
    uint64_t address_max = elf->is64 ? UINT64_MAX : UINT32_MAX;
    const uint8_t *header;
    uint64_t offset;

    memset(out, 0, sizeof(*out));
    if (index >= elf->segments)
        return refuse(E_INVAL, why, "no such program header");
    header = elf->bytes + elf->headers + (uint64_t)index * elf->header_size;
    if (read_field(header, 4) != PT_LOAD)
        return E_OK;
    out->load = true;
    out->rights = rights_of(read_field(header + layout->ph_flags, 4));
    offset = read_field(header + layout->ph_offset, layout->word);
    out->virtual = read_field(header + layout->ph_vaddr, layout->word);
    out->physical = read_field(header + layout->ph_paddr, layout->word);
    out->file_size = read_field(header + layout->ph_filesz, layout->word);
    out->memory_size = read_field(header + layout->ph_memsz, layout->word);
    if (out->file_size > out->memory_size)
        return refuse(E_FORMAT, why, "an ELF segment has more bytes in the file than in memory");
    if (out->file_size != 0 && (offset > elf->size || out->file_size > elf->size - offset))
        return refuse(E_TRUNC, why,
                      "an ELF segment's bytes lie beyond the end of the image: is the file whole?");
    if (out->memory_size != 0 && (out->memory_size - 1 > address_max - out->physical ||
                                  out->memory_size - 1 > address_max - out->virtual))
        return refuse(E_RANGE, why,
                      "an ELF segment's addresses wrap around: look at AT() in the linker script");
    out->bytes = out->file_size != 0 ? elf->bytes + offset : elf->bytes;
    return E_OK;
}

bool elf_notes(const struct elf *elf, unsigned index, struct elf_notes *out)
{
    const struct layout *layout = layout_of(elf->is64);
    const uint8_t *header = elf->bytes + elf->headers + (uint64_t)index * elf->header_size;
    uint64_t offset = read_field(header + layout->ph_offset, layout->word);
    uint64_t size = read_field(header + layout->ph_filesz, layout->word);

    if (read_field(header, 4) != PT_NOTE || offset > elf->size || size > elf->size - offset)
        return false;
    out->bytes = elf->bytes + offset;
    out->size = size;
    out->align = read_field(header + layout->ph_align, layout->word) == 8 ? 8 : 4;
    return true;
}

bool elf_next_note(struct elf_notes *notes, struct elf_note *out)
{
    uint64_t descriptor, end;

    if (notes->size < NOTE_HEADER)
        return false;
    out->name_size = read_field(notes->bytes, 4);
    out->size = read_field(notes->bytes + 4, 4);
    out->type = (uint32_t)read_field(notes->bytes + 8, 4);
    descriptor = align_up(NOTE_HEADER + out->name_size, notes->align);
    end = descriptor + out->size;
    if (end > notes->size) /* all of them are sums of 32-bit numbers */
        return false;
    out->name = (const char *)notes->bytes + NOTE_HEADER;
    out->bytes = notes->bytes + descriptor;
    end = align_up(end, notes->align);
    if (end > notes->size)
        end = notes->size;
    notes->bytes += end;
    notes->size -= end;
    return true;
}

void elf_section(const struct elf *elf, unsigned index, struct elf_section *out)
{
    const struct layout *layout = layout_of(elf->is64);
    const uint8_t *header = elf->bytes + elf->section_headers + (uint64_t)index * elf->section_size;
    uint32_t type = (uint32_t)read_field(header + 4, 4);
    uint64_t offset = read_field(header + layout->sh_offset, layout->word);

    *out = (struct elf_section){
        .address = read_field(header + layout->sh_address, layout->word),
        .size = read_field(header + layout->sh_length, layout->word),
        .symbols = type == SHT_SYMTAB || type == SHT_STRTAB,
        .table = type == SHT_SYMTAB,
        .link = (uint32_t)read_field(header + layout->sh_link, 4),
        .entry_size = read_field(header + layout->sh_entsize, layout->word),
        .address_at = layout->sh_address,
        .address_size = layout->word,
    };
    if (type != SHT_NULL && type != SHT_NOBITS && offset <= elf->size &&
        out->size <= elf->size - offset)
        out->bytes = elf->bytes + offset;
}
