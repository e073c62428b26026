/*
 * Multiboot 2 images (Multiboot2 Specification 2.0): ELF files of both classes, or any format whose
 * header has the address tag, entered in 32-bit mode as section 3.5 says. An image with the
 * relocatable tag goes where the tag says.
 *
 * A tag that is not optional has to be understood, or the image is refused (3.1.3). Those of EFI's
 * entry points count on EFI alone, and are passed over (3.1.8, 3.1.9).
 */
#include "vm/load_multiboot2.h"

#include "lib/bits.h"
#include "lib/error.h"
#include "lib/format.h"
#include "lib/string.h"

#define MB2_SEARCH 32768
#define MB2_SEARCH_LATE 0x100000 /* where one is looked for to say what is wrong with its place */
#define MB2_ALIGN 8
#define MB2_MAGIC 0xe85250d6u
#define MB2_LOADED 0x36d76289u
#define MB2_I386 0
#define MB2_TAGS_MOST 64

#define OPTIONAL BIT(0)
#define CONSOLE_REQUIRED BIT(0)
#define CONSOLE_TEXT BIT(1)
#define LOAD_WHOLE_FILE UINT32_MAX /* load_addr: from the file's first byte on */
enum { PREFER_NOTHING, PREFER_LOWEST, PREFER_HIGHEST };

/* Section 3.1.2 "The magic fields of Multiboot2 header" and 3.1.3 "General tag structure". */
struct header {
    uint32_t magic, architecture, length, checksum;
};
struct tag {
    uint16_t type, flags;
    uint32_t size; /* its own head included, not what aligns the next */
};

/* The tags that matter, by their types. */
enum {
    TAG_END = 0,
    TAG_REQUEST = 1,
    TAG_ADDRESS = 2,
    TAG_ENTRY = 3,
    TAG_CONSOLE = 4,
    TAG_FRAMEBUFFER = 5,
    TAG_ALIGN = 6,
    TAG_EFI_SERVICES = 7,
    TAG_EFI32_ENTRY = 8,
    TAG_EFI64_ENTRY = 9,
    TAG_RELOCATABLE = 10,
    TAG_COUNT
};

struct request {
    uint64_t offset; /* of the header in the file */
    bool has[TAG_COUNT];
    bool needs_graphics;
    uint32_t address[4]; /* header, load, load end, bss end */
    uint32_t entry, console;
    uint32_t move[4]; /* lowest, highest, alignment, preference */
};

/* Offset of the first right header below `limit`, or else of the first that has the magic. */
static bool find_header(const uint8_t *bytes, uint64_t size, uint64_t limit, uint64_t *offset,
                        struct header *out)
{
    uint64_t end = size < limit ? size : limit;
    bool found = false;

    for (uint64_t at = 0; at + sizeof(*out) <= end; at += 4) {
        struct header header;
        bool right;

        memcpy(&header, bytes + at, sizeof(header));
        if (header.magic != MB2_MAGIC)
            continue;
        right = header.magic + header.architecture + header.length + header.checksum == 0 &&
                header.architecture == MB2_I386 && at % MB2_ALIGN == 0;
        if (right || !found) {
            *offset = at;
            *out = header;
        }
        found = true;
        if (right)
            break;
    }
    return found;
}

static const char *header_fault(uint64_t at, const struct header *header)
{
    if (header->magic + header->architecture + header->length + header->checksum != 0)
        return "has a wrong checksum: magic, architecture, length and checksum must add up to 0";
    if (header->architecture != MB2_I386)
        return "is for another architecture than i386 (0)";
    if (at % MB2_ALIGN != 0)
        return "is not aligned to 8 bytes";
    return NULL;
}

enum load_verdict multiboot2_recognise(const uint8_t *bytes, uint64_t size, char *why,
                                       size_t why_size)
{
    struct header header;
    const char *fault;
    uint64_t offset;

    if (find_header(bytes, size, MB2_SEARCH, &offset, &header)) {
        fault = header_fault(offset, &header);
        if (fault == NULL)
            return LOAD_YES;
        format_buffer(why, why_size, "the Multiboot 2 header at 0x%lx %s", offset, fault);
        return LOAD_NEARLY;
    }
    if (find_header(bytes, size, MB2_SEARCH_LATE, &offset, &header) &&
        header_fault(offset, &header) == NULL) {
        format_buffer(why, why_size,
                      "the Multiboot 2 header at 0x%lx lies beyond the first 32 KiB: link with ld "
                      "-n, its section first",
                      offset);
        return LOAD_NEARLY;
    }
    format_buffer(why, why_size, "no 0xe85250d6 in its first 32 KiB");
    return LOAD_NO;
}

static int refuse_tag(struct loader *loader, const struct tag *tag, const char *what)
{
    return load_refuse(loader, E_UNSUPPORTED,
                       "tag %u of the Multiboot 2 header %s: set bit 0 of its flags, optional, if "
                       "it can be done without",
                       tag->type, what);
}

/* 3.1.4: what the specification has is given, or known not to be on such a machine, as GRUB takes
 * it. */
