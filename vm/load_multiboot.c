/*
 * Multiboot 1 images (Multiboot Specification 0.6.96): ELF executables, or any format that
 * states its addresses in the header. Entered as section 3.2 says; the information structure of
 * section 3.3 gets memory sizes, memory map, command line, modules and the loader's name.
 *
 * Where things go: the image where it says; modules page-aligned in the lowest free RAM from 1 MiB;
 * the information in one page of free low memory.
 */
#include "lib/bits.h"
#include "lib/error.h"
#include "lib/format.h"
#include "lib/string.h"
#include "vm/elf.h"
#include "vm/load.h"
#include "x86/control.h"

#define MB_SEARCH 8192
#define MB_SEARCH_LATE 0x100000 /* where one is looked for to say what is wrong with its place */
#define MB_ALIGN 4
#define MB_MAGIC 0x1BADB002u
#define MB_LOADED 0x2BADB002u

#define MB_PAGE_ALIGN BIT(0)
#define MB_MEMORY_INFO BIT(1)
#define MB_VIDEO_MODE BIT(2)
#define MB_REQUIRED BITS(15, 0)
#define MB_ADDRESSES BIT(16)

#define MB_HEADER_SIZE 12
#define MB_HEADER_SIZE_ADDRESSES 32

#define INFO_MEMORY BIT(0)
#define INFO_CMDLINE BIT(2)
#define INFO_MODULES BIT(3)
#define INFO_MAP BIT(6)
#define INFO_LOADER BIT(9)

#define INFO_AREA 4096 /* of guest memory: the structure and all that it points to */
#define LOADER_NAME "Quire"

#define MAP_RAM 1
#define MAP_RESERVED 2

#define LOW_MEMORY_FIRST 0x1000
#define LOW_MEMORY_LAST 0x9ffff
#define HIGH_MEMORY 0x100000
#define LAST_32BIT UINT64_C(0xffffffff)

#define CODE_SELECTOR 0x08
#define DATA_SELECTOR 0x10

struct multiboot_header {
    uint32_t magic, flags, checksum;
    uint32_t header_addr, load_addr, load_end_addr, bss_end_addr, entry_addr;
};
_Static_assert(sizeof(struct multiboot_header) == MB_HEADER_SIZE_ADDRESSES, "as specified");

struct multiboot_info {
    uint32_t flags;
    uint32_t mem_lower, mem_upper; /* KiB */
    uint32_t boot_device;
    uint32_t cmdline;
    uint32_t mods_count, mods_addr;
    uint32_t syms[4];
    uint32_t mmap_length, mmap_addr;
    uint32_t drives_length, drives_addr;
    uint32_t config_table;
    uint32_t boot_loader_name;
    uint32_t apm_table;
    uint32_t vbe_and_framebuffer[12];
};
_Static_assert(sizeof(struct multiboot_info) == 120, "as specified");

struct multiboot_map_entry {
    uint32_t size; /* of the rest */
    uint64_t base, length;
    uint32_t type;
} __attribute__((packed));

struct multiboot_module {
    uint32_t start, end; /* end is exclusive */
    uint32_t string;
    uint32_t reserved;
};

/* Offset of the header below `limit` whose checksum is right, or else of the first that has the
 * magic number. */
static bool find_header(const uint8_t *bytes, uint64_t size, uint64_t limit, uint64_t *offset,
                        bool *sums_up)
{
    uint64_t end = size < limit ? size : limit;
    bool found = false;

    *sums_up = false;
    for (uint64_t at = 0; at + MB_HEADER_SIZE <= end; at += MB_ALIGN) {
        struct multiboot_header header;

        memcpy(&header, bytes + at, MB_HEADER_SIZE);
        if (header.magic != MB_MAGIC)
            continue;
        *sums_up = header.magic + header.flags + header.checksum == 0;
        if (!found || *sums_up)
            *offset = at;
        found = true;
        if (*sums_up)
            break;
    }
    return found;
}

