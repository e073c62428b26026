/*
 * Interrupts of a guest's devices, from the line that a device drives to the vector that the CPU
 * takes.
 */
#ifndef QUIRE_VM_INTERRUPTS_H
#define QUIRE_VM_INTERRUPTS_H

#include <stdbool.h>
#include <stdint.h>

struct guest;

/* ---- Lines of a PC, 0 to 15 ------------------------------------------------------------------ */

enum {
    IRQ_TIMER = 0,
    IRQ_KEYBOARD = 1,
    IRQ_SERIAL = 4,
    IRQ_CLOCK = 8,
    IRQ_ACPI = 9,
    IRQ_MOUSE = 12,
};

/* Drives a line. An edge is a change from false to true. */
void irq_set_line(struct guest *guest, unsigned irq, bool level);
/* Is an interrupt by this line still to be taken? Can none of it reach the CPU at all? */
bool irq_pending(const struct guest *guest, unsigned irq);
bool irq_masked(const struct guest *guest, unsigned irq);
/* Drives one that the HPET has taken over from its device (hpet_replaces_legacy()). */
void irq_replace_line(struct guest *guest, unsigned irq, bool level);

/* ---- The 8259 pair (vm/dev_pic.c) ------------------------------------------------------------ */

void pic_set_line(struct guest *guest, unsigned irq, bool level);
bool pic_line(const struct guest *guest, unsigned irq); /* how it is driven */
/* The line that has this vector; 16: none has. */
unsigned pic_line_of(const struct guest *guest, uint8_t vector);
/* Does an interrupt wait for the CPU? */
bool pic_asks(const struct guest *guest);
/* The vector of the one that waits, which is in service from now on. */
uint8_t pic_acknowledge(struct guest *guest);
/* Is the line's request still to be acknowledged? Can it reach the CPU at all? */
bool pic_requested(const struct guest *guest, unsigned irq);
bool pic_masked(const struct guest *guest, unsigned irq);

/* ---- The I/O APIC (vm/dev_ioapic.c) ---------------------------------------------------------- */

/* The timer's line comes in at this pin, the others at that of their number. */
#define IOAPIC_TIMER_PIN 2u
/* The first pin that is open and has this vector; IOAPIC_PINS: none. */
unsigned ioapic_pin_of(const struct guest *guest, uint8_t vector);

/* As irq_set_line(), irq_pending() and irq_masked(), of one of its pins. */
void ioapic_set_pin(struct guest *guest, unsigned pin, bool level);
bool ioapic_pending(const struct guest *guest, unsigned pin);
bool ioapic_masked(const struct guest *guest, unsigned pin);
/* The CPU has ended an interrupt by this vector that had come by a level. */
void ioapic_end(struct guest *guest, uint8_t vector);

/* ---- Others ---------------------------------------------------------------------------------- */

/* Are the timer's and the clock's lines the HPET's now? */
bool hpet_replaces_legacy(const struct guest *guest);

/* Can input raise an interrupt of the serial port's? */
bool serial_listens(const struct guest *guest);
/* Can a key? */
bool keyboard_listens(const struct guest *guest);

/* ---- Quiet times ----------------------------------------------------------------------------- */

/* Once nothing waits, nothing new comes before the time that devices_next_due() told, unless
 * somebody touches a device: then the next entry of each vCPU has to look. */
void interrupts_look(struct guest *guest);
/* The same where any device may have another interrupt now than it has told: before what
 * irq_masked() goes by changes. */
void interrupts_stir(struct guest *guest);
/* Whoever drives a line from outside an access of the guest's calls this, which besides has those
 * of its vCPUs look that run on other CPUs. */
void interrupts_come(struct guest *guest);

/* ---- The CPU --------------------------------------------------------------------------------- */

/* Before each entry, at `ticks` of the machine's clock: hands the CPU what waits, if it can take
 * it, or has it tell when it can. Returns for how many ticks the guest may run until a device has
 * something new. */
uint64_t interrupts_offer(struct guest *guest, uint64_t ticks);

/* Where one came from that the CPU was handed. Of two that share a vector the first in this order
 * is told. */
struct interrupt_origin {
    enum interrupt_origin_kind {
        ORIGIN_PIC,    /* a line of the 8259 pair; 16 where the vector is none of its */
        ORIGIN_IOAPIC, /* a pin */
        ORIGIN_LVT,    /* enum lapic_lvt */
        ORIGIN_IPI,
        ORIGIN_NMI,
    } kind;
    unsigned number;
};
struct interrupt_origin interrupt_origin(const struct guest *guest, bool by_pic, uint8_t vector);
#define INTERRUPT_ORIGIN_TEXT 40
const char *interrupt_origin_text(char buffer[INTERRUPT_ORIGIN_TEXT],
                                  struct interrupt_origin origin);

/* Of a guest of which a vCPU has executed HLT: does another go on, or will anything of its own ever
 * wake one? */
bool interrupts_can_wake(struct guest *guest);

#endif
