/*
 * See direct_map.h. Page sizes are the mapper's choice: a region goes to it whole. Where RAM begins
 * or ends off a 2 MiB or 1 GiB boundary, only the pages at that edge are smaller. The memory below
 * 1 MiB therefore never shares a large page with the fixed-range MTRRs' holes, which the manual
 * asks for (SDM Vol. 3, 11.11.9 "Large page size considerations").
 */
#include "arch/x86_64/mm/direct_map.h"

#include "arch/x86_64/mm/layout.h"
#include "arch/x86_64/mm/space_map.h"
#include "mm/paging/typed.h"

int direct_map_build(struct table *table, const struct memblock *memblock, uint64_t limit,
                     uint64_t *skipped)
{
    uint64_t done = 0; /* end of what is mapped: regions are sorted, and frames are mapped once */
    uint64_t beyond = 0;

    if (limit > DIRECT_SIZE)
        limit = DIRECT_SIZE;
    struct memregion region;
    regions_each (&region, &memblock->memory) {
        bool ram = region.flags == MEMKIND_USABLE;
        bool tables = region.flags == MEMKIND_ACPI_RECLAIMABLE || region.flags == MEMKIND_ACPI_NVS;
        uint64_t first = region.base;
        uint64_t last = region.base + (region.size - 1);
        uint64_t end;
        int error;

        if (!ram && !tables)
            continue;
        if (last >= limit) {
            uint64_t cut = first < limit ? limit : first;

            if (ram)
                beyond += last - cut + 1;
            if (first >= limit)
                continue;
            last = limit - 1;
        }
        end = last + 1; /* at most DIRECT_SIZE: cannot wrap, nor can the roundings below */
        first = ram ? align_up(first, PAGE_SIZE) : align_down(first, PAGE_SIZE);
        end = ram ? align_down(end, PAGE_SIZE) : align_up(end, PAGE_SIZE);
        if (first < done)
            first = done;
        if (end <= first)
            continue;
        error = space_map(table, hva(DIRECT_BASE + first), hpa(first), end - first,
                          ram ? RIGHT_RW : RIGHT_R, MEM_WB);
        if (error != E_OK)
            return error;
        done = end;
    }
    if (skipped != NULL)
        *skipped = beyond;
    return E_OK;
}

int direct_map_seal(struct table *table, hpa_t base, uint64_t size)
{
    struct flush_batch batch;
    int error;

    flush_begin(&batch, table);
    error = hva_protect(table, hva(DIRECT_BASE + base.v), size, space_attrs(table, RIGHT_R, MEM_WB),
                        &batch);
    flush_commit(&batch);
    return error;
}
