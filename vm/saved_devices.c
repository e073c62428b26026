/* The devices of a saved guest: which members are kept, and what each may be. See vm/saved.h.
 *
 * The table is the format: to change it is to raise SAVED_VERSION. What is not in it is not kept:
 * what waits for a vCPU and what is due are asked for anew, and the count of unclaimed accesses
 * begins at 0. */
#include "lib/bits.h"
#include "lib/string.h"
#include "vm/saved.h"

struct member {
    const char *name;
    uint16_t at, width, count; /* where, bytes of one, how many side by side */
    uint64_t least, most;
};

#define WIDTH(m) sizeof(((struct guest_devices *)0)->m)
#define MEMBER_OF(type, m, n, low, high)                                                           \
    {                                                                                              \
#m, offsetof(type, m), sizeof(((type *)0)->m) / (n), n, low, high                          \
    }
#define MEMBER(m, n, low, high) MEMBER_OF(struct guest_devices, m, n, low, high)
#define ANY(m) MEMBER(m, 1, 0, UINT64_MAX)
#define UP_TO(m, most) MEMBER(m, 1, 0, most)
#define RATE(m) MEMBER(m, 1, 1, (UINT64_C(1) << 40) - 1) /* is divided by: vm/clock.h */
#define FLAG(m) UP_TO(m, 1)
#define ARRAY(m) MEMBER(m, sizeof(((struct guest_devices *)0)->m) / WIDTH(m[0]), 0, UINT64_MAX)

#define PIT(n)                                                                                     \
    FLAG(pit.counter[n].loaded), ANY(pit.counter[n].reload), UP_TO(pit.counter[n].mode, 7),        \
        UP_TO(pit.counter[n].access, 3), FLAG(pit.counter[n].write_high),                          \
        FLAG(pit.counter[n].read_high), FLAG(pit.counter[n].latched),                              \
        FLAG(pit.counter[n].status_latched), ANY(pit.counter[n].write_low),                        \
        ANY(pit.counter[n].status), ANY(pit.counter[n].latch), ANY(pit.counter[n].started),        \
        RATE(pit.counter[n].hz), ANY(pit.counter[n].edges)

#define PIC(n)                                                                                     \
    ANY(pic.chip[n].lines), ANY(pic.chip[n].requests), ANY(pic.chip[n].in_service),                \
        ANY(pic.chip[n].mask), ANY(pic.chip[n].trigger), ANY(pic.chip[n].vector),                  \
        UP_TO(pic.chip[n].lowest, 7), UP_TO(pic.chip[n].init_step, 4), FLAG(pic.chip[n].single),   \
        FLAG(pic.chip[n].wants_icw4), FLAG(pic.chip[n].auto_end), FLAG(pic.chip[n].special_nest),  \
        FLAG(pic.chip[n].rotate_auto), FLAG(pic.chip[n].special_mask),                             \
        FLAG(pic.chip[n].read_service), FLAG(pic.chip[n].poll)

#define HPET(n)                                                                                    \
    ANY(hpet.timer[n].config), ANY(hpet.timer[n].comparator), ANY(hpet.timer[n].period),           \
        ANY(hpet.timer[n].armed_at), ANY(hpet.timer[n].distance)

static const struct member members[] = {
    ANY(clock.started),
    RATE(clock.hz),

    ANY(serial.ier),
    ANY(serial.lcr),
    ANY(serial.mcr),
    ANY(serial.scratch),
    ANY(serial.divisor_low),
    ANY(serial.divisor_high),
    FLAG(serial.fifo),
    FLAG(serial.transmit_interrupt),
    ARRAY(serial.input),
    UP_TO(serial.input_first, SERIAL_INPUT - 1),
    UP_TO(serial.input_count, SERIAL_INPUT),
    FLAG(serial.overrun),

    UP_TO(cmos.index, 127),
    ARRAY(cmos.ram),
    ANY(cmos.started),
    ANY(cmos.phase),
    ANY(cmos.counted),
    FLAG(cmos.alarm_known),
    ANY(cmos.alarm_in),

    PIT(0),
    PIT(1),
    PIT(2),
    UP_TO(pit.gate, 3),
    PIC(0),
    PIC(1),

    ANY(keyboard.command),
    ANY(keyboard.config),
    ANY(keyboard.output),
    FLAG(keyboard.output_full),
    FLAG(keyboard.from_keyboard),
    ANY(keyboard.raw),
    FLAG(keyboard.raw_break),
    FLAG(keyboard.is_break),
    FLAG(keyboard.command_last),
    ANY(keyboard.ready),
    ARRAY(keyboard.keyboard.queue),
    UP_TO(keyboard.keyboard.queued, KEYBOARD_QUEUE),
    ANY(keyboard.keyboard.last),
    ANY(keyboard.keyboard.expects),
    ANY(keyboard.keyboard.set),
    ANY(keyboard.keyboard.leds),
    ANY(keyboard.keyboard.typematic),
    FLAG(keyboard.keyboard.scanning),
    MEMBER(keyboard.keyboard.text, KEYBOARD_TEXT, 0, 127),
    UP_TO(keyboard.keyboard.text_first, KEYBOARD_TEXT - 1),
    UP_TO(keyboard.keyboard.text_count, KEYBOARD_TEXT),

    ANY(pci.address),
    ARRAY(pci.bridge),
    ANY(chipset.diagnostic),
    ANY(chipset.reset),

    ANY(vga.misc),
    ANY(vga.feature),
    ANY(vga.crtc_index),
    ARRAY(vga.crtc),
    ANY(vga.sequencer_index),
    ARRAY(vga.sequencer),
    ANY(vga.graphics_index),
    ARRAY(vga.graphics),
    ANY(vga.attribute_index),
    ARRAY(vga.attribute),
    FLAG(vga.attribute_data),
    ANY(vga.dac_mask),
    ARRAY(vga.dac),
    UP_TO(vga.dac_read, VGA_DAC - 1),
    UP_TO(vga.dac_write, VGA_DAC - 1),
    FLAG(vga.dac_reads),

    ANY(acpi.status),
    ANY(acpi.enable),
    ANY(acpi.control),
    ANY(acpi.halves),
};

