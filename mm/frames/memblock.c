/*
 * See mm/frames/memblock.h. Ranges are handled by their last address, inclusive, so that one that
 * ends at the top of the address space needs no special care.
 *
 * Every change builds the new list in the spare array and takes effect by exchanging the two:
 *
 *     regions  [....AAAA....BBBB....]        change: C over all that is weaker, here A
 *     spare    [..CCCCCCCCCCBBBBCC..]
 *
 * One that does not fit is counted to its end and dropped, and the list is as it was.
 */
#include "mm/frames/memblock.h"

#include "lib/bits.h"
#include "lib/string.h"

/* Nothing stands against a change with this ceiling. */
#define CEILING_ALL UINT32_MAX

struct change {
    uint64_t first, last; /* the range, inclusive */
    uint32_t ceiling;     /* parts with flags up to this give way, the others stand */
    bool fill;            /* put `flags` where nothing stands; else leave a gap */
    uint32_t flags;
};

/* The list under construction; counts on where it no longer fits. */
struct builder {
    struct memregion *regions, tail;
    size_t count, capacity;
};

static uint64_t last_of(const struct memregion *region)
{
    return region->base + (region->size - 1);
}

const char *mem_kind_name(enum mem_kind kind)
{
    switch (kind) {
    case MEMKIND_USABLE:
        return "usable";
    case MEMKIND_ACPI_RECLAIMABLE:
        return "ACPI reclaimable";
    case MEMKIND_ACPI_NVS:
        return "ACPI NVS";
    case MEMKIND_RESERVED:
        return "reserved";
    case MEMKIND_BAD:
        return "bad";
    }
    return "unknown";
}

void memblock_init(struct memblock *mb)
{
    *mb = (struct memblock){0};
    mb->memory =
        (struct memregions){mb->initial_memory[0], mb->initial_memory[1], 0, MEMBLOCK_INITIAL};
    mb->reserved =
        (struct memregions){mb->initial_reserved[0], mb->initial_reserved[1], 0, MEMBLOCK_INITIAL};
}

/* Appends [first, last], as part of the region before it where the two can be one. */
static void emit(struct builder *to, uint64_t first, uint64_t last, uint32_t flags)
{
    struct memregion region = {first, last - first + 1, flags};

    /* A region over all 2^64 bytes has no size that fits: then it stays in two. */
    if (to->count > 0 && to->tail.flags == flags && last_of(&to->tail) + 1 == first &&
        to->tail.size + region.size != 0) {
        to->tail.size += region.size;
    } else {
        to->tail = region;
        to->count++;
    }
    if (to->count <= to->capacity)
        to->regions[to->count - 1] = to->tail;
}

/* Builds the list with the change applied in `spare`. Returns how many regions it has. */
static size_t build(const struct memregions *list, const struct change *change)
{
    struct builder to = {.regions = list->spare, .capacity = list->capacity};
    uint64_t next = change->first; /* the part of the range before this is decided */
    bool decided = !change->fill;  /* all of it is */

    for (size_t i = 0; i < list->count; i++) {
        const struct memregion *region = &list->regions[i];
        uint64_t first = region->base, last = last_of(region);

        if (first < change->first)
            emit(&to, first, last < change->first ? last : change->first - 1, region->flags);

        if (first <= change->last && last >= change->first && region->flags > change->ceiling) {
            uint64_t from = first > change->first ? first : change->first;
            uint64_t upto = last < change->last ? last : change->last;

            if (from > next)
                emit(&to, next, from - 1, change->flags);
            emit(&to, from, upto, region->flags);
            decided = decided || upto == change->last;
            next = upto + 1;
        }

        if (last > change->last) {
            if (!decided)
                emit(&to, next, change->last, change->flags);
            decided = true;
            emit(&to, first > change->last ? first : change->last + 1, last, region->flags);
        }
    }
    if (!decided)
        emit(&to, next, change->last, change->flags);
    return to.count;
}

