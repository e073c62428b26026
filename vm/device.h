/*
 * A device of a guest, as the rest of vm/ sees it: one row with where it answers, how it starts,
 * when it has something new, and what it shows. Each is a file of its own (vm/dev_*.c); its state
 * is a part of struct guest_devices. vm/devices.c has the table.
 */
#ifndef QUIRE_VM_DEVICE_H
#define QUIRE_VM_DEVICE_H

#include <stdbool.h>
#include <stdint.h>

#include "lib/format.h"
#include "vm/ports.h"
#include "vm/windows.h"

struct guest;

struct device {
    const char *name;
    const struct port_range *ports;
    unsigned port_count;
    const struct window *windows; /* of a guest with `pc` alone */
    unsigned window_count;
    void (*reset)(struct guest *guest); /* power-on state; NULL: all zeroes is that */

    bool silent; /* no access to it bears on an interrupt */

    /* Both or none: of those that raise interrupts as time goes by. Brings its lines up to date at
     * `now` (of the guest's TSC); and how many ticks it is from then to the next
     * interrupt, UINT64_MAX: there will be none. */
    void (*update)(struct guest *guest, uint64_t now);
    uint64_t (*next)(const struct guest *guest, uint64_t now);

    /* For the console: its state in lines of text, each ended. NULL: nothing to show. */
    void (*show)(const struct guest *guest, struct sink *to);
};

extern const struct device serial_device, debug_device, cmos_device, pit_device, pic_device,
    keyboard_device, reset_device, lapic_device, ioapic_device, hpet_device, bios_device,
    pci_device, vga_device, acpi_device;

/* The table: NULL behind its end. */
const struct device *device_by_index(unsigned index);

/* Learns who answers where, and who has a sense of time. Once, before any guest. */
void devices_init(void);

/* All devices to their power-on state. */
void devices_reset(struct guest *guest);

/* As the members of struct device, of all of them. */
void devices_update(struct guest *guest, uint64_t now);
uint64_t devices_next(const struct guest *guest, uint64_t now);

#endif
