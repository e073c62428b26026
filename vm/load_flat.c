/*
 * Flat 16-bit images: the bytes go to 0x7c00 and are entered there in real mode, as a PC's firmware
 * enters a boot sector, only that all of the image is there already. There is no firmware behind
 * it: every interrupt vector leads to one IRET.
 */
#include "lib/error.h"
#include "lib/format.h"
#include "lib/string.h"
#include "vm/bios.h"
#include "vm/bios_disk.h"
#include "vm/load_parts.h"
#include "x86/control.h"

#define FLAT_ENTRY 0x7c00
#define FLAT_END 0x80000 /* where a PC's free low memory may end */
#define FLAT_SIGNATURE 510
#define FLAT_SECTOR 512

#define BOOT_DISK 0x80 /* in DL: the first hard disk */

/* Real mode's segments as after reset (SDM Vol. 3, 9.1.4), and the tables that the CPU wants. */
#define ACCESS_DATA16 0x93
#define ACCESS_CODE16 0x9b
#define ACCESS_LDT 0x82
#define ACCESS_TSS 0x8b
#define REAL_LIMIT 0xffff
#define IVT_LIMIT 0x3ff

enum load_verdict flat_recognise(const uint8_t *bytes, uint64_t size, char *why, size_t why_size)
{
    if (size >= FLAT_SIGNATURE + 2 && bytes[FLAT_SIGNATURE] == 0x55 &&
        bytes[FLAT_SIGNATURE + 1] == 0xaa)
        return LOAD_YES;
    format_buffer(why, why_size, "no boot signature 55 AA at 510 (option `flat` does without)");
    return LOAD_NO;
}

static struct segment real_segment(uint16_t access)
{
    return (struct segment){.limit = REAL_LIMIT, .access = access};
}

static void enter_real_mode(struct vcpu_state *state)
{
    memset(state, 0, sizeof(*state));
    for (unsigned i = 0; i < SEG_COUNT; i++)
        state->segment[i] = real_segment(ACCESS_DATA16);
    state->segment[SEG_CS] = real_segment(ACCESS_CODE16);
    state->segment[SEG_LDTR] = real_segment(ACCESS_LDT);
    state->segment[SEG_TR] = real_segment(ACCESS_TSS);
    state->gpr[RDX] = BOOT_DISK;
    state->gpr[RSP] = FLAT_ENTRY;
    state->rip = FLAT_ENTRY;
    state->rflags = RFLAGS_FIXED;
    state->cr0 = CR0_ET;
    state->gdt_limit = REAL_LIMIT;
    state->idt_limit = IVT_LIMIT;
    state->dr7 = LOAD_DR7_RESET;
}

/* Of a PC: its BIOS in the last page of the ROM, and what leads there. */
static int place_bios(struct loader *loader)
{
    uint16_t vectors[BIOS_VECTORS][2];
    uint8_t rom[BIOS_ROM_SIZE];
    int error;

    for (unsigned i = 0; i < BIOS_VECTORS; i++) {
        vectors[i][0] = LOAD_NO_VECTOR;
        vectors[i][1] = 0;
    }
    bios_fill(rom, vectors);
    error = load_place(loader, BIOS_ROM, rom, sizeof(rom), sizeof(rom), "the BIOS");
    if (error == E_OK) /* they are occupied already */
        error = loader->place(loader->ctx, 0, vectors, sizeof(vectors));
    loader->bios = true;
    loader->state.gpr[RDX] = bios_geometry_of(loader->size).drive;
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
    enter_real_mode(&loader->state);
    return loader->pc ? place_bios(loader) : E_OK;
}
