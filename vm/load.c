/* See vm/load.h. What every loader needs: refusing, placing, finding room. */
#include "vm/load.h"

#include "lib/bits.h"
#include "lib/error.h"
#include "lib/format.h"
#include "vm/elf.h"
#include "x86/control.h"

#define HIGH_MEMORY 0x100000
#define FAR UINT64_C(0x1000000000) /* 64G: more than anybody links a guest to on purpose */

int load_refuse(struct loader *loader, int error, const char *why, ...)
{
    va_list args;

    va_start(args, why);
    vformat_buffer(loader->why, loader->why_size, why, args);
    va_end(args);
    return error;
}

/* Base 0, limit 4 GiB, present, accessed. */
#define CODE32 0xc09b
#define DATA32 0xc093
#define LDT32 0x82
#define TSS32 0x8b

void load_enter_flat32(struct vcpu_state *state, uint16_t code, uint16_t data)
{
    for (unsigned i = 0; i < SEG_COUNT; i++)
        state->segment[i] =
            (struct segment){.limit = UINT32_MAX, .selector = data, .access = DATA32};
    state->segment[SEG_CS].selector = code;
    state->segment[SEG_CS].access = CODE32;
    state->segment[SEG_LDTR] = (struct segment){.limit = 0xffff, .access = LDT32};
    state->segment[SEG_TR] = (struct segment){.limit = 0xffff, .access = TSS32};
    state->rflags = RFLAGS_FIXED;
    state->cr0 = CR0_PE | CR0_ET;
    state->dr7 = LOAD_DR7_RESET;
}

/* Is every byte of [first, last] in some region? They are sorted and may touch. */
static bool is_memory(const struct loader *loader, uint64_t first, uint64_t last)
{
    for (unsigned i = 0; i < loader->regions; i++) {
        const struct load_region *region = &loader->region[i];
        uint64_t region_last = region->base + region->size - 1;

        if (first < region->base || first > region_last)
            continue;
        if (last <= region_last)
            return true;
        first = region_last + 1;
    }
    return false;
}

static const struct load_range *find_used(const struct loader *loader, uint64_t first,
                                          uint64_t last)
{
    for (unsigned i = 0; i < loader->used_count; i++) {
        const struct load_range *used = &loader->used[i];
        if (first <= used->last && used->first <= last)
            return used;
    }
    return NULL;
}

static int occupy(struct loader *loader, uint64_t first, uint64_t last, const char *what)
{
    const struct load_range *used = find_used(loader, first, last);

    if (used != NULL)
        return load_refuse(loader, E_EXIST,
                           "%s at 0x%lx..0x%lx overlaps 0x%lx..0x%lx: link them apart", what, first,
                           last, used->first, used->last);
    if (loader->used_count == LOAD_RANGES)
        return load_refuse(loader, E_FULL,
                           "%s: the image has more than %d parts: join some of its segments", what,
                           LOAD_RANGES);
    loader->used[loader->used_count++] = (struct load_range){first, last};
    return E_OK;
}

/* What mends it when these addresses are no memory. */
static const char *way_inside(uint64_t at, uint64_t last)
{
    if (last < at || last >= FAR)
        return ": a virtual address? AT() in the linker script says where it is loaded";
    if (at < HIGH_MEMORY)
        return ": link it from 1M up, or add ram=";
    return ": give more by mem=, or link it lower";
}

int load_place(struct loader *loader, uint64_t at, const void *from, uint64_t file_size,
               uint64_t size, const char *what)
{
    uint64_t last = at + size - 1;
    int error;

    if (size == 0)
        return E_OK;
    if (last < at || !is_memory(loader, at, last))
        return load_refuse(loader, E_RANGE, "%s at 0x%lx..0x%lx lies outside the guest's memory%s",
                           what, at, last, way_inside(at, last));
    error = occupy(loader, at, last, what);
    if (error == E_OK && file_size != 0)
        error = loader->place(loader->ctx, at, from, file_size);
    else if (error != E_OK)
        return error;
    if (error == E_OK && size != file_size)
        error = loader->place(loader->ctx, at + file_size, NULL, size - file_size);
    if (error != E_OK)
        return load_refuse(loader, error, "%s at 0x%lx..0x%lx: %s", what, at, last,
                           error_text(error));
    return E_OK;
}

/* The lowest fit within one region, stepping over what is occupied. */
static bool find_in_region(const struct loader *loader, uint64_t first, uint64_t last,
                           uint64_t size, uint64_t align, uint64_t *out)
{
    /* Each step passes one occupied range, so there are at most as many as those. */
    for (unsigned steps = 0; steps <= loader->used_count; steps++) {
        const struct load_range *used;
        uint64_t at = align_up(first, align);

        if (at < first || at > last || size - 1 > last - at)
            return false;
        used = find_used(loader, at, at + size - 1);
        if (used == NULL) {
            *out = at;
            return true;
        }
        if (used->last == UINT64_MAX)
            return false;
        first = used->last + 1;
    }
    return false;
}

int load_find(const struct loader *loader, uint64_t size, uint64_t align, uint64_t first,
              uint64_t last, uint64_t *out)
{
    for (unsigned i = 0; i < loader->regions; i++) {
        const struct load_region *region = &loader->region[i];
        uint64_t from = region->base, to = region->base + region->size - 1;

        if (!region->ram || to < first || from > last)
            continue;
        if (from < first)
            from = first;
        if (to > last)
            to = last;
        if (find_in_region(loader, from, to, size, align, out))
            return E_OK;
    }
    return E_NOMEM;
}

/* It is neither of the formats: says what it nearly is. */
static int refuse_format(struct loader *loader)
{
    uint64_t offset;

    if (multiboot_late(loader->bytes, loader->size, &offset))
        return load_refuse(loader, E_FORMAT,
                           "the Multiboot header at 0x%lx lies beyond the first 8 KiB: link with "
                           "ld -n, its section first",
                           offset);
    if (elf_recognise(loader->bytes, loader->size))
        return load_refuse(loader, E_FORMAT,
                           "not an image that can be started: an ELF file without a Multiboot 1 "
                           "header in its first 8 KiB: add one, in the section linked first");
    return load_refuse(
        loader, E_FORMAT,
        "not an image that can be started: no Multiboot 1 header in its first 8 KiB, "
        "and no boot signature 55 AA at 510 (option `flat` starts it all the same)");
}

int load_image(struct loader *loader, bool flat)
{
    if (loader->size == 0)
        return load_refuse(loader, E_TRUNC, "the image is empty");
    if (flat)
        return load_flat(loader);
    if (linux_recognise(loader->bytes, loader->size))
        return load_linux(loader);
    if (multiboot_recognise(loader->bytes, loader->size))
        return load_multiboot(loader);
    if (flat_recognise(loader->bytes, loader->size))
        return load_flat(loader);
    return refuse_format(loader);
}
