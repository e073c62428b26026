/* See tests/unit/boot_table.h. */
#include "tests/unit/boot_table.h"

#include <assert.h>
#include <string.h>

void table_put32(struct boot_table *table, size_t offset, uint32_t value)
{
    memcpy(table->bytes + offset, &value, sizeof(value));
}

void table_put64(struct boot_table *table, size_t offset, uint64_t value)
{
    memcpy(table->bytes + offset, &value, sizeof(value));
}

static void append(struct boot_table *table, const void *bytes, size_t n)
{
    assert(n <= sizeof(table->bytes) - table->size);
    if (n > 0)
        memcpy(table->bytes + table->size, bytes, n);
    table->size += n;
}

static void append32(struct boot_table *table, uint32_t value)
{
    append(table, &value, sizeof(value));
}

static void append64(struct boot_table *table, uint64_t value)
{
    append(table, &value, sizeof(value));
}

/* The padding is garbage on purpose: nobody may look at it. */
static size_t tag_start(struct boot_table *table, uint32_t type)
{
    size_t offset;

    while (table->size % 8 != 0)
        append(table, "\xee", 1);
    offset = table->size;
    append32(table, type);
    append32(table, 0);
    return offset;
}

static size_t tag_end(struct boot_table *table, size_t offset)
{
    table_put32(table, offset + 4, (uint32_t)(table->size - offset));
    return offset;
}

void table_start(struct boot_table *table)
{
    table->size = 0;
    append64(table, 0);
}

void table_end(struct boot_table *table)
{
    tag_end(table, tag_start(table, T_END));
    table_put32(table, 0, (uint32_t)table->size);
}

size_t table_tag(struct boot_table *table, uint32_t type, const void *contents, size_t n)
{
    size_t offset = tag_start(table, type);

    append(table, contents, n);
    return tag_end(table, offset);
}

size_t table_text(struct boot_table *table, uint32_t type, const char *text)
{
    return table_tag(table, type, text, strlen(text) + 1);
}

size_t table_module(struct boot_table *table, uint32_t start, uint32_t end, const char *cmdline)
{
    size_t offset = tag_start(table, T_MODULE);

    append32(table, start);
    append32(table, end);
    append(table, cmdline, strlen(cmdline) + 1);
    return tag_end(table, offset);
}

size_t table_basic(struct boot_table *table, uint32_t lower_kib, uint32_t upper_kib)
{
    size_t offset = tag_start(table, T_BASIC);

    append32(table, lower_kib);
    append32(table, upper_kib);
    return tag_end(table, offset);
}

size_t table_framebuffer(struct boot_table *table, uint64_t base, uint32_t pitch, uint32_t width,
                         uint32_t height, uint8_t bits_per_pixel)
{
    size_t offset = tag_start(table, T_FRAMEBUFFER);
    const uint8_t rest[] = {bits_per_pixel, 1, 0, 0, 16, 8, 8, 8, 0, 8};

    append64(table, base);
    append32(table, pitch);
    append32(table, width);
    append32(table, height);
    append(table, rest, sizeof(rest));
    return tag_end(table, offset);
}

size_t table_load_base(struct boot_table *table, uint32_t base)
{
    return table_tag(table, T_LOAD_BASE, &base, sizeof(base));
}

static uint8_t balance(const uint8_t *bytes, size_t n)
{
    uint8_t sum = 0;

    while (n > 0)
        sum = (uint8_t)(sum + bytes[--n]);
    return (uint8_t)-sum;
}

size_t table_rsdp_old(struct boot_table *table, uint32_t rsdt)
{
    uint8_t rsdp[20] = "RSD PTR \0QUIRE \0";

    memcpy(rsdp + 16, &rsdt, sizeof(rsdt));
    rsdp[8] = balance(rsdp, 20);
    return table_tag(table, T_RSDP_OLD, rsdp, sizeof(rsdp));
}

size_t table_rsdp_new(struct boot_table *table, uint32_t rsdt, uint64_t xsdt)
{
    uint8_t rsdp[36] = "RSD PTR \0QUIRE \2";
    const uint32_t length = sizeof(rsdp);

    memcpy(rsdp + 16, &rsdt, sizeof(rsdt));
    memcpy(rsdp + 20, &length, sizeof(length));
    memcpy(rsdp + 24, &xsdt, sizeof(xsdt));
    rsdp[8] = balance(rsdp, 20);
    rsdp[32] = balance(rsdp, 36);
    return table_tag(table, T_RSDP_NEW, rsdp, sizeof(rsdp));
}

size_t table_map(struct boot_table *table, uint32_t entry_size, const struct table_entry *entries,
                 size_t n)
{
    size_t offset = tag_start(table, T_MAP);

    append32(table, entry_size);
    append32(table, 0);
    for (size_t i = 0; i < n; i++) {
        append64(table, entries[i].base);
        append64(table, entries[i].length);
        append32(table, entries[i].type);
        for (uint32_t pad = 20; pad < entry_size; pad++)
            append(table, "\xee", 1);
    }
    return tag_end(table, offset);
}
