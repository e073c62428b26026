/* See vm/device.h. */
#include "lib/bits.h"
#include "lib/string.h"
#include "vm/clock.h"
#include "vm/device.h"
#include "vm/guest.h"

static const struct device *const devices[] = {
    &serial_device, &debug_device,    &cmos_device,  &pit_device,    &pic_device,
    &reset_device,  &keyboard_device, &lapic_device, &ioapic_device, &hpet_device,
    &bios_device,   &pci_device,      &vga_device,   &acpi_device,
};

const struct device *device_by_index(unsigned index)
{
    return index < ARRAY_SIZE(devices) ? devices[index] : NULL;
}

void devices_reset(struct guest *guest)
{
    memset(&guest->devices, 0, sizeof(guest->devices));
    guest->devices.clock.started = guest_now(guest);
    guest->devices.clock.hz = clock_tsc_hz();
    for (unsigned i = 0; i < ARRAY_SIZE(devices); i++) {
        if (devices[i]->reset != NULL)
            devices[i]->reset(guest);
    }
}

/* Those whose time matters: every entry of a guest that is not quiet asks them. */
static const struct device *timed[ARRAY_SIZE(devices)];
static unsigned timed_count;

void devices_init(void)
{
    timed_count = 0;
    for (unsigned i = 0; i < ARRAY_SIZE(devices); i++) {
        if (devices[i]->next != NULL)
            timed[timed_count++] = devices[i];
    }
    ports_init();
}

void devices_update(struct guest *guest, uint64_t now)
{
    for (unsigned i = 0; i < timed_count; i++)
        timed[i]->update(guest, now);
}

uint64_t devices_next(const struct guest *guest, uint64_t now)
{
    uint64_t first = UINT64_MAX;

    for (unsigned i = 0; i < timed_count; i++) {
        uint64_t next = timed[i]->next(guest, now);

        if (next < first)
            first = next;
    }
    return first;
}
