/*
 * PVH: an ELF file whose note says where its 32-bit entry point is (Xen's public headers, elfnote.h
 * and arch-x86/hvm/start_info.h; docs/misc/pvh.pandoc of Xen). Linux's vmlinux, FreeBSD's kernel
 * and many small ones have it. EBX leads to the start information.
 */
#include "lib/bits.h"
#include "lib/error.h"
#include "lib/format.h"
#include "lib/string.h"
#include "vm/load_parts.h"

#define NOTE_NAME "Xen"
#define NOTE_PHYS32_ENTRY 18
#define NO_ENTRY UINT64_MAX

#define START_MAGIC 0x336ec578u
#define START_VERSION 1
#define INFO_ROOM 2048 /* of memory for all but the strings */

struct start_info {
    uint32_t magic, version, flags, modules;
    uint64_t module_list, cmdline, rsdp, map;
    uint32_t map_entries, reserved;
};
_Static_assert(sizeof(struct start_info) == 56, "as specified");

struct module_entry {
    uint64_t at, size, cmdline, reserved;
};

struct map_entry {
    uint64_t base, size;
    uint32_t type, reserved;
};

static uint64_t entry_in(struct elf_notes *notes)
{
    struct elf_note note;

    while (elf_next_note(notes, &note)) {
        uint64_t entry = 0;

        if (note.type != NOTE_PHYS32_ENTRY || note.name_size != sizeof(NOTE_NAME) ||
            memcmp(note.name, NOTE_NAME, sizeof(NOTE_NAME)) != 0 ||
            (note.size != 4 && note.size != 8))
            continue;
        memcpy(&entry, note.bytes, note.size);
        return entry;
    }
    return NO_ENTRY;
}

static uint64_t find_entry(const struct elf *elf)
{
    struct elf_notes notes;

    for (unsigned i = 0; i < elf->segments; i++) {
        uint64_t entry = elf_notes(elf, i, &notes) ? entry_in(&notes) : NO_ENTRY;
        if (entry != NO_ENTRY)
            return entry;
    }
    return NO_ENTRY;
}

enum load_verdict pvh_recognise(const uint8_t *bytes, uint64_t size, char *why, size_t why_size)
{
    struct elf elf;
    const char *fault;

    if (!elf_recognise(bytes, size))
        format_buffer(why, why_size, "no ELF file");
    else if (elf_parse_any(bytes, size, &elf, &fault) != E_OK)
        format_buffer(why, why_size, "%s", fault);
    else if (find_entry(&elf) != NO_ENTRY)
        return LOAD_YES;
    else
        format_buffer(why, why_size, "no ELF note 18 of \"Xen\", the 32-bit entry point");
    return LOAD_NO;
}

static int put_modules(struct load_area *area, struct start_info *info)
{
    struct loader *loader = area->loader;
    struct module_entry list[LOAD_MODULES] = {0};
    uint64_t start[LOAD_MODULES];
    int error = load_place_modules(loader, start);

    for (unsigned i = 0; i < loader->modules && error == E_OK; i++) {
        list[i].at = start[i];
        list[i].size = loader->module[i].size;
        error = load_area_string(area, loader->module[i].cmdline, &list[i].cmdline);
    }
    info->modules = loader->modules;
    if (error != E_OK || loader->modules == 0)
        return error;
    return load_area_put(area, list, loader->modules * sizeof(list[0]), &info->module_list);
}

static int put_map(struct load_area *area, struct start_info *info)
{
    struct map_entry entries[LOAD_MAP];
    struct load_region map[LOAD_MAP];
    unsigned count = load_map(area->loader, map);

    for (unsigned i = 0; i < count; i++)
        entries[i] = (struct map_entry){map[i].base, map[i].size, load_map_type(&map[i]), 0};
    info->map_entries = count;
    return load_area_put(area, entries, count * sizeof(entries[0]), &info->map);
}

int load_start_info(struct loader *loader, uint64_t *at)
{
    struct start_info info = {
        .magic = START_MAGIC,
        .version = START_VERSION,
        .rsdp = loader->rsdp.size != 0 ? loader->rsdp.at : 0,
    };
    struct load_area area;
    int error = load_area_take(&area, loader, INFO_ROOM + load_strings_size(loader),
                               "the start information");

    if (error != E_OK)
        return error;
    area.used = sizeof(info);
    error = load_area_string(&area, loader->cmdline, &info.cmdline);
    if (error == E_OK)
        error = put_map(&area, &info);
    if (error == E_OK)
        error = put_modules(&area, &info);
    area.used = 0;
    if (error == E_OK)
        error = load_area_put(&area, &info, sizeof(info), at);
    return error;
}

int load_pvh(struct loader *loader)
{
    struct load_elf elf;
    uint64_t entry;
    int error = load_elf_read(loader, false, &elf);

    memset(&loader->state, 0, sizeof(loader->state));
    loader->kind = elf.elf.is64 ? "PVH ELF64" : "PVH ELF32";
    if (error != E_OK)
        return error;
    entry = find_entry(&elf.elf);
    if (entry < elf.first || entry > elf.last || entry > LOAD_LAST_32BIT)
        return load_refuse(loader, E_FORMAT,
                           "the PVH entry point 0x%lx lies outside what the ELF file loads, "
                           "0x%lx..0x%lx: it is a physical address below 4G",
                           entry, elf.first, elf.last);
    error = load_elf_place(loader, &elf, 0);
    if (error == E_OK)
        error = load_pc_area(loader, false);
    if (error == E_OK)
        error = load_start_info(loader, &loader->state.gpr[RBX]);
    load_enter_flat32(&loader->state, LOAD_CODE, LOAD_DATA);
    loader->state.rip = entry;
    return error;
}
