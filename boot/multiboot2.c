/*
 * See boot/multiboot2.h. The table is a header of 8 bytes and a row of tags, each at a multiple of
 * 8 from the start, up to and including the end tag:
 *
 *    total size, 0 | type, size, contents, padding | type, size, ... | 0, 8
 *
 * A size counts the tag's header and contents, not the padding. Numbers are little-endian and read
 * byte by byte or by memcpy, so that nothing depends on the table's alignment.
 */
#include "boot/multiboot2.h"

#include "boot/bytes.h"
#include "lib/bits.h"
#include "lib/format.h"
#include "lib/string.h"

/* Tag types (section 3.6). Those not listed are none of our business and passed over. */
enum tag_type {
    TAG_END = 0,
    TAG_CMDLINE = 1,
    TAG_LOADER = 2,
    TAG_MODULE = 3,
    TAG_BASIC_MEMORY = 4,
    TAG_MAP = 6,
    TAG_FRAMEBUFFER = 8,
    TAG_RSDP_OLD = 14,
    TAG_RSDP_NEW = 15,
    TAG_LOAD_BASE = 21,
};

#define HEADER_SIZE 8u
#define TAG_HEADER_SIZE 8u
#define TAG_ALIGN 8u

/* Offsets from the start of a tag, and the least size of each. */
#define STRING_TEXT 8u

#define MODULE_START 8u
#define MODULE_END 12u
#define MODULE_TEXT 16u

#define BASIC_LOWER 8u
#define BASIC_UPPER 12u
#define BASIC_SIZE 16u

#define MAP_ENTRY_SIZE 8u
#define MAP_ENTRIES 16u
#define MAP_ENTRY_BASE 0u
#define MAP_ENTRY_LENGTH 8u
#define MAP_ENTRY_TYPE 16u
#define MAP_ENTRY_LEAST 24u

#define FRAMEBUFFER_ADDRESS 8u
#define FRAMEBUFFER_PITCH 16u
#define FRAMEBUFFER_WIDTH 20u
#define FRAMEBUFFER_HEIGHT 24u
#define FRAMEBUFFER_BPP 28u
#define FRAMEBUFFER_TYPE 29u
#define FRAMEBUFFER_SIZE 30u

#define LOAD_BASE_ADDRESS 8u
#define LOAD_BASE_SIZE 12u

/* The root system description pointer (ACPI 6.5, 5.2.5.3), from its own start. */
#define RSDP_SIGNATURE "RSD PTR "
#define RSDP_REVISION 15u
#define RSDP_RSDT 16u
#define RSDP_OLD_SIZE 20u
#define RSDP_LENGTH 20u
#define RSDP_XSDT 24u
#define RSDP_NEW_SIZE 36u

/* Types in the memory map (section 3.6.8); all others are reserved. */
enum map_type { MAP_AVAILABLE = 1, MAP_ACPI = 3, MAP_NVS = 4, MAP_BAD = 5 };

struct tag {
    const uint8_t *at;
    uint32_t offset, type, size;
};

struct parser {
    struct boot_info *info;
    uint64_t seen; /* bit n: a tag of type n has been there */
    char *why;
    size_t why_size;
};

__attribute__((format(printf, 3, 4))) static int refuse(struct parser *parser, int error,
                                                        const char *text, ...)
{
    va_list args;

    va_start(args, text);
    vformat_buffer(parser->why, parser->why_size, text, args);
    va_end(args);
    return error;
}

/* The names are for messages about tags that are read. */
static const char *tag_name(uint32_t type)
{
    switch (type) {
    case TAG_END:
        return "end";
    case TAG_CMDLINE:
        return "command line";
    case TAG_LOADER:
        return "boot loader name";
    case TAG_MODULE:
        return "module";
    case TAG_BASIC_MEMORY:
        return "basic memory";
    case TAG_MAP:
        return "memory map";
    case TAG_FRAMEBUFFER:
        return "framebuffer";
    case TAG_RSDP_OLD:
        return "old ACPI";
    case TAG_RSDP_NEW:
        return "new ACPI";
    case TAG_LOAD_BASE:
        return "load base";
    default:
        return "unknown";
    }
}

static int check_size(struct parser *parser, const struct tag *tag, uint32_t least)
{
    if (tag->size >= least)
        return E_OK;
    return refuse(parser, E_TRUNC, "the %s tag at 0x%x has %u bytes, needs %u", tag_name(tag->type),
                  tag->offset, tag->size, least);
}