bool multiboot_recognise(const uint8_t *bytes, uint64_t size)
{
    uint64_t offset;
    bool sums_up;

    return find_header(bytes, size, MB_SEARCH, &offset, &sums_up);
}

bool multiboot_late(const uint8_t *bytes, uint64_t size, uint64_t *offset)
{
    bool sums_up;

    return find_header(bytes, size, MB_SEARCH_LATE, offset, &sums_up) && sums_up;
}

static int read_header(struct loader *loader, uint64_t *offset, struct multiboot_header *out)
{
    uint64_t end = loader->size < MB_SEARCH ? loader->size : MB_SEARCH;
    uint64_t unknown;
    bool sums_up;

    memset(out, 0, sizeof(*out));
    if (!find_header(loader->bytes, loader->size, MB_SEARCH, offset, &sums_up))
        return load_refuse(loader, E_FORMAT, "no Multiboot header in the first 8 KiB");
    if (!sums_up)
        return load_refuse(loader, E_FORMAT,
                           "the Multiboot header at 0x%lx has a wrong checksum: magic, flags and "
                           "checksum must add up to 0",
                           *offset);
    memcpy(out, loader->bytes + *offset, MB_HEADER_SIZE);
    if (out->flags & MB_VIDEO_MODE)
        return load_refuse(loader, E_UNSUPPORTED,
                           "the Multiboot header demands a video mode, and a guest has no screen: "
                           "clear bit 2 of its flags");
    unknown = out->flags & MB_REQUIRED & ~(MB_PAGE_ALIGN | MB_MEMORY_INFO);
    if (unknown != 0)
        return load_refuse(loader, E_UNSUPPORTED,
                           "the Multiboot header demands features 0x%lx that nobody has defined: "
                           "clear those bits of its flags",
                           unknown);
    if (!(out->flags & MB_ADDRESSES))
        return E_OK;
    if (*offset + MB_HEADER_SIZE_ADDRESSES > end)
        return load_refuse(loader, E_TRUNC,
                           "the Multiboot header's address fields are cut off: all 32 bytes must "
                           "lie in the first 8 KiB");
    memcpy(out, loader->bytes + *offset, sizeof(*out));
    return E_OK;
}

/* Section 3.1.3, "The address fields of Multiboot header". */
static int load_by_addresses(struct loader *loader, uint64_t offset,
                             const struct multiboot_header *header)
{
    uint64_t before =
        (uint64_t)header->header_addr - header->load_addr; /* header within the text */
    uint64_t start, file_size, memory_size;

    loader->kind = "Multiboot by addresses";
    if (header->header_addr < header->load_addr || before > offset)
        return load_refuse(loader, E_FORMAT,
                           "the Multiboot load address puts the image's text before its file: "
                           "header_addr is where the header itself is loaded");
    start = offset - before;
    file_size = loader->size - start;
    if (header->load_end_addr != 0) {
        if (header->load_end_addr < header->load_addr)
            return load_refuse(loader, E_FORMAT,
                               "the Multiboot load end lies before its start; 0 there loads all of "
                               "the file");
        if (header->load_end_addr - header->load_addr > file_size)
            return load_refuse(loader, E_TRUNC,
                               "the image ends before the Multiboot header's load end: is the file "
                               "whole? load_end_addr 0 loads all of it");
        file_size = header->load_end_addr - header->load_addr;
    }
    memory_size = file_size;
    if (header->bss_end_addr != 0) {
        if (header->bss_end_addr < header->load_addr ||
            header->bss_end_addr - header->load_addr < file_size)
            return load_refuse(
                loader, E_FORMAT,
                "the Multiboot bss ends before the loaded bytes; 0 there means no bss");
        memory_size = header->bss_end_addr - header->load_addr;
    }
    loader->state.rip = header->entry_addr;
    return load_place(loader, header->load_addr, loader->bytes + start, file_size, memory_size,
                      "the image");
}

