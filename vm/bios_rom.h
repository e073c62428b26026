/*
 * The stubs in the BIOS's ROM: one for each vector that leads there (vm/bios_rom.c).
 */
#ifndef QUIRE_VM_BIOS_ROM_H
#define QUIRE_VM_BIOS_ROM_H

#include "vm/bios.h"

#define PIC_FIRST 0x20 /* the interrupt controller's port, and what ends an interrupt there */
#define PIC_END 0x20

/* Offsets in a stub: where the service is called, and where it calls again behind an interrupt, or
 * at once. */
#define STUB_CALL 0
#define STUB_WAIT 3
#define STUB_SPIN 7
#define OUT_LENGTH 2

enum {
    INT_TIMER = 0x08,
    INT_KEYBOARD = 0x09,
    INT_VIDEO = 0x10,
    INT_EQUIPMENT = 0x11,
    INT_MEMORY = 0x12,
    INT_DISK = 0x13,
    INT_SERIAL = 0x14,
    INT_SYSTEM = 0x15,
    INT_KEYS = 0x16,
    INT_PRINTER = 0x17,
    INT_NO_BOOT = 0x18,
    INT_BOOT = 0x19,
    INT_TIME = 0x1a,
    INT_SECOND = 0x70, /* of the second controller's lines */
};

/* Does the vector lead to a stub? */
bool bios_has_stub(unsigned vector);

#endif
