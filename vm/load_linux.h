/*
 * The Linux/x86 boot protocol (Documentation/arch/x86/boot.rst of the kernel): the setup header and
 * what its two entries share, of 32 bits (vm/load_linux.c) and of 16 (vm/load_linux16.c).
 */
#ifndef QUIRE_VM_LOAD_LINUX_H
#define QUIRE_VM_LOAD_LINUX_H

#include "lib/string.h"
#include "vm/load_parts.h"

/* The setup header, by its offset in the image and in the boot parameters. */
enum {
    SETUP_SECTS = 0x1f1,
    BOOT_FLAG = 0x1fe,
    HEADER_LENGTH = 0x201, /* of what follows 0x202 */
    HEADER_MAGIC = 0x202,
    VERSION = 0x206,
    LOADER_TYPE = 0x210,
    LOAD_FLAGS = 0x211,
    CODE32_START = 0x214,
    RAMDISK_IMAGE = 0x218,
    RAMDISK_SIZE = 0x21c,
    HEAP_END = 0x224,        /* 2.01 */
    CMDLINE_POINTER = 0x228, /* 2.02 */
    RAMDISK_MAX = 0x22c,     /* 2.03 */
    KERNEL_ALIGNMENT = 0x230,
    RELOCATABLE = 0x234,  /* 2.05 */
    CMDLINE_SIZE = 0x238, /* 2.06 */
    PREFERRED = 0x258,    /* 2.10 */
    INIT_SIZE = 0x260,    /* 2.10 */
    HEADER_MOST = 0x264,  /* behind what is read or written here */
};
#define VERSION_CMDLINE 0x0202
#define VERSION_RAMDISK_MAX 0x0203
#define VERSION_RELOCATABLE 0x0205
#define VERSION_CMDLINE_SIZE 0x0206
#define VERSION_PREFERRED 0x020a
#define FLAG_HIGH BIT(0)
#define FLAG_HEAP BIT(7)
#define LOADER_UNKNOWN 0xff

static inline uint64_t linux_get(const uint8_t *bytes, unsigned at, unsigned width)
{
    uint64_t value = 0;

    memcpy(&value, bytes + at, width);
    return value;
}

static inline void linux_put(uint8_t *bytes, unsigned at, unsigned width, uint64_t value)
{
    memcpy(bytes + at, &value, width);
}

uint64_t linux_version(const struct loader *loader);

/* The code for protected mode begins behind the boot sector and the setup sectors. */
uint64_t linux_setup_size(const struct loader *loader);

/* That code, which is loaded high, to where it prefers to be or fits. */
int linux_place_kernel(struct loader *loader, uint64_t *at);

/* All modules as one initrd, the lowest that fits or the highest; `header` is told. */
int linux_place_initrd(struct loader *loader, uint8_t *header, bool highest);

/* Refuses a command line that the kernel does not take. */
int linux_check_cmdline(struct loader *loader);

#endif