/* Makes room for `count` regions or more. The capacity at least becomes four times what it was, so
 * that growing stays rare, and old lists take little of the memory that the last one does. */
static int grow(struct memblock *mb, struct memregions *list, size_t count)
{
    size_t capacity = list->capacity * 4 > count ? list->capacity * 4 : count;
    struct memregion *arrays;

    if (mb->grow == NULL)
        return E_FULL;
    arrays = mb->grow(mb->grow_ctx, 2 * capacity);
    if (arrays == NULL)
        return E_FULL;
    memcpy(arrays, list->regions, list->count * sizeof(*arrays));
    list->regions = arrays;
    list->spare = arrays + capacity;
    list->capacity = capacity;
    return E_OK;
}

static int apply(struct memblock *mb, struct memregions *list, uint64_t base, uint64_t size,
                 struct change change)
{
    struct memregion *previous = list->regions;
    size_t count;
    int error;

    change.first = base;
    change.last = base + (size - 1);
    if (size == 0 || change.last < base)
        return E_RANGE;

    count = build(list, &change);
    if (count > list->capacity) {
        error = grow(mb, list, count);
        if (error != E_OK)
            return error;
        previous = list->regions;
        count = build(list, &change);
    }
    list->regions = list->spare;
    list->spare = previous;
    list->count = count;
    return E_OK;
}

int memblock_add(struct memblock *mb, uint64_t base, uint64_t size, enum mem_kind kind)
{
    if ((unsigned)kind > MEMKIND_BAD)
        return E_INVAL;
    return apply(mb, &mb->memory, base, size,
                 (struct change){.ceiling = kind, .fill = true, .flags = kind});
}

int memblock_remove(struct memblock *mb, uint64_t base, uint64_t size)
{
    return apply(mb, &mb->memory, base, size, (struct change){.ceiling = CEILING_ALL});
}

int memblock_reserve(struct memblock *mb, uint64_t base, uint64_t size, uint32_t purpose)
{
    return apply(mb, &mb->reserved, base, size,
                 (struct change){.ceiling = CEILING_ALL, .fill = true, .flags = purpose});
}

int memblock_unreserve(struct memblock *mb, uint64_t base, uint64_t size)
{
    return apply(mb, &mb->reserved, base, size, (struct change){.ceiling = CEILING_ALL});
}

