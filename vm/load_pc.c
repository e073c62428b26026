/*
 * What a PC's firmware leaves in low memory for those who look there: interrupt vectors that lead
 * to one IRET, the BIOS data area, an extended one; and the ACPI tables.
 */
#include "lib/error.h"
#include "lib/string.h"
#include "vm/acpi_tables.h"
#include "vm/load.h"

#define IVT_ENTRIES 256
#define IRET 0xcf

#define BDA 0x400
#define BDA_SIZE 0x100
/* Offsets in it. */
enum {
    BDA_COM1 = 0x00,
    BDA_EBDA = 0x0e, /* its segment */
    BDA_EQUIPMENT = 0x10,
    BDA_MEMORY = 0x13, /* KiB below the extended area */
    BDA_VIDEO_MODE = 0x49,
    BDA_COLUMNS = 0x4a,
    BDA_CRTC = 0x63,
    BDA_ROWS = 0x84, /* less one */
    BDA_OWN = 0xf0,  /* 16 bytes for applications: the IRET */
};
#define EQUIPMENT 0x0222 /* an FPU, 80 columns in colour, one serial port */
#define COM1 0x3f8
#define CRTC 0x3d4
#define MODE_TEXT 3

#define EBDA_SIZE 1024
#define EBDA_OWN 512 /* the other half is for the ACPI table that the guest may write */

static void put16(uint8_t *bytes, unsigned at, unsigned value)
{
    bytes[at] = (uint8_t)value;
    bytes[at + 1] = (uint8_t)(value >> 8);
}

int load_pc_area(struct loader *loader)
{
    uint16_t vectors[IVT_ENTRIES][2];
    uint8_t bda[BDA_SIZE] = {0}, ebda_kib = EBDA_SIZE / KiB;
    int error;

    for (unsigned i = 0; i < IVT_ENTRIES; i++) {
        vectors[i][0] = BDA + BDA_OWN; /* in segment 0, where a small guest's own handlers are */
        vectors[i][1] = 0;
    }
    put16(bda, BDA_COM1, COM1);
    put16(bda, BDA_EBDA, LOAD_EBDA >> 4);
    put16(bda, BDA_EQUIPMENT, EQUIPMENT);
    put16(bda, BDA_MEMORY, LOAD_EBDA / KiB);
    put16(bda, BDA_COLUMNS, 80);
    put16(bda, BDA_CRTC, CRTC);
    bda[BDA_VIDEO_MODE] = MODE_TEXT;
    bda[BDA_ROWS] = 24;
    bda[BDA_OWN] = IRET;
    error = load_place(loader, 0, vectors, sizeof(vectors), sizeof(vectors), "the vector table");
    if (error == E_OK)
        error = load_place(loader, BDA, bda, sizeof(bda), sizeof(bda), "the BIOS data area");
    if (error == E_OK)
        error = load_place(loader, LOAD_EBDA, &ebda_kib, 1, EBDA_OWN, "the extended data area");
    return error;
}

int load_acpi_tables(struct loader *loader)
{
    int error = E_OK;

    for (unsigned i = 0; loader->acpi && i < acpi_table_count && error == E_OK; i++) {
        const struct acpi_table *table = &acpi_tables[i];

        error =
            load_place(loader, table->at, table->bytes, table->size, table->size, "an ACPI table");
    }
    return error;
}