static int load_elf_segment(struct loader *loader, const struct elf *elf, unsigned index,
                            uint64_t *entry, bool *entry_found)
{
    struct elf_segment segment;
    const char *why;
    char what[32];
    int error = elf_segment(elf, index, &segment, &why);

    if (error != E_OK)
        return load_refuse(loader, error, "%s (program header %u)", why, index);
    if (!segment.load || segment.memory_size == 0)
        return E_OK;
    if (elf->entry >= segment.virtual && elf->entry - segment.virtual < segment.memory_size) {
        *entry = segment.physical + (elf->entry - segment.virtual);
        *entry_found = true;
    }
    format_buffer(what, sizeof(what), "ELF segment %u", index);
    return load_place(loader, segment.physical, segment.bytes, segment.file_size,
                      segment.memory_size, what);
}

/* Segments go to their physical addresses; an entry point that is virtual is followed there. */
static int load_elf(struct loader *loader)
{
    struct elf elf;
    const char *why;
    uint64_t entry = 0;
    bool entry_found = false;
    int error = elf_parse(loader->bytes, loader->size, &elf, &why);

    if (error != E_OK)
        return load_refuse(loader, error, "%s", why);
    loader->kind = elf.is64 ? "Multiboot ELF64" : "Multiboot ELF32";
    for (unsigned i = 0; i < elf.segments; i++) {
        error = load_elf_segment(loader, &elf, i, &entry, &entry_found);
        if (error != E_OK)
            return error;
    }
    if (!entry_found)
        return load_refuse(loader, E_FORMAT,
                           "the ELF entry point 0x%lx lies in no segment: ENTRY() of the linker "
                           "script names it",
                           elf.entry);
    loader->state.rip = entry;
    return E_OK;
}

/* The page of guest memory that the information fills, from its start. */
struct info_area {
    struct loader *loader;
    uint64_t base, used;
};

static int info_put(struct info_area *area, const void *bytes, uint64_t size, uint32_t *address)
{
    if (size > INFO_AREA - area->used)
        return load_refuse(area->loader, E_FULL,
                           "command lines and memory map do not fit into the 4 KiB for them: "
                           "shorten the former");
    *address = (uint32_t)(area->base + area->used);
    area->used = align_up(area->used + size, sizeof(uint64_t));
    return area->loader->place(area->loader->ctx, *address, bytes, size);
}

static int put_string(struct info_area *area, const char *text, uint32_t *address)
{
    return info_put(area, text, strlen(text) + 1, address);
}

/* KiB of RAM without a gap from `from` on, as far as `limit`. */
static uint32_t contiguous_kib(const struct loader *loader, uint64_t from, uint64_t limit)
{
    uint64_t at = from;

    for (unsigned i = 0; i < loader->regions && at < limit; i++) {
        const struct load_region *region = &loader->region[i];
        if (region->ram && region->base <= at && region->base + region->size > at)
            at = region->base + region->size;
    }
    if (at > limit)
        at = limit;
    return (uint32_t)((at - from) / KiB);
}

static int put_map(struct info_area *area, struct multiboot_info *info)
{
    const struct loader *loader = area->loader;
    uint32_t address;

    for (unsigned i = 0; i < loader->regions; i++) {
        const struct load_region *region = &loader->region[i];
        struct multiboot_map_entry entry = {
            .size = sizeof(entry) - sizeof(entry.size),
            .base = region->base,
            .length = region->size,
            .type = region->ram ? MAP_RAM : MAP_RESERVED,
        };
        int error = info_put(area, &entry, sizeof(entry), &address);

        if (error != E_OK)
            return error;
        if (i == 0)
            info->mmap_addr = address;
    }
    info->mmap_length = loader->regions * sizeof(struct multiboot_map_entry);
    info->flags |= INFO_MAP;
    return E_OK;
}
/* Entries are read as an array without gaps; info_put() rounds to 8 bytes. */
_Static_assert(sizeof(struct multiboot_map_entry) % 8 == 0, "map entries would not be contiguous");

