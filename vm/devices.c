/* See vm/device.h. */
#include "lib/bits.h"
#include "lib/string.h"
#include "vm/device.h"
#include "vm/guest.h"

static const struct device *const devices[] = {
    &serial_device, &debug_device, &cmos_device,     &pit_device,
    &pic_device,    &reset_device, &keyboard_device, &bios_device,
};

const struct device *device_by_index(unsigned index)
{
    return index < ARRAY_SIZE(devices) ? devices[index] : NULL;
}

void devices_reset(struct guest *guest)
{
    memset(&guest->devices, 0, sizeof(guest->devices));
    for (unsigned i = 0; i < ARRAY_SIZE(devices); i++) {
        if (devices[i]->reset != NULL)
            devices[i]->reset(guest);
    }
}

void devices_update(struct guest *guest, uint64_t now)
{
    for (unsigned i = 0; i < ARRAY_SIZE(devices); i++) {
        if (devices[i]->update != NULL)
            devices[i]->update(guest, now);
    }
}

uint64_t devices_next(const struct guest *guest, uint64_t now)
{
    uint64_t first = UINT64_MAX;

    for (unsigned i = 0; i < ARRAY_SIZE(devices); i++) {
        uint64_t next = devices[i]->next != NULL ? devices[i]->next(guest, now) : UINT64_MAX;

        if (next < first)
            first = next;
    }
    return first;
}
