/*
 * The two 8259A interrupt controllers of a guest, with the edge/level registers at 0x4d0. Modes and
 * command words by the data sheet (Intel order number 231468).
 *
 * A request by an edge stays until it is acknowledged, also where the line has dropped meanwhile;
 * the chip itself would then answer with a spurious one. MCS-80/85 mode and buffered mode make no
 * difference to a PC and are taken without effect.
 */
#include "lib/bits.h"
#include "vm/device.h"
#include "vm/guest.h"
#include "vm/interrupts.h"

#define PIC_FIRST 0x20
#define PIC_SECOND 0xa0
#define PIC_TRIGGER 0x4d0

#define CASCADE 2 /* the first chip's line to which the second is wired */
#define SPURIOUS 7

#define ICW1 BIT(4)
#define ICW1_NEEDS_ICW4 BIT(0)
#define ICW1_SINGLE BIT(1)
#define ICW2_VECTOR 0xf8
#define ICW4_AUTO_END BIT(1)
#define ICW4_SPECIAL_NEST BIT(4)

#define OCW2_LINE 0x07
#define OCW2_SPECIFIC BIT(6)
#define OCW2_END BIT(5)
#define OCW2_ROTATE BIT(7)

#define OCW3 BIT(3)
#define OCW3_READ BIT(1)
#define OCW3_READ_SERVICE BIT(0)
#define OCW3_POLL BIT(2)
#define OCW3_SET_SPECIAL BIT(6)
#define OCW3_SPECIAL BIT(5)

#define POLL_REQUEST BIT(7)

/* Lines 0 to 2 of the first chip, and the clock's and the FPU's of the second, are edges always. */
static const uint8_t trigger_writable[2] = {0xf8, 0xde};

/* The line of `set` that has the highest priority; -1: the set is empty. */
static int highest(const struct pic_chip *chip, uint8_t set)
{
    if (set == 0)
        return -1;
    for (unsigned i = 1; i <= 8; i++) {
        unsigned line = (chip->lowest + i) & 7;
        if (set & BIT(line))
            return (int)line;
    }
    __builtin_unreachable();
}

/* How far down in priority a line is; one that is none comes last. */
static unsigned rank(const struct pic_chip *chip, int line)
{
    return line < 0 ? 8 : ((unsigned)line - chip->lowest - 1) & 7;
}

/* The line that the chip asks to be served, if any: above all that is in service. */
static int asks(const struct dev_pic *pic, unsigned which)
{
    const struct pic_chip *chip = &pic->chip[which];
    int line = highest(chip, chip->requests & (uint8_t)~chip->mask);
    uint8_t served = chip->in_service;

    if (line < 0)
        return -1;
    if (chip->special_mask)
        served &= (uint8_t)~chip->mask; /* what is masked holds nothing back */
    if (chip->special_nest && which == 0)
        served &= (uint8_t)~BIT(CASCADE); /* the second chip judges for itself */
    return rank(chip, line) < rank(chip, highest(chip, served)) ? line : -1;
}

static void set_chip_line(struct pic_chip *chip, unsigned line, bool level)
{
    uint8_t bit = (uint8_t)BIT(line);
    bool rises = level && !(chip->lines & bit);

    chip->lines = level ? chip->lines | bit : chip->lines & (uint8_t)~bit;
    if (rises)
        chip->requests |= bit;
    if (!level && chip->trigger & bit)
        chip->requests &= (uint8_t)~bit;
}

/* The second chip's output is an input of the first, whose request follows it. */
static void cascade(struct dev_pic *pic)
{
    uint8_t bit = (uint8_t)BIT(CASCADE);

    if (asks(pic, 1) >= 0)
        pic->chip[0].requests |= bit;
    else
        pic->chip[0].requests &= (uint8_t)~bit;
}

void pic_set_line(struct guest *guest, unsigned irq, bool level)
{
    struct dev_pic *pic = &guest->devices.pic;

    set_chip_line(&pic->chip[irq / 8], irq % 8, level);
    cascade(pic);
}

bool pic_line(const struct guest *guest, unsigned irq)
{
    return (guest->devices.pic.chip[irq / 8].lines & BIT(irq % 8)) != 0;
}