static int read_request(struct loader *loader, const struct tag *tag, const uint8_t *bytes)
{
    for (uint32_t at = 0; at + 4 <= tag->size - sizeof(*tag); at += 4) {
        uint32_t type;

        memcpy(&type, bytes + at, sizeof(type));
        if (type > MB2_KNOWN_LAST && !(tag->flags & OPTIONAL))
            return load_refuse(
                loader, E_UNSUPPORTED,
                "the Multiboot 2 header demands information of type %u, which nobody "
                "has defined",
                type);
    }
    return E_OK;
}

/* How many bytes a tag has behind its head, at least. */
static uint32_t tag_content(unsigned type)
{
    static const uint8_t content[TAG_COUNT] = {
        [TAG_ADDRESS] = 16,     [TAG_ENTRY] = 4,        [TAG_CONSOLE] = 4,
        [TAG_FRAMEBUFFER] = 12, [TAG_RELOCATABLE] = 16,
    };
    return type < TAG_COUNT ? content[type] : 0;
}

static int read_tag(struct loader *loader, const struct tag *tag, const uint8_t *bytes,
                    struct request *out)
{
    bool optional = tag->flags & OPTIONAL;

    if (tag->size - sizeof(*tag) < tag_content(tag->type))
        return load_refuse(loader, E_FORMAT,
                           "tag %u of the Multiboot 2 header has only %u bytes: it takes %lu",
                           tag->type, tag->size, tag_content(tag->type) + sizeof(*tag));
    switch (tag->type) {
    case TAG_REQUEST:
        return read_request(loader, tag, bytes);
    case TAG_ADDRESS:
        memcpy(out->address, bytes, sizeof(out->address));
        break;
    case TAG_ENTRY:
        memcpy(&out->entry, bytes, sizeof(out->entry));
        break;
    case TAG_CONSOLE:
        memcpy(&out->console, bytes, sizeof(out->console));
        break;
    case TAG_FRAMEBUFFER:
        out->needs_graphics = !optional;
        break;
    case TAG_RELOCATABLE:
        memcpy(out->move, bytes, sizeof(out->move));
        break;
    case TAG_EFI_SERVICES:
        if (!optional)
            return refuse_tag(loader, tag, "demands EFI's boot services, which no guest has");
        break;
    case TAG_ALIGN: /* modules always are */
    case TAG_EFI32_ENTRY:
    case TAG_EFI64_ENTRY:
        break;
    default:
        return optional ? E_OK : refuse_tag(loader, tag, "is unknown, and not optional");
    }
    out->has[tag->type] = true;
    return E_OK;
}

static int read_tags(struct loader *loader, const struct header *header, struct request *out)
{
    uint64_t at = sizeof(*header), end = header->length;
    struct tag tag;

    if (end > loader->size - out->offset || out->offset + end > MB2_SEARCH)
        return load_refuse(loader, E_TRUNC,
                           "the Multiboot 2 header's 0x%lx bytes do not lie in the file's first 32 "
                           "KiB: is the file whole?",
                           end);
    for (unsigned i = 0; i < MB2_TAGS_MOST && at <= end && end - at >= sizeof(tag); i++) {
        const uint8_t *bytes = loader->bytes + out->offset + at;
        int error;

        memcpy(&tag, bytes, sizeof(tag));
        if (tag.type == TAG_END)
            return E_OK;
        if (tag.size < sizeof(tag) || tag.size > end - at)
            return load_refuse(loader, E_FORMAT,
                               "tag %u of the Multiboot 2 header, %u bytes, reaches beyond the "
                               "header's end",
                               tag.type, tag.size);
        error = read_tag(loader, &tag, bytes + sizeof(tag), out);
        if (error != E_OK)
            return error;
        at += align_up(tag.size, MB2_ALIGN);
    }
    return load_refuse(loader, E_FORMAT,
                       "the Multiboot 2 header ends without its end tag (type 0, size 8)");
}

/* 3.1.10, 3.1.11: there is a text screen, if any. */
static int check_screen(struct loader *loader, const struct request *request)
{
    bool text = !request->has[TAG_CONSOLE] || request->console & CONSOLE_TEXT;

    if (request->needs_graphics && !(request->has[TAG_CONSOLE] && text))
        return load_refuse(
            loader, E_UNSUPPORTED,
            "the Multiboot 2 header demands a graphics mode, and a guest's screen is "
            "text: make tag 5 optional, or say in tag 4 that text will do");
    if (!(request->console & CONSOLE_REQUIRED) || (loader->pc && text))
        return E_OK;
    return load_refuse(loader, E_UNSUPPORTED,
                       "the Multiboot 2 header demands a console, and %s: clear bit 0 of tag 4",
                       loader->pc ? "a guest's screen is text alone" : "a `bare` guest has none");
}

