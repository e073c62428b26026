/*
 * What a PC's firmware leaves in low memory for those who look there: interrupt vectors that lead
 * to one IRET, the BIOS data area, an extended one with the MP tables; and the ACPI tables in its
 * ROM.
 */
#include "lib/bits.h"
#include "lib/error.h"
#include "lib/string.h"
#include "vm/acpi_tables.h"
#include "vm/devices.h"
#include "vm/load_parts.h"

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
    BDA_KEY_HEAD = 0x1a,
    BDA_KEY_TAIL = 0x1c,
    BDA_KEYS = 0x1e,
    BDA_VIDEO_MODE = 0x49,
    BDA_COLUMNS = 0x4a,
    BDA_CURSOR_SHAPE = 0x60,
    BDA_CRTC = 0x63,
    BDA_ROWS = 0x84,   /* less one */
    BDA_POINTS = 0x85, /* lines of a character */
    BDA_OWN = 0xf0,    /* 16 bytes for applications: the IRET */
};
_Static_assert(BDA + BDA_OWN == LOAD_NO_VECTOR, "it leads to the IRET");
#define EQUIPMENT 0x0222 /* an FPU, 80 columns in colour, one serial port */
#define COM1 0x3f8
#define CRTC 0x3d4
#define MODE_TEXT 3
#define CURSOR_SHAPE 0x0d0e /* lines 13 and 14 */

/* Offsets in an ACPI table (5.2.6). */
#define ACPI_LENGTH 4
#define ACPI_CHECKSUM 9
#define MADT_LAPIC 8 /* bytes of an entry */
#define MADT_MOST 256

static void put16(uint8_t *bytes, unsigned at, unsigned value)
{
    bytes[at] = (uint8_t)value;
    bytes[at + 1] = (uint8_t)(value >> 8);
}

static void fill_bda(uint8_t bda[BDA_SIZE])
{
    memset(bda, 0, BDA_SIZE);
    put16(bda, BDA_COM1, COM1);
    put16(bda, BDA_EBDA, LOAD_EBDA >> 4);
    put16(bda, BDA_EQUIPMENT, EQUIPMENT);
    put16(bda, BDA_MEMORY, LOAD_EBDA / KiB);
    put16(bda, BDA_COLUMNS, 80);
    put16(bda, BDA_CRTC, CRTC);
    bda[BDA_VIDEO_MODE] = MODE_TEXT;
    bda[BDA_ROWS] = 24;
    bda[BDA_POINTS] = 16;
    bda[BDA_OWN] = IRET;
    put16(bda, BDA_KEY_HEAD, BDA_KEYS);
    put16(bda, BDA_KEY_TAIL, BDA_KEYS);
    put16(bda, BDA_CURSOR_SHAPE, CURSOR_SHAPE);
}

static bool is_madt(const struct acpi_table *table)
{
    return memcmp(table->bytes, "APIC", 4) == 0 && table->size <= MADT_MOST;
}

uint8_t load_checksum(const uint8_t *bytes, uint64_t size)
{
    uint8_t sum = 0;

    while (size-- != 0)
        sum = (uint8_t)(sum + *bytes++);
    return (uint8_t)-sum;
}

/* The list of the CPUs: its last entries are local APICs, as many as the guest may have (ACPI 6.3,
 * 5.2.12.2). Those of CPUs that there are not go. */
static struct acpi_table shortened(const struct loader *loader, const struct acpi_table *table,
                                   uint8_t bytes[MADT_MOST])
{
    struct acpi_table out = *table;
    uint32_t size = (uint32_t)table->size - (GUEST_VCPUS - loader->cpus) * MADT_LAPIC;

    if (!is_madt(table))
        return out;
    memcpy(bytes, table->bytes, size);
    memcpy(bytes + ACPI_LENGTH, &size, sizeof(size));
    bytes[ACPI_CHECKSUM] = 0;
    bytes[ACPI_CHECKSUM] = load_checksum(bytes, size);
    out.bytes = bytes;
    out.size = size;
    return out;
}

/* With the MP tables, and the one ACPI table that the guest may write. */
static void fill_ebda(const struct loader *loader, uint8_t ebda[LOAD_EBDA_SIZE])
{
    uint8_t madt[MADT_MOST];

    memset(ebda, 0, LOAD_EBDA_SIZE);
    ebda[0] = LOAD_EBDA_SIZE / KiB;
    for (unsigned i = 0; loader->rsdp.size != 0 && i < acpi_table_count; i++) {
        const struct acpi_table *table = &acpi_tables[i];

        if (table->at >= LOAD_EBDA && table->at < LOAD_EBDA + LOAD_EBDA_SIZE)
            memcpy(ebda + (table->at - LOAD_EBDA), table->bytes, table->size);
        else if (is_madt(table))
            load_mp_tables(loader, shortened(loader, table, madt).bytes, ebda);
    }
}

int load_acpi_tables(struct loader *loader)
{
    uint8_t madt[MADT_MOST];
    int error = E_OK;

    for (unsigned i = 0; i < acpi_table_count && error == E_OK; i++) {
        struct acpi_table shown = shortened(loader, &acpi_tables[i], madt);
        const struct acpi_table *table = &shown;

        if (table->at == ACPI_RSDP) {
            loader->rsdp.at = table->at;
            loader->rsdp.bytes = table->bytes;
            loader->rsdp.size = (uint32_t)table->size;
        }
        if (table->at >= ACPI_RSDP)
            error = load_place(loader, table->at, table->bytes, table->size, table->size,
                               "an ACPI table");
    }
    return error;
}

int load_pc_area(struct loader *loader, bool needed)
{
    uint16_t vectors[IVT_ENTRIES][2];
    uint8_t bda[BDA_SIZE], ebda[LOAD_EBDA_SIZE];
    const struct {
        uint64_t at, size, file_size;
        const void *bytes;
        const char *what;
    } parts[] = {
        {0, sizeof(vectors), sizeof(vectors), vectors, "the vector table"},
        {BDA, sizeof(bda), sizeof(bda), bda, "the BIOS data area"},
        {LOAD_EBDA, LOAD_EBDA_SIZE, LOAD_EBDA_SIZE, ebda, "the extended data area"},
    };

    if (!needed && !loader->pc)
        return E_OK;
    for (unsigned i = 0; i < IVT_ENTRIES; i++) {
        vectors[i][0] = LOAD_NO_VECTOR; /* in segment 0, where a small guest's own handlers are */
        vectors[i][1] = 0;
    }
    fill_bda(bda);
    fill_ebda(loader, ebda);
    for (unsigned i = 0; i < ARRAY_SIZE(parts); i++) {
        int error;

        if (!needed && !load_is_free(loader, parts[i].at, parts[i].at + parts[i].size - 1))
            continue;
        error = load_place(loader, parts[i].at, parts[i].bytes, parts[i].file_size, parts[i].size,
                           parts[i].what);
        if (error != E_OK)
            return error;
        loader->ebda |= parts[i].at == LOAD_EBDA;
    }
    return E_OK;
}
