/*
 * The I/O APIC of a guest: 24 pins at 0xfec00000, by the data sheet of the 82093AA (Intel order
 * number 290566). Lines 0 to 15 of a PC come in at the pins of their number, but for the timer's,
 * which comes in at pin 2. Polarity has no effect: a line that is driven is active.
 */
#include "lib/bits.h"
#include "vm/device.h"
#include "vm/guest.h"
#include "vm/interrupts.h"
#include "vm/lapic.h"

#define WINDOW_BASE UINT64_C(0xfec00000)
#define WINDOW_BYTES 4096

enum { INDEX = 0x00, DATA = 0x10 };
enum { REGISTER_ID, REGISTER_VERSION, REGISTER_ARBITRATION, REGISTER_ENTRIES = 0x10 };

#define VERSION (0x11u | (IOAPIC_PINS - 1) << 16)
#define ID_WRITABLE UINT32_C(0x0f000000)
#define ID_SHIFT 24

#define ENTRY_WRITABLE UINT64_C(0xff0000000001afff)
#define ENTRY_VECTOR(entry) ((uint8_t)(entry))
#define ENTRY_MODE(entry) ((entry) >> 8 & 7)
#define ENTRY_LOGICAL BIT(11)
#define ENTRY_REMOTE_IRR BIT(14) /* accepted by the CPU and not ended */
#define ENTRY_LEVEL BIT(15)
#define ENTRY_MASKED BIT(16)
#define ENTRY_DESTINATION(entry) lapic_destination((uint8_t)((entry) >> 56))

static void deliver(struct guest *guest, unsigned pin)
{
    uint64_t *entry = &guest->devices.ioapic.entry[pin];

    unsigned to = lapic_addressed(guest, ENTRY_DESTINATION(*entry), *entry & ENTRY_LOGICAL);

    if (to == 0)
        return;
    if (*entry & ENTRY_LEVEL)
        *entry |= ENTRY_REMOTE_IRR;
    lapic_route(guest, to, ENTRY_MODE(*entry), ENTRY_VECTOR(*entry), *entry & ENTRY_LEVEL);
}

/* A level asks for as long as it is there, once for each end. */
static void look_at_level(struct guest *guest, unsigned pin)
{
    const struct dev_ioapic *ioapic = &guest->devices.ioapic;
    uint64_t entry = ioapic->entry[pin];

    if (ioapic->lines & BIT(pin) && entry & ENTRY_LEVEL &&
        !(entry & (ENTRY_MASKED | ENTRY_REMOTE_IRR)))
        deliver(guest, pin);
}

void ioapic_set_pin(struct guest *guest, unsigned pin, bool level)
{
    struct dev_ioapic *ioapic = &guest->devices.ioapic;
    bool rises = level && !(ioapic->lines & BIT(pin));
    uint32_t bit = (uint32_t)BIT(pin);

    ioapic->lines = level ? ioapic->lines | bit : ioapic->lines & ~bit;
    if (ioapic->entry[pin] & ENTRY_LEVEL)
        look_at_level(guest, pin);
    else if (rises && !(ioapic->entry[pin] & ENTRY_MASKED))
        deliver(guest, pin);
}

void ioapic_end(struct guest *guest, uint8_t vector)
{
    for (unsigned pin = 0; pin < IOAPIC_PINS; pin++) {
        uint64_t *entry = &guest->devices.ioapic.entry[pin];

        if (ENTRY_VECTOR(*entry) != vector || !(*entry & ENTRY_REMOTE_IRR))
            continue;
        *entry &= ~ENTRY_REMOTE_IRR;
        look_at_level(guest, pin);
    }
}

unsigned ioapic_pin_of(const struct guest *guest, uint8_t vector)
{
    const uint64_t *entry = guest->devices.ioapic.entry;
    unsigned pin = 0;

    while (pin < IOAPIC_PINS && (ENTRY_VECTOR(entry[pin]) != vector || entry[pin] & ENTRY_MASKED))
        pin++;
    return pin;
}

bool ioapic_pending(const struct guest *guest, unsigned pin)
{
    uint64_t entry = guest->devices.ioapic.entry[pin];

    return !(entry & ENTRY_MASKED) && lapic_any_has_vector(guest, ENTRY_VECTOR(entry));
}

