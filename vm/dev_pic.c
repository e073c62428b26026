/*
 * The two 8259A interrupt controllers of a guest, with the edge/level registers at 0x4d0. They take
 * their initialisation, keep their masks, and never have a request.
 */
#include "lib/bits.h"
#include "vm/guest.h"
#include "vm/ports.h"

#define PIC_FIRST 0x20
#define PIC_SECOND 0xa0
#define PIC_TRIGGER 0x4d0

#define ICW1 BIT(4)
#define ICW1_NEEDS_ICW4 BIT(0)
#define ICW1_SINGLE BIT(1)

static struct pic_chip *chip_of(struct guest *guest, uint16_t port)
{
    return &guest->devices.pic.chip[port >= PIC_SECOND];
}

static uint32_t pic_read(struct guest *guest, uint16_t port, unsigned width)
{
    (void)width;
    /* Neither requested nor in service: 0 whichever register OCW3 has selected. */
    return port & 1 ? chip_of(guest, port)->mask : 0;
}

static void write_command(struct pic_chip *chip, uint8_t value)
{
    if (!(value & ICW1))
        return; /* ends of interrupt, and which register to read: all are empty */
    chip->init_left = 1;
    if (!(value & ICW1_SINGLE))
        chip->init_left++;
    if (value & ICW1_NEEDS_ICW4)
        chip->init_left++;
    chip->mask = 0;
}

static void write_data(struct pic_chip *chip, uint8_t value)
{
    if (chip->init_left != 0)
        chip->init_left--; /* ICW2, ICW3, ICW4: vectors and wiring of requests that never come */
    else
        chip->mask = value;
}

static void pic_write(struct guest *guest, uint16_t port, unsigned width, uint32_t value)
{
    (void)width;
    if (port & 1)
        write_data(chip_of(guest, port), (uint8_t)value);
    else
        write_command(chip_of(guest, port), (uint8_t)value);
}

static uint32_t trigger_read(struct guest *guest, uint16_t port, unsigned width)
{
    (void)width;
    return guest->devices.pic.chip[port - PIC_TRIGGER].trigger;
}

static void trigger_write(struct guest *guest, uint16_t port, unsigned width, uint32_t value)
{
    (void)width;
    guest->devices.pic.chip[port - PIC_TRIGGER].trigger = (uint8_t)value;
}

static void pic_reset(struct guest *guest)
{
    guest->devices.pic.chip[0].mask = 0xff;
    guest->devices.pic.chip[1].mask = 0xff;
}

static const struct port_range ranges[] = {
    {PIC_FIRST, PIC_FIRST + 1, 1, pic_read, pic_write},
    {PIC_SECOND, PIC_SECOND + 1, 1, pic_read, pic_write},
    {PIC_TRIGGER, PIC_TRIGGER + 1, 1, trigger_read, trigger_write},
};

const struct port_device pic_device = {"PIC", ranges, ARRAY_SIZE(ranges), pic_reset};
