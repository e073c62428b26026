/*
 * See mm/frames/memblock.h. Ranges are handled by their last address, inclusive, so that one that
 * ends at the top of the address space needs no special care.
 */
#include "mm/frames/memblock.h"

#include "lib/bits.h"

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
    mb->grow = NULL;
    mb->grow_ctx = NULL;
    regions_init(&mb->memory, mb->initial_memory, ARRAY_SIZE(mb->initial_memory));
    regions_init(&mb->reserved, mb->initial_reserved, ARRAY_SIZE(mb->initial_reserved));
}

/* Four times as many at a time: old arrays take little of the memory that the last one does. */
static int grow(struct memblock *mb, struct memregions *list)
{
    size_t capacity = list->capacity * MEMBLOCK_GROWTH;
    struct region_node *nodes =
        mb->grow != NULL && capacity < UINT32_MAX ? mb->grow(mb->grow_ctx, capacity) : NULL;

    if (nodes == NULL)
        return E_FULL;
    regions_move(list, nodes, capacity);
    return E_OK;
}

enum change { SET, RAISE, CLEAR };

static int try_change(struct memregions *list, enum change change, uint64_t first, uint64_t last,
                      uint32_t flags)
{
    switch (change) {
    case SET:
        return regions_set(list, first, last, flags);
    case RAISE:
        return regions_raise(list, first, last, flags);
    default:
        return regions_clear(list, first, last);
    }
}

static int apply(struct memblock *mb, struct memregions *list, enum change change, uint64_t base,
                 uint64_t size, uint32_t flags)
{
    uint64_t last = base + (size - 1);
    int error;

    if (size == 0 || last < base)
        return E_RANGE;
    error = try_change(list, change, base, last, flags);
    if (error == E_FULL && grow(mb, list) == E_OK)
        error = try_change(list, change, base, last, flags);
    return error;
}

int memblock_add(struct memblock *mb, uint64_t base, uint64_t size, enum mem_kind kind)
{
    if ((unsigned)kind > MEMKIND_BAD)
        return E_INVAL;
    return apply(mb, &mb->memory, RAISE, base, size, kind);
}

int memblock_remove(struct memblock *mb, uint64_t base, uint64_t size)
{
    return apply(mb, &mb->memory, CLEAR, base, size, 0);
}

int memblock_reserve(struct memblock *mb, uint64_t base, uint64_t size, uint32_t purpose)
{
    if (purpose > REGION_FLAGS_MAX)
        return E_INVAL;
    return apply(mb, &mb->reserved, SET, base, size, purpose);
}

int memblock_unreserve(struct memblock *mb, uint64_t base, uint64_t size)
{
    return apply(mb, &mb->reserved, CLEAR, base, size, 0);
}

bool memblock_is_usable(const struct memblock *mb, uint64_t base, uint64_t size)
{
    uint64_t last = base + (size - 1);
    struct memsegment segment;

    if (size == 0 || last < base)
        return false;
    segment = regions_segment(&mb->memory, base);
    return !segment.gap && segment.flags == MEMKIND_USABLE && segment.last >= last;
}

bool memblock_is_reserved(const struct memblock *mb, uint64_t base, uint64_t size)
{
    uint64_t last = base + (size - 1);
    struct memsegment segment = regions_segment(&mb->reserved, base);

    if (size == 0)
        return false;
    if (last < base)
        last = UINT64_MAX;
    return !segment.gap || segment.last < last;
}

uint64_t memblock_ram_end(const struct memblock *mb)
{
    struct memsegment segment = regions_segment(&mb->memory, UINT64_MAX);

    while (segment.gap || segment.flags != MEMKIND_USABLE) {
        if (segment.first == 0)
            return 0;
        segment = regions_segment(&mb->memory, segment.first - 1);
    }
    return segment.last + 1;
}

