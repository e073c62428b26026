/*
 * The devices that a guest finds at the ports of a PC: their state, as part of struct guest.
 *
 * Each is a file of its own (vm/dev_*.c) that offers a row (vm/device.h). Those that raise
 * interrupts drive a line (vm/interrupts.h). What is missing reads as all ones, as on an empty bus.
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

/* 8254: three counters that follow the host's clock, scaled (vm/dev_pit.c). The first drives IRQ 0.
 */
struct dev_pit {
    struct pit_counter {
        bool loaded;                /* it counts */
        uint16_t reload;            /* 0 counts as 65536 */
        uint8_t mode, access;       /* access: 1 low byte, 2 high byte, 3 low then high */
        bool write_high, read_high; /* which half comes next */
        bool latched, status_latched;
        uint8_t write_low, status;
        uint16_t latch;
        uint64_t started; /* clock when the count was loaded */
        uint64_t hz;      /* of the clock */
        uint64_t edges;   /* of its output since then that have become interrupts */
    } counter[3];
    uint8_t gate; /* port 0x61, bits 0 and 1 */
};

/* Two 8259A, the second at line 2 of the first. Bit n of a byte is line n. */
struct dev_pic {
    struct pic_chip {
        uint8_t lines;               /* as the devices drive them */
        uint8_t requests;            /* IRR */
        uint8_t in_service;          /* ISR */
        uint8_t mask;                /* IMR */
        uint8_t trigger;             /* ELCR: 1 is level */
        uint8_t vector;              /* of line 0 */
        uint8_t lowest;              /* the line of lowest priority; the next one has the highest */
        uint8_t init_step;           /* the initialisation word that comes next: 2, 3, 4; 0: none */
        bool single, wants_icw4;     /* by ICW1 */
        bool auto_end, special_nest; /* by ICW4 */
        bool rotate_auto, special_mask, read_service, poll;
    } chip[2];
};

/* 8042 without a keyboard: enough to be probed, to open A20, and to ask for a reset. */
struct dev_keyboard {
    uint8_t command; /* whose data byte is awaited, 0 for none */
    uint8_t config, output;
    bool output_full;
};

/* A local APIC. Sets of vectors: bit n of word w is vector 64 w + n. */
enum lapic_lvt {
    LAPIC_LVT_TIMER,
    LAPIC_LVT_THERMAL,
    LAPIC_LVT_PERF,
    LAPIC_LVT_LINT0,
    LAPIC_LVT_LINT1,
    LAPIC_LVT_ERROR,
    LAPIC_LVTS
};

struct dev_lapic {
    uint64_t base;   /* IA32_APIC_BASE */
    uint64_t irr[4]; /* requested */
    uint64_t isr[4]; /* in service */
    uint64_t tmr[4]; /* came by a level */
    uint32_t lvt[LAPIC_LVTS];
    uint64_t icr;
    uint32_t svr, dfr;
    uint32_t esr, errors; /* as it is read; noted since */
    uint8_t id, ldr;      /* bits 31:24 of their registers */
    uint8_t tpr_low;      /* bits 3:0; bits 7:4 are CR8 */
    bool nmi;             /* one waits */
    struct lapic_timer {
        uint32_t crystal_share, tsc_share; /* so many counts in so many ticks */
        uint32_t initial;
        uint8_t divide;
        bool runs;
        uint64_t started;  /* clock when the count, or its present period, began */
        uint64_t deadline; /* 0: none */
    } timer;
};

/* 82093AA. Bit n of lines is pin n. */
#define IOAPIC_PINS 24u
struct dev_ioapic {
    uint8_t index;
    uint32_t id, lines;
    uint64_t entry[IOAPIC_PINS];
};

#define HPET_TIMERS 3u
struct dev_hpet {
    uint32_t config, status;
    uint64_t base, started; /* the counter stood at base when the clock was `started` */
    uint64_t tsc_hz;
    struct hpet_timer {
        uint32_t config;
        uint64_t comparator, period;
        uint64_t armed_at, distance; /* it matches so many counts after that one */
    } timer[HPET_TIMERS];
};

struct guest_devices {
    struct dev_serial serial;
    struct dev_cmos cmos;
    struct dev_pit pit;
    struct dev_pic pic;
    struct dev_keyboard keyboard;
    struct dev_lapic lapic;
    struct dev_ioapic ioapic;
    struct dev_hpet hpet;
    uint64_t quiet_until; /* clock before which no interrupt can come, if nobody touches a device */
    uint64_t unclaimed;   /* accesses to ports that no device has */
    uint16_t last_unclaimed;
};

#endif