static int place_module(struct loader *loader, const struct load_module *module, uint32_t *start)
{
    uint64_t at;
    char what[32];

    if (load_find(loader, module->size != 0 ? module->size : 1, PAGE_SIZE, HIGH_MEMORY, LAST_32BIT,
                  &at) != E_OK)
        return load_refuse(loader, E_NOMEM,
                           "no room for a module of 0x%lx bytes: give more by mem=", module->size);
    *start = (uint32_t)at;
    format_buffer(what, sizeof(what), "module %u", (unsigned)(module - loader->module) + 1);
    return load_place(loader, at, module->bytes, module->size, module->size, what);
}

static int put_modules(struct info_area *area, struct multiboot_info *info)
{
    struct loader *loader = area->loader;
    struct multiboot_module list[LOAD_MODULES];
    int error = E_OK;

    memset(list, 0, sizeof(list));
    for (unsigned i = 0; i < loader->modules && error == E_OK; i++) {
        error = place_module(loader, &loader->module[i], &list[i].start);
        list[i].end = (uint32_t)(list[i].start + loader->module[i].size);
        if (error == E_OK)
            error = put_string(area, loader->module[i].cmdline, &list[i].string);
    }
    if (error == E_OK && loader->modules != 0)
        error = info_put(area, list, loader->modules * sizeof(list[0]), &info->mods_addr);
    info->mods_count = loader->modules;
    info->flags |= INFO_MODULES;
    return error;
}

static int write_info(struct loader *loader)
{
    struct info_area area = {loader, 0, 0};
    struct multiboot_info info = {.flags = INFO_MEMORY | INFO_CMDLINE | INFO_LOADER};
    uint32_t address;
    int error;

    if (load_find(loader, INFO_AREA, PAGE_SIZE, LOW_MEMORY_FIRST, LOW_MEMORY_LAST, &area.base) !=
            E_OK &&
        load_find(loader, INFO_AREA, PAGE_SIZE, 0, LAST_32BIT, &area.base) != E_OK)
        return load_refuse(loader, E_NOMEM,
                           "no free page for the Multiboot information: give more by mem=");
    error = load_place(loader, area.base, NULL, 0, INFO_AREA, "the Multiboot information");
    if (error != E_OK)
        return error;
    area.used = align_up(sizeof(info), sizeof(uint64_t));
    info.mem_lower = contiguous_kib(loader, 0, LOW_MEMORY_LAST + 1);
    info.mem_upper = contiguous_kib(loader, HIGH_MEMORY, LAST_32BIT + 1);
    error = put_string(&area, loader->cmdline, &info.cmdline);
    if (error == E_OK)
        error = put_string(&area, LOADER_NAME, &info.boot_loader_name);
    if (error == E_OK)
        error = put_map(&area, &info);
    if (error == E_OK)
        error = put_modules(&area, &info);
    area.used = 0;
    if (error == E_OK)
        error = info_put(&area, &info, sizeof(info), &address);
    loader->state.gpr[RBX] = area.base;
    return error;
}

int load_multiboot(struct loader *loader)
{
    struct multiboot_header header;
    uint64_t offset;
    int error = read_header(loader, &offset, &header);

    if (error != E_OK)
        return error;
    memset(&loader->state, 0, sizeof(loader->state));
    if (header.flags & MB_ADDRESSES)
        error = load_by_addresses(loader, offset, &header);
    else
        error = load_elf(loader);
    if (error != E_OK)
        return error;
    if (loader->state.rip > LAST_32BIT)
        return load_refuse(loader, E_RANGE,
                           "the entry point 0x%lx cannot be reached in 32-bit mode: link it below "
                           "4G",
                           loader->state.rip);
    /* Section 3.2, "Machine state". What it leaves undefined is as plain as the CPU allows. */
    load_enter_flat32(&loader->state, CODE_SELECTOR, DATA_SELECTOR);
    loader->state.gpr[RAX] = MB_LOADED;
    return write_info(loader);
}
