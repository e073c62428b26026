/*
 * What an image is: each format is told by its own mark. Where none fits, the refusal says what it
 * nearly is, and the details say of each format why not.
 */
#include "lib/bits.h"
#include "lib/error.h"
#include "lib/format.h"
#include "lib/string.h"
#include "vm/load_parts.h"

#define WHY 160

/* "MZ", and at the offset that 0x3c holds, "PE" and two zeroes (Microsoft PE format, "MS-DOS Stub",
 * "Signature"). Linux's kernels have that as well: they are asked first. */
#define PE_POINTER 0x3c

static const struct packing {
    const char *name, *unpack; /* name: with its article */
    uint8_t length, magic[6];
} packings[] = {
    {"a gzip", "gunzip", 3, {0x1f, 0x8b, 8}},
    {"an xz", "unxz", 6, {0xfd, '7', 'z', 'X', 'Z', 0}},
    {"a zstd", "unzstd", 4, {0x28, 0xb5, 0x2f, 0xfd}},
    {"a bzip2", "bunzip2", 3, {'B', 'Z', 'h'}},
    {"an lz4", "unlz4", 4, {0x04, 0x22, 0x4d, 0x18}},
    {"an lz4", "unlz4", 4, {0x02, 0x21, 0x4c, 0x18}},
    {"an lzip", "lunzip", 4, {'L', 'Z', 'I', 'P'}},
};

static const struct packing *packing_of(const uint8_t *bytes, uint64_t size)
{
    for (unsigned i = 0; i < ARRAY_SIZE(packings); i++) {
        const struct packing *packing = &packings[i];
        if (size >= packing->length && memcmp(bytes, packing->magic, packing->length) == 0)
            return packing;
    }
    return NULL;
}

static enum load_verdict packed_recognise(const uint8_t *bytes, uint64_t size, char *why,
                                          size_t why_size)
{
    (void)why;
    (void)why_size;
    return packing_of(bytes, size) != NULL ? LOAD_YES : LOAD_NO;
}

static int refuse_packed(struct loader *loader)
{
    const struct packing *packing = packing_of(loader->bytes, loader->size);

    return load_refuse(loader, E_UNSUPPORTED, "%s file: unpack it first, by %s", packing->name,
                       packing->unpack);
}

static enum load_verdict efi_recognise(const uint8_t *bytes, uint64_t size, char *why,
                                       size_t why_size)
{
    uint32_t at;

    (void)why;
    (void)why_size;
    if (size < PE_POINTER + sizeof(at) || memcmp(bytes, "MZ", 2) != 0)
        return LOAD_NO;
    memcpy(&at, bytes + PE_POINTER, sizeof(at));
    return at <= size && size - at >= 4 && memcmp(bytes + at, "PE\0", 4) == 0 ? LOAD_YES : LOAD_NO;
}

static int refuse_efi(struct loader *loader)
{
    return load_refuse(loader, E_UNSUPPORTED,
                       "an EFI program, and a guest has no EFI firmware: its build for a PC's BIOS "
                       "or for Multiboot would do");
}

static int load_as_linux(struct loader *loader)
{
    return linux_has_entry32(loader) ? load_linux(loader) : load_linux16(loader);
}

/* An ELF file that none of the formats before it took. */
static enum load_verdict elf_nearly(const uint8_t *bytes, uint64_t size, char *why, size_t why_size)
{
    if (!elf_recognise(bytes, size)) {
        format_buffer(why, why_size, "no ELF file");
        return LOAD_NO;
    }
    format_buffer(why, why_size,
                  "not an image that can be started: an ELF file without a Multiboot header or a "
                  "PVH note; entry=elf32 or entry=elf64 starts it all the same");
    return LOAD_NEARLY;
}

static const struct format {
    const char *name; /* NULL: told apart only to be refused */
    load_recognise_fn *recognise;
    int (*load)(struct loader *loader); /* NULL: never LOAD_YES */
    bool pc;
} formats[] = {
    {NULL, packed_recognise, refuse_packed, false},
    {"Linux", linux_recognise, load_as_linux, true},
    {NULL, efi_recognise, refuse_efi, false},
    {"Multiboot 1", multiboot_recognise, load_multiboot, true},
    {"Multiboot 2", multiboot2_recognise, load_multiboot2, true},
    {"PVH", pvh_recognise, load_pvh, true},
    {"flat", flat_recognise, load_flat, false},
    {"ELF", elf_nearly, NULL, false},
};

static const struct format *format_of(const uint8_t *bytes, uint64_t size)
{
    char why[WHY];

    for (unsigned i = 0; i < ARRAY_SIZE(formats); i++) {
        if (formats[i].recognise(bytes, size, why, sizeof(why)) == LOAD_YES)
            return &formats[i];
    }
    return NULL;
}

bool load_expects_pc(const uint8_t *bytes, uint64_t size)
{
    const struct format *format = format_of(bytes, size);

    return format != NULL && format->pc;
}

/* The first that it nearly is gives the reason. */
static int refuse_format(struct loader *loader)
{
    char why[WHY];
    bool said = false;

    for (unsigned i = 0; i < ARRAY_SIZE(formats); i++) {
        enum load_verdict verdict;

        if (formats[i].name == NULL)
            continue;
        verdict = formats[i].recognise(loader->bytes, loader->size, why, sizeof(why));
        if (loader->details != NULL)
            format(loader->details, "%s: %s\n", formats[i].name, why);
        if (verdict == LOAD_NEARLY && !said)
            load_refuse(loader, E_FORMAT, "%s", why);
        said |= verdict == LOAD_NEARLY;
    }
    if (!said)
        load_refuse(loader, E_FORMAT,
                    "not an image that can be started: no Linux, Multiboot 1 or 2, PVH or ELF, and "
                    "no boot signature 55 AA at 510 (`flat` does without); its report says more");
    return E_FORMAT;
}

static int load_as_linux16(struct loader *loader)
{
    char why[WHY];

    if (linux_recognise(loader->bytes, loader->size, why, sizeof(why)) == LOAD_YES)
        return load_linux16(loader);
    return load_refuse(loader, E_FORMAT, "entry=linux16 is for images of Linux's boot protocol: %s",
                       why);
}

int load_image(struct loader *loader, enum load_as as)
{
    const struct format *format;

    if (loader->size == 0)
        return load_refuse(loader, E_TRUNC, "the image is empty");
    switch (as) {
    case LOAD_AS_FLAT:
        return load_flat(loader);
    case LOAD_AS_ELF32:
    case LOAD_AS_ELF64:
        return load_plain_elf(loader, as == LOAD_AS_ELF64);
    case LOAD_AS_LINUX16:
        return load_as_linux16(loader);
    case LOAD_RECOGNISED:
        break;
    }
    format = format_of(loader->bytes, loader->size);
    return format != NULL ? format->load(loader) : refuse_format(loader);
}
