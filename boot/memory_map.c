/* See boot/memory_map.h. */
#include "boot/memory_map.h"

#include "lib/bits.h"
#include "lib/log.h"
#include "mm/frames/frame.h"

/* Of real mode's memory the firmware's tables, the loader and the CPU start-up code all have a
 * part; none of it is worth telling apart. */
#define LOW_MEMORY MiB

/* Both lists can grow three times (mm/frames/memblock.c). */
#define FIRST_NODES (MEMBLOCK_GROWTH * REGION_NODES(MEMBLOCK_INITIAL))
#define SECOND_NODES (MEMBLOCK_GROWTH * FIRST_NODES)
#define LAST_NODES (MEMBLOCK_GROWTH * SECOND_NODES)
#define POOL_NODES (2 * (FIRST_NODES + SECOND_NODES + LAST_NODES))

_Static_assert(LAST_NODES >= REGION_NODES(MEMORY_MAP_REGIONS), "what memory_map.h promises");

static struct pool {
    size_t used;
    struct region_node nodes[POOL_NODES];
} pool;

static struct region_node *pool_take(void *ctx, size_t count)
{
    struct pool *from = ctx;
    struct region_node *nodes = from->nodes + from->used;

    if (count > POOL_NODES - from->used)
        return NULL;
    from->used += count;
    return nodes;
}

/* Cuts a range to the physical address width. False when nothing is left of it. */
static bool cut_to_width(const char *what, uint64_t base, uint64_t *size, unsigned maxphyaddr)
{
    uint64_t limit = BIT(maxphyaddr);

    if (base >= limit) {
        log_line("memory map: %s at 0x%lx, 0x%lx bytes, lies beyond this CPU's %u address bits: "
                 "dropped",
                 what, base, *size, maxphyaddr);
        return false;
    }
    if (*size > limit - base) {
        log_line("memory map: %s at 0x%lx, 0x%lx bytes, reaches beyond this CPU's %u address bits: "
                 "cut there",
                 what, base, *size, maxphyaddr);
        *size = limit - base;
    }
    return true;
}

static int add_region(struct memblock *mb, struct boot_region region, unsigned maxphyaddr)
{
    int error;

    if (!cut_to_width(mem_kind_name(region.kind), region.base, &region.size, maxphyaddr))
        return E_OK;
    error = memblock_add(mb, region.base, region.size, region.kind);
    if (error != E_OK)
        return error;
    if (region.kind == MEMKIND_ACPI_RECLAIMABLE || region.kind == MEMKIND_ACPI_NVS)
        return memblock_reserve(mb, region.base, region.size, PURPOSE_FIRMWARE);
    return E_OK;
}

/* An empty range occupies nothing. */
static int reserve(struct memblock *mb, hpa_t base, uint64_t size, enum frame_purpose purpose)
{
    return size == 0 ? E_OK : memblock_reserve(mb, base.v, size, purpose);
}

static int reserve_handed_over(struct memblock *mb, const struct memory_map_input *input)
{
    struct boot_module module;
    uint32_t cursor = 0;
    int error = reserve(mb, input->info_at, input->info->size, PURPOSE_BOOT);

    while (error == E_OK && boot_module_next(input->info, &cursor, &module))
        error = reserve(mb, module.base, module.size, PURPOSE_BOOT);
    return error;
}

static int reserve_framebuffer(struct memblock *mb, const struct boot_framebuffer *framebuffer,
                               unsigned maxphyaddr)
{
    uint64_t size = framebuffer->size;

    if (size == 0 || !cut_to_width("framebuffer", framebuffer->base.v, &size, maxphyaddr))
        return E_OK;
    return memblock_reserve(mb, framebuffer->base.v, size, PURPOSE_FIRMWARE);
}

/* ---- Memory types ---------------------------------------------------------------------------- */

/* Runs of other memory that are told apart; a map with more is one that no firmware makes, and then
 * all that follows in its region is left alone. */
