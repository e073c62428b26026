/*
 * The two 8259 interrupt controllers of a PC, which the hypervisor has no use for.
 */
#ifndef QUIRE_ARCH_PIC_H
#define QUIRE_ARCH_PIC_H

/* Where their interrupts would arrive: beyond the exceptions, which the firmware's choice is not.
 */
#define PIC_VECTOR_BASE 0x20

/* Moves both to PIC_VECTOR_BASE .. + 15 and masks every line. */
void pic_disable(void);

#endif
