/* See boot/low_page.h. */
#include "boot/low_page.h"

#define CONVENTIONAL_END UINT64_C(0xa0000)

static bool overlap(uint64_t page, uint64_t base, uint64_t size)
{
    return size != 0 && page < base + size && base < page + PAGE_SIZE;
}

/* All of it in one usable region, and in none of another kind. */
static bool is_ram(const struct boot_info *info, uint64_t page)
{
    struct boot_region region;
    uint32_t cursor = 0;
    bool within = false;

    while (boot_region_next(info, &cursor, &region)) {
        bool inside = region.base <= page && page + PAGE_SIZE - region.base <= region.size;

        if (region.kind == MEMKIND_USABLE && inside)
            within = true;
        else if (region.kind != MEMKIND_USABLE && region.base < CONVENTIONAL_END &&
                 overlap(page, region.base, region.size))
            return false;
    }
    return within;
}

static bool is_occupied(const struct boot_info *info, uint64_t page)
{
    struct boot_module module;
    uint32_t cursor = 0;

    if (overlap(page, (uint64_t)(uintptr_t)info->table - direct_base, info->size))
        return true;
    while (boot_module_next(info, &cursor, &module))
        if (overlap(page, module.base.v, module.size))
            return true;
    return false;
}

int low_page_find(const struct boot_info *info, hpa_t *out)
{
    for (uint64_t page = CONVENTIONAL_END - PAGE_SIZE; page != 0; page -= PAGE_SIZE) {
        if (!is_ram(info, page) || is_occupied(info, page))
            continue;
        *out = hpa(page);
        return E_OK;
    }
    return E_NOENT;
}
