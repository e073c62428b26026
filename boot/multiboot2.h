/*
 * The Multiboot2 boot information: what the boot loader tells of the machine and hands over.
 *
 * multiboot2_parse() checks the whole table once; the iterators then read modules and memory
 * regions straight from it, so there is no limit on their number and nothing is copied. The table
 * must stay where it is, and unchanged, for as long as the boot_info is used. No allocation; runs
 * hosted too. (Multiboot2 specification 2.0, "Boot information format".)
 */
#ifndef QUIRE_BOOT_MULTIBOOT2_H
#define QUIRE_BOOT_MULTIBOOT2_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/error.h"
#include "mm/addr.h"
#include "mm/frames/memblock.h"

/* In EAX at the entry point. */
#define MULTIBOOT2_BOOT_MAGIC 0x36d76289u

/* Boot information larger than this is taken for garbage by callers that know no better bound. */
#define MULTIBOOT2_SIZE_MAX (1u << 20)

/* Room for any message of multiboot2_parse(). */
#define MULTIBOOT2_WHY 160

struct boot_framebuffer {
    bool present;
    hpa_t base;
    uint64_t size; /* bytes: pitch times height */
    uint32_t width, height, pitch;
    uint8_t bits_per_pixel;
    uint8_t type; /* 0 indexed, 1 direct RGB, 2 EGA text */
};

/* The ACPI root pointer. The loader passes a copy of it, so its own address is not known. */
struct boot_rsdp {
    bool present;
    uint8_t revision; /* 0: ACPI 1.0; 2 and more: has an XSDT */
    hpa_t rsdt;       /* 0 when there is none */
    hpa_t xsdt;       /* 0 when there is none */
};

struct boot_info {
    const uint8_t *table;
    uint32_t size;       /* bytes of the table */
    const char *cmdline; /* of the kernel; "" when the loader gave none */
    const char *loader;  /* the boot loader's name; "" likewise */
    bool has_load_base;
    hpa_t load_base; /* where the image was loaded, for a relocatable one */
    struct boot_rsdp rsdp;
    struct boot_framebuffer framebuffer;

    bool has_basic_memory;
    uint32_t lower_kib, upper_kib; /* from 0, and from 1 MiB up to the first hole */

    uint32_t modules; /* how many there are */

    /* The memory map, inside the table; NULL when the loader gave none. */
    const uint8_t *map;
    uint32_t map_entries, map_entry_size;
};

/*
 * Checks the table at `table` completely and fills `info`. No byte beyond table + limit is read.
 * The table may have any alignment.
 *
 * On error `why` (of why_size bytes) says what was found, what is wrong with it and what would be
 * right, and `info` holds nothing of use. E_TRUNC: the table, or something in it, ends beyond its
 * container. E_FORMAT: it contradicts the format or itself; a tag that may come once and comes
 * twice, too.
 */
int multiboot2_parse(const void *table, uint64_t limit, struct boot_info *info, char *why,
                     size_t why_size);

struct boot_module {
    hpa_t base;
    uint64_t size;       /* bytes, may be 0 */
    const char *cmdline; /* in the table, terminated */
};

/* The next module in the loader's order. *cursor is 0 for the first one and belongs to the
 * iterator. False when there is none left. */
bool boot_module_next(const struct boot_info *info, uint32_t *cursor, struct boot_module *module);

struct boot_region {
    uint64_t base, size; /* bytes, not aligned to anything; size is never 0 */
    enum mem_kind kind;
    uint32_t type; /* the loader's number */
};

/* The next region of the memory map, in the loader's order, which need not be sorted nor free of
 * overlaps; empty entries are passed over. Without a map the two regions that the basic memory
 * information stands for. */
bool boot_region_next(const struct boot_info *info, uint32_t *cursor, struct boot_region *region);

#endif
