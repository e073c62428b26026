/*
 * Interrupts of a guest's devices, from the line that a device drives to the vector that the CPU
 * takes.
 */
#ifndef QUIRE_VM_INTERRUPTS_H
#define QUIRE_VM_INTERRUPTS_H

#include <stdbool.h>
#include <stdint.h>

struct guest;

enum { IRQ_TIMER = 0, IRQ_SERIAL = 4 };

/* ---- The interrupt controllers (vm/dev_pic.c) ------------------------------------------------ */

/* Drives a line, 0 to 15. */
void pic_set_line(struct guest *guest, unsigned irq, bool level);
/* Does an interrupt wait for the CPU? */
bool pic_asks(const struct guest *guest);
/* The vector of the one that waits, which is in service from now on. */
uint8_t pic_acknowledge(struct guest *guest);
/* Is the line's request still to be acknowledged? Can it reach the CPU at all? */
bool pic_requested(const struct guest *guest, unsigned irq);
bool pic_masked(const struct guest *guest, unsigned irq);

/* ---- Devices that raise them ----------------------------------------------------------------- */

/* Brings the timer's line up to date at `now` (ticks of the backend's clock). */
void pit_update(struct guest *guest, uint64_t now);
/* Ticks from `now` to the timer's next interrupt; UINT64_MAX: there will be none. */
uint64_t pit_next(const struct guest *guest, uint64_t now);
/* Can input raise an interrupt of the serial port's? */
bool serial_listens(const struct guest *guest);

/* ---- The CPU --------------------------------------------------------------------------------- */

/* Before each entry: hands the CPU what waits, if it can take it, or has it tell when it can.
 * Returns for how many ticks the guest may run until a device has something new. */
uint64_t interrupts_offer(struct guest *guest, uint64_t now);

/* Of a guest that has executed HLT: will anything of its own ever wake it? */
bool interrupts_can_wake(struct guest *guest);

#endif
