/* See vm/device.h. */
#include "lib/bits.h"
#include "lib/string.h"
#include "vm/clock.h"
#include "vm/device.h"
#include "vm/guest.h"
#include "vm/interrupts.h"

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

/* Those that count time: by their place, and those that have none. */
static const struct device *timed[TIMED_DEVICES];
static const struct device *always[ARRAY_SIZE(devices)];
static unsigned always_count;

void devices_init(void)
{
    always_count = 0;
    for (unsigned i = 0; i < ARRAY_SIZE(devices); i++) {
        if (devices[i]->timed != TIMED_NONE)
            timed[devices[i]->timed] = devices[i];
        else if (devices[i]->next != NULL)
            always[always_count++] = devices[i];
    }
    ports_init();
    windows_init();
}

void devices_update(struct guest *guest, uint64_t now)
{
    for (unsigned i = TIMED_NONE + 1; i < TIMED_DEVICES; i++)
        timed[i]->update(guest, now);
    for (unsigned i = 0; i < always_count; i++)
        always[i]->update(guest, now);
}

static uint64_t least(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

static uint64_t next_always(const struct guest *guest, uint64_t now)
{
    uint64_t first = UINT64_MAX;

    for (unsigned i = 0; i < always_count; i++)
        first = least(first, always[i]->next(guest, now));
    return first;
}

uint64_t devices_next(const struct guest *guest, uint64_t now)
{
    uint64_t first = next_always(guest, now);

    for (unsigned i = TIMED_NONE + 1; i < TIMED_DEVICES; i++)
        first = least(first, timed[i]->next(guest, now));
    return first;
}

/* ---- What has been told ---------------------------------------------------------------------- */

static void forget(struct guest *guest, enum timed_device which)
{
    guest->devices.due[which] = guest->devices.first_due = 0;
}

static void update_due(struct guest *guest, uint64_t now)
{
    for (unsigned i = TIMED_NONE + 1; i < TIMED_DEVICES; i++) {
        if (guest->devices.due[i] > now)
            continue;
        timed[i]->update(guest, now);
        forget(guest, i);
    }
}

void devices_update_due(struct guest *guest, uint64_t now)
{
    if (guest->devices.first_due <= now)
        update_due(guest, now);
    for (unsigned i = 0; i < always_count; i++)
        always[i]->update(guest, now);
}

/* Has those tell that have to. */
static void find_first(struct guest *guest, uint64_t now)
{
    uint64_t *due = guest->devices.due, first = UINT64_MAX;

    for (unsigned i = TIMED_NONE + 1; i < TIMED_DEVICES; i++) {
        if (due[i] == 0) {
            uint64_t next = timed[i]->next(guest, now);

            due[i] = next < UINT64_MAX - now ? now + next : UINT64_MAX;
        }
        first = least(first, due[i]);
    }
    guest->devices.first_due = first;
}

uint64_t devices_next_due(struct guest *guest, uint64_t now)
{
    if (guest->devices.first_due == 0)
        find_first(guest, now);
    uint64_t first = guest->devices.first_due;

    return least(first == UINT64_MAX ? first : first - now, next_always(guest, now));
}

void devices_settle(struct guest *guest)
{
    devices_update(guest, guest_now(guest));
    for (unsigned i = TIMED_NONE + 1; i < TIMED_DEVICES; i++)
        forget(guest, i);
}

void device_touched(struct guest *guest, const struct device *device)
{
    switch (device->bears) {
    case BEARS_ON_NOTHING:
        break;
    case BEARS_ON_ITSELF:
        if (device->timed != TIMED_NONE)
            forget(guest, device->timed);
        interrupts_look(guest);
        break;
    case BEARS_ON_ALL:
        interrupts_stir(guest);
        break;
    }
}
