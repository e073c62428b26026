/* See kernel_space.h. */
#include "arch/x86_64/mm/kernel_space.h"

#include "arch/x86_64/cpu.h"
#include "arch/x86_64/mm/direct_map.h"
#include "arch/x86_64/mm/host_root.h"
#include "arch/x86_64/mm/image.h"
#include "arch/x86_64/mm/kernel.h"
#include "arch/x86_64/mm/space_check.h"
#include "arch/x86_64/mm/space_map.h"
#include "arch/x86_64/mm/table_envs.h"
#include "arch/x86_64/mm/tlb.h"
#include "arch/x86_64/mm/window.h"
#include "lib/format.h"
#include "lib/log.h"

/* boot/linker.ld, boot/entry.asm */
extern const char kernel_text[], kernel_text_end[], kernel_rodata[], kernel_rodata_end[],
    kernel_data[], kernel_data_end[], boot_stack_guard[];

static struct image_range range_of(const char *first, const char *end)
{
    return (struct image_range){(uint64_t)(uintptr_t)first, (uint64_t)(uintptr_t)end};
}

static struct image_layout linked_image(void)
{
    return (struct image_layout){
        .text = range_of(kernel_text, kernel_text_end),
        .rodata = range_of(kernel_rodata, kernel_rodata_end),
        .data = range_of(kernel_data, kernel_data_end),
        .guard = (uint64_t)(uintptr_t)boot_stack_guard,
    };
}

struct table_caps host_table_caps(void)
{
    return (struct table_caps){
        .maxphyaddr = cpu_features.maxphyaddr,
        .leaf_top = cpu_features.page1g ? 3 : 2,
        .nx = cpu_features.nx,
        .accessed_dirty = true,
        .global = cpu_features.pge,
        .mem_types = 1u << MEM_UC | 1u << MEM_WC | 1u << MEM_WT | 1u << MEM_WP | 1u << MEM_WB,
    };
}

static int fill(struct table *table, const struct memblock *memblock,
                const struct image_layout *image)
{
    uint64_t skipped = 0;
    int error = table_preallocate(table);

    if (error == E_OK)
        error = direct_map_build(table, memblock, UINT64_C(1) << table->caps.maxphyaddr, &skipped);
    if (error == E_OK)
        error = image_map(table, image);
    if (error == E_OK)
        error = image_seal(table, image);
    if (error == E_OK && skipped != 0) {
        char text[SIZE_TEXT];

        log_line("%s of RAM lie beyond what the direct map reaches", size_text(text, skipped));
    }
    return error;
}

int kernel_space_build(const struct memblock *memblock, struct early *early)
{
    struct table_caps caps = host_table_caps();
    struct image_layout image = linked_image();
    struct flush_batch everything;
    int error;

    if (kernel_table.root.v != 0)
        return E_STATE;
    error = table_init(&kernel_table, &kernel_kind, &caps, early_table_env(early),
                       PURPOSE_HOST_TABLE, OWNER_HOST);
    if (error == E_OK)
        error = fill(&kernel_table, memblock, &image);
    if (error == E_OK)
        error = host_root_set(&kernel_table);
    if (error != E_OK)
        return error;
    /* What entry.asm's tables said is to be forgotten, whatever was global in them. */
    flush_begin(&everything, &kernel_table);
    everything.whole = true;
    flush_commit(&everything);
    cpu_enable_pcid(); /* the kernel's table is PCID 0, as CR4.PCIDE wants CR3 to say just now */
    return E_OK;
}

int kernel_space_adopt(void)
{
    return table_adopt(&kernel_table, &buddy_table_env);
}

int kernel_space_check(char *why, size_t why_size)
{
    struct image_layout image = linked_image();

    if (!host_root_is_current(&kernel_table)) {
        format_buffer(why, why_size, "CR3 holds %#llx, not the kernel's table at %#llx",
                      (unsigned long long)read_cr3(), (unsigned long long)kernel_table.root.v);
        return E_STATE;
    }
    return space_check(&kernel_table, &image, why, why_size);
}

/* ---- MMIO window --------------------------------------------------------------------------- */

static struct window mmio = {.base = MMIO_BASE, .size = MMIO_SIZE};
static struct lock mmio_lock = LOCK_INIT;

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
    return table_visit(&kernel_table, DIRECT_BASE + first.v, DIRECT_BASE + last.v, VISIT_PAGES,
                       found, ram) != 0;
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
        error = space_map(&kernel_table, placed, base, whole, RIGHT_RW, type);
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
        error = space_unmap(&kernel_table, slot.at, slot.size);
    lock_drop(&mmio_lock);
    return error;
}

/* ---- Fixmap -------------------------------------------------------------------------------- */

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
    error = space_map(&kernel_table, at.v, frame, PAGE_SIZE, writable ? RIGHT_RW : RIGHT_R, type);
    if (error == E_OK)
        *out = (void *)(uintptr_t)at.v;
    return error;
}

int fixmap_unmap(enum fixmap_slot slot)
{
    return space_unmap(&kernel_table, fixmap_address(slot).v, PAGE_SIZE);
}
