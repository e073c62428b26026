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
#include "vm/devices.h"
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

    /* On whose next interrupt an access to it may bear. Those that only a part of its registers
     * bears on, beyond what this says, it stirs itself (interrupts_stir()). */
    enum device_bears {
        BEARS_ON_ALL, /* such as who closes and opens lines */
        BEARS_ON_ITSELF,
        BEARS_ON_NOTHING, /* it neither has a line nor hands interrupts on */
    } bears;

    /* Both or none: of those that raise interrupts as time goes by. Brings its lines up to date at
     * `now` (of the guest's TSC); and how many ticks it is from then to the next
     * interrupt, UINT64_MAX: there will be none. That depends on the device's own state and on
     * irq_masked() of its line alone: what it has told stays true until one of them changes. */
    enum timed_device timed; /* its place among those; TIMED_NONE: it is asked every time */
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

/* The same, as far as there is something new: of those whose interrupt is due, or that may have
 * another than they told last. */
void devices_update_due(struct guest *guest, uint64_t now);
uint64_t devices_next_due(struct guest *guest, uint64_t now);

/* Brings all up to date, and has each tell anew: before what lets their lines through changes. */
void devices_settle(struct guest *guest);

/* Before each access of the guest's to it. */
void device_touched(struct guest *guest, const struct device *device);

#endif
