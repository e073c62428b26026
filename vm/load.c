/* See vm/load_parts.h. What every loader needs: refusing, placing, finding room. */
#include "lib/bits.h"
#include "lib/error.h"
#include "lib/format.h"
#include "vm/load_parts.h"

#define FAR UINT64_C(0x1000000000) /* 64G: more than anybody links a guest to on purpose */

int load_refuse(struct loader *loader, int error, const char *why, ...)
{
    va_list args;

    va_start(args, why);
    vformat_buffer(loader->why, loader->why_size, why, args);
    va_end(args);
    return error;
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
    if (loader->used_count == LOAD_PARTS)
        return load_refuse(loader, E_FULL,
                           "%s: the image has more than %d parts: join some of its segments", what,
                           LOAD_PARTS);
    loader->used[loader->used_count++] = (struct load_range){first, last};
    return E_OK;
}

bool load_is_free(const struct loader *loader, uint64_t first, uint64_t last)
{
    return is_memory(loader, first, last) && find_used(loader, first, last) == NULL;
}

/* What mends it when these addresses are no memory. */
static const char *way_inside(uint64_t at, uint64_t last)
{
    if (last < at || last >= FAR)
        return ": a virtual address? AT() in the linker script says where it is loaded";
    if (at < LOAD_HIGH_FIRST)
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

/* What of a region of RAM lies within [first, last]; false: nothing. */
static bool clip(const struct load_region *region, uint64_t first, uint64_t last, uint64_t *from,
                 uint64_t *to)
{
    uint64_t end = region->base + region->size - 1;

    *from = region->base > first ? region->base : first;
    *to = end < last ? end : last;
    return region->ram && *from <= *to;
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
        uint64_t from, to;

        if (clip(&loader->region[i], first, last, &from, &to) &&
            find_in_region(loader, from, to, size, align, out))
            return E_OK;
    }
    return E_NOMEM;
}

#define BEHIND_IMAGE MiB

int load_find_beyond(const struct loader *loader, uint64_t size, uint64_t *out)
{
    uint64_t first = loader->image_end + BEHIND_IMAGE;

    if (first < LOAD_HIGH_FIRST)
        first = LOAD_HIGH_FIRST;
    if (load_find(loader, size, PAGE_SIZE, first, LOAD_LAST_32BIT, out) == E_OK)
        return E_OK;
    return load_find(loader, size, PAGE_SIZE, LOAD_HIGH_FIRST, LOAD_LAST_32BIT, out);
}

void load_claim(struct loader *loader, uint64_t first, uint64_t last)
{
    unsigned count = 0;

    for (unsigned i = 0; i < loader->used_count; i++) {
        struct load_range used = loader->used[i];
        if (used.first < first || used.last > last)
            loader->used[count++] = used;
    }
    if (count < LOAD_PARTS)
        loader->used[count++] = (struct load_range){first, last};
    loader->used_count = count;
}

/* The highest fit within one region, likewise. */
static bool find_down_in_region(const struct loader *loader, uint64_t first, uint64_t last,
                                uint64_t size, uint64_t align, uint64_t *out)
{
    for (unsigned steps = 0; steps <= loader->used_count; steps++) {
        const struct load_range *used;
        uint64_t at;

        if (last < first || size - 1 > last - first)
            return false;
        at = align_down(last - (size - 1), align);
        if (at < first)
            return false;
        used = find_used(loader, at, at + size - 1);
        if (used == NULL) {
            *out = at;
            return true;
        }
        if (used->first == 0)
            return false;
        last = used->first - 1;
    }
    return false;
}

int load_find_highest(const struct loader *loader, uint64_t size, uint64_t align, uint64_t first,
                      uint64_t last, uint64_t *out)
{
    for (unsigned i = loader->regions; i-- > 0;) {
        uint64_t from, to;

        if (clip(&loader->region[i], first, last, &from, &to) &&
            find_down_in_region(loader, from, to, size, align, out))
            return E_OK;
    }
    return E_NOMEM;
}
