/* ELF files as images of guests: their segments go to their physical addresses. */
#include "lib/error.h"
#include "lib/format.h"
#include "lib/string.h"
#include "vm/load_parts.h"

/* As GRUB has it: the entry point is virtual, and followed to its segment's physical place; one
 * that lies in no segment's virtual addresses is taken for a physical one. */
static void follow_entry(struct load_elf *out, const struct elf_segment *segment, bool virtual)
{
    uint64_t base = virtual ? segment->virtual : segment->physical;

    if (out->entry_found || out->elf.entry < base || out->elf.entry - base >= segment->memory_size)
        return;
    out->entry = segment->physical + (out->elf.entry - base);
    out->entry_found = true;
}

static int read_segment(struct loader *loader, const struct load_elf *elf, unsigned index,
                        struct elf_segment *out)
{
    const char *why;
    int error = elf_segment(&elf->elf, index, out, &why);

    if (error != E_OK)
        return load_refuse(loader, error, "%s (program header %u)", why, index);
    if (out->memory_size == 0)
        out->load = false;
    return E_OK;
}

static int read_segments(struct loader *loader, struct load_elf *out, bool virtual)
{
    struct elf_segment segment;

    for (unsigned i = 0; i < out->elf.segments; i++) {
        int error = read_segment(loader, out, i, &segment);

        if (error != E_OK)
            return error;
        if (!segment.load)
            continue;
        if (segment.physical < out->first)
            out->first = segment.physical;
        if (segment.physical + segment.memory_size - 1 > out->last)
            out->last = segment.physical + segment.memory_size - 1;
        follow_entry(out, &segment, virtual);
    }
    return E_OK;
}

int load_elf_read(struct loader *loader, bool movable, struct load_elf *out)
{
    const char *why;
    int error;

    memset(out, 0, sizeof(*out));
    error = elf_parse_any(loader->bytes, loader->size, &out->elf, &why);
    if (error != E_OK)
        return load_refuse(loader, error, "%s", why);
    out->first = UINT64_MAX;
    error = read_segments(loader, out, true);
    if (error == E_OK)
        error = read_segments(loader, out, false);
    if (error != E_OK)
        return error;
    if (out->first > out->last)
        return load_refuse(loader, E_FORMAT,
                           "the ELF image has no segment to load: link it, and do not strip it");
    if (out->elf.movable && !movable && out->first < LOAD_HIGH_FIRST)
        return load_refuse(loader, E_UNSUPPORTED, "%s", ELF_MOVABLE_TEXT);
    return E_OK;
}

int load_elf_place(struct loader *loader, const struct load_elf *elf, uint64_t offset)
{
    struct elf_segment segment;
    char what[32];

    for (unsigned i = 0; i < elf->elf.segments; i++) {
        int error = read_segment(loader, elf, i, &segment);

        format_buffer(what, sizeof(what), "ELF segment %u", i);
        if (error == E_OK && segment.load)
            error = load_place(loader, segment.physical + offset, segment.bytes, segment.file_size,
                               segment.memory_size, what);
        if (error != E_OK)
            return error;
    }
    loader->image_end = elf->last + offset + 1;
    return E_OK;
}

int load_elf_entry(struct loader *loader, const struct load_elf *elf, uint64_t *entry)
{
    if (!elf->entry_found)
        return load_refuse(loader, E_FORMAT,
                           "the ELF entry point 0x%lx lies in no segment: ENTRY() of the linker "
                           "script names it",
                           elf->elf.entry);
    if (elf->entry > LOAD_LAST_32BIT)
        return load_refuse(loader, E_RANGE,
                           "the entry point 0x%lx cannot be reached in 32-bit mode: link it below "
                           "4G",
                           elf->entry);
    *entry = elf->entry;
    return E_OK;
}
