/*
 * The first serial port (COM1, 16550, 115200 8N1), polled both ways.
 */
#ifndef QUIRE_ARCH_UART_H
#define QUIRE_ARCH_UART_H

#include <stdbool.h>

#include "lib/format.h"

/* Programs the port. False when nothing answers there; everything below then does nothing. */
bool uart_init(void);

/* The next received byte, or -1 when there is none now. */
int uart_getc(void);

/*
 * Gives up the receive FIFO. A sender at the other end of a wire does not care, and the FIFO keeps
 * what it sends while nobody polls. An emulator whose sender is a program hands bytes over as fast
 * as they are written: with a FIFO it may drop what does not fit, without one it waits until each
 * byte has been read. For such emulators, and as early as can be: what is in the FIFO now is lost.
 */
void uart_hold_sender(void);

/* What the port interrupts for, on line 4 of the PC's 8259. */
enum uart_interrupt {
    UART_INTERRUPT_NONE = 0,
    UART_INTERRUPT_RECEIVED = 1,
    UART_INTERRUPT_SENT = 2
};
void uart_interrupt(enum uart_interrupt what);

/* A sink that sends, with '\n' as CR LF, behind whatever is queued. Waits for the transmitter, but
 * never for ever. */
extern struct sink uart_sink;

/* The same, but what the transmitter does not take at once is queued, and uart_attend() sends it.
 * Waits only while the queue is full. For the console, which has to go on meanwhile. */
extern struct sink uart_queue_sink;

/* Sends of the queue what the transmitter takes without waiting. True: a byte has been received. */
bool uart_attend(void);

/* The queue has room for a line or two, and little is before them. */
bool uart_has_room(void);
bool uart_is_queued(void); /* something waits in it */

/* Waits until the queue is empty and the last byte has left the shift register. */
void uart_flush(void);

#endif
