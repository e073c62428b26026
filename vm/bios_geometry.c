/* See vm/bios_disk.h. */
#include "lib/bits.h"
#include "vm/bios_disk.h"

#define DISK_HEADS 16
#define DISK_SECTORS 63
#define CYLINDERS_MOST 1024

static const struct {
    uint16_t kib;
    uint8_t cylinders, sectors, type;
} diskettes[] = {
    {360, 40, 9, 1}, {720, 80, 9, 3}, {1200, 80, 15, 2}, {1440, 80, 18, 4}, {2880, 80, 36, 5},
};

struct bios_geometry bios_geometry_of(uint64_t size)
{
    struct bios_geometry g = {
        0x80, 0, DISK_HEADS, DISK_SECTORS, (size + BIOS_SECTOR - 1) / BIOS_SECTOR, 0};

    for (unsigned i = 0; i < ARRAY_SIZE(diskettes); i++) {
        if (size == diskettes[i].kib * KiB)
            return (struct bios_geometry){0,       diskettes[i].cylinders, 2, diskettes[i].sectors,
                                          g.total, diskettes[i].type};
    }
    g.cylinders =
        (unsigned)((g.total + DISK_HEADS * DISK_SECTORS - 1) / (DISK_HEADS * DISK_SECTORS));
    if (g.cylinders > CYLINDERS_MOST)
        g.cylinders = CYLINDERS_MOST;
    return g;
}
