/*
 * What is placed in the kernel's table piece by piece (kernel_space.h): device memory in the MMIO
 * window, single frames in the fixmap.
 */
#include "arch/x86_64/mm/kernel.h"
#include "arch/x86_64/mm/kernel_space.h"
#include "arch/x86_64/mm/space_map.h"
#include "arch/x86_64/mm/window.h"
#include "mm/paging/typed.h"

static struct window mmio = {.base = MMIO_BASE, .size = MMIO_SIZE};
static struct lock mmio_lock = LOCK_INIT_AT(LOCK_WINDOWS);

static int found(void *ctx, const struct mapping *mapping)
{
    *(struct mapping *)ctx = *mapping;
    return 1;
}

/* Does the direct map hold any frame of [first, last]? `*ram` receives how. */
static bool in_direct_map(hpa_t first, hpa_t last, struct mapping *ram)
{
    if (first.v >= DIRECT_SIZE)
        return false;
    if (last.v >= DIRECT_SIZE)
        last = hpa(DIRECT_SIZE - 1);
    return hva_visit(&kernel_table, hva(DIRECT_BASE + first.v), hva(DIRECT_BASE + last.v),
                     VISIT_PAGES, found, ram) != 0;
}

int mmio_map(hpa_t at, uint64_t size, enum mem_type type, void **out)
{
    uint64_t last = at.v + (size - 1);
    hpa_t base = hpa(align_down(at.v, PAGE_SIZE));
    struct mapping ram;
    uint64_t whole, placed;
    bool fresh;
    int error;

    if (size == 0)
        return E_INVAL;
    if (last < at.v || last >> kernel_table.caps.maxphyaddr)
        return E_RANGE;
    whole = (last | (PAGE_SIZE - 1)) - base.v + 1;
    if (in_direct_map(base, hpa(last), &ram))
        return E_EXIST;

    lock_take(&mmio_lock);
    error = window_take(&mmio, base, whole, type, &placed, &fresh);
    if (error == E_OK && fresh) {
        error = space_map(&kernel_table, hva(placed), base, whole, RIGHT_RW, type);
        if (error != E_OK) {
            struct window_slot slot;

            window_drop(&mmio, placed, &slot, &fresh);
        }
    }
    lock_drop(&mmio_lock);
    if (error == E_OK)
        *out = (void *)(uintptr_t)(placed + (at.v - base.v));
    return error;
}

int mmio_unmap(const void *at)
{
    struct window_slot slot;
    bool gone;
    int error;

    lock_take(&mmio_lock);
    error = window_drop(&mmio, (uint64_t)(uintptr_t)at, &slot, &gone);
    if (error == E_OK && gone)
        error = space_unmap(&kernel_table, hva(slot.at), slot.size);
    lock_drop(&mmio_lock);
    return error;
}

_Static_assert(FIXMAP_COUNT *PAGE_SIZE <= FIXMAP_SIZE, "every slot lies within the fixmap");

int fixmap_map(enum fixmap_slot slot, hpa_t frame, enum mem_type type, bool writable, void **out)
{
    hva_t at = fixmap_address(slot);
    struct mapping ram;
    int error;

    /* One frame with two memory types is undefined (SDM Vol. 3, 12.12.4); and what the direct map
     * has read-only is so because it is executable or constant at its own address. */
    if (in_direct_map(frame, frame, &ram) &&
        (type != (enum mem_type)ram.attrs.type || (writable && !(ram.attrs.rights & RIGHT_W))))
        return E_PERM;
    error = space_map(&kernel_table, at, frame, PAGE_SIZE, writable ? RIGHT_RW : RIGHT_R, type);
    if (error == E_OK)
        *out = (void *)(uintptr_t)at.v;
    return error;
}

int fixmap_unmap(enum fixmap_slot slot)
{
    return space_unmap(&kernel_table, fixmap_address(slot), PAGE_SIZE);
}
