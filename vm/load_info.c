/* What all formats tell a kernel: strings, modules, the memory map. See vm/load_parts.h. */
#include "lib/bits.h"
#include "lib/error.h"
#include "lib/format.h"
#include "lib/string.h"
#include "vm/load_parts.h"

int load_area_take(struct load_area *area, struct loader *loader, uint64_t size, const char *what)
{
    uint64_t at;

    size = align_up(size, PAGE_SIZE);
    if (load_find(loader, size, PAGE_SIZE, LOAD_LOW_FIRST, LOAD_LOW_LAST, &at) != E_OK &&
        load_find(loader, size, PAGE_SIZE, 0, LOAD_LAST_32BIT, &at) != E_OK)
        return load_refuse(loader, E_NOMEM, "no free memory for %s: give more by mem=", what);
    *area = (struct load_area){.loader = loader, .base = at, .size = size};
    return load_place(loader, at, NULL, 0, size, what);
}

int load_area_room(const struct load_area *area, uint64_t size)
{
    if (size <= area->size - area->used)
        return E_OK;
    return load_refuse(area->loader, E_FULL,
                       "what the kernel is told takes more than 0x%lx bytes: shorten the command "
                       "lines",
                       area->size);
}

int load_area_put(struct load_area *area, const void *bytes, uint64_t size, uint64_t *at)
{
    int error = load_area_room(area, align_up(size, sizeof(uint64_t)));

    if (error != E_OK)
        return error;
    *at = area->base + area->used;
    area->used += align_up(size, sizeof(uint64_t));
    return area->loader->place(area->loader->ctx, *at, bytes, size);
}

int load_area_string(struct load_area *area, const char *text, uint64_t *at)
{
    return load_area_put(area, text, strlen(text) + 1, at);
}

uint64_t load_strings_size(const struct loader *loader)
{
    uint64_t size = align_up(strlen(loader->cmdline) + 1, sizeof(uint64_t));

    for (unsigned i = 0; i < loader->modules; i++)
        size += align_up(strlen(loader->module[i].cmdline) + 1, sizeof(uint64_t));
    return size;
}

static int place_module(struct loader *loader, const struct load_module *module, uint64_t *at)
{
    char what[32];

    if (load_find_beyond(loader, module->size != 0 ? module->size : 1, at) != E_OK)
        return load_refuse(loader, E_NOMEM,
                           "no room for a module of 0x%lx bytes: give more by mem=", module->size);
    format_buffer(what, sizeof(what), "module %u", (unsigned)(module - loader->module) + 1);
    return load_place(loader, *at, module->bytes, module->size, module->size, what);
}

int load_place_modules(struct loader *loader, uint64_t at[LOAD_MODULES])
{
    int error = E_OK;

    for (unsigned i = 0; i < loader->modules && error == E_OK; i++)
        error = place_module(loader, &loader->module[i], &at[i]);
    return error;
}

uint32_t load_map_type(const struct load_region *region)
{
    return region->ram ? LOAD_MAP_RAM : LOAD_MAP_RESERVED;
}

unsigned load_map(const struct loader *loader, struct load_region map[LOAD_MAP])
{
    unsigned count = 0;

    for (unsigned i = 0; i < loader->regions; i++) {
        struct load_region region = loader->region[i];
        uint64_t below = LOAD_EBDA - region.base, end = region.base + region.size;

        if (!loader->ebda || !region.ram || region.base > LOAD_EBDA || below >= region.size) {
            map[count++] = region;
            continue;
        }
        if (below != 0)
            map[count++] = (struct load_region){region.base, below, true};
        map[count++] = (struct load_region){LOAD_EBDA, LOAD_LOW_LAST + 1 - LOAD_EBDA, false};
        if (end > LOAD_LOW_LAST + 1)
            map[count++] = (struct load_region){LOAD_LOW_LAST + 1, end - LOAD_LOW_LAST - 1, true};
    }
    return count;
}

/* KiB of RAM without a gap from `from` on, as far as `limit`. */
static uint32_t contiguous_kib(const struct loader *loader, uint64_t from, uint64_t limit)
{
    struct load_region map[LOAD_MAP];
    unsigned count = load_map(loader, map);
    uint64_t at = from;

    for (unsigned i = 0; i < count && at < limit; i++) {
        if (map[i].ram && map[i].base <= at && map[i].base + map[i].size > at)
            at = map[i].base + map[i].size;
    }
    if (at > limit)
        at = limit;
    return (uint32_t)((at - from) / KiB);
}

uint32_t load_lower_kib(const struct loader *loader)
{
    return contiguous_kib(loader, 0, LOAD_LOW_LAST + 1);
}

uint32_t load_upper_kib(const struct loader *loader)
{
    return contiguous_kib(loader, LOAD_HIGH_FIRST, LOAD_LAST_32BIT + 1);
}
