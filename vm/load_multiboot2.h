/*
 * Multiboot 2 (specification 2.0): what its header and its information have in common for
 * vm/load_multiboot2.c, which reads the one, and vm/load_multiboot2_info.c, which writes the other.
 */
#ifndef QUIRE_VM_LOAD_MULTIBOOT2_H
#define QUIRE_VM_LOAD_MULTIBOOT2_H

#include "vm/load_parts.h"

/* Types of the information's tags, section 3.6. */
enum {
    MB2_END = 0,
    MB2_CMDLINE = 1,
    MB2_LOADER_NAME = 2,
    MB2_MODULE = 3,
    MB2_MEMORY = 4,
    MB2_MAP = 6,
    MB2_FRAMEBUFFER = 8,
    MB2_SECTIONS = 9,
    MB2_ACPI_OLD = 14,
    MB2_ACPI_NEW = 15,
    MB2_LOAD_BASE = 21,
    MB2_KNOWN_LAST = 21, /* the highest type that the specification has */
};

/* Writes the information: `load_base` counts where `moved`. RBX is its address. */
int multiboot2_write_info(struct loader *loader, const struct load_sections *sections, bool moved,
                          uint64_t load_base);

#endif
