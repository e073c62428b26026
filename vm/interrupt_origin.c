/* Where an interrupt of a guest's came from, in words. See vm/interrupts.h. */
#include "lib/format.h"
#include "vm/guest.h"
#include "vm/interrupts.h"

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
    case ORIGIN_IOAPIC:
        format_buffer(buffer, INTERRUPT_ORIGIN_TEXT, "%s, I/O APIC pin %u",
                      line_name(origin.number == IOAPIC_TIMER_PIN ? IRQ_TIMER : origin.number),
                      origin.number);
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
