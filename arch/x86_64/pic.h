/*
 * The two 8259 interrupt controllers of a PC, of which the hypervisor uses one line: COM1's.
 */
#ifndef QUIRE_ARCH_PIC_H
#define QUIRE_ARCH_PIC_H

/* Where their interrupts would arrive: beyond the exceptions, which the firmware's choice is not.
 */
#define PIC_VECTOR_BASE 0x20

/* Moves both to PIC_VECTOR_BASE .. + 15 and masks every line. */
void pic_disable(void);

/* Lines of the master. */
#define PIC_COM1 4
#define PIC_SPURIOUS 7
#define PIC_NOBODY 8

/* Unmasks this line of the master alone, or masks all for PIC_NOBODY. */
void pic_listen(unsigned line);

#endif
