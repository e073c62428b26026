/*
 * Small ports of a PC's chipset: the reset control register 0xcf9, the diagnostic port 0x80, system
 * control port A, 0x92, with the fast ways to A20 and to a reset, and those that take back an error
 * of the FPU's, 0xf0 and 0xf1, which here never drives its line.
 *
 * A20 is open always. Its bit reads as it was written all the same: who closes it waits for that.
 */
#include "lib/bits.h"
#include "vm/device.h"
#include "vm/guest.h"
#include "vm/reset.h"

#define DIAGNOSTIC_PORT 0x80
#define SYSTEM_CONTROL 0x92
#define FPU_ERROR 0xf0
#define RESET_CONTROL 0xcf9

#define RESET_CPU BIT(2)
#define RESET_KIND BIT(1) /* of the next one: all of the system */

#define A20_CLOSED BIT(7) /* in the byte of 0xcf9, which has no such bit */

#define CONTROL_RESET BIT(0)
#define CONTROL_A20 BIT(1)

static uint32_t diagnostic_read(struct guest *guest, uint16_t port, unsigned width)
{
    (void)port;
    (void)width;
    return guest->devices.chipset.diagnostic;
}

static void diagnostic_write(struct guest *guest, uint16_t port, unsigned width, uint32_t value)
{
    (void)port;
    (void)width;
    guest->devices.chipset.diagnostic = (uint8_t)value;
}

static uint32_t reset_read(struct guest *guest, uint16_t port, unsigned width)
{
    (void)port;
    (void)width;
    return guest->devices.chipset.reset & RESET_KIND;
}

static void reset_write(struct guest *guest, uint16_t port, unsigned width, uint32_t value)
{
    (void)port;
    (void)width;
    guest->devices.chipset.reset =
        (guest->devices.chipset.reset & A20_CLOSED) | (value & RESET_KIND);
    if (value & RESET_CPU)
        guest_reset(guest, "port 0xcf9");
}

static uint32_t control_read(struct guest *guest, uint16_t port, unsigned width)
{
    (void)port;
    (void)width;
    return guest->devices.chipset.reset & A20_CLOSED ? 0 : CONTROL_A20;
}

static void control_write(struct guest *guest, uint16_t port, unsigned width, uint32_t value)
{
    (void)port;
    (void)width;
    guest->devices.chipset.reset =
        (guest->devices.chipset.reset & RESET_KIND) | (value & CONTROL_A20 ? 0 : A20_CLOSED);
    if (value & CONTROL_RESET)
        guest_reset(guest, "port 0x92");
}

static void chipset_show(const struct guest *guest, struct sink *to)
{
    format(to, "last to port 0x80: 0x%02x\n", guest->devices.chipset.diagnostic);
}

static const struct port_range ranges[] = {
    {DIAGNOSTIC_PORT, DIAGNOSTIC_PORT, 1, diagnostic_read, diagnostic_write},
    {SYSTEM_CONTROL, SYSTEM_CONTROL, 1, control_read, control_write},
    {FPU_ERROR, FPU_ERROR + 1, 1, NULL, NULL},
    {RESET_CONTROL, RESET_CONTROL, 1 | PORT_ALONE, reset_read, reset_write},
};

const struct device reset_device = {
    .name = "chipset",
    .ports = ranges,
    .port_count = ARRAY_SIZE(ranges),
    .show = chipset_show,
    .bears = BEARS_ON_NOTHING,
};
