/* See vm/elf.h. Field offsets are those of the System V ABI, chapters 4 and 5. */
#include "vm/elf.h"

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
    PF_X = 1,
    PF_W = 2,
    PF_R = 4,
};

/* Where the two classes keep the same field, and how wide an address is. */
struct layout {
    uint8_t header_size, entry, phoff, phentsize, phnum;
    uint8_t ph_size, ph_flags, ph_offset, ph_vaddr, ph_paddr, ph_filesz, ph_memsz;
    uint8_t word; /* bytes of an address or offset */
};

static const struct layout layout32 = {52, 24, 28, 42, 44, 32, 24, 4, 8, 12, 16, 20, 4};
static const struct layout layout64 = {64, 24, 32, 54, 56, 56, 4, 8, 16, 24, 32, 40, 8};

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

static int check_identity(const uint8_t *bytes, uint64_t size, bool *is64, const char **why)
{
    const struct layout *layout;
    unsigned machine, type;

    if (!elf_recognise(bytes, size))
        return refuse(E_FORMAT, why,
                      "not an ELF image; another format needs the address fields (flag bit 16)");
    if (size < EI_NIDENT)
        return refuse(E_TRUNC, why, "the ELF identification is cut off: is the file whole?");
    if (bytes[EI_CLASS] != ELFCLASS32 && bytes[EI_CLASS] != ELFCLASS64)
        return refuse(E_FORMAT, why, "the ELF class is neither 32-bit nor 64-bit");
    if (bytes[EI_DATA] != ELFDATA2LSB)
        return refuse(E_UNSUPPORTED, why, "the ELF image is not little-endian: compile it for x86");
    if (bytes[EI_VERSION] != EV_CURRENT)
        return refuse(E_FORMAT, why, "the ELF version is not 1");
    *is64 = bytes[EI_CLASS] == ELFCLASS64;
    layout = layout_of(*is64);
    if (size < layout->header_size)
        return refuse(E_TRUNC, why, "the ELF header is cut off: is the file whole?");
    type = (unsigned)read_field(bytes + 16, 2);
    if (type == ET_DYN)
        return refuse(E_UNSUPPORTED, why,
                      "the ELF image is position-independent; link it with -static -no-pie");
    if (type != ET_EXEC)
        return refuse(E_UNSUPPORTED, why, "the ELF image is no executable: link it (ld -n -T ...)");
    machine = (unsigned)read_field(bytes + 18, 2);
    if (machine != EM_386 && machine != EM_X86_64)
        return refuse(E_UNSUPPORTED, why,
                      "the ELF image is for another processor than x86: compile with -m32 or -m64");
    return E_OK;
}

int elf_parse(const void *image, uint64_t size, struct elf *out, const char **why)
{
    const uint8_t *bytes = image;
    const struct layout *layout;
    uint64_t table_size;
    int error;

    memset(out, 0, sizeof(*out));
    error = check_identity(bytes, size, &out->is64, why);
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
    return E_OK;
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
