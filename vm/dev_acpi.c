/*
 * The fixed ACPI hardware of a guest, as vm/acpi/facp.asl tells of it (ACPI 6.3, 4.8.3): the PM1
 * event registers at 0x600, PM1 control at 0x604, and the power management timer at 0x608, 32 bits
 * at 3.579545 MHz. ACPI mode is always on. The one sleep that there is is soft-off, by which the
 * guest ends, and well.
 *
 * The SCI is a level on IRQ 9. Of the events none but the timer's ever comes.
 */
#include "lib/bits.h"
#include "vm/clock.h"
#include "vm/device.h"
#include "vm/guest.h"
#include "vm/interrupts.h"
#include "vm/reset.h"

#define PM1_STATUS 0x600
#define PM1_ENABLE 0x602
#define PM1_CONTROL 0x604
#define PM_TIMER 0x608

#define PM_TIMER_HZ 3579545
#define TIMER_HALF BIT(31) /* its status is set as this bit changes */

/* Of status and enable alike. */
#define EVENT_TIMER BIT(0)
#define EVENTS_ENABLED 0x0721 /* timer, global lock, buttons, clock */

#define CONTROL_SCI BIT(0)
#define CONTROL_KEPT 0x1c02 /* SLP_TYP, BM_RLD */
#define CONTROL_SLEEP BIT(13)
#define CONTROL_TYPE(value) ((value) >> 10 & 7)
#define TYPE_SOFT_OFF 5 /* vm/acpi/dsdt.asl says so: \_S5 */

static uint64_t counts_at(const struct guest *guest, uint64_t now)
{
    return clock_counts(now - guest->devices.clock.started, guest->devices.clock.hz, PM_TIMER_HZ);
}

static void acpi_update(struct guest *guest, uint64_t now)
{
    struct dev_acpi *acpi = &guest->devices.acpi;
    uint64_t halves = counts_at(guest, now) / TIMER_HALF;

    if (halves != acpi->halves)
        acpi->status |= EVENT_TIMER;
    acpi->halves = halves;
    irq_set_line(guest, IRQ_ACPI, acpi->status & acpi->enable);
}

static uint64_t acpi_next(const struct guest *guest, uint64_t now)
{
    const struct dev_acpi *acpi = &guest->devices.acpi;
    uint64_t at;

    if (!(acpi->enable & EVENT_TIMER) || acpi->status & EVENT_TIMER || irq_masked(guest, IRQ_ACPI))
        return UINT64_MAX;
    at = guest->devices.clock.started +
         clock_ticks((acpi->halves + 1) * TIMER_HALF, guest->devices.clock.hz, PM_TIMER_HZ);
    return at > now ? at - now : 1;
}

static void sleep(struct guest *guest, uint16_t control)
{
    if (CONTROL_TYPE(control) == TYPE_SOFT_OFF) /* \_Sx offers no other */
        guest_power_off(guest, "ACPI");
}

/* The register that a byte at a port belongs to, which half of it, and its value. */
static uint16_t register_at(const struct dev_acpi *acpi, uint16_t port)
{
    switch (port & ~1) {
    case PM1_STATUS:
        return acpi->status;
    case PM1_ENABLE:
        return acpi->enable;
    case PM1_CONTROL:
        return acpi->control | CONTROL_SCI;
    }
    return 0; /* reserved */
}

static uint32_t acpi_read(struct guest *guest, uint16_t port, unsigned width)
{
    uint16_t value;

    acpi_update(guest, guest_now(guest));
    value = register_at(&guest->devices.acpi, port);
    return width == 2 ? value : value >> 8 * (port & 1);
}

static void acpi_write(struct guest *guest, uint16_t port, unsigned width, uint32_t value)
{
    struct dev_acpi *acpi = &guest->devices.acpi;
    unsigned shift = width == 2 ? 0 : 8 * (port & 1);
    uint16_t bits = (uint16_t)(value << shift),
             mask = width == 2 ? 0xffff : (uint16_t)(0xff << shift);

    acpi_update(guest, guest_now(guest));
    switch (port & ~1) {
    case PM1_STATUS: /* ones clear */
        acpi->status &= (uint16_t)~bits;
        break;
    case PM1_ENABLE:
        acpi->enable = (uint16_t)((acpi->enable & ~mask) | (bits & EVENTS_ENABLED));
        break;
    case PM1_CONTROL:
        acpi->control = (uint16_t)((acpi->control & ~mask) | (bits & CONTROL_KEPT));
        if (bits & CONTROL_SLEEP)
            sleep(guest, acpi->control);
        break;
    }
    acpi_update(guest, guest_now(guest));
}

static uint32_t timer_read(struct guest *guest, uint16_t port, unsigned width)
{
    uint64_t counts = counts_at(guest, guest_now(guest));

    (void)width;
    return (uint32_t)counts >> 8 * (port - PM_TIMER);
}

static void acpi_show(const struct guest *guest, struct sink *to)
{
    const struct dev_acpi *acpi = &guest->devices.acpi;

    format(to, "PM1 status 0x%04x, enable 0x%04x, control 0x%04x\n", acpi->status, acpi->enable,
           (unsigned)(acpi->control | CONTROL_SCI));
}

static const struct port_range ranges[] = {
    {PM1_STATUS, PM1_CONTROL + 3, 1 | 2, acpi_read, acpi_write},
    {PM_TIMER, PM_TIMER + 3, 1 | 2 | 4, timer_read, NULL},
};

const struct device acpi_device = {
    .name = "ACPI",
    .ports = ranges,
    .port_count = ARRAY_SIZE(ranges),
    .bears = BEARS_ON_ITSELF,
    .timed = TIMED_ACPI,
    .update = acpi_update,
    .next = acpi_next,
    .show = acpi_show,
};
