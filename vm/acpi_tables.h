/*
 * The ACPI tables of a guest that is a PC (ACPI 6.3), made from vm/acpi/ by tools/acpi.py.
 */
#ifndef QUIRE_VM_ACPI_TABLES_H
#define QUIRE_VM_ACPI_TABLES_H

#include <stdint.h>

/* The first of them, where a search begins: the others are found from there. */
#define ACPI_RSDP UINT64_C(0xe0000)

struct acpi_table {
    uint64_t at; /* in the guest's memory */
    const unsigned char *bytes;
    uint64_t size;
};

extern const struct acpi_table acpi_tables[];
extern const unsigned acpi_table_count;

#endif