static bool any_is_on(const struct guest *guest)
{
    for (unsigned i = 0; i < guest->cpus; i++)
        if (lapic_is_on(&guest->devices.lapic[i]))
            return true;
    return false;
}

bool ioapic_masked(const struct guest *guest, unsigned pin)
{
    return guest->devices.ioapic.entry[pin] & ENTRY_MASKED || !any_is_on(guest);
}

/* ---- Registers ------------------------------------------------------------------------------ */

static uint32_t read_register(const struct dev_ioapic *ioapic)
{
    unsigned number = ioapic->index - REGISTER_ENTRIES;

    switch (ioapic->index) {
    case REGISTER_ID:
    case REGISTER_ARBITRATION:
        return ioapic->id;
    case REGISTER_VERSION:
        return VERSION;
    }
    if (ioapic->index < REGISTER_ENTRIES || number >= 2 * IOAPIC_PINS)
        return 0;
    return (uint32_t)(ioapic->entry[number / 2] >> 32 * (number % 2));
}

/* An edge is accepted as it is delivered: what is no level has no remote IRR. */
static void write_entry(struct guest *guest, unsigned number, uint32_t value)
{
    unsigned pin = number / 2, shift = 32 * (number % 2);
    uint64_t *entry = &guest->devices.ioapic.entry[pin];
    uint64_t half = (uint64_t)UINT32_MAX << shift;

    interrupts_stir(guest); /* it may open the pin, or close it */
    uint64_t written = ((*entry & ~half) | (uint64_t)value << shift) & ENTRY_WRITABLE;

    *entry = written | (written & ENTRY_LEVEL ? *entry & ENTRY_REMOTE_IRR : 0);
    look_at_level(guest, pin);
}

static uint64_t ioapic_read(struct guest *guest, uint64_t offset, unsigned bytes)
{
    const struct dev_ioapic *ioapic = &guest->devices.ioapic;

    (void)bytes;
    switch (offset) {
    case INDEX:
        return ioapic->index;
    case DATA:
        return read_register(ioapic);
    }
    return 0;
}

static void ioapic_write(struct guest *guest, uint64_t offset, unsigned bytes, uint64_t value)
{
    struct dev_ioapic *ioapic = &guest->devices.ioapic;
    unsigned number = ioapic->index - REGISTER_ENTRIES;

    if (offset == INDEX)
        ioapic->index = (uint8_t)value;
    if (offset != DATA || bytes < 4)
        return;
    if (ioapic->index == REGISTER_ID)
        ioapic->id = (uint32_t)value & ID_WRITABLE;
    else if (ioapic->index >= REGISTER_ENTRIES && number < 2 * IOAPIC_PINS)
        write_entry(guest, number, (uint32_t)value);
}

/* As firmware leaves it: with the ID that the MADT tells, which is no local APIC's. */
static void ioapic_reset(struct guest *guest)
{
    _Static_assert(IOAPIC_ID >= GUEST_VCPUS, "their IDs are below");
    guest->devices.ioapic.id = IOAPIC_ID << ID_SHIFT;
    for (unsigned pin = 0; pin < IOAPIC_PINS; pin++)
        guest->devices.ioapic.entry[pin] = ENTRY_MASKED;
}

static void ioapic_show(const struct guest *guest, struct sink *to)
{
    const struct dev_ioapic *ioapic = &guest->devices.ioapic;
    unsigned open = 0;

    for (unsigned pin = 0; pin < IOAPIC_PINS; pin++) {
        uint64_t entry = ioapic->entry[pin];

        if (entry & ENTRY_MASKED)
            continue;
        open++;
        format(to, "pin %u: vector 0x%x, %s%s%s\n", pin, ENTRY_VECTOR(entry),
               entry & ENTRY_LEVEL ? "level" : "edge", ioapic->lines & BIT(pin) ? ", driven" : "",
               entry & ENTRY_REMOTE_IRR ? ", not ended" : "");
    }
    format(to, "%u of %u pins open\n", open, IOAPIC_PINS);
}

static const struct window windows[] = {
    {WINDOW_BASE, WINDOW_BYTES, ioapic_read, ioapic_write},
};

const struct device ioapic_device = {
    .name = "I/O APIC",
    .bears = BEARS_ON_ITSELF,
    .windows = windows,
    .window_count = ARRAY_SIZE(windows),
    .reset = ioapic_reset,
    .show = ioapic_show,
};
