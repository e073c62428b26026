/*
 * Builds Multiboot2 boot information for tests, tag by tag, right or deliberately wrong.
 */
#ifndef QUIRE_TESTS_UNIT_BOOT_TABLE_H
#define QUIRE_TESTS_UNIT_BOOT_TABLE_H

#include <stddef.h>
#include <stdint.h>

#define BOOT_TABLE_MAX (1u << 20)

struct boot_table {
    size_t size;
    uint8_t bytes[BOOT_TABLE_MAX];
};

/* The values of tags and memory types that the format defines. */
enum { T_END, T_CMDLINE, T_LOADER, T_MODULE, T_BASIC, T_BOOT_DEVICE, T_MAP, T_VBE, T_FRAMEBUFFER };
enum { T_RSDP_OLD = 14, T_RSDP_NEW = 15, T_LOAD_BASE = 21 };
enum { M_AVAILABLE = 1, M_RESERVED, M_ACPI, M_NVS, M_BAD };

/* Every table starts with table_start() and ends with table_end(). */
void table_start(struct boot_table *table);
void table_end(struct boot_table *table); /* the end tag and the total size */

/* A tag of any type with these contents. Returns the tag's offset. */
size_t table_tag(struct boot_table *table, uint32_t type, const void *contents, size_t n);

size_t table_text(struct boot_table *table, uint32_t type, const char *text);
size_t table_module(struct boot_table *table, uint32_t start, uint32_t end, const char *cmdline);
size_t table_basic(struct boot_table *table, uint32_t lower_kib, uint32_t upper_kib);
size_t table_framebuffer(struct boot_table *table, uint64_t base, uint32_t pitch, uint32_t width,
                         uint32_t height, uint8_t bits_per_pixel);
size_t table_load_base(struct boot_table *table, uint32_t base);

/* Root pointers with good checksums. */
size_t table_rsdp_old(struct boot_table *table, uint32_t rsdt);
size_t table_rsdp_new(struct boot_table *table, uint32_t rsdt, uint64_t xsdt);

/* A memory map whose entries are padded to entry_size (24 or more) with 0xee. */
struct table_entry {
    uint64_t base, length;
    uint32_t type;
};
size_t table_map(struct boot_table *table, uint32_t entry_size, const struct table_entry *entries,
                 size_t n);

/* Overwrites what is there already. */
void table_put32(struct boot_table *table, size_t offset, uint32_t value);
void table_put64(struct boot_table *table, size_t offset, uint64_t value);

#endif