bool pic_asks(const struct guest *guest)
{
    return asks(&guest->devices.pic, 0) >= 0;
}

bool pic_requested(const struct guest *guest, unsigned irq)
{
    return guest->devices.pic.chip[irq / 8].requests & BIT(irq % 8);
}

bool pic_masked(const struct guest *guest, unsigned irq)
{
    const struct dev_pic *pic = &guest->devices.pic;

    return pic->chip[irq / 8].mask & BIT(irq % 8) || (irq >= 8 && pic->chip[0].mask & BIT(CASCADE));
}

/* The line is in service from now on. A level that is still there asks again after its end. */
static void serve(struct pic_chip *chip, unsigned line)
{
    uint8_t bit = (uint8_t)BIT(line);

    if (!(chip->trigger & bit))
        chip->requests &= (uint8_t)~bit;
    if (!chip->auto_end)
        chip->in_service |= bit;
    else if (chip->rotate_auto)
        chip->lowest = (uint8_t)line;
}

/* The line that a chip answers with to an acknowledge; a request that is gone is answered as the
 * lowest line, which is then not in service. */
static unsigned acknowledge(struct dev_pic *pic, unsigned which)
{
    int line = asks(pic, which);

    if (line < 0)
        return SPURIOUS;
    serve(&pic->chip[which], (unsigned)line);
    return (unsigned)line;
}

uint8_t pic_acknowledge(struct guest *guest)
{
    struct dev_pic *pic = &guest->devices.pic;
    bool spurious = asks(pic, 0) < 0;
    unsigned which = 0, line = acknowledge(pic, 0);

    if (line == CASCADE && !spurious) {
        which = 1;
        line = acknowledge(pic, 1);
    }
    cascade(pic);
    return (uint8_t)(pic->chip[which].vector + line);
}

unsigned pic_line_of(const struct guest *guest, uint8_t vector)
{
    const struct dev_pic *pic = &guest->devices.pic;
    unsigned irq = 0;

    while (irq < 16 && vector != (uint8_t)(pic->chip[irq / 8].vector + irq % 8))
        irq++;
    return irq;
}

/* ---- Command words ------------------------------------------------------------------------- */

static void begin_init(struct pic_chip *chip, uint8_t value)
{
    *chip = (struct pic_chip){
        .lines = chip->lines,
        .requests = chip->lines & chip->trigger, /* edges of before are forgotten */
        .trigger = chip->trigger,
        .vector = chip->vector,
        .lowest = 7,
        .init_step = 2,
        .single = value & ICW1_SINGLE,
        .wants_icw4 = value & ICW1_NEEDS_ICW4,
    };
}

/* OCW2: ends of interrupt, and rotation of priorities. */
static void end_or_rotate(struct pic_chip *chip, uint8_t value)
{
    int line = value & OCW2_SPECIFIC ? value & OCW2_LINE : highest(chip, chip->in_service);

    if (!(value & OCW2_END)) {
        if (!(value & OCW2_SPECIFIC))
            chip->rotate_auto = value & OCW2_ROTATE;
        else if (value & OCW2_ROTATE)
            chip->lowest = (uint8_t)line;
        return;
    }
    if (line < 0)
        return;
    chip->in_service &= (uint8_t)~BIT((unsigned)line);
    if (value & OCW2_ROTATE)
        chip->lowest = (uint8_t)line;
}

static void write_command(struct pic_chip *chip, uint8_t value)
{
    if (value & ICW1) {
        begin_init(chip, value);
    } else if (value & OCW3) {
        chip->poll = value & OCW3_POLL;
        if (value & OCW3_READ)
            chip->read_service = value & OCW3_READ_SERVICE;
        if (value & OCW3_SET_SPECIAL)
            chip->special_mask = value & OCW3_SPECIAL;
    } else {
        end_or_rotate(chip, value);
    }
}

