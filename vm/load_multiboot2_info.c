/*
 * Multiboot 2's boot information (section 3.6): total size, then tags, each from a multiple of 8
 * on. It has what GRUB writes on a PC without disks, network and EFI.
 */
#include "lib/bits.h"
#include "lib/error.h"
#include "lib/string.h"
#include "vm/load_multiboot2.h"

#define INFO_ROOM 2048   /* of memory for all that it has besides strings and section headers */
#define ACPI_OLD_SIZE 20 /* of a root pointer: ACPI 6.5, 5.2.5.3, up to its checksum ... */

struct info {
    uint32_t total_size, reserved;
};

struct tag {
    uint32_t type, size; /* the head included, what aligns the next not */
};

struct map_head {
    uint32_t entry_size, entry_version;
};
struct map_entry {
    uint64_t base, length;
    uint32_t type, reserved;
};

struct framebuffer {
    uint64_t address;
    uint32_t pitch, width, height;
    uint8_t bits, type;
    uint16_t reserved;
};

struct sections_head {
    uint32_t count, size, names;
};

/* A tag of a fixed head and what follows it. `at`, which may be NULL, receives where that begins.
 */
static int put_tag(struct load_area *area, uint32_t type, const void *head, uint32_t head_size,
                   const void *rest, uint64_t rest_size, uint64_t *at)
{
    struct loader *loader = area->loader;
    struct tag tag = {type, (uint32_t)(sizeof(tag) + head_size + rest_size)};
    uint64_t base = area->base + area->used;
    int error = load_area_room(area, align_up(tag.size, 8));

    if (error == E_OK)
        error = loader->place(loader->ctx, base, &tag, sizeof(tag));
    if (error == E_OK && head_size != 0)
        error = loader->place(loader->ctx, base + sizeof(tag), head, head_size);
    if (error == E_OK && rest_size != 0)
        error = loader->place(loader->ctx, base + sizeof(tag) + head_size, rest, rest_size);
    area->used += align_up(tag.size, 8);
    if (at != NULL)
        *at = base + sizeof(tag) + head_size;
    return error;
}

static int put_string(struct load_area *area, uint32_t type, const char *text)
{
    return put_tag(area, type, NULL, 0, text, strlen(text) + 1, NULL);
}

static int put_modules(struct load_area *area)
{
    const struct loader *loader = area->loader;
    uint64_t start[LOAD_MODULES];
    int error = load_place_modules(area->loader, start);

    for (unsigned i = 0; i < loader->modules && error == E_OK; i++) {
        const struct load_module *module = &loader->module[i];
        const uint32_t place[] = {(uint32_t)start[i], (uint32_t)(start[i] + module->size)};
        error = put_tag(area, MB2_MODULE, place, sizeof(place), module->cmdline,
                        strlen(module->cmdline) + 1, NULL);
    }
    return error;
}

static int put_memory(struct load_area *area)
{
    const uint32_t kib[] = {load_lower_kib(area->loader), load_upper_kib(area->loader)};
    const struct map_head head = {sizeof(struct map_entry), 0};
    struct map_entry entries[LOAD_MAP];
    struct load_region map[LOAD_MAP];
    unsigned count = load_map(area->loader, map);
    int error = put_tag(area, MB2_MEMORY, kib, sizeof(kib), NULL, 0, NULL);

    for (unsigned i = 0; i < count; i++)
        entries[i] = (struct map_entry){map[i].base, map[i].size, load_map_type(&map[i]), 0};
    if (error == E_OK)
        error =
            put_tag(area, MB2_MAP, &head, sizeof(head), entries, count * sizeof(entries[0]), NULL);
    return error;
}

static int put_screen(struct load_area *area)
{
    const struct framebuffer text = {
        .address = LOAD_TEXT_SCREEN,
        .pitch = LOAD_TEXT_COLUMNS * LOAD_TEXT_BITS / 8,
        .width = LOAD_TEXT_COLUMNS,
        .height = LOAD_TEXT_ROWS,
        .bits = LOAD_TEXT_BITS,
        .type = LOAD_TEXT_TYPE,
    };

    if (!area->loader->pc)
        return E_OK;
    return put_tag(area, MB2_FRAMEBUFFER, &text, sizeof(text), NULL, 0, NULL);
}

static int put_sections(struct load_area *area, const struct load_sections *sections)
{
    const struct sections_head head = {sections->count, sections->size, sections->names};
    uint64_t at;
    int error;

    if (sections->count == 0)
        return E_OK;
    error = put_tag(area, MB2_SECTIONS, &head, sizeof(head),
                    sections->elf->bytes + sections->elf->section_headers,
                    (uint64_t)sections->count * sections->size, &at);
    return error == E_OK ? load_sections_put(area->loader, sections, at) : error;
}

/* A copy of the root pointer, both as ACPI 1.0 has it and whole. */
static int put_acpi(struct load_area *area)
{
    const struct loader *loader = area->loader;
    int error = E_OK;

    if (loader->rsdp.size >= ACPI_OLD_SIZE)
        error = put_tag(area, MB2_ACPI_OLD, NULL, 0, loader->rsdp.bytes, ACPI_OLD_SIZE, NULL);
    if (error == E_OK && loader->rsdp.size > ACPI_OLD_SIZE)
        error = put_tag(area, MB2_ACPI_NEW, NULL, 0, loader->rsdp.bytes, loader->rsdp.size, NULL);
    return error;
}

int multiboot2_write_info(struct loader *loader, const struct load_sections *sections, bool moved,
                          uint64_t load_base)
{
    uint64_t headers = (uint64_t)sections->count * sections->size, at;
    const uint32_t base = (uint32_t)load_base;
    struct info info = {0};
    struct load_area area;
    int error = load_area_take(&area, loader, INFO_ROOM + headers + load_strings_size(loader),
                               "the Multiboot 2 information");

    if (error != E_OK)
        return error;
    loader->state.gpr[RBX] = area.base;
    area.used = sizeof(info);
    error = put_string(&area, MB2_CMDLINE, loader->cmdline);
    if (error == E_OK)
        error = put_string(&area, MB2_LOADER_NAME, LOAD_LOADER_NAME);
    if (error == E_OK && moved)
        error = put_tag(&area, MB2_LOAD_BASE, &base, sizeof(base), NULL, 0, NULL);
    if (error == E_OK)
        error = put_modules(&area);
    if (error == E_OK)
        error = put_memory(&area);
    if (error == E_OK)
        error = put_screen(&area);
    if (error == E_OK)
        error = put_acpi(&area);
    if (error == E_OK)
        error = put_sections(&area, sections);
    if (error == E_OK)
        error = put_tag(&area, MB2_END, NULL, 0, NULL, 0, NULL);
    info.total_size = (uint32_t)area.used;
    area.used = 0;
    if (error == E_OK)
        error = load_area_put(&area, &info, sizeof(info), &at);
    return error;
}
