/*
 * The CMOS memory and clock of a guest, ports 0x70 and 0x71. It tells the guest's memory size at
 * the places where a PC's firmware leaves it; the clock is valid, never updating, and stands at
 * midnight of 1 January 2000.
 */
#include "lib/bits.h"
#include "vm/device.h"
#include "vm/guest.h"
#include "vm/slots.h"

#define CMOS_INDEX 0x70
#define CMOS_DATA 0x71
#define CMOS_INDEX_MASK 0x7f /* bit 7 masks NMI */

enum {
    CMOS_WEEKDAY = 0x06,
    CMOS_DAY = 0x07,
    CMOS_MONTH = 0x08,
    CMOS_STATUS_A = 0x0a,
    CMOS_STATUS_B = 0x0b,
    CMOS_STATUS_C = 0x0c,
    CMOS_STATUS_D = 0x0d,
    CMOS_BASE_KIB = 0x15,
    CMOS_EXTENDED_KIB = 0x17,
    CMOS_EXTENDED_KIB_COPY = 0x30,
    CMOS_CENTURY = 0x32,
    CMOS_ABOVE_16M = 0x34, /* in units of 64 KiB */
};

#define STATUS_A_RATE 0x26
#define STATUS_B_24H 0x02
#define STATUS_D_VALID 0x80

static void put16(struct dev_cmos *cmos, unsigned at, uint64_t value)
{
    if (value > UINT16_MAX)
        value = UINT16_MAX;
    cmos->ram[at] = (uint8_t)value;
    cmos->ram[at + 1] = (uint8_t)(value >> 8);
}

static void cmos_reset(struct guest *guest)
{
    struct dev_cmos *cmos = &guest->devices.cmos;
    uint64_t memory = guest->options.memory;
    uint64_t extended = memory > GUEST_HIGH_RAM ? memory - GUEST_HIGH_RAM : 0;

    cmos->ram[CMOS_WEEKDAY] = 7; /* a Saturday */
    cmos->ram[CMOS_DAY] = 1;
    cmos->ram[CMOS_MONTH] = 1;
    cmos->ram[CMOS_CENTURY] = 0x20;
    cmos->ram[CMOS_STATUS_A] = STATUS_A_RATE;
    cmos->ram[CMOS_STATUS_B] = STATUS_B_24H;
    cmos->ram[CMOS_STATUS_D] = STATUS_D_VALID;
    put16(cmos, CMOS_BASE_KIB, GUEST_LOW_RAM_END / KiB);
    put16(cmos, CMOS_EXTENDED_KIB, extended / KiB);
    put16(cmos, CMOS_EXTENDED_KIB_COPY, extended / KiB);
    put16(cmos, CMOS_ABOVE_16M, memory > 16 * MiB ? (memory - 16 * MiB) / (64 * KiB) : 0);
}

static uint32_t cmos_read(struct guest *guest, uint16_t port, unsigned width)
{
    const struct dev_cmos *cmos = &guest->devices.cmos;

    (void)width;
    return port == CMOS_DATA ? cmos->ram[cmos->index] : 0xff;
}

static void cmos_write(struct guest *guest, uint16_t port, unsigned width, uint32_t value)
{
    struct dev_cmos *cmos = &guest->devices.cmos;

    (void)width;
    if (port == CMOS_INDEX) {
        cmos->index = value & CMOS_INDEX_MASK;
        return;
    }
    switch (cmos->index) {
    case CMOS_STATUS_A:
    case CMOS_STATUS_C:
    case CMOS_STATUS_D:
        break; /* "update in progress" must never appear, the others are read-only */
    default:
        cmos->ram[cmos->index] = (uint8_t)value;
    }
}

static const struct port_range ranges[] = {
    {CMOS_INDEX, CMOS_DATA, 1, cmos_read, cmos_write},
};

const struct device cmos_device = {
    .name = "CMOS",
    .ports = ranges,
    .port_count = ARRAY_SIZE(ranges),
    .reset = cmos_reset,
};
