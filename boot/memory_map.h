/*
 * From boot information to memblock: all RAM with its kinds, and everything in it that is occupied.
 */
#ifndef QUIRE_BOOT_MEMORY_MAP_H
#define QUIRE_BOOT_MEMORY_MAP_H

#include "arch/x86_64/mtrr.h"
#include "boot/multiboot2.h"
#include "mm/frames/memblock.h"

/* That many regions of memory, and as many reserved ones, can be had in any case. */
#define MEMORY_MAP_REGIONS 4096

struct memory_map_input {
    const struct boot_info *info;
    hpa_t info_at;             /* where info->table is in physical memory */
    hpa_t image;               /* the hypervisor's own image ... */
    uint64_t image_size;       /* ... in bytes, bss and boot stack included */
    unsigned maxphyaddr;       /* width of a physical address in bits, 32..52 */
    const struct mtrrs *mtrrs; /* NULL: all memory is write-back */
};

/*
 * Initialises `mb` and fills it. What is reserved, and for which purpose:
 *   PURPOSE_IMAGE     the image
 *   PURPOSE_BOOT      the boot information, each module
 *   PURPOSE_FIRMWARE  the first MiB, the map's ACPI regions, the framebuffer, and, above 1 MiB,
 *                     usable memory that is not write-back by the MTRRs; each piece is logged
 * Where they overlap, the image wins, then firmware. Regions that reach beyond the physical address
 * width are cut or dropped, with a line in the log.
 *
 * The lists of `mb` grow into one static pool, which a second call takes back. E_FULL when that is
 * too small for the map (MEMORY_MAP_REGIONS), E_NOENT
 * when there is no usable memory, E_INVAL for a width outside 32..52; each with a line in the log
 * that says more.
 */
int memory_map_build(struct memblock *mb, const struct memory_map_input *input);

#endif
