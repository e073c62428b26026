/*
 * Multiboot 1 images (Multiboot Specification 0.6.96): ELF executables, or any format that
 * states its addresses in the header. Entered as section 3.2 says; the information structure of
 * section 3.3 gets what GRUB puts there on a PC without disks: memory sizes and map, command line,
 * modules, section headers of an ELF file, the loader's name, and, with a PC's memory, its text
 * screen.
 *
 * Where things go: the image where it says; modules page-aligned in the lowest free RAM from 1 MiB;
 * the information in free low memory.
 */
#include "lib/bits.h"
#include "lib/error.h"
#include "lib/format.h"
#include "lib/string.h"
#include "vm/load_parts.h"

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
#define INFO_SECTIONS BIT(5)
#define INFO_MAP BIT(6)
#define INFO_LOADER BIT(9)
#define INFO_FRAMEBUFFER BIT(12)

#define INFO_ROOM 2048 /* of memory for all that it has besides strings and section headers */

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
    uint32_t vbe[4];
    uint64_t framebuffer_addr;
    uint32_t framebuffer_pitch, framebuffer_width, framebuffer_height;
    uint8_t framebuffer_bpp, framebuffer_type;
    uint8_t colour_info[6];
} __attribute__((packed));
_Static_assert(sizeof(struct multiboot_info) == 116, "as specified");

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

