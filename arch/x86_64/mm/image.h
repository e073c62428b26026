/*
 * The hypervisor's own image in its address space: what the linker script laid out, mapped with the
 * rights that each part needs, and the same frames made harmless in the direct map.
 *
 *              at IMAGE_BASE + physical     in the direct map
 *   text       read, execute                read
 *   rodata     read                         read
 *   data, bss  read, write                  read, write
 *
 * Text and rodata stay readable in the direct map, not absent, so that whoever follows a physical
 * address (the console's peek, a dump of memory) can do so without exceptions for the image.
 */
#ifndef QUIRE_ARCH_X86_64_MM_IMAGE_H
#define QUIRE_ARCH_X86_64_MM_IMAGE_H

#include "mm/paging/table.h"

/* Linked addresses [first, end), multiples of 4 KiB. */
struct image_range {
    uint64_t first, end;
};

struct image_layout {
    struct image_range text, rodata, data;
    uint64_t guard; /* a page within `data` that stays absent: below the boot stack. 0 for none */
};

/* Maps the image, global, at the largest pages its alignment allows. Errors as table_map(). */
int image_map(struct table *table, const struct image_layout *image);

/* Takes the write permission from text and rodata in the direct map, which must hold the image. */
int image_seal(struct table *table, const struct image_layout *image);

#endif
