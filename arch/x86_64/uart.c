/* See arch/x86_64/uart.h. Registers by the 16550 data sheet. */
#include "arch/x86_64/uart.h"

#include "arch/x86_64/cpu.h"

#define COM1 0x3f8
#define UART_DATA (COM1 + 0)
#define UART_IER (COM1 + 1)
#define UART_IIR (COM1 + 2) /* read */
#define UART_FCR (COM1 + 2) /* written */
#define UART_LCR (COM1 + 3)
#define UART_MCR (COM1 + 4)
#define UART_LSR (COM1 + 5)
#define UART_SCRATCH (COM1 + 7)
#define UART_DIVISOR_LOW (COM1 + 0) /* with LCR_DLAB */
#define UART_DIVISOR_HIGH (COM1 + 1)

#define FCR_ENABLE_AND_CLEAR 0x07
#define IIR_FIFOS 0xc0 /* both bits: a FIFO that works, as the 16550A has it */
#define FIFO_DEPTH 16
#define LCR_8N1 0x03
#define LCR_DLAB 0x80
#define MCR_DTR_RTS 0x03
#define MCR_OUT2 0x08 /* lets interrupts out, on a PC */
#define LSR_DATA_READY 0x01
#define LSR_HOLDING_EMPTY 0x20
#define LSR_ALL_SENT 0x40
#define DIVISOR_115200 1

/* Polls of the line status before a port is given up: far more than a FIFO takes at 115200 baud
 * (1.4 ms; a port access takes about 1 us). */
#define POLL_LIMIT 1000000u

static bool present;
static unsigned depth; /* bytes that the transmitter takes when it is empty */
static unsigned room;  /* bytes that it surely takes now: it only gets emptier by itself */

/* What waits for the transmitter. A line of the log with what the console draws around it fits into
 * a fourth of it; half of it takes 90 ms at 115200 baud. */
#define QUEUE 2048u
static char queue[QUEUE];
static unsigned queue_first, queued;

bool uart_init(void)
{
    outb(UART_SCRATCH, 0x5a);
    present = inb(UART_SCRATCH) == 0x5a;
    if (!present)
        return false;
    outb(UART_LCR, LCR_DLAB);
    outb(UART_DIVISOR_LOW, DIVISOR_115200);
    outb(UART_DIVISOR_HIGH, 0);
    outb(UART_LCR, LCR_8N1);
    outb(UART_IER, 0);
    outb(UART_FCR, FCR_ENABLE_AND_CLEAR);
    depth = (inb(UART_IIR) & IIR_FIFOS) == IIR_FIFOS ? FIFO_DEPTH : 1;
    room = 0;
    queued = 0;
    outb(UART_MCR, MCR_DTR_RTS);
    return true;
}

int uart_getc(void)
{
    if (!present || (inb(UART_LSR) & LSR_DATA_READY) == 0)
        return -1;
    return inb(UART_DATA);
}

void uart_interrupt(enum uart_interrupt what)
{
    if (!present)
        return;
    outb(UART_MCR, what == UART_INTERRUPT_NONE ? MCR_DTR_RTS : MCR_DTR_RTS | MCR_OUT2);
    outb(UART_IER, (uint8_t)what);
}

static bool wait_for(uint8_t status)
{
    for (unsigned polls = 0; polls < POLL_LIMIT; polls++)
        if (inb(UART_LSR) & status)
            return true;
    return false;
}

void uart_hold_sender(void)
{
    if (!present)
        return;
    uart_flush(); /* the port forgets what is in a FIFO that is switched off */
    outb(UART_FCR, 0);
    depth = 1;
    room = 0;
}

/* One look at the status for a whole FIFO: under nested virtualisation a port access costs most. */
static void send(char c)
{
    if (room == 0) {
        if (!wait_for(LSR_HOLDING_EMPTY))
            return;
        room = depth;
    }
    room--; /* first: what interrupts here and prints must not count on this place */
    outb(UART_DATA, (uint8_t)c);
}

static void send_queued(void)
{
    char c = queue[queue_first];

    queue_first = (queue_first + 1) % QUEUE;
    queued--; /* first, as above */
    send(c);
}

static void write(struct sink *sink, const char *bytes, size_t n)
{
    (void)sink;
    if (!present)
        return;
    while (queued)
        send_queued();
    for (size_t i = 0; i < n; i++) {
        if (bytes[i] == '\n')
            send('\r');
        send(bytes[i]);
    }
}

struct sink uart_sink = {write};

static void enqueue(char c)
{
    if (queued == QUEUE)
        send_queued();
    queue[(queue_first + queued) % QUEUE] = c;
    queued++;
}

static void write_queue(struct sink *sink, const char *bytes, size_t n)
{
    (void)sink;
    if (!present)
        return;
    for (size_t i = 0; i < n; i++) {
        if (bytes[i] == '\n')
            enqueue('\r');
        enqueue(bytes[i]);
    }
    uart_attend();
}

struct sink uart_queue_sink = {write_queue};

bool uart_attend(void)
{
    uint8_t status;

    if (!present)
        return false;
    for (;;) {
        while (queued && room)
            send_queued();
        status = inb(UART_LSR);
        if (!queued || !(status & LSR_HOLDING_EMPTY))
            return (status & LSR_DATA_READY) != 0;
        room = depth;
    }
}

bool uart_is_queued(void)
{
    return queued != 0;
}

bool uart_has_room(void)
{
    if (queued > QUEUE / 2)
        uart_attend();
    return queued <= QUEUE / 2;
}

void uart_flush(void)
{
    if (!present)
        return;
    while (queued)
        send_queued();
    wait_for(LSR_ALL_SENT);
}
