/*
 * Images of the Linux/x86 boot protocol by their 16-bit entry, in real mode: those that have no
 * other, as iPXE and memdisk, and any that `entry=linux16` asks for. They call a BIOS.
 *
 *   0x10000   boot sector and setup code    | for an image that is loaded low, from 0x90000 on
 *   ...       its heap                      | (boot.rst, "The Real-Mode Code")
 *   +heap end its stack, downwards
 *   +heap end the command line, upwards
 *
 * The other code goes to 1 MiB or to where the image prefers it, or, loaded low, to 0x10000. The
 * initrd lies as high as it may: what an image takes behind itself it does not say before 2.10.
 */
#include "lib/bits.h"
#include "lib/error.h"
#include "vm/load_linux.h"

#define LOW_SETUP 0x90000 /* of an image that is loaded low, and ... */
#define LOW_KERNEL 0x10000
#define LOW_MOST 0x80000
#define LOW_HEAP_END 0x9800
#define HIGH_SETUP 0x10000 /* ... of one that is loaded high */
#define HIGH_HEAP_END 0xe000
#define SETUP_MOST 0x8000 /* bytes: heap and stack lie above */
#define HEAP_TO_STACK 0x200
#define ENTRY_PARAGRAPHS 0x20 /* from the boot sector to the setup code */

static bool is_high(const struct loader *loader)
{
    return loader->bytes[LOAD_FLAGS] & FLAG_HIGH;
}

static int check(struct loader *loader)
{
    uint64_t version = linux_version(loader), setup;

    if (!loader->pc)
        return load_refuse(loader, E_UNSUPPORTED,
                           "it has a 16-bit entry alone, from which it calls a PC's BIOS: leave "
                           "`bare` out");
    if (version < VERSION_CMDLINE)
        return load_refuse(loader, E_UNSUPPORTED,
                           "a Linux image of boot protocol %lu.%02lu; 2.02 and later can be loaded",
                           version >> 8, version & 0xff);
    setup = linux_setup_size(loader);
    if (loader->size < HEADER_MOST || loader->size <= setup)
        return load_refuse(loader, E_TRUNC, "the Linux image ends in its setup code");
    if (setup > SETUP_MOST)
        return load_refuse(loader, E_RANGE,
                           "setup code of 0x%lx bytes; the boot protocol has room for 0x%x", setup,
                           SETUP_MOST);
    if (!is_high(loader) && loader->size - setup > LOW_MOST)
        return load_refuse(loader, E_RANGE,
                           "a zImage of 0x%lx bytes does not fit into 0x10000..0x8ffff; a bzImage "
                           "is loaded high",
                           loader->size - setup);
    return linux_check_cmdline(loader);
}

static int place_code(struct loader *loader, uint8_t *header)
{
    uint64_t setup = linux_setup_size(loader), size = loader->size - setup, at = 0;
    int error;

    if (!is_high(loader))
        return load_place(loader, LOW_KERNEL, loader->bytes + setup, size, size, "the kernel");
    error = linux_place_kernel(loader, &at);
    if (linux_get(header, CODE32_START, 4) != 0) /* 0: nothing is jumped to there */
        linux_put(header, CODE32_START, 4, at);
    return error;
}

/* Setup code, heap, stack and command line: one piece. Its header is written last. */
static int place_setup(struct loader *loader, uint8_t *header, uint64_t at, uint64_t heap_end)
{
    uint64_t length = strlen(loader->cmdline) + 1;
    int error;

    linux_put(header, LOADER_TYPE, 1, LOADER_UNKNOWN);
    linux_put(header, LOAD_FLAGS, 1, header[LOAD_FLAGS] | FLAG_HEAP);
    linux_put(header, HEAP_END, 2, heap_end - HEAP_TO_STACK);
    linux_put(header, CMDLINE_POINTER, 4, at + heap_end);
    error = load_place(loader, at, loader->bytes, linux_setup_size(loader), heap_end + length,
                       "the setup code with its heap");
    if (error == E_OK)
        error = loader->place(loader->ctx, at + heap_end, loader->cmdline, length);
    if (error == E_OK)
        error = loader->place(loader->ctx, at, header, HEADER_MOST);
    return error;
}

int load_linux16(struct loader *loader)
{
    uint64_t at, heap_end;
    uint8_t header[HEADER_MOST];
    int error;

    loader->kind = "Linux 16-bit";
    error = check(loader);
    if (error != E_OK)
        return error;
    at = is_high(loader) ? HIGH_SETUP : LOW_SETUP;
    heap_end = is_high(loader) ? HIGH_HEAP_END : LOW_HEAP_END;
    memcpy(header, loader->bytes, sizeof(header));
    error = load_pc_area(loader, true);
    if (error == E_OK)
        error = load_bios(loader);
    if (error == E_OK)
        error = place_code(loader, header);
    if (error == E_OK)
        error = linux_place_initrd(loader, header, true);
    if (error == E_OK)
        error = place_setup(loader, header, at, heap_end);
    load_enter_real(&loader->state, (uint16_t)(at >> 4), (uint16_t)heap_end);
    loader->state.segment[SEG_CS].selector += ENTRY_PARAGRAPHS;
    loader->state.segment[SEG_CS].base += ENTRY_PARAGRAPHS * 16;
    return error;
}