enum load_verdict multiboot_recognise(const uint8_t *bytes, uint64_t size, char *why,
                                      size_t why_size)
{
    uint64_t offset;
    bool sums_up;

    if (find_header(bytes, size, MB_SEARCH, &offset, &sums_up)) {
        if (sums_up)
            return LOAD_YES;
        format_buffer(why, why_size,
                      "the Multiboot header at 0x%lx has a wrong checksum: magic, flags and "
                      "checksum must add up to 0",
                      offset);
        return LOAD_NEARLY;
    }
    if (find_header(bytes, size, MB_SEARCH_LATE, &offset, &sums_up) && sums_up) {
        format_buffer(why, why_size,
                      "the Multiboot header at 0x%lx lies beyond the first 8 KiB: link with ld -n, "
                      "its section first",
                      offset);
        return LOAD_NEARLY;
    }
    format_buffer(why, why_size, "no 0x1badb002 in its first 8 KiB");
    return LOAD_NO;
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
    if (out->flags & MB_VIDEO_MODE && !loader->pc)
        return load_refuse(loader, E_UNSUPPORTED,
                           "the Multiboot header demands a video mode, and a `bare` guest has no "
                           "screen: leave that option out, or clear bit 2 of its flags");
    unknown = out->flags & MB_REQUIRED & ~(MB_PAGE_ALIGN | MB_MEMORY_INFO | MB_VIDEO_MODE);
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

static int place_by_addresses(struct loader *loader, uint64_t offset,
                              const struct multiboot_header *header)
{
    const struct load_addresses addresses = {
        .offset = offset,
        .header = header->header_addr,
        .load = header->load_addr,
        .load_end = header->load_end_addr,
        .bss_end = header->bss_end_addr,
    };
    struct load_text text;
    int error = load_by_addresses(loader, &addresses, &text);

    loader->kind = "Multiboot by addresses";
    loader->state.rip = header->entry_addr;
    if (error != E_OK)
        return error;
    loader->image_end = text.at + text.memory_size;
    return load_place(loader, text.at, text.bytes, text.file_size, text.memory_size, "the image");
}

static int place_elf(struct loader *loader, struct load_elf *elf)
{
    int error = load_elf_read(loader, false, elf);

    loader->kind = elf->elf.is64 ? "Multiboot ELF64" : "Multiboot ELF32";
    if (error == E_OK)
        error = load_elf_place(loader, elf, 0);
    if (error == E_OK)
        error = load_elf_entry(loader, elf, &loader->state.rip);
    return error;
}

static int put_map(struct load_area *area, struct multiboot_info *info)
{
    struct multiboot_map_entry entries[LOAD_MAP];
    struct load_region map[LOAD_MAP];
    unsigned count = load_map(area->loader, map);
    uint64_t at;
    int error;

    for (unsigned i = 0; i < count; i++)
        entries[i] = (struct multiboot_map_entry){
            .size = sizeof(entries[i]) - sizeof(entries[i].size),
            .base = map[i].base,
            .length = map[i].size,
            .type = load_map_type(&map[i]),
        };
    error = load_area_put(area, entries, count * sizeof(entries[0]), &at);
    info->mmap_addr = (uint32_t)at;
    info->mmap_length = count * sizeof(entries[0]);
    info->flags |= INFO_MAP;
    return error;
}

static int put_modules(struct load_area *area, struct multiboot_info *info)
{
    struct loader *loader = area->loader;
    struct multiboot_module list[LOAD_MODULES];
    uint64_t start[LOAD_MODULES], at;
    int error = load_place_modules(loader, start);

    memset(list, 0, sizeof(list));
    for (unsigned i = 0; i < loader->modules && error == E_OK; i++) {
        error = load_area_string(area, loader->module[i].cmdline, &at);
        list[i].start = (uint32_t)start[i];
        list[i].end = (uint32_t)(start[i] + loader->module[i].size);
        list[i].string = (uint32_t)at;
    }
    if (error == E_OK && loader->modules != 0) {
        error = load_area_put(area, list, loader->modules * sizeof(list[0]), &at);
        info->mods_addr = (uint32_t)at;
    }
    info->mods_count = loader->modules;
    info->flags |= INFO_MODULES;
    return error;
}

static int put_strings(struct load_area *area, struct multiboot_info *info)
{
    uint64_t at;
    int error = load_area_string(area, area->loader->cmdline, &at);

    info->cmdline = (uint32_t)at;
    if (error == E_OK)
        error = load_area_string(area, LOAD_LOADER_NAME, &at);
    info->boot_loader_name = (uint32_t)at;
    info->flags |= INFO_CMDLINE | INFO_LOADER;
    return error;
}

static int put_sections(struct load_area *area, const struct load_sections *sections,
                        struct multiboot_info *info)
{
    uint64_t at;
    int error;

    if (sections->count == 0)
        return E_OK;
    error =
        load_area_put(area, sections->elf->bytes, (uint64_t)sections->count * sections->size, &at);
    if (error == E_OK)
        error = load_sections_put(area->loader, sections, at);
    info->syms[0] = sections->count;
    info->syms[1] = sections->size;
    info->syms[2] = (uint32_t)at;
    info->syms[3] = sections->names;
    info->flags |= INFO_SECTIONS;
    return error;
}

static void describe_screen(struct multiboot_info *info)
{
    info->framebuffer_addr = LOAD_TEXT_SCREEN;
    info->framebuffer_pitch = LOAD_TEXT_COLUMNS * LOAD_TEXT_BITS / 8;
    info->framebuffer_width = LOAD_TEXT_COLUMNS;
    info->framebuffer_height = LOAD_TEXT_ROWS;
    info->framebuffer_bpp = LOAD_TEXT_BITS;
    info->framebuffer_type = LOAD_TEXT_TYPE;
    info->flags |= INFO_FRAMEBUFFER;
}

static int write_info(struct loader *loader, const struct load_sections *sections)
{
    struct multiboot_info info = {.flags = INFO_MEMORY};
    uint64_t headers = (uint64_t)sections->count * sections->size, at;
    struct load_area area;
    int error = load_area_take(&area, loader, INFO_ROOM + headers + load_strings_size(loader),
                               "the Multiboot information");

    if (error != E_OK)
        return error;
    loader->state.gpr[RBX] = area.base;
    area.used = align_up(sizeof(info), sizeof(uint64_t));
    info.mem_lower = load_lower_kib(loader);
    info.mem_upper = load_upper_kib(loader);
    if (loader->pc)
        describe_screen(&info);
    error = put_strings(&area, &info);
    if (error == E_OK)
        error = put_map(&area, &info);
    if (error == E_OK)
        error = put_modules(&area, &info);
    if (error == E_OK)
        error = put_sections(&area, sections, &info);
    area.used = 0;
    if (error == E_OK)
        error = load_area_put(&area, &info, sizeof(info), &at);
    return error;
}

int load_multiboot(struct loader *loader)
{
    struct load_sections sections = {0};
    struct multiboot_header header;
    struct load_elf elf;
    uint64_t offset;
    int error = read_header(loader, &offset, &header);

    if (error != E_OK)
        return error;
    memset(&loader->state, 0, sizeof(loader->state));
    if (header.flags & MB_ADDRESSES) {
        error = place_by_addresses(loader, offset, &header);
    } else {
        error = place_elf(loader, &elf);
        sections = load_sections_of(&elf.elf);
    }
    if (error == E_OK)
        error = load_pc_area(loader, false);
    if (error != E_OK)
        return error;
    /* Section 3.2, "Machine state". What it leaves undefined is as plain as the CPU allows. */
    load_enter_flat32(&loader->state, LOAD_CODE, LOAD_DATA);
    loader->state.gpr[RAX] = MB_LOADED;
    loader->state.gpr[RSP] = LOAD_STACK;
    return write_info(loader, &sections);
}
