/*
 * Flat 16-bit images: the bytes go to 0x7c00 and are entered there in real mode, as a PC's firmware
 * enters a boot sector, only that all of the image is there already. There is no firmware behind
 * it: every interrupt vector leads to one IRET.
 */
#include "lib/error.h"
#include "lib/format.h"
#include "vm/bios_disk.h"
#include "vm/load_parts.h"
#include "x86/control.h"

#define FLAT_ENTRY 0x7c00
#define FLAT_END 0x80000 /* where a PC's free low memory may end */
#define FLAT_SIGNATURE 510
#define FLAT_SECTOR 512

#define BOOT_DISK 0x80     /* in DL: the first hard disk */
#define BDA_DISKS_AT 0x475 /* how many hard disks there are */

enum load_verdict flat_recognise(const uint8_t *bytes, uint64_t size, char *why, size_t why_size)
{
    if (size >= FLAT_SIGNATURE + 2 && bytes[FLAT_SIGNATURE] == 0x55 &&
        bytes[FLAT_SIGNATURE + 1] == 0xaa)
        return LOAD_YES;
    format_buffer(why, why_size, "no boot signature 55 AA at 510 (option `flat` does without)");
    return LOAD_NO;
}

/* A BIOS finds the disk, and enters with interrupts on. */
static int place_bios(struct loader *loader)
{
    uint8_t drive = bios_geometry_of(loader->size).drive, disks = drive >= BOOT_DISK;
    int error = load_bios(loader);

    if (error == E_OK) /* it is occupied already */
        error = loader->place(loader->ctx, BDA_DISKS_AT, &disks, sizeof(disks));
    loader->disk = true;
    loader->state.gpr[RDX] = drive;
    loader->state.rflags |= RFLAGS_IF;
    return error;
}

/* What is loaded: all of it, or by a BIOS the first sector alone, the rest of the disk by the
 * guest. */
static uint64_t loaded_size(const struct loader *loader)
{
    return loader->pc && loader->size > FLAT_SECTOR ? FLAT_SECTOR : loader->size;
}

int load_flat(struct loader *loader)
{
    uint64_t size = loaded_size(loader);
    int error;

    loader->kind = loader->pc ? "boot sector" : "flat 16-bit";
    if (size > FLAT_END - FLAT_ENTRY)
        return load_refuse(loader, E_RANGE,
                           "a flat image of 0x%lx bytes does not fit into 0x7c00..0x7ffff: with "
                           "`pc` it is a disk, of which the first sector is loaded",
                           loader->size);
    if (loader->modules != 0)
        return load_refuse(loader, E_UNSUPPORTED, "mods=: a flat guest takes no modules");
    error = load_pc_area(loader, true);
    if (error == E_OK)
        error = load_place(loader, FLAT_ENTRY, loader->bytes, size, size, "the flat image");
    if (error != E_OK)
        return error;
    load_enter_real(&loader->state, 0, FLAT_ENTRY);
    loader->state.rip = FLAT_ENTRY;
    loader->state.gpr[RDX] = BOOT_DISK;
    return loader->pc ? place_bios(loader) : E_OK;
}