/* The text that fills a tag from `from` to its end, and has its terminator in there. */
static int parse_text(struct parser *parser, const struct tag *tag, uint32_t from,
                      const char **text)
{
    int error = check_size(parser, tag, from + 1);

    if (error != E_OK)
        return error;
    if (memchr(tag->at + from, '\0', tag->size - from) == NULL)
        return refuse(parser, E_TRUNC,
                      "the text of the %s tag at 0x%x does not end within the "
                      "tag's %u bytes",
                      tag_name(tag->type), tag->offset, tag->size);
    *text = (const char *)tag->at + from;
    return E_OK;
}

static int parse_module(struct parser *parser, const struct tag *tag)
{
    const char *text;
    int error = parse_text(parser, tag, MODULE_TEXT, &text);

    if (error != E_OK)
        return error;
    if (read32(tag->at + MODULE_END) < read32(tag->at + MODULE_START))
        return refuse(parser, E_FORMAT,
                      "the module at tag 0x%x ends at 0x%x, before its start "
                      "0x%x",
                      tag->offset, read32(tag->at + MODULE_END), read32(tag->at + MODULE_START));
    parser->info->modules++;
    return E_OK;
}

static int parse_basic_memory(struct parser *parser, const struct tag *tag)
{
    int error = check_size(parser, tag, BASIC_SIZE);

    if (error != E_OK)
        return error;
    parser->info->has_basic_memory = true;
    parser->info->lower_kib = read32(tag->at + BASIC_LOWER);
    parser->info->upper_kib = read32(tag->at + BASIC_UPPER);
    return E_OK;
}

static int parse_map(struct parser *parser, const struct tag *tag)
{
    uint32_t bytes, entry_size, entries;
    int error = check_size(parser, tag, MAP_ENTRIES);

    if (error != E_OK)
        return error;
    bytes = tag->size - MAP_ENTRIES;
    entry_size = read32(tag->at + MAP_ENTRY_SIZE);
    if (entry_size < MAP_ENTRY_LEAST)
        return refuse(parser, E_FORMAT,
                      "the memory map has entries of %u bytes; an entry has at "
                      "least %u",
                      entry_size, MAP_ENTRY_LEAST);
    if (bytes % entry_size != 0)
        return refuse(parser, E_FORMAT,
                      "the memory map has %u bytes, no multiple of its entries' "
                      "%u",
                      bytes, entry_size);

    entries = bytes / entry_size;
    for (uint32_t i = 0; i < entries; i++) {
        const uint8_t *entry = tag->at + MAP_ENTRIES + (size_t)i * entry_size;
        uint64_t base = read64(entry + MAP_ENTRY_BASE), length = read64(entry + MAP_ENTRY_LENGTH);

        /* It may end at 2^64 exactly. */
        if (length != 0 && base + (length - 1) < base)
            return refuse(parser, E_FORMAT,
                          "memory map entry %u, 0x%lx bytes at 0x%lx, wraps past "
                          "the end of the address space",
                          i, length, base);
    }
    parser->info->map = tag->at + MAP_ENTRIES;
    parser->info->map_entries = entries;
    parser->info->map_entry_size = entry_size;
    return E_OK;
}

static int parse_framebuffer(struct parser *parser, const struct tag *tag)
{
    struct boot_framebuffer framebuffer = {.present = true};
    int error = check_size(parser, tag, FRAMEBUFFER_SIZE);

    if (error != E_OK)
        return error;
    framebuffer.base = hpa(read64(tag->at + FRAMEBUFFER_ADDRESS));
    framebuffer.pitch = read32(tag->at + FRAMEBUFFER_PITCH);
    framebuffer.width = read32(tag->at + FRAMEBUFFER_WIDTH);
    framebuffer.height = read32(tag->at + FRAMEBUFFER_HEIGHT);
    framebuffer.bits_per_pixel = tag->at[FRAMEBUFFER_BPP];
    framebuffer.type = tag->at[FRAMEBUFFER_TYPE];
    framebuffer.size = (uint64_t)framebuffer.pitch * framebuffer.height;
    if (framebuffer.size != 0 && framebuffer.base.v + (framebuffer.size - 1) < framebuffer.base.v)
        return refuse(parser, E_FORMAT,
                      "the framebuffer, 0x%lx bytes at 0x%lx, wraps past the end "
                      "of the address space",
                      framebuffer.size, framebuffer.base.v);
    parser->info->framebuffer = framebuffer;
    return E_OK;
}

static bool sums_to_zero(const uint8_t *bytes, uint32_t n)
{
    uint8_t sum = 0;

    for (uint32_t i = 0; i < n; i++)
        sum = (uint8_t)(sum + bytes[i]);
    return sum == 0;
}