uint64_t memblock_usable_bytes(const struct memblock *mb)
{
    struct memregion region;
    uint64_t bytes = 0;

    regions_each (&region, &mb->memory) {
        if (region.flags == MEMKIND_USABLE)
            bytes += region.size;
    }
    return bytes;
}

/* The frames that lie in [first, last] as a whole, or false for none. */
static bool whole_frames(uint64_t first, uint64_t last, uint64_t *first_frame, uint64_t *last_frame)
{
    /* The frame of the last byte is whole when that is its own last one. */
    uint64_t end = (last >> PAGE_SHIFT) + is_aligned(last + 1, PAGE_SIZE);

    *first_frame = (first >> PAGE_SHIFT) + !is_aligned(first, PAGE_SIZE);
    *last_frame = end - 1;
    return *first_frame < end;
}

/* Finds the first usable region at or above `from` that holds a whole frame, as the frame numbers
 * first..last, cut to start at `from`. */
static bool find_ram(const struct memblock *mb, uint64_t from, uint64_t *first, uint64_t *last)
{
    struct memregion region;

    for (bool more = regions_from(&mb->memory, from, &region); more;
         more = regions_next(&mb->memory, &region)) {
        uint64_t begin = region.base > from ? region.base : from;

        if (region.flags == MEMKIND_USABLE && whole_frames(begin, last_of(&region), first, last))
            return true;
    }
    return false;
}

bool memblock_next_frames(const struct memblock *mb, uint64_t from, struct memframes *out)
{
    struct memregion region;
    uint64_t first, last;
    bool more;

    if (!find_ram(mb, from, &first, &last))
        return false;

    *out = (struct memframes){.base = first << PAGE_SHIFT, .purpose = UINT32_MAX};
    for (more = regions_from(&mb->reserved, out->base, &region);
         more && region.base >> PAGE_SHIFT <= first; more = regions_next(&mb->reserved, &region)) {
        out->reserved = true;
        if (region.flags < out->purpose)
            out->purpose = region.flags;
        if (last_of(&region) >> PAGE_SHIFT < last)
            last = last_of(&region) >> PAGE_SHIFT;
    }
    /* The next one starts in a later frame, and what it covers may differ. */
    if (more && region.base >> PAGE_SHIFT <= last)
        last = (region.base >> PAGE_SHIFT) - 1;
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

bool memblock_free_below(const struct memblock *mb, uint64_t from, struct memframes *out)
{
    for (;;) {
        struct memsegment memory = regions_segment(&mb->memory, from);
        struct memsegment reserved = regions_segment(&mb->reserved, from);
        uint64_t begin = memory.first > reserved.first ? memory.first : reserved.first;
        uint64_t end = memory.last < reserved.last ? memory.last : reserved.last;
        uint64_t first, last;

        if (!memory.gap && memory.flags == MEMKIND_USABLE && reserved.gap &&
            whole_frames(begin, end, &first, &last) && first << PAGE_SHIFT <= from) {
            end = last << PAGE_SHIFT | (PAGE_SIZE - 1);
            *out = (struct memframes){.base = first << PAGE_SHIFT};
            out->size = (end < from ? end : from) - out->base + 1;
            return true;
        }
        if (begin == 0)
            return false;
        from = begin - 1;
    }
}

int memblock_find(const struct memblock *mb, uint64_t size, uint64_t align, uint64_t first,
                  uint64_t last, uint64_t *out)
{
    struct memframes run;

    if (size == 0 || !is_power_of_two(align) || first > last)
        return E_INVAL;
    for (; memblock_free_below(mb, last, &run) && run.base + (run.size - 1) >= first;
         last = run.base - 1) {
        uint64_t base = run.base > first ? run.base : first;
        uint64_t room = run.base + (run.size - 1) - base; /* bytes - 1 */
        uint64_t at = align_down(base + room - (size - 1), align);

        if (room >= size - 1 && at >= base) {
            *out = at;
            return E_OK;
        }
        if (run.base == 0)
            break;
    }
    return E_NOMEM;
}
