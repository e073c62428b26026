/*
 * Port I/O of a guest: which device answers at which port, and the exit that brings an access here.
 *
 * A device offers an array of rows (struct device.ports). A port that no row covers reads as
 * all ones and swallows writes. No access ever reaches a port of the host's.
 */
#ifndef QUIRE_VM_PORTS_H
#define QUIRE_VM_PORTS_H

#include <stdbool.h>
#include <stdint.h>

#include "vm/backend.h"

struct guest;

/* Or-ed to the widths: not reached by a piece of a wider access. */
#define PORT_ALONE 8

struct port_range {
    uint16_t first, last; /* inclusive */
    uint8_t widths;       /* the accesses that the device takes whole: 1, 2 and 4 bytes, or-ed */
    /* One access of `width` bytes at `port`, aligned to it from `first` on, all within the range.
     * read answers in the low bytes. NULL: reads as all ones, swallows writes. */
    uint32_t (*read)(struct guest *guest, uint16_t port, unsigned width);
    void (*write)(struct guest *guest, uint16_t port, unsigned width, uint32_t value);
};

/* Learns which device has which ports. Once, before any access. */
void ports_init(void);

/* One access, as a PC's bus makes it: to the device that takes it as it is, else in pieces, each to
 * the device that takes that. Ports that no piece finds read as all ones and swallow writes. */
uint32_t port_read(struct guest *guest, uint16_t port, unsigned width);
void port_write(struct guest *guest, uint16_t port, unsigned width, uint32_t value);
const char *port_name(uint16_t port); /* the device's name; NULL where there is none */

/* VM_EXIT_PORT. Handles IN, OUT and the string forms, and skips the instruction; or stops the guest
 * with a sentence. */
void exit_port(struct guest *guest, const struct vm_exit *exit);
void exit_string(struct guest *guest, const struct vm_exit *exit); /* vm/string_io.c */

#endif
