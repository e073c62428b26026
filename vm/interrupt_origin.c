/* Where an interrupt of a guest's came from, for whoever traces them. See vm/interrupts.h. */
#include "lib/bits.h"
#include "lib/format.h"
#include "vm/guest.h"
#include "vm/interrupts.h"

#define ENTRY_VECTOR(entry) ((uint8_t)(entry))
#define ENTRY_MASKED BIT(16)

/* The line of a vector that the 8259 pair gave; behind 15 where it gave none such. */
static unsigned pic_line_of(const struct guest *guest, uint8_t vector)
{
    const struct dev_pic *pic = &guest->devices.pic;

    for (unsigned irq = 0; irq < 16; irq++)
        if (vector == (uint8_t)(pic->chip[irq / 8].vector + irq % 8))
            return irq;
    return 16;
}

struct interrupt_origin interrupt_origin(const struct guest *guest, bool by_pic, uint8_t vector)
{
    const struct guest_devices *devices = &guest->devices;

    if (by_pic)
        return (struct interrupt_origin){ORIGIN_PIC, pic_line_of(guest, vector)};
    for (unsigned pin = 0; pin < IOAPIC_PINS; pin++) {
        uint64_t entry = devices->ioapic.entry[pin];

        if (ENTRY_VECTOR(entry) == vector && !(entry & ENTRY_MASKED))
            return (struct interrupt_origin){ORIGIN_IOAPIC, pin};
    }
    for (unsigned which = 0; which < LAPIC_LVTS; which++)
        if (ENTRY_VECTOR(devices->lapic.lvt[which]) == vector)
            return (struct interrupt_origin){ORIGIN_LVT, which};
    return (struct interrupt_origin){ORIGIN_IPI, 0};
}

static const char *line_name(unsigned irq)
{
    switch (irq) {
    case IRQ_TIMER:
        return "timer";
    case IRQ_KEYBOARD:
        return "keyboard";
    case IRQ_SERIAL:
        return "serial";
    case IRQ_CLOCK:
        return "clock";
    case IRQ_ACPI:
        return "ACPI";
    case IRQ_MOUSE:
        return "mouse";
    default:
        return "line";
    }
}

const char *interrupt_origin_text(char buffer[INTERRUPT_ORIGIN_TEXT],
                                  struct interrupt_origin origin)
{
    static const char *const lvt[LAPIC_LVTS] = {"timer", "thermal", "counters",
                                                "LINT0", "LINT1",   "error"};

    switch (origin.kind) {
    case ORIGIN_NMI:
        format_buffer(buffer, INTERRUPT_ORIGIN_TEXT, "NMI");
        break;
    case ORIGIN_PIC:
        format_buffer(buffer, INTERRUPT_ORIGIN_TEXT, "%s, 8259 line %u", line_name(origin.number),
                      origin.number);
        break;
    case ORIGIN_IOAPIC: /* the timer's line comes in at pin 2 */
        format_buffer(buffer, INTERRUPT_ORIGIN_TEXT, "%s, I/O APIC pin %u",
                      line_name(origin.number == 2 ? IRQ_TIMER : origin.number), origin.number);
        break;
    case ORIGIN_LVT:
        format_buffer(buffer, INTERRUPT_ORIGIN_TEXT, "local APIC's %s",
                      lvt[origin.number % LAPIC_LVTS]);
        break;
    case ORIGIN_IPI:
        format_buffer(buffer, INTERRUPT_ORIGIN_TEXT, "the CPU itself, by its ICR");
        break;
    }
    return buffer;
}