/* Both ACPI tags hold a copy of the root pointer; the new one is longer and says how long. */
static int parse_rsdp(struct parser *parser, const struct tag *tag)
{
    const uint8_t *rsdp = tag->at + TAG_HEADER_SIZE;
    bool is_new = tag->type == TAG_RSDP_NEW;
    uint32_t least = is_new ? RSDP_NEW_SIZE : RSDP_OLD_SIZE;
    uint32_t length = RSDP_OLD_SIZE;
    int error = check_size(parser, tag, TAG_HEADER_SIZE + least);

    if (error != E_OK)
        return error;
    if (memcmp(rsdp, RSDP_SIGNATURE, sizeof(RSDP_SIGNATURE) - 1) != 0)
        return refuse(parser, E_FORMAT,
                      "the %s tag at 0x%x does not hold a root pointer: it must "
                      "start with \"" RSDP_SIGNATURE "\"",
                      tag_name(tag->type), tag->offset);
    if (is_new) {
        length = read32(rsdp + RSDP_LENGTH);
        if (length < RSDP_NEW_SIZE || length > tag->size - TAG_HEADER_SIZE)
            return refuse(parser, E_FORMAT,
                          "the root pointer of the %s tag at 0x%x gives its "
                          "length as %u; %u to %u is possible",
                          tag_name(tag->type), tag->offset, length, RSDP_NEW_SIZE,
                          tag->size - TAG_HEADER_SIZE);
    }
    /* The new checksum is over the whole, and the old one, over the first 20 bytes, still holds. */
    if (!sums_to_zero(rsdp, RSDP_OLD_SIZE) || !sums_to_zero(rsdp, length))
        return refuse(parser, E_FORMAT,
                      "the bytes of the root pointer in the %s tag at 0x%x must "
                      "sum to 0 modulo 256",
                      tag_name(tag->type), tag->offset);

    /* The new one says more, whichever order they come in. */
    if (!is_new && (parser->seen & BIT(TAG_RSDP_NEW)))
        return E_OK;
    parser->info->rsdp = (struct boot_rsdp){
        .present = true,
        .revision = rsdp[RSDP_REVISION],
        .rsdt = hpa(read32(rsdp + RSDP_RSDT)),
        .xsdt = hpa(is_new ? read64(rsdp + RSDP_XSDT) : 0),
    };
    return E_OK;
}

static int parse_load_base(struct parser *parser, const struct tag *tag)
{
    int error = check_size(parser, tag, LOAD_BASE_SIZE);

    if (error != E_OK)
        return error;
    parser->info->has_load_base = true;
    parser->info->load_base = hpa(read32(tag->at + LOAD_BASE_ADDRESS));
    return E_OK;
}

/* Two modules are two modules; of these a second tag would contradict the first. */
static int note_seen(struct parser *parser, const struct tag *tag)
{
    const uint64_t single = BIT(TAG_CMDLINE) | BIT(TAG_LOADER) | BIT(TAG_BASIC_MEMORY) |
                            BIT(TAG_MAP) | BIT(TAG_FRAMEBUFFER) | BIT(TAG_RSDP_OLD) |
                            BIT(TAG_RSDP_NEW) | BIT(TAG_LOAD_BASE);

    if (tag->type >= 64 || !(single & BIT(tag->type)))
        return E_OK;
    if (parser->seen & BIT(tag->type))
        return refuse(parser, E_FORMAT, "a second %s tag at 0x%x; there may be one",
                      tag_name(tag->type), tag->offset);
    parser->seen |= BIT(tag->type);
    return E_OK;
}

static int parse_tag(struct parser *parser, const struct tag *tag)
{
    int error = note_seen(parser, tag);

    if (error != E_OK)
        return error;
    switch (tag->type) {
    case TAG_CMDLINE:
        return parse_text(parser, tag, STRING_TEXT, &parser->info->cmdline);
    case TAG_LOADER:
        return parse_text(parser, tag, STRING_TEXT, &parser->info->loader);
    case TAG_MODULE:
        return parse_module(parser, tag);
    case TAG_BASIC_MEMORY:
        return parse_basic_memory(parser, tag);
    case TAG_MAP:
        return parse_map(parser, tag);
    case TAG_FRAMEBUFFER:
        return parse_framebuffer(parser, tag);
    case TAG_RSDP_OLD:
    case TAG_RSDP_NEW:
        return parse_rsdp(parser, tag);
    case TAG_LOAD_BASE:
        return parse_load_base(parser, tag);
    default:
        return E_OK;
    }
}