/* 3.1.7 "Relocatable header tag". *at: where [first, last] is to begin. */
static int find_place(struct loader *loader, const struct request *request, uint64_t first,
                      uint64_t last, uint64_t *at)
{
    uint64_t size = last - first + 1, align = request->move[2] != 0 ? request->move[2] : 1;
    uint64_t lowest = request->move[0], highest = request->move[1];
    int error;

    if (align & (align - 1))
        return load_refuse(loader, E_FORMAT,
                           "the Multiboot 2 header's alignment 0x%lx is no power of two", align);
    if (lowest < LOAD_LOW_FIRST) /* vectors and BIOS data */
        lowest = LOAD_LOW_FIRST;
    *at = first;
    if (request->move[3] == PREFER_NOTHING && is_aligned(first, align) && first >= lowest &&
        last <= highest && load_is_free(loader, first, last))
        return E_OK;
    if (request->move[3] == PREFER_HIGHEST)
        error = load_find_highest(loader, size, align, lowest, highest, at);
    else
        error = load_find(loader, size, align, lowest, highest, at);
    if (error == E_OK)
        return E_OK;
    return load_refuse(
        loader, error,
        "no room for the image's 0x%lx bytes within 0x%x..0x%x, where its Multiboot 2 "
        "header wants it: mem= gives more",
        size, request->move[0], request->move[1]);
}

/* Where the image has been loaded. */
struct placed {
    struct load_elf elf;
    struct load_sections sections; /* of `elf` */
    uint64_t base, offset;         /* its first byte; how far it was moved, modulo 2^64 */
    uint64_t entry;
};

static int place_text(struct loader *loader, const struct request *request, struct placed *out)
{
    struct load_addresses addresses = {
        .offset = request->offset,
        .header = request->address[0],
        .load = request->address[1],
        .load_end = request->address[2],
        .bss_end = request->address[3],
    };
    struct load_text text = {0};
    int error;

    loader->kind = "Multiboot2 by addresses";
    if (!request->has[TAG_ENTRY])
        return load_refuse(loader, E_FORMAT,
                           "the Multiboot 2 header has the address tag (2) without the entry "
                           "address tag (3)");
    if (addresses.load == LOAD_WHOLE_FILE)
        addresses.load = addresses.header - (uint32_t)request->offset;
    error = load_by_addresses(loader, &addresses, &text);
    out->base = text.at;
    if (error == E_OK && request->has[TAG_RELOCATABLE] && text.memory_size != 0)
        error = find_place(loader, request, text.at, text.at + text.memory_size - 1, &out->base);
    out->offset = out->base - text.at;
    if (error != E_OK)
        return error;
    loader->image_end = out->base + text.memory_size;
    return load_place(loader, out->base, text.bytes, text.file_size, text.memory_size, "the image");
}

static int place_elf(struct loader *loader, const struct request *request, struct placed *out)
{
    struct load_elf *elf = &out->elf;
    int error = load_elf_read(loader, request->has[TAG_RELOCATABLE], elf);

    loader->kind = elf->elf.is64 ? "Multiboot2 ELF64" : "Multiboot2 ELF32";
    if (error == E_OK && !request->has[TAG_ENTRY])
        error = load_elf_entry(loader, elf, &out->entry);
    out->base = elf->first;
    if (error == E_OK && request->has[TAG_RELOCATABLE])
        error = find_place(loader, request, elf->first, elf->last, &out->base);
    if (error != E_OK)
        return error;
    out->offset = out->base - elf->first;
    out->sections = load_sections_of(&elf->elf);
    error = load_elf_place(loader, elf, out->offset);
    if (error == E_OK && request->has[TAG_RELOCATABLE])
        load_claim(loader, out->base, out->base + (elf->last - elf->first));
    return error;
}

int load_multiboot2(struct loader *loader)
{
    struct request request = {0};
    struct placed placed = {0};
    struct header header;
    int error;

    memset(&loader->state, 0, sizeof(loader->state));
    if (!find_header(loader->bytes, loader->size, MB2_SEARCH, &request.offset, &header))
        return load_refuse(loader, E_FORMAT, "no Multiboot 2 header in the first 32 KiB");
    error = read_tags(loader, &header, &request);
    if (error == E_OK)
        error = check_screen(loader, &request);
    if (error != E_OK)
        return error;
    placed.entry = request.entry;
    if (request.has[TAG_ADDRESS])
        error = place_text(loader, &request, &placed);
    else
        error = place_elf(loader, &request, &placed);
    if (error == E_OK)
        error = load_pc_area(loader, false);
    if (error != E_OK)
        return error;
    /* Section 3.5 "I386 machine state". */
    load_enter_flat32(&loader->state, LOAD_CODE, LOAD_DATA);
    loader->state.rip = placed.entry + placed.offset;
    loader->state.gpr[RAX] = MB2_LOADED;
    loader->state.gpr[RSP] = LOAD_STACK;
    if (loader->state.rip > LOAD_LAST_32BIT)
        return load_refuse(loader, E_RANGE,
                           "the entry point 0x%lx, moved with the image, cannot be reached in "
                           "32-bit mode",
                           loader->state.rip);
    return multiboot2_write_info(loader, &placed.sections, request.has[TAG_RELOCATABLE],
                                 placed.base);
}
