/*
 * Ports of a PC's chipset that must at least not disturb: the delay port 0x80, the ACPI-like
 * reset port 0xcf9, and the PCI configuration ports, behind which there is no bus. 0xcf9 lies
 * within the PCI address port; as on a PC only an access of that one byte reaches it.
 */
#include "lib/bits.h"
#include "vm/device.h"
#include "vm/guest.h"
#include "vm/report.h"

#define DELAY_PORT 0x80
#define PCI_ADDRESS 0xcf8
#define RESET_CONTROL 0xcf9
#define PCI_DATA 0xcfc

#define RESET_CPU BIT(2)

static void reset_write(struct guest *guest, uint16_t port, unsigned width, uint32_t value)
{
    (void)width;
    if (value & RESET_CPU && !guest_ended(guest))
        guest_end(guest, GUEST_STOPPED, "the guest asked for a reset of its machine (port 0x%x)",
                  port);
}

static const struct port_range ranges[] = {
    {DELAY_PORT, DELAY_PORT, 1, NULL, NULL},
    {RESET_CONTROL, RESET_CONTROL, 1 | PORT_ALONE, NULL, reset_write},
    {PCI_ADDRESS, PCI_ADDRESS + 3, 4, NULL, NULL},
    {PCI_DATA, PCI_DATA + 3, 1 | 2 | 4, NULL, NULL},
};

const struct device reset_device = {
    .name = "chipset",
    .ports = ranges,
    .port_count = ARRAY_SIZE(ranges),
    .silent = true,
};
