/* See kernel_space.h. */
#include "arch/x86_64/mm/kernel_space.h"

#include "arch/x86_64/cpu.h"
#include "arch/x86_64/mm/direct_map.h"
#include "arch/x86_64/mm/host_root.h"
#include "arch/x86_64/mm/image.h"
#include "arch/x86_64/mm/kernel.h"
#include "arch/x86_64/mm/space_check.h"
#include "arch/x86_64/mm/table_envs.h"
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
    flush_whole(&everything);
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
        format_buffer(why, why_size, "CR3 holds %#lx, not the kernel's table at %#lx", read_cr3(),
                      kernel_table.root.v);
        return E_STATE;
    }
    return space_check(&kernel_table, &image, why, why_size);
}

static int read_root(const struct audit_table *table, struct audit_root *out)
{
    (void)table;
    *out = (struct audit_root){host_root_current(), read_cr4() & CR4_LA57 ? 5 : 4};
    return E_OK;
}

unsigned kernel_space_describe(struct audit_table *out, struct audit_guard guard[SPACE_GUARDS])
{
    struct image_layout image = linked_image();
    unsigned guards = space_describe(&kernel_table, &image, out, guard);

    out->read_root = read_root;
    return guards;
}
