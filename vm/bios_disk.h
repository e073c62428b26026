/* Which disk an image is to its boot sector. */
#ifndef QUIRE_VM_BIOS_DISK_H
#define QUIRE_VM_BIOS_DISK_H

#include <stdint.h>

#define BIOS_SECTOR 512

struct bios_geometry {
    uint8_t drive;
    unsigned cylinders, heads, sectors;
    uint64_t total;
    uint8_t diskette; /* its type as INT 0x13 numbers them; 0: none */
};

/* Of an image of so many bytes: of a diskette's size, drive 0; else drive 0x80. */
struct bios_geometry bios_geometry_of(uint64_t size);

#endif