#define OTHER_RUNS 256

struct types {
    const struct mtrrs *mtrrs;
    unsigned runs;
    uint64_t write_back; /* bytes of usable memory that are */
};

/* What of the region is not write-back: reserved, or counted where `mb` is NULL. */
static int leave_region(struct types *types, struct memblock *mb, uint64_t base, uint64_t last)
{
    uint64_t at = base < LOW_MEMORY ? LOW_MEMORY : base, end;

    for (; at <= last; at = end + 1) {
        enum mem_type type = mtrr_run_at(types->mtrrs, at, last, &end);

        if (type == MEM_WB && types->runs < OTHER_RUNS) {
            types->write_back += end - at + 1;
            continue;
        }
        if (++types->runs > OTHER_RUNS)
            end = last;
        if (mb == NULL)
            continue;
        log_line("memory map: 0x%lx, 0x%lx bytes, is %s by the MTRRs, not write-back: left alone",
                 at, end - at + 1, mem_type_name(type));
        int error = memblock_reserve(mb, at, end - at + 1, PURPOSE_FIRMWARE);
        if (error != E_OK)
            return error;
    }
    return E_OK;
}

static int each_usable(struct types *types, const struct memblock *of, struct memblock *mb)
{
    struct memregion region;

    types->runs = 0;
    regions_each (&region, &of->memory) {
        int error = region.flags != MEMKIND_USABLE
                        ? E_OK
                        : leave_region(types, mb, region.base, region.base + (region.size - 1));

        if (error != E_OK)
            return error;
    }
    return E_OK;
}

/* Guests' memory is write-back, and so is our view of it. Where not a byte is, the registers were
 * never set. */
static int leave_other_types(struct memblock *mb, const struct mtrrs *mtrrs)
{
    struct types types = {.mtrrs = mtrrs};

    if (mtrrs == NULL || !mtrrs->there)
        return E_OK;
    (void)each_usable(&types, mb, NULL);
    if (types.write_back == 0) {
        log_line("memory map: no memory is write-back by the MTRRs: they were not set, and do not "
                 "count");
        return E_OK;
    }
    return each_usable(&types, mb, mb);
}

/* Where two overlap, the later one wins. */
static int fill(struct memblock *mb, const struct memory_map_input *input)
{
    struct boot_region region;
    uint32_t cursor = 0;
    int error = reserve_handed_over(mb, input);

    while (error == E_OK && boot_region_next(input->info, &cursor, &region))
        error = add_region(mb, region, input->maxphyaddr);
    if (error == E_OK)
        error = leave_other_types(mb, input->mtrrs);
    if (error == E_OK)
        error = reserve(mb, hpa(0), LOW_MEMORY, PURPOSE_FIRMWARE);
    if (error == E_OK)
        error = reserve_framebuffer(mb, &input->info->framebuffer, input->maxphyaddr);
    if (error == E_OK)
        error = reserve(mb, input->image, input->image_size, PURPOSE_IMAGE);
    return error;
}

int memory_map_build(struct memblock *mb, const struct memory_map_input *input)
{
    int error;

    pool.used = 0;
    memblock_init(mb);
    mb->grow = pool_take;
    mb->grow_ctx = &pool;

    if (input->maxphyaddr < 32 || input->maxphyaddr > 52) {
        log_line("memory map: a physical address width of %u bits; 32 to 52 is possible",
                 input->maxphyaddr);
        return E_INVAL;
    }
    error = fill(mb, input);
    if (error != E_OK) {
        log_line("memory map: %zu regions of memory and %zu reserved ones, then: %s; there is room "
                 "for %u of each",
                 mb->memory.count, mb->reserved.count, error_text(error), MEMORY_MAP_REGIONS);
        return error;
    }
    if (memblock_usable_bytes(mb) == 0) {
        log_line("memory map: no usable memory in it");
        return E_NOENT;
    }
    return E_OK;
}
