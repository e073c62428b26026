/*
 * The parts of Multiboot 1 (specification 0.6.96) that the test guests look at.
 */
#ifndef QUIRE_GUESTS_MULTIBOOT1_H
#define QUIRE_GUESTS_MULTIBOOT1_H

#include <stdint.h>

#define MULTIBOOT_LOADED 0x2BADB002u

#define MULTIBOOT_INFO_MEMORY (1u << 0)
#define MULTIBOOT_INFO_CMDLINE (1u << 2)
#define MULTIBOOT_INFO_MODULES (1u << 3)
#define MULTIBOOT_INFO_MMAP (1u << 6)

#define MULTIBOOT_MEMORY_AVAILABLE 1

struct multiboot_info {
    uint32_t flags;
    uint32_t mem_lower, mem_upper; /* KiB */
    uint32_t boot_device;
    uint32_t cmdline;
    uint32_t mods_count, mods_addr;
    uint32_t syms[4];
    uint32_t mmap_length, mmap_addr;
};

struct multiboot_module {
    uint32_t start, end; /* end is the first byte behind it */
    uint32_t string;
    uint32_t reserved;
};

struct __attribute__((packed)) multiboot_mmap {
    uint32_t size; /* of the rest of this entry */
    uint64_t base, length;
    uint32_t type;
};

#endif