/* The tag at `offset`, whole within the table; its contents are not looked at. */
static int read_tag(struct parser *parser, uint64_t offset, struct tag *tag)
{
    const struct boot_info *info = parser->info;

    if (offset > info->size || info->size - offset < TAG_HEADER_SIZE)
        return refuse(parser, E_TRUNC, "its %u bytes are over at 0x%lx without an end tag",
                      info->size, offset);
    tag->offset = (uint32_t)offset;
    tag->at = info->table + offset;
    tag->type = read32(tag->at);
    tag->size = read32(tag->at + 4);
    if (tag->size < TAG_HEADER_SIZE)
        return refuse(parser, E_FORMAT,
                      "the tag of type %u at 0x%lx has a size of %u; a tag has "
                      "at least %u bytes",
                      tag->type, offset, tag->size, TAG_HEADER_SIZE);
    if (tag->size > info->size - offset)
        return refuse(parser, E_TRUNC,
                      "the tag of type %u at 0x%lx has a size of %u; the table "
                      "has %lu bytes left",
                      tag->type, offset, tag->size, info->size - offset);
    return E_OK;
}

int multiboot2_parse(const void *table, uint64_t limit, struct boot_info *info, char *why,
                     size_t why_size)
{
    struct parser parser = {.info = info, .why = why, .why_size = why_size};
    struct tag tag;
    int error;

    *info = (struct boot_info){.table = table, .cmdline = "", .loader = ""};
    if (limit < HEADER_SIZE + TAG_HEADER_SIZE)
        return refuse(&parser, E_TRUNC, "only %lu bytes of it can be read; the smallest has %u",
                      limit, HEADER_SIZE + TAG_HEADER_SIZE);
    info->size = read32(table);
    if (info->size < HEADER_SIZE + TAG_HEADER_SIZE)
        return refuse(&parser, E_FORMAT, "it gives its size as %u bytes; the smallest has %u",
                      info->size, HEADER_SIZE + TAG_HEADER_SIZE);
    if (info->size > limit)
        return refuse(&parser, E_TRUNC, "it gives its size as %u bytes; it may have at most %lu",
                      info->size, limit);

    for (uint64_t offset = HEADER_SIZE;; offset = align_up(offset + tag.size, TAG_ALIGN)) {
        error = read_tag(&parser, offset, &tag);
        if (error == E_OK)
            error = parse_tag(&parser, &tag);
        if (error != E_OK)
            return error;
        if (tag.type == TAG_END)
            return E_OK;
    }
}

bool boot_module_next(const struct boot_info *info, uint32_t *cursor, struct boot_module *module)
{
    uint32_t offset = *cursor == 0 ? HEADER_SIZE : *cursor;

    /* multiboot2_parse() has seen every size up to the end tag. */
    for (;;) {
        const uint8_t *tag = info->table + offset;
        uint32_t type = read32(tag);

        if (type == TAG_END)
            return false;
        offset = (uint32_t)align_up((uint64_t)offset + read32(tag + 4), TAG_ALIGN);
        if (type != TAG_MODULE)
            continue;
        *cursor = offset;
        module->base = hpa(read32(tag + MODULE_START));
        module->size = read32(tag + MODULE_END) - read32(tag + MODULE_START);
        module->cmdline = (const char *)tag + MODULE_TEXT;
        return true;
    }
}

static enum mem_kind kind_of_type(uint32_t type)
{
    switch (type) {
    case MAP_AVAILABLE:
        return MEMKIND_USABLE;
    case MAP_ACPI:
        return MEMKIND_ACPI_RECLAIMABLE;
    case MAP_NVS:
        return MEMKIND_ACPI_NVS;
    case MAP_BAD:
        return MEMKIND_BAD;
    default:
        return MEMKIND_RESERVED;
    }
}

/* Entry number `index` of the map, or of the two that the basic memory information stands for.
 * False beyond the last. */
static bool read_region(const struct boot_info *info, uint32_t index, struct boot_region *region)
{
    if (info->map != NULL) {
        const uint8_t *entry;

        if (index >= info->map_entries)
            return false;
        entry = info->map + (size_t)index * info->map_entry_size;
        region->base = read64(entry + MAP_ENTRY_BASE);
        region->size = read64(entry + MAP_ENTRY_LENGTH);
        region->type = read32(entry + MAP_ENTRY_TYPE);
    } else {
        if (!info->has_basic_memory || index >= 2)
            return false;
        region->base = index == 0 ? 0 : MiB;
        region->size = (index == 0 ? info->lower_kib : info->upper_kib) * KiB;
        region->type = MAP_AVAILABLE;
    }
    region->kind = kind_of_type(region->type);
    return true;
}

bool boot_region_next(const struct boot_info *info, uint32_t *cursor, struct boot_region *region)
{
    while (read_region(info, *cursor, region)) {
        (*cursor)++;
        if (region->size != 0)
            return true;
    }
    return false;
}
