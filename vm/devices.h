/*
 * The devices that a guest finds at the ports of a PC: their state, as part of struct guest.
 *
 * Each is a file of its own (vm/dev_*.c) that offers rows of port ranges (vm/ports.h). None
 * raises an interrupt yet: the interrupt controllers can be programmed and stay silent, the
 * serial port is to be polled. What is missing reads as all ones, as on an empty bus.
 */
#ifndef QUIRE_VM_DEVICES_H
#define QUIRE_VM_DEVICES_H

#include <stdbool.h>
#include <stdint.h>

#define SERIAL_INPUT 256

/* A 16550A without a modem behind it. Output goes to guest_putc(). */
struct dev_serial {
    uint8_t ier, lcr, mcr, scratch;
    uint8_t divisor_low, divisor_high;
    bool fifo;
    bool transmit_interrupt;     /* "transmitter empty" is pending in IIR */
    uint8_t input[SERIAL_INPUT]; /* ring */
    unsigned input_first, input_count;
    bool overrun;
};

/* MC146818 clock and its 128 bytes; the clock stands still. */
struct dev_cmos {
    uint8_t index;
    uint8_t ram[128];
};

/* 8254: three counters that follow the host's clock, scaled (vm/dev_pit.c). */
struct dev_pit {
    struct pit_counter {
        uint16_t reload;            /* 0 counts as 65536 */
        uint8_t mode, access;       /* access: 1 low byte, 2 high byte, 3 low then high */
        bool write_high, read_high; /* which half comes next */
        bool latched, status_latched;
        uint8_t write_low, status;
        uint16_t latch;
        uint64_t started; /* clock when the count was loaded */
    } counter[3];
    uint8_t gate; /* port 0x61, bits 0 and 1 */
};

/* Two 8259A: masks and initialisation are kept, nothing is ever requested. */
struct dev_pic {
    struct pic_chip {
        uint8_t mask;
        uint8_t init_left; /* initialisation words still to come */
        uint8_t trigger;   /* ELCR */
    } chip[2];
};

/* 8042 without a keyboard: enough to be probed, to open A20, and to ask for a reset. */
struct dev_keyboard {
    uint8_t command; /* whose data byte is awaited, 0 for none */
    uint8_t config, output;
    bool output_full;
};

struct guest_devices {
    struct dev_serial serial;
    struct dev_cmos cmos;
    struct dev_pit pit;
    struct dev_pic pic;
    struct dev_keyboard keyboard;
    uint64_t unclaimed; /* accesses to ports that no device has */
    uint16_t last_unclaimed;
};

#endif
