/*
 * Waiting for a byte on the serial line without burning the CPU: HLT until COM1 interrupts, through
 * the master 8259 and LINT0. Outside of cpu_idle() all of that stays masked.
 */
#ifndef QUIRE_ARCH_IDLE_H
#define QUIRE_ARCH_IDLE_H

/* Finds out, once, whether the interrupt of COM1 arrives on this machine. After pic_disable(),
 * uart_init() and traps_init(), with interrupts off. */
void idle_init(void);

/* Returns when a byte is there to be read; at once where its interrupt does not arrive, after a
 * PAUSE. Interrupts are off before and after. */
void cpu_idle(void);

/* For trap_set_gate(), in idle_entry.asm: one that ends the interrupt at the local APIC and does
 * nothing else, and one that does nothing. */
void idle_timer(void);
void idle_spurious(void);

#endif