#define LAPIC(m, low, high) MEMBER_OF(struct dev_lapic, m, 1, low, high)
#define LAPIC_ANY(m) LAPIC(m, 0, UINT64_MAX)
#define LAPIC_SET(m) MEMBER_OF(struct dev_lapic, m, 4, 0, UINT64_MAX)

static const struct member lapic_members[] = {
    LAPIC_ANY(base),
    LAPIC_SET(irr),
    LAPIC_SET(isr),
    LAPIC_SET(tmr),
    MEMBER_OF(struct dev_lapic, lvt, LAPIC_LVTS, 0, UINT64_MAX),
    LAPIC_ANY(icr),
    LAPIC_ANY(svr),
    LAPIC_ANY(dfr),
    LAPIC_ANY(esr),
    LAPIC_ANY(errors),
    LAPIC_ANY(id),
    LAPIC_ANY(ldr),
    LAPIC(tpr_low, 0, 15),
    LAPIC(nmi, 0, 1),
    LAPIC(timer.crystal_share, 1, UINT32_MAX),
    LAPIC(timer.tsc_share, 1, UINT32_MAX),
    LAPIC_ANY(timer.initial),
    LAPIC_ANY(timer.divide),
    LAPIC(timer.runs, 0, 1),
    LAPIC_ANY(timer.started),
    LAPIC_ANY(timer.deadline),
};

/* Behind the first local APIC's. */
static const struct member more_members[] = {
    ANY(ioapic.index), ANY(ioapic.id),   ANY(ioapic.lines), ARRAY(ioapic.entry),

    ANY(hpet.config),  ANY(hpet.status), ANY(hpet.base),    ANY(hpet.started),
    RATE(hpet.tsc_hz), HPET(0),          HPET(1),           HPET(2),
};

static unsigned put_members(const struct member *list, unsigned count, const void *of, uint8_t *out)
{
    unsigned size = 0;

    for (unsigned i = 0; i < count; i++) {
        unsigned bytes = list[i].width * list[i].count;

        memcpy(out + size, (const uint8_t *)of + list[i].at, bytes);
        size += bytes;
    }
    return size;
}

static unsigned size_of(const struct member *list, unsigned count)
{
    unsigned size = 0;

    for (unsigned i = 0; i < count; i++)
        size += list[i].width * list[i].count;
    return size;
}

/* Returns NULL, or whose value none can be. */
static const char *take_members(const struct member *list, unsigned count, void *to,
                                const uint8_t **from)
{
    for (unsigned i = 0; i < count; i++) {
        const struct member *member = &list[i];

        for (unsigned n = 0; n < member->count; n++, *from += member->width) {
            uint64_t value = 0;

            memcpy(&value, *from, member->width);
            if (value < member->least || value > member->most)
                return member->name;
            memcpy((uint8_t *)to + member->at + n * member->width, *from, member->width);
        }
    }
    return NULL;
}

#define ALL(list) list, ARRAY_SIZE(list)

unsigned saved_lapic_put(const struct dev_lapic *lapic, uint8_t out[SAVED_LAPIC_MOST])
{
    return put_members(ALL(lapic_members), lapic, out);
}

const char *saved_lapic_take(struct dev_lapic *lapic, const uint8_t *from, uint64_t size)
{
    return size == size_of(ALL(lapic_members)) ? take_members(ALL(lapic_members), lapic, &from)
                                               : "size";
}

unsigned saved_devices_put(const struct guest_devices *devices, uint8_t out[SAVED_DEVICES_MOST])
{
    unsigned size = put_members(ALL(members), devices, out);

    size += put_members(ALL(lapic_members), &devices->lapic[0], out + size);
    return size + put_members(ALL(more_members), devices, out + size);
}

const char *saved_devices_take(struct guest_devices *devices, const uint8_t *from, uint64_t size)
{
    const char *wrong;

    if (size != size_of(ALL(members)) + size_of(ALL(lapic_members)) + size_of(ALL(more_members)))
        return "size";
    memset(devices, 0, sizeof(*devices));
    wrong = take_members(ALL(members), devices, &from);
    if (wrong == NULL)
        wrong = take_members(ALL(lapic_members), &devices->lapic[0], &from);
    return wrong != NULL ? wrong : take_members(ALL(more_members), devices, &from);
}
