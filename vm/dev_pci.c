/*
 * The PCI bus of a guest, by configuration mechanism 1 (PCI Local Bus
 * Specification 3.0, 3.2.2.3.2): the address at 0xcf8, the data at 0xcfc. On the bus is the host
 * bridge, 00:00.0, with the header of an Intel 82441FX and nothing else; whatever is not there
 * reads as all ones.
 *
 * The address register is reached by 32-bit accesses alone, so that the reset control register has
 * the byte 0xcf9 for itself. The bridge's own registers behind the header (shadowing and the like)
 * have nothing to control here and read as 0.
 */
#include "lib/bits.h"
#include "lib/string.h"
#include "vm/device.h"
#include "vm/guest.h"

#define PCI_ADDRESS 0xcf8
#define PCI_DATA 0xcfc

#define ADDRESS_ENABLE BIT(31)
#define ADDRESS_FUNCTION(address) ((address) >> 8 & 0xffff) /* bus, device and function */
#define ADDRESS_USED 0x80fffffcu

/* Of the header: PCI Local Bus Specification 3.0, 6.1. */
enum {
    PCI_VENDOR = 0x00,
    PCI_DEVICE = 0x02,
    PCI_COMMAND = 0x04,
    PCI_STATUS = 0x06,
    PCI_REVISION = 0x08,
    PCI_CLASS = 0x0b,
    PCI_LATENCY = 0x0d,
};
#define HEADER 0x40

#define VENDOR_INTEL 0x8086
#define DEVICE_82441FX 0x1237
#define COMMAND_MEMORY_MASTER 0x0006 /* both always on */
#define COMMAND_HIGH_WRITABLE 0x01   /* SERR# */
#define STATUS_DEFAULT 0x0280        /* medium DEVSEL timing, fast back-to-back */
#define REVISION 0x02
#define CLASS_BRIDGE 0x06 /* subclass 0: to the host */
#define LATENCY_WRITABLE 0xf8

static void put16(uint8_t *config, unsigned at, unsigned value)
{
    config[at] = (uint8_t)value;
    config[at + 1] = (uint8_t)(value >> 8);
}

static uint32_t address_read(struct guest *guest, uint16_t port, unsigned width)
{
    (void)port;
    (void)width;
    return guest->devices.pci.address;
}

static void address_write(struct guest *guest, uint16_t port, unsigned width, uint32_t value)
{
    (void)port;
    (void)width;
    guest->devices.pci.address = value & ADDRESS_USED;
}

/* Does the address lead to the bridge? */
static bool selects_bridge(const struct dev_pci *pci)
{
    return pci->address & ADDRESS_ENABLE && ADDRESS_FUNCTION(pci->address) == 0;
}

static unsigned register_of(const struct dev_pci *pci, uint16_t port)
{
    return (pci->address & 0xfc) + (port - PCI_DATA);
}

static uint32_t data_read(struct guest *guest, uint16_t port, unsigned width)
{
    const struct dev_pci *pci = &guest->devices.pci;
    unsigned first = register_of(pci, port);
    uint32_t value = 0;

    if (!selects_bridge(pci))
        return UINT32_MAX;
    for (unsigned i = 0; i < width && first + i < HEADER; i++)
        value |= (uint32_t)pci->bridge[first + i] << 8 * i;
    return value;
}

static void data_write(struct guest *guest, uint16_t port, unsigned width, uint32_t value)
{
    struct dev_pci *pci = &guest->devices.pci;
    unsigned first = register_of(pci, port);

    if (!selects_bridge(pci))
        return;
    for (unsigned i = 0; i < width; i++) {
        uint8_t byte = (uint8_t)(value >> 8 * i);

        if (first + i == PCI_COMMAND + 1)
            pci->bridge[PCI_COMMAND + 1] = byte & COMMAND_HIGH_WRITABLE;
        else if (first + i == PCI_LATENCY)
            pci->bridge[PCI_LATENCY] = byte & LATENCY_WRITABLE;
    }
}

static void pci_reset(struct guest *guest)
{
    uint8_t *bridge = guest->devices.pci.bridge;

    _Static_assert(sizeof(guest->devices.pci.bridge) == HEADER, "all of the header");
    put16(bridge, PCI_VENDOR, VENDOR_INTEL);
    put16(bridge, PCI_DEVICE, DEVICE_82441FX);
    put16(bridge, PCI_COMMAND, COMMAND_MEMORY_MASTER);
    put16(bridge, PCI_STATUS, STATUS_DEFAULT);
    bridge[PCI_REVISION] = REVISION;
    bridge[PCI_CLASS] = CLASS_BRIDGE;
}

static void pci_show(const struct guest *guest, struct sink *to)
{
    const struct dev_pci *pci = &guest->devices.pci;

    format(to, "address 0x%08x: %02x:%02x.%x register 0x%02x%s\n", pci->address,
           pci->address >> 16 & 0xff, pci->address >> 11 & 31, pci->address >> 8 & 7,
           pci->address & 0xfc,
           !(pci->address & ADDRESS_ENABLE) ? ", off"
           : selects_bridge(pci)            ? ", the host bridge"
                                            : ", nothing there");
}

static const struct port_range ranges[] = {
    {PCI_ADDRESS, PCI_ADDRESS + 3, 4, address_read, address_write},
    {PCI_DATA, PCI_DATA + 3, 1 | 2 | 4, data_read, data_write},
};

const struct device pci_device = {
    .name = "PCI",
    .ports = ranges,
    .port_count = ARRAY_SIZE(ranges),
    .reset = pci_reset,
    .bears = BEARS_ON_NOTHING,
    .show = pci_show,
};
