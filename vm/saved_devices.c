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
#define MEMBER(m, n, low, high)                                                                    \
    {                                                                                              \
#m, offsetof(struct guest_devices, m), WIDTH(m) / (n), n, low, high                        \
    }
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

    ANY(lapic[0].base),
    ARRAY(lapic[0].irr),
    ARRAY(lapic[0].isr),
    ARRAY(lapic[0].tmr),
    ARRAY(lapic[0].lvt),
    ANY(lapic[0].icr),
    ANY(lapic[0].svr),
    ANY(lapic[0].dfr),
    ANY(lapic[0].esr),
    ANY(lapic[0].errors),
    ANY(lapic[0].id),
    ANY(lapic[0].ldr),
    UP_TO(lapic[0].tpr_low, 15),
    FLAG(lapic[0].nmi),
    MEMBER(lapic[0].timer.crystal_share, 1, 1, UINT32_MAX),
    MEMBER(lapic[0].timer.tsc_share, 1, 1, UINT32_MAX),
    ANY(lapic[0].timer.initial),
    ANY(lapic[0].timer.divide),
    FLAG(lapic[0].timer.runs),
    ANY(lapic[0].timer.started),
    ANY(lapic[0].timer.deadline),

    ANY(ioapic.index),
    ANY(ioapic.id),
    ANY(ioapic.lines),
    ARRAY(ioapic.entry),

    ANY(hpet.config),
    ANY(hpet.status),
    ANY(hpet.base),
    ANY(hpet.started),
    RATE(hpet.tsc_hz),
    HPET(0),
    HPET(1),
    HPET(2),
};

unsigned saved_devices_put(const struct guest_devices *devices, uint8_t out[SAVED_DEVICES_MOST])
{
    unsigned size = 0;

    for (unsigned i = 0; i < ARRAY_SIZE(members); i++) {
        unsigned bytes = members[i].width * members[i].count;

        memcpy(out + size, (const uint8_t *)devices + members[i].at, bytes);
        size += bytes;
    }
    return size;
}

static unsigned size_of_all(void)
{
    unsigned size = 0;

    for (unsigned i = 0; i < ARRAY_SIZE(members); i++)
        size += members[i].width * members[i].count;
    return size;
}

const char *saved_devices_take(struct guest_devices *devices, const uint8_t *from, uint64_t size)
{
    if (size != size_of_all())
        return "size";
    memset(devices, 0, sizeof(*devices));
    for (unsigned i = 0; i < ARRAY_SIZE(members); i++) {
        const struct member *member = &members[i];

        for (unsigned n = 0; n < member->count; n++, from += member->width) {
            uint64_t value = 0;

            memcpy(&value, from, member->width);
            if (value < member->least || value > member->most)
                return member->name;
            memcpy((uint8_t *)devices + member->at + n * member->width, from, member->width);
        }
    }
    return NULL;
}