static void write_data(struct pic_chip *chip, uint8_t value)
{
    switch (chip->init_step) {
    case 0:
        chip->mask = value;
        return;
    case 2:
        chip->vector = value & ICW2_VECTOR;
        chip->init_step = chip->single ? 4 : 3;
        break;
    case 3: /* a PC's wiring is what it is */
        chip->init_step = 4;
        break;
    default:
        chip->auto_end = value & ICW4_AUTO_END;
        chip->special_nest = value & ICW4_SPECIAL_NEST;
        chip->init_step = 0;
        return;
    }
    if (chip->init_step == 4 && !chip->wants_icw4)
        chip->init_step = 0;
}

static unsigned chip_at(uint16_t port)
{
    return port >= PIC_SECOND;
}

static uint32_t pic_read(struct guest *guest, uint16_t port, unsigned width)
{
    struct dev_pic *pic = &guest->devices.pic;
    struct pic_chip *chip = &pic->chip[chip_at(port)];

    (void)width;
    interrupts_stir(guest); /* a guest may wait for the request of a line that is masked */
    if (chip->poll) {       /* this read is the acknowledge */
        bool any = asks(pic, chip_at(port)) >= 0;
        unsigned line = acknowledge(pic, chip_at(port));

        chip->poll = false;
        cascade(pic);
        return any ? POLL_REQUEST | line : 0;
    }
    if (port & 1)
        return chip->mask;
    return chip->read_service ? chip->in_service : chip->requests;
}

/* To begin the initialisation opens all lines. */
static bool changes_mask(const struct pic_chip *chip, uint16_t port, uint8_t value)
{
    return port & 1 ? chip->init_step == 0 && chip->mask != value : value & ICW1;
}

static void pic_write(struct guest *guest, uint16_t port, unsigned width, uint32_t value)
{
    struct dev_pic *pic = &guest->devices.pic;
    struct pic_chip *chip = &pic->chip[chip_at(port)];

    (void)width;
    if (changes_mask(chip, port, (uint8_t)value))
        interrupts_stir(guest);
    if (port & 1)
        write_data(chip, (uint8_t)value);
    else
        write_command(chip, (uint8_t)value);
    cascade(pic);
}

static uint32_t trigger_read(struct guest *guest, uint16_t port, unsigned width)
{
    (void)width;
    return guest->devices.pic.chip[port - PIC_TRIGGER].trigger;
}

static void trigger_write(struct guest *guest, uint16_t port, unsigned width, uint32_t value)
{
    struct dev_pic *pic = &guest->devices.pic;
    unsigned which = port - PIC_TRIGGER;
    struct pic_chip *chip = &pic->chip[which];

    (void)width;
    chip->trigger = (uint8_t)value & trigger_writable[which];
    chip->requests = (chip->requests & (uint8_t)~chip->trigger) | (chip->lines & chip->trigger);
    cascade(pic);
}

static void pic_reset(struct guest *guest)
{
    for (unsigned i = 0; i < 2; i++)
        guest->devices.pic.chip[i] = (struct pic_chip){
            .mask = 0xff,
            .vector = i == 0 ? 0x08 : 0x70, /* where a PC's firmware puts them */
            .lowest = 7,
        };
}

static void pic_show(const struct guest *guest, struct sink *to)
{
    const struct dev_pic *pic = &guest->devices.pic;

    for (unsigned i = 0; i < 2; i++) {
        const struct pic_chip *chip = &pic->chip[i];

        format(to, "%s: vectors 0x%02x-0x%02x, IMR 0x%02x, IRR 0x%02x, ISR 0x%02x, ELCR 0x%02x%s\n",
               i == 0 ? "first" : "second", chip->vector, chip->vector + 7u, chip->mask,
               chip->requests, chip->in_service, chip->trigger,
               chip->init_step != 0 ? ", being initialised" : "");
    }
}

static const struct port_range ranges[] = {
    {PIC_FIRST, PIC_FIRST + 1, 1, pic_read, pic_write},
    {PIC_SECOND, PIC_SECOND + 1, 1, pic_read, pic_write},
    {PIC_TRIGGER, PIC_TRIGGER + 1, 1, trigger_read, trigger_write},
};

const struct device pic_device = {
    .name = "PIC",
    .bears = BEARS_ON_ITSELF,
    .ports = ranges,
    .port_count = ARRAY_SIZE(ranges),
    .reset = pic_reset,
    .show = pic_show,
};