/* The index of the first region that ends at `address` or later; list->count for none. */
static size_t find_from(const struct memregions *list, uint64_t address)
{
    size_t low = 0, high = list->count;

    while (low < high) {
        size_t middle = low + (high - low) / 2;

        if (last_of(&list->regions[middle]) < address)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

bool memblock_is_usable(const struct memblock *mb, uint64_t base, uint64_t size)
{
    const struct memregions *memory = &mb->memory;
    uint64_t last = base + (size - 1);

    if (size == 0 || last < base)
        return false;
    for (size_t i = find_from(memory, base); i < memory->count; i++) {
        const struct memregion *region = &memory->regions[i];

        if (region->base > base || region->flags != MEMKIND_USABLE)
            return false;
        if (last_of(region) >= last)
            return true;
        base = last_of(region) + 1;
    }
    return false;
}

bool memblock_is_reserved(const struct memblock *mb, uint64_t base, uint64_t size)
{
    uint64_t last = base + (size - 1);
    size_t i = find_from(&mb->reserved, base);

    if (size == 0)
        return false;
    if (last < base)
        last = UINT64_MAX;
    return i < mb->reserved.count && mb->reserved.regions[i].base <= last;
}

uint64_t memblock_ram_end(const struct memblock *mb)
{
    for (size_t i = mb->memory.count; i > 0; i--) {
        if (mb->memory.regions[i - 1].flags == MEMKIND_USABLE)
            return last_of(&mb->memory.regions[i - 1]) + 1;
    }
    return 0;
}

uint64_t memblock_usable_bytes(const struct memblock *mb)
{
    uint64_t bytes = 0;

    for (size_t i = 0; i < mb->memory.count; i++) {
        if (mb->memory.regions[i].flags == MEMKIND_USABLE)
            bytes += mb->memory.regions[i].size;
    }
    return bytes;
}

/* Finds the first usable region at or above `pfn` that holds a whole frame, as the frame numbers
 * first..last, cut to start at pfn. */
static bool find_ram(const struct memblock *mb, uint64_t pfn, uint64_t *first, uint64_t *last)
{
    const struct memregions *memory = &mb->memory;

    for (size_t i = find_from(memory, pfn << PAGE_SHIFT); i < memory->count; i++) {
        const struct memregion *region = &memory->regions[i];
        uint64_t from = (region->base >> PAGE_SHIFT) + !is_aligned(region->base, PAGE_SIZE);
        /* The frame that holds the region's last byte is whole when that is its own last one. */
        uint64_t end = (last_of(region) >> PAGE_SHIFT) + is_aligned(last_of(region) + 1, PAGE_SIZE);

        if (from < pfn)
            from = pfn;
        if (region->flags == MEMKIND_USABLE && from < end) {
            *first = from;
            *last = end - 1;
            return true;
        }
    }
    return false;
}

bool memblock_next_frames(const struct memblock *mb, uint64_t from, struct memframes *out)
{
    const struct memregions *reserved = &mb->reserved;
    uint64_t first, last;
    size_t i;

    if (!find_ram(mb, from >> PAGE_SHIFT, &first, &last))
        return false;

    *out = (struct memframes){.base = first << PAGE_SHIFT, .purpose = UINT32_MAX};
    for (i = find_from(reserved, out->base); i < reserved->count; i++) {
        const struct memregion *region = &reserved->regions[i];

        if (region->base >> PAGE_SHIFT > first)
            break;
        out->reserved = true;
        if (region->flags < out->purpose)
            out->purpose = region->flags;
        if (last_of(region) >> PAGE_SHIFT < last)
            last = last_of(region) >> PAGE_SHIFT;
    }
    /* The next one starts in a later frame, and what it covers may differ. */
    if (i < reserved->count && reserved->regions[i].base >> PAGE_SHIFT <= last)
        last = (reserved->regions[i].base >> PAGE_SHIFT) - 1;
    out->size = (last - first + 1) << PAGE_SHIFT;
    return true;
}

int memblock_visit_free(const struct memblock *mb,
                        int (*fn)(void *ctx, uint64_t base, uint64_t size), void *ctx)
{
    struct memframes frames = {0};

    do {
        if (!memblock_next_frames(mb, frames.base + frames.size, &frames))
            break;
        if (!frames.reserved) {
            int result = fn(ctx, frames.base, frames.size);

            if (result != 0)
                return result;
        }
    } while (frames.base + frames.size != 0);
    return 0;
}

struct search {
    uint64_t size, align, first, last;
    bool found;
    uint64_t best;
};

/* The ranges come in address order, so that the last fit is the highest. */
static int consider(void *ctx, uint64_t base, uint64_t size)
{
    struct search *search = ctx;
    uint64_t first = base > search->first ? base : search->first;
    uint64_t last = base + (size - 1) < search->last ? base + (size - 1) : search->last;
    uint64_t at;

    if (first > last || last - first < search->size - 1)
        return 0;
    at = align_down(last - (search->size - 1), search->align);
    if (at >= first) {
        search->found = true;
        search->best = at;
    }
    return 0;
}

int memblock_find(const struct memblock *mb, uint64_t size, uint64_t align, uint64_t first,
                  uint64_t last, uint64_t *out)
{
    struct search search = {.size = size, .align = align, .first = first, .last = last};

    if (size == 0 || !is_power_of_two(align) || first > last)
        return E_INVAL;
    memblock_visit_free(mb, consider, &search);
    if (!search.found)
        return E_NOMEM;
    *out = search.best;
    return E_OK;
}
